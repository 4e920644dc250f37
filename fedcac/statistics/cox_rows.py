"""The rows of estimates.csv that a Cox fit ends in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedcac.protocol import CoxSpec
from fedcac.statistics.cox_sums import CoxSums
from fedcac.statistics.estimator import POOLED, Estimate
from fedcac.statistics.fit import Fit
from fedcac.statistics.risk_sets import proportionality_test
from fedcac.statistics.rows import Value, fit_status, refusal_status, value_row, wald
from fedcac.vocabulary import Measure, RowStatus

__all__ = ["cox_rows"]

Vector = NDArray[np.float64]


def cox_rows(
    spec: CoxSpec,
    terms: Sequence[str],
    fit: Fit,
    sums: CoxSums | None,
    absent: RowStatus,
) -> Iterator[Estimate]:
    """Yield every row of a Cox analysis; `sums` are those at the maximum, if all sites gave them.

    Without them, what they were asked for has the status `absent`, and standard errors are the
    model's.
    """
    covariance, method = fit.covariance, "wald"
    if sums is not None and sums.score_products is not None:
        covariance, method = covariance @ sums.score_products @ covariance, "wald_robust"
    for j, term in enumerate(terms):
        se: float | None = float(covariance[j, j]) ** 0.5
        if se < 1e-8 * float(fit.covariance[j, j]) ** 0.5:
            # Residuals that are all zero say nothing about the spread.
            se = None
        yield from _term_rows(spec, fit, j, term, se, method)
    if not spec.univariable:
        yield _likelihood_ratio(spec, fit)
    if spec.proportionality:
        yield from _proportionality_rows(spec, terms, fit, sums, absent)
    if spec.concordance:
        yield _concordance_row(spec, fit, sums, absent)
    for site, code in fit.refused.items():
        for term in terms:
            yield Estimate(
                spec.id, site, Measure.LOG_HAZARD_RATIO, term=term, status=refusal_status(code)
            )


def _term_rows(
    spec: CoxSpec, fit: Fit, j: int, term: str, se: float | None, method: str
) -> Iterator[Estimate]:
    status = fit_status(fit)
    if status is RowStatus.OK and not fit.identified[j]:
        status = RowStatus.NOT_ESTIMABLE
    if status is not RowStatus.OK:
        for measure in (Measure.LOG_HAZARD_RATIO, Measure.HAZARD_RATIO):
            yield _row(spec, fit, measure, None, term=term, absent=status)
        return
    value = wald(float(fit.parameters[j]), se, method=method, is_tested=True)
    limits = [value.ci_low, value.ci_high]
    ratio = replace(
        value,
        estimate=float(np.exp(value.estimate)),
        se=None,
        ci_low=None if limits[0] is None else float(np.exp(limits[0])),
        ci_high=None if limits[1] is None else float(np.exp(limits[1])),
    )
    for measure, own in ((Measure.LOG_HAZARD_RATIO, value), (Measure.HAZARD_RATIO, ratio)):
        yield _row(spec, fit, measure, own, term=term)


def _likelihood_ratio(spec: CoxSpec, fit: Fit) -> Estimate:
    status = fit_status(fit)
    if status is not RowStatus.OK:
        return _row(spec, fit, Measure.LR_CHI2, None, absent=status)
    # At the maximum the difference is at least 0; rounding can leave less.
    chi2 = max(0.0, 2 * (fit.log_likelihood - fit.null_log_likelihood))
    p_value = float(special.chdtrc(fit.degrees_of_freedom, chi2))
    return _row(spec, fit, Measure.LR_CHI2, Value(chi2, p_value=p_value))


def _proportionality_rows(
    spec: CoxSpec, terms: Sequence[str], fit: Fit, sums: CoxSums | None, absent: RowStatus
) -> Iterator[Estimate]:
    if sums is None or sums.proportionality is None:
        for term in (*terms, ""):
            yield _row(spec, fit, Measure.PROPORTIONALITY_CHI2, None, term=term, absent=absent)
        return
    keep = np.flatnonzero(fit.identified)
    table = sums.proportionality
    vectors = [table[row, keep] for row in (0, 1)]
    tables = [table[np.ix_(2 + number * len(terms) + keep, keep)] for number in range(3)]
    tests = proportionality_test(*vectors, *tables)
    found = dict(zip([terms[int(j)] for j in keep], tests[:-1], strict=True)) | {"": tests[-1]}
    for term in (*terms, ""):
        test = found.get(term)
        value = None if test is None else Value(test.chi2, p_value=test.p_value)
        yield _row(spec, fit, Measure.PROPORTIONALITY_CHI2, value, term=term)


def _concordance_row(spec: CoxSpec, fit: Fit, sums: CoxSums | None, absent: RowStatus) -> Estimate:
    pairs = None if sums is None else sums.concordance
    if pairs is None:
        return _row(spec, fit, Measure.C_INDEX, None, absent=absent)
    c, value = pairs.c_index, None
    if c is not None:
        value = wald(c, pairs.standard_error, low=0.0, high=1.0)
    return _row(spec, fit, Measure.C_INDEX, value)


def _row(
    spec: CoxSpec,
    fit: Fit,
    measure: Measure,
    value: Value | None,
    *,
    term: str = "",
    absent: RowStatus = RowStatus.NOT_ESTIMABLE,
) -> Estimate:
    return value_row(
        spec.id,
        POOLED,
        measure,
        value,
        absent=absent,
        term=term,
        n=fit.n_patients or None,
        n_events=fit.n_events if fit.n_patients else None,
    )
