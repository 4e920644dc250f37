"""What the rules share: rounding, the mark of a suppressed cell, the type of a verdict."""

from __future__ import annotations

from typing import Any

from fedcac.aggregate import Aggregate
from fedcac.disclosure.policy import Policy
from fedcac.vocabulary import CellStatus, RefusalCode

__all__ = ["HIDDEN", "Changes", "round_to_digits", "rounded", "significant_digits"]

HIDDEN = CellStatus.SUPPRESSED

Changes = dict[str, Any] | RefusalCode
"""Fields of the aggregate with the values that may leave, or the refusal of all of it."""


def significant_digits(aggregate: Aggregate, policy: Policy) -> int:
    """Return how many significant digits of a real number may leave."""
    return min(policy.significant_digits, type(aggregate).significant_digits)


def round_to_digits(number: float, digits: int) -> float:
    """Return a number rounded to so many significant decimal digits."""
    return float(f"{number:.{digits - 1}e}")


def rounded(rows: tuple[tuple[float, ...], ...], digits: int) -> tuple[tuple[float, ...], ...]:
    """Return every number of a table rounded to so many significant digits."""
    return tuple(tuple(round_to_digits(number, digits) for number in row) for row in rows)
