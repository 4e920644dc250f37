"""What a release means beside earlier ones: how much was told, and which tables may coexist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedcac.disclosure.policy import Policy
from fedcac.vocabulary import CellStatus

__all__ = ["are_compatible", "is_whole", "numbers_released"]

Payload = Mapping[str, Any]


def numbers_released(payload: Payload) -> int:
    """Return how many real numbers a released likelihood or table of totals tells.

    Of a likelihood: its value, the gradient, and the information's upper triangle without the
    entries that are zero by design, between models that share no parameter.
    """
    if "information" in payload:
        rows = payload["information"]
        filled = sum(
            1 for i, row in enumerate(rows) for j in range(i, len(row)) if i == j or row[j] != 0
        )
        return 1 + len(payload["gradient"]) + filled
    return sum(len(row) for row in payload["values"])


def are_compatible(one: Payload, other: Payload, policy: Policy) -> bool:
    """Say whether two tables of the same scores, cut alike, may both be known of one cohort.

    The same table may. Two whole tables of unequal size are those of a group and a part of it if
    one is nowhere larger: then every difference is a count too, and must not be small. Anything
    withheld from either could follow from the other.
    """
    names = ("matrix", "two_by_two", "kept_cut_offs", "collapsed")
    if all(one[name] == other[name] for name in names):
        return True
    if not (is_whole(one) and is_whole(other)) or one["n_patients"] == other["n_patients"]:
        return False
    first, second = np.array(one["matrix"]), np.array(other["matrix"])
    difference = first - second if first.sum() > second.sum() else second - first
    is_part = bool(np.all(difference >= 0))
    return not is_part or not any(policy.is_small(int(count)) for count in difference.flat)


def is_whole(table: Payload) -> bool:
    """Say whether every cell of a released cross table is shown."""
    return not any(count == CellStatus.SUPPRESSED.value for row in table["matrix"] for count in row)
