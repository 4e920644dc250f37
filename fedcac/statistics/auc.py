"""Discrimination at the reference's cut-offs: the AUC of a score or a probability."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedcac.aggregate import Aggregate, BinnedCounts, Evidence, Totals, register
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import AucSpec
from fedcac.protocol.columns import probability_column
from fedcac.statistics.delong import LARGEST_BOUND, Auc, Bins, auc_of_bins, auc_of_values
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
from fedcac.statistics.grids import (
    bin_numbers,
    common_bins,
    grid_counts,
    positive_at,
    probability_edges,
    released_row,
    score_edges,
)
from fedcac.statistics.meta_rows import meta_rows, unit_interval
from fedcac.statistics.rows import Value, refusal_status, value_row, wald
from fedcac.statistics.sums import answered, is_binned, is_table, missing_status
from fedcac.vocabulary import Measure, RefusalCode, RowStatus, SiteName

__all__ = ["AucAnalysis", "AucTotals", "ClassHistogram", "auc_rows"]

HISTOGRAM_QUERY = Query(step="histogram")
WITHIN_QUERY = Query(step="within")


@register
class ClassHistogram(BinnedCounts):
    """Patients without and with the condition by bin of the index test, one variable a cut-off."""

    kind: ClassVar[str] = "class_histogram"
    are_groups_nested: ClassVar[bool] = True


@register
class AucTotals(Totals):
    """Per cut-off: positives, negatives, the site's own AUC and its DeLong variance."""

    kind: ClassVar[str] = "auc_totals"
    are_rows_of_classes: ClassVar[bool] = True


@register_estimator
class AucAnalysis(Estimator[AucSpec]):
    """AUC at every cut-off (Hong 2025). Term = the cut-off.

    A site's row is its exact AUC with DeLong's interval; `meta` their random-effects summary, an
    AUC over pairs of patients of one site. `pooled` compares patients across sites too, from
    histograms on a public grid: `auc_error_bound` states how far the AUC of the unbinned values
    can be from it, 0 where no bin but the score's first, which holds zeros alone, has patients of
    both classes.
    """

    kind: ClassVar[str] = "auc"
    aggregate_types: ClassVar[tuple[type[Aggregate], ...]] = (ClassHistogram, AucTotals)

    @property
    def cut_offs(self) -> tuple[float, ...]:
        """The cut-offs asked for, in the protocol's order."""
        return self.protocol.chosen_cut_offs(self.spec.cut_offs)

    def _value_column(self, cut_off: float) -> str:
        if self.spec.value == "probability":
            return probability_column(cut_off)
        return self.protocol.score_column(self.spec.index)

    def _edges(self) -> NDArray[np.float64]:
        is_score = self.spec.value == "score"
        return (score_edges if is_score else probability_edges)(self.spec.bins)

    def summarise(self, exams: Exams, query: Query) -> ClassHistogram | AucTotals:
        """Return class histograms on the grid, or the site's own AUCs.

        Raises
        ------
        QueryError
            If the query is neither step.
        KeyError, ValueError
            If a column is absent, or a score negative.
        """
        if query not in (HISTOGRAM_QUERY, WITHIN_QUERY):
            raise QueryError("the AUC asks the steps 'histogram' and 'within' without values")
        complete = self.cohort(exams)
        reference = self.protocol.score_column(self.spec.reference)
        pairs = [
            (
                complete.column(self._value_column(cut)),
                positive_at(complete, reference, cut, self.protocol),
            )
            for cut in self.cut_offs
        ]
        if query == WITHIN_QUERY:
            return self._within(complete.n, pairs)
        edges, n_bins = self._edges(), self.spec.bins
        grid = tuple(range(n_bins))
        return ClassHistogram(
            n_patients=complete.n,
            starts=tuple((grid, grid) for _ in pairs),
            counts=tuple(
                grid_counts(bin_numbers(values, edges), positive.astype(np.int64), 2, n_bins)
                for values, positive in pairs
            ),
            evidence=Evidence(nested=_positives(pairs)),
        )

    def _within(
        self, n: int, pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.bool_]]]
    ) -> AucTotals:
        rows, groups = [], []
        for values, positive in pairs:
            own = auc_of_values(values, positive)
            p = int(np.count_nonzero(positive))
            estimate, variance = 0.0, 0.0
            if own is not None and own.variance is not None:
                estimate, variance = own.estimate, own.variance
            rows.append((float(p), float(n - p), estimate, variance))
            groups.append(min(p, n - p))
        return AucTotals(
            n_patients=n,
            n_events=None,
            values=tuple(rows),
            evidence=Evidence(
                smallest_group=max(groups), row_groups=tuple(groups), nested=_positives(pairs)
            ),
        )

    # --- at the coordinator -----------------------------------------------------------------

    def pool(self, sites: Sequence[SiteName], fits: Mapping[str, Fit] = NO_FITS) -> Pooling:
        """Ask for histograms, then for the sites' own AUCs."""
        grids = [(2, self.spec.bins)] * len(self.cut_offs)
        histograms, hidden = answered(
            (yield HISTOGRAM_QUERY), sites, ClassHistogram, is_binned(grids)
        )
        shape = is_table(len(self.cut_offs), 4)
        own, refused = answered((yield WITHIN_QUERY), sites, AucTotals, shape)
        rows: list[Estimate] = []
        for position, cut in enumerate(self.cut_offs):
            term = f"{cut:g}"
            rows.extend(self._site_rows(own, refused, sites, position, term))
            found = self._pooled(list(histograms.values()), position)
            is_withheld = any(_is_withheld(answer, position) for answer in histograms.values())
            absent = RowStatus.SUPPRESSED if is_withheld else missing_status(hidden.values())
            rows.extend(auc_rows(self.spec.id, POOLED, term, found, absent))
        return tuple(rows)

    def _pooled(self, histograms: Sequence[ClassHistogram], position: int) -> Auc | None:
        classes = []
        for group in (1, 0):
            rows = [
                row
                for answer in histograms
                if released_row(answer, position, 0) is not None
                and (row := released_row(answer, position, group)) is not None
                and released_row(answer, position, 1) is not None
            ]
            if not rows:
                return None
            starts, counts = common_bins(rows)
            is_score = self.spec.value == "score"
            classes.append(Bins(starts, counts, self.spec.bins, is_score))
        return auc_of_bins(*classes)

    def _site_rows(
        self,
        own: Mapping[SiteName, AucTotals],
        refused: Mapping[SiteName, RefusalCode],
        sites: Sequence[SiteName],
        position: int,
        term: str,
    ) -> Iterator[Estimate]:
        known: list[Auc] = []
        for site in sites:
            if site in refused:
                status = refusal_status(refused[site])
                yield from auc_rows(self.spec.id, site, term, None, status)
                continue
            row = own[site].values[position]
            if not row:
                yield from auc_rows(self.spec.id, site, term, None, RowStatus.SUPPRESSED)
                continue
            p, n, estimate, variance = row
            auc = Auc(estimate, variance, 0.0, round(p), round(n)) if p > 1 and n > 1 else None
            if auc is not None:
                known.append(auc)
            yield from auc_rows(self.spec.id, site, term, auc, RowStatus.NOT_ESTIMABLE)
        yield from meta_rows(
            self.spec.id,
            Measure.AUC,
            term,
            [auc.estimate for auc in known],
            [auc.variance or 0.0 for auc in known],
            sum(auc.n_positive + auc.n_negative for auc in known),
            back=unit_interval,
        )


def _is_withheld(answer: ClassHistogram, position: int) -> bool:
    return any(released_row(answer, position, group) is None for group in (0, 1))


def _positives(
    pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.bool_]]],
) -> tuple[tuple[int], ...]:
    """Return the number of positives at every cut-off, each part of the one before."""
    return tuple((int(np.count_nonzero(positive)),) for _, positive in pairs)


def auc_rows(
    analysis: str, scope: str, term: str, auc: Auc | None, absent: RowStatus
) -> Iterator[Estimate]:
    """Yield the AUC of one scope with Wald's interval, and a pooled one's error bound.

    An AUC that binning may have moved by more than `LARGEST_BOUND` is suppressed.
    """
    if auc is None:
        yield value_row(analysis, scope, Measure.AUC, None, absent=absent, term=term)
        return
    n = auc.n_positive + auc.n_negative
    is_vague = auc.error_bound > LARGEST_BOUND
    value = wald(auc.estimate, auc.se, low=0.0, high=1.0, method="delong")
    yield value_row(
        analysis,
        scope,
        Measure.AUC,
        None if is_vague else value,
        absent=RowStatus.SUPPRESSED,
        term=term,
        n=n,
        n_events=auc.n_positive,
    )
    if scope == POOLED:
        yield value_row(
            analysis,
            scope,
            Measure.AUC_ERROR_BOUND,
            None if is_vague else Value(auc.error_bound),
            absent=RowStatus.SUPPRESSED,
            term=term,
            n=n,
        )
