"""Moments leave term by term, where enough patients stand behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedcac.aggregate import Evidence
from fedcac.disclosure.policy import Policy
from fedcac.disclosure.rules.common import (
    HIDDEN,
    Changes,
    is_few,
    round_to_digits,
    significant_digits,
)
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
    seen = moments.evidence
    if seen is not None and not _has_blocks(seen, len(moments.n)):
        return False
    return not any(isinstance(cell, CellStatus) for cell in cells) and all(
        n <= moments.n_patients for n in moments.n
    )


def _has_blocks(seen: Evidence, n_terms: int) -> bool:
    """Say whether the blocks run 0 .. b - 1 over and over, or are not given."""
    blocks = len(seen.block_sizes)
    if not blocks:
        return not seen.row_blocks
    return seen.row_blocks == tuple(term % blocks for term in range(n_terms))


def protect(moments: Any, policy: Policy) -> Changes:
    """Suppress terms with too few patients, or with almost as many as another term."""
    return _protect(moments, policy, _SINGLE)


def protect_pair(moments: Any, policy: Policy) -> Changes:
    """Suppress terms of paired moments as `protect` does."""
    return _protect(moments, policy, _PAIR)


def _protect(moments: Any, policy: Policy, names: Sequence[str]) -> Changes:
    digits = significant_digits(moments, policy)
    is_kept = _kept_terms(moments, policy)
    changes: dict[str, Any] = {
        "n": tuple(n if kept else HIDDEN for n, kept in zip(moments.n, is_kept, strict=True))
    }
    for name in names:
        changes[name] = tuple(
            round_to_digits(cell, digits) if kept else HIDDEN
            for cell, kept in zip(getattr(moments, name), is_kept, strict=True)
        )
    return changes


def _kept_terms(moments: Any, policy: Policy) -> list[bool]:
    # Two numbers of patients that differ by fewer than k describe the few by subtraction. Terms
    # are compared in their order with everything kept before them, the number of all first; terms
    # about different patients (of two blocks) are not.
    seen = moments.evidence
    sizes = seen.block_sizes if seen is not None and seen.block_sizes else (moments.n_patients,)
    shown = [[size] for size in sizes]
    is_kept = []
    for term, count in enumerate(moments.n):
        block = shown[term % len(sizes)]
        is_kept.append(
            count >= policy.minimum_patients
            and not any(is_few(abs(count - other), policy) for other in block)
        )
        if is_kept[-1]:
            block.append(count)
    for first in range(0, len(is_kept), len(sizes)):
        _complete(moments, is_kept, range(first, first + len(sizes)), policy)
    return is_kept


def _complete(moments: Any, is_kept: list[bool], terms: range, policy: Policy) -> None:
    # A single small block would follow from the number of all patients.
    shown = sorted((term for term in terms if is_kept[term]), key=lambda term: moments.n[term])
    rest = moments.n_patients - sum(moments.n[term] for term in shown)
    while shown and len(shown) < len(terms) and policy.is_small(rest):
        smallest = shown.pop(0)
        is_kept[smallest] = False
        rest += moments.n[smallest]
