"""Life tables: where time is cut, where a curve ends, and which groups are hidden."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcac.aggregate import Evidence, SurvivalTable
from fedcac.disclosure import Gate, MemoryLedger, Policy, Question, load_policy
from fedcac.disclosure.rules import apply_rule, check_consistency
from fedcac.errors import GateError
from fedcac.statistics.kaplan_meier import KaplanMeierTable
from fedcac.vocabulary import CellStatus, RefusalCode

RESEARCH, CMS, OPEN = (load_policy(name) for name in ("research", "cms", "open"))
LENIENT = Policy.model_validate(
    {**RESEARCH.model_dump(), "profile": "custom", "zero_is_small": False}
)
CLOSED = st.sampled_from([RESEARCH, CMS, LENIENT])


def _released(aggregate: Any, policy: Policy) -> dict[str, Any]:
    check_consistency(aggregate)
    released = apply_rule(aggregate, policy)
    assert not isinstance(released, RefusalCode)
    return released.to_payload()


Lost = list[tuple[int, int]]
"""Events and censored, bin by bin."""


def _table(groups: list[tuple[Lost, int]], n_events: int | None = None) -> KaplanMeierTable:
    """Return the life table of groups, each with so many patients left after the last bin."""
    at_risk = []
    for lost, left in groups:
        numbers = [left + sum(lost[-1])]
        for events, censored in reversed(lost[:-1]):
            numbers.insert(0, numbers[0] + events + censored)
        at_risk.append(tuple(numbers))
    events = tuple(tuple(event for event, _ in lost) for lost, _ in groups)
    return KaplanMeierTable(
        n_patients=sum(row[0] for row in at_risk),
        edges=tuple(tuple(range(len(lost) + 1)) for lost, _ in groups),
        at_risk=tuple(at_risk),
        events=events,
        censored=tuple(tuple(censored for _, censored in lost) for lost, _ in groups),
        n_events=sum(map(sum, events)) if n_events is None else n_events,
    )


@st.composite
def _tables(draw: st.DrawFn) -> KaplanMeierTable:
    n_bins = draw(st.integers(1, 15))
    bin_ = st.tuples(st.sampled_from([0, 0, 0, 1, 2, 5, 11]), st.sampled_from([0, 0, 1, 3, 8]))
    group = st.tuples(
        st.lists(bin_, min_size=n_bins, max_size=n_bins), st.sampled_from([0, 4, 9, 10, 30])
    )
    groups = draw(st.lists(group, min_size=1, max_size=3))
    # The first group is large, so that the table as a whole is not refused.
    return _table([(groups[0][0], groups[0][1] + 25), *groups[1:]])


@settings(max_examples=200, deadline=None)
@given(table=_tables(), policy=CLOSED)
def test_a_released_life_table_adds_up_and_shows_no_few_events(
    table: KaplanMeierTable, policy: Policy
) -> None:
    document = _released(table, policy)
    k = policy.minimum_cell
    size, n_shown = len(table.events[0]), 0
    for number, edges in enumerate(document["edges"]):
        at_risk, events, censored = (
            document[name][number] for name in ("at_risk", "events", "censored")
        )
        true = [getattr(table, name)[number] for name in ("at_risk", "events", "censored")]
        if true[0][0] < max(k, 10):
            assert edges == []
        if not edges:
            assert at_risk == events == censored == []
            continue
        n_shown += at_risk[0]
        assert edges[0] == 0
        spans = list(pairwise(edges))
        assert at_risk == [true[0][low] for low, _ in spans]
        assert events == [sum(true[1][low:high]) for low, high in spans]
        assert censored == [sum(true[2][low:high]) for low, high in spans]
        assert all(count == 0 or count >= k for count in (*events, *censored))
        assert min(at_risk) >= max(k, 10)
        # A cut has enough events on both sides, so no edge lies at the day of a single one.
        assert len(events) == 1 or min(events) >= k
        left = [n - d - c for n, d, c in zip(at_risk, events, censored, strict=True)]
        assert left[:-1] == at_risk[1:]
        assert left[-1] >= max(k, 10) or (left[-1] == 0 and edges[-1] == size)
        later = sum(true[1]) - sum(events)
        assert later == 0 or later >= k
        for low, high in spans:
            width = 1 << (high - low - 1).bit_length()
            assert low % width == 0
            assert high in (low + width, size)
    hidden = table.n_patients - n_shown
    assert hidden == 0 or not policy.is_small(hidden)
    if document["n_events"] != "suppressed":
        later = document["n_events"] - sum(map(sum, document["events"]))
        assert all(document["edges"])
        assert later == 0 or later >= k


@pytest.mark.parametrize(
    ("lost", "left", "edges"),
    [
        # Cut where five events lie on both sides, wherever they lie there.
        ([(5, 0), (0, 0), (0, 0), (5, 0)], 30, [0, 2, 4]),
        ([(0, 0), (5, 0), (5, 0), (0, 0)], 30, [0, 2, 4]),
        ([(5, 0), (5, 0), (5, 0), (5, 0)], 30, [0, 1, 2, 3, 4]),
        ([(5, 0), (4, 0), (5, 0), (5, 0)], 30, [0, 2, 3, 4]),
        # One bin without a single event is not cut at all.
        ([(0, 0), (0, 0), (0, 0), (0, 0)], 30, [0, 4]),
        # The day on which two were lost is not given by an edge.
        ([(5, 2), (5, 0), (5, 3), (5, 0)], 30, [0, 4]),
        ([(5, 2), (5, 3), (5, 3), (5, 2)], 30, [0, 2, 4]),
        # Nine left at the end: the curve ends in the middle, before ten events.
        ([(5, 0), (5, 0), (5, 0), (5, 0)], 9, [0, 1, 2]),
        ([(5, 0), (5, 0), (5, 0), (5, 0)], 0, [0, 1, 2, 4]),
        # Three events after the middle would follow from the number of all.
        ([(5, 0), (5, 0), (3, 0), (0, 10)], 6, [0, 1]),
    ],
)
def test_curves_by_hand(lost: Lost, left: int, edges: list[int]) -> None:
    assert _released(_table([(lost, left)]), RESEARCH)["edges"] == [edges]


def test_a_curve_is_coarser_under_a_larger_k() -> None:
    table = _table([([(11, 0), (11, 2), (11, 4), (0, 0)], 40)])
    assert _released(table, OPEN)["edges"][0] == [0, 1, 2, 3, 4]
    assert _released(table, LENIENT)["edges"] == [[0, 4]]
    larger = _table([([(11, 0), (11, 0), (5, 5), (6, 0)], 40)])
    assert _released(larger, RESEARCH)["edges"][0] == [0, 1, 2, 3, 4]
    assert _released(larger, CMS)["edges"] == [[0, 1, 2]]
    plain = _table([([(11, 0), (11, 0), (5, 0), (6, 0)], 40)])
    assert _released(plain, CMS)["edges"][0] == [0, 1, 2, 4]


@pytest.mark.parametrize(
    ("later", "is_shown"),
    [((0, 0), True), ((2, 0), False), ((5, 0), True), ((3, 3), False), ((36, 0), False)],
)
def test_events_after_the_horizon_are_none_or_enough(
    later: tuple[int, int], is_shown: bool
) -> None:
    table = _table([([(12, 0)], 40)] * 2)
    total = table.n_events + sum(later)
    beyond = table.model_copy(
        update={
            "n_events": total,
            "evidence": Evidence(row_groups=tuple(12 + events for events in later)),
        }
    )
    document = _released(beyond, RESEARCH)
    assert (document["n_events"] == total) == is_shown
    assert all(document["edges"]) == is_shown


def test_events_after_the_horizon_are_anybodys_without_evidence() -> None:
    table = _table([([(12, 0)], 40)] * 2)
    few = table.model_copy(update={"n_events": table.n_events + 2})
    assert _released(few, RESEARCH)["edges"] == [[], []]
    assert _released(table, RESEARCH)["n_events"] == table.n_events


@pytest.mark.parametrize(
    ("small", "policy", "shown"),
    [
        (3, RESEARCH, [False, False, True]),
        (0, RESEARCH, [False, False, True]),  # that a site has no such patients follows as well
        (0, LENIENT, [False, True, True]),
        (9, RESEARCH, [False, True, True]),  # too few for a curve, enough to be counted
        (20, RESEARCH, [True, True, True]),
        (0, OPEN, [True, True, True]),
    ],
)
def test_a_hidden_group_does_not_follow_from_the_others(
    small: int, policy: Policy, shown: list[bool]
) -> None:
    whole = [(5, 5), (6, 6)]
    groups = [([(0, 0), (0, 0)], small), (whole, 30), (whole, 40)]
    document = _released(_table(groups), policy)
    assert [bool(edges) for edges in document["edges"]] == shown
    assert (document["n_events"] == "suppressed") == (not all(shown))


def test_life_tables_that_contradict_themselves_do_not_enter(
    ask: Callable[..., Question],
) -> None:
    table = _table([([(5, 1), (6, 2)], 20), ([(5, 0), (5, 0)], 20)])
    check_consistency(table)
    for wrong in (
        {"n_patients": 65},
        {"n_events": 65},
        {"n_events": CellStatus.SUPPRESSED},
        {"at_risk": ((34, 27), (30, 25))},
        {"censored": ((1, 23), (0, 0))},
        {"edges": ((0, 2, 3), (0, 1, 2))},
        {"events": ((5, CellStatus.SUPPRESSED), (5, 5))},
        {"n_events": 20},
        {"evidence": Evidence(row_groups=(21,))},
        {"evidence": Evidence(row_groups=(10, 11))},
        {"evidence": Evidence(row_groups=(11, 11))},
    ):
        broken: SurvivalTable = table.model_copy(update=wrong)
        with pytest.raises(GateError) as caught:
            Gate(RESEARCH, MemoryLedger()).release(ask(), broken)
        assert caught.value.code == "gate.inconsistent_aggregate"
    merged = KaplanMeierTable(
        n_patients=34,
        edges=((0, 2),),
        at_risk=((34,),),
        events=((11,),),
        censored=((3,),),
        n_events=11,
    )
    with pytest.raises(GateError):
        check_consistency(merged)
