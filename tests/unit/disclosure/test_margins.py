"""Sums over a table's cells that answers of other shapes tell: all of them, and only true ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gate_fixtures import answer_to, gate_of
from plans import draw_exams, plan

from fedcac.disclosure import Release
from fedcac.disclosure.cross_table import Matrix
from fedcac.disclosure.margins import margin_sums
from fedcac.exchange.messages import Query
from fedcac.protocol import (
    AucSpec,
    ComparisonSpec,
    DescriptivesSpec,
    KaplanMeierSpec,
)
from fedcac.statistics import estimator_for
from fedcac.vocabulary import ScoreRole

SCORES = ("reference_score", "index_score")
SIZE = 5
SPECS: dict[str, Any] = {
    "curves": KaplanMeierSpec(
        id="x",
        kind="kaplan_meier",
        endpoint="mace",
        by="index",
        bin_days=400,
        horizon_days=800,
    ),
    "groups": DescriptivesSpec(id="x", kind="descriptives", covariates=("sex",), by="reference"),
    "scores": DescriptivesSpec(
        id="x", kind="descriptives", covariates=("age",), by="sex", scores=(ScoreRole.INDEX,)
    ),
    "everyone": DescriptivesSpec(id="x", kind="descriptives", covariates=("age",), by="all"),
    "classes": AucSpec(id="x", kind="auc", bins=10),
    "tests": ComparisonSpec(id="x", kind="comparison", compare="index_tests", bins=10),
    "references": ComparisonSpec(id="x", kind="comparison", compare="references", bins=10),
}
EXAMS = draw_exams(1, 400)
PLAN = plan([SPECS["groups"]])


def of_categories(reference: str, index: str) -> Matrix:
    """Return the table of two columns' categories."""
    rows, columns = (PLAN.categories.categorise(EXAMS.column(name)) for name in (reference, index))
    counts = np.zeros((SIZE, SIZE), dtype=np.int64)
    np.add.at(counts, (rows, columns), 1)
    return tuple(tuple(int(count) for count in row) for row in counts)


MATRIX = of_categories(*SCORES)


def released(name: str, profile: str = "open") -> dict[str, Any]:
    """Return what a site answers to an analysis's first query."""
    protocol = plan([SPECS[name]])
    query: Query = next(estimator_for("x", protocol).pool(["site"]))
    answer = answer_to(gate_of(profile), protocol, "x", EXAMS, query)
    assert isinstance(answer, Release)
    return answer.payload


def told(payload: dict[str, Any], *columns: str) -> Iterator[tuple[int, ...]]:
    """Yield the cells of every sum that a table of the same patients would take as told."""
    counts = np.array(MATRIX).reshape(-1)
    for cells, n in margin_sums(payload, columns or SCORES, SCORES, MATRIX):
        # Nothing untrue is taken, whatever the answer is.
        assert int(counts[cells].sum()) == n
        yield tuple(np.flatnonzero(cells).tolist())


def block(rows: range, columns: range) -> tuple[int, ...]:
    return tuple(sorted(row * SIZE + column for row in rows for column in columns))


EVERY = range(SIZE)
CUTS = range(1, SIZE)
ROWS = {block(range(row, row + 1), EVERY) for row in EVERY}
COLUMNS = {block(EVERY, range(column, column + 1)) for column in EVERY}


def test_a_curve_by_category_tells_how_many_are_in_each() -> None:
    assert set(told(released("curves"))) == COLUMNS
    # It does not read the reference, and tells nothing about it.
    assert set(told(released("curves"), "index_score")) == COLUMNS
    assert set(told(released("curves"), "reference_score", "age")) == set()


def test_a_category_without_a_curve_is_not_told() -> None:
    payload = released("curves")
    for part in ("edges", "at_risk", "events", "censored"):
        payload[part][1] = []
    assert set(told(payload)) == COLUMNS - {block(EVERY, range(1, 2))}


@pytest.mark.parametrize("change", ["another number", "a group less"])
def test_curves_of_other_groups_tell_nothing(change: str) -> None:
    payload = released("curves")
    if change == "another number":
        payload["at_risk"][2][0] += 1
    else:
        payload["at_risk"].pop()
    assert list(told(payload)) == []


def test_characteristics_by_category_tell_how_many_are_in_each() -> None:
    assert set(told(released("groups"))) == ROWS


def test_the_categories_of_a_score_are_told_by_any_group() -> None:
    assert set(told(released("scores"))) == COLUMNS


def test_what_is_not_by_category_tells_nothing() -> None:
    assert list(told(released("everyone"))) == []


def test_merged_categories_are_told_together() -> None:
    payload = released("scores")
    (at,) = (i for i, starts in enumerate(payload["starts"]) if len(starts[0]) == SIZE)
    rows = payload["counts"][at]
    payload["starts"][at] = [[0, 2]] * len(rows)
    payload["counts"][at] = [[sum(row[:2]), sum(row[2:])] for row in rows]
    assert set(told(payload)) == {block(EVERY, range(2)), block(EVERY, range(2, SIZE))}
    # One bin of all, or none, is no cut.
    for starts, bins in (([0], [[sum(row)] for row in rows]), ([], [[] for _ in rows])):
        payload["starts"][at], payload["counts"][at] = [starts] * len(rows), bins
        assert list(told(payload)) == []


def test_a_suppressed_group_hides_the_categories_of_a_score() -> None:
    payload = released("scores")
    names = [len(groups) for groups in payload["counts"]]
    for at, n_groups in enumerate(names):
        if n_groups == 2:
            payload["starts"][at][0], payload["counts"][at][0] = [], []
    assert list(told(payload)) == []


def test_a_histogram_by_class_tells_the_positives_at_every_cut_off() -> None:
    positives = {block(range(cut, SIZE), EVERY) for cut in CUTS}
    assert positives <= set(told(released("classes"), "reference_score"))


def test_classes_that_are_withheld_tell_nothing() -> None:
    payload = released("classes")
    for part in ("starts", "counts"):
        payload[part] = [[[], []] for _ in payload[part]]
    assert list(told(payload)) == []


def test_groups_that_are_no_pair_of_classes_are_not_taken_for_one() -> None:
    payload = released("classes")
    for part in ("starts", "counts"):
        payload[part] = [groups[1:] for groups in payload[part]]
    assert list(told(payload)) == []


# The index test is the first of two tests, the reference the first of two references.
@pytest.mark.parametrize("name", ["tests", "references"])
def test_two_tests_at_once_tell_the_table_of_the_first_at_every_cut_off(name: str) -> None:
    found = set(told(released(name)))
    for cut in CUTS:
        below, above = range(cut), range(cut, SIZE)
        for rows in (below, above):
            for columns in (below, above):
                assert block(rows, columns) in found, cut


def test_the_second_of_two_tests_is_told_as_the_first_is() -> None:
    # A table of the comparator, which stands in every other of the four bins.
    matrix = of_categories("reference_score", "visual_score")
    counts = np.array(matrix).reshape(-1)
    scores = ("reference_score", "visual_score")
    found = set()
    for cells, n in margin_sums(released("tests"), scores, scores, matrix):
        assert int(counts[cells].sum()) == n
        found.add(tuple(np.flatnonzero(cells).tolist()))
    for cut in CUTS:
        assert block(range(cut, SIZE), range(cut, SIZE)) in found
        assert block(range(cut), range(cut)) in found


@pytest.mark.parametrize("name", list(SPECS))
def test_what_the_gate_let_out_tells_no_more_than_all_of_it(name: str) -> None:
    assert set(told(released(name, "research"))) <= set(told(released(name)))
