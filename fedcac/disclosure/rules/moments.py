"""Moments leave term by term, where enough patients stand behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedcac.disclosure.policy import Policy
from fedcac.disclosure.rules.common import HIDDEN, Changes, round_to_digits, significant_digits
from fedcac.vocabulary import CellStatus

__all__ = ["is_consistent", "is_consistent_pair", "protect", "protect_pair"]

_SINGLE = ("mean", "m2")
_PAIR = ("mean_x", "mean_y", "m2_x", "m2_y", "cross")


def is_consistent(moments: Any) -> bool:
    """Say whether no cell is suppressed yet, and counts and sums of squares are possible."""
    return _is_plain(moments, _SINGLE) and all(m2 >= 0 for m2 in moments.m2)


def is_consistent_pair(moments: Any) -> bool:
    """Say the same of paired moments, whose cross products obey Cauchy and Schwarz."""
    if not _is_plain(moments, _PAIR):
        return False
    sums = zip(moments.m2_x, moments.m2_y, moments.cross, strict=True)
    return all(x >= 0 and y >= 0 and xy**2 <= x * y * (1 + 1e-9) + 1e-12 for x, y, xy in sums)


def _is_plain(moments: Any, names: Sequence[str]) -> bool:
    cells = (*moments.n, *(cell for name in names for cell in getattr(moments, name)))
    return not any(isinstance(cell, CellStatus) for cell in cells) and all(
        n <= moments.n_patients for n in moments.n
    )


def protect(moments: Any, policy: Policy) -> Changes:
    """Suppress terms with too few patients, or with almost as many as another term."""
    return _protect(moments, policy, _SINGLE)


def protect_pair(moments: Any, policy: Policy) -> Changes:
    """Suppress terms of paired moments as `protect` does."""
    return _protect(moments, policy, _PAIR)


def _protect(moments: Any, policy: Policy, names: Sequence[str]) -> Changes:
    digits = significant_digits(moments, policy)
    # Two numbers of patients that differ by fewer than k describe the few by subtraction. Terms
    # are compared in their order with everything kept before them, the cohort's number first.
    shown = [moments.n_patients]
    is_kept = []
    for count in moments.n:
        is_kept.append(
            count >= policy.minimum_patients
            and not any(0 < abs(count - other) < policy.minimum_cell for other in shown)
        )
        if is_kept[-1]:
            shown.append(count)
    changes: dict[str, Any] = {
        "n": tuple(n if kept else HIDDEN for n, kept in zip(moments.n, is_kept, strict=True))
    }
    for name in names:
        changes[name] = tuple(
            round_to_digits(cell, digits) if kept else HIDDEN
            for cell, kept in zip(getattr(moments, name), is_kept, strict=True)
        )
    return changes
