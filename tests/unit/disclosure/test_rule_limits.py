"""The rules of single shapes at their very limits: one patient more or fewer, and nobody at all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from fedcac.aggregate import Aggregate, Evidence, PairedMoments, Totals
from fedcac.disclosure import Policy, load_policy
from fedcac.disclosure.rules import apply_rule, check_consistency
from fedcac.errors import GateError
from fedcac.vocabulary import CellStatus, ExclusionReason, RefusalCode

RESEARCH = load_policy("research")
HIDDEN = CellStatus.SUPPRESSED
FIRST_OF_TWO = next(
    reason.value for reason in ExclusionReason if reason in ("inference_failed", "sharp_kernel")
)


def safe(aggregate: Aggregate, policy: Policy = RESEARCH) -> Any:
    check_consistency(aggregate)
    answer = apply_rule(aggregate, policy)
    assert not isinstance(answer, RefusalCode)
    return answer


def refusal(aggregate: Aggregate, policy: Policy = RESEARCH) -> RefusalCode | None:
    check_consistency(aggregate)
    answer = apply_rule(aggregate, policy)
    return answer if isinstance(answer, RefusalCode) else None


def is_impossible(aggregate: Aggregate) -> bool:
    try:
        check_consistency(aggregate)
    except GateError as error:
        return error.code == "gate.inconsistent_aggregate"
    return False


# --- the flow of patients -------------------------------------------------------------------


def listed(flow: Aggregate) -> bool:
    """Say whether the flow shows how many were listed, and so how many were lost."""
    stages = safe(flow).stages
    assert stages["analysed"] == flow.n_patients
    return stages["listed"] is not HIDDEN


@pytest.mark.parametrize(("lost", "is_shown"), [(1, False), (4, False), (5, True), (0, True)])
def test_few_lost_are_not_told_by_the_total(
    make: SimpleNamespace, lost: int, is_shown: bool
) -> None:
    # Reasons that are counted twice, a small and a large one: by themselves no bar to the total.
    assert listed(make.flow((100 + lost,) * 4 + (100,), sharp_kernel=12, localizer=2)) is is_shown


@pytest.mark.parametrize(
    ("unexplained", "is_shown"), [(0, True), (1, False), (4, False), (5, True)]
)
def test_few_lost_without_a_reason_are_not_told(
    make: SimpleNamespace, unexplained: int, is_shown: bool
) -> None:
    for sign in (1, -1):
        flow = make.flow((120,) * 4 + (100,), sharp_kernel=20 - sign * unexplained)
        assert listed(flow) is is_shown


def test_a_small_exclusion_that_nothing_covers_takes_the_total(make: SimpleNamespace) -> None:
    # Seven more were lost without a reason, which is no small number.
    assert not listed(make.flow((110,) * 4 + (100,), localizer=3))
    assert listed(make.flow((110,) * 4 + (100,), localizer=3, sharp_kernel=7))


def test_a_reason_that_nobody_had_covers_nothing(make: SimpleNamespace) -> None:
    flow = make.flow((112,) * 4 + (100,), localizer=2, mixed_series=0, sharp_kernel=10)
    assert safe(flow).exclusions == {
        "localizer": HIDDEN,
        "mixed_series": 0,
        "sharp_kernel": HIDDEN,
    }


@pytest.mark.parametrize(
    ("count", "cover", "hidden"),
    [
        # Five are no few; of the others the smallest is taken, but none more than needed.
        (5, {"sharp_kernel": 10}, set()),
        (4, {"sharp_kernel": 10, "mixed_series": 6}, {"localizer", "mixed_series"}),
        # One and four are five together: nothing else is taken.
        (1, {"mixed_series": 4, "sharp_kernel": 10}, {"localizer", "mixed_series"}),
        (1, {"mixed_series": 3, "sharp_kernel": 10}, {"localizer", "mixed_series", "sharp_kernel"}),
        # The smallest whatever it is called; of two as small the one that comes first in the flow.
        (4, {"inference_failed": 10, "sharp_kernel": 6}, {"localizer", "sharp_kernel"}),
        (4, {"inference_failed": 6, "sharp_kernel": 6}, {"localizer", FIRST_OF_TWO}),
        (4, {"inference_failed": 5, "sharp_kernel": 6}, {"localizer", "inference_failed"}),
    ],
)
def test_what_is_withheld_beside_a_small_exclusion(
    make: SimpleNamespace, count: int, cover: dict[str, int], hidden: set[str]
) -> None:
    lost = count + sum(cover.values())
    flow = make.flow((100 + lost,) * 4 + (100,), localizer=count, **cover)
    shown = safe(flow).exclusions
    assert {reason for reason, told in shown.items() if told is HIDDEN} == hidden


@pytest.mark.parametrize(("step", "is_shown"), [(1, False), (4, False), (5, True), (0, True)])
def test_stages_are_shown_where_none_or_enough_were_lost(
    make: SimpleNamespace, step: int, is_shown: bool
) -> None:
    flow = make.flow((120, 120, 100 + step, 100, 100), sharp_kernel=20)
    stages = safe(flow).stages
    assert (stages["paired"] is not HIDDEN) is is_shown
    assert stages["eligible"] == 120


def test_stages_are_compared_with_the_next_one_shown(make: SimpleNamespace) -> None:
    stages = safe(make.flow((120, 113, 110, 110, 100), sharp_kernel=20)).stages
    assert list(stages.values()) == [120, HIDDEN, 110, 110, 100]
    # Three and three are six: the first that is far enough from the last shown.
    stages = safe(make.flow((126, 106, 103, 100, 100), sharp_kernel=26)).stages
    assert list(stages.values()) == [126, 106, HIDDEN, 100, 100]


def test_which_flows_are_possible(make: SimpleNamespace) -> None:
    flow = make.flow((60, 58, 56, 54, 50))
    assert not is_impossible(flow)
    assert is_impossible(flow.model_copy(update={"n_patients": 54}))
    for stages in ((60, 61, 56, 54, 50), (60, 58, 59, 54, 50), (60, 58, 56, 57, 50)):
        assert is_impossible(make.flow(stages))
    hidden = {**flow.stages, "listed": HIDDEN}
    assert is_impossible(flow.model_copy(update={"stages": hidden}))
    assert is_impossible(flow.model_copy(update={"exclusions": {"localizer": HIDDEN}}))


# --- moments --------------------------------------------------------------------------------


class Pairs(PairedMoments):
    kind: ClassVar[str] = "limits_test_pairs"


PARTS = ("n", "mean_x", "mean_y", "m2_x", "m2_y", "cross")


def pairs(n: int = 60, x: float = 4.0, y: float = 9.0, xy: float = 6.0) -> Pairs:
    return Pairs(
        n_patients=60, n=(n,), mean_x=(1.0,), mean_y=(1.0,), m2_x=(x,), m2_y=(y,), cross=(xy,)
    )


@pytest.mark.parametrize(
    ("given", "is_possible"),
    [
        (pairs(), True),
        (pairs(xy=-6.0), True),
        (pairs(xy=6.001), False),
        (pairs(xy=-6.001), False),
        # Scores that are the same for all.
        (pairs(x=0.0, xy=0.0), True),
        (pairs(y=0.0, xy=0.0), True),
        (pairs(x=0.5, y=0.5, xy=0.5), True),
        (pairs(x=-1.0, y=-1.0, xy=0.0), False),
        (pairs(x=4.0, y=-1.0, xy=0.0), False),
        (pairs(x=-1.0, y=0.0, xy=0.0), False),
        (pairs(x=0.0, y=-1.0, xy=0.0), False),
        (pairs(n=61), False),
    ],
)
def test_which_paired_moments_are_possible(given: Pairs, is_possible: bool) -> None:
    assert is_impossible(given) is not is_possible


def test_every_term_has_to_be_possible(make: SimpleNamespace) -> None:
    two = {name: (*getattr(pairs(), name), *getattr(pairs(), name)) for name in PARTS}
    assert not is_impossible(pairs().model_copy(update=two))
    for name, wrong in (("cross", 6.001), ("n", 61), ("m2_x", -1.0)):
        changed = {**two, name: (two[name][0], wrong)}
        assert is_impossible(pairs().model_copy(update=changed))
    assert is_impossible(make.means(60, 60, 61))
    assert is_impossible(make.means(60, 60, 60).model_copy(update={"m2": (1.0, -1.0)}))


def test_evidence_without_blocks_is_that_of_one_block(make: SimpleNamespace) -> None:
    given = make.means(60, 60, 57).model_copy(update={"evidence": Evidence()})
    assert safe(given).n == (60, HIDDEN)
    assert is_impossible(given.model_copy(update={"evidence": Evidence(row_blocks=(0, 1))}))


def in_blocks(make: SimpleNamespace, sizes: tuple[int, ...], *n: int) -> Any:
    blocks = tuple(term % len(sizes) for term in range(len(n)))
    evidence = Evidence(block_sizes=sizes, row_blocks=blocks)
    return make.means(sum(sizes), *n).model_copy(update={"evidence": evidence})


def test_blocks_run_over_and_over(make: SimpleNamespace) -> None:
    given = in_blocks(make, (40, 60), 40, 60, 35, 55)
    assert safe(given).n == (40, 60, 35, 55)
    for wrong in ((0, 0, 1, 1), (1, 0, 1, 0), ()):
        evidence = given.evidence.model_copy(update={"row_blocks": wrong})
        assert is_impossible(given.model_copy(update={"evidence": evidence}))


def test_terms_of_one_block_are_compared_with_one_another(make: SimpleNamespace) -> None:
    # 57 of 60 tell of three; 57 of the other block's 40 would be no part of them.
    assert safe(in_blocks(make, (40, 60), 40, 57)).n == (40, HIDDEN)
    assert safe(in_blocks(make, (38, 62), 38, 62, 33, 40)).n == (38, 62, 33, 40)


def test_a_single_block_does_not_follow_from_all(make: SimpleNamespace) -> None:
    # Three blocks, one of four patients: another goes with it, the smallest.
    assert safe(in_blocks(make, (4, 30, 40), 4, 30, 40)).n == (HIDDEN, HIDDEN, 40)
    # A block of twelve is left out for its size alone, and stays alone.
    assert safe(in_blocks(make, (12, 30, 40), 12, 30, 40)).n == (HIDDEN, 30, 40)
    # Nobody outside the two blocks shown: an empty block is a small one.
    assert safe(in_blocks(make, (0, 30, 40), 0, 30, 40)).n == (HIDDEN, HIDDEN, 40)
    assert safe(in_blocks(make, (30, 40), 30, 40)).n == (30, 40)


# --- likelihoods and totals -----------------------------------------------------------------


class Sums(Totals):
    kind: ClassVar[str] = "limits_test_sums"


def sums(n_rows: int = 2, n_events: int | None = None, norm: float = 0.0, **evidence: Any) -> Sums:
    seen = Evidence(**{"smallest_group": 30, "parameter_norm": norm, **evidence})
    values = tuple((1.0 + row, 2.0) for row in range(n_rows))
    return Sums(n_patients=100, n_events=n_events, values=values, evidence=seen)


def shown_rows(given: Sums, policy: Policy = RESEARCH) -> list[bool]:
    return [bool(row) for row in safe(given, policy).values]


def test_everybody_may_have_had_the_event(make: SimpleNamespace) -> None:
    assert not is_impossible(make.terms(n=50, n_events=50))
    assert is_impossible(make.terms(n=50, n_events=51))
    assert not is_impossible(sums(n_events=100))
    assert is_impossible(sums(n_events=101))


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (sums(smallest_group=5), None),
        (sums(smallest_group=4), RefusalCode.TOO_FEW_PER_CATEGORY),
        # Large rows do not make a small group behind them larger.
        (sums(smallest_group=4, row_groups=(30, 30)), RefusalCode.TOO_FEW_PER_CATEGORY),
        (sums(row_groups=(4, 4)), RefusalCode.TOO_FEW_PER_CATEGORY),
        (sums(row_groups=(4, 5)), None),
        (sums(n_events=10), None),
        (sums(n_events=9), RefusalCode.TOO_FEW_EVENTS),
        (sums(n_events=95), None),
        (sums(n_events=96), RefusalCode.TOO_FEW_EVENTS),
        (sums(n_events=100), RefusalCode.TOO_FEW_EVENTS),
        (sums(norm=3.0), None),
        (sums(norm=3.01), RefusalCode.PARAMETERS_OUT_OF_BOUNDS),
        (sums(norm=-3.01), RefusalCode.PARAMETERS_OUT_OF_BOUNDS),
        (sums(norm=float("nan")), RefusalCode.PARAMETERS_OUT_OF_BOUNDS),
    ],
)
def test_limits_of_totals(given: Sums, code: RefusalCode | None) -> None:
    assert refusal(given) is code


def test_rows_about_few_are_emptied() -> None:
    assert shown_rows(sums(3, row_groups=(5, 4, 30))) == [True, False, True]


@pytest.mark.parametrize(
    ("nested", "shown"),
    [
        (((50,), (55,), (60,)), [True, True, True]),
        (((50,), (54,), (60,)), [True, False, True]),
        # Against every row shown before, not the last alone, and not against one withheld.
        (((50,), (54,), (57,)), [True, False, True]),
        (((50,), (60,), (54,)), [True, True, False]),
        (((50, 10), (60, 14), (60, 15)), [True, False, True]),
        (((50,), (50,), (50,)), [True, True, True]),
    ],
)
def test_rows_nested_in_one_another(nested: Any, shown: list[bool]) -> None:
    assert shown_rows(sums(3, nested=nested)) == shown


def test_a_gradient_over_nested_classes_is_given_whole_or_not(make: SimpleNamespace) -> None:
    terms = make.terms()
    for nested, code in (
        (((50,), (55,)), None),
        (((50,), (54,)), RefusalCode.TOO_FEW_PER_CATEGORY),
    ):
        seen = terms.evidence.model_copy(update={"nested": nested})
        assert refusal(terms.model_copy(update={"evidence": seen})) is code


@pytest.mark.parametrize(
    ("groups", "blocks", "shown"),
    [
        # The sum over a block is known: beside a row of three another is emptied, the smallest.
        ((3, 30, 40), (0, 0, 0), [False, False, True]),
        # Of two small rows of a block five are hidden together.
        ((2, 3, 40), (0, 0, 0), [False, False, True]),
        ((2, 2, 40, 50), (0, 0, 0, 0), [False, False, False, True]),
        # Of no block, nothing follows.
        ((3, 30, 40), (-1, -1, -1), [False, True, True]),
        # Another block is another sum.
        ((3, 30, 40, 50), (0, 1, 0, 1), [False, True, False, True]),
        # Nothing is left to be emptied, and the other block is not touched.
        ((2, 2, 40, 50), (0, 0, 1, 1), [False, False, True, True]),
        # The rows of both blocks.
        ((3, 3, 40, 50, 60, 70), (0, 1, 0, 1, 0, 1), [False, False, False, False, True, True]),
    ],
)
def test_a_row_does_not_follow_from_the_sum_over_its_block(
    groups: tuple[int, ...], blocks: tuple[int, ...], shown: list[bool]
) -> None:
    given = sums(len(groups), row_groups=groups, row_blocks=blocks)
    assert shown_rows(given) == shown


def test_a_block_of_which_nothing_can_be_shown_shows_nothing() -> None:
    assert refusal(sums(2, row_groups=(3, 40), row_blocks=(0, 0))) is (
        RefusalCode.TOO_FEW_PER_CATEGORY
    )


@pytest.mark.parametrize("name", ["row_groups", "row_blocks", "nested"])
def test_evidence_is_given_for_every_row(name: str) -> None:
    one: dict[str, Any] = {"row_groups": (30,), "row_blocks": (0,), "nested": ((30,),)}
    assert is_impossible(sums(2, **{name: one[name]}))
    assert not is_impossible(sums(1, **{name: one[name]}))


def test_totals_without_the_smallest_group_are_not_judged() -> None:
    assert is_impossible(sums(smallest_group=None))
    given = sums()
    assert is_impossible(given.model_copy(update={"evidence": None}))
    assert is_impossible(given.model_copy(update={"values": ((1.0, 2.0), ())}))
