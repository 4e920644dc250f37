"""Answers by class or category beside a cross table that withheld how large these are."""

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
    Protocol,
)
from fedcac.statistics import estimator_for
from fedcac.vocabulary import RefusalCode

NESTED = Refusal(RefusalCode.NESTED_COHORT)
SCORES = np.array([0.0, 5.0, 50.0, 250.0, 800.0])
"""One in every category."""

TABLE = AgreementSpec(id="table", kind="agreement")
CHARACTERISTICS = DescriptivesSpec(
    id="characteristics", kind="descriptives", covariates=("sex",), by="reference"
)
CURVES = KaplanMeierSpec(
    id="curves",
    kind="kaplan_meier",
    endpoint="mace",
    by="reference",
    bin_days=400,
    horizon_days=800,
)
CLASSES = AucSpec(id="classes", kind="auc", bins=20)
TESTS = ComparisonSpec(id="tests", kind="comparison", compare="index_tests", bins=20)

# Neighbouring categories are confused in few patients: of the table a collapse is left.
FEW_CONFUSED = np.array(
    [
        [26, 2, 2, 0, 0],
        [2, 44, 2, 2, 0],
        [2, 2, 40, 2, 0],
        [0, 2, 2, 32, 2],
        [0, 0, 2, 2, 33],
    ]
)


def patients(counts: np.ndarray, rows: str, columns: str) -> Exams:
    """Return patients whose table of two scores this is."""
    places = np.nonzero(np.ones_like(counts))
    scores = (np.repeat(SCORES[axis], counts.reshape(-1)) for axis in places)
    return draw_exams(1, int(counts.sum()), **dict(zip((rows, columns), scores, strict=True)))


def asked(exams: Exams, *specs: Any) -> list[Any]:
    """Return the payloads, or the refusals, of first queries asked one after the other."""
    gate, protocol = gate_of("research"), plan(specs)
    answers = []
    for spec in specs:
        query = next(estimator_for(spec.id, protocol).pool(["site"]))
        answer = answer_to(gate, protocol, spec.id, exams, query)
        answers.append(answer.payload if isinstance(answer, Release) else answer)
    return answers


@pytest.mark.parametrize("by_category", [CHARACTERISTICS, CURVES])
def test_sizes_of_categories_that_a_table_withheld_are_refused(by_category: Any) -> None:
    exams = patients(FEW_CONFUSED, "reference_score", "index_score")
    table, sizes = asked(exams, TABLE, by_category)
    assert table["kept_cut_offs"] == [1]
    assert sizes == NESTED
    # By themselves they may be told.
    assert asked(exams, by_category)[0]["n_patients"] == 201


def test_sizes_told_before_a_table_are_no_news_after_it() -> None:
    exams = patients(FEW_CONFUSED, "reference_score", "index_score")
    by_sex = CURVES.model_copy(update={"id": "by_sex", "by": "sex"})
    # What is about another column tells nothing of the score's categories.
    assert asked(exams, by_sex, TABLE, CURVES)[2] == NESTED
    sizes, _, table, curves = asked(exams, CHARACTERISTICS, by_sex, TABLE, CURVES)
    assert table["kept_cut_offs"]
    told = sizes["counts"][0][0]
    assert told == FEW_CONFUSED.sum(axis=1).tolist()
    shown = [row[0] for row in curves["at_risk"] if row]
    assert shown
    assert set(shown) <= set(told)


def test_a_table_of_two_other_scores_withholds_no_class() -> None:
    others = TABLE.model_copy(update={"index": "comparator", "reference": "second_reference"})
    exams = patients(FEW_CONFUSED, "other_reader", "visual_score")
    table, classes = asked(exams, others, CLASSES)
    assert table["kept_cut_offs"] == [1]
    assert all(groups[0] and groups[1] for groups in classes["counts"])
    assert [classes] == asked(exams, CLASSES)


@pytest.mark.parametrize(
    ("first", "shown"),
    [
        # Sizes of all categories are those of all classes.
        (CHARACTERISTICS, [True, True, True, True]),
        # A curve is missing: what is told of the others is not taken for the sizes of classes.
        (CURVES, [False, True, True, False]),
    ],
)
def test_classes_told_before_as_categories_are_no_news(first: Any, shown: list[bool]) -> None:
    exams = patients(FEW_CONFUSED, "reference_score", "index_score")
    before, table, classes = asked(exams, first, TABLE, CLASSES)
    assert before["n_patients"] == table["n_patients"]
    assert table["kept_cut_offs"]
    if first is CURVES:
        assert [bool(row) for row in before["at_risk"]] == [True, True, False, True, True]
    assert [bool(groups[1]) for groups in classes["counts"]] == shown
    sizes = FEW_CONFUSED.sum(axis=1)
    for cut, (_, positive) in enumerate(classes["counts"], 1):
        assert not positive or sum(positive) == sizes[cut:].sum()


def test_few_between_the_cut_offs_of_two_protocols_do_not_follow_from_sizes() -> None:
    # Another protocol has a cut-off at 110, and three patients lie between 100 and 110.
    reference = np.r_[np.repeat(SCORES, 20), np.full(3, 105.0)]
    exams = draw_exams(1, len(reference), reference_score=reference)
    ours = plan([CHARACTERISTICS])
    cut_offs = (1.0, 10.0, 110.0, 400.0)
    scheme = ours.categories.model_copy(update={"cut_offs": cut_offs})
    theirs = plan([CLASSES.model_copy(update={"cut_offs": (110,)})], categories=scheme)
    same = plan([CLASSES.model_copy(update={"cut_offs": (100,)})])

    def answers(*asked: tuple[Protocol, str]) -> list[Release | Refusal]:
        gate = gate_of("research")
        queries = [next(estimator_for(name, protocol).pool(["site"])) for protocol, name in asked]
        return [
            answer_to(gate, protocol, name, exams, query)
            for (protocol, name), query in zip(asked, queries, strict=True)
        ]

    sizes, classes = (ours, "characteristics"), (theirs, "classes")
    for order in ((sizes, classes), (classes, sizes)):
        first, second = answers(*order)
        assert isinstance(first, Release)
        assert second == NESTED
    # At the same cut-off both count the same patients.
    assert all(isinstance(answer, Release) for answer in answers(sizes, (same, "classes")))


def compared(seed: int, sizes: list[int], index: int, comparator: int) -> Exams:
    """Return patients whose two index tests miss by so many categories at most."""
    rng = np.random.default_rng(seed)
    category = np.repeat(np.arange(5), sizes)
    tests = [
        SCORES[np.clip(category + rng.integers(-most, most + 1, len(category)), 0, 4)]
        for most in (index, comparator)
    ]
    return draw_exams(
        1,
        len(category),
        reference_score=SCORES[category],
        index_score=tests[0],
        visual_score=tests[1],
    )


@pytest.mark.parametrize("role", ["index", "comparator"])
def test_two_tests_at_once_tell_no_row_that_the_table_of_one_withheld(role: str) -> None:
    table_of = TABLE.model_copy(update={"index": role})
    n_told = 0
    for seed, sizes in ((1, [120, 60, 60, 80, 77]), (0, [52, 41, 35, 23, 25])):
        exams = compared(seed, sizes, 1, 3)
        (alone,) = asked(exams, TESTS)
        table, beside = asked(exams, table_of, TESTS)
        for cut, (groups, kept) in enumerate(zip(alone["counts"], beside["counts"], strict=True)):
            starts = alone["starts"][cut]
            if [list(firsts) for firsts in starts] != [[0, 1, 2, 3]] * 2:
                continue
            # Of four bins the first test's negatives are the first two, the second's every other.
            four = table["two_by_two"][cut]
            rows = {(four[3], four[2]), (four[1], four[0])}
            own = {
                (row[0] + row[1], row[2] + row[3])
                if role == "index"
                else (row[0] + row[2], row[1] + row[3])
                for row in groups
            }
            is_told = own <= rows
            assert kept == (groups if is_told else [[], []])
            n_told += is_told
    assert n_told > 0
