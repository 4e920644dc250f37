from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from fedcac.canonical import canonical_bytes, sha256_hex
from fedcac.disclosure import (
    Gate,
    MemoryLedger,
    Policy,
    Question,
    Refusal,
    Release,
    load_policy,
)
from fedcac.errors import GateError
from fedcac.vocabulary import RefusalCode

Ask = Callable[..., Question]
TABLE = ((40, 10), (10, 40))


def _gate(profile: str = "research", ledger: MemoryLedger | None = None) -> Gate:
    return Gate(load_policy(profile), ledger or MemoryLedger())


def _custom(**cox: float) -> Policy:
    document = load_policy("research").model_dump()
    return Policy.model_validate(
        {**document, "profile": "custom", "cox": {**document["cox"], **cox}}
    )


def test_a_release_is_its_bytes(make: SimpleNamespace, ask: Ask) -> None:
    ledger = MemoryLedger()
    gate = _gate(ledger=ledger)
    released = gate.release(ask(), make.table(TABLE))
    assert isinstance(released, Release)
    assert released.payload["two_by_two"] == [[40, 10, 10, 40]]
    assert released.content == canonical_bytes(released.payload)
    assert (released.digest, released.n_bytes) == (
        sha256_hex(released.content),
        len(released.content),
    )
    assert (released.profile, released.policy_digest) == ("research", gate.policy.digest())
    assert ledger.entries[0].release_digest == released.digest
    released.payload["n_patients"] = 0
    assert released.payload["n_patients"] == 100


def test_only_the_gate_makes_a_release(make: SimpleNamespace, ask: Ask) -> None:
    released = _gate().release(ask(), make.table(TABLE))
    assert isinstance(released, Release)
    with pytest.raises(GateError) as caught:
        Release(b"{}", "open", released.policy_digest, object())
    assert caught.value.code == "gate.forged_release"
    with pytest.raises((GateError, ValueError)):
        dataclasses.replace(released, content=b"{}")
    with pytest.raises(dataclasses.FrozenInstanceError):
        released.content = b"{}"  # type: ignore[misc]
    with pytest.raises(GateError):
        type("Forged", (Release,), {})


def test_a_gate_needs_a_true_policy() -> None:
    class Lenient(Policy):
        @property
        def is_open(self) -> bool:
            return True

    lenient = Lenient.model_validate(load_policy("research").model_dump())
    for policy in (None, lenient, {"profile": "open"}):
        with pytest.raises(GateError):
            Gate(policy, MemoryLedger())  # type: ignore[arg-type]


def test_open_leaves_everything_and_says_so(make: SimpleNamespace, ask: Ask) -> None:
    ledger = MemoryLedger()
    gate = _gate("open", ledger)
    released = gate.release(ask(), make.table(((1, 0), (2, 3))))
    assert isinstance(released, Release)
    assert released.payload["matrix"] == [[1, 0], [2, 3]]
    assert released.profile == "open"
    assert ledger.entries[0].profile == "open"
    terms = gate.release(ask("cox"), make.terms(n=6, n_events=1, norm=50.0))
    assert isinstance(terms, Release)
    assert "evidence" not in terms.payload
    assert terms.payload["log_likelihood"] == -123.45678901234567


def test_an_identical_question_gets_the_earlier_bytes(make: SimpleNamespace, ask: Ask) -> None:
    ledger = MemoryLedger()
    gate = _gate(ledger=ledger)
    first = gate.release(ask(), make.table(TABLE))
    again = gate.release(ask(), make.table(((50, 0), (0, 50))))
    assert again == first
    assert len(ledger.entries) == 1
    renamed = ask("agreement_two", content="agreement", round_id="round-2", exchange=3)
    assert gate.release(renamed, make.table(((50, 0), (0, 50)))) == first
    assert [entry.repeats for entry in ledger.entries] == [None, 0]
    assert ledger.entries[1].round_id == "round-2"
    assert gate.release(renamed, make.table(TABLE)) == first
    assert len(ledger.entries) == 2


def test_another_policy_does_not_answer_the_same_question_again(
    make: SimpleNamespace, ask: Ask
) -> None:
    ledger = MemoryLedger()
    _gate("research", ledger).release(ask(), make.table(TABLE))
    assert _gate("cms", ledger).release(ask(), make.table(TABLE)) == Refusal(
        RefusalCode.UNPROTECTABLE
    )


def test_a_refusal_is_written_once(make: SimpleNamespace, ask: Ask) -> None:
    ledger = MemoryLedger()
    gate = _gate(ledger=ledger)
    for _ in range(2):
        assert gate.release(ask("cox"), make.terms(n_events=2)) == Refusal(
            RefusalCode.TOO_FEW_EVENTS
        )
    gate.refuse(ask("cox"), RefusalCode.REJECTED_BY_SITE)
    assert [entry.refusal for entry in ledger.entries] == [
        RefusalCode.TOO_FEW_EVENTS,
        RefusalCode.REJECTED_BY_SITE,
    ]


@pytest.mark.parametrize(
    ("n", "code"), [(100, None), (105, None), (104, "nested"), (99, "nested"), (95, None)]
)
def test_denominators_of_one_cohort_are_equal_or_k_apart(
    make: SimpleNamespace, ask: Ask, n: int, code: str | None
) -> None:
    gate = _gate()
    gate.release(ask(), make.table(TABLE))
    answer = gate.release(ask("bland_altman"), make.means(n, n))
    assert isinstance(answer, Release) == (code is None)
    if code:
        assert answer == Refusal(RefusalCode.NESTED_COHORT)


def test_nested_cohorts_of_one_analysis_are_refused(make: SimpleNamespace, ask: Ask) -> None:
    gate = _gate()
    gate.release(ask("bland_altman"), make.means(100, 100))
    for n in (101, 99, 100):
        answer = gate.release(ask("bland_altman", cohort=n), make.means(n, n))
        assert answer == Refusal(RefusalCode.NESTED_COHORT)
    assert isinstance(
        gate.release(ask("bland_altman", cohort="grown"), make.means(140, 140)), Release
    )


def test_nested_endpoints_are_refused(make: SimpleNamespace, ask: Ask) -> None:
    gate = _gate()
    gate.release(ask("mace"), make.terms(n_events=50))
    near = gate.release(ask("death"), make.terms(n_events=47))
    assert near == Refusal(RefusalCode.NESTED_COHORT)
    assert isinstance(gate.release(ask("death_mi"), make.terms(n_events=40)), Release)


def test_a_second_table_of_a_cohort_must_say_the_same(make: SimpleNamespace, ask: Ask) -> None:
    gate = _gate()
    gate.release(ask("agreement"), make.table(TABLE))
    assert isinstance(gate.release(ask("accuracy"), make.table(TABLE)), Release)
    shifted = gate.release(ask("other_cut_off"), make.table(((41, 9), (10, 40))))
    assert shifted == Refusal(RefusalCode.NESTED_COHORT)
    cut_elsewhere = ask("other_scheme", categories="other")
    assert gate.release(cut_elsewhere, make.table(((30, 5), (5, 5)))) == Refusal(
        RefusalCode.NESTED_COHORT
    )


def test_a_table_of_other_scores_may_stand_beside_a_whole_one(
    make: SimpleNamespace, ask: Ask
) -> None:
    gate = _gate()
    gate.release(ask("agreement"), make.table(TABLE))
    other = ask("agreement_two", scores="other")
    assert isinstance(gate.release(other, make.table(((41, 9), (10, 40)))), Release)
    # What is withheld from one could follow from the margins that it shares with the other.
    partial = ask("agreement_three", scores="third")
    assert gate.release(partial, make.table(((48, 2), (10, 40)))) == Refusal(
        RefusalCode.NESTED_COHORT
    )


def test_a_subgroup_must_differ_from_the_whole_by_enough_in_every_cell(
    make: SimpleNamespace, ask: Ask
) -> None:
    gate = _gate()
    gate.release(ask("all"), make.table(TABLE))
    assert isinstance(gate.release(ask("men"), make.table(((20, 5), (5, 20)))), Release)
    almost_all = gate.release(ask("under_90"), make.table(((30, 8), (5, 30))))
    assert almost_all == Refusal(RefusalCode.NESTED_COHORT)


def test_exchanges_are_counted_per_analysis_and_cohort(make: SimpleNamespace, ask: Ask) -> None:
    gate = Gate(_custom(maximum_exchanges=3, budget_share=1.0), MemoryLedger())
    for beta in range(3):
        assert isinstance(gate.release(ask("cox", query=beta), make.terms()), Release)
    assert gate.release(ask("cox", query=3), make.terms()) == Refusal(
        RefusalCode.TOO_MANY_EXCHANGES
    )
    # A new round under another name does not start the count again.
    renamed = ask("cox_two", query=3, content="cox", round_id="round-2")
    assert gate.release(renamed, make.terms()) == Refusal(RefusalCode.TOO_MANY_EXCHANGES)
    assert isinstance(gate.release(ask("cox", query=0), make.terms()), Release)
    assert isinstance(gate.release(ask("other", query=0), make.terms()), Release)


def test_the_budget_is_numbers_against_patients_times_parameters(
    make: SimpleNamespace, ask: Ask
) -> None:
    # 1 + 4 + 10 numbers each time, of 0.33 x 100 x 4 = 132: eight answers, not nine.
    gate = _gate()
    answers = [
        gate.release(ask("cox", query=beta), make.terms(n=100, n_events=40, p=4))
        for beta in range(9)
    ]
    assert all(isinstance(answer, Release) for answer in answers[:8])
    assert answers[8] == Refusal(RefusalCode.BUDGET_SPENT)
    # Asking again what was answered is free; a new analysis of the same patients is not.
    assert gate.release(ask("cox", query=2, exchange=9), make.terms()) == answers[2]
    other = gate.release(ask("other"), make.terms(n=100, n_events=40, p=4))
    assert other == Refusal(RefusalCode.BUDGET_SPENT)
    assert isinstance(
        gate.release(ask("cox", cohort="elsewhere"), make.terms(n=300, n_events=40)), Release
    )


def test_what_left_under_open_is_not_charged(make: SimpleNamespace, ask: Ask) -> None:
    ledger = MemoryLedger()
    _gate("open", ledger).release(ask("bland_altman"), make.means(99, 99))
    assert isinstance(_gate("research", ledger).release(ask(), make.table(TABLE)), Release)
