"""Sums over the cells of a cross table that answers of any shape tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcac.aggregate import BinnedCounts, SurvivalTable
from fedcac.aggregate.base import registered
from fedcac.disclosure.audit import Mask
from fedcac.disclosure.cross_table import Matrix, block
from fedcac.disclosure.differences import class_sizes, shape_is

__all__ = ["Payload", "Sums", "margin_sums", "table_sums"]

Payload = Mapping[str, Any]
Counts = NDArray[np.int64]

Sums = list[tuple[Mask, int]]
"""Cells of a table (n_cells,), row by row, and how many patients are in them."""


def table_sums(table: Payload) -> Sums:
    """Return every number of a released cross table."""
    size = len(table["matrix"])
    spans: list[tuple[tuple[int, int], tuple[int, int], Any]] = [
        ((i, i + 1), (j, j + 1), count)
        for i, row in enumerate(table["matrix"])
        for j, count in enumerate(row)
    ]
    for cut, four in enumerate(table["two_by_two"], 1):
        low, high = (0, cut), (cut, size)
        sides = ((high, high), (high, low), (low, high), (low, low))
        spans += [(rows, columns, n) for (rows, columns), n in zip(sides, four, strict=True)]
    edges = list(pairwise([0, *(cut + 1 for cut in table["kept_cut_offs"]), size]))
    for i, row in enumerate(table["collapsed"]):
        spans += [(edges[i], edges[j], count) for j, count in enumerate(row)]
    return [
        (block(size, rows, columns), count)
        for rows, columns, count in spans
        if isinstance(count, int)
    ]


def margin_sums(
    payload: Payload, columns: Sequence[str], scores: tuple[str, str], matrix: Matrix
) -> Iterator[tuple[Mask, int]]:
    """Yield what an answer of another shape tells about a table of the same patients.

    Parameters
    ----------
    columns
        Of the site table, that the answer reads.
    scores
        The table's reference and index column.
    matrix
        The table's true counts, rows = reference.

    Notes
    -----
    A ledger does not say at which cut-offs an answer divides the patients. A number that an answer
    of this shape can tell, and that is the true one at a cut-off, is taken to be told: what is
    taken in addition can only make the table more cautious, and nothing untrue is taken.
    """
    counts = np.array(matrix)
    for axis, column in enumerate(scores):
        if column not in columns:
            continue
        turned = counts if axis == 0 else counts.T
        for cells in _told_of(payload, turned):
            mask = cells if axis == 0 else cells.T
            yield mask.reshape(-1), int(counts[mask].sum())


def _told_of(payload: Payload, counts: Counts) -> Iterator[Mask]:
    """Yield cells whose sum is told, of a table with the score in question in its rows."""
    kind = registered().get(payload["kind"])
    size = len(counts)
    positives = [int(counts[cut:].sum()) for cut in range(size)]
    for n in class_sizes(payload):
        yield from (_rows(size, cut, size) for cut in range(1, size) if positives[cut] == n)
    if kind is not None and issubclass(kind, BinnedCounts):
        for starts, groups in zip(payload["starts"], payload["counts"], strict=True):
            yield from _told_of_bins(starts, groups, counts, kind.are_groups_nested)
            if kind.has_common_grid:
                # Of a group's patients those whose value is known, which may be all.
                yield from _told_of_groups([sum(row) if row else None for row in groups], counts)
    if shape_is(payload, SurvivalTable):
        sizes = [row[0] if row else None for row in payload["at_risk"]]
        yield from _told_of_groups(sizes, counts)


def _told_of_groups(sizes: Sequence[int | None], counts: Counts) -> Iterator[Mask]:
    shown = [(group, n) for group, n in enumerate(sizes) if n is not None]
    size = len(counts)
    if len(sizes) == size and all(counts[group].sum() == n for group, n in shown):
        yield from (_rows(size, group, group + 1) for group, _ in shown)


def _told_of_bins(
    starts: Sequence[Sequence[int]],
    groups: Sequence[Sequence[int]],
    counts: Counts,
    is_of_classes: bool,
) -> Iterator[Mask]:
    size = len(counts)
    if is_of_classes:
        if len(groups) == 2:
            yield from _told_of_pairs(starts, groups, counts)
        return
    # The groups' own sizes, or the categories of a score by group.
    if len({tuple(first) for first in starts}) > 1:
        return
    edges = [*starts[0], size]
    sizes = np.sum(groups, axis=0)
    spans = list(pairwise(edges))
    is_cut_alike = len(edges) > 2 and edges[-2] < size
    if is_cut_alike and all(
        int(counts[a:b].sum()) == n for (a, b), n in zip(spans, sizes, strict=True)
    ):
        yield from (_rows(size, a, b) for a, b in spans)


def _told_of_pairs(
    starts: Sequence[Sequence[int]], groups: Sequence[Sequence[int]], counts: Counts
) -> Iterator[Mask]:
    """Yield a class's patients below and above a cut-off of another score, where bins tell them."""
    size = len(counts)
    for positive, (firsts, row) in enumerate(zip(starts, groups, strict=True)):
        below = list(accumulate(row))
        parts = set(below[:-1])
        # Of two tests at once, the second is in every other of four bins.
        if list(firsts) == [0, 1, 2, 3]:
            parts.add(row[0] + row[2])
        for cut in range(1, size):
            own = slice(cut, size) if positive else slice(0, cut)
            if not row or int(counts[own].sum()) != below[-1]:
                continue
            for other in range(1, size):
                if int(counts[own, :other].sum()) in parts:
                    for side in (slice(0, other), slice(other, size)):
                        mask = np.zeros((size, size), dtype=np.bool_)
                        mask[own, side] = True
                        yield mask


def _rows(size: int, first: int, end: int) -> Mask:
    mask = np.zeros((size, size), dtype=np.bool_)
    mask[first:end] = True
    return mask
