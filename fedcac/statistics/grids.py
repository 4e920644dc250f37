"""Public grids: where the values of a variable are cut into bins, the same at every site."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedcac.aggregate import BinnedCounts
from fedcac.exams import Exams
from fedcac.protocol import Covariate, Protocol
from fedcac.vocabulary import CellStatus

__all__ = [
    "HIGHEST_SCORE",
    "bin_numbers",
    "common_bins",
    "covariate_edges",
    "grid_counts",
    "positive_at",
    "probability_edges",
    "released_row",
    "risk_bin_labels",
    "score_edges",
]

HIGHEST_SCORE = 10_000.0
"""Agatston scores above this share the last bin."""

Vector = NDArray[np.float64]
Integers = NDArray[np.int64]


def score_edges(n_bins: int) -> Vector:
    """Return inner edges of bins of the score, evenly spaced in ln(score + 1), shape (n_bins-1,).

    A score equal to an edge belongs above. The first bin holds zero and nothing else.
    """
    edges: Vector = np.expm1(np.log1p(HIGHEST_SCORE) * np.arange(n_bins - 1) / (n_bins - 1))
    edges[0] = np.nextafter(0.0, 1.0)
    return edges


def probability_edges(n_bins: int) -> Vector:
    """Return inner edges of even bins between 0 and 1, shape (n_bins - 1,)."""
    edges: Vector = np.arange(1, n_bins) / n_bins
    return edges


def covariate_edges(covariate: Covariate, n_bins: int) -> Vector:
    """Return inner edges of a covariate's bins.

    One bin per level of a categorical covariate. Otherwise the protocol's minimum has the first
    bin to itself, since many a measurement piles up there, and the rest are even up to the
    maximum. Without both limits there is a single bin.
    """
    if covariate.type != "continuous":
        return np.arange(1, max(len(covariate.levels), 2), dtype=np.float64) - 0.5
    if covariate.minimum is None or covariate.maximum is None:
        return np.empty(0)
    edges = np.linspace(covariate.minimum, covariate.maximum, n_bins)[:-1]
    edges[0] = np.nextafter(covariate.minimum, np.inf)
    return np.asarray(edges, dtype=np.float64)


def positive_at(exams: Exams, column: str, cut_off: float, protocol: Protocol) -> NDArray[np.bool_]:
    """Say which patients a score calls positive at one of the protocol's cut-offs, shape (n,)."""
    position = protocol.categories.cut_offs.index(cut_off)
    positive: NDArray[np.bool_] = protocol.categories.categorise(exams.column(column)) > position
    return positive


def risk_bin_labels(edges: Sequence[float]) -> tuple[str, ...]:
    """Return the names of the bins of a probability between inner edges, such as `0.1-0.25`."""
    return tuple(f"{low:g}-{high:g}" for low, high in pairwise((0.0, *edges, 1.0)))


def bin_numbers(values: Vector, edges: Vector) -> Integers:
    """Return each value's bin, 0 .. len(edges), shape (n,)."""
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def grid_counts(
    bins: Integers, group: Integers, n_groups: int, n_bins: int
) -> tuple[tuple[int, ...], ...]:
    """Return patients per group and bin as the rows of `BinnedCounts`."""
    flat = np.bincount(group * n_bins + bins, minlength=n_groups * n_bins)
    return tuple(tuple(int(count) for count in row) for row in flat.reshape(n_groups, n_bins))


def released_row(
    binned: BinnedCounts, variable: int, group: int
) -> tuple[Integers, Integers] | None:
    """Return starts and counts of one group, or None if they are suppressed."""
    starts, counts = binned.starts[variable][group], binned.counts[variable][group]
    known = [count for count in counts if not isinstance(count, CellStatus)]
    if not starts or len(known) != len(counts):
        return None
    return np.array(starts, dtype=np.int64), np.array(known, dtype=np.int64)


def common_bins(rows: list[tuple[Integers, Integers]]) -> tuple[Integers, Integers]:
    """Return the finest bins that every row has, and the counts summed over rows on them."""
    starts = np.array(sorted(set.intersection(*(set(row[0].tolist()) for row in rows))))
    total = np.zeros(len(starts), dtype=np.int64)
    for firsts, counts in rows:
        total += np.add.reduceat(counts, np.searchsorted(firsts, starts))
    return starts, total
