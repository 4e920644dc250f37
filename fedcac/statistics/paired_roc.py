"""Two AUCs of the same patients, exact across sites: the pooled classes go out, sums come back.

First every site gives histograms of both tests by class. The coordinator sends the pooled ones
back, each site computes its patients' placement values against them, and returns their sums,
squares and cross products: all that DeLong's covariance needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedcac.aggregate import BinnedCounts, Evidence
from fedcac.exchange.messages import Query
from fedcac.statistics.delong import (
    LARGEST_BOUND,
    N_PAIR_SUMS,
    Bins,
    PairedAuc,
    auc_of_bins,
    pair_sums,
    paired_auc,
    placements,
)
from fedcac.statistics.estimator import POOLED, Estimate, QueryError
from fedcac.statistics.grids import common_bins, grid_counts, released_row
from fedcac.statistics.rows import Value, value_row, wald
from fedcac.vocabulary import Measure, RowStatus, SiteName

__all__ = [
    "PairOfTests",
    "Table",
    "classes_from_query",
    "classes_to_values",
    "difference_rows",
    "has_both_classes",
    "pair_histograms",
    "pooled_classes",
    "positives_evidence",
    "site_sums",
]

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Table = tuple[tuple[float, ...], ...]

PairOfTests = tuple[Bins, Bins, Bins, Bins]
"""Positives and negatives of the first test, then of the second."""

LARGEST_SHARE = 1000
"""No federation is so many times as large as one site: larger counts are weights, not patients."""

_PARTS = ("p1", "n1", "p2", "n2")


def pair_histograms(
    tests: Sequence[tuple[Integers, Integers, Flags]], n_bins: int
) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Return counts as `BinnedCounts` wants them: per comparison both tests, negatives first.

    `tests` holds per comparison the two tests' bins and who is positive, each (n,).
    """
    return tuple(
        grid_counts(bins, positive.astype(np.int64), 2, n_bins)
        for first, second, positive in tests
        for bins in (first, second)
    )


def positives_evidence(tests: Sequence[tuple[Integers, Integers, Flags]]) -> Evidence:
    """Return what the gate must know of the histograms: positives at rising cut-offs are nested."""
    return Evidence(
        nested=tuple((int(np.count_nonzero(positive)),) for *both, positive in tests for _ in both)
    )


def pooled_classes(
    histograms: Mapping[SiteName, BinnedCounts], number: int, n_grid: int, *, is_first_single: bool
) -> tuple[PairOfTests, tuple[SiteName, ...]] | None:
    """Return the pooled classes of comparison `number`, and the sites that gave all four.

    `is_first_single` as in `Bins`.
    """
    rows: dict[SiteName, list[tuple[Integers, Integers]]] = {}
    for site, answer in histograms.items():
        own = [
            released_row(answer, 2 * number + test, group) for test in (0, 1) for group in (1, 0)
        ]
        known = [row for row in own if row is not None]
        if len(known) == len(own):
            rows[site] = known
    if not rows:
        return None
    bins = [
        Bins(*common_bins([own[part] for own in rows.values()]), n_grid, is_first_single)
        for part in range(4)
    ]
    return (bins[0], bins[1], bins[2], bins[3]), tuple(rows)


def has_both_classes(pair: PairOfTests) -> bool:
    """Say whether there are positives and negatives; else nobody can be placed among them."""
    return all(bins.n > 0 for bins in pair)


def classes_to_values(classes: Sequence[PairOfTests | None]) -> dict[str, tuple[float, ...]]:
    """Return the values of the query that sends pooled classes out; None is left out."""
    values: dict[str, tuple[float, ...]] = {}
    for number, pair in enumerate(classes):
        for name, bins in zip(_PARTS, pair or (), strict=False):
            values[f"starts_{number}_{name}"] = tuple(float(start) for start in bins.starts)
            values[f"counts_{number}_{name}"] = tuple(float(count) for count in bins.counts)
    return values


def classes_from_query(query: Query, n_comparisons: int, n_grid: int) -> list[PairOfTests | None]:
    """Return the pooled classes that a query holds; QueryError if they are not on the grid."""
    found: list[PairOfTests | None] = []
    for number in range(n_comparisons):
        if f"starts_{number}_p1" not in query.values:
            found.append(None)
            continue
        bins = [_bins(query, f"{number}_{name}", n_grid) for name in _PARTS]
        found.append((bins[0], bins[1], bins[2], bins[3]))
    return found


def _bins(query: Query, name: str, n_grid: int) -> Bins:
    starts = np.array(query.values.get(f"starts_{name}", ()), dtype=np.float64)
    counts = np.array(query.values.get(f"counts_{name}", ()), dtype=np.float64)
    is_sound = (
        0 < len(starts) == len(counts) <= n_grid
        and starts[0] == 0
        and bool(np.all(np.diff(starts) > 0))
        and starts[-1] < n_grid
        and bool(np.all(counts >= 0))
        and float(counts.sum()) > 0
        and bool(np.all(starts == np.floor(starts)) and np.all(counts == np.floor(counts)))
    )
    if not is_sound:
        raise QueryError("the pooled classes are not counts on the grid")
    return Bins(starts.astype(np.int64), counts.astype(np.int64), n_grid)


def site_sums(
    tests: Sequence[tuple[Integers, Integers, Flags]], classes: Sequence[PairOfTests | None]
) -> tuple[Table, Evidence]:
    """Return a site's sums of placement values, two rows per comparison, and their evidence.

    Behind a row of classes that the site's own patients could not be part of stands nobody.
    """
    rows: list[tuple[float, ...]] = []
    groups: list[int] = []
    nested: list[tuple[int]] = []
    for (first, second, positive), pair in zip(tests, classes, strict=True):
        n_positive = int(np.count_nonzero(positive))
        smaller = min(n_positive, len(positive) - n_positive)
        if pair is None:
            rows += [(0.0,) * N_PAIR_SUMS] * 2
        else:
            v1 = placements(first, positive, pair[0], pair[1])
            v2 = placements(second, positive, pair[2], pair[3])
            rows += [tuple(row) for row in pair_sums(v1, v2, positive).tolist()]
            smaller = min(smaller, _own_part(first, second, positive, pair))
        groups += [smaller, smaller]
        nested += [(n_positive,), (n_positive,)]
    evidence = Evidence(smallest_group=max(groups), row_groups=tuple(groups), nested=tuple(nested))
    return tuple(rows), evidence


def _own_part(first: Integers, second: Integers, positive: Flags, classes: PairOfTests) -> int:
    """Return the smallest number of the site's patients in a bin of its histograms.

    0 if the classes cannot hold these patients among others: whoever makes classes up, instead of
    pooling what sites released, could count single patients above any value.
    """
    smallest = len(positive)
    parts = ((first, positive), (first, ~positive), (second, positive), (second, ~positive))
    for (bins, own), pooled in zip(parts, classes, strict=True):
        counts = np.bincount(np.searchsorted(pooled.starts, bins[own], side="right") - 1)
        counts = np.pad(counts, (0, len(pooled.starts) - len(counts)))
        total = int(pooled.counts.sum())
        if np.any(counts > pooled.counts) or total > LARGEST_SHARE * counts.sum():
            return 0
        # Bins are cut where a site shows counts on either side, and so not around few patients.
        smallest = min(smallest, int(counts[counts > 0].min(initial=smallest)))
    return smallest


def _paired_of_sums(tables: Sequence[Table], number: int, classes: PairOfTests) -> PairedAuc | None:
    """Return the comparison of one pair of tests from the sites' sums; None without any."""
    rows = [table[2 * number : 2 * number + 2] for table in tables]
    known = [row for row in rows if len(row) == 2 and all(len(part) == N_PAIR_SUMS for part in row)]
    if not known:
        return None
    bounds = [auc_of_bins(*classes[part : part + 2]) for part in (0, 2)]
    spread = [0.0 if auc is None else auc.error_bound for auc in bounds]
    return paired_auc(np.sum(np.array(known), axis=0), (spread[0], spread[1]))


def difference_rows(
    analysis: str,
    term: str,
    names: tuple[str, str],
    tables: Sequence[Table],
    number: int,
    classes: PairOfTests | None,
    absent: RowStatus,
) -> Iterator[Estimate]:
    """Yield both AUCs (group = the test's name) and their difference, all `pooled`.

    Suppressed where binning may have moved an AUC by more than `LARGEST_BOUND`.
    """
    found = None if classes is None else _paired_of_sums(tables, number, classes)
    if found is None:
        for name in names:
            yield value_row(
                analysis, POOLED, Measure.AUC, None, absent=absent, group=name, term=term
            )
        yield value_row(analysis, POOLED, Measure.AUC_DIFFERENCE, None, absent=absent, term=term)
        return
    n, n_events = found.first.n_positive + found.first.n_negative, found.first.n_positive
    for name, auc in zip(names, (found.first, found.second), strict=True):
        value = wald(auc.estimate, auc.se, low=0.0, high=1.0, method="delong")
        yield value_row(
            analysis,
            POOLED,
            Measure.AUC,
            None if auc.error_bound > LARGEST_BOUND else value,
            absent=RowStatus.SUPPRESSED,
            group=name,
            term=term,
            n=n,
            n_events=n_events,
        )
        yield value_row(
            analysis,
            POOLED,
            Measure.AUC_ERROR_BOUND,
            None if auc.error_bound > LARGEST_BOUND else Value(auc.error_bound),
            absent=RowStatus.SUPPRESSED,
            group=name,
            term=term,
            n=n,
        )
    value = wald(found.difference, found.se, method="delong", is_tested=True)
    is_vague = max(found.first.error_bound, found.second.error_bound) > LARGEST_BOUND
    yield value_row(
        analysis,
        POOLED,
        Measure.AUC_DIFFERENCE,
        None if is_vague else value,
        absent=RowStatus.SUPPRESSED,
        term=term,
        n=n,
        n_events=n_events,
    )
