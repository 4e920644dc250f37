"""What the rules share: rounding, the mark of a suppressed cell, the type of a verdict."""

from __future__ import annotations

from typing import Any

from fedcac.aggregate import Aggregate
from fedcac.disclosure.policy import Policy
from fedcac.vocabulary import CellStatus, RefusalCode

__all__ = [
    "HIDDEN",
    "Changes",
    "is_few",
    "kept_of_nested",
    "round_to_digits",
    "rounded",
    "significant_digits",
]

HIDDEN = CellStatus.SUPPRESSED

Changes = dict[str, Any] | RefusalCode
"""Fields of the aggregate with the values that may leave, or the refusal of all of it."""


def is_few(count: int, policy: Policy) -> bool:
    """Say whether a number is that of some patients, and of too few of them."""
    return 0 < count < policy.minimum_cell


def kept_of_nested(
    nested: tuple[tuple[int, ...], ...], is_kept: list[bool], policy: Policy
) -> list[bool]:
    """Return which entries may be shown beside those before them.

    `nested` gives each entry's numbers of patients, place by place parts of one another (empty:
    nothing is nested). An entry yields if a number differs by few patients from one kept before.
    """
    kept: list[bool] = []
    for position, wanted in enumerate(is_kept):
        earlier = [nested[i] for i, shown in enumerate(kept) if shown and nested]
        kept.append(
            wanted
            and not any(
                is_few(abs(one - other), policy)
                for numbers in earlier
                for one, other in zip(nested[position], numbers, strict=False)
            )
        )
    return kept


def significant_digits(aggregate: Aggregate, policy: Policy) -> int:
    """Return how many significant digits of a real number may leave."""
    return min(policy.significant_digits, type(aggregate).significant_digits)


def round_to_digits(number: float, digits: int) -> float:
    """Return a number rounded to so many significant decimal digits."""
    return float(f"{number:.{digits - 1}e}")


def rounded(rows: tuple[tuple[float, ...], ...], digits: int) -> tuple[tuple[float, ...], ...]:
    """Return every number of a table rounded to so many significant digits."""
    return tuple(tuple(round_to_digits(number, digits) for number in row) for row in rows)
