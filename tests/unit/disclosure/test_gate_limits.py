"""What the gate compares an answer with, and what with nothing: one thing changed at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from fedcac.aggregate import Evidence, base
from fedcac.canonical import digest_of
from fedcac.disclosure import (
    FLOW,
    Contribution,
    Gate,
    MemoryLedger,
    Policy,
    Question,
    Refusal,
    Release,
    load_policy,
    masked,
)
from fedcac.disclosure import gate as gate_module
from fedcac.disclosure.budget import EXPECTED_ANSWERS
from fedcac.disclosure.groups import Groups, group_of
from fedcac.disclosure.history import are_compatible, numbers_released
from fedcac.errors import GateError
from fedcac.statistics.auc import AucTotals, ClassHistogram
from fedcac.statistics.comparison import PairSums
from fedcac.statistics.kaplan_meier import KaplanMeierTable
from fedcac.vocabulary import RefusalCode

Ask = Callable[..., Question]
RESEARCH = load_policy("research")
NESTED = Refusal(RefusalCode.NESTED_COHORT)
UNPROTECTABLE = Refusal(RefusalCode.UNPROTECTABLE)
TABLE = ((40, 10), (10, 40))
T = 3


def gate_with(ledger: MemoryLedger | None = None, policy: Policy = RESEARCH) -> Gate:
    return Gate(policy, MemoryLedger() if ledger is None else ledger)


def custom(**cox: float) -> Policy:
    document = RESEARCH.model_dump()
    return Policy.model_validate(
        {**document, "profile": "custom", "cox": {**document["cox"], **cox}}
    )


def is_released(answer: object) -> bool:
    assert isinstance(answer, Release | Refusal)
    return isinstance(answer, Release)


# --- a faulty rule --------------------------------------------------------------------------


def test_a_rule_that_leaves_evidence_lets_nothing_out(
    make: SimpleNamespace, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "apply_rule", lambda aggregate, *_: aggregate)
    monkeypatch.setattr(masked, "judge", lambda aggregate, *_: aggregate)
    ledger = MemoryLedger()
    gate, terms = gate_with(ledger), make.terms()
    for answer in (gate.release, partial(gate.contribute, least_sites=T)):
        with pytest.raises(GateError) as caught:
            answer(ask(), terms)
        assert caught.value.code == "gate.text_or_evidence"
    assert ledger.entries == ()


def test_a_rule_that_breaks_a_shape_lets_nothing_out(
    make: SimpleNamespace, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(aggregate: Any, *_: object) -> Any:
        return aggregate.model_copy(update={"mean": ()})

    monkeypatch.setattr(gate_module, "apply_rule", faulty)
    ledger = MemoryLedger()
    with pytest.raises(GateError) as caught:
        gate_with(ledger).release(ask(), make.means(100, 100))
    assert caught.value.code == "gate.malformed_aggregate"
    assert ledger.entries == ()


# --- the ledger -----------------------------------------------------------------------------


def test_every_question_that_is_refused_is_in_the_ledger(ask: Ask) -> None:
    ledger = MemoryLedger()
    gate = gate_with(ledger)
    for question in (ask("x"), ask("y"), ask("x", exchange=2), ask("x")):
        gate.refuse(question, RefusalCode.REJECTED_BY_SITE)
    assert [(e.analysis, e.exchange) for e in ledger.entries] == [("x", 1), ("y", 1), ("x", 2)]


def test_an_answer_after_a_refusal_in_the_same_exchange_is_in_the_ledger(
    make: SimpleNamespace, ask: Ask
) -> None:
    ledger = MemoryLedger()
    gate = gate_with(ledger)
    assert is_released(gate.release(ask(), make.table(TABLE)))
    gate.refuse(ask(exchange=2), RefusalCode.REJECTED_BY_SITE)
    for _ in range(2):
        assert is_released(gate.release(ask(exchange=2), make.table(TABLE)))
    assert [(e.kind, e.repeats) for e in ledger.entries] == [
        ("gate_test_table", None),
        ("refusal", None),
        ("gate_test_table", 0),
    ]


# --- sums -----------------------------------------------------------------------------------


def test_a_contribution_is_the_same_when_asked_again(make: SimpleNamespace, ask: Ask) -> None:
    ledger = MemoryLedger()
    gate = gate_with(ledger)
    first = gate.contribute(ask(), make.table(TABLE), T)
    assert isinstance(first, Contribution)
    other = make.table(((50, 0), (0, 50)))
    assert gate.contribute(ask(), other, T) == first
    assert len(ledger.entries) == 1
    again = ask("renamed", content="agreement", exchange=2)
    assert gate.contribute(again, other, T) == first
    assert [(e.repeats, e.least_sites) for e in ledger.entries] == [(None, T), (0, T)]
    # Under another policy the rules were others.
    cms = gate_with(ledger, load_policy("cms"))
    assert cms.contribute(ask(), make.table(TABLE), T) == UNPROTECTABLE


def test_what_was_added_to_a_sum_is_compared_for_other_patients_only(
    make: SimpleNamespace, ask: Ask
) -> None:
    gate = gate_with()
    assert isinstance(gate.contribute(ask("x"), make.means(100, 100), T), Contribution)
    # Of the same cohort nobody has seen it: three patients fewer follow from nothing.
    fewer = make.table(((40, 10), (10, 37)))
    assert is_released(gate.release(ask("table"), fewer))
    # A cohort of one fewer, by itself and in a sum.
    near = ask("x", cohort="one fewer")
    assert gate.release(near, make.means(99, 99)) == NESTED
    assert gate.contribute(near, make.means(99, 99), T) == NESTED


def test_parts_of_sums_about_the_same_cohort_are_not_compared(
    make: SimpleNamespace, ask: Ask
) -> None:
    gate = gate_with()
    assert isinstance(gate.contribute(ask("x"), make.table(TABLE), T), Contribution)
    fewer = make.table(((40, 10), (10, 37)))
    assert isinstance(gate.contribute(ask("y"), fewer, T), Contribution)


def test_means_are_told_in_a_sum_or_by_themselves(make: SimpleNamespace, ask: Ask) -> None:
    for first, second in ((True, False), (False, True)):
        gate = gate_with()
        means = make.means(100, 100)
        answers = [
            gate.contribute(ask(name), means, T) if is_sum else gate.release(ask(name), means)
            for name, is_sum in (("x", first), ("y", second))
        ]
        assert answers[1] == UNPROTECTABLE
        # Another cohort is other patients, as far as is known.
        elsewhere = ask("y", cohort="elsewhere")
        far = make.means(140, 140)
        answer = gate.contribute(elsewhere, far, T) if second else gate.release(elsewhere, far)
        assert isinstance(answer, Contribution if second else Release)


def test_patients_are_known_under_another_cohort_digest(make: SimpleNamespace, ask: Ask) -> None:
    same, other = digest_of("these patients"), digest_of("those patients")
    for first, second, is_answered in (
        (same, same, False),
        (same, other, True),
        (None, same, True),
        (same, None, True),
        (None, None, True),
    ):
        gate = gate_with()
        gate.contribute(replace(ask("x"), patients_digest=first), make.table(TABLE), T)
        asked = replace(ask("y", cohort="more columns"), patients_digest=second)
        answer = gate.release(asked, make.means(200, 200))
        assert is_released(answer) is True  # means may stand beside counts
        counts = replace(ask("z", cohort="more columns"), patients_digest=second)
        answer = gate.release(counts, make.terms(n=200))
        assert is_released(answer) is is_answered, (first, second)


def test_a_sum_has_the_budget_of_its_sites(make: SimpleNamespace, ask: Ask) -> None:
    # Six answers of 1 + 2 + 3 numbers, of 0.33 per patient and column: 110 patients.
    for n, is_answered in ((109, False), (110, True)):
        answer = gate_with().release(ask("model", columns=("age",)), make.terms(n=n))
        assert is_released(answer) is is_answered
        assert is_answered or answer == Refusal(RefusalCode.BUDGET_SPENT)
    # Three times as many behind a sum over three: 36.4.
    for n, is_answered in ((36, False), (37, True)):
        asked = ask("model", columns=("age",))
        part = gate_with().contribute(asked, make.terms(n=n, n_events=10), T)
        assert isinstance(part, Contribution) is is_answered
        assert is_answered or part == Refusal(RefusalCode.BUDGET_SPENT)


# --- groups ---------------------------------------------------------------------------------

KEYS = [f"p{number:03d}" for number in range(120)]


def about(question: Question, *spans: tuple[int, int]) -> Question:
    members = [key for first, end in spans for key in KEYS[first:end]]
    return replace(question, group=group_of(members, KEYS), cohort_size=len(KEYS))


def test_groups_that_differ_by_few_are_not_told_of(make: SimpleNamespace, ask: Ask) -> None:
    ledger = MemoryLedger()
    gate = gate_with(ledger)
    assert is_released(gate.release(about(ask("x"), (0, 50)), make.means(50, 50)))
    # Two patients for two others.
    near = about(ask("y"), (2, 52))
    assert gate.release(near, make.means(50, 50)) == NESTED
    assert ledger.entries[-1].group is None
    # Five for five others; the same group; other patients under the same places.
    assert is_released(gate.release(about(ask("y"), (5, 55)), make.means(50, 50)))
    assert is_released(gate.release(about(ask("z"), (0, 50)), make.means(50, 50)))
    elsewhere = about(ask("w", cohort="elsewhere", scores="other"), (2, 52))
    assert is_released(gate.release(elsewhere, make.table(((10, 15), (15, 10)))))


def test_an_answer_about_no_group_is_compared_with_none(make: SimpleNamespace, ask: Ask) -> None:
    ledger = MemoryLedger()
    gate = gate_with(ledger)
    assert is_released(gate.release(ask("x"), make.means(50, 50)))
    assert ledger.entries[0].group is None
    assert is_released(gate.release(about(ask("y"), (2, 52)), make.means(50, 50)))


def test_groups_that_were_lost_bar_every_further_one(make: SimpleNamespace, ask: Ask) -> None:
    ledger = MemoryLedger()
    gate = gate_with(ledger)
    assert is_released(gate.release(about(ask("x"), (0, 50)), make.means(50, 50)))
    ledger.groups = Groups()
    assert gate.release(about(ask("y"), (5, 55)), make.means(50, 50)) == NESTED
    assert gate.release(about(ask("z"), (0, 50)), make.means(50, 50)) == NESTED
    # Of what is about no group, no group can tell.
    assert is_released(gate.release(ask("w"), make.means(50, 50)))


def test_a_group_that_was_told_of_is_no_news_under_a_stricter_policy(
    make: SimpleNamespace, ask: Ask
) -> None:
    ledger = MemoryLedger()
    gate = gate_with(ledger)
    # The two groups differ by five and five: ten, which is few where eleven are not.
    for name, start in (("x", 0), ("y", 5)):
        asked = about(ask(name), (start, start + 50))
        assert is_released(gate.release(asked, make.means(50, 50)))
    cms = gate_with(ledger, load_policy("cms"))
    assert is_released(cms.release(about(ask("z"), (0, 50)), make.means(50, 50)))
    assert cms.release(about(ask("w"), (60, 110)), make.means(50, 50)) == NESTED


def test_counts_of_groups_are_added_whatever_they_differ_by(
    make: SimpleNamespace, ask: Ask
) -> None:
    gate = gate_with()
    for name, n in (("x", 50), ("y", 49)):
        table = make.table(((20, 10), (10, n - 40)))
        asked = about(ask(name), (0, n))
        assert isinstance(gate.contribute(asked, table, T), Contribution)


def test_a_sum_tells_of_its_sites_share_of_k(make: SimpleNamespace, ask: Ask) -> None:
    # Of k = 5, three sites need two each.
    for fewer, is_answered in ((1, False), (2, True)):
        gate = gate_with()
        for name, n in (("x", 50), ("y", 50 - fewer)):
            answer = gate.contribute(about(ask(name), (0, n)), make.means(n, n), T)
        assert isinstance(answer, Contribution) is is_answered
        assert is_answered or answer == NESTED


# --- other cohorts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("analysis", "scores", "shape", "n", "is_answered"),
    [
        ("x", "scores", "means", 99, False),
        ("x", "scores", "means", 96, False),
        ("x", "scores", "means", 95, True),
        ("x", "scores", "means", 105, True),
        ("x", "scores", "means", 100, False),  # as many, and perhaps others
        # The same shape about the same scores, for another analysis; nothing of that.
        ("y", "scores", "means", 99, False),
        ("y", "other", "means", 99, True),
        ("y", "scores", "table", 99, True),
        ("y", "other", "table", 99, True),
        # The same analysis is alike, whatever it is about.
        ("x", "other", "table", 99, False),
    ],
)
def test_cohorts_of_almost_the_same_size(
    make: SimpleNamespace,
    ask: Ask,
    analysis: str,
    scores: str,
    shape: str,
    n: int,
    is_answered: bool,
) -> None:
    gate = gate_with()
    assert is_released(gate.release(ask("x"), make.means(100, 100)))
    given = make.means(n, n) if shape == "means" else make.table(((n - 60, 20), (20, 20)))
    answer = gate.release(ask(analysis, cohort="other", scores=scores), given)
    assert is_released(answer) is is_answered
    assert is_answered or answer == NESTED


def test_flows_of_two_cohorts_are_alike(make: SimpleNamespace, ask: Ask) -> None:
    gate = gate_with()
    assert is_released(gate.release(flow_question(ask), make.flow((100,) * 5)))
    other = replace(flow_question(ask), cohort_digest=digest_of("other"), cohort_size=100)
    assert gate.release(other, make.flow((100,) * 5)) == NESTED


def test_as_many_patients_of_another_cohort_are_no_flow(make: SimpleNamespace, ask: Ask) -> None:
    gate = gate_with()
    assert is_released(gate.release(ask("x"), make.means(100, 100)))
    # As large as its cohort: the same hundred, or all but one and another.
    alike = replace(ask("x", cohort="other"), cohort_size=100)
    assert gate.release(alike, make.means(100, 100)) == NESTED
    unlike = replace(ask("y", cohort="other"), cohort_size=100)
    assert is_released(gate.release(unlike, make.table(((38, 10), (10, 40)))))


def flow_question(ask: Ask, protocol: str = "protocol") -> Question:
    return replace(ask(FLOW, cohort="flow"), protocol_digest=digest_of(protocol))


@pytest.mark.parametrize(
    ("n", "cohort_size", "is_answered"),
    [(98, 100, False), (100, 100, True), (95, 100, True), (98, 98, True)],
)
def test_the_flow_tells_the_number_of_all_patients_of_its_cohort(
    make: SimpleNamespace, ask: Ask, n: int, cohort_size: int, is_answered: bool
) -> None:
    flow, means = make.flow((100,) * 5), make.means(n, n)
    gate = gate_with()
    assert is_released(gate.release(flow_question(ask), flow))
    asked = replace(ask("x"), cohort_size=cohort_size)
    assert is_released(gate.release(asked, means)) is is_answered


@pytest.mark.parametrize(
    ("n", "protocol", "is_answered"),
    [
        (98, "protocol", False),
        (98, "another", True),
        (100, "protocol", True),
        (95, "protocol", True),
    ],
)
def test_a_flow_after_the_answers(
    make: SimpleNamespace, ask: Ask, n: int, protocol: str, is_answered: bool
) -> None:
    gate = gate_with()
    assert is_released(gate.release(ask("x"), make.means(n, n)))
    answer = gate.release(flow_question(ask, protocol), make.flow((100,) * 5))
    assert is_released(answer) is is_answered


# --- events ---------------------------------------------------------------------------------


def totals(n_events: int | None) -> AucTotals:
    return AucTotals(
        n_patients=100,
        n_events=n_events,
        values=((1.0, 2.0),),
        evidence=Evidence(smallest_group=50),
    )


def curve(n_events: int, *, is_shown: bool = True) -> KaplanMeierTable:
    """Return a life table of 100 patients; a second group of four hides the number of events."""
    sizes = (100,) if is_shown else (96, 4)
    rest = (0,) * (len(sizes) - 1)
    return KaplanMeierTable(
        n_patients=100,
        edges=((0, 1),) * len(sizes),
        at_risk=tuple((n,) for n in sizes),
        events=tuple((n,) for n in (n_events, *rest)),
        censored=tuple((n,) for n in (10, *rest)),
        n_events=n_events,
    )


def test_other_sorts_of_events_are_not_compared(make: SimpleNamespace, ask: Ask) -> None:
    assert not AucTotals.has_endpoint
    assert KaplanMeierTable.has_endpoint
    for events, is_answered in ((30, True), (33, True), (36, True)):
        gate = gate_with()
        assert is_released(gate.release(ask("curve"), curve(30)))
        assert is_released(gate.release(ask("auc"), totals(events))) is is_answered
    gate = gate_with()
    assert is_released(gate.release(ask("one"), totals(30)))
    assert gate.release(ask("two"), totals(33)) == NESTED


def test_a_withheld_number_of_events_is_compared_with_nothing(ask: Ask) -> None:
    gate = gate_with()
    hidden = gate.release(ask("one", categories="one"), curve(30, is_shown=False))
    assert isinstance(hidden, Release)
    assert hidden.payload["n_events"] == "suppressed"
    # Nor a sum of patients without an event.
    assert is_released(gate.release(ask("two", query=1), totals(None)))
    assert is_released(gate.release(ask("three", query=2), totals(50)))


def test_an_answer_of_a_kind_that_is_gone_is_compared_by_its_numbers(
    make: SimpleNamespace, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = gate_with()
    assert is_released(gate.release(ask("terms"), make.terms(n=100, n_events=33)))
    monkeypatch.delitem(base._REGISTRY, "gate_test_likelihood")
    # Nobody knows any more what its events are; its patients are counted.
    assert is_released(gate.release(ask("curve"), curve(30)))
    assert gate.release(ask("means"), make.means(97, 97)) == NESTED


# --- two tables -----------------------------------------------------------------------------


def payload(*rows: list[Any]) -> dict[str, Any]:
    shown = [[n if isinstance(n, int) else 0 for n in row] for row in rows]
    return {
        "n_patients": sum(map(sum, shown)),
        "matrix": list(rows),
        "two_by_two": [],
        "kept_cut_offs": [],
        "collapsed": [],
    }


def test_a_table_that_withholds_stands_beside_no_other_in_either_order() -> None:
    whole, hidden = payload([40, 10], [10, 40]), payload([20, "suppressed"], [5, 20])
    assert not are_compatible(whole, hidden, RESEARCH)
    assert not are_compatible(hidden, whole, RESEARCH)


@pytest.mark.parametrize(
    ("other", "may"),
    [
        (payload([35, 5], [5, 35]), True),
        (payload([36, 5], [5, 35]), False),
        # Nobody in a cell of the rest: a small number as well.
        (payload([40, 5], [5, 35]), False),
        # One more than the first has: no part of it, whatever else differs.
        (payload([41, 8], [8, 2]), True),
        # As many patients: one of the two is sorted otherwise.
        (payload([41, 9], [10, 40]), False),
    ],
)
def test_a_table_beside_a_part_of_it(other: dict[str, Any], may: bool) -> None:
    one = payload([40, 10], [10, 40])
    assert are_compatible(one, other, RESEARCH) is may
    assert are_compatible(other, one, RESEARCH) is may


PAIR: dict[str, Any] = {
    "scores_digest": digest_of(["index", "reference"]),
    "columns": ("index", "reference"),
}


def test_scores_that_are_not_known_share_nothing(make: SimpleNamespace, ask: Ask) -> None:
    for first, second in (({}, PAIR), (PAIR, {})):
        gate = gate_with()
        assert is_released(gate.release(replace(ask("x"), **first), make.table(TABLE)))
        asked = replace(ask("y", categories="other"), **second)
        assert is_released(gate.release(asked, make.table(TABLE)))


@pytest.mark.parametrize("other", [{}, {"cohort": "other"}, {"scores": "other"}])
def test_a_table_after_classes_of_its_own_scores(
    make: SimpleNamespace, ask: Ask, other: dict[str, str]
) -> None:
    gate = gate_with()
    classes = ClassHistogram(n_patients=200, starts=(((0,), (0,)),), counts=(((104,), (96,)),))
    assert is_released(gate.release(ask("classes"), classes))
    # The table withholds how many are positive, which the classes of these scores tell.
    table = make.table(((98, 2), (20, 80)))
    answer = gate.release(ask("table", columns=("age",), **other), table)
    assert is_released(answer) is bool(other)


# --- the budget -----------------------------------------------------------------------------


def test_a_diagonal_of_zeros_is_counted() -> None:
    zero, one = 0.0, 1.5
    likelihood = {"gradient": [one, one], "information": [[zero, zero], [zero, one]]}
    assert numbers_released(likelihood) == 1 + 2 + 2


def test_an_answer_about_no_column_counts_one(make: SimpleNamespace, ask: Ask) -> None:
    for n, is_answered in ((109, False), (110, True)):
        answer = gate_with().release(ask("model", columns=()), make.terms(n=n))
        assert is_released(answer) is is_answered


@pytest.mark.parametrize(
    ("round_id", "exchange", "is_running"),
    [
        ("round-1", 1, True),
        ("round-1", 2, True),
        # It was not asked in exchange 2, so it has ended.
        ("round-1", 3, False),
        ("round-2", 1, False),
    ],
)
def test_what_a_fit_still_needs_is_kept_for_it(
    make: SimpleNamespace, ask: Ask, round_id: str, exchange: int, is_running: bool
) -> None:
    columns = ("age",)
    # 6 numbers told, 30 kept for the first fit; 36 for the second one: 72 or 42 of 0.33 n.
    for n, is_answered in ((120, False), (130, not is_running), (215, not is_running), (219, True)):
        gate = gate_with()
        first = gate.release(ask("one", columns=columns), make.terms(n=n))
        assert is_released(first)
        asked = ask("two", columns=columns, round_id=round_id, exchange=exchange)
        answer = gate.release(asked, make.terms(n=n))
        assert is_released(answer) is is_answered, n


def test_a_fit_runs_as_long_as_it_asks(make: SimpleNamespace, ask: Ask) -> None:
    columns = ("age",)
    # It asked in exchanges 1 and 2: 12 numbers told, 24 kept for it, and 36 for the second.
    for n, is_answered in ((218, False), (219, True)):
        gate = gate_with()
        for step in (1, 2):
            asked = ask("one", query=step, columns=columns, exchange=step)
            assert is_released(gate.release(asked, make.terms(n=n)))
        other = ask("two", columns=columns, exchange=3)
        assert is_released(gate.release(other, make.terms(n=n))) is is_answered


def test_a_fit_that_takes_longer_gives_nothing_back(make: SimpleNamespace, ask: Ask) -> None:
    columns, n_answers = ("age",), EXPECTED_ANSWERS + 2
    # Eight answers of six numbers, then a fit that needs six: 84 numbers of 0.33 n.
    for n, is_answered in ((254, False), (255, True)):
        gate = gate_with()
        for step in range(n_answers):
            asked = ask("one", query=step, columns=columns, exchange=step + 1)
            assert is_released(gate.release(asked, make.terms(n=n)))
        other = ask("two", columns=columns, exchange=n_answers)
        assert is_released(gate.release(other, make.terms(n=n))) is is_answered


def test_a_repeated_answer_is_charged_once(make: SimpleNamespace, ask: Ask) -> None:
    columns = ("age",)
    for n, is_answered in ((218, False), (219, True)):
        gate = gate_with()
        for exchange in range(1, 9):
            asked = ask("one", columns=columns, exchange=exchange)
            assert is_released(gate.release(asked, make.terms(n=n)))
        other = ask("two", columns=columns, exchange=1)
        assert is_released(gate.release(other, make.terms(n=n))) is is_answered


def test_the_last_exchange_is_answered_and_no_further_one(make: SimpleNamespace, ask: Ask) -> None:
    gate = gate_with(policy=custom(maximum_exchanges=2, budget_share=1.0))
    answers = [gate.release(ask("one", query=i), make.terms(n=900)) for i in range(3)]
    assert [is_released(answer) for answer in answers] == [True, True, False]
    assert answers[2] == Refusal(RefusalCode.TOO_MANY_EXCHANGES)
    elsewhere = ask("one", query=2, cohort="elsewhere")
    assert is_released(gate.release(elsewhere, make.terms(n=1900)))


def test_what_is_given_once_is_given_once_for_each_analysis_and_cohort(
    make: SimpleNamespace, ask: Ask
) -> None:
    def sums(n: int) -> PairSums:
        seen = Evidence(smallest_group=50, row_groups=(50,))
        return PairSums(n_patients=n, n_events=None, values=((1.0, 2.0),), evidence=seen)

    gate = gate_with()
    # Another kind of the same analysis came before.
    assert is_released(gate.release(ask("x", query="means"), make.means(100, 100)))
    assert is_released(gate.release(ask("x"), sums(100)))
    assert is_released(gate.release(ask("y"), sums(100)))
    assert is_released(gate.release(ask("x", cohort="elsewhere"), sums(200)))
    again = gate.release(ask("x", query="another"), sums(100))
    assert again == Refusal(RefusalCode.TOO_MANY_EXCHANGES)


# --- under open -----------------------------------------------------------------------------


def test_an_open_table_is_not_withheld_beside_one_that_was_not_open(
    make: SimpleNamespace, ask: Ask
) -> None:
    ledger = MemoryLedger()
    table = gate_with(ledger).release(
        replace(ask("table"), **PAIR), make.table(((48, 2), (10, 40)))
    )
    assert isinstance(table, Release)
    assert "suppressed" in table.payload["matrix"][0]
    classes = ClassHistogram(n_patients=100, starts=(((0,), (0,)),), counts=(((52,), (48,)),))
    asked = replace(ask("classes"), **PAIR)
    open_gate = gate_with(ledger, load_policy("open"))
    answer = open_gate.release(asked, classes)
    assert isinstance(answer, Release)
    assert answer.payload["counts"] == [[[52], [48]]]
    # By the policy it is: 48 are no number of positives that the table told.
    judged = gate_with(ledger).release(replace(asked, query_digest=digest_of("again")), classes)
    assert isinstance(judged, Release)
    assert judged.payload["counts"] == [[[], []]]


def test_an_open_part_of_a_sum_is_compared_with_nothing(make: SimpleNamespace, ask: Ask) -> None:
    ledger = MemoryLedger()
    gate_with(ledger).contribute(ask("x"), make.means(100, 100), T)
    near = ask("x", cohort="one fewer")
    assert gate_with(ledger).contribute(near, make.means(99, 99), T) == NESTED
    open_gate = gate_with(ledger, load_policy("open"))
    assert isinstance(open_gate.contribute(near, make.means(100, 100), T), Contribution)
