"""What the audit of a cross table looks at, and when a ledger's line is on the disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from fedcac.disclosure import FileLedger, Gate, Question, load_policy
from fedcac.disclosure.audit import Mask
from fedcac.disclosure.cross_table import (
    RowKey,
    collapses,
    has_small,
    protect_table,
    rectangles,
    released_sums,
    two_by_two_tables,
    withdrawal_order,
)
from fedcac.vocabulary import RefusalCode

Cells = frozenset[int]


def cells_of(masks: Mask) -> list[Cells]:
    return [frozenset(np.flatnonzero(mask).tolist()) for mask in masks]


def block(rows: str, columns: str, size: int = 3) -> Cells:
    return frozenset(size * int(row) + int(column) for row in rows for column in columns)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_every_rectangle_of_categories_is_audited(size: int) -> None:
    runs = [
        "".join(map(str, range(first, last + 1)))
        for first in range(size)
        for last in range(first, size)
    ]
    found = cells_of(rectangles(size))
    assert len(found) == len(runs) ** 2
    assert set(found) == {block(rows, columns, size) for rows, columns in product(runs, runs)}


ALL = block("012", "012")


@pytest.mark.parametrize(
    ("kept", "rows", "facts", "derived"),
    [
        ((), set(), [ALL], []),
        # The positives at the lower cut-off, by the index: also how many they are, and the others.
        (
            (),
            {(0, True)},
            [ALL, block("12", "12"), block("12", "0")],
            [block("12", "012"), block("0", "012")],
        ),
        (
            (),
            {(0, False)},
            [ALL, block("0", "12"), block("0", "0")],
            [block("12", "012"), block("0", "012")],
        ),
        (
            (),
            {(1, True), (0, False)},
            [ALL, block("0", "12"), block("0", "0"), block("2", "2"), block("2", "01")],
            [block("12", "012"), block("0", "012"), block("2", "012"), block("01", "012")],
        ),
        (
            (1,),
            set(),
            [ALL, block("01", "01"), block("01", "2"), block("2", "01"), block("2", "2")],
            [],
        ),
        (
            (0, 1),
            {(0, True)},
            [ALL, block("12", "12"), block("12", "0")]
            + [block(row, column) for row, column in product("012", "012")],
            [block("12", "012"), block("0", "012")],
        ),
    ],
)
def test_what_is_told_and_what_follows_from_it(
    kept: tuple[int, ...], rows: set[RowKey], facts: list[Cells], derived: list[Cells]
) -> None:
    told, subtracted = released_sums(3, kept, frozenset(rows))
    assert cells_of(told) == facts
    assert cells_of(subtracted) == facts + derived


def test_what_is_withdrawn_and_merged_first() -> None:
    # At 1, 10, 100 and 400: 10, then 1, 400 and 100; of each first those without the condition.
    assert withdrawal_order(4) == tuple(product((1, 0, 3, 2), (False, True)))
    assert withdrawal_order(2) == tuple(product((0, 1), (False, True)))
    assert withdrawal_order(1) == ((0, False), (0, True))
    assert list(collapses(3)) == [(0, 1), (1, 2), (0, 2), (1,), (0,), (2,)]
    assert list(collapses(1)) == []


def test_a_table_of_just_enough_patients() -> None:
    assert protect_table(((5, 0), (0, 0)), 5, False).is_whole
    assert protect_table(((3, 1), (1, 0)), 5, False).rows == frozenset()
    with pytest.raises(ValueError, match="fewer than k"):
        protect_table(((3, 1), (0, 0)), 5, False)


LOWEST, HIGHEST = {(0, False), (0, True)}, {(2, False), (2, True)}


@pytest.mark.parametrize(
    ("matrix", "kept_cut_offs", "withdrawn"),
    [
        # Of three cut-offs the lowest, the highest, then the middle one, which a collapse tells.
        (((5, 3, 4, 4), (1, 1, 5, 7), (9, 5, 0, 1), (2, 5, 3, 5)), (1,), LOWEST | HIGHEST),
        (((9, 3, 3, 2), (1, 1, 2, 0), (1, 4, 9, 4), (2, 3, 1, 8)), (1,), {(0, False)}),
        (((5, 5, 2, 5), (5, 6, 3, 2), (4, 7, 2, 2), (2, 3, 0, 5)), (0, 1), HIGHEST),
        (((0, 3, 1, 0), (2, 3, 3, 3), (2, 5, 3, 1), (2, 6, 1, 6)), (1,), {(0, True)}),
        # No collapse is without a small cell.
        (((1, 2, 6, 2), (4, 5, 3, 1), (0, 2, 3, 2), (0, 1, 0, 2)), (), {(2, False)}),
        (((4, 7, 2, 1), (1, 2, 1, 0), (3, 2, 2, 1), (1, 2, 2, 1)), (), {(0, True)}),
    ],
)
def test_rows_are_withdrawn_in_one_order_and_none_that_a_collapse_tells(
    matrix: tuple[tuple[int, ...], ...], kept_cut_offs: tuple[int, ...], withdrawn: set[RowKey]
) -> None:
    answer = protect_table(matrix, 5, True)
    large = {
        (cut, positive)
        for cut, four in enumerate(two_by_two_tables(matrix))
        for positive, row in ((True, four[:2]), (False, four[2:]))
        if not has_small(np.array(row), 5, True)
    }
    assert answer.kept_cut_offs == kept_cut_offs
    assert large - answer.rows == withdrawn
    assert answer.rows <= large
    # Nothing is withdrawn before all that comes first is.
    others = [row for row in product((0, 2, 1), (False, True)) if row in large]
    others = [row for row in others if row[0] not in kept_cut_offs]
    assert set(others[: len(withdrawn)]) == withdrawn


def test_a_line_is_on_the_disk_before_the_answer_leaves(
    tmp_path: Path, ask: Callable[..., Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.jsonl"
    gate = Gate(load_policy("research"), FileLedger(path))
    synced: list[bytes] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.append(path.read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    for n in (1, 2):
        synced.clear()
        gate.refuse(ask(f"analysis {n}"), RefusalCode.UNKNOWN_ANALYSIS)
        # Whole as the disk was told to keep it, and nothing was written after that.
        assert synced[0].count(b"\n") == n
        assert synced[0] == path.read_bytes()
        # The folder names a new file, and is kept once.
        assert len(synced) == 3 - n
