"""Histograms: neighbouring bins are merged until every count may be shown.

Bins are merged along a fixed binary tree over the grid: a bin is cut in its middle only if both
halves may be shown. Two releases of one variable, grouped in two ways, then cut at nested places,
so that no difference between their cuts is smaller than what they show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcac.disclosure.policy import Policy
from fedcac.disclosure.rules.common import Changes, is_few, kept_of_nested
from fedcac.vocabulary import CellStatus

__all__ = ["is_consistent_bins", "padded_size", "protect_bins", "shown_groups"]

Counts = NDArray[np.int64]


def is_consistent_bins(bins: Any) -> bool:
    """Say whether every group is on its whole grid, and no variable counts a patient twice."""
    for starts, groups in zip(bins.starts, bins.counts, strict=True):
        counts = [count for row in groups for count in row]
        if any(isinstance(count, CellStatus) for count in counts):
            return False
        grid = list(range(len(groups[0])))
        if not grid or any(list(firsts) != grid for firsts in starts):
            return False
        if sum(counts) > bins.n_patients:
            return False
    nested = () if bins.evidence is None else bins.evidence.nested
    return len(nested) in (0, len(bins.counts))


def protect_bins(bins: Any, policy: Policy) -> Changes:
    """Merge each group's bins until every count may be shown; else suppress the group.

    A variable is suppressed if few patients have no value of it, or if its `nested` numbers differ
    by few from those of a variable before it.
    """
    totals = [[sum(row) for row in groups] for groups in bins.counts]
    shown = [shown_groups(sizes, bins.n_patients, policy) for sizes in totals]
    nested = () if bins.evidence is None else bins.evidence.nested
    is_kept = kept_of_nested(nested, [bool(groups) for groups in shown], policy)
    starts, counts = [], []
    has_common_grid = type(bins).has_common_grid
    for position, (groups, own, kept) in enumerate(zip(bins.counts, shown, is_kept, strict=True)):
        rows = [np.array(row, dtype=np.int64) for row in groups]
        firsts = _starts(rows, own if kept else set(), policy, has_common_grid)
        if has_common_grid and position == 0 and len(bins.counts) > 1:
            firsts = [_one_by_one(first, row) for first, row in zip(firsts, rows, strict=True)]
        starts.append(tuple(tuple(first) for first in firsts))
        counts.append(
            tuple(
                tuple(int(count) for count in np.add.reduceat(row, first)) if first else ()
                for row, first in zip(rows, firsts, strict=True)
            )
        )
    return {"starts": tuple(starts), "counts": tuple(counts)}


def _one_by_one(starts: list[int], row: Counts) -> list[int]:
    # The first variable of a table of characteristics is the groups' sizes. A small group merged
    # with a large one would follow from the large one's patients in the variables after it.
    return starts if len(starts) == len(row) else starts[:1]


def shown_groups(sizes: Sequence[int], n_patients: int, policy: Policy) -> set[int]:
    """Return the groups whose sizes may be known beside the number of all patients.

    Small groups are hidden. If what they are together is small, the next smallest group is hidden
    with them. If few patients stand in no group at all, none is shown.
    """
    shown = sorted(
        (group for group, size in enumerate(sizes) if not policy.is_small(size)),
        key=lambda group: sizes[group],
    )
    if is_few(n_patients - sum(sizes), policy):
        return set()
    while 0 < len(shown) < len(sizes):
        if not policy.is_small(n_patients - sum(sizes[group] for group in shown)):
            break
        shown.pop(0)
    return set(shown)


def _starts(
    rows: list[Counts], shown: set[int], policy: Policy, has_common_grid: bool
) -> list[list[int]]:
    if has_common_grid:
        together = _dyadic_starts([rows[group] for group in shown], policy)
        return [together if group in shown else [] for group in range(len(rows))]
    return [
        _dyadic_starts([row], policy) if group in shown else [] for group, row in enumerate(rows)
    ]


def _dyadic_starts(rows: list[Counts], policy: Policy) -> list[int]:
    """Return where the bins of these groups start; a cut is one in every group."""
    if not rows:
        return []
    size = len(rows[0])

    def split(low: int, high: int) -> list[int]:
        middle = (low + high) // 2
        if high - low < 2:
            return [low]
        if middle >= size:
            # The tree is padded to a power of two; what lies beyond the grid holds nobody.
            return split(low, middle)
        spans = ((low, middle), (middle, high))
        if any(policy.is_small(int(row[a:b].sum())) for row in rows for a, b in spans):
            return [low]
        return split(low, middle) + split(middle, high)

    return split(0, padded_size(size))


def padded_size(size: int) -> int:
    """Return the number of leaves of the binary tree over a grid."""
    return 1 << max(size - 1, 0).bit_length()
