"""Histograms and life tables: neighbouring bins are merged until every count may be shown.

Bins are merged along a fixed binary tree over the grid: a bin is cut in its middle only if both
halves may be shown. Two releases of one variable, grouped in two ways, then cut at nested places,
so that no difference between their cuts is smaller than what they show.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcac.disclosure.policy import Policy
from fedcac.disclosure.rules.common import HIDDEN, Changes
from fedcac.vocabulary import CellStatus

__all__ = [
    "is_consistent_bins",
    "is_consistent_survival",
    "protect_bins",
    "protect_survival",
]

MINIMUM_AT_RISK = 10
"""A survival curve ends where fewer patients than this, or than k, are at risk."""

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
    return True


def protect_bins(bins: Any, policy: Policy) -> Changes:
    """Merge each group's bins until every count may be shown; else suppress the group."""
    starts, counts = [], []
    for groups in bins.counts:
        kept = [_dyadic_starts(np.array(row, dtype=np.int64), policy) for row in groups]
        starts.append(tuple(tuple(firsts) for firsts in kept))
        counts.append(
            tuple(
                tuple(int(count) for count in np.add.reduceat(row, firsts)) if firsts else ()
                for row, firsts in zip(groups, kept, strict=True)
            )
        )
    return {"starts": tuple(starts), "counts": tuple(counts)}


def _dyadic_starts(row: Counts, policy: Policy) -> list[int]:
    def split(low: int, high: int) -> list[int]:
        middle = (low + high) // 2
        if high - low < 2:
            return [low]
        if middle >= len(row):
            # The tree is padded to a power of two; what lies beyond the grid holds nobody.
            return split(low, middle)
        halves = int(row[low:middle].sum()), int(row[middle:high].sum())
        if any(policy.is_small(half) for half in halves):
            return [low]
        return split(low, middle) + split(middle, high)

    if policy.is_small(int(row.sum())):
        return []
    return split(0, 1 << max(len(row) - 1, 0).bit_length())


def is_consistent_survival(table: Any) -> bool:
    """Say whether each group's life table adds up from bin to bin, and the groups to n."""
    n = 0
    for edges, *rows in zip(table.edges, table.at_risk, table.events, table.censored, strict=True):
        if any(isinstance(count, CellStatus) for row in rows for count in row):
            return False
        at_risk, events, censored = rows
        if list(edges) != list(range(len(edges))) or not at_risk:
            return False
        left = [n - d - c for n, d, c in zip(at_risk, events, censored, strict=True)]
        if left[:-1] != list(at_risk[1:]) or left[-1] < 0:
            return False
        n += at_risk[0]
    is_known = not isinstance(table.n_events, CellStatus)
    return is_known and n == table.n_patients and table.n_events <= n


def protect_survival(table: Any, policy: Policy) -> Changes:
    """Merge each group's time bins until events are 0 or at least k, and end the curve early.

    A curve ends where fewer than k or `MINIMUM_AT_RISK` patients are at risk, or where the events
    that follow are too few to be shown. Zero events in a bin say no more than a flat curve does.
    """
    k = policy.minimum_cell
    least = max(k, MINIMUM_AT_RISK)
    edges: list[tuple[int, ...]] = []
    rows: dict[str, list[tuple[int, ...]]] = {"at_risk": [], "events": [], "censored": []}
    is_whole = True
    for group in zip(table.at_risk, table.events, table.censored, strict=True):
        at_risk, events, censored = (np.array(row, dtype=np.int64) for row in group)
        kept = _time_edges(at_risk, events, k, least)
        is_whole &= bool(kept) and kept[-1] == len(at_risk)
        edges.append(tuple(kept))
        spans = list(pairwise(kept))
        rows["at_risk"].append(tuple(int(at_risk[start]) for start, _ in spans))
        rows["events"].append(tuple(int(events[start:end].sum()) for start, end in spans))
        rows["censored"].append(tuple(int(censored[start:end].sum()) for start, end in spans))
    changes: dict[str, Any] = {name: tuple(values) for name, values in rows.items()}
    # The number of all events would give away those after the end of a curve.
    return {**changes, "edges": tuple(edges), "n_events": table.n_events if is_whole else HIDDEN}


def _time_edges(at_risk: Counts, events: Counts, k: int, least: int) -> list[int]:
    if at_risk[0] < least:
        return []
    edges, pending = [0], 0
    for position in range(len(at_risk)):
        # Whoever is at risk after a bin follows from its row, so the next bin's minimum counts.
        if position + 1 < len(at_risk) and at_risk[position + 1] < least:
            break
        pending += int(events[position])
        if pending == 0 or pending >= k:
            edges.append(position + 1)
            pending = 0
    return edges if len(edges) > 1 else []
