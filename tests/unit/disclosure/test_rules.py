from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from fedcac.aggregate import Aggregate, Moments
from fedcac.disclosure import Policy, load_policy
from fedcac.disclosure.rules import apply_rule, check_consistency, round_to_digits, rule_shape
from fedcac.errors import GateError
from fedcac.vocabulary import CellStatus, RefusalCode

RESEARCH = load_policy("research")
OPEN = load_policy("open")


def _payload(aggregate: Aggregate, policy: Policy = RESEARCH) -> dict[str, Any]:
    released = apply_rule(aggregate, policy)
    assert not isinstance(released, RefusalCode)
    return released.to_payload()


# --- every shape ----------------------------------------------------------------------------


def test_every_shape_is_refused_below_the_minimum_of_patients(make: SimpleNamespace) -> None:
    few = (
        make.table(((10, 9),) * 1 + ((0, 0),)),
        make.means(19, 19),
        make.terms(n=19, n_events=10, p=1),
        make.flow((19, 19, 19, 19, 19)),
    )
    for aggregate in few:
        assert aggregate.n_patients == 19
        assert apply_rule(aggregate, RESEARCH) is RefusalCode.TOO_FEW_PATIENTS
        assert not isinstance(apply_rule(aggregate, OPEN), RefusalCode)


def test_evidence_never_remains(make: SimpleNamespace) -> None:
    for policy in (RESEARCH, OPEN):
        released = apply_rule(make.terms(), policy)
        assert not isinstance(released, RefusalCode)
        assert released.evidence is None


def test_a_type_with_an_undeclared_field_has_no_rule() -> None:
    class Talkative(Moments):
        kind: ClassVar[str] = "talkative"
        note: float = 0.0

    class Shapeless(Aggregate):
        kind: ClassVar[str] = "shapeless"

    assert rule_shape(Talkative) is None
    assert rule_shape(Shapeless) is None
    assert rule_shape(Moments) is Moments


@pytest.mark.parametrize(
    ("number", "digits", "expected"),
    [(123456.789, 4, 123500.0), (-0.00123456, 3, -0.00123), (0.0, 5, 0.0), (2.0, 12, 2.0)],
)
def test_rounding_keeps_significant_digits(number: float, digits: int, expected: float) -> None:
    assert round_to_digits(number, digits) == expected


# --- moments --------------------------------------------------------------------------------


def test_moments_leave_rounded(make: SimpleNamespace) -> None:
    coarse = Policy.model_validate(
        {**RESEARCH.model_dump(), "profile": "custom", "significant_digits": 3}
    )
    document = _payload(make.means(100, 100), coarse)
    assert (document["n"], document["mean"], document["m2"]) == ([100], [1.23], [98.8])


@pytest.mark.parametrize(
    ("n", "shown"),
    [
        ((100, 95), [100, 95]),  # a difference of exactly k may be seen
        ((100, 96), [100, "suppressed"]),  # four patients lack the second score
        ((100, 19), [100, "suppressed"]),  # too few
        ((90, 89, 85), [90, "suppressed", 85]),  # terms against one another
    ],
)
def test_terms_whose_denominators_tell_are_suppressed(
    make: SimpleNamespace, n: tuple[int, ...], shown: list[object]
) -> None:
    document = _payload(make.means(100, *n))
    assert document["n"] == shown
    hidden = [cell == "suppressed" for cell in shown]
    assert [cell == "suppressed" for cell in document["mean"]] == hidden
    assert [cell == "suppressed" for cell in document["m2"]] == hidden


# --- likelihood terms -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"n_events": 9}, RefusalCode.TOO_FEW_EVENTS),
        ({"n_events": 1}, RefusalCode.TOO_FEW_EVENTS),
        ({"n_events": 196}, RefusalCode.TOO_FEW_EVENTS),  # four without the event
        ({"n_events": 200}, RefusalCode.TOO_FEW_EVENTS),
        ({"smallest_group": 4}, RefusalCode.TOO_FEW_PER_CATEGORY),
        ({"smallest_group": 0}, RefusalCode.TOO_FEW_PER_CATEGORY),
        ({"p": 21}, RefusalCode.TOO_MANY_PARAMETERS),
        ({"norm": 3.01}, RefusalCode.PARAMETERS_OUT_OF_BOUNDS),
        ({"norm": -3.01}, RefusalCode.PARAMETERS_OUT_OF_BOUNDS),
        ({"norm": float("nan")}, RefusalCode.PARAMETERS_OUT_OF_BOUNDS),
    ],
)
def test_likelihood_limits(
    make: SimpleNamespace, arguments: dict[str, Any], code: RefusalCode
) -> None:
    assert apply_rule(make.terms(**arguments), RESEARCH) is code
    assert not isinstance(apply_rule(make.terms(**arguments), OPEN), RefusalCode)


@pytest.mark.parametrize(
    "arguments",
    [{"n_events": 10}, {"n_events": 195}, {"smallest_group": 5}, {"p": 20}, {"norm": 3.0}],
)
def test_likelihood_at_the_limit_leaves(make: SimpleNamespace, arguments: dict[str, Any]) -> None:
    assert _payload(make.terms(**arguments))["log_likelihood"] == -123.456789012


# --- flow counts ----------------------------------------------------------------------------


def test_a_flow_of_large_losses_and_zeros_leaves_whole(make: SimpleNamespace) -> None:
    flow = make.flow((120, 110, 110, 105, 105), sharp_kernel=10, inference_failed=5, localizer=0)
    document = _payload(flow)
    assert document["stages"] == {
        "listed": 120,
        "eligible": 110,
        "paired": 110,
        "scored": 105,
        "analysed": 105,
    }
    assert document["exclusions"] == {"sharp_kernel": 10, "inference_failed": 5, "localizer": 0}


def test_a_small_exclusion_takes_a_second_one_and_the_middle_stages(
    make: SimpleNamespace,
) -> None:
    flow = make.flow(
        (130, 118, 110, 110, 110), sharp_kernel=12, no_reference_exam=6, inference_failed=2
    )
    document = _payload(flow)
    assert document["exclusions"] == {
        "sharp_kernel": 12,
        "no_reference_exam": "suppressed",
        "inference_failed": "suppressed",
    }
    assert document["stages"] == {
        "listed": 130,
        "eligible": "suppressed",
        "paired": 110,
        "scored": 110,
        "analysed": 110,
    }


def test_small_exclusions_that_add_up_to_few_take_more(make: SimpleNamespace) -> None:
    flow = make.flow((116, 110, 110, 110, 102), sharp_kernel=10, localizer=2, mixed_series=2)
    exclusions = _payload(flow)["exclusions"]
    assert set(exclusions.values()) == {"suppressed"}


def test_a_lone_small_exclusion_takes_the_total(make: SimpleNamespace) -> None:
    document = _payload(make.flow((103, 103, 103, 103, 100), inference_failed=3))
    assert document["exclusions"] == {"inference_failed": "suppressed"}
    assert {v for k, v in document["stages"].items() if k != "analysed"} == {"suppressed"}
    assert document["stages"]["analysed"] == 100


def test_losses_without_a_reason_take_the_stages(make: SimpleNamespace) -> None:
    document = _payload(make.flow((112, 105, 105, 105, 100), sharp_kernel=10))
    assert {v for k, v in document["stages"].items() if k != "analysed"} == {"suppressed"}
    assert document["exclusions"] == {"sharp_kernel": 10}


def test_stages_that_differ_by_few_are_suppressed_without_any_reason(
    make: SimpleNamespace,
) -> None:
    # Seven patients lost in two steps of three and four; the steps would show as differences.
    document = _payload(make.flow((107, 103, 100, 100, 100), sharp_kernel=7))
    assert document["stages"]["eligible"] == "suppressed"
    assert document["stages"]["listed"] == 107


# --- consistency ----------------------------------------------------------------------------


def test_contradicting_numbers_are_an_error(make: SimpleNamespace) -> None:
    table = make.table(((20, 10), (10, 20)))
    moments, terms = make.means(50, 50), make.terms()
    flow = make.flow((50, 50, 50, 50, 50))
    for aggregate in (table, moments, terms, flow):
        check_consistency(aggregate)
    for wrong in (
        table.model_copy(update={"n_patients": 61}),
        table.model_copy(update={"two_by_two": ((20, 10, 10, 21),)}),
        table.model_copy(update={"matrix": ((CellStatus.SUPPRESSED, 10), (10, 20))}),
        table.model_copy(update={"kept_cut_offs": (0,), "collapsed": table.matrix}),
        moments.model_copy(update={"n": (51,)}),
        moments.model_copy(update={"m2": (-1.0,)}),
        terms.model_copy(update={"evidence": None}),
        terms.model_copy(update={"gradient": (0.0,), "information": ((1.0,),)}),
        terms.model_copy(update={"n_events": 201}),
        flow.model_copy(update={"n_patients": 49}),
        make.flow((50, 51, 50, 50, 50)),
    ):
        with pytest.raises(GateError) as caught:
            check_consistency(wrong)
        assert caught.value.code == "gate.inconsistent_aggregate"
