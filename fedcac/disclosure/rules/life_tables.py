"""Life tables: time is cut where enough events lie on both sides, and curves end early.

Time bins are merged along the binary tree of histograms, so that an edge lies at a place of the
tree and never at the day of an event.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcac.disclosure.policy import Policy
from fedcac.disclosure.rules.bins import padded_size
from fedcac.disclosure.rules.common import HIDDEN, Changes, is_few
from fedcac.vocabulary import CellStatus

__all__ = ["is_consistent", "protect"]

MINIMUM_AT_RISK = 10
"""A survival curve ends where fewer patients than this, or than k, are at risk."""

Counts = NDArray[np.int64]


def is_consistent(table: Any) -> bool:
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
    return n == table.n_patients and _are_events_possible(table)


def _are_events_possible(table: Any) -> bool:
    if isinstance(table.n_events, CellStatus) or table.n_events > table.n_patients:
        return False
    seen = table.evidence
    if seen is None or not seen.row_groups:
        return sum(map(sum, table.events)) <= int(table.n_events)
    return (
        len(seen.row_groups) == len(table.events)
        and sum(seen.row_groups) == table.n_events
        and all(n >= sum(row) for n, row in zip(seen.row_groups, table.events, strict=True))
    )


def protect(table: Any, policy: Policy) -> Changes:
    """Merge each group's time bins, end its curve where few are left, or suppress the group.

    Zero events or zero censored in a bin may be shown: they say no more than a flat curve does.
    """
    curves = [
        _Curve(group, later, policy)
        for group, later in zip(
            zip(table.at_risk, table.events, table.censored, strict=True),
            _events_after(table, policy),
            strict=True,
        )
    ]
    kept = [curve.edges() for curve in curves]
    # A group without a curve counts as nobody, so that the others are judged against the number
    # of all patients.
    sizes = [int(row[0]) if edges else 0 for row, edges in zip(table.at_risk, kept, strict=True)]
    hidden = table.n_patients - sum(sizes)
    shown = {group for group, edges in enumerate(kept) if edges}
    if len(shown) < len(kept):
        shown &= _beside(sizes, hidden, policy)
    parts: dict[str, list[tuple[int, ...]]] = {"at_risk": [], "events": [], "censored": []}
    for group, curve in enumerate(curves):
        spans = list(pairwise(kept[group])) if group in shown else []
        parts["at_risk"].append(tuple(int(curve.at_risk[low]) for low, _ in spans))
        parts["events"].append(tuple(int(curve.events[a:b].sum()) for a, b in spans))
        parts["censored"].append(tuple(int(curve.censored[a:b].sum()) for a, b in spans))
    changes: dict[str, Any] = {name: tuple(rows) for name, rows in parts.items()}
    edges = tuple(tuple(own) if group in shown else () for group, own in enumerate(kept))
    # Behind the end of no shown curve are few events, nor then behind all of them.
    is_known = len(shown) == len(kept)
    return {**changes, "edges": edges, "n_events": table.n_events if is_known else HIDDEN}


def _beside(sizes: list[int], hidden: int, policy: Policy) -> set[int]:
    """Return which groups may be shown beside so many hidden patients."""
    shown = sorted(range(len(sizes)), key=lambda group: sizes[group])
    while shown and policy.is_small(hidden):
        hidden += sizes[shown.pop(0)]
    return set(shown)


def _events_after(table: Any, policy: Policy) -> list[int]:
    """Return every group's events after the last time bin."""
    inside = [sum(row) for row in table.events]
    seen = table.evidence
    if seen is not None and seen.row_groups:
        return [n - own for n, own in zip(seen.row_groups, inside, strict=True)]
    later = int(table.n_events) - sum(inside)
    # Without evidence any group may have had all of a few.
    return [later if len(inside) == 1 or is_few(later, policy) else 0] * len(inside)


class _Curve:
    """One group's table, and where its time may be cut."""

    def __init__(self, rows: Sequence[Sequence[int]], later: int, policy: Policy) -> None:
        self.at_risk, self.events, self.censored = (np.array(row, dtype=np.int64) for row in rows)
        last = self.at_risk[-1] - self.events[-1] - self.censored[-1]
        self._left = np.append(self.at_risk, last)
        self._later = later
        self._policy = policy
        self._least = max(policy.minimum_cell, MINIMUM_AT_RISK)

    def edges(self) -> list[int]:
        """Return the edges shown, at least two; none if no curve may be shown."""
        size = len(self.events)
        high = padded_size(size)
        while high:
            end = min(high, size)
            if self._may_end(end):
                return [*self._split(0, high), end]
            high //= 2
        return []

    def _may_end(self, end: int) -> bool:
        # What follows the end is known from the number of all events, for example of a Cox model.
        left = int(self._left[end])
        events_left = int(self.events[end:].sum()) + self._later
        is_ended_well = left >= self._least or left == 0
        counts = [self.events[:end].sum(), self.censored[:end].sum()]
        counts += [events_left, left - events_left]
        return (
            self.at_risk[0] >= self._least
            and is_ended_well
            and not any(is_few(int(count), self._policy) for count in counts)
        )

    def _split(self, low: int, high: int) -> list[int]:
        """Return the starts of the bins of a node of the tree."""
        middle = (low + high) // 2
        if middle >= len(self.events):
            return self._split(low, middle)
        is_cut = self._left[middle] >= self._least and all(
            self.events[a:b].sum() >= self._policy.minimum_cell
            and not is_few(int(self.censored[a:b].sum()), self._policy)
            for a, b in ((low, middle), (middle, high))
        )
        if not is_cut:
            return [low]
        return self._split(low, middle) + self._split(middle, high)
