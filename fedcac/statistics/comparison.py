"""Two index tests against one reference, or one index test against two references."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedcac.aggregate import Aggregate, BinnedCounts, Evidence, Totals, register
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import ComparisonSpec
from fedcac.statistics.delong import N_PAIR_SUMS
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
from fedcac.statistics.grids import bin_numbers, grid_counts, positive_at, released_row, score_edges
from fedcac.statistics.intervals import wilson
from fedcac.statistics.paired_counts import newcombe_difference, ratio_difference
from fedcac.statistics.paired_roc import (
    classes_from_query,
    classes_to_values,
    difference_rows,
    has_both_classes,
    pair_histograms,
    pooled_classes,
    positives_evidence,
    site_sums,
)
from fedcac.statistics.rows import Value, value_row
from fedcac.statistics.sums import answered, is_binned, is_table, missing_status
from fedcac.vocabulary import Measure, RowStatus, SiteName

__all__ = ["Comparison", "PairHistogram", "PairSums", "PairedCells"]

CELLS_QUERY = Query(step="cells")
HISTOGRAM_QUERY = Query(step="histogram")
PLACEMENTS = "placements"

N_CELLS = 4
"""Both negative, only the second positive, only the first, both."""

Vector = NDArray[np.float64]


@register
class PairedCells(BinnedCounts):
    """Per cut-off, by the shared test negative and positive: patients by the two that differ."""

    kind: ClassVar[str] = "paired_cells"
    are_groups_nested: ClassVar[bool] = True


@register
class PairHistogram(BinnedCounts):
    """Per cut-off both index tests' histograms, without and with the condition."""

    kind: ClassVar[str] = "pair_histogram"
    are_groups_nested: ClassVar[bool] = True


@register
class PairSums(Totals):
    """Per cut-off and class: patients, sums, squares and cross products of placement values."""

    kind: ClassVar[str] = "pair_sums"
    is_given_once: ClassVar[bool] = True


_DIFFERENCES = {
    Measure.SENSITIVITY: Measure.SENSITIVITY_DIFFERENCE,
    Measure.SPECIFICITY: Measure.SPECIFICITY_DIFFERENCE,
    Measure.PPV: Measure.PPV_DIFFERENCE,
    Measure.NPV: Measure.NPV_DIFFERENCE,
    Measure.F1: Measure.F1_DIFFERENCE,
}


@register_estimator
class Comparison(Estimator[ComparisonSpec]):
    """What changes when the index test or the reference changes. Term = the cut-off.

    Rows, all `pooled`: sensitivity, specificity, ppv, npv and f1, group = `index` and `comparator`
    (or `reference` and `second_reference`), with Wilson's interval; their differences, first minus
    second, on the same patients; and for two index tests auc and auc_difference by DeLong, Eng
    2021 Table 4. Differences of sensitivity and specificity of two index tests have Newcombe's
    interval and McNemar's exact p-value; the others, whose denominators differ, the delta
    method's.
    """

    kind: ClassVar[str] = "comparison"
    aggregate_types: ClassVar[tuple[type[Aggregate], ...]] = (PairedCells, PairHistogram, PairSums)

    @property
    def cut_offs(self) -> tuple[float, ...]:
        """The cut-offs asked for, in the protocol's order."""
        return self.protocol.chosen_cut_offs(self.spec.cut_offs)

    @property
    def _is_of_tests(self) -> bool:
        return self.spec.compare == "index_tests"

    @property
    def _roles(self) -> tuple[str, str, str]:
        """The shared role, then the two that are compared."""
        if self._is_of_tests:
            return "reference", "index", "comparator"
        return "index", "reference", "second_reference"

    # --- at a site --------------------------------------------------------------------------

    def summarise(self, exams: Exams, query: Query) -> PairedCells | PairHistogram | PairSums:
        """Return the counts of both classifications, or what the AUCs need.

        Raises
        ------
        QueryError
            If the query is none of the steps, or its classes are not on the grid.
        KeyError, ValueError
            If a score is absent or negative.
        """
        complete = self.cohort(exams)
        if query == CELLS_QUERY:
            return self._cells(complete)
        if query == HISTOGRAM_QUERY and self._is_of_tests:
            tests, n_bins = self._tests(complete), self.spec.bins
            grid = tuple(range(n_bins))
            return PairHistogram(
                n_patients=complete.n,
                starts=((grid, grid),) * (2 * len(tests)),
                counts=pair_histograms(tests, n_bins),
                evidence=positives_evidence(tests),
            )
        if query.step == PLACEMENTS and self._is_of_tests:
            classes = classes_from_query(query, len(self.cut_offs), self.spec.bins)
            values, evidence = site_sums(self._tests(complete), classes)
            return PairSums(n_patients=complete.n, n_events=None, values=values, evidence=evidence)
        raise QueryError(f"this comparison does not ask the step '{query.step}'")

    def _column(self, role: str) -> str:
        return self.protocol.score_column(role)

    def _cells(self, exams: Exams) -> PairedCells:
        counts, nested = [], []
        for cut in self.cut_offs:
            shared, first, second = (
                positive_at(exams, self._column(role), cut, self.protocol).astype(np.int64)
                for role in self._roles
            )
            counts.append(grid_counts(2 * first + second, shared, 2, N_CELLS))
            nested.append(_nested((shared, first, second)))
        grid = tuple(range(N_CELLS))
        return PairedCells(
            n_patients=exams.n,
            starts=((grid, grid),) * len(counts),
            counts=tuple(counts),
            evidence=Evidence(nested=tuple(nested)),
        )

    def _tests(
        self, exams: Exams
    ) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]]:
        edges = score_edges(self.spec.bins)
        first, second = (
            bin_numbers(exams.column(self._column(role)), edges) for role in self._roles[1:]
        )
        reference = self._column("reference")
        return [
            (first, second, positive_at(exams, reference, cut, self.protocol))
            for cut in self.cut_offs
        ]

    # --- at the coordinator -----------------------------------------------------------------

    def pool(self, sites: Sequence[SiteName], fits: Mapping[str, Fit] = NO_FITS) -> Pooling:
        """Ask for the counts; for two index tests also for histograms, then placement values."""
        shape = is_binned([(2, N_CELLS)] * len(self.cut_offs))
        given, refused = answered((yield CELLS_QUERY), sites, PairedCells, shape)
        absent = missing_status(refused.values()) if not given else RowStatus.SUPPRESSED
        rows: list[Estimate] = []
        for position, cut in enumerate(self.cut_offs):
            rows.extend(self._cut_off_rows(list(given.values()), position, f"{cut:g}", absent))
        if not self._is_of_tests:
            return tuple(rows)
        shape = is_binned([(2, self.spec.bins)] * (2 * len(self.cut_offs)))
        histograms, hidden = answered((yield HISTOGRAM_QUERY), sites, PairHistogram, shape)
        pooled = [
            pooled_classes(histograms, position, self.spec.bins, is_first_single=True)
            for position in range(len(self.cut_offs))
        ]
        answers: dict[SiteName, PairSums] = {}
        classes = [found[0] if found and has_both_classes(found[0]) else None for found in pooled]
        if any(classes):
            values = classes_to_values(classes)
            query = Query(step=PLACEMENTS, values=values)
            sums = is_table(2 * len(self.cut_offs), N_PAIR_SUMS)
            answers, hidden = answered((yield query), sites, PairSums, sums)
        # A site gives its histograms and sums, or says why not; or it withholds some of them.
        is_given = bool(answers if any(classes) else histograms)
        absent = RowStatus.SUPPRESSED if is_given else missing_status(hidden.values())
        for position, (cut, found) in enumerate(zip(self.cut_offs, pooled, strict=True)):
            tables = [
                answer.values
                for site, answer in answers.items()
                if found is not None and site in found[1]
            ]
            rows.extend(
                difference_rows(
                    self.spec.id,
                    f"{cut:g}",
                    (self._roles[1], self._roles[2]),
                    tables,
                    position,
                    classes[position],
                    RowStatus.NOT_ESTIMABLE if found and not classes[position] else absent,
                )
            )
        return tuple(rows)

    def _cut_off_rows(
        self, answers: Sequence[PairedCells], position: int, term: str, absent: RowStatus
    ) -> Iterator[Estimate]:
        tables = [table for answer in answers if (table := _whole(answer, position)) is not None]
        if not tables:
            for measure, difference in _DIFFERENCES.items():
                for role in self._roles[1:]:
                    yield Estimate(
                        self.spec.id, POOLED, measure, group=role, term=term, status=absent
                    )
                yield Estimate(self.spec.id, POOLED, difference, term=term, status=absent)
            return
        # (shared, first, second), each negative and positive.
        cells = np.sum(tables, axis=0).reshape(2, 2, 2)
        n = int(cells.sum())
        for measure, difference in _DIFFERENCES.items():
            ratios = [self._ratio(measure, which) for which in (0, 1)]
            for role, (top, bottom) in zip(self._roles[1:], ratios, strict=True):
                yield self._ratio_row(measure, role, term, top * cells, bottom * cells)
            found = self._difference(measure, cells, ratios)
            yield value_row(self.spec.id, POOLED, difference, found, term=term, n=n)

    def _ratio(self, measure: Measure, which: int) -> tuple[Vector, Vector]:
        """Return the weights of the cells (2, 2, 2) in a measure's numerator and denominator."""
        top, bottom = np.zeros((2, 2, 2)), np.zeros((2, 2, 2))
        for shared, *compared in product((0, 1), repeat=3):
            own = compared[which]
            index, reference = (own, shared) if self._is_of_tests else (shared, own)
            cell = (shared, *compared)
            if measure is Measure.SENSITIVITY:
                top[cell], bottom[cell] = index and reference, reference
            elif measure is Measure.SPECIFICITY:
                top[cell], bottom[cell] = not index and not reference, not reference
            elif measure is Measure.PPV:
                top[cell], bottom[cell] = index and reference, index
            elif measure is Measure.NPV:
                top[cell], bottom[cell] = not index and not reference, not index
            else:
                top[cell], bottom[cell] = 2 * (index and reference), index + reference
        return top, bottom

    def _ratio_row(
        self, measure: Measure, role: str, term: str, top: Vector, bottom: Vector
    ) -> Estimate:
        k, n = float(top.sum()), float(bottom.sum())
        value = None
        if n > 0:
            is_f1 = measure is Measure.F1
            # F1 = 2J / (1 + J) with J = TP / (TP + FP + FN), whose interval is a proportion's.
            low, high = wilson(k / 2, n - k / 2) if is_f1 else wilson(k, n)
            limits = [2 * j / (1 + j) if is_f1 else j for j in (float(low), float(high))]
            value = Value(k / n, None, limits[0], limits[1], "wilson")
        patients = round(n - k / 2 if measure is Measure.F1 else n)
        return value_row(self.spec.id, POOLED, measure, value, group=role, term=term, n=patients)

    def _difference(
        self, measure: Measure, cells: NDArray[np.int64], ratios: Sequence[tuple[Vector, Vector]]
    ) -> Value | None:
        is_paired = measure in (Measure.SENSITIVITY, Measure.SPECIFICITY)
        if self._is_of_tests and is_paired:
            own = cells[1] if measure is Measure.SENSITIVITY else cells[0][::-1, ::-1]
            return newcombe_difference(
                int(own[1, 1]), int(own[1, 0]), int(own[0, 1]), int(own[0, 0])
            )
        flat = [(top.reshape(-1), bottom.reshape(-1)) for top, bottom in ratios]
        return ratio_difference(cells.reshape(-1).astype(np.float64), flat[0], flat[1])


def _nested(scores: Sequence[NDArray[np.int64]]) -> tuple[int, ...]:
    """Return how many any of the three scores call positive, and how many several do together.

    At a higher cut-off each is part of what it is at a lower one.
    """
    numbers = []
    for members in product((False, True), repeat=len(scores)):
        own = [score > 0 for score, is_in in zip(scores, members, strict=True) if is_in]
        if own:
            all_of = int(np.count_nonzero(np.logical_and.reduce(own)))
            any_of = int(np.count_nonzero(np.logical_or.reduce(own)))
            numbers += [all_of, any_of]
    return tuple(numbers)


def _whole(answer: PairedCells, position: int) -> NDArray[np.int64] | None:
    """Return the eight cells of a cut-off, (2, 4), or None if any is withheld."""
    rows = [released_row(answer, position, group) for group in (0, 1)]
    known = [counts for row in rows if row is not None for counts in [row[1]]]
    if len(known) != 2 or any(len(counts) != N_CELLS for counts in known):
        return None
    return np.array(known)
