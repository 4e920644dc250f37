"""Answers about one cohort seen together, of different kinds of analyses."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import draw_exams, plan

from fedcac.aggregate import Evidence
from fedcac.canonical import digest_of
from fedcac.disclosure import (
    Gate,
    MemoryLedger,
    Question,
    Refusal,
    Release,
    load_policy,
    question_of,
)
from fedcac.disclosure.cross_table import two_by_two_tables
from fedcac.disclosure.history import are_compatible, is_whole, numbers_released
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import AccuracySpec, AgreementSpec, Protocol
from fedcac.statistics import estimator_for
from fedcac.statistics.association import ScoreMoments
from fedcac.statistics.auc import AucTotals, ClassHistogram
from fedcac.statistics.cox import CoxTerms
from fedcac.statistics.kaplan_meier import KaplanMeierTable
from fedcac.vocabulary import RefusalCode

RESEARCH = load_policy("research")
NESTED = Refusal(RefusalCode.NESTED_COHORT)
TABLE = ((40, 10), (10, 40))
Ask = Callable[..., Question]


def _gate() -> Gate:
    return Gate(RESEARCH, MemoryLedger())


def _of_each_kind(make: SimpleNamespace, n: int) -> dict[str, Any]:
    """Return an aggregate of every shape about n patients, 30 of them with the event."""
    half = n // 2
    return {
        "table": make.table(((n - 60, 20), (20, 20))),
        "means": make.means(n, n),
        "terms": make.terms(n=n, n_events=30),
        "pairs": ScoreMoments(
            n_patients=n,
            n=(n,),
            mean_x=(1.0,),
            mean_y=(1.0,),
            m2_x=(9.0,),
            m2_y=(9.0,),
            cross=(3.0,),
        ),
        "bins": ClassHistogram(n_patients=n, starts=(((0, 1),),), counts=(((half, n - half),),)),
        "curve": KaplanMeierTable(
            n_patients=n,
            edges=((0, 1),),
            at_risk=((n,),),
            events=((30,),),
            censored=((10,),),
            n_events=30,
        ),
        "totals": AucTotals(
            n_patients=n,
            n_events=30,
            values=((1.0, 2.0),),
            evidence=Evidence(smallest_group=50),
        ),
    }


KINDS = ("table", "means", "terms", "pairs", "bins", "curve", "totals")


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_denominators_of_different_kinds_are_equal_or_k_apart(
    make: SimpleNamespace, ask: Ask, first: str, second: str
) -> None:
    # Two cross tables or histograms are compared cell by cell as well, which is tested below.
    far = () if first == second and first in ("table", "bins") else ((95, True), (105, True))
    for n, is_answered in ((100, True), (99, False), (104, False), *far):
        gate = _gate()
        before = gate.release(ask("first"), _of_each_kind(make, 100)[first])
        assert isinstance(before, Release)
        answer = gate.release(ask("second"), _of_each_kind(make, n)[second])
        assert isinstance(answer, Release) == is_answered, n
        assert is_answered or answer == NESTED


def test_one_question_of_two_close_cohorts_is_refused_for_every_kind(
    make: SimpleNamespace, ask: Ask
) -> None:
    for kind in KINDS:
        gate = _gate()
        gate.release(ask("x"), _of_each_kind(make, 100)[kind])
        for n in (100, 101, 104):
            answer = gate.release(ask("x", cohort=f"other {n}"), _of_each_kind(make, n)[kind])
            assert answer == NESTED, (kind, n)
        grown = gate.release(ask("x", cohort="grown"), _of_each_kind(make, 140)[kind])
        assert isinstance(grown, Release), kind


def test_numbers_of_events_are_compared_within_a_kind(make: SimpleNamespace, ask: Ask) -> None:
    gate = _gate()
    table = _of_each_kind(make, 100)["curve"]
    gate.release(ask("mace"), table)
    near = table.model_copy(update={"events": ((31,),), "censored": ((9,),), "n_events": 31})
    assert gate.release(ask("death"), near) == NESTED
    far = table.model_copy(update={"events": ((40,),), "censored": ((0,),), "n_events": 40})
    assert isinstance(gate.release(ask("death_mi"), far), Release)


@pytest.mark.parametrize(("events", "is_refused"), [(30, False), (33, True), (36, False)])
def test_events_of_one_sort_are_compared_across_kinds(
    make: SimpleNamespace, ask: Ask, events: int, is_refused: bool
) -> None:
    # Another endpoint's likelihood beside the curve: its events may be part of the curve's.
    gate = _gate()
    assert isinstance(gate.release(ask("curve"), _of_each_kind(make, 120)["curve"]), Release)
    terms = make.terms(n=120, n_events=events)
    fields = {name: getattr(terms, name) for name in type(terms).model_fields}
    outcome = gate.release(ask("terms"), CoxTerms(**fields))
    assert (outcome == NESTED) is is_refused


def test_what_is_told_is_counted() -> None:
    zero, one = 0.0, 1.5
    likelihood = {
        "gradient": [one, one, one],
        "information": [[one, one, zero], [one, one, zero], [zero, zero, one]],
    }
    assert numbers_released(likelihood) == 1 + 3 + 4
    assert numbers_released({"values": [[one, one], [], [one, one]]}) == 4


# --- two cross tables -----------------------------------------------------------------------


def _payload(matrix: tuple[tuple[int, ...], ...]) -> dict[str, Any]:
    return {
        "n_patients": sum(map(sum, matrix)),
        "matrix": [list(row) for row in matrix],
        "two_by_two": [list(four) for four in two_by_two_tables(matrix)],
        "kept_cut_offs": [],
        "collapsed": [],
    }


@settings(max_examples=150, deadline=None)
@given(
    part=st.lists(st.integers(5, 20), min_size=9, max_size=9),
    rest=st.lists(st.one_of(st.integers(0, 6), st.integers(5, 20)), min_size=9, max_size=9),
)
def test_a_part_may_stand_beside_the_whole_if_no_difference_is_small(
    part: list[int], rest: list[int]
) -> None:
    inner = np.reshape(part, (3, 3))
    outer = inner + np.reshape(rest, (3, 3))
    one, other = (
        _payload(tuple(tuple(int(n) for n in row) for row in table)) for table in (outer, inner)
    )
    is_safe = sum(rest) == 0 or not any(RESEARCH.is_small(count) for count in rest)
    assert are_compatible(one, other, RESEARCH) is is_safe
    assert are_compatible(other, one, RESEARCH) is is_safe


def test_a_withheld_cell_stands_beside_nothing_else() -> None:
    whole, hidden = _payload(((40, 10), (10, 40))), _payload(((40, 10), (10, 20)))
    hidden["matrix"][0][0] = "suppressed"
    assert is_whole(whole)
    assert not is_whole(hidden)
    assert not are_compatible(whole, hidden, RESEARCH)
    assert are_compatible(hidden, hidden, RESEARCH)


def test_tables_of_other_scores_must_both_be_whole(make: SimpleNamespace, ask: Ask) -> None:
    whole, partial = make.table(TABLE), make.table(((48, 2), (10, 40)))
    gate = _gate()
    assert isinstance(gate.release(ask("one", scores="one"), whole), Release)
    assert isinstance(gate.release(ask("two", scores="two"), whole), Release)
    assert gate.release(ask("three", scores="three"), partial) == NESTED
    gate = _gate()
    assert isinstance(gate.release(ask("one", scores="one"), partial), Release)
    assert gate.release(ask("two", scores="two"), whole) == NESTED


# --- subgroups ------------------------------------------------------------------------------

_SCORES = (0.0, 5.0, 50.0, 250.0, 800.0)


def _cohort(women: np.ndarray, men: np.ndarray) -> Exams:
    """Return patients whose 5 x 5 tables of risk categories these are."""
    rows = [
        (_SCORES[i], _SCORES[j], sex)
        for sex, table in ((1.0, women), (0.0, men))
        for i in range(5)
        for j in range(5)
        for _ in range(int(table[i, j]))
    ]
    reference, index, sex = np.array(rows).T
    return draw_exams(
        1, len(rows), reference_score=reference, index_score=index, sex=sex, visual_score=index
    )


def _answer(gate: Gate, protocol: Protocol, analysis: str, exams: Exams) -> Release | Refusal:
    query = _first_query(protocol, analysis)
    question = question_of(
        protocol,
        analysis,
        query,
        round_id="round-1",
        exchange=1,
        cohort_digest=digest_of("cohort"),
    )
    return gate.release(question, estimator_for(analysis, protocol).summarise(exams, query))


def _first_query(protocol: Protocol, analysis: str) -> Query:
    return next(estimator_for(analysis, protocol).pool(["site"]))


PLAN = plan(
    [
        AgreementSpec(id="all", kind="agreement"),
        AgreementSpec(id="of_women", kind="agreement", subgroup="women"),
        AccuracySpec(id="accuracy", kind="accuracy"),
        AgreementSpec(id="visual", kind="agreement", index="comparator"),
    ]
)


@pytest.mark.parametrize("order", [("all", "of_women"), ("of_women", "all")])
def test_women_beside_all_must_leave_enough_men_in_every_cell(order: tuple[str, str]) -> None:
    women = np.full((5, 5), 6)
    many, few = np.full((5, 5), 7), np.full((5, 5), 7)
    few[3, 4] = 1
    for men, is_answered in ((many, True), (few, False)):
        exams, gate = _cohort(women, men), _gate()
        assert isinstance(_answer(gate, PLAN, order[0], exams), Release)
        answer = _answer(gate, PLAN, order[1], exams)
        assert isinstance(answer, Release) == is_answered
        assert is_answered or answer == NESTED


def test_a_table_of_all_but_four_women_is_refused() -> None:
    men = np.zeros((5, 5), dtype=int)
    men[0, 0] = 4
    exams, gate = _cohort(np.full((5, 5), 6), men), _gate()
    assert isinstance(_answer(gate, PLAN, "all", exams), Release)
    assert _answer(gate, PLAN, "of_women", exams) == NESTED


def test_the_same_table_under_another_analysis_is_no_news() -> None:
    exams, gate = _cohort(np.full((5, 5), 6), np.full((5, 5), 7)), _gate()
    answers = [_answer(gate, PLAN, name, exams) for name in ("all", "accuracy", "visual")]
    assert all(isinstance(answer, Release) for answer in answers)
    # Where a cell is withheld, the table of another score that has the same categories withholds
    # it too: the program judges both together.
    men = np.full((5, 5), 7)
    men[2, 3] = 0
    women = np.full((5, 5), 6)
    women[2, 3] = 2
    exams, gate = _cohort(women, men), _gate()
    assert isinstance(_answer(gate, PLAN, "all", exams), Release)
    again = [_answer(gate, PLAN, name, exams) for name in ("accuracy", "visual")]
    tables = [answer.payload for answer in again if isinstance(answer, Release)]
    assert len(tables) == 2
    assert not any(is_whole(table) for table in tables)
    assert [table["kept_cut_offs"] for table in tables] == [[0, 1, 2]] * 2
