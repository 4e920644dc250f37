from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedcac.statistics
from fedcac.aggregate import Evidence, LikelihoodTerms
from fedcac.aggregate.base import registered
from fedcac.disclosure import Gate, MemoryLedger, Policy, Question, Refusal, Release, load_policy
from fedcac.disclosure.rules import apply_rule, check_consistency, rule_shape
from fedcac.errors import GateError
from fedcac.statistics.association import ScoreMoments
from fedcac.statistics.auc import AucTotals
from fedcac.statistics.calibration import CalibrationTerms
from fedcac.statistics.descriptives import CharacteristicMoments
from fedcac.statistics.fusion import FusionTerms
from fedcac.statistics.survival_calibration import SlopeTerms
from fedcac.statistics.zip_regression import ZipTerms
from fedcac.vocabulary import CellStatus, RefusalCode

RESEARCH, CMS, OPEN = (load_policy(name) for name in ("research", "cms", "open"))
Ask = Callable[..., Question]


def _payload(aggregate: Any, policy: Policy = RESEARCH) -> dict[str, Any]:
    check_consistency(aggregate)
    released = apply_rule(aggregate, policy)
    assert not isinstance(released, RefusalCode)
    return released.to_payload()


def _refused(aggregate: Any, policy: Policy = RESEARCH) -> RefusalCode | None:
    check_consistency(aggregate)
    answer = apply_rule(aggregate, policy)
    return answer if isinstance(answer, RefusalCode) else None


def test_every_registered_kind_has_one_rule() -> None:
    # An estimator's kinds are registered with it.
    expected = {
        aggregate_type
        for estimator in fedcac.statistics.registered_estimators().values()
        for aggregate_type in estimator.aggregate_types
    }
    assert expected <= set(registered().values())
    for kind, aggregate_type in registered().items():
        assert aggregate_type.kind == kind
        assert rule_shape(aggregate_type) is not None, kind


# --- moments --------------------------------------------------------------------------------

_PAIR_PARTS = ("mean_x", "mean_y", "m2_x", "m2_y", "cross")


def _pairs(n_patients: int, *n: int, **changes: Any) -> ScoreMoments:
    values = {"mean_x": 1.5, "mean_y": 2.5, "m2_x": 400.0, "m2_y": 900.0, "cross": 599.123456789012}
    parts = {name: (value,) * len(n) for name, value in values.items()} | changes
    return ScoreMoments(n_patients=n_patients, n=n, **parts)


def _means(n_patients: int, *n: int) -> CharacteristicMoments:
    return CharacteristicMoments(
        n_patients=n_patients, n=n, mean=(1.5,) * len(n), m2=(400.0,) * len(n)
    )


@pytest.mark.parametrize(
    ("n", "shown"),
    [
        ((100, 95), [100, 95]),
        ((100, 96), [100, "suppressed"]),
        ((100, 19), [100, "suppressed"]),
        ((0, 100), ["suppressed", 100]),
        ((90, 89, 85), [90, "suppressed", 85]),
    ],
)
def test_terms_whose_denominators_tell_are_suppressed(n: tuple[int, ...], shown: list[Any]) -> None:
    pairs, single = _payload(_pairs(100, *n)), _payload(_means(100, *n))
    assert pairs["n"] == single["n"] == shown
    hidden = [cell == "suppressed" for cell in shown]
    parts = [pairs[name] for name in _PAIR_PARTS] + [single["mean"], single["m2"]]
    for part in parts:
        assert [cell == "suppressed" for cell in part] == hidden
    open_ = _payload(_pairs(100, *n), OPEN)
    assert (open_["n"], open_["mean_x"]) == (list(n), [1.5] * len(n))


@settings(max_examples=150, deadline=None)
@given(
    n_patients=st.integers(20, 60),
    missing=st.lists(st.integers(0, 60), min_size=1, max_size=6),
    policy=st.sampled_from([RESEARCH, CMS]),
)
def test_no_shown_denominators_differ_by_few(
    n_patients: int, missing: list[int], policy: Policy
) -> None:
    n = tuple(max(n_patients - gap, 0) for gap in missing)
    documents = [_payload(aggregate(n_patients, *n), policy) for aggregate in (_means, _pairs)]
    assert documents[0]["n"] == documents[1]["n"]
    shown = [count for count in documents[0]["n"] if count != "suppressed"]
    assert all(count >= policy.minimum_patients for count in shown)
    known = [n_patients, *shown]
    assert all(a == b or abs(a - b) >= policy.minimum_cell for a in known for b in known)


def test_paired_moments_leave_rounded() -> None:
    coarse = Policy.model_validate(
        {**RESEARCH.model_dump(), "profile": "custom", "significant_digits": 3}
    )
    assert _payload(_pairs(100, 100), coarse)["cross"] == [599.0]


@pytest.mark.parametrize(
    "wrong",
    [
        _pairs(100, 101),
        _pairs(100, 100, cross=(601.0,)),  # more than Cauchy and Schwarz allow
        _pairs(100, 100, m2_x=(-1.0,), cross=(0.0,)),
        _pairs(100, 100, mean_y=(CellStatus.SUPPRESSED,)),
        _means(100, 101),
    ],
)
def test_impossible_moments_do_not_enter(wrong: Any, ask: Ask) -> None:
    with pytest.raises(GateError) as caught:
        Gate(RESEARCH, MemoryLedger()).release(ask(), wrong)
    assert caught.value.code == "gate.inconsistent_aggregate"


# --- totals ---------------------------------------------------------------------------------


def _totals(
    *groups: int,
    n: int = 100,
    n_events: int | None = None,
    smallest: int | None = None,
    norm: float = 0.0,
    width: int = 2,
) -> AucTotals:
    return AucTotals(
        n_patients=n,
        n_events=n_events,
        values=tuple((1.23456789012345,) * width for _ in groups or (0,)),
        evidence=Evidence(
            smallest_group=max(groups, default=50) if smallest is None else smallest,
            row_groups=groups,
            parameter_norm=norm,
        ),
    )


@pytest.mark.parametrize(
    ("groups", "policy", "is_shown"),
    [
        ((40, 4, 5), RESEARCH, [True, False, True]),
        ((40, 0, 5), RESEARCH, [True, False, True]),
        ((40, 10, 11), CMS, [True, False, True]),
        ((40, 0, 1), OPEN, [True, True, True]),
    ],
)
def test_rows_of_small_groups_are_emptied(
    groups: tuple[int, ...], policy: Policy, is_shown: list[bool]
) -> None:
    document = _payload(_totals(*groups), policy)
    assert [bool(row) for row in document["values"]] == is_shown
    assert all(len(row) in (0, 2) for row in document["values"])
    assert document["n_patients"] == 100


@settings(max_examples=100, deadline=None)
@given(
    groups=st.lists(st.integers(0, 30), min_size=1, max_size=8),
    policy=st.sampled_from([RESEARCH, CMS]),
)
def test_exactly_the_rows_of_large_groups_leave(groups: list[int], policy: Policy) -> None:
    least = policy.cox.minimum_per_category
    totals = _totals(*groups)
    if max(groups) < least:
        assert _refused(totals, policy) is RefusalCode.TOO_FEW_PER_CATEGORY
    else:
        rows = _payload(totals, policy)["values"]
        assert [bool(row) for row in rows] == [group >= least for group in groups]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"n": 19}, RefusalCode.TOO_FEW_PATIENTS),
        ({"n_events": 9}, RefusalCode.TOO_FEW_EVENTS),
        ({"n_events": 0}, RefusalCode.TOO_FEW_EVENTS),
        ({"n_events": 96}, RefusalCode.TOO_FEW_EVENTS),  # four without the event
        ({"n_events": 100}, RefusalCode.TOO_FEW_EVENTS),
        ({"smallest": 4}, RefusalCode.TOO_FEW_PER_CATEGORY),
        ({"norm": 3.01}, RefusalCode.PARAMETERS_OUT_OF_BOUNDS),
        ({"norm": float("nan")}, RefusalCode.PARAMETERS_OUT_OF_BOUNDS),
        ({}, None),
        ({"n_events": 10}, None),
        ({"n_events": 95}, None),
        ({"smallest": 5}, None),
        ({"norm": 3.0}, None),
    ],
)
def test_limits_of_totals(arguments: dict[str, Any], code: RefusalCode | None) -> None:
    assert _refused(_totals(**arguments)) is code
    assert _refused(_totals(**arguments), OPEN) is None


def test_totals_leave_rounded_and_without_evidence() -> None:
    document = _payload(_totals())
    assert document["values"] == [[1.23456789012, 1.23456789012]]
    assert "evidence" not in document


@pytest.mark.parametrize(
    "wrong",
    [
        {"evidence": None},
        {"evidence": Evidence()},
        {"evidence": Evidence(smallest_group=50, row_groups=(50, 50))},
        {"values": ((),)},  # suppressed before the gate
        {"n_events": 101},
    ],
)
def test_totals_without_evidence_do_not_enter(wrong: dict[str, Any], ask: Ask) -> None:
    with pytest.raises(GateError) as caught:
        Gate(RESEARCH, MemoryLedger()).release(ask(), _totals(50).model_copy(update=wrong))
    assert caught.value.code == "gate.inconsistent_aggregate"


ONE = ("score",)


def test_totals_are_charged_until_the_budget_is_spent(ask: Ask) -> None:
    # Eight numbers each time, of 0.33 x 100 patients x 1 column: four answers, not five.
    gate = Gate(RESEARCH, MemoryLedger())
    answers = [
        gate.release(ask("auc", query=number, columns=ONE), _totals(50, 50, 50, 50, n_events=40))
        for number in range(5)
    ]
    assert all(isinstance(answer, Release) for answer in answers[:4])
    assert answers[4] == Refusal(RefusalCode.BUDGET_SPENT)
    # Asking again is free, another analysis of the same patients is not.
    again = ask("auc", query=1, exchange=7, columns=ONE)
    assert gate.release(again, _totals(n_events=40)) == answers[1]
    assert gate.release(ask("other", columns=ONE), _totals(50, n_events=40)) == answers[4]
    elsewhere = ask("other", cohort="elsewhere", columns=ONE)
    assert isinstance(gate.release(elsewhere, _totals(50, n=140, n_events=40)), Release)


def test_another_column_is_more_that_is_unknown(ask: Ask) -> None:
    gate = Gate(RESEARCH, MemoryLedger())
    wide = _totals(50, n_events=40, width=33)
    assert isinstance(gate.release(ask("auc", columns=ONE), wide), Release)
    refused = Refusal(RefusalCode.BUDGET_SPENT)
    assert gate.release(ask("auc", query=1, columns=ONE), wide) == refused
    other = ask("other", columns=("score", "age"))
    assert isinstance(gate.release(other, wide), Release)


def test_emptied_rows_cost_nothing(ask: Ask) -> None:
    gate = Gate(RESEARCH, MemoryLedger())
    answers = [
        gate.release(
            ask("auc", query=number, columns=ONE), _totals(50, 1, 1, 1, n_events=40, width=8)
        )
        for number in range(5)
    ]
    assert all(isinstance(answer, Release) for answer in answers[:4])
    assert answers[4] == Refusal(RefusalCode.BUDGET_SPENT)


def test_a_fit_that_began_keeps_what_it_needs_to_end(ask: Ask) -> None:
    # 3 numbers an answer, six answers kept: of the 33 numbers allowed 15 remain for others.
    gate = Gate(RESEARCH, MemoryLedger())
    refused = Refusal(RefusalCode.BUDGET_SPENT)

    def slope(number: int) -> Release | Refusal:
        return gate.release(
            ask("slope", query=number, exchange=number, columns=ONE), _terms(SlopeTerms, n=100)
        )

    assert isinstance(slope(1), Release)
    others = ask("totals", exchange=2, columns=ONE)
    assert gate.release(others, _totals(50, n_events=40, width=16)) == refused
    assert isinstance(gate.release(others, _totals(50, n_events=40, width=15)), Release)
    assert all(isinstance(slope(number), Release) for number in range(2, 7))
    assert slope(7) == refused


def test_a_fit_that_asks_no_more_keeps_nothing(ask: Ask) -> None:
    gate = Gate(RESEARCH, MemoryLedger())
    first = gate.release(ask("slope", exchange=1, columns=ONE), _terms(SlopeTerms, n=100))
    assert isinstance(first, Release)
    later = ask("totals", exchange=3, columns=ONE)
    assert isinstance(gate.release(later, _totals(50, n_events=40, width=30)), Release)


def test_totals_are_answered_at_so_many_queries(ask: Ask) -> None:
    gate = Gate(RESEARCH, MemoryLedger())
    answers = [
        gate.release(
            ask("auc", query=number, round_id=f"round-{number}"), _totals(n=3000, n_events=40)
        )
        for number in range(16)
    ]
    assert all(isinstance(answer, Release) for answer in answers[:15])
    assert answers[15] == Refusal(RefusalCode.TOO_MANY_EXCHANGES)


# --- likelihoods of other models ------------------------------------------------------------


def _terms(
    kind: type[LikelihoodTerms],
    n: int = 200,
    n_events: int = 50,
    p: int = 1,
    group: int | None = None,
    norm: float = 0.0,
) -> LikelihoodTerms:
    return kind(
        n_patients=n,
        n_events=n_events,
        log_likelihood=-123.45678901234567,
        gradient=(0.1,) * p,
        information=tuple(tuple(float(i == j) for j in range(p)) for i in range(p)),
        evidence=Evidence(n_parameters=p, smallest_group=group, parameter_norm=norm),
    )


@pytest.mark.parametrize("kind", [ZipTerms, FusionTerms, CalibrationTerms, SlopeTerms])
def test_other_likelihoods_are_judged_as_coxs(kind: type[LikelihoodTerms]) -> None:
    for arguments, code in (
        ({"n": 19, "n_events": 10}, RefusalCode.TOO_FEW_PATIENTS),
        ({"n_events": 9}, RefusalCode.TOO_FEW_EVENTS),
        ({"n_events": 196}, RefusalCode.TOO_FEW_EVENTS),
        ({"group": 4}, RefusalCode.TOO_FEW_PER_CATEGORY),
        ({"p": 21}, RefusalCode.TOO_MANY_PARAMETERS),
        ({"norm": 3.01}, RefusalCode.PARAMETERS_OUT_OF_BOUNDS),
        ({"n_events": 10, "group": 5, "p": 20, "norm": 3.0}, None),
    ):
        assert _refused(_terms(kind, **arguments)) is code
        assert _refused(_terms(kind, **arguments), OPEN) is None
    assert _payload(_terms(kind))["log_likelihood"] == -123.456789012
    bare = _terms(kind).model_copy(update={"evidence": None})
    with pytest.raises(GateError):
        check_consistency(bare)


def test_zeros_between_models_side_by_side_are_not_charged(ask: Ask) -> None:
    # Two models of one parameter: a value, two gradients, two informations. 0.33 x 100 x 2 = 66.
    gate = Gate(RESEARCH, MemoryLedger())
    answers = [
        gate.release(
            ask("fusion", query=number, columns=("age", "sex")),
            _terms(FusionTerms, n=100, n_events=50, p=2),
        )
        for number in range(14)
    ]
    assert all(isinstance(answer, Release) for answer in answers[:13])
    assert answers[13] == Refusal(RefusalCode.BUDGET_SPENT)


# --- rows and terms beside one another ------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "blocks", "is_shown"),
    [
        ((40, 30, 1, 60), (0, 0, 0, -1), [True, False, False, True]),
        ((40, 30, 3, 3), (0, 0, 0, 0), [True, True, False, False]),  # six together
        ((40, 30, 0, 9), (0, 0, 1, 1), [True, True, False, False]),
        ((40, 30, 1, 60), (), [True, True, False, True]),
        ((4, 30, 1, 60), (0, 0, 0, -1), [False, True, False, True]),
    ],
)
def test_emptied_parts_of_a_known_sum_are_enough_together(
    groups: tuple[int, ...], blocks: tuple[int, ...], is_shown: list[bool]
) -> None:
    totals = _totals(*groups)
    evidence = totals.evidence
    assert evidence is not None
    seen = evidence.model_copy(update={"row_blocks": blocks})
    rows = _payload(totals.model_copy(update={"evidence": seen}))["values"]
    assert [bool(row) for row in rows] == is_shown


@pytest.mark.parametrize(
    ("nested", "is_shown"),
    [
        ((50, 50, 47), [True, True, False]),
        ((50, 47, 45), [True, False, True]),
        ((50, 45, 40), [True, True, True]),
    ],
)
def test_rows_yield_to_rows_of_nearly_the_same_patients(
    nested: tuple[int, ...], is_shown: list[bool]
) -> None:
    totals = _totals(40, 40, 40)
    assert totals.evidence is not None
    seen = totals.evidence.model_copy(update={"nested": tuple((n,) for n in nested)})
    rows = _payload(totals.model_copy(update={"evidence": seen}))["values"]
    assert [bool(row) for row in rows] == is_shown


@pytest.mark.parametrize(
    ("n", "sizes", "is_shown"),
    [
        ((50, 47), (50, 47), [True, True]),
        ((50, 45, 48, 45), (50, 47), [True, False, False, False]),
        ((50, 47, 50, 40), (50, 47), [True, True, True, True]),
        ((50, 47, 3), (50, 47, 3), [True, False, False]),
        ((50, 38, 12), (50, 38, 12), [True, True, False]),
    ],
)
def test_terms_of_different_patients_are_compared_within_their_group(
    n: tuple[int, ...], sizes: tuple[int, ...], is_shown: list[bool]
) -> None:
    seen = Evidence(row_blocks=tuple(range(len(sizes))) * (len(n) // len(sizes)), block_sizes=sizes)
    means = _means(sum(sizes), *n).model_copy(update={"evidence": seen})
    assert [count != "suppressed" for count in _payload(means)["n"]] == is_shown


@pytest.mark.parametrize("blocks", [(0, 0), (1, 0), (0,), ()])
def test_blocks_of_terms_run_in_their_order(blocks: tuple[int, ...]) -> None:
    wrong = _means(100, 50, 50).model_copy(
        update={"evidence": Evidence(row_blocks=blocks, block_sizes=(50, 50))}
    )
    with pytest.raises(GateError):
        check_consistency(wrong)
