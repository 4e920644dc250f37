"""Two answers about one cohort, or about two cohorts that share their patients, subtracted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gate_fixtures import answer_to, gate_of
from plans import draw_exams, plan

from fedcac.disclosure import Refusal, Release
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import (
    AccuracySpec,
    AgreementSpec,
    AucSpec,
    DescriptivesSpec,
    KaplanMeierSpec,
    Protocol,
)
from fedcac.statistics import estimator_for
from fedcac.statistics.auc import HISTOGRAM_QUERY, WITHIN_QUERY
from fedcac.statistics.descriptives import COUNTS_QUERY
from fedcac.statistics.kaplan_meier import TABLE_QUERY
from fedcac.vocabulary import RefusalCode

NESTED = Refusal(RefusalCode.NESTED_COHORT)
Answer = Release | Refusal
Asked = tuple[str, Query]


def _answers(profile: str, protocol: Protocol, exams: Exams, *asked: Asked) -> list[Answer]:
    gate = gate_of(profile)
    return [answer_to(gate, protocol, name, exams, query) for name, query in asked]


def _payloads(answers: list[Answer]) -> list[dict[str, Any]]:
    assert all(isinstance(answer, Release) for answer in answers)
    return [answer.payload for answer in answers if isinstance(answer, Release)]


def _table(name: str, by: str, subgroup: str | None = None, *names: str) -> DescriptivesSpec:
    return DescriptivesSpec(
        id=name, kind="descriptives", covariates=names or ("vendor",), by=by, subgroup=subgroup
    )


def _curve(name: str, by: str = "all", days: int = 100, horizon: int = 800) -> KaplanMeierSpec:
    return KaplanMeierSpec(
        id=name,
        kind="kaplan_meier",
        endpoint="mace",
        by=by,
        bin_days=days,
        horizon_days=horizon,
    )


# --- characteristics ------------------------------------------------------------------------

VENDOR = np.r_[np.tile([0.0, 1.0, 2.0], 20), np.repeat([0.0, 1.0, 2.0], [20, 18, 2])]
SEX = np.r_[np.ones(60), np.zeros(40)]


@pytest.mark.parametrize("order", [("all", "of_women"), ("of_women", "all")])
def test_all_less_the_women_are_the_men_of_every_vendor(order: tuple[str, str]) -> None:
    protocol = plan([_table("all", "all"), _table("of_women", "all", "women")])
    exams = draw_exams(1, 100, vendor=VENDOR, sex=SEX)
    asked = [(name, COUNTS_QUERY) for name in order]
    one, other = _payloads(_answers("open", protocol, exams, *asked))
    men = np.abs(np.subtract(one["counts"][1], other["counts"][1]))
    assert men.tolist() == [[20, 18, 2]]
    assert _answers("research", protocol, exams, *asked)[1] == NESTED


def test_all_less_the_women_of_a_table_by_sex() -> None:
    protocol = plan([_table("all", "all"), _table("by_sex", "sex")])
    exams = draw_exams(1, 100, vendor=VENDOR, sex=SEX)
    everyone, by_sex = _payloads(
        _answers("research", protocol, exams, ("all", COUNTS_QUERY), ("by_sex", COUNTS_QUERY))
    )
    assert everyone["counts"][1] == [[40, 38, 22]]
    # The women's vendors are merged as the men's have to be.
    assert by_sex["counts"][1] == [[40], [60]]


def test_the_same_patients_by_outcome_and_by_sex_are_two_answers() -> None:
    names = ("age", "vendor", "risk")
    protocol = plan([_table("outcome", "mace", None, *names), _table("sex", "sex", None, *names)])
    for seed in range(5):
        exams = draw_exams(seed, 400)
        asked = [(name, COUNTS_QUERY) for name in ("outcome", "sex")]
        _payloads(_answers("research", protocol, exams, *asked))


# --- curves ---------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [{"days": 101, "horizon": 808}, {"horizon": 750}])
def test_shifted_days_tell_who_had_the_event_between(other: dict[str, int]) -> None:
    time = np.r_[np.full(10, 50.0), [101.0], np.full(89, 900.0)]
    event = (np.arange(100) < 10).astype(float)
    exams = draw_exams(1, 100, follow_up_days=time, event=event)
    protocol = plan([_curve("x"), _curve("y", **other)])
    asked = [(name, TABLE_QUERY) for name in ("x", "y")]
    one, shifted = _payloads(_answers("open", protocol, exams, *asked))
    if "days" in other:
        assert one["at_risk"][0][1] - shifted["at_risk"][0][1] == 1
    assert _answers("research", protocol, exams, *asked)[1] == NESTED
    assert _answers("research", protocol, exams, asked[0], asked[0])[1] != NESTED


@pytest.mark.parametrize("order", [("all", "by_sex"), ("by_sex", "all")])
def test_a_curve_of_all_less_that_of_the_women(order: tuple[str, str]) -> None:
    # Thirty women have events in every quarter, the men two in the third.
    time = np.r_[np.tile([150.0, 350.0, 550.0, 750.0], 8)[:30], np.full(70, 900.0)]
    event = (np.arange(100) < 30).astype(float)
    sex = np.r_[np.ones(30), np.ones(20), np.zeros(50)]
    time[50:60], event[50:60] = np.r_[np.full(8, 150.0), 550.0, 550.0], 1
    exams = draw_exams(1, 100, follow_up_days=time, event=event, sex=sex)
    protocol = plan([_curve("all"), _curve("by_sex", "sex")])
    asked = [(name, TABLE_QUERY) for name in order]
    tables = dict(zip(order, _payloads(_answers("open", protocol, exams, *asked)), strict=True))
    men = np.subtract(tables["all"]["events"][0], tables["by_sex"]["events"][1])
    assert 2 in men
    assert _answers("research", protocol, exams, *asked)[1] == NESTED


# --- another cohort -------------------------------------------------------------------------

SCORES = np.array([0.0, 5, 50, 250, 800])


def _first_query(protocol: Protocol, analysis: str) -> Query:
    return next(estimator_for(analysis, protocol).pool(["site"]))


def _of_tables(counts: np.ndarray) -> Exams:
    """Return patients whose table of risk categories this is."""
    i, j = np.nonzero(np.ones_like(counts))
    reference, index = (np.repeat(SCORES[k], counts.reshape(-1)) for k in (i, j))
    return draw_exams(1, len(index), reference_score=reference, index_score=index)


@pytest.mark.parametrize(("more", "is_answered"), [(1, False), (4, False), (6, True)])
def test_one_patient_more_under_another_analysis(more: int, is_answered: bool) -> None:
    before = np.full((5, 5), 6)
    after = before.copy()
    after[3, 1] += more
    protocol = plan(
        [AgreementSpec(id="x", kind="agreement"), AccuracySpec(id="y", kind="accuracy")]
    )
    gate = gate_of("research")
    tables = [
        answer_to(gate, protocol, name, _of_tables(counts), _first_query(protocol, name), cohort)
        for name, counts, cohort in (("x", before, "before"), ("y", after, "after"))
    ]
    assert isinstance(tables[0], Release)
    assert isinstance(tables[1], Release) == is_answered
    assert is_answered or tables[1] == NESTED


# --- a withheld category --------------------------------------------------------------------


def _hidden_category() -> tuple[Protocol, Exams]:
    reference = np.r_[np.full(50, 0.0), np.full(4, 5.0), np.full(46, 50.0)]
    index = np.r_[np.full(44, 0.0), np.full(10, 5.0), np.full(46, 50.0)]
    specs = [
        AgreementSpec(id="x", kind="agreement"),
        *(AucSpec(id=f"auc_{cut}", kind="auc", cut_offs=(cut,), bins=100) for cut in (1, 10)),
    ]
    return plan(specs), draw_exams(1, 100, reference_score=reference, index_score=index)


@pytest.mark.parametrize("query", [HISTOGRAM_QUERY, WITHIN_QUERY])
def test_class_sizes_do_not_tell_a_category_that_the_table_withholds(query: Query) -> None:
    protocol, exams = _hidden_category()
    asked = [("x", _first_query(protocol, "x")), ("auc_1", query), ("auc_10", query)]
    table, *classes = _answers("research", protocol, exams, *asked)
    assert isinstance(table, Release)
    # The table tells how many are positive at cut-off 1, and not at cut-off 10.
    told = [
        isinstance(answer, Release)
        and any(any(part) for part in answer.payload.get("values", answer.payload.get("counts")))
        for answer in classes
    ]
    assert told == [True, False]


def test_a_table_yields_to_class_sizes_told_before() -> None:
    protocol, exams = _hidden_category()
    asked = [("auc_10", HISTOGRAM_QUERY), ("x", _first_query(protocol, "x"))]
    assert isinstance(_answers("research", protocol, exams, asked[0])[0], Release)
    answers = _answers("research", protocol, exams, *asked)
    assert answers[1] == NESTED
    before_all = _answers("research", protocol, exams, ("auc_1", HISTOGRAM_QUERY), asked[1])
    assert all(isinstance(answer, Release) for answer in before_all)


def test_positives_of_two_analyses_are_none_or_enough_apart() -> None:
    reference = np.r_[np.full(50, 5.0), np.full(3, 50.0), np.full(47, 600.0)]
    exams = draw_exams(1, 100, reference_score=reference)
    specs = [AucSpec(id=f"x{cut}", kind="auc", cut_offs=(cut,), bins=100) for cut in (10, 100)]
    asked = [(spec.id, HISTOGRAM_QUERY) for spec in specs]
    answers = _answers("research", plan(specs), exams, *asked)
    assert isinstance(answers[0], Release)
    assert answers[1] == NESTED
