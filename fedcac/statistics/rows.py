"""What every estimator's rows have in common: a value with its interval, the normal test."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import special

from fedcac.statistics.estimator import Estimate
from fedcac.statistics.fit import Fit, FitStatus
from fedcac.statistics.intervals import Z95
from fedcac.vocabulary import Measure, RefusalCode, RowStatus

__all__ = ["Value", "fit_status", "refusal_status", "two_sided_p", "value_row", "wald"]

_NOTHING_TO_ESTIMATE = frozenset({RefusalCode.NOT_COMPUTABLE, RefusalCode.EMPTY_COHORT})


def refusal_status(code: RefusalCode) -> RowStatus:
    """Return the status of a refused site's rows.

    `not_estimable` if the site had nothing to compute from, `suppressed` for every other code.
    """
    return RowStatus.NOT_ESTIMABLE if code in _NOTHING_TO_ESTIMATE else RowStatus.SUPPRESSED


def fit_status(fit: Fit) -> RowStatus:
    """Return the status of the rows of a fit: suppressed only if disclosure left no site."""
    if fit.is_ok:
        return RowStatus.OK
    codes = {refusal_status(code) for code in fit.refused.values()}
    is_hidden = fit.status is FitStatus.NO_ANSWER and RowStatus.SUPPRESSED in codes
    return RowStatus.SUPPRESSED if is_hidden else RowStatus.NOT_ESTIMABLE


def two_sided_p(estimate: float, se: float) -> float | None:
    """Return the two-sided normal p-value of estimate / se; None without a standard error."""
    return float(2 * special.ndtr(-abs(estimate) / se)) if se > 0 else None


@dataclass(frozen=True)
class Value:
    """A number with its standard error, 95 % interval and p-value, as far as it has them."""

    estimate: float
    se: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    ci_method: str = ""
    p_value: float | None = None


def wald(
    estimate: float,
    se: float | None,
    *,
    low: float = -float("inf"),
    high: float = float("inf"),
    method: str = "wald",
    is_tested: bool = False,
) -> Value:
    """Return a value with Wald's interval, cut to low .. high, and on request its test of 0."""
    if se is None:
        return Value(estimate)
    return Value(
        estimate,
        se,
        max(low, estimate - Z95 * se),
        min(high, estimate + Z95 * se),
        method,
        two_sided_p(estimate, se) if is_tested else None,
    )


def value_row(
    analysis: str,
    scope: str,
    measure: Measure,
    value: Value | None,
    *,
    absent: RowStatus = RowStatus.NOT_ESTIMABLE,
    group: str = "",
    term: str = "",
    n: int | None = None,
    n_events: int | None = None,
) -> Estimate:
    """Return the row of a value, or one without a number and with the status `absent`."""
    if value is None:
        return Estimate(
            analysis, scope, measure, group=group, term=term, n=n, n_events=n_events, status=absent
        )
    return Estimate(
        analysis,
        scope,
        measure,
        group=group,
        term=term,
        estimate=value.estimate,
        se=value.se,
        ci_low=value.ci_low,
        ci_high=value.ci_high,
        ci_method=value.ci_method,
        p_value=value.p_value,
        n=n,
        n_events=n_events,
    )
