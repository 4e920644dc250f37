"""Small categories from the numbers beyond cut-offs, less the categories that are shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gate_fixtures import answer_to, gate_of
from plans import draw_exams, plan

from fedcac.disclosure import Refusal, Release
from fedcac.exams import Exams
from fedcac.protocol import (
    AgreementSpec,
    AucSpec,
    ComparisonSpec,
    DescriptivesSpec,
    KaplanMeierSpec,
)
from fedcac.statistics import estimator_for
from fedcac.vocabulary import RefusalCode

NESTED = Refusal(RefusalCode.NESTED_COHORT)
SCORES = np.array([0.0, 5.0, 50.0, 250.0, 800.0])
"""One in every category."""

CURVES = KaplanMeierSpec(
    id="curves",
    kind="kaplan_meier",
    endpoint="mace",
    by="reference",
    bin_days=400,
    horizon_days=800,
)


def classes(*cut_offs: float) -> AucSpec:
    return AucSpec(id="classes", kind="auc", cut_offs=cut_offs, bins=50)


def patients(sizes: list[int], with_few: tuple[int, ...] = ()) -> Exams:
    """Return patients of whom half have the event, but in some categories only two have."""
    category = np.repeat(np.arange(5), sizes)
    place = np.arange(len(category))
    event = (place % 2 == 0) & ~np.isin(category, with_few)
    event |= [
        own in with_few and at in (0, 2)
        for size, own in zip(sizes, range(5), strict=True)
        for at in range(size)
    ]
    time = np.where(place % 4 < 2, 300.0, 900.0)
    return draw_exams(
        1,
        len(category),
        reference_score=SCORES[category],
        event=event.astype(float),
        follow_up_days=time,
    )


def asked(profile: str, exams: Exams, *specs: Any) -> list[Any]:
    """Return payloads, or refusals, of first queries asked one after the other."""
    gate, protocol = gate_of(profile), plan(specs)
    answers = []
    for spec in specs:
        query = next(estimator_for(spec.id, protocol).pool(["site"]))
        answer = answer_to(gate, protocol, spec.id, exams, query)
        answers.append(answer.payload if isinstance(answer, Release) else answer)
    return answers


def sizes_of(curves: dict[str, Any]) -> list[int | None]:
    return [row[0] if row else None for row in curves["at_risk"]]


@pytest.mark.parametrize(
    ("sizes", "shown", "cut_off", "hidden"),
    [
        # Who is negative at 10 and not in 1-10 is in the lowest category: two patients.
        ([2, 50, 1, 47, 0], [None, 50, None, None, None], 10, 2),
        # Who is positive at 100 and not in 101-400 is in the highest.
        ([10, 50, 3, 47, 2], [None, 50, None, 47, None], 100, 2),
        # Two categories at once, of one and two patients.
        ([2, 50, 1, 47, 0], [None, 50, None, None, None], 100, 3),
    ],
)
def test_a_category_without_a_curve_does_not_follow_from_a_class(
    sizes: list[int], shown: list[int | None], cut_off: float, hidden: int
) -> None:
    exams = patients(sizes)
    (alone,) = asked("research", exams, CURVES)
    assert sizes_of(alone) == shown
    (auc,) = asked("research", exams, classes(cut_off))
    negative, positive = (sum(row) for row in auc["counts"][0])
    cut = [1, 10, 100, 400].index(int(cut_off)) + 1
    below = negative - sum(size or 0 for size in shown[:cut])
    above = positive - sum(size or 0 for size in shown[cut:])
    assert hidden in (below, above)
    for order in ((CURVES, classes(cut_off)), (classes(cut_off), CURVES)):
        assert asked("research", exams, *order)[1] == NESTED


def test_a_category_without_a_curve_does_not_follow_from_two_classes() -> None:
    # 11-100 holds three patients; the lowest and the highest have no curve for another reason.
    exams = patients([12, 50, 3, 40, 12], with_few=(0, 4))
    (alone,) = asked("research", exams, CURVES)
    assert sizes_of(alone) == [None, 50, None, 40, None]
    two = [classes(10), classes(400).model_copy(update={"id": "higher"})]
    lower, higher = (sum(answer["counts"][0][1]) for answer in asked("research", exams, *two))
    assert lower - higher - 40 == 3
    for order in ((CURVES, *two), (*two, CURVES), (two[1], CURVES, two[0])):
        first, second, third = asked("research", exams, *order)
        # With one of them what is hidden on either side is twelve patients or more.
        assert isinstance(first, dict)
        assert isinstance(second, dict)
        assert third == NESTED


def test_a_hidden_category_of_many_patients_stands_beside_classes() -> None:
    exams = patients([40, 50, 30, 40, 12], with_few=(4,))
    curves, all_classes = asked("research", exams, CURVES, classes(1, 10, 100, 400))
    assert sizes_of(curves) == [40, 50, 30, 40, None]
    assert [sum(groups[1]) for groups in all_classes["counts"]] == [132, 82, 52, 12]


def test_a_small_group_does_not_follow_from_its_neighbours_characteristics() -> None:
    # Two patients in 1-10 and three in 101-400.
    exams = patients([40, 2, 50, 3, 40])
    table = DescriptivesSpec(id="table", kind="descriptives", covariates=("sex",), by="reference")
    (whole,) = asked("open", exams, table)
    assert whole["counts"][0] == [[40, 2, 50, 3, 40]]
    (answer,) = asked("research", exams, table)
    sizes, by_group = answer["counts"]
    assert [sum(row) for row in by_group] == [40, 0, 50, 0, 40]
    # 1-10 together with 0, less the patients of 0, would be its two patients.
    assert answer["starts"][0] == [[0]]
    assert sizes == [[135]]
    # Where no group is small, all sizes are told.
    (all_large,) = asked("research", patients([40, 12, 50, 13, 40]), table)
    assert all_large["counts"][0] == [[40, 12, 50, 13, 40]]


CHARACTERISTICS = DescriptivesSpec(
    id="characteristics", kind="descriptives", covariates=("sex",), by="reference"
)


def test_two_answers_that_hide_different_groups_beside_a_small_one() -> None:
    # Both hide the three patients in 11-100. The curves also hide the lowest category, where few
    # have the event; the characteristics hide the smallest of the others, which is the highest.
    exams = patients([40, 50, 3, 60, 30], with_few=(0,))
    pair = (CURVES, CHARACTERISTICS)
    curves, characteristics = (asked("research", exams, spec)[0] for spec in pair)
    by_group = [sum(row) or None for row in characteristics["counts"][1]]
    shown = [one or other for one, other in zip(sizes_of(curves), by_group, strict=True)]
    assert [size is None for size in shown] == [False, False, True, False, False]
    assert exams.n - sum(size or 0 for size in shown) == 3
    for order in (pair, pair[::-1]):
        first, second = asked("research", exams, *order)
        assert isinstance(first, dict)
        assert second == NESTED


def test_groups_of_characteristics_tell_sizes_that_a_table_withheld() -> None:
    counts = np.diag([30, 2, 46, 38, 37]) + 2 * (np.eye(5, k=1) + np.eye(5, k=-1)).astype(int)
    places = np.nonzero(np.ones_like(counts))
    reference, index = (np.repeat(SCORES[axis], counts.reshape(-1)) for axis in places)
    exams = draw_exams(1, int(counts.sum()), reference_score=reference, index_score=index)
    table = AgreementSpec(id="table", kind="agreement")
    withheld, _ = asked("research", exams, table, CURVES)
    assert "suppressed" in str(withheld["matrix"])
    (alone,) = asked("research", exams, CHARACTERISTICS)
    assert any(alone["counts"][1])
    assert asked("research", exams, table, CHARACTERISTICS)[1] == NESTED


def test_between_two_references_the_classes_are_those_of_the_index_test() -> None:
    category = np.repeat(np.arange(5), [2, 100, 1, 97, 0])
    rng = np.random.default_rng(1)
    references = [
        SCORES[np.clip(category + rng.integers(-2, 3, len(category)), 0, 4)] for _ in range(2)
    ]
    place = np.arange(len(category))
    exams = draw_exams(
        1,
        len(category),
        index_score=SCORES[category],
        reference_score=references[0],
        other_reader=references[1],
        event=(place % 2 == 0).astype(float),
        follow_up_days=np.where(place % 4 < 2, 300.0, 900.0),
    )
    by_index = CURVES.model_copy(update={"by": "index"})
    two = ComparisonSpec(id="two", kind="comparison", compare="references", cut_offs=(10,))
    curves, cells = (asked("research", exams, spec)[0] for spec in (by_index, two))
    # Negative at 10, and not in 1-10: the two patients of the lowest category.
    assert sum(cells["counts"][0][0]) - sizes_of(curves)[1] == 2
    for order in ((by_index, two), (two, by_index)):
        assert asked("research", exams, *order)[1] == NESTED
    # By a reference there is nothing to subtract.
    assert isinstance(asked("research", exams, two, CURVES)[1], dict)
