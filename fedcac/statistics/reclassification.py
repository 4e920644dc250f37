"""What one Cox model adds to another: net reclassification, AUC, C-index, likelihood ratio."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedcac.aggregate import Aggregate, Evidence, Totals, register
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import CoxSpec, Protocol, ReclassificationSpec
from fedcac.statistics.concordance import concordant_pairs, ordered_pairs
from fedcac.statistics.cox import survival_data
from fedcac.statistics.design import Design, design_of
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
from fedcac.statistics.net_reclassification import Reclassified, net_reclassification, reclassified
from fedcac.statistics.partial_likelihood import partial_likelihood
from fedcac.statistics.refit import (
    REFIT,
    queried_table,
    refit,
    stacked_covariance,
    table_query,
)
from fedcac.statistics.resampling import Rows, replicate_rows, replicate_spread
from fedcac.statistics.risk_sets import baseline_hazard
from fedcac.statistics.rows import Value, fit_status, value_row
from fedcac.statistics.sums import answered, is_table, missing_status, summed_totals, totals_status
from fedcac.vocabulary import Measure, Resampling, RowStatus, SiteName

__all__ = ["Reclassification", "ReclassificationTotals"]

MEASURES = "measures"
N_COLUMNS = Reclassified.N_NUMBERS + 6
"""The sums for the NRI; then AUC of base and full and their pairs; then C likewise."""

Vector = NDArray[np.float64]


@register
class ReclassificationTotals(Totals):
    """Per replicate: gradients of both models, or the sums behind NRI, AUC and C."""

    kind: ClassVar[str] = "reclassification_totals"
    has_endpoint: ClassVar[bool] = True


@dataclass(frozen=True)
class _Patients:
    """A site's patients: both designs (n, p0), (n, p1), follow-up and event."""

    designs: tuple[Vector, Vector]
    time: Vector
    event: NDArray[np.bool_]


@register_estimator
class Reclassification(Estimator[ReclassificationSpec]):
    """Added value of the model `full` over `base` (Miller 2023 Fig. 5, Supplemental Table 6).

    Rows, all `pooled`: nri_event, nri_nonevent, nri_overall; auc_difference of the linear
    predictors for the event at any time, and c_index_difference, both over pairs of patients of
    one site; lr_chi2_increase with its p-value. Risks are 1 - exp(-H0(t) exp(x beta)) with the
    site's own Breslow hazard, which does not leave.

    Both models must be fitted to the same patients; else nothing is estimable. Intervals of all but
    the likelihood ratio come from refitting both models on replicates. They are missing (ci_method
    '') where a site refused the replicates, has too few patients for them, or a refit has not
    settled; the estimates stand all the same. The interval of a category-free NRI is no test of
    added value: without any, the NRI is above 0 on average (docs/studies/resampling.md).
    """

    kind: ClassVar[str] = "reclassification"
    aggregate_types: ClassVar[tuple[type[Aggregate], ...]] = (ReclassificationTotals,)

    def __init__(self, spec: ReclassificationSpec, protocol: Protocol) -> None:
        super().__init__(spec, protocol)
        models = [protocol.analysis(name) for name in (spec.base, spec.full)]
        self._specs = [model for model in models if isinstance(model, CoxSpec)]
        self._designs: list[Design] = [design_of(model, protocol) for model in self._specs]
        self._widths = [len(design.terms) for design in self._designs]

    @property
    def models(self) -> tuple[str, ...]:
        """The two Cox analyses."""
        return self.spec.base, self.spec.full

    # --- at a site --------------------------------------------------------------------------

    def summarise(self, exams: Exams, query: Query) -> ReclassificationTotals:
        """Return gradients per replicate, or the sums behind the measures.

        The step `measures` with a single row of parameters is about all patients, with one row per
        replicate about each of those.

        Raises
        ------
        QueryError
            If the query has another step or shape, or leads to a linear predictor that is infinite
            or beside which a risk set weighs nothing.
        TableError
            As the Cox models.
        ValueError
            If replicates are asked and the site has no secret.
        """
        complete = self.cohort(exams)
        time, event = survival_data(self, complete)
        x0, x1 = (design.matrix(complete) for design in self._designs)
        patients = _Patients((x0, x1), time, event)
        if query.step == REFIT:
            rows = self._replicates(complete)
            betas = queried_table(query, len(rows), sum(self._widths))
            values = [
                self._gradients(patients, r, beta) for r, beta in zip(rows, betas, strict=True)
            ]
            smallest = self._smallest_replicate(complete.n)
        elif query.step == MEASURES:
            is_single = len(query.values.get("beta", ())) == sum(self._widths)
            rows = [np.arange(complete.n)] if is_single else self._replicates(complete)
            betas = queried_table(query, len(rows), sum(self._widths))
            found = [self._measures(patients, r, beta) for r, beta in zip(rows, betas, strict=True)]
            values = [numbers for numbers, _ in found]
            smallest = found[0][1] if is_single else self._smallest_replicate(complete.n)
        else:
            raise QueryError("reclassification asks the steps 'refit' and 'measures'")
        norms = [
            float(np.max(np.abs(betas[:, part]) * x.std(axis=0)))
            for x, part in zip((x0, x1), self._parts(), strict=True)
        ]
        return ReclassificationTotals(
            n_patients=complete.n,
            n_events=int(event.sum()),
            values=tuple(tuple(row.tolist()) for row in values),
            evidence=Evidence(smallest_group=smallest, parameter_norm=max(norms)),
        )

    def _parts(self) -> tuple[slice, slice]:
        first = self._widths[0]
        return slice(0, first), slice(first, first + self._widths[1])

    def _replicates(self, exams: Exams) -> list[Rows]:
        purpose = f"{self.protocol.id}|{self.spec.id}"
        return replicate_rows(exams, purpose, self.spec.uncertainty, self.spec.replicates)

    def _smallest_replicate(self, n: int) -> int:
        # Two jackknife replicates differ by their groups; bootstrap samples are drawn from all.
        is_jackknife = self.spec.uncertainty is Resampling.JACKKNIFE
        return n // self.spec.replicates if is_jackknife else n

    def _gradients(self, patients: _Patients, rows: Rows, beta: Vector) -> Vector:
        parts = []
        for x, part, spec in zip(patients.designs, self._parts(), self._specs, strict=True):
            with _at_the_query():
                terms = partial_likelihood(
                    x[rows], patients.time[rows], patients.event[rows], beta[part], spec.ties
                )
            parts.append(terms.gradient)
        return np.concatenate(parts)

    def _measures(self, patients: _Patients, rows: Rows, beta: Vector) -> tuple[Vector, int]:
        """Return the sums of one replicate, and the smallest number of patients behind them."""
        time, event = patients.time[rows], patients.event[rows]
        risks, predictors = [], []
        for x, part, spec in zip(patients.designs, self._parts(), self._specs, strict=True):
            chosen = x[rows]
            # Centred, the hazard's scale is that of a typical patient and nothing overflows.
            shifted = chosen - chosen.mean(axis=0)
            with _at_the_query():
                # Row by row: a matrix product may round equal rows apart, and a tie would be lost.
                predictor = (shifted * beta[part]).sum(axis=1)
                hazard = baseline_hazard(
                    shifted, time, event, beta[part], self.spec.horizon_days, spec.ties
                )
            risks.append(-np.expm1(-hazard * np.exp(np.minimum(predictor, 500.0))))
            predictors.append(predictor)
        moved = reclassified(risks[0], risks[1], time, event, self.spec)
        pairs = [concordant_pairs(predictor, time, event) for predictor in predictors]
        return np.array(
            [
                *moved.numbers(),
                *(ordered_pairs(predictor, event) for predictor in predictors),
                float(np.count_nonzero(event) * np.count_nonzero(~event)),
                *(concordant for concordant, _ in pairs),
                pairs[0][1],
            ]
        ), moved.smallest_group

    # --- at the coordinator -----------------------------------------------------------------

    def pool(self, sites: Sequence[SiteName], fits: Mapping[str, Fit] = NO_FITS) -> Pooling:
        """Refit on replicates from the two fits, then ask once for every sum."""
        base, full = (fits[name] for name in self.models)
        is_comparable = base.is_ok and full.is_ok and base.sites == full.sites
        if not is_comparable or base.n_patients != full.n_patients:
            return tuple(self._absent(base, full))
        at = np.concatenate([base.coefficients, full.coefficients])[None, :]
        # First without replicates: a site that cannot bear them still gives the estimates.
        answers = yield table_query(MEASURES, at)
        sums = summed_totals(answers, full.sites, ReclassificationTotals, (1, N_COLUMNS))
        shape = is_table(1, N_COLUMNS)
        given, _ = answered(answers, full.sites, ReclassificationTotals, shape)
        if sums is not None and sum(own.n_patients for own in given.values()) != full.n_patients:
            # Each model left out patients whom the other one kept.
            return tuple(self._absent(base, full))
        replicated = None
        if sums is not None and self.spec.uncertainty is not Resampling.NONE:
            replicated = yield from self._replicated(base, full, at)
        absent = totals_status(answers, full.sites, ReclassificationTotals)
        rows = self._measure_rows(full, sums, replicated, absent)
        return (*rows, self._likelihood_row(base, full))

    def _replicated(
        self, base: Fit, full: Fit, at: Vector
    ) -> Generator[Query, Answers, Vector | None]:
        """Refit both models on every replicate; return the sums behind the measures there."""
        covariance = stacked_covariance((base, full))
        if self.spec.uncertainty is Resampling.JACKKNIFE:
            # Each fit lacks one group, and so about that share of the information.
            covariance *= self.spec.replicates / (self.spec.replicates - 1)
        start = np.tile(at, (self.spec.replicates, 1))
        replicates = yield from refit(start, covariance, full.sites, ReclassificationTotals)
        if isinstance(replicates, RowStatus):
            return None
        answers = yield table_query(MEASURES, replicates)
        shape = (len(replicates), N_COLUMNS)
        return summed_totals(answers, full.sites, ReclassificationTotals, shape)

    def _absent(self, base: Fit, full: Fit) -> Iterator[Estimate]:
        failed = full if not full.is_ok else base
        status = fit_status(failed)
        if failed.is_ok:
            # A site is in one model and not in the other, or each left out patients of its own.
            codes = {**base.refused, **full.refused}
            status = missing_status(codes[s] for s in {*base.sites} ^ {*full.sites})
        for measure in (*_MEASURES, Measure.LR_CHI2_INCREASE):
            yield Estimate(self.spec.id, POOLED, measure, status=status)

    def _measure_rows(
        self, fit: Fit, sums: Vector | None, replicated: Vector | None, absent: RowStatus
    ) -> Iterator[Estimate]:
        if sums is None:
            for measure in _MEASURES:
                yield Estimate(self.spec.id, POOLED, measure, status=absent)
            return
        values = np.array([_statistics(row) for row in np.vstack([sums, *_tables(replicated)])])
        for column, measure in enumerate(_MEASURES):
            estimate = float(values[0, column])
            if not np.isfinite(estimate):
                yield Estimate(self.spec.id, POOLED, measure, status=RowStatus.NOT_ESTIMABLE)
                continue
            value = replicate_spread(estimate, values[1:, column], self.spec.uncertainty)
            yield value_row(
                self.spec.id,
                POOLED,
                measure,
                value or Value(estimate),
                n=fit.n_patients,
                n_events=fit.n_events,
            )

    def _likelihood_row(self, base: Fit, full: Fit) -> Estimate:
        chi2 = 2 * (full.log_likelihood - base.log_likelihood)
        df = full.degrees_of_freedom - base.degrees_of_freedom
        is_nested = set(self._designs[0].terms) <= set(self._designs[1].terms)
        return Estimate(
            self.spec.id,
            POOLED,
            Measure.LR_CHI2_INCREASE,
            estimate=chi2,
            p_value=float(special.chdtrc(df, max(chi2, 0.0))) if is_nested and df > 0 else None,
            n=full.n_patients,
            n_events=full.n_events,
        )


@contextmanager
def _at_the_query() -> Iterator[None]:
    """Make what cannot be computed at the queried parameters a fault of the query."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    except ValueError as error:
        raise QueryError(str(error)) from error


_MEASURES = (
    Measure.NRI_EVENT,
    Measure.NRI_NONEVENT,
    Measure.NRI_OVERALL,
    Measure.AUC_DIFFERENCE,
    Measure.C_INDEX_DIFFERENCE,
)


def _tables(table: Vector | None) -> tuple[Vector, ...]:
    return () if table is None else (table,)


def _statistics(sums: Vector) -> tuple[float, ...]:
    moved = net_reclassification(Reclassified.from_numbers(sums[: Reclassified.N_NUMBERS]))
    auc0, auc1, auc_pairs, c0, c1, c_pairs = sums[Reclassified.N_NUMBERS :]
    return (
        *(moved if moved is not None else (np.nan,) * 3),
        (auc1 - auc0) / auc_pairs if auc_pairs > 0 else np.nan,
        (c1 - c0) / c_pairs if c_pairs > 0 else np.nan,
    )
