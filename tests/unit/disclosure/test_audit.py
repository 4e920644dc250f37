from __future__ import annotations

import numpy as np
import pytest

from fedcac.disclosure import audit
from fedcac.disclosure.audit import is_any_exposed, nested_differences


def _mask(*rows: str) -> np.ndarray:
    return np.array([[letter == "x" for letter in row] for row in rows])


def test_nested_differences_lists_each_once() -> None:
    sums = _mask("xxxx", "xx..", "x...", "xxxx")
    found = {"".join("x" if bit else "." for bit in row) for row in nested_differences(sums)}
    assert found == {"..xx", ".xxx", ".x.."}


@pytest.mark.parametrize(
    ("counts", "facts", "exposed"),
    [
        # One small cell among few patients whose sum is known: 2 of 4 is confined to 0..4.
        ([2, 2, 50], ("xxx", "xx."), True),
        # The same cell in a pool of 12 is free over 0..12.
        ([2, 10, 50], ("xxx", "xx."), False),
        # Two overlapping sums determine the middle cell.
        ([30, 2, 30], ("xxx", "xx.", ".xx"), True),
        # Nothing but the total is known.
        ([1, 1, 50], ("xxx",), False),
        # No small cell, nothing to protect.
        ([9, 9, 50], ("xxx", "x..", ".x."), False),
    ],
)
def test_hand_made_tables(counts: list[int], facts: tuple[str, ...], exposed: bool) -> None:
    atoms = _mask("x..", ".x.", "..x")
    assert is_any_exposed(np.array(counts), _mask(*facts), atoms, 5, zero=True) is exposed


def test_zeros_are_audited_only_where_they_are_small() -> None:
    facts, atoms = _mask("xx", "x."), _mask("x.", ".x")
    counts = np.array([0, 20])
    assert is_any_exposed(counts, facts, atoms, 5, zero=True)
    assert not is_any_exposed(counts, facts, atoms, 5, zero=False)


def test_an_unsolved_program_counts_as_exposed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unsolved:
        x = None
        status = 1

    # The second cell lies anywhere in 0..12, which takes a program to see.
    counts, facts = np.array([10, 2, 10, 10]), _mask("xxxx", "xx..", ".xx.")
    atoms = np.eye(4, dtype=np.bool_)
    assert not is_any_exposed(counts, facts, atoms, 5, zero=True)
    monkeypatch.setattr(audit, "milp", lambda *_args, **_kwargs: Unsolved())
    assert is_any_exposed(counts, facts, atoms, 5, zero=True)
