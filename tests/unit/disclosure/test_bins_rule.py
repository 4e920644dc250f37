from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcac.aggregate import BinnedCounts, Evidence
from fedcac.disclosure import Gate, MemoryLedger, Policy, Question, Release, load_policy
from fedcac.disclosure.rules import apply_rule, check_consistency
from fedcac.errors import GateError
from fedcac.statistics.auc import ClassHistogram
from fedcac.statistics.descriptives import CharacteristicCounts
from fedcac.vocabulary import CellStatus, RefusalCode

RESEARCH, CMS, OPEN = (load_policy(name) for name in ("research", "cms", "open"))
LENIENT = Policy.model_validate(
    {**RESEARCH.model_dump(), "profile": "custom", "zero_is_small": False}
)
CLOSED = st.sampled_from([RESEARCH, CMS, LENIENT])
COUNTS = st.one_of(st.just(0), st.integers(1, 4), st.integers(5, 12), st.integers(10, 40))
Rows = list[list[int]]


def _bins(groups: Rows, n_patients: int | None = None) -> ClassHistogram:
    grid = tuple(range(len(groups[0])))
    return ClassHistogram(
        # Patients without a value stand in no bin.
        n_patients=sum(map(sum, groups)) + 20 if n_patients is None else n_patients,
        starts=(tuple(grid for _ in groups),),
        counts=(tuple(tuple(row) for row in groups),),
    )


def _released(aggregate: Any, policy: Policy) -> dict[str, Any]:
    check_consistency(aggregate)
    released = apply_rule(aggregate, policy)
    assert not isinstance(released, RefusalCode)
    return released.to_payload()


@st.composite
def _groups(draw: st.DrawFn) -> Rows:
    size = draw(st.integers(1, 40))
    row = st.lists(COUNTS, min_size=size, max_size=size)
    return draw(st.lists(row, min_size=1, max_size=3))


def _spans(starts: list[int], size: int) -> list[tuple[int, int]]:
    return list(pairwise([*starts, size]))


# --- histograms -----------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(groups=_groups(), policy=CLOSED)
def test_shown_counts_are_not_small_and_add_up(groups: Rows, policy: Policy) -> None:
    document = _released(_bins(groups), policy)
    size = len(groups[0])
    for row, starts, counts in zip(
        groups, document["starts"][0], document["counts"][0], strict=True
    ):
        if policy.is_small(sum(row)):
            assert (starts, counts) == ([], [])
            continue
        assert starts[0] == 0
        assert starts == sorted(set(starts))
        assert counts == [sum(row[low:high]) for low, high in _spans(starts, size)]
        assert sum(counts) == sum(row)
        assert not any(policy.is_small(count) for count in counts)


@settings(max_examples=150, deadline=None)
@given(groups=_groups(), policy=CLOSED)
def test_bins_are_nodes_of_one_binary_tree(groups: Rows, policy: Policy) -> None:
    size = len(groups[0])
    spans = [
        span
        for starts in _released(_bins(groups), policy)["starts"][0]
        for span in _spans(starts, size)
        if starts
    ]
    for low, high in spans:
        width = 1 << (high - low - 1).bit_length()
        # A node that reaches beyond the grid is cut off at its end.
        assert low % width == 0
        assert high in (low + width, size)
    for a, b in spans:
        for c, d in spans:
            assert b <= c or d <= a or (a <= c and d <= b) or (c <= a and b <= d)


@settings(max_examples=100, deadline=None)
@given(groups=_groups(), policy=CLOSED)
def test_no_bin_is_coarser_than_the_tree_needs(groups: Rows, policy: Policy) -> None:
    size = len(groups[0])
    for row, starts in zip(groups, _released(_bins(groups), policy)["starts"][0], strict=True):
        for low, high in _spans(starts, size) if starts else []:
            width = 1 << (high - low - 1).bit_length()
            middle = low + width // 2
            if high - low > 1 and middle < high:
                halves = sum(row[low:middle]), sum(row[middle:high])
                assert any(policy.is_small(half) for half in halves)


@pytest.mark.parametrize(
    ("row", "policy", "starts", "counts"),
    [
        ([10, 10, 10, 10], RESEARCH, [0, 1, 2, 3], [10, 10, 10, 10]),
        ([10, 10, 10, 10], CMS, [0, 2], [20, 20]),
        ([50, 48, 2], RESEARCH, [0], [100]),  # levels of a covariate: the third has two patients
        ([50, 2, 48], RESEARCH, [0, 2], [52, 48]),
        ([0, 30, 30, 30], RESEARCH, [0, 2, 3], [30, 30, 30]),
        ([0, 30, 30, 30], LENIENT, [0, 1, 2, 3], [0, 30, 30, 30]),
        ([4, 0, 0, 0], RESEARCH, [], []),
        ([0, 0, 0, 0], RESEARCH, [], []),
        ([0, 0, 0, 0], LENIENT, [0, 1, 2, 3], [0, 0, 0, 0]),
        ([10, 0, 0, 0], CMS, [], []),
        ([11], CMS, [0], [11]),
    ],
)
def test_bins_by_hand(row: list[int], policy: Policy, starts: list[int], counts: list[int]) -> None:
    document = _released(_bins([row]), policy)
    assert (document["starts"], document["counts"]) == ([[starts]], [[counts]])


def test_open_shows_every_bin() -> None:
    document = _released(_bins([[1, 0, 2], [3, 4, 0]], 10), OPEN)
    assert document["counts"] == [[[1, 0, 2], [3, 4, 0]]]


def test_every_variable_is_judged_by_itself() -> None:
    both = ClassHistogram(
        n_patients=60,
        starts=(((0, 1),), ((0, 1, 2, 3),)),
        counts=(((30, 30),), ((20, 2, 30, 8),)),
    )
    document = _released(both, RESEARCH)
    assert document["counts"] == [[[30, 30]], [[22, 30, 8]]]


@pytest.mark.parametrize(
    "wrong",
    [
        _bins([[30, 30]], 59),  # a patient would stand in two bins
        _bins([[30, 30], [10, 10]], 79),  # or in two groups
        ClassHistogram(n_patients=90, starts=(((0, 2),),), counts=(((40, 40),),)),
        ClassHistogram(n_patients=90, starts=(((0, 1), (0,)),), counts=(((40, 40), (5,)),)),
        ClassHistogram(n_patients=90, starts=(((0, 1), ()),), counts=(((40, 40), ()),)),
        ClassHistogram(n_patients=90, starts=(((),),), counts=(((),),)),
        ClassHistogram(
            n_patients=90, starts=(((0, 1),),), counts=(((40, CellStatus.SUPPRESSED),),)
        ),
    ],
)
def test_merged_suppressed_or_impossible_bins_do_not_enter(
    wrong: BinnedCounts, ask: Callable[..., Question]
) -> None:
    with pytest.raises(GateError) as caught:
        Gate(RESEARCH, MemoryLedger()).release(ask(), wrong)
    assert caught.value.code == "gate.inconsistent_aggregate"


def test_a_histogram_passes_the_gate_merged(ask: Callable[..., Question]) -> None:
    released = Gate(RESEARCH, MemoryLedger()).release(ask(), _bins([[20, 1, 9, 9], [1, 1, 1, 1]]))
    assert isinstance(released, Release)
    assert released.payload["starts"] == [[[0, 2, 3], []]]
    assert released.payload["counts"] == [[[21, 9, 9], []]]


# --- what follows from the number of all ----------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "n_patients", "policy", "shown"),
    [
        ([50, 47, 3], 100, RESEARCH, [50, 0, 0]),
        ([50, 44, 6], 100, RESEARCH, [50, 44, 6]),
        ([50, 47, 3], 110, RESEARCH, [50, 47, 0]),  # ten without a value stand with the three
        ([50, 3, 2], 55, RESEARCH, [50, 0, 0]),
        ([97, 3], 100, RESEARCH, [0, 0]),
        ([50, 50, 0], 100, RESEARCH, [0, 50, 0]),
        ([50, 50, 0], 100, LENIENT, [50, 50, 0]),
        ([50, 48], 100, RESEARCH, [0, 0]),  # two without a value
        ([50, 45], 100, RESEARCH, [50, 45]),
        ([97, 3], 100, OPEN, [97, 3]),
    ],
)
def test_no_group_follows_from_the_others(
    sizes: list[int], n_patients: int, policy: Policy, shown: list[int]
) -> None:
    document = _released(_bins([[size] for size in sizes], n_patients), policy)
    assert [sum(row) for row in document["counts"][0]] == shown


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=5),
    missing=st.integers(0, 12),
    policy=CLOSED,
)
def test_what_is_hidden_is_nothing_or_many(sizes: list[int], missing: int, policy: Policy) -> None:
    n = sum(sizes) + missing
    if n < policy.minimum_patients:
        return
    document = _released(_bins([[size] for size in sizes], n), policy)
    hidden = n - sum(sum(row) for row in document["counts"][0])
    assert hidden == 0 or not policy.is_small(hidden)
    if hidden == 0 and [] in document["starts"][0]:
        assert not policy.zero_is_small


@pytest.mark.parametrize(("inner", "is_shown"), [(50, True), (47, False), (45, True), (54, False)])
def test_a_variable_yields_to_one_of_nearly_the_same_patients(inner: int, is_shown: bool) -> None:
    bins = ClassHistogram(
        n_patients=100,
        starts=(((0,), (0,)),) * 2,
        counts=(((50,), (50,)), ((100 - inner,), (inner,))),
        evidence=Evidence(nested=((50,), (inner,))),
    )
    document = _released(bins, RESEARCH)
    assert document["counts"][0] == [[50], [50]]
    assert document["counts"][1] == ([[100 - inner], [inner]] if is_shown else [[], []])
    assert "evidence" not in document


def test_groups_of_a_characteristic_are_cut_alike() -> None:
    grid = tuple(range(4))
    table = CharacteristicCounts(
        n_patients=80,
        starts=((grid, grid, grid),),
        counts=(((10, 10, 10, 10), (5, 0, 10, 10), (5, 4, 3, 3)),),
    )
    document = _released(table, RESEARCH)
    assert document["starts"] == [[[0, 2]] * 3]
    assert document["counts"] == [[[20, 20], [5, 20], [9, 6]]]


def test_evidence_is_given_for_every_variable(ask: Callable[..., Question]) -> None:
    wrong = _bins([[30, 30]], 60).model_copy(update={"evidence": Evidence(nested=((1,), (2,)))})
    with pytest.raises(GateError):
        Gate(RESEARCH, MemoryLedger()).release(ask(), wrong)
