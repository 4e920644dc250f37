"""Questions to the other statistics that are after single patients or very few.

Every attack is code that works on what the profile `open` releases, and fails on `research`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from plans import BASE, FULL, draw_exams, plan

from fedcac.aggregate import Aggregate
from fedcac.canonical import digest_of
from fedcac.disclosure import Gate, MemoryLedger, Refusal, Release, load_policy, question_of
from fedcac.disclosure.rules import apply_rule, check_consistency
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import (
    AucSpec,
    CalibrationSpec,
    DescriptivesSpec,
    FusionSpec,
    KaplanMeierSpec,
    Protocol,
    ReclassificationSpec,
    Subgroup,
)
from fedcac.statistics import estimator_for
from fedcac.statistics.auc import WITHIN_QUERY
from fedcac.statistics.calibration import BINS_QUERY
from fedcac.statistics.descriptives import COUNTS_QUERY, MOMENTS_QUERY
from fedcac.statistics.kaplan_meier import TABLE_QUERY
from fedcac.statistics.reclassification import MEASURES
from fedcac.statistics.refit import REFIT, table_query
from fedcac.statistics.resampling import replicate_rows
from fedcac.vocabulary import RefusalCode, Resampling

Answer = Release | Refusal


def _gate(profile: str) -> Gate:
    return Gate(load_policy(profile), MemoryLedger())


def _ask(gate: Gate, protocol: Protocol, analysis: str, exams: Exams, query: Query) -> Answer:
    question = question_of(
        protocol,
        analysis,
        query,
        round_id="round-1",
        exchange=1,
        cohort_digest=digest_of("cohort"),
    )
    return gate.release(question, estimator_for(analysis, protocol).summarise(exams, query))


def _payload(answer: Answer) -> dict[str, Any]:
    assert isinstance(answer, Release)
    return answer.payload


def _protected(aggregate: Aggregate, profile: str) -> dict[str, Any]:
    check_consistency(aggregate)
    released = apply_rule(aggregate, load_policy(profile))
    assert not isinstance(released, RefusalCode)
    return released.to_payload()


def _exams(n: int, **columns: Any) -> Exams:
    return draw_exams(3, n, **columns)


# --- times of single events -----------------------------------------------------------------


def test_one_day_bins_name_the_days_of_single_events() -> None:
    rng = np.random.default_rng(4)
    time = rng.permutation(400)[:60] + 1.0
    event = (np.arange(60) < 25).astype(float)
    spec = KaplanMeierSpec(
        id="x", kind="kaplan_meier", endpoint="mace", by="all", bin_days=1, horizon_days=400
    )
    exams = _exams(60, follow_up_days=time, event=event)

    def days_of_single_events(profile: str) -> list[float]:
        table = _payload(_ask(_gate(profile), plan([spec]), "x", exams, TABLE_QUERY))
        ends = table["edges"][0][1:]
        return [day for day, n in zip(ends, table["events"][0], strict=True) if n == 1]

    assert days_of_single_events("open") == sorted(time[:25])
    assert days_of_single_events("research") == []


def test_two_landmarks_tell_who_was_lost_between_them() -> None:
    time = np.linspace(200, 900, 120).round()
    time[:3] = 40.0
    exams = _exams(120, follow_up_days=time, event=(np.arange(120) % 2).astype(float))
    protocol = plan(
        [
            KaplanMeierSpec(
                id=endpoint,
                kind="kaplan_meier",
                endpoint=endpoint,
                by="all",
                bin_days=100,
                horizon_days=600,
            )
            for endpoint in ("mace", "late_mace")
        ]
    )

    def answers(profile: str) -> list[Answer]:
        gate = _gate(profile)
        return [_ask(gate, protocol, name, exams, TABLE_QUERY) for name in ("mace", "late_mace")]

    both = [_payload(answer) for answer in answers("open")]
    assert both[0]["n_patients"] - both[1]["n_patients"] == 3
    assert both[0]["n_events"] - both[1]["n_events"] == 1
    assert answers("research")[1] == Refusal(RefusalCode.NESTED_COHORT)


# --- few patients with a characteristic -----------------------------------------------------


def test_a_level_of_two_patients_is_counted() -> None:
    vendor = np.repeat([0.0, 1.0, 2.0], [60, 58, 2])
    spec = DescriptivesSpec(id="x", kind="descriptives", covariates=("vendor",), by="all")
    exams = _exams(120, vendor=vendor)

    def counts(profile: str) -> list[int]:
        found = _payload(_ask(_gate(profile), plan([spec]), "x", exams, COUNTS_QUERY))
        return list(found["counts"][1][0])

    assert counts("open") == [60, 58, 2]
    # Neither the two nor the fifty-eight beside them, from which they would follow.
    assert counts("research") == [120]


def test_a_subgroup_singles_out_three_patients() -> None:
    age = np.r_[np.linspace(40, 80, 97), [91.0, 93.0, 98.0]]
    spec = DescriptivesSpec(
        id="x", kind="descriptives", covariates=("age",), by="all", subgroup="oldest"
    )
    oldest = Subgroup(name="oldest", covariate="age", minimum=90, description="90 or older.")
    protocol = plan([spec], subgroups=(oldest,))
    exams = _exams(100, age=age)
    leaked = _payload(_ask(_gate("open"), protocol, "x", exams, MOMENTS_QUERY))
    assert (leaked["n"], leaked["mean"]) == ([3], [94.0])
    for query in (MOMENTS_QUERY, COUNTS_QUERY):
        refused = _ask(_gate("research"), protocol, "x", exams, query)
        assert refused == Refusal(RefusalCode.TOO_FEW_PATIENTS)


def test_all_but_three_patients_single_them_out() -> None:
    age = np.r_[np.linspace(40, 80, 97), [91.0, 93.0, 98.0]]
    specs = [
        DescriptivesSpec(id=name, kind="descriptives", covariates=("age",), by="all", subgroup=part)
        for name, part in (("all", None), ("most", "under_90"))
    ]
    most = Subgroup(name="under_90", covariate="age", below=90, description="Under 90.")
    protocol = plan(specs, subgroups=(most,))
    exams = _exams(100, age=age)

    def answers(profile: str) -> list[Answer]:
        gate = _gate(profile)
        return [_ask(gate, protocol, name, exams, MOMENTS_QUERY) for name in ("all", "most")]

    everyone, others = (_payload(answer) for answer in answers("open"))
    total = everyone["n"][0] * everyone["mean"][0] - others["n"][0] * others["mean"][0]
    assert total / 3 == pytest.approx(94.0)
    assert answers("research")[1] == Refusal(RefusalCode.NESTED_COHORT)


# --- replicates -----------------------------------------------------------------------------


def _leave_one_out() -> tuple[Exams, Protocol, Query]:
    reference = np.where(np.arange(20) < 12, 250.0, 20.0)
    spec = FusionSpec(id="x", kind="fusion", covariates=("age",), cut_off=100, folds=20, bins=100)
    exams = _exams(20, reference_score=reference)
    return exams, plan([spec]), table_query(REFIT, np.zeros((20, 3)))


def test_folds_of_one_patient_give_every_row_away() -> None:
    exams, protocol, query = _leave_one_out()
    leaked = _payload(_ask(_gate("open"), protocol, "x", exams, query))
    rows = np.array(leaked["values"])
    # Twenty sums over nineteen patients: their sum is nineteen times the sum over all.
    single = rows.sum(axis=0) / 19 - rows
    found = single / single[:, :1]
    ages = found[:, 2] * protocol.covariate("age").scale
    np.testing.assert_allclose(sorted(ages), np.sort(exams.column("age")))
    refused = _ask(_gate("research"), protocol, "x", exams, query)
    assert refused == Refusal(RefusalCode.TOO_FEW_PER_CATEGORY)


def _added_value(method: Resampling, replicates: int) -> Protocol:
    spec = ReclassificationSpec(
        id="x",
        kind="reclassification",
        base="base",
        full="full",
        horizon_days=720,
        uncertainty=method,
        replicates=replicates,
    )
    return plan([BASE, FULL, spec])


@pytest.mark.parametrize(("n", "is_refused"), [(80, True), (99, True), (100, False)])
def test_jackknife_groups_of_few_are_refused(n: int, is_refused: bool) -> None:
    protocol = _added_value(Resampling.JACKKNIFE, 20)
    exams = _exams(n)
    aggregate = estimator_for("x", protocol).summarise(exams, table_query(REFIT, np.zeros((20, 5))))
    answer = apply_rule(aggregate, load_policy("research"))
    assert (answer is RefusalCode.TOO_FEW_PER_CATEGORY) == is_refused
    assert len(_protected(aggregate, "open")["values"]) == 20


def test_who_is_in_a_bootstrap_sample_needs_the_sites_secret() -> None:
    protocol = _added_value(Resampling.BOOTSTRAP, 6)
    estimator = estimator_for("x", protocol)
    exams = _exams(150)
    beta = np.tile([0.1, 0.2, 0.1, 0.2, 0.3], (6, 1))

    def values(secret: bytes) -> np.ndarray:
        summed = estimator.summarise(exams.with_secret(secret), table_query(MEASURES, beta))
        document = _protected(summed, "research")
        assert "evidence" not in document
        return np.array(document["values"])

    one, same, other = values(b"one"), values(b"one"), values(b"other")
    np.testing.assert_array_equal(one, same)
    assert all(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_known_secret_turns_replicates_into_equations() -> None:
    # Enough samples of known members are linear equations; of unknown members they are not.
    rng = np.random.default_rng(8)
    n = 20
    exams = _exams(n, age=rng.normal(60, 9, n).round(1))
    rows = replicate_rows(exams, "x", Resampling.BOOTSTRAP, 40)
    sums = np.array([exams.column("age")[r].sum() for r in rows])

    def solved(secret: bytes) -> np.ndarray:
        guessed = replicate_rows(exams.with_secret(secret), "x", Resampling.BOOTSTRAP, 40)
        members = np.array([np.bincount(r, minlength=n) for r in guessed])
        return np.linalg.lstsq(members.astype(float), sums, rcond=None)[0]

    np.testing.assert_allclose(solved(exams.secret), exams.column("age"))
    assert np.mean(np.abs(solved(b"guess") - exams.column("age")) < 0.5) < 0.5


# --- few with the condition -----------------------------------------------------------------


def _auc_values(profile: str, n_positive: int) -> list[list[float]]:
    reference = np.r_[np.full(50, 5.0), np.full(50 - n_positive, 50.0), np.full(n_positive, 600.0)]
    index = np.r_[np.linspace(0, 90, 100 - n_positive), np.linspace(500, 900, n_positive)].round(1)
    spec = AucSpec(id="x", kind="auc", cut_offs=(10, 400), bins=100)
    exams = _exams(100, reference_score=reference, index_score=index)
    summed = estimator_for("x", plan([spec])).summarise(exams, WITHIN_QUERY)
    return list(_protected(summed, profile)["values"])


def test_the_auc_of_three_patients_ranks_them_all() -> None:
    leaked = _auc_values("open", 3)
    # An AUC of one: each of the three has a higher score than all the others.
    assert leaked[1][:3] == [3.0, 97.0, 1.0]
    shown = _auc_values("research", 3)
    assert shown[0]
    assert shown[1] == []
    assert _auc_values("research", 5)[1]


def test_a_bin_with_one_positive_gives_the_patients_prediction_away() -> None:
    p = np.r_[np.full(40, 0.05), np.linspace(0.3, 0.45, 40), [0.93]]
    positive = np.r_[np.arange(40) < 6, np.arange(40) < 15, [True]]
    spec = CalibrationSpec(id="x", kind="calibration", cut_offs=(100,), risk_bins=(0.1, 0.5))
    exams = _exams(81, index_probability_100=p, reference_score=np.where(positive, 250.0, 20.0))
    summed = estimator_for("x", plan([spec])).summarise(exams, BINS_QUERY)
    leaked = _protected(summed, "open")["values"]
    assert leaked[2] == [1.0, 1.0, pytest.approx(0.93)]
    shown = _protected(summed, "research")["values"]
    assert shown[2] == []
    assert all(
        row == [] or row == pytest.approx(full) for row, full in zip(shown, leaked, strict=True)
    )
