"""Sums over the cells of a small table that answers of other shapes tell, worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedcac.disclosure.cross_table import Matrix
from fedcac.disclosure.margins import margin_sums, table_sums
from fedcac.statistics.auc import ClassHistogram
from fedcac.statistics.descriptives import CharacteristicCounts
from fedcac.statistics.kaplan_meier import KaplanMeierTable

SCORES = ("reference", "index")
MATRIX = ((30, 7, 3), (6, 20, 4), (1, 9, 20))
"""Row sums 40, 30, 30; column sums 37, 36, 27."""

Cells = frozenset[int]


def told(payload: dict[str, Any], *columns: str, matrix: Matrix = MATRIX) -> set[Cells]:
    found = set()
    for mask, n in margin_sums(payload, columns or ("reference",), SCORES, matrix):
        cells = np.flatnonzero(mask)
        assert n == np.array(matrix).reshape(-1)[cells].sum()
        found.add(frozenset(cells.tolist()))
    return found


def block(rows: str, columns: str = "012") -> Cells:
    return frozenset(3 * int(row) + int(column) for row in rows for column in columns)


# --- life tables ----------------------------------------------------------------------------


def curves(*at_risk: list[int]) -> dict[str, Any]:
    return {
        "kind": KaplanMeierTable.kind,
        "n_patients": 100,
        "edges": [[0, 1] if row else [] for row in at_risk],
        "at_risk": list(at_risk),
        "events": [[0] if row else [] for row in at_risk],
        "censored": [[0] if row else [] for row in at_risk],
        "n_events": 0,
    }


def test_curves_by_category() -> None:
    rows, columns = {block(i) for i in "012"}, {block("012", j) for j in "012"}
    assert told(curves([40], [30], [30])) == rows
    assert told(curves([37], [36], [27]), "index") == columns
    assert told(curves([37], [36], [27])) == set()
    # What reads both scores may be by either.
    assert told(curves([40], [30], [30]), *SCORES) == rows
    assert told(curves([40], [], [30])) == {block("0"), block("2")}
    assert told(curves([40], [], [31])) == set()
    assert told(curves([40], [30])) == set()
    assert told(curves([40], [30], [30], [])) == set()


# --- classes --------------------------------------------------------------------------------


def classes(
    negatives: list[int], positives: list[int], starts: tuple[int, ...] = (0, 2)
) -> dict[str, Any]:
    rows = [negatives, positives]
    return {
        "kind": ClassHistogram.kind,
        "n_patients": 100,
        "starts": [[list(starts) if row else [] for row in rows]],
        "counts": [rows],
    }


def sides(rows: str, other: int) -> set[Cells]:
    """Return a class's patients below and above a category of the other score."""
    return {block(rows, "012"[:other]), block(rows, "012"[other:])}


@pytest.mark.parametrize(
    ("negatives", "positives", "expected"),
    [
        # Positive from the second category on: 40 below, of whom 30, 7 and 3 by the other score.
        ([37, 3], [36, 24], {block("12")} | sides("0", 2) | sides("12", 2)),
        ([30, 10], [7, 53], {block("12")} | sides("0", 1) | sides("12", 1)),
        # Another bin than any category ends at: nothing but the classes' sizes.
        ([29, 11], [8, 52], {block("12")}),
        # From the third category on.
        ([63, 7], [10, 20], {block("2")} | sides("01", 2) | sides("2", 2)),
        ([36, 34], [10, 20], {block("2")} | sides("01", 1) | sides("2", 2)),
        # One class is withheld.
        ([], [36, 24], {block("12")} | sides("12", 2)),
        ([37, 3], [], sides("0", 2)),
        ([], [], set()),
        # At no cut-off of the table.
        ([20, 21], [36, 23], set()),
        # All patients are positive: none of the table's cut-offs tells so.
        ([0, 0], [37, 63], set()),
        # All in one bin is no part.
        ([0, 40], [60, 0], {block("12")}),
    ],
)
def test_a_histogram_by_class(
    negatives: list[int], positives: list[int], expected: set[Cells]
) -> None:
    assert told(classes(negatives, positives)) == expected


def test_categories_without_anybody_are_not_told_by_a_histogram() -> None:
    # Nobody of the class stands above the second category, or below it.
    matrix = ((30, 10, 0), (0, 30, 0), (0, 10, 20))
    given = classes([30, 10], [20, 40])
    assert told(given, matrix=matrix) == {block("12")} | sides("0", 1)
    given = classes([25, 15], [40, 20])
    assert told(given, matrix=matrix) == {block("12")} | sides("12", 2)


def test_three_groups_are_no_classes() -> None:
    rows = [[37, 3], [36, 24], [36, 24]]
    given = {**classes(rows[0], rows[1]), "starts": [[[0, 2]] * 3], "counts": [rows]}
    assert told(given) == set()
    one = {**given, "starts": [[[0, 2]]], "counts": [rows[1:2]]}
    assert told(one) == set()


def test_of_two_tests_at_once_the_second_is_in_every_other_bin() -> None:
    four = (0, 1, 2, 3)
    # 21 + 9 and 3 + 4 are below the second category by the second test.
    given = classes([21, 4, 9, 6], [3, 5, 4, 48], four)
    assert told(given) == {block("12")} | sides("0", 1) | sides("12", 1)
    # The first of them is in the lower two.
    given = classes([21, 9, 4, 6], [3, 4, 5, 48], four)
    assert told(given) == {block("12")} | sides("0", 1) | sides("12", 1)
    # Of a histogram that happens to have four bins, neighbours only.
    given = classes([21, 4, 9, 6], [3, 5, 4, 48], (0, 1, 2, 4))
    assert told(given) == {block("12")}
    given = classes([21, 4, 9], [3, 5, 4], (0, 1, 2))
    assert told(given) == set()


def test_classes_by_the_index_are_columns() -> None:
    # Positive by the index from the second category on: of the others 36 are below the third of
    # the reference. No category of the reference parts the positives as the histogram does.
    assert told(classes([36, 1], [27, 36]), "index") == {
        block("012", "12"),
        block("01", "0"),
        block("2", "0"),
    }


# --- categories -----------------------------------------------------------------------------


def groups(*variables: list[tuple[list[int], list[int]]]) -> dict[str, Any]:
    return {
        "kind": CharacteristicCounts.kind,
        "n_patients": 100,
        "starts": [[starts for starts, _ in own] for own in variables],
        "counts": [[counts for _, counts in own] for own in variables],
    }


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ([([0, 1, 2], [40, 30, 30])], {block(i) for i in "012"}),
        # By two groups, which are added up.
        ([([0, 1, 2], [15, 10, 30]), ([0, 1, 2], [25, 20, 0])], {block(i) for i in "012"}),
        ([([0, 2], [70, 30])], {block("01"), block("2")}),
        ([([0, 1], [40, 60])], {block("0"), block("12")}),
        # One category of all is no cut.
        ([([0], [100])], set()),
        # One number is another.
        ([([0, 1, 2], [40, 31, 29])], set()),
        ([([0, 2], [60, 40])], set()),
        # Groups that are cut unlike, or of which one is withheld.
        ([([0, 1, 2], [15, 10, 30]), ([0, 2], [45, 0])], set()),
        ([([0, 1, 2], [40, 30, 30]), ([], [])], set()),
        ([([], []), ([0, 1, 2], [40, 30, 30])], set()),
        ([([], []), ([], [])], set()),
        # More categories than the table has.
        ([([0, 1, 2, 3], [40, 30, 30, 0])], set()),
    ],
)
def test_sizes_of_categories(variable: Any, expected: set[Cells]) -> None:
    assert told(groups(variable)) == expected
    other = [([0, 1], [11, 89])]
    assert told(groups(other, variable)) == expected


def test_an_answer_of_a_kind_that_is_no_longer_installed() -> None:
    unknown = {**groups([([0, 1, 2], [40, 30, 30])]), "kind": "of another version"}
    assert told(unknown) == set()
    gone = {**curves([40], [30], [30]), "kind": "of another version"}
    assert told(gone) == {block(i) for i in "012"}


# --- a table's own numbers ------------------------------------------------------------------


def test_every_number_of_a_table_is_a_sum_of_cells() -> None:
    hidden = "suppressed"
    payload = {
        "matrix": [[30, hidden, 3], [hidden] * 3, [hidden] * 3],
        "two_by_two": [[53, 7, hidden, hidden], [hidden, hidden, 7, 63]],
        "kept_cut_offs": [0],
        "collapsed": [[30, 10], [7, 53]],
    }
    counts = np.array(MATRIX).reshape(-1)
    sums = [(frozenset(np.flatnonzero(mask).tolist()), n) for mask, n in table_sums(payload)]
    assert sums == [
        (block("0", "0"), 30),
        (block("0", "2"), 3),
        (block("12", "12"), 53),
        (block("12", "0"), 7),
        (block("01", "2"), 7),
        (block("01", "01"), 63),
        (block("0", "0"), 30),
        (block("0", "12"), 10),
        (block("12", "0"), 7),
        (block("12", "12"), 53),
    ]
    assert all(counts[sorted(cells)].sum() == n for cells, n in sums)
