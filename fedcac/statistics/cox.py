"""Site-stratified Cox regression, exact across sites: every site is a stratum of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedcac.aggregate import Aggregate, Evidence, LikelihoodTerms, register
from fedcac.errors import TableError
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import CoxSpec, Protocol
from fedcac.statistics.design import design_of
from fedcac.statistics.estimator import (
    POOLED,
    Estimate,
    Estimator,
    Pooling,
    QueryError,
    register_estimator,
)
from fedcac.statistics.intervals import Z95
from fedcac.statistics.newton import Fit, FitStatus, maximise, queried_parameters
from fedcac.statistics.partial_likelihood import partial_likelihood
from fedcac.statistics.rows import refusal_status, two_sided_p
from fedcac.vocabulary import Measure, RowStatus, SiteName

__all__ = ["Cox", "CoxTerms"]


@register
class CoxTerms(LikelihoodTerms):
    """The Cox partial likelihood of a site's stratum at the queried log hazard ratios."""

    kind: ClassVar[str] = "cox_terms"


@register_estimator
class Cox(Estimator[CoxSpec]):
    """Log hazard ratios of a Cox model with a baseline hazard per site (Miller 2023 Table 2).

    Rows, all `pooled`: log_hazard_ratio and hazard_ratio per term with Wald's interval and
    p-value, lr_chi2 of the whole model against the null with as many degrees of freedom as there
    are identified terms. A term whose covariate is constant within the sites, or a combination of
    earlier ones, is not estimable; if the likelihood has no maximum, no row is. A site that
    refused has one log_hazard_ratio row per term with its status and no number.
    """

    kind: ClassVar[str] = "cox"
    aggregate_types: ClassVar[tuple[type[Aggregate], ...]] = (CoxTerms,)

    def __init__(self, spec: CoxSpec, protocol: Protocol) -> None:
        super().__init__(spec, protocol)
        self._design = design_of(spec, protocol)
        self._endpoint = protocol.endpoint(spec.endpoint)

    @property
    def columns(self) -> tuple[str, ...]:
        """Follow-up, event, covariates, and the score behind the risk category."""
        endpoint = self._endpoint
        return (endpoint.time_column, endpoint.event_column, *self._design.needs)

    def summarise(self, exams: Exams, query: Query) -> CoxTerms:
        """Return log-likelihood, score and information of the complete exams at the query's beta.

        Raises
        ------
        QueryError
            If the query is not the step `newton` with one `beta` per term, or if it leads to an
            infinite linear predictor.
        TableError
            If an event is not 0 or 1, or a covariate holds a value it cannot have.
        KeyError
            If a column is absent.
        """
        beta = queried_parameters(query, len(self._design.terms))
        complete = exams.complete(self.columns)
        event = complete.column(self._endpoint.event_column)
        if not np.all(np.isin(event, (0, 1))):
            raise TableError(
                f"Column '{self._endpoint.event_column}' holds a value that is not 0 or 1.",
                code="unknown_event",
                cure="Code the event 1 if it happened at the end of follow-up, else 0.",
            )
        x = self._design.matrix(complete)
        time = complete.column(self._endpoint.time_column)
        try:
            terms = partial_likelihood(x, time, event == 1, beta, self.spec.ties)
        except ValueError as error:
            raise QueryError(str(error)) from error
        return CoxTerms(
            n_patients=complete.n,
            n_events=terms.n_events,
            log_likelihood=terms.log_likelihood,
            gradient=tuple(terms.gradient.tolist()),
            information=tuple(tuple(row) for row in terms.information.tolist()),
            evidence=self._evidence(x, beta),
        )

    def _evidence(self, x: NDArray[np.float64], beta: NDArray[np.float64]) -> Evidence:
        ones = x[:, self._design.indicators].sum(axis=0)
        sizes = np.minimum(ones, len(x) - ones)
        spread = x.std(axis=0) if len(x) else np.zeros(x.shape[1])
        return Evidence(
            n_parameters=x.shape[1],
            smallest_group=int(sizes.min()) if len(sizes) else None,
            parameter_norm=float(np.max(np.abs(beta) * spread)),
        )

    def pool(self, sites: Sequence[SiteName]) -> Pooling:
        """Fit by Newton's method over exchanges."""
        fit = yield from maximise(sites, len(self._design.terms), CoxTerms)
        return (*self._term_rows(fit), self._lr_row(fit), *self._refused_rows(fit))

    def _term_rows(self, fit: Fit) -> Iterator[Estimate]:
        status = _status(fit)
        for j, term in enumerate(self._design.terms):
            if status is not RowStatus.OK or not fit.identified[j]:
                own = RowStatus.NOT_ESTIMABLE if status is RowStatus.OK else status
                for measure in (Measure.LOG_HAZARD_RATIO, Measure.HAZARD_RATIO):
                    yield self._row(fit, measure, term=term, status=own)
                continue
            estimate, se = float(fit.parameters[j]), float(fit.standard_errors[j])
            numbers = np.array([estimate, estimate - Z95 * se, estimate + Z95 * se])
            p_value = two_sided_p(estimate, se)
            yield self._row(
                fit, Measure.LOG_HAZARD_RATIO, term=term, numbers=numbers, se=se, p_value=p_value
            )
            yield self._row(
                fit, Measure.HAZARD_RATIO, term=term, numbers=np.exp(numbers), p_value=p_value
            )

    def _lr_row(self, fit: Fit) -> Estimate:
        status = _status(fit)
        if status is not RowStatus.OK:
            return self._row(fit, Measure.LR_CHI2, status=status)
        # At the maximum the difference is at least 0; rounding can leave less.
        chi2 = max(0.0, 2 * (fit.log_likelihood - fit.null_log_likelihood))
        df = int(np.count_nonzero(fit.identified))
        return Estimate(
            self.spec.id,
            POOLED,
            Measure.LR_CHI2,
            estimate=chi2,
            p_value=float(special.chdtrc(df, chi2)),
            n=fit.n_patients,
            n_events=fit.n_events,
        )

    def _refused_rows(self, fit: Fit) -> Iterator[Estimate]:
        for site, code in fit.refused.items():
            for term in self._design.terms:
                yield Estimate(
                    self.spec.id,
                    site,
                    Measure.LOG_HAZARD_RATIO,
                    term=term,
                    status=refusal_status(code),
                )

    def _row(
        self,
        fit: Fit,
        measure: Measure,
        *,
        term: str = "",
        numbers: NDArray[np.float64] | None = None,
        se: float | None = None,
        p_value: float | None = None,
        status: RowStatus = RowStatus.OK,
    ) -> Estimate:
        estimate, low, high = (None, None, None) if numbers is None else map(float, numbers)
        return Estimate(
            self.spec.id,
            POOLED,
            measure,
            term=term,
            estimate=estimate,
            se=se,
            ci_low=low,
            ci_high=high,
            ci_method="" if numbers is None else "wald",
            p_value=p_value,
            n=fit.n_patients or None,
            n_events=fit.n_events if fit.n_patients else None,
            status=status,
        )


def _status(fit: Fit) -> RowStatus:
    if fit.status is FitStatus.OK:
        return RowStatus.OK
    codes = {refusal_status(code) for code in fit.refused.values()}
    is_hidden = fit.status is FitStatus.NO_ANSWER and RowStatus.SUPPRESSED in codes
    return RowStatus.SUPPRESSED if is_hidden else RowStatus.NOT_ESTIMABLE
