"""Which counts of a cross table may leave: primary, then audited secondary suppression.

Released, in order of preference: the whole matrix; else its finest collapse without a small cell;
and, cut-off by cut-off, the rows (TP, FN) and (FP, TN) of the 2x2 table that hold no small cell.
Everything released is audited together. The audit looks at every rectangle of categories (single
cells, margins, 2x2 cells) and at every difference of nested released sums: the cut-offs are
nested, so subtraction is the attack to fear. While it fails, rows are withdrawn in a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from fedcac.disclosure.audit import Counts, Mask, is_any_exposed, nested_differences

__all__ = [
    "ProtectedTable",
    "block",
    "collapse",
    "collapses",
    "has_small",
    "protect_table",
    "rectangles",
    "released_sums",
    "two_by_two_tables",
    "withdrawal_order",
]

Matrix = tuple[tuple[int, ...], ...]
RowKey = tuple[int, bool]
"""A cut-off's index, and True for its row (TP, FN) of reference positives, else (FP, TN)."""


@dataclass(frozen=True)
class ProtectedTable:
    """What of a matrix may leave.

    `is_whole`: the matrix and every 2x2 table. Otherwise `kept_cut_offs` with `collapsed`
    (both empty if no collapse is safe), and the released 2x2 `rows`.
    """

    is_whole: bool
    kept_cut_offs: tuple[int, ...]
    collapsed: Matrix
    rows: frozenset[RowKey]


def preferred_cut_off(n_cut_offs: int) -> int:
    """Return the index of the cut-off kept longest: 100 among 1, 10, 100, 400."""
    return n_cut_offs // 2


def withdrawal_order(n_cut_offs: int) -> tuple[RowKey, ...]:
    """Return the order in which 2x2 rows are withdrawn, whatever the counts are.

    Inner cut-offs from the lowest up, then the lowest, the highest and the preferred cut-off (for
    1, 10, 100, 400: 10, 1, 400, 100); at each first (FP, TN), then (TP, FN).
    """
    first, last, preferred = 0, n_cut_offs - 1, preferred_cut_off(n_cut_offs)
    order = sorted(range(n_cut_offs), key=lambda c: (c == preferred, c == last, c == first, c))
    return tuple((cut_off, positive) for cut_off in order for positive in (False, True))


def two_by_two_tables(matrix: Matrix) -> tuple[tuple[int, int, int, int], ...]:
    """Return (TP, FN, FP, TN) at every cut-off of a square matrix, rows = reference."""
    table = np.asarray(matrix, dtype=np.int64)
    return tuple(
        (
            int(table[c + 1 :, c + 1 :].sum()),
            int(table[c + 1 :, : c + 1].sum()),
            int(table[: c + 1, c + 1 :].sum()),
            int(table[: c + 1, : c + 1].sum()),
        )
        for c in range(len(matrix) - 1)
    )


@lru_cache(maxsize=128)
def protect_table(matrix: Matrix, k: int, zero_is_small: bool) -> ProtectedTable:
    """Return what may leave of a matrix of counts.

    Parameters
    ----------
    matrix
        Square counts of shape (c + 1, c + 1) for c cut-offs, rows = reference.
    k
        Smallest count that may be shown. The matrix's total must be at least k.
    zero_is_small
        Whether a zero may not be shown either.

    Raises
    ------
    ValueError
        If the total is below k: then not even the total may leave.

    Notes
    -----
    The withdrawal ends: with no row left beside it, a collapse has no small cell, and each
    category it merged is free between 0 and its block's count, which is 0 or at least k.
    """
    table = np.asarray(matrix, dtype=np.int64)
    if table.sum() < k:
        raise ValueError("a table with fewer than k patients has nothing to release")
    if not has_small(table, k, zero_is_small):
        every_row = frozenset(withdrawal_order(len(matrix) - 1))
        return ProtectedTable(True, (), (), every_row)
    kept = _finest_collapse(table, k, zero_is_small)
    rows = {
        (cut_off, positive)
        for cut_off, cells in enumerate(two_by_two_tables(matrix))
        for positive in (True, False)
        if not has_small(np.asarray(cells[:2] if positive else cells[2:]), k, zero_is_small)
    }
    # A row at a kept cut-off is a sum of collapsed cells: it tells nothing more.
    removable = [
        row for row in withdrawal_order(len(matrix) - 1) if row in rows and row[0] not in kept
    ]
    while _is_exposed(table, kept, frozenset(rows), k, zero_is_small):
        rows.remove(removable.pop(0))
    return ProtectedTable(False, kept, collapse(table, kept), frozenset(rows))


def has_small(counts: NDArray[np.int64], k: int, zero: bool) -> bool:
    """Say whether one of several counts may not be shown."""
    return bool(np.any((counts < k) & (zero | (counts > 0))))


def _finest_collapse(table: Counts, k: int, zero: bool) -> tuple[int, ...]:
    for kept in collapses(len(table) - 1):
        if not has_small(np.asarray(collapse(table, kept)), k, zero):
            return kept
    return ()


def collapses(n_cut_offs: int) -> Iterator[tuple[int, ...]]:
    """Yield the cut-offs that a collapse may keep, the finest first, in the order preferred."""
    preferred = preferred_cut_off(n_cut_offs)
    for size in range(n_cut_offs - 1, 0, -1):
        yield from sorted(
            combinations(range(n_cut_offs), size), key=lambda kept: (preferred not in kept, kept)
        )


def collapse(table: Counts, kept: tuple[int, ...]) -> Matrix:
    """Return a matrix with the categories between the kept cut-offs merged; () if none is kept."""
    if not kept:
        return ()
    starts = [0, *(cut_off + 1 for cut_off in kept)]
    merged = np.add.reduceat(np.add.reduceat(table, starts, axis=0), starts, axis=1)
    return tuple(tuple(int(count) for count in row) for row in merged)


def _is_exposed(
    table: Counts, kept: tuple[int, ...], rows: frozenset[RowKey], k: int, zero: bool
) -> bool:
    size = len(table)
    facts, sums = released_sums(size, kept, rows)
    groups = np.vstack([rectangles(size), nested_differences(sums)])
    return is_any_exposed(table.reshape(-1), facts, groups, k, zero=zero)


def released_sums(size: int, kept: tuple[int, ...], rows: frozenset[RowKey]) -> tuple[Mask, Mask]:
    """Return the cells of every number released; and these with the sums that follow from a row."""
    facts = [block(size, (0, size), (0, size))]
    derived: list[Mask] = []
    for cut_off, positive in sorted(rows):
        cut = cut_off + 1
        span = (cut, size) if positive else (0, cut)
        facts += [block(size, span, (cut, size)), block(size, span, (0, cut))]
        derived += [block(size, (cut, size), (0, size)), block(size, (0, cut), (0, size))]
    edges = [0, *(cut_off + 1 for cut_off in kept), size]
    if kept:
        spans = list(pairwise(edges))
        facts += [block(size, reference, index) for reference in spans for index in spans]
    return np.stack(facts), np.stack(facts + derived)


def block(size: int, reference: tuple[int, int], index: tuple[int, int]) -> Mask:
    """Return the cells, (size * size,), of spans of reference and of index categories."""
    mask = np.zeros((size, size), dtype=np.bool_)
    mask[slice(*reference), slice(*index)] = True
    return mask.reshape(-1)


@lru_cache(maxsize=16)
def rectangles(size: int) -> Mask:
    """Return the cells of every rectangle of categories, shape (n_rectangles, size * size)."""
    spans = [(start, stop) for start in range(size) for stop in range(start + 1, size + 1)]
    return np.stack([block(size, reference, index) for reference in spans for index in spans])
