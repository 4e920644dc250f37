"""The image model's probability with clinical factors: a logistic model, cross-validated."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedcac.aggregate import Aggregate, BinnedCounts, Evidence, LikelihoodTerms, Totals, register
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import FusionSpec, Protocol
from fedcac.protocol.columns import probability_column
from fedcac.statistics.delong import N_PAIR_SUMS
from fedcac.statistics.design import Design, DesignColumn, covariate_columns
from fedcac.statistics.estimator import (
    NO_FITS,
    POOLED,
    Answers,
    Estimate,
    Estimator,
    Pooling,
    QueryError,
    register_estimator,
)
from fedcac.statistics.fit import Fit
from fedcac.statistics.grids import bin_numbers, positive_at, probability_edges
from fedcac.statistics.logistic import logistic_terms, logit
from fedcac.statistics.newton import STEP, maximise, queried_parameters
from fedcac.statistics.paired_roc import (
    PairOfTests,
    Table,
    classes_from_query,
    classes_to_values,
    difference_rows,
    has_both_classes,
    pair_histograms,
    pooled_classes,
    site_sums,
)
from fedcac.statistics.refit import REFIT, queried_table, refit, table_query
from fedcac.statistics.resampling import deal_groups
from fedcac.statistics.rows import fit_status, refusal_status, value_row, wald
from fedcac.statistics.sums import answered, is_binned, is_table, missing_status
from fedcac.vocabulary import Measure, RowStatus, SiteName

__all__ = ["Fusion", "FusionHistogram", "FusionPlacements", "FusionSums", "FusionTerms"]

HISTOGRAM = "histogram"
PLACEMENTS = "placements"
BETA = "beta"

FUSED, IMAGE = "fusion", "image"

Vector = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@register
class FusionTerms(LikelihoodTerms):
    """The logistic likelihood of a site; events are patients with the condition."""

    kind: ClassVar[str] = "fusion_terms"


@register
class FusionHistogram(BinnedCounts):
    """Cross-validated and image probabilities by bin, without and with the condition."""

    kind: ClassVar[str] = "fusion_histogram"
    are_groups_nested: ClassVar[bool] = True


@register
class FusionSums(Totals):
    """Gradients of the likelihood without each fold."""

    kind: ClassVar[str] = "fusion_sums"


@register
class FusionPlacements(Totals):
    """Sums of placement values, as for a comparison."""

    kind: ClassVar[str] = "fusion_placements"
    is_given_once: ClassVar[bool] = True


@dataclass(frozen=True)
class _Patients:
    """Design (n, p), who has the condition, fold and the image's probability, each (n,)."""

    x: Vector
    positive: Flags
    fold: Integers
    image: Vector


@register_estimator
class Fusion(Estimator[FusionSpec]):
    """What clinical factors add to the image model's probability (Hong 2025).

    Rows: log_odds_ratio per term of the logistic model over all sites, with Wald's interval; auc
    with group `fusion`, of predictions by models fitted without the patient's fold, and with group
    `image`, of the image's probability alone; auc_difference by DeLong's test on the same
    patients; all `pooled`, the AUCs with term = the cut-off. Folds are dealt at the site, from a
    secret that stays there. The image's probability enters as its logit.
    """

    kind: ClassVar[str] = "fusion"
    aggregate_types: ClassVar[tuple[type[Aggregate], ...]] = (
        FusionTerms,
        FusionHistogram,
        FusionSums,
        FusionPlacements,
    )

    def __init__(self, spec: FusionSpec, protocol: Protocol) -> None:
        super().__init__(spec, protocol)
        image = probability_column(spec.cut_off)
        columns = [
            DesignColumn("(intercept)", False, lambda exams: np.ones(exams.n)),
            DesignColumn(f"logit({image})", False, lambda exams: logit(exams.column(image))),
        ]
        for name in spec.covariates:
            columns.extend(covariate_columns(protocol.covariate(name)))
        self.design = Design(tuple(columns), (0,) * len(columns))
        self._image = image

    # --- at a site --------------------------------------------------------------------------

    def summarise(
        self, exams: Exams, query: Query
    ) -> FusionTerms | FusionHistogram | FusionSums | FusionPlacements:
        """Return the likelihood's terms, gradients without each fold, histograms, or their sums.

        Raises
        ------
        QueryError
            If the query is none of the steps, or does not have its shape.
        KeyError, TableError, ValueError
            If a column is absent or holds a value it cannot have, or the site has no secret.
        """
        complete = self.cohort(exams)
        x = self.design.matrix(complete)
        reference = self.protocol.score_column("reference")
        positive = positive_at(complete, reference, self.spec.cut_off, self.protocol)
        if query.step == STEP:
            return self._terms(x, positive, queried_parameters(query, len(self.design.terms)))
        purpose = f"{self.protocol.id}|{self.spec.id}"
        patients = _Patients(
            x,
            positive,
            deal_groups(complete, purpose, self.spec.folds),
            complete.column(self._image),
        )
        beta = queried_table(
            Query(step=query.step, values={BETA: query.values.get(BETA, ())}),
            self.spec.folds,
            len(self.design.terms),
        )
        if query.step == REFIT and set(query.values) == {BETA}:
            return self._gradients(patients, beta)
        return self._discrimination(patients, beta, query)

    def _terms(self, x: Vector, positive: Flags, beta: Vector) -> FusionTerms:
        terms = logistic_terms(x, positive, beta, np.zeros(len(x)))
        return FusionTerms(
            n_patients=len(x),
            n_events=int(np.count_nonzero(positive)),
            log_likelihood=terms.log_likelihood,
            gradient=tuple(terms.gradient.tolist()),
            information=tuple(tuple(row) for row in terms.information.tolist()),
            evidence=self.design.evidence(x, beta),
        )

    def _gradients(self, patients: _Patients, beta: Vector) -> FusionSums:
        rows = []
        for fold, own in enumerate(beta):
            kept = patients.fold != fold
            x = patients.x[kept]
            found = logistic_terms(x, patients.positive[kept], own, np.zeros(len(x)))
            rows.append(tuple(found.gradient.tolist()))
        n = len(patients.x)
        spread = patients.x.std(axis=0)
        return FusionSums(
            n_patients=n,
            n_events=int(np.count_nonzero(patients.positive)),
            values=tuple(rows),
            # Two rows differ by the patients of two folds.
            evidence=Evidence(
                smallest_group=n // self.spec.folds,
                parameter_norm=float(np.max(np.abs(beta) * spread)),
            ),
        )

    def _discrimination(
        self, patients: _Patients, beta: Vector, query: Query
    ) -> FusionHistogram | FusionPlacements:
        # A logistic model's predictor ranks as its probability does, which stays on the grid.
        predictor = np.einsum("ij,ij->i", patients.x, beta[patients.fold])
        fused = 1 / (1 + np.exp(-np.clip(predictor, -500, 500)))
        edges = probability_edges(self.spec.bins)
        tests = [(bin_numbers(fused, edges), bin_numbers(patients.image, edges), patients.positive)]
        n = len(fused)
        if query.step == HISTOGRAM:
            grid = tuple(range(self.spec.bins))
            return FusionHistogram(
                n_patients=n,
                starts=((grid, grid),) * 2,
                counts=pair_histograms(tests, self.spec.bins),
            )
        if query.step != PLACEMENTS:
            raise QueryError(f"a fusion model does not ask the step '{query.step}'")
        values, evidence = site_sums(tests, classes_from_query(query, 1, self.spec.bins))
        return FusionPlacements(n_patients=n, n_events=None, values=values, evidence=evidence)

    # --- at the coordinator -----------------------------------------------------------------

    def pool(self, sites: Sequence[SiteName], fits: Mapping[str, Fit] = NO_FITS) -> Pooling:
        """Fit over all sites, then without each fold, then compare the two AUCs."""
        fit = yield from maximise(sites, len(self.design.terms), FusionTerms)
        return (*self._term_rows(fit), *(yield from self._compare(fit)))

    def _compare(self, fit: Fit) -> Generator[Query, Answers, tuple[Estimate, ...]]:
        if not fit.is_ok:
            return tuple(self._auc_rows([], None, fit_status(fit)))
        start = np.tile(fit.coefficients, (self.spec.folds, 1))
        # Each fit lacks one fold, and so about that share of the information.
        covariance = fit.covariance * self.spec.folds / (self.spec.folds - 1)
        beta = yield from refit(start, covariance, fit.sites, FusionSums)
        if isinstance(beta, RowStatus):
            return tuple(self._auc_rows([], None, beta))
        query = table_query(HISTOGRAM, beta)
        shape = is_binned([(2, self.spec.bins)] * 2)
        histograms, hidden = answered((yield query), fit.sites, FusionHistogram, shape)
        found = pooled_classes(histograms, 0, self.spec.bins, is_first_single=False)
        if found is None:
            absent = RowStatus.SUPPRESSED if histograms else missing_status(hidden.values())
            return tuple(self._auc_rows([], None, absent))
        classes, used = found
        if not has_both_classes(classes):
            return tuple(self._auc_rows([], None, RowStatus.NOT_ESTIMABLE))
        values = {**query.values, **classes_to_values([classes])}
        query = Query(step=PLACEMENTS, values=values)
        sums = is_table(2, N_PAIR_SUMS)
        answers, hidden = answered((yield query), used, FusionPlacements, sums)
        tables = [answer.values for answer in answers.values()]
        absent = RowStatus.SUPPRESSED if answers else missing_status(hidden.values())
        return tuple(self._auc_rows(tables, classes, absent))

    def _auc_rows(
        self, tables: Sequence[Table], classes: PairOfTests | None, absent: RowStatus
    ) -> Iterator[Estimate]:
        term = f"{self.spec.cut_off:g}"
        names = (FUSED, IMAGE)
        yield from difference_rows(self.spec.id, term, names, tables, 0, classes, absent)

    def _term_rows(self, fit: Fit) -> Iterator[Estimate]:
        status = fit_status(fit)
        for j, term in enumerate(self.design.terms):
            value = None
            if fit.is_ok and fit.identified[j]:
                value = wald(
                    float(fit.parameters[j]), float(fit.standard_errors[j]), is_tested=True
                )
            yield value_row(
                self.spec.id,
                POOLED,
                Measure.LOG_ODDS_RATIO,
                value,
                absent=RowStatus.NOT_ESTIMABLE if status is RowStatus.OK else status,
                term=term,
                n=fit.n_patients or None,
                n_events=fit.n_events if fit.n_patients else None,
            )
        for site, code in fit.refused.items():
            yield value_row(
                self.spec.id, site, Measure.LOG_ODDS_RATIO, None, absent=refusal_status(code)
            )
