"""Sizes of the groups of a table of characteristics: what is shown, and what a cross table sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedcac.disclosure import load_policy
from fedcac.disclosure.cross_table import Matrix
from fedcac.disclosure.margins import margin_sums
from fedcac.disclosure.rules import apply_rule
from fedcac.statistics.auc import ClassHistogram
from fedcac.statistics.descriptives import CharacteristicCounts
from fedcac.vocabulary import RefusalCode

K5 = load_policy("research")

Rows = tuple[tuple[int, ...], ...]


def shown(kind: Any, *variables: Rows) -> Any:
    n = sum(map(sum, variables[0]))
    starts = tuple(tuple(tuple(range(len(row))) for row in rows) for rows in variables)
    answer = apply_rule(kind(n_patients=n, starts=starts, counts=variables), K5)
    assert not isinstance(answer, RefusalCode)
    return answer


# Neighbours of which one is few: together 22.
MERGED = (20, 2, 30, 30)


def test_sizes_are_told_one_by_one_or_together() -> None:
    by_group = ((10, 10), (1, 1), (15, 15), (15, 15))
    answer = shown(CharacteristicCounts, (MERGED,), by_group)
    assert answer.counts[0] == ((82,),)
    assert answer.starts[0] == ((0,),)
    answer = shown(CharacteristicCounts, ((20, 12, 30, 30),), by_group)
    assert answer.counts[0] == ((20, 12, 30, 30),)


def test_sizes_alone_may_be_merged() -> None:
    answer = shown(CharacteristicCounts, (MERGED,))
    assert answer.counts == (((22, 30, 30),),)
    assert answer.starts == (((0, 2, 3),),)


def test_other_variables_and_other_histograms_may_be_merged() -> None:
    variable = (MERGED, (20, 20, 20, 20))
    answer = shown(CharacteristicCounts, ((82, 80),), variable)
    assert answer.starts[1] == ((0, 2, 3), (0, 2, 3))
    assert answer.counts[1] == ((22, 30, 30), (40, 20, 20))
    # Of classes the first variable is a histogram like the others.
    answer = shown(ClassHistogram, variable, variable)
    assert answer.starts == (((0, 2, 3), (0, 1, 2, 3)),) * 2


SCORES = ("reference", "index")
MATRIX: Matrix = ((30, 7, 3), (6, 20, 4), (1, 9, 20))
"""Row sums 40, 30, 30; column sums 37, 36, 27."""


def told(payload: dict[str, Any], column: str, matrix: Matrix = MATRIX) -> set[frozenset[int]]:
    sums = list(margin_sums(payload, (column,), SCORES, matrix))
    counts = np.array(matrix).reshape(-1)
    assert all(counts[mask].sum() == n for mask, n in sums)
    return {frozenset(np.flatnonzero(mask).tolist()) for mask, _ in sums}


def characteristics(*variables: list[list[int]]) -> dict[str, Any]:
    counts = [[[100]], *variables]
    return {
        "kind": CharacteristicCounts.kind,
        "n_patients": 100,
        "starts": [[list(range(len(row))) for row in rows] for rows in counts],
        "counts": counts,
    }


ROWS = [frozenset({0, 1, 2}), frozenset({3, 4, 5}), frozenset({6, 7, 8})]
COLUMNS = [frozenset({0, 3, 6}), frozenset({1, 4, 7}), frozenset({2, 5, 8})]


@pytest.mark.parametrize(
    ("variables", "column", "expected"),
    [
        ([[[20, 20], [10, 20], [30]]], "reference", ROWS),
        ([[[20, 20], [], [30]]], "reference", [ROWS[0], ROWS[2]]),
        ([[[], [], []]], "reference", []),
        ([[[20, 17], [16, 20], [27]]], "index", COLUMNS),
        ([[[20, 20], [10, 20], [30]]], "index", []),
        # Of one group the value is not known of all: its size does not follow, nor that of others.
        ([[[20, 20], [10, 19], [30]]], "reference", []),
        # In another variable it is.
        ([[[20, 20], [10, 19], [30]], [[40], [], [10, 20]]], "reference", [ROWS[0], ROWS[2]]),
        # Groups by something else.
        ([[[40], [30]]], "reference", []),
        ([[[40], [30], [30], []]], "reference", []),
    ],
)
def test_groups_that_are_categories_tell_rows_of_a_table(
    variables: list[list[list[int]]], column: str, expected: list[frozenset[int]]
) -> None:
    assert told(characteristics(*variables), column) == set(expected)


def test_a_class_is_no_category() -> None:
    # One cut-off: of the negatives 30 and 10 are told, of the positives nothing.
    negatives = {
        "kind": ClassHistogram.kind,
        "n_patients": 100,
        "starts": [[[0, 1], []]],
        "counts": [[[30, 10], []]],
    }
    cells = {frozenset({0}), frozenset({1})}
    assert told(negatives, "reference", ((30, 10), (20, 40))) == cells
