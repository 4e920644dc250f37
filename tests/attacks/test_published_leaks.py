"""Leaks that others published, tried on this gate: what `open` gives away and `research` does not.

The attacks are those of docs/studies/attacks.py, which says how much each of them recovers.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gate_fixtures import answer_to, gate_of
from plans import BASE, SPECS, draw_exams, plan

from fedcac.disclosure import MemoryLedger, Release, load_policy
from fedcac.disclosure.rules import round_to_digits
from fedcac.protocol import DescriptivesSpec, Subgroup
from fedcac.statistics import estimator_for
from fedcac.statistics.descriptives import COUNTS_QUERY, MOMENTS_QUERY, Descriptives
from fedcac.vocabulary import Measure, RefusalCode
from site_agent.rounds.answering import Answerer

STUDY = Path(__file__).parents[2] / "docs" / "studies" / "attacks.py"


@pytest.fixture(scope="module")
def study() -> Any:
    spec = importlib.util.spec_from_file_location("study_of_attacks", STUDY)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_sums_over_risk_sets_are_no_aggregate(study: Any) -> None:
    assert study.risk_sets("open").recovered == 30
    assert study.risk_sets("research").recovered == 0
    # Under no policy: the gate has no rule for a type that is not registered.
    for profile in ("open", "research"):
        site = study.Site(profile)
        message = study.RiskSetSums(n_patients=40, n_events=20, values=((40.0,),))
        query = study.cox_query(0.0, 0.0)
        answer = site.release(study.protocol_of(study.COX), "cox", query, message, "cohort")
        assert answer is RefusalCode.UNREGISTERED_TYPE


def test_cohorts_without_one_patient_each(study: Any) -> None:
    leaked, kept = study.nested_cohorts("open"), study.nested_cohorts("research")
    assert (leaked.recovered, leaked.of) == (40, 40)
    assert (kept.recovered, kept.note) == (0, "`nested_cohort`")


def test_as_many_samples_as_patients_are_refused(study: Any) -> None:
    assert study.known_samples("open").recovered == 40
    assert study.known_samples("research").recovered == 0
    leaked, kept = study.many_samples("open"), study.many_samples("research")
    assert leaked.recovered == leaked.of
    assert (kept.recovered, kept.note) == (0, "`budget_spent`")


def test_guessing_the_secret_is_no_better_than_knowing_the_mean(study: Any) -> None:
    # Whatever is guessed: the samples of another secret are equations about nobody.
    exams = study.exams_of(40)
    ages = exams.column("age")

    def members(secret: bytes) -> np.ndarray:
        rows = study.replicate_rows(exams.with_secret(secret), "x", study.Resampling.BOOTSTRAP, 80)
        return np.array([np.bincount(drawn, minlength=40) for drawn in rows], dtype=float)

    sums = members(exams.secret) @ ages
    by_chance = np.mean(np.abs(ages - ages.mean()))
    for guess in range(20):
        found = np.linalg.lstsq(members(b"guess %d" % guess), sums, rcond=None)[0]
        assert np.mean(np.abs(found - ages)) > by_chance


def test_a_histogram_bounds_the_extremes_loosely(study: Any) -> None:
    assert study.extremes("open").recovered == 3
    assert study.extremes("research").recovered == 0
    assert not {"minimum", "maximum", "min", "max", "range"} & {m.value for m in Measure}
    protocol, exams = study.protocol_of(study.moments_of()), study.exams_of(120)
    shown = study.Site("research").ask(protocol, "x", exams, COUNTS_QUERY)["counts"][1][0]
    assert sum(shown) == 120
    assert min(shown) >= 5


def test_a_protocol_for_every_age_limit(study: Any) -> None:
    leaked, kept = study.differencing("open"), study.differencing("research")
    assert (leaked.recovered, leaked.of) == (60, 60)
    assert kept.recovered == 0
    assert "`nested_cohort`" in kept.note


def test_the_budget_is_counted_over_all_protocols(study: Any) -> None:
    leaked, kept = study.likelihoods("open"), study.likelihoods("research")
    assert leaked.recovered == leaked.of
    # Four columns of 120 patients are unknown: age, sex, time and event.
    assert 0 < kept.recovered <= 0.33 * 4 * 120
    assert kept.note == "`budget_spent`"


def test_a_subgroup_or_exclusion_of_one_patient(study: Any) -> None:
    for attack in (study.isolating_subgroup, study.isolating_exclusion):
        assert attack("open").recovered == 1
        assert attack("research").recovered == 0


def test_a_covariate_that_marks_one_patient(study: Any) -> None:
    leaked, kept = study.isolating_covariate("open"), study.isolating_covariate("research")
    assert leaked.recovered == leaked.of
    assert (kept.recovered, kept.note) == (0, "`too_few_per_category`")


def test_no_error_or_forged_field_carries_text(study: Any) -> None:
    for profile in ("open", "research"):
        assert study.text(profile).recovered == 0


def test_an_error_that_quotes_a_patient_is_not_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Any:
        raise ValueError("MRN 4711 has an age of 62.3")

    monkeypatch.setattr(Descriptives, "summarise", fail)
    caplog.set_level(logging.DEBUG)
    answerer = Answerer(load_policy("research"), MemoryLedger(), b"secret")
    cohort: Any = SimpleNamespace(exams=draw_exams(1, 50))
    protocol = plan([SPECS["descriptives"]])
    said = answerer._summarise(protocol, cohort, "x", COUNTS_QUERY)
    assert said is RefusalCode.INTERNAL
    assert "ValueError" in caplog.text
    assert "4711" not in caplog.text
    assert "62.3" not in caplog.text


def test_digits_beyond_the_twelfth_do_not_leave(study: Any) -> None:
    assert study.low_bits("open").recovered == 52
    # Twelve digits are 10^12 numbers, about 2^39.9.
    assert study.low_bits("research").recovered <= 40


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in _numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, float) else []


def test_every_analysis_releases_twelve_digits() -> None:
    exams, n_seen = draw_exams(2, 600), 0
    for kind in ("bland_altman", "correlation", "calibration", "cox", "fusion", "zero_inflated"):
        protocol = plan([BASE, SPECS[kind]])
        query = next(estimator_for("x", protocol).pool(["site"]))
        answer = answer_to(gate_of("research"), protocol, "x", exams, query)
        assert isinstance(answer, Release), kind
        numbers = _numbers(answer.payload)
        n_seen += len(numbers)
        assert all(number == round_to_digits(number, 12) for number in numbers)
    assert n_seen > 30


def test_spans_that_add_up_to_all_but_one() -> None:
    # 50 patients less 22 less 27 is one, though no two numbers differ by few.
    exams = draw_exams(3, 80)
    ages = np.sort(exams.column("age")) + np.arange(80) * 1e-3
    exams = exams.with_column("age", ages)
    spans = {"a": (0, 50), "b": (0, 22), "c": (22, 49)}
    groups = [
        Subgroup(
            name=name,
            covariate="age",
            minimum=float(ages[first]) - 5e-4,
            below=float(ages[end]) - 5e-4,
            description="Span.",
        )
        for name, (first, end) in spans.items()
    ]
    specs = [
        DescriptivesSpec(id=name, kind="descriptives", covariates=("age",), by="all", subgroup=name)
        for name in spans
    ]
    protocol = plan(specs, subgroups=tuple(groups))
    for profile, is_told in (("open", True), ("research", False)):
        gate = gate_of(profile)
        answers = [
            answer_to(gate, protocol, name, exams, MOMENTS_QUERY, exchange=number)
            for number, name in enumerate(spans, start=1)
        ]
        assert isinstance(answers[0], Release)
        assert isinstance(answers[1], Release)
        assert isinstance(answers[2], Release) is is_told
        if is_told:
            sums = [a.payload["n"][0] * a.payload["mean"][0] for a in answers]
            assert sums[0] - sums[1] - sums[2] == pytest.approx(ages[49], abs=1e-6)
