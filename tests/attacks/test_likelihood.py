"""Questions to a Cox likelihood that are after single patients."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from fedcac.aggregate import Evidence
from fedcac.disclosure import Gate, MemoryLedger, Question, Refusal, Release, load_policy
from fedcac.vocabulary import RefusalCode

Ask = Callable[..., Question]


def _cox(
    make: SimpleNamespace, x: np.ndarray, time: np.ndarray, event: np.ndarray, beta: float
) -> object:
    """Breslow terms of one covariate; no two times are equal."""
    log_likelihood = gradient = information = 0.0
    for i in np.flatnonzero(event):
        at_risk = x[time >= time[i]]
        weight = np.exp(beta * (at_risk - at_risk.max()))
        mean = (weight @ at_risk) / weight.sum()
        log_likelihood += beta * (x[i] - at_risk.max()) - np.log(weight.sum())
        gradient += x[i] - mean
        information += (weight @ at_risk**2) / weight.sum() - mean**2
    return make.terms(n=len(x), n_events=int(event.sum()), p=1).model_copy(
        update={
            "log_likelihood": float(log_likelihood),
            "gradient": (float(gradient),),
            "information": ((float(max(information, 0.0)),),),
            "evidence": Evidence(n_parameters=1, parameter_norm=abs(beta) * float(x.std())),
        }
    )


@pytest.fixture
def cohort() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    age = np.round(rng.normal(60, 9, 120), 1)
    time = rng.permutation(120) + 1.0
    return age, time, rng.random(120) < 0.5


def test_a_single_event_gives_the_patient_away(
    make: SimpleNamespace, ask: Ask, cohort: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    age, time, _ = cohort
    event = time == 1.0
    terms = _cox(make, age, time, event, 0.0)
    leaked = Gate(load_policy("open"), MemoryLedger()).release(ask(), terms)
    assert isinstance(leaked, Release)
    # Everyone is at risk, so the gradient is the patient's age less the mean age.
    assert leaked.payload["gradient"][0] + age.mean() == pytest.approx(age[event][0])
    refused = Gate(load_policy("research"), MemoryLedger()).release(ask(), terms)
    assert refused == Refusal(RefusalCode.TOO_FEW_EVENTS)


def test_a_large_parameter_singles_out_the_oldest(
    make: SimpleNamespace, ask: Ask, cohort: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    age, time, event = cohort
    oldest = int(np.argmax(age))
    time[oldest] = 1000.0  # the oldest is at risk at every event
    event[oldest] = False
    terms = _cox(make, age, time, event, 400.0)
    leaked = Gate(load_policy("open"), MemoryLedger()).release(ask(), terms)
    assert isinstance(leaked, Release)
    total, n_events = age[event].sum(), event.sum()
    assert (total - leaked.payload["gradient"][0]) / n_events == pytest.approx(age[oldest])
    refused = Gate(load_policy("research"), MemoryLedger()).release(ask(), terms)
    assert refused == Refusal(RefusalCode.PARAMETERS_OUT_OF_BOUNDS)


def test_many_exchanges_end_in_a_refusal(
    make: SimpleNamespace, ask: Ask, cohort: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    # Three numbers a time against 0.33 x 120 values of one column: the budget ends it before the
    # count of exchanges does.
    gate = Gate(load_policy("research"), MemoryLedger())
    answers = [
        gate.release(ask(query=step, columns=("age",)), _cox(make, *cohort, 0.001 * step))
        for step in range(40)
    ]
    n_released = sum(isinstance(answer, Release) for answer in answers)
    assert 3 * n_released <= 0.33 * 120
    assert n_released == 13
    assert set(answers[13:]) == {Refusal(RefusalCode.BUDGET_SPENT)}


def test_a_large_cohort_is_stopped_by_the_number_of_exchanges(
    make: SimpleNamespace, ask: Ask
) -> None:
    gate = Gate(load_policy("research"), MemoryLedger())
    answers = [
        gate.release(ask(query=step, round_id=f"round-{step}"), make.terms(n=5000, n_events=900))
        for step in range(16)
    ]
    assert all(isinstance(answer, Release) for answer in answers[:15])
    assert answers[15] == Refusal(RefusalCode.TOO_MANY_EXCHANGES)


def test_leaving_one_patient_out_is_refused(
    make: SimpleNamespace, ask: Ask, cohort: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    age, time, event = cohort
    gate = Gate(load_policy("research"), MemoryLedger())
    assert isinstance(gate.release(ask(), _cox(make, age, time, event, 0.0)), Release)
    without = _cox(make, age[1:], time[1:], event[1:], 0.0)
    assert gate.release(ask(cohort="without one"), without) == Refusal(RefusalCode.NESTED_COHORT)
