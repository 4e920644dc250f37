"""Attacks on what a site adds to a sum over sites: what the sum, less what else is known, tells."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from gate_fixtures import gate_of
from plans import draw_exams, plan

from fedcac.aggregate.vectors import aggregate_of
from fedcac.canonical import digest_of
from fedcac.disclosure import Contribution, Gate, Refusal, Release, question_of
from fedcac.disclosure.groups import group_of
from fedcac.disclosure.masked import shared
from fedcac.errors import GateError
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import (
    AccuracySpec,
    AgreementSpec,
    BlandAltmanSpec,
    CoxSpec,
    Protocol,
)
from fedcac.statistics import PoolingSession, estimator_for
from fedcac.vocabulary import RefusalCode, SiteName

TABLE = AgreementSpec(id="table", kind="agreement")
SAME_TABLE = AccuracySpec(id="same_table", kind="accuracy")
BIAS = BlandAltmanSpec(id="bias", kind="bland_altman")
MODEL = CoxSpec(id="model", kind="cox", endpoint="mace", covariates=("sex",))
PROTOCOL = plan((TABLE, SAME_TABLE, BIAS, MODEL))
T = 3


def first_query(protocol: Protocol, analysis: str) -> Query:
    return PoolingSession(protocol, [SiteName("a")]).queries[analysis]


def ask(
    gate: Gate, analysis: str, exams: Exams, cohort: str, least_sites: int, query: Any = None
) -> Contribution | Release | Refusal:
    query = query or first_query(PROTOCOL, analysis)
    estimator = estimator_for(analysis, PROTOCOL)
    question = question_of(
        PROTOCOL,
        analysis,
        query,
        round_id="round-1",
        exchange=1,
        cohort_digest=digest_of(cohort),
        group=group_of(estimator.cohort(exams).keys, exams.keys),
        cohort_size=exams.n,
        patients_digest=digest_of(sorted(exams.keys)),
    )
    aggregate = estimator.summarise(exams, query)
    if least_sites:
        return gate.contribute(question, aggregate, least_sites)
    return gate.release(question, aggregate)


def without(exams: Exams, n: int) -> Exams:
    keep = np.ones(exams.n, dtype=np.bool_)
    keep[:n] = False
    return exams.where(keep)


def code_of(answer: Any) -> RefusalCode | None:
    return answer.code if isinstance(answer, Refusal) else None


@pytest.mark.parametrize("analysis", ["table", "bias", "model"])
def test_a_cohort_less_one_patient_is_not_added_again(analysis: str) -> None:
    exams = draw_exams(1, 120)
    open_gate, gate = gate_of("open"), gate_of("research")
    # With the gate off the two sums differ by the patient's own numbers.
    both = [ask(open_gate, analysis, e, str(e.n), T) for e in (exams, without(exams, 1))]
    first, second = (np.array(one.vector) for one in both if isinstance(one, Contribution))
    assert (first - second)[0] == 1
    assert isinstance(ask(gate, analysis, exams, "all", T), Contribution)
    fewer = ask(gate, analysis, without(exams, 1), "all but one", T)
    assert code_of(fewer) is RefusalCode.NESTED_COHORT


def test_the_sum_less_the_open_answers_of_the_others() -> None:
    exams = draw_exams(2, 60)
    gate = gate_of("research")
    added = ask(gate, "table", exams, "all", T)
    assert isinstance(added, Contribution)
    # Were all others to answer in the open, the sum would tell this table: so never both.
    assert code_of(ask(gate, "table", exams, "all", 0)) is RefusalCode.UNPROTECTABLE
    # Nor the same counts under another analysis.
    assert code_of(ask(gate, "same_table", exams, "all", 0)) is RefusalCode.UNPROTECTABLE


def test_an_answer_that_withheld_cells_is_not_added_afterwards() -> None:
    exams = draw_exams(2, 60)
    gate = gate_of("research")
    told = ask(gate, "same_table", exams, "all", 0)
    assert isinstance(told, Release)
    assert "suppressed" in str(told.payload)
    for analysis in ("same_table", "table"):
        assert code_of(ask(gate, analysis, exams, "all", T)) is RefusalCode.UNPROTECTABLE


def test_a_smaller_crowd_is_not_added_to_afterwards() -> None:
    exams = draw_exams(2, 60)
    gate = gate_of("research")
    assert isinstance(ask(gate, "table", exams, "all", 5), Contribution)
    # Rules were judged for a sum over five.
    assert code_of(ask(gate, "table", exams, "all", 3)) is RefusalCode.UNPROTECTABLE


def test_a_mean_of_few_adds_nothing() -> None:
    exams = draw_exams(3, 60)
    few = exams.with_column(
        "index_score", np.where(np.arange(exams.n) < 4, exams.column("index_score"), np.nan)
    )
    query = first_query(PROTOCOL, "bias")
    open_vector = ask(gate_of("open"), "bias", few, "few", T, query)
    assert isinstance(open_vector, Contribution)
    assert any(open_vector.vector[1:])
    # If no other site added to the term, its mean would be that of the four.
    answer = ask(gate_of("research"), "bias", few, "few", T, query)
    assert isinstance(answer, Refusal) or not any(answer.vector[1:])


def with_events(n_events: int) -> Exams:
    exams = draw_exams(4, 90)
    event = np.zeros(exams.n)
    event[:n_events] = 1.0
    return exams.with_column("event", event).with_column(
        "sex", (np.arange(exams.n) % 2).astype(float)
    )


@pytest.mark.parametrize("n_events", [1, 2, 3])
def test_a_single_events_covariates_do_not_stand_alone_in_a_sum(n_events: int) -> None:
    exams = with_events(n_events)
    assert isinstance(ask(gate_of("open"), "model", exams, "c", T), Contribution)
    # Its share of ten events is four: with three sites there are more than ten.
    assert shared(10, T) == 4
    answer = ask(gate_of("research"), "model", exams, "c", T)
    assert code_of(answer) is RefusalCode.TOO_FEW_EVENTS


def test_its_share_of_the_events_is_enough() -> None:
    answer = ask(gate_of("research"), "model", with_events(4), "c", T)
    assert isinstance(answer, Contribution)
    assert code_of(ask(gate_of("research"), "model", with_events(4), "c", 0)) is (
        RefusalCode.TOO_FEW_EVENTS
    )


@pytest.mark.parametrize("value", [7.0, -8.0])
def test_extreme_parameters_are_refused_in_a_sum_too(value: float) -> None:
    query = first_query(PROTOCOL, "model")
    changed = query.model_copy(
        update={"values": {name: (value,) * len(old) for name, old in query.values.items()}}
    )
    answer = ask(gate_of("research"), "model", with_events(20), "c", T, changed)
    assert code_of(answer) is RefusalCode.PARAMETERS_OUT_OF_BOUNDS


def test_many_neighbouring_parameters_are_refused_in_a_sum_too() -> None:
    gate, exams = gate_of("research"), with_events(20)
    query = first_query(PROTOCOL, "model")
    codes = []
    for step in range(40):
        values = {name: (0.001 * step,) * len(old) for name, old in query.values.items()}
        asked = query.model_copy(update={"values": values})
        codes.append(code_of(ask(gate, "model", exams, "c", T, asked)))
    n_given = len(list(itertools.takewhile(lambda code: code is None, codes)))
    assert 0 < n_given <= 15
    assert set(codes[n_given:]) <= {RefusalCode.TOO_MANY_EXCHANGES, RefusalCode.BUDGET_SPENT}


def test_a_contribution_cannot_be_made_outside_the_gate() -> None:
    made = ask(gate_of("research"), "table", draw_exams(2, 60), "all", T)
    assert isinstance(made, Contribution)
    with pytest.raises(GateError) as caught:
        Contribution(made.layout, made.vector, object())
    assert caught.value.code == "gate.forged_release"
    assert aggregate_of(made.layout, made.vector).n_patients == made.vector[0]


def test_a_sum_over_two_is_not_added_to() -> None:
    with pytest.raises(GateError) as caught:
        gate_of("open").contribute(
            question_of(
                PROTOCOL,
                "table",
                first_query(PROTOCOL, "table"),
                round_id="round-1",
                exchange=1,
                cohort_digest=digest_of("c"),
            ),
            estimator_for("table", PROTOCOL).summarise(
                draw_exams(2, 60), first_query(PROTOCOL, "table")
            ),
            2,
        )
    assert caught.value.code == "gate.too_few_sites"


def test_nothing_but_means_stands_beside_a_sum_about_the_same_patients() -> None:
    exams = draw_exams(5, 4000)
    gate = gate_of("research")
    # Whole or not: large sites' own tables, taken off the sum, are a small site's.
    assert isinstance(ask(gate, "same_table", exams, "all", 0), Release)
    for analysis in ("table", "model"):
        assert code_of(ask(gate, analysis, exams, "all", T)) is RefusalCode.UNPROTECTABLE
    assert isinstance(ask(gate, "bias", exams, "all", T), Contribution)
    # The other way round, and models as well as tables.
    gate = gate_of("research")
    assert isinstance(ask(gate, "model", with_events(20), "c", T), Contribution)
    for analysis in ("table", "model"):
        assert code_of(ask(gate, analysis, with_events(20), "c", 0)) is RefusalCode.UNPROTECTABLE


def test_one_more_column_does_not_make_other_patients() -> None:
    exams = draw_exams(2, 60)
    gate = gate_of("research")
    assert isinstance(ask(gate, "table", exams, "all", T), Contribution)
    # Another protocol's cohort: the same patients, another digest.
    wider = ask(gate, "same_table", exams, "all, and a covariate more", 0)
    assert code_of(wider) is RefusalCode.UNPROTECTABLE
