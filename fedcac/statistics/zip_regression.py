"""Zero-inflated Poisson regression of the score on who scored it, over all sites."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedcac.aggregate import Aggregate, Evidence, LikelihoodTerms, Totals, register
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import ZeroInflatedSpec
from fedcac.statistics.design import design_evidence
from fedcac.statistics.estimator import (
    NO_FITS,
    POOLED,
    Estimate,
    Estimator,
    Pooling,
    QueryError,
    register_estimator,
)
from fedcac.statistics.fit import Fit
from fedcac.statistics.intervals import Z95
from fedcac.statistics.newton import maximise, queried_parameters
from fedcac.statistics.rows import fit_status, refusal_status, two_sided_p
from fedcac.statistics.sums import answered, is_table, missing_status
from fedcac.statistics.zero_inflated import zip_start, zip_terms
from fedcac.statistics.zip_patient_effect import zip_random_terms
from fedcac.vocabulary import Measure, RowStatus, SiteName

__all__ = ["ZeroInflated", "ZipStart", "ZipTerms"]

START_QUERY = Query(step="start")
MAXIMUM_EXCHANGES = 40
"""The likelihood is not concave: from a start by moments it takes more steps than a Cox model."""

LARGEST_SE = 1e4
"""Of a log rate or log odds: one that is larger says that it tends to infinity, along which the
likelihood has become flat. The log of a standard deviation may do so, without harm to the others.
"""


@register
class ZipTerms(LikelihoodTerms):
    """Terms of the zero-inflated Poisson likelihood; events are patients with calcium."""

    kind: ClassVar[str] = "zip_terms"


@register
class ZipStart(Totals):
    """Number of scores, how many are 0 after rounding, and their sum."""

    kind: ClassVar[str] = "zip_start"


@register_estimator
class ZeroInflated(Estimator[ZeroInflatedSpec]):
    """Whether the index test scores differently from the reference standard (Eng 2021, Results).

    Every patient gives two responses, the reference's and the index test's score rounded to whole
    numbers. Rows, all `pooled`: zip_log_rate_ratio, term `index`, the log ratio of mean scores
    among those who can have calcium; zip_log_odds_ratio, the log odds ratio of an excess zero; and
    with `patient_effect` zip_log_sigma, the log standard deviation of the patients' log means.
    Without the patient effect the two scores of a patient count as independent, as in the paper's
    retrospective test.
    """

    kind: ClassVar[str] = "zero_inflated"
    aggregate_types: ClassVar[tuple[type[Aggregate], ...]] = (ZipTerms, ZipStart)

    @property
    def n_parameters(self) -> int:
        """Two of the mean, two of the inflation, and log sigma."""
        return 5 if self.spec.patient_effect else 4

    def summarise(self, exams: Exams, query: Query) -> ZipTerms | ZipStart:
        """Return the counts for a start, or the likelihood's terms at the query's parameters.

        Raises
        ------
        QueryError
            If the query is neither step, or leads beyond what can be computed.
        KeyError
            If a score column is absent.
        """
        complete = self.cohort(exams)
        names = [
            self.protocol.score_column(role) for role in (self.spec.reference, self.spec.index)
        ]
        # Interleaved, so that a patient's two rows stand together.
        y = np.stack([np.rint(complete.column(name)) for name in names], axis=1).reshape(-1)
        has_calcium = np.any(y.reshape(-1, 2) > 0, axis=1)
        n_events = int(np.count_nonzero(has_calcium))
        if query == START_QUERY:
            zeros = int(np.count_nonzero(y == 0))
            without = complete.n - n_events
            one_zero = zeros - 2 * without
            return ZipStart(
                n_patients=complete.n,
                n_events=n_events,
                values=((float(len(y)), float(zeros), float(y.sum())),),
                evidence=Evidence(smallest_group=min(n_events, without, one_zero)),
            )
        parameters = queried_parameters(query, self.n_parameters)
        design = np.tile([[1.0, 0.0], [1.0, 1.0]], (complete.n, 1))
        try:
            terms = self._terms(y, design, np.repeat(np.arange(complete.n), 2), parameters)
        except ValueError as error:
            raise QueryError(str(error)) from error
        columns = np.hstack([design, design])
        seen = design_evidence(columns, parameters[:4], np.zeros(4, dtype=np.bool_))
        return ZipTerms(
            n_patients=complete.n,
            n_events=n_events,
            log_likelihood=terms[0],
            gradient=tuple(terms[1].tolist()),
            information=tuple(tuple(row) for row in terms[2].tolist()),
            evidence=seen.model_copy(update={"n_parameters": self.n_parameters}),
        )

    def _terms(
        self,
        y: NDArray[np.float64],
        design: NDArray[np.float64],
        patient: NDArray[np.int64],
        parameters: NDArray[np.float64],
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        if self.spec.patient_effect:
            found = zip_random_terms(y, design, design, patient, parameters, self.spec.n_nodes)
        else:
            found = zip_terms(y, design, design, parameters)
        return found.log_likelihood, found.gradient, found.information

    # --- at the coordinator -----------------------------------------------------------------

    def pool(self, sites: Sequence[SiteName], fits: Mapping[str, Fit] = NO_FITS) -> Pooling:
        """Ask for a start, then climb from there."""
        given, refused = answered((yield START_QUERY), sites, ZipStart, is_table(1, 3))
        counts = [answer.values[0] for answer in given.values() if answer.values[0]]
        if not counts:
            absent = RowStatus.SUPPRESSED if given else missing_status(refused.values())
            return tuple(self._absent(absent))
        n_rows, n_zeros, total = np.sum(counts, axis=0)
        start = zip_start(
            round(n_rows), round(n_zeros), float(total), 2, 2, random=self.spec.patient_effect
        )
        if start is None:
            return tuple(self._absent(RowStatus.NOT_ESTIMABLE))
        fit = yield from maximise(
            sites,
            self.n_parameters,
            ZipTerms,
            start=start,
            is_concave=False,
            maximum_exchanges=MAXIMUM_EXCHANGES,
        )
        if not fit.is_ok:
            return (*self._absent(fit_status(fit)), *self._refused(fit))
        if np.max(fit.standard_errors[:4]) > LARGEST_SE:
            return (*self._absent(RowStatus.NOT_ESTIMABLE), *self._refused(fit))
        return (*self._rows(fit), *self._refused(fit))

    def _measures(self) -> tuple[tuple[Measure, int], ...]:
        measures = ((Measure.ZIP_LOG_RATE_RATIO, 1), (Measure.ZIP_LOG_ODDS_RATIO, 3))
        return (*measures, (Measure.ZIP_LOG_SIGMA, 4)) if self.spec.patient_effect else measures

    def _absent(self, status: RowStatus) -> Iterator[Estimate]:
        for measure, _ in self._measures():
            yield Estimate(self.spec.id, POOLED, measure, term=self.spec.index, status=status)

    def _rows(self, fit: Fit) -> Iterator[Estimate]:
        for measure, position in self._measures():
            estimate = float(fit.parameters[position])
            se = float(fit.standard_errors[position])
            # A standard deviation of 0 is the edge of its range, which no Wald test can judge.
            is_scale = measure is Measure.ZIP_LOG_SIGMA
            yield Estimate(
                self.spec.id,
                POOLED,
                measure,
                term=self.spec.index,
                estimate=estimate,
                se=se,
                ci_low=estimate - Z95 * se,
                ci_high=estimate + Z95 * se,
                ci_method="wald",
                p_value=None if is_scale else two_sided_p(estimate, se),
                n=fit.n_patients,
                n_events=fit.n_events,
            )

    def _refused(self, fit: Fit) -> Iterator[Estimate]:
        for site, code in fit.refused.items():
            yield Estimate(
                self.spec.id,
                site,
                Measure.ZIP_LOG_RATE_RATIO,
                term=self.spec.index,
                status=refusal_status(code),
            )
