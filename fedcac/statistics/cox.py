"""Site-stratified Cox regression, exact across sites: every site is a stratum of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedcac.aggregate import Aggregate, LikelihoodTerms, Totals, register
from fedcac.errors import TableError
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import CoxSpec, Protocol
from fedcac.protocol.columns import endpoint_of
from fedcac.statistics.cox_by_site import BY_SITE_QUERY, by_site_rows, own_coefficients
from fedcac.statistics.cox_rows import cox_rows
from fedcac.statistics.cox_sums import CoxPacking
from fedcac.statistics.design import design_of
from fedcac.statistics.estimator import (
    NO_FITS,
    Estimate,
    Estimator,
    Pooling,
    QueryError,
    register_estimator,
)
from fedcac.statistics.fit import Fit
from fedcac.statistics.newton import STEP, maximise, newton_query, queried_parameters
from fedcac.statistics.partial_likelihood import PartialLikelihood, partial_likelihood
from fedcac.statistics.rows import fit_status, value_row
from fedcac.statistics.sums import answered, is_table, summed_totals, totals_status
from fedcac.vocabulary import SiteName

__all__ = ["Cox", "CoxTerms", "CoxTotals", "survival_data"]

MAXIMUM = "maximum"
"""The step that asks, at the maximum, for everything that is a sum there."""


@register
class CoxTerms(LikelihoodTerms):
    """The Cox partial likelihood of a site's stratum at the queried log hazard ratios."""

    kind: ClassVar[str] = "cox_terms"
    has_endpoint: ClassVar[bool] = True


@register
class CoxTotals(Totals):
    """Sums at the maximum, in one row, packed as `CoxSums` describes; or the site's own model."""

    kind: ClassVar[str] = "cox_totals"
    has_endpoint: ClassVar[bool] = True


@register_estimator
class Cox(Estimator[CoxSpec]):
    """Log hazard ratios of a Cox model with a baseline hazard per site (Miller 2023 Table 2).

    Rows, all `pooled`: log_hazard_ratio and hazard_ratio per term with Wald's interval and
    p-value, by the sandwich variance if `robust` (ci_method `wald_robust`); lr_chi2 of the whole
    model against the null; proportionality_chi2 per term and, with term '', global (the score test
    of Grambsch and Therneau for a coefficient linear in time); c_index over the pairs within
    sites, with the infinitesimal jackknife's standard error. A term whose covariate is constant
    within the sites, or a combination of earlier ones, is not estimable, nor is a ratio beyond the
    largest double; if the likelihood has no maximum, no row is. With `by_site`, hazard_ratio also
    per site, from a model of its own patients, and `meta` as in `meta_rows`, again without each
    site. A site that refused has one log_hazard_ratio row per term with its status and no number.
    """

    kind: ClassVar[str] = "cox"
    aggregate_types: ClassVar[tuple[type[Aggregate], ...]] = (CoxTerms, CoxTotals)

    def __init__(self, spec: CoxSpec, protocol: Protocol) -> None:
        super().__init__(spec, protocol)
        self.design = design_of(spec, protocol)
        self._packing = CoxPacking(
            n_terms=len(self.design.terms),
            robust=spec.robust,
            proportionality=spec.proportionality,
            concordance=spec.concordance,
        )
        self._fit: Fit | None = None

    @property
    def fit(self) -> Fit | None:
        """The fit `pool` ended with; None before."""
        return self._fit

    # --- at a site --------------------------------------------------------------------------

    def summarise(self, exams: Exams, query: Query) -> CoxTerms | CoxTotals:
        """Return the likelihood's terms at the query's beta, or the sums of a further step.

        Raises
        ------
        QueryError
            If the query is not one of this analysis with one `beta` per term, or if it leads to an
            infinite linear predictor.
        TableError
            If an event is not 0 or 1, or a covariate holds a value it cannot have.
        KeyError
            If a column is absent.
        """
        if query == BY_SITE_QUERY and self.spec.by_site:
            return self._own(exams)
        if query.step == STEP:
            return self._likelihood(exams, query)
        if query.step == MAXIMUM and self._packing.length:
            return self._totals(exams, query.model_copy(update={"step": STEP}))
        raise QueryError(f"this analysis does not ask the step '{query.step}'")

    def _likelihood(self, exams: Exams, query: Query) -> CoxTerms:
        beta = queried_parameters(query, len(self.design.terms))
        complete = self.cohort(exams)
        time, event = survival_data(self, complete)
        x = self.design.matrix(complete)
        try:
            terms = self._terms(x, time, event, beta)
        except ValueError as error:
            raise QueryError(str(error)) from error
        return CoxTerms(
            n_patients=complete.n,
            n_events=terms.n_events,
            log_likelihood=terms.log_likelihood,
            gradient=tuple(terms.gradient.tolist()),
            information=tuple(tuple(row) for row in terms.information.tolist()),
            evidence=self.design.evidence(x, beta),
        )

    def _own(self, exams: Exams) -> CoxTotals:
        complete = self.cohort(exams)
        _, event = survival_data(self, complete)
        p = len(self.design.terms)
        rows = own_coefficients(p, CoxTerms, lambda query: self._likelihood(exams, query))
        beta = np.array([row[0] for row in rows])
        evidence = self.design.evidence(self.design.matrix(complete), beta)
        group = complete.n if evidence.smallest_group is None else evidence.smallest_group
        return CoxTotals(
            n_patients=complete.n,
            n_events=int(event.sum()),
            values=rows,
            evidence=evidence.model_copy(update={"smallest_group": group}),
        )

    def _terms(
        self,
        x: NDArray[np.float64],
        time: NDArray[np.float64],
        event: NDArray[np.bool_],
        beta: NDArray[np.float64],
    ) -> PartialLikelihood:
        """Return the terms of all models: one, or a univariable series side by side."""
        p = x.shape[1]
        total = PartialLikelihood(0.0, np.zeros(p), np.zeros((p, p)), int(event.sum()))
        for model in self.design.models():
            own = partial_likelihood(x[:, model], time, event, beta[model], self.spec.ties)
            total.gradient[model] = own.gradient
            total.information[model, model] = own.information
            total = replace(total, log_likelihood=total.log_likelihood + own.log_likelihood)
        return total

    def _totals(self, exams: Exams, query: Query) -> CoxTotals:
        beta = queried_parameters(query, len(self.design.terms))
        complete = self.cohort(exams)
        time, event = survival_data(self, complete)
        x = self.design.matrix(complete)
        try:
            sums = self._packing.at_site(x, time, event, beta, self.spec.ties)
        except ValueError as error:
            raise QueryError(str(error)) from error
        evidence = self.design.evidence(x, beta)
        group = len(x) if evidence.smallest_group is None else evidence.smallest_group
        return CoxTotals(
            n_patients=len(x),
            n_events=int(event.sum()),
            values=(tuple(sums.tolist()),),
            evidence=evidence.model_copy(update={"smallest_group": group}),
        )

    # --- at the coordinator -----------------------------------------------------------------

    def pool(self, sites: Sequence[SiteName], fits: Mapping[str, Fit] = NO_FITS) -> Pooling:
        """Fit by Newton's method over exchanges, then ask once for the sums at the maximum."""
        self._fit = fit = yield from maximise(sites, len(self.design.terms), CoxTerms)
        sums, absent = None, fit_status(fit)
        if fit.is_ok and self._packing.length:
            answers = yield newton_query(fit.coefficients).model_copy(update={"step": MAXIMUM})
            total = summed_totals(answers, fit.sites, CoxTotals, (1, self._packing.length))
            sums = None if total is None else self._packing.unpack(total[0])
            absent = totals_status(answers, fit.sites, CoxTotals)
        rows = cox_rows(self.spec, self.design.terms, fit, sums, absent)
        if not self.spec.by_site:
            return _within_range(rows)
        shape = is_table(len(self.design.terms), 2)
        given, refused = answered((yield BY_SITE_QUERY), sites, CoxTotals, shape)
        # Whoever is not in the fit does not count beside it.
        given = {site: answer for site, answer in given.items() if site not in fit.refused}
        refused = {**refused, **fit.refused}
        own = by_site_rows(self.spec, self.design.terms, given, refused, sites)
        return _within_range(chain(rows, own))


def _within_range(rows: Iterable[Estimate]) -> tuple[Estimate, ...]:
    """Return the rows, not estimable where a ratio or its limit is beyond the largest double.

    A covariate that hardly varies has an interval of its logarithm that is hundreds wide.
    """
    with np.errstate(over="ignore"):
        return tuple(row if _is_finite(row) else _without_numbers(row) for row in rows)


def _is_finite(row: Estimate) -> bool:
    numbers = (row.estimate, row.ci_low, row.ci_high)
    return all(number is None or np.isfinite(number) for number in numbers)


def _without_numbers(row: Estimate) -> Estimate:
    return value_row(
        row.analysis,
        row.scope,
        row.measure,
        None,
        group=row.group,
        term=row.term,
        n=row.n,
        n_events=row.n_events,
    )


def survival_data(
    estimator: Estimator[Any], exams: Exams
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return follow-up and event, shape (n,), of the estimator's endpoint.

    Raises
    ------
    TableError
        If an event is not 0 or 1.
    KeyError
        If the analysis has no endpoint.
    """
    endpoint = endpoint_of(estimator.spec, estimator.protocol)
    if endpoint is None:
        raise KeyError("endpoint")
    event = exams.column(endpoint.event_column)
    if not np.all(np.isin(event, (0, 1))):
        raise TableError(
            f"Column '{endpoint.event_column}' holds a value that is not 0 or 1.",
            code="unknown_event",
            cure="Code the event 1 if it happened at the end of follow-up, else 0.",
        )
    return exams.column(endpoint.time_column), event == 1
