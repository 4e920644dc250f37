"""Histograms and life tables at the limits of their rules, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from fedcac.aggregate import Aggregate, Evidence, Moments
from fedcac.disclosure import Policy, load_policy
from fedcac.disclosure.rules import apply_rule, check_consistency
from fedcac.disclosure.rules.bins import padded_size, shown_groups
from fedcac.errors import GateError
from fedcac.statistics.auc import ClassHistogram
from fedcac.statistics.descriptives import CharacteristicCounts
from fedcac.statistics.kaplan_meier import KaplanMeierTable
from fedcac.vocabulary import CellStatus, RefusalCode

RESEARCH = load_policy("research")
ZEROS_SHOWN = Policy.model_validate(
    {**RESEARCH.model_dump(), "profile": "custom", "zero_is_small": False}
)
HIDDEN = CellStatus.SUPPRESSED


def safe(aggregate: Aggregate, policy: Policy = RESEARCH) -> Any:
    check_consistency(aggregate)
    answer = apply_rule(aggregate, policy)
    assert not isinstance(answer, RefusalCode)
    return answer


# --- histograms -----------------------------------------------------------------------------


def bins(*groups: list[int], n: int | None = None) -> ClassHistogram:
    return ClassHistogram(
        n_patients=sum(map(sum, groups)) if n is None else n,
        starts=(tuple(tuple(range(len(row))) for row in groups),),
        counts=(tuple(map(tuple, groups)),),
    )


@pytest.mark.parametrize(
    ("size", "padded"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (6, 8), (7, 8), (8, 8), (9, 16)]
)
def test_a_grid_is_the_leaves_of_a_tree(size: int, padded: int) -> None:
    assert padded_size(size) == padded


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 9])
@pytest.mark.parametrize("policy", [RESEARCH, ZEROS_SHOWN])
def test_bins_of_enough_are_all_shown(size: int, policy: Policy) -> None:
    row = [30] * size
    assert safe(bins(row, row), policy).counts == ((tuple(row), tuple(row)),)


@pytest.mark.parametrize(
    ("row", "starts", "counts"),
    [
        ([5, 5, 5, 5], [0, 1, 2, 3], [5, 5, 5, 5]),
        ([5, 4, 5, 6], [0, 2, 3], [9, 5, 6]),
        ([4, 5, 6, 5], [0, 2, 3], [9, 6, 5]),
        ([15, 5, 5, 4], [0, 1, 2], [15, 5, 9]),
        # A half of few is not cut off, however its other half looks.
        ([10, 10, 4, 0], [0], [24]),
        ([4, 0, 10, 10], [0], [24]),
        ([10, 10, 5, 0], [0, 1, 2], [10, 10, 5]),
        ([10, 10, 0, 5, 5, 0], [0, 1, 2, 4], [10, 10, 5, 5]),
        ([10, 10, 10, 10, 5, 5], [0, 1, 2, 3, 4, 5], [10, 10, 10, 10, 5, 5]),
        ([10, 10, 10, 10, 5], [0, 1, 2, 3, 4], [10, 10, 10, 10, 5]),
        ([10, 10, 10, 10, 4], [0], [44]),
    ],
)
def test_where_bins_are_merged(row: list[int], starts: list[int], counts: list[int]) -> None:
    given = safe(bins(row, [30] * len(row)))
    assert (given.starts[0][0], given.counts[0][0]) == (tuple(starts), tuple(counts))
    # The other group is cut where it can be.
    assert given.counts[0][1] == (30,) * len(row)


def test_bins_of_a_common_grid_are_merged_alike_in_the_groups_shown() -> None:
    rows = ([5, 5, 5, 5], [30, 30, 2, 40], [1, 1, 1, 1], [1, 0, 0, 0])
    given = CharacteristicCounts(
        n_patients=sum(map(sum, rows)),
        starts=((((0, 1, 2, 3)),) * 4,),
        counts=(tuple(map(tuple, rows)),),
    )
    shown = safe(given)
    # Five in two small groups; where one group has a small bin, both are merged.
    assert shown.starts == (((0, 1, 2), (0, 1, 2), (), ()),)
    assert shown.counts == (((5, 5, 10), (30, 30, 42), (), ()),)


@pytest.mark.parametrize(
    ("sizes", "n", "shown"),
    [
        ([30, 40], 70, {0, 1}),
        ([5, 40], 45, {0, 1}),
        # A small group takes the smallest of the others along.
        ([4, 30, 40], 74, {2}),
        ([0, 30, 40], 70, {2}),
        ([2, 3, 30, 40], 75, {2, 3}),
        ([2, 2, 30, 40], 74, {3}),
        ([4, 40], 44, set()),
        # Few in no group at all.
        ([30, 40], 74, set()),
        ([30, 40], 71, set()),
        ([30, 40], 75, {0, 1}),
        # Those in no group stand beside the hidden.
        ([4, 30, 40], 79, {1, 2}),
        ([3, 4], 47, set()),
    ],
)
def test_groups_whose_size_may_be_known(sizes: list[int], n: int, shown: set[int]) -> None:
    assert shown_groups(sizes, n, RESEARCH) == shown


def test_an_empty_group_may_be_known_where_zeros_are() -> None:
    assert shown_groups([0, 30, 40], 70, ZEROS_SHOWN) == {0, 1, 2}
    assert shown_groups([4, 30, 40], 74, ZEROS_SHOWN) == {2}


def test_a_type_without_a_rule_leaves_nothing() -> None:
    class Talkative(Moments):
        note: float = 0.0

    aggregate = Talkative(n_patients=50, n=(50,), mean=(1.0,), m2=(1.0,))
    assert apply_rule(aggregate, RESEARCH) is RefusalCode.UNREGISTERED_TYPE


# --- life tables ----------------------------------------------------------------------------

Lost = list[tuple[int, int]]
"""Events and censored, bin by bin."""


def curves(*groups: tuple[int, Lost], later: int = 0, evidence: Any = None) -> KaplanMeierTable:
    """Return the life table of groups, each with so many patients at first."""
    at_risk = []
    for start, lost in groups:
        row = [start]
        for events, censored in lost[:-1]:
            row.append(row[-1] - events - censored)
        at_risk.append(tuple(row))
    died = tuple(tuple(events for events, _ in lost) for _, lost in groups)
    return KaplanMeierTable(
        n_patients=sum(start for start, _ in groups),
        edges=tuple(tuple(range(len(lost) + 1)) for _, lost in groups),
        at_risk=tuple(at_risk),
        events=died,
        censored=tuple(tuple(censored for _, censored in lost) for _, lost in groups),
        n_events=sum(map(sum, died)) + later,
        evidence=evidence,
    )


def edges(table: KaplanMeierTable, policy: Policy = RESEARCH) -> list[list[int]]:
    return [list(own) for own in safe(table, policy).edges]


EVEN: Lost = [(10, 10), (10, 10)]


def test_a_shown_curve_has_the_numbers_of_its_bins() -> None:
    given = safe(curves((200, [(10, 7), (20, 8), (30, 9), (40, 11)])))
    assert given.edges == ((0, 1, 2, 3, 4),)
    assert given.at_risk == ((200, 183, 155, 116),)
    assert (given.events, given.censored) == (((10, 20, 30, 40),), ((7, 8, 9, 11),))
    assert given.n_events == 100


@pytest.mark.parametrize(
    ("lost", "shown"),
    [
        (EVEN, [0, 1, 2]),
        # Few events or censored in a bin are told with the next bin's; none may be censored.
        ([(4, 10), (10, 10)], [0, 2]),
        ([(10, 10), (4, 10)], [0, 2]),
        ([(10, 4), (10, 10)], [0, 2]),
        ([(10, 10), (10, 4)], [0, 2]),
        ([(10, 0), (10, 0)], [0, 1, 2]),
        ([(0, 10), (10, 10)], [0, 2]),
        ([(5, 5), (5, 5)], [0, 1, 2]),
        # Few by the end: it ends where enough had the event, or was never begun.
        ([(10, 10), (10, 10), (4, 10), (0, 0)], [0, 4]),
        ([(2, 10), (2, 10)], []),
        ([(10, 2), (10, 2)], []),
        ([(0, 0), (0, 0)], [0, 2]),
    ],
)
def test_where_time_is_cut(lost: Lost, shown: list[int]) -> None:
    assert edges(curves((200, lost))) == [shown]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 9])
def test_time_is_cut_wherever_enough_had_the_event(size: int) -> None:
    table = curves((500, [(5, 5)] * size))
    assert edges(table) == [list(range(size + 1))]
    assert safe(table).events == ((5,) * size,)


@pytest.mark.parametrize(
    ("start", "lost", "shown"),
    [
        # So many are left at the end: 10, 9 and none.
        (50, EVEN, [0, 1, 2]),
        (49, EVEN, [0, 1]),
        (40, EVEN, [0, 1, 2]),
        # And so many at the cut.
        (30, [(10, 10), (10, 0)], [0, 1, 2]),
        (29, [(10, 10), (9, 0)], [0, 2]),
    ],
)
def test_a_curve_ends_where_few_are_left(start: int, lost: Lost, shown: list[int]) -> None:
    assert edges(curves((start, lost))) == [shown]


def test_a_group_of_ten_has_a_curve_and_one_of_nine_has_none() -> None:
    ten: Lost = [(5, 5)]
    others: tuple[int, Lost] = (60, [(10, 10)])
    assert edges(curves((10, ten), others)) == [[0, 1], [0, 1]]
    nine = curves((9, [(9, 0)]), others)
    assert edges(nine) == [[], [0, 1]]
    assert safe(nine).n_events is HIDDEN


@pytest.mark.parametrize("policy", [RESEARCH, ZEROS_SHOWN])
def test_a_small_group_does_not_follow_from_all(policy: Policy) -> None:
    large: tuple[int, Lost] = (60, [(10, 10)])
    larger: tuple[int, Lost] = (80, [(10, 10)])
    # A group of five is withheld by itself; four take the smallest of the others along.
    assert edges(curves((5, [(5, 0)]), large, larger), policy) == [[], [0, 1], [0, 1]]
    assert edges(curves((4, [(4, 0)]), larger, large), policy) == [[], [0, 1], []]
    assert edges(curves((2, [(2, 0)]), (2, [(2, 0)]), large, larger), policy) == [
        [],
        [],
        [],
        [0, 1],
    ]
    assert edges(curves((4, [(4, 0)]), large), policy) == [[], []]


@pytest.mark.parametrize(
    ("groups", "later", "shown"),
    [
        # Events after the last bin: few of them end the curve before; among those left as well.
        (1, 0, [[0, 1, 2]]),
        (1, 3, [[0, 1]]),
        (1, 5, [[0, 1, 2]]),
        (1, 57, [[0, 1]]),
        (1, 60, [[0, 1, 2]]),
        # Of two groups, either may have had all of a few, and nobody knows of more.
        (2, 3, [[0, 1], [0, 1]]),
        (2, 57, [[0, 1, 2], [0, 1, 2]]),
    ],
)
def test_events_after_the_last_bin(groups: int, later: int, shown: list[list[int]]) -> None:
    given: tuple[int, Lost] = (100, EVEN)
    for evidence in (None, Evidence()):
        table = curves(*(given,) * groups, later=later, evidence=evidence)
        assert edges(table) == shown


def test_events_after_the_last_bin_are_known_by_group() -> None:
    given: tuple[int, Lost] = (100, EVEN)
    table = curves(given, given, later=57, evidence=Evidence(row_groups=(77, 20)))
    assert edges(table) == [[0, 1], [0, 1, 2]]
    table = curves(given, given, later=6, evidence=Evidence(row_groups=(23, 23)))
    assert edges(table) == [[0, 1], [0, 1]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_patients": 199},
        {"n_events": 201},
        {"n_events": 39},
        {"n_events": HIDDEN},
        {"at_risk": ((100, 81), (100, 80))},
        {"at_risk": ((100, 80), (100, 79))},
        {"events": ((10, HIDDEN), (10, 10))},
        {"evidence": Evidence(row_groups=(40,))},
        {"evidence": Evidence(row_groups=(20, 21))},
        {"evidence": Evidence(row_groups=(19, 21))},
        {"edges": ((0, 1, 3), (0, 1, 2))},
        {"edges": ((), (0, 1, 2)), "at_risk": ((), (200, 180)), "events": ((), (10, 10))},
    ],
)
def test_impossible_life_tables(wrong: dict[str, Any]) -> None:
    table = curves((100, EVEN), (100, EVEN))
    check_consistency(table)
    check_consistency(table.model_copy(update={"evidence": Evidence(row_groups=(20, 20))}))
    if wrong.get("edges", ((0,),))[0] == ():
        wrong = {**wrong, "censored": ((), (10, 10))}
    with pytest.raises(GateError):
        check_consistency(table.model_copy(update=wrong))


def test_everybody_may_have_had_the_event() -> None:
    check_consistency(curves((30, [(30, 0)])))
    check_consistency(curves((30, [(20, 0)]), later=10))
    with pytest.raises(GateError):
        check_consistency(curves((30, [(20, 0)]), later=11))
    with pytest.raises(GateError):
        check_consistency(curves((30, [(20, 11)])))
