"""Histograms, life tables and numbers of positives of one cohort, subtracted from one another."""

from __future__ import annotations

from itertools import accumulate
from typing import Any, ClassVar

import pytest

from fedcac.aggregate import BinnedCounts, Moments, Totals
from fedcac.aggregate.base import registered
from fedcac.canonical import digest_of
from fedcac.disclosure import load_policy
from fedcac.disclosure.differences import (
    are_bins_compatible,
    are_curves_compatible,
    are_positives_apart,
    class_sizes,
    known_positives,
    score_pair,
    shape_is,
    turned,
    without_unknown_classes,
)
from fedcac.statistics.auc import ClassHistogram
from fedcac.statistics.descriptives import CharacteristicCounts, CharacteristicMoments

K5 = load_policy("research")

Payload = dict[str, Any]


# --- histograms -----------------------------------------------------------------------------

Group = tuple[list[int], list[int]]


def bins(n: int, *variables: list[Group]) -> Payload:
    return {
        "n_patients": n,
        "starts": [[firsts for firsts, _ in groups] for groups in variables],
        "counts": [[row for _, row in groups] for groups in variables],
    }


def one_row(n: int, firsts: list[int], row: list[int]) -> Payload:
    return bins(n, [(firsts, row)])


@pytest.mark.parametrize(
    ("one", "other", "may"),
    [
        # The same patients, cut alike.
        (one_row(100, [0, 4], [50, 50]), one_row(100, [0, 4], [50, 50]), True),
        # All but 2 and 3, 5 and 5, 4 and 6, 6 and 4.
        (one_row(100, [0, 4], [50, 50]), one_row(95, [0, 4], [48, 47]), False),
        (one_row(100, [0, 4], [50, 50]), one_row(90, [0, 4], [45, 45]), True),
        (one_row(100, [0, 4], [50, 50]), one_row(90, [0, 4], [46, 44]), False),
        (one_row(100, [0, 4], [50, 50]), one_row(90, [0, 4], [44, 46]), False),
        # No difference in the first bin is that of no patient.
        (one_row(100, [0, 4], [50, 50]), one_row(90, [0, 4], [50, 40]), True),
        # More in a bin than all have: other patients, or another variable.
        (one_row(100, [0, 4], [50, 50]), one_row(99, [0, 4], [52, 47]), True),
        (one_row(100, [0, 4], [50, 50]), one_row(97, [0, 4], [51, 46]), True),
        # As many patients, sorted otherwise.
        (one_row(100, [0, 4], [50, 50]), one_row(100, [0, 4], [53, 47]), True),
        # Only where both are cut: 3 in all of 0 to 4.
        (one_row(100, [0, 2, 4], [30, 20, 50]), one_row(90, [0, 4], [47, 43]), False),
        (one_row(100, [0, 2, 4], [30, 20, 50]), one_row(90, [0, 3, 4], [20, 25, 45]), True),
        # Nothing in common but both ends.
        (one_row(100, [0, 2], [30, 70]), one_row(97, [0, 3], [40, 57]), False),
        (one_row(100, [0, 2], [30, 70]), one_row(95, [0, 3], [40, 55]), True),
    ],
)
def test_two_histograms_of_a_cohort(one: Payload, other: Payload, may: bool) -> None:
    assert are_bins_compatible(one, other, K5) is may
    assert are_bins_compatible(other, one, K5) is may


def test_groups_of_a_histogram_are_added_up() -> None:
    groups = bins(100, [([0, 4], [30, 20]), ([0, 4], [20, 30])])
    assert not are_bins_compatible(groups, one_row(95, [0, 4], [48, 47]), K5)
    assert are_bins_compatible(groups, one_row(90, [0, 4], [45, 45]), K5)
    # What is left beside a group that is withheld is that group.
    withheld = bins(100, [([0, 4], [30, 20]), ([], [])])
    assert not are_bins_compatible(withheld, one_row(100, [0, 4], [33, 67]), K5)
    assert are_bins_compatible(withheld, one_row(100, [0, 4], [35, 65]), K5)
    nothing = bins(100, [([], []), ([], [])])
    assert are_bins_compatible(nothing, one_row(100, [0, 4], [33, 67]), K5)
    assert are_bins_compatible(one_row(100, [0, 4], [33, 67]), nothing, K5)


def test_what_a_larger_table_shows_is_not_taken_off_a_smaller_one() -> None:
    # Of a hundred patients a group of twenty is withheld: those shown are no part of the ninety.
    smaller, larger = one_row(90, [0, 4], [45, 45]), one_row(100, [0, 4], [42, 38])
    assert are_bins_compatible(smaller, larger, K5)
    assert are_bins_compatible(larger, smaller, K5)


def test_each_variable_is_compared_with_each() -> None:
    far, near = ([0, 4], [20, 80]), ([0, 4], [48, 47])
    two = bins(95, [far], [near])
    assert not are_bins_compatible(one_row(100, [0, 4], [50, 50]), two, K5)
    assert not are_bins_compatible(two, one_row(100, [0, 4], [50, 50]), K5)
    assert are_bins_compatible(one_row(100, [0, 4], [50, 50]), bins(95, [far], [far]), K5)


# --- life tables ----------------------------------------------------------------------------


def curve(n: int, *groups: tuple[list[int], int, list[int], list[int]]) -> Payload:
    """Return the life table of groups: edges, at risk at first, events and censored by bin."""
    at_risk = [
        [start - gone for gone in accumulate([0, *(a + b for a, b in zip(d, c, strict=True))])]
        for _, start, d, c in groups
    ]
    return {
        "n_patients": n,
        "edges": [edges for edges, *_ in groups],
        "at_risk": [row[:-1] for row in at_risk],
        "events": [events for _, _, events, _ in groups],
        "censored": [censored for *_, censored in groups],
    }


ALL = ([0, 1, 2], 100, [10, 10], [10, 10])


@pytest.mark.parametrize(
    ("part", "may"),
    [
        ((100, ([0, 1, 2], 100, [10, 10], [10, 10])), True),
        # Of the 20 others five had the event and five were lost in either bin: none is left.
        ((80, ([0, 1, 2], 80, [5, 5], [5, 5])), True),
        ((60, ([0, 1, 2], 60, [5, 5], [5, 5])), True),
        ((60, ([0, 1, 2], 60, [6, 5], [5, 5])), False),
        ((60, ([0, 1, 2], 60, [5, 6], [5, 5])), False),
        ((60, ([0, 1, 2], 60, [5, 5], [6, 5])), False),
        ((60, ([0, 1, 2], 60, [5, 5], [5, 6])), False),
        # One cut alone in common.
        ((60, ([0, 2], 60, [10], [10])), True),
        ((60, ([0, 2], 60, [16], [10])), False),
        # More events than all had: not a part.
        ((60, ([0, 1, 2], 60, [12, 6], [5, 5])), True),
    ],
)
def test_two_life_tables_of_a_cohort(part: tuple[int, Any], may: bool) -> None:
    one, other = curve(100, ALL), curve(part[0], part[1])
    assert are_curves_compatible(one, other, K5) is may
    assert are_curves_compatible(other, one, K5) is may


@pytest.mark.parametrize(("left", "may"), [(5, True), (4, False), (0, True)])
def test_few_at_risk_are_few(left: int, may: bool) -> None:
    # Of 40 others so many are left at the end; ten each had the event or were lost.
    other = curve(60, ([0, 1, 2], 60, [0, 0], [0, 0]))
    one = curve(100, ([0, 1, 2], 100, [10, 10], [10, 10 - left]))
    assert are_curves_compatible(one, other, K5) is may
    assert are_curves_compatible(other, one, K5) is may


def test_all_but_one_group_tell_that_group_more_finely() -> None:
    fine, coarse = ([0, 1, 2], 50, [5, 5], [5, 5]), ([0, 2], 50, [10], [10])
    groups = curve(100, fine, coarse)
    # All less the first group: five and five events of the second, or two and eight.
    assert are_curves_compatible(curve(100, ALL), groups, K5)
    uneven = curve(100, ([0, 1, 2], 100, [7, 13], [10, 10]))
    assert not are_curves_compatible(uneven, groups, K5)
    assert not are_curves_compatible(groups, uneven, K5)
    # Of other patients nothing follows from leaving a group out.
    fewer = curve(60, ([0, 1, 2], 60, [0, 0], [0, 0]))
    apart = curve(100, ([0, 1, 2], 63, [0, 0], [0, 0]), ([0, 1, 2], 37, [10, 10], [5, 5]))
    assert are_curves_compatible(fewer, apart, K5)
    assert are_curves_compatible(apart, fewer, K5)


def test_curves_of_unlike_length_and_number() -> None:
    # Three fewer at risk, and three fewer after the only bin that both have.
    short = curve(97, ([0, 1], 97, [10], [10]))
    assert not are_curves_compatible(curve(100, ALL), short, K5)
    assert not are_curves_compatible(short, curve(100, ALL), K5)
    half = ([0, 1, 2], 50, [5, 5], [5, 5])
    part = curve(60, ([0, 1, 2], 60, [5, 5], [5, 5]))
    assert are_curves_compatible(curve(100, half, half), part, K5)
    assert are_curves_compatible(part, curve(100, half, half), K5)


def test_any_one_group_of_several_may_be_left_over() -> None:
    fine, coarse = ([0, 1, 2], 50, [5, 5], [5, 5]), ([0, 2], 50, [10], [10])
    every = curve(150, ([0, 1, 2], 150, [12, 18], [15, 15]))
    for at in range(3):
        groups = [fine, fine]
        groups.insert(at, coarse)
        # Without the other two, the third had two events and eight.
        assert not are_curves_compatible(every, curve(150, *groups), K5)
        assert not are_curves_compatible(curve(150, *groups), every, K5)


def test_a_group_without_a_curve_is_not_subtracted() -> None:
    shown = curve(100, ([0, 1, 2], 97, [10, 10], [10, 10]))
    hidden = {name: [*shown[name], []] for name in ("edges", "at_risk", "events", "censored")}
    partial = {"n_patients": 100, **hidden}
    assert not are_curves_compatible(curve(100, ALL), partial, K5)
    assert not are_curves_compatible(partial, curve(100, ALL), K5)


# --- positives ------------------------------------------------------------------------------


def classes(n: int, *positives: int) -> Payload:
    return {
        "kind": ClassHistogram.kind,
        "n_patients": n,
        "starts": [[[0], [0]] for _ in positives],
        "counts": [[[n - p], [p]] for p in positives],
    }


@pytest.mark.parametrize(
    ("n", "positives", "apart"),
    [
        (100, 50, True),
        (100, 55, True),
        (100, 54, False),
        (100, 46, False),
        (100, 45, True),
        # Of other patients: nobody lies between.
        (99, 52, True),
    ],
)
def test_positives_at_neighbouring_cut_offs(n: int, positives: int, apart: bool) -> None:
    assert are_positives_apart(classes(100, 20, 50), classes(n, 80, positives), K5) is apart
    assert are_positives_apart(classes(n, positives), classes(100, 50), K5) is apart


def test_which_answers_tell_numbers_of_positives() -> None:
    assert class_sizes(classes(100, 20, 50)) == [20, 50]
    withheld = classes(100, 20, 50)
    withheld["counts"][0] = [[], []]
    assert class_sizes(withheld) == [50]
    withheld["counts"][1] = [[50], []]
    assert class_sizes(withheld) == []
    three = {**classes(100), "counts": [[[1], [2], [3]], [[7]]]}
    assert class_sizes(three) == []
    groups = {**classes(100), "kind": CharacteristicCounts.kind, "counts": [[[80], [20]]]}
    assert class_sizes(groups) == []
    binned = {**classes(100), "counts": [[[10, 70], [5, 15]]]}
    assert class_sizes(binned) == [20]
    assert class_sizes({"kind": "of another version", "values": [[1.0]]}) == []
    moments = {"kind": CharacteristicMoments.kind, "n": [100], "mean": [1.0], "m2": [1.0]}
    assert class_sizes(moments) == []


def test_totals_tell_positives_only_where_rows_are_classes() -> None:
    by_class = [
        kind for kind in registered().values() if getattr(kind, "are_rows_of_classes", False)
    ]
    assert by_class
    for kind in by_class:
        values = [[12.0, 0.5], [], [30.0, 0.25]]
        assert class_sizes({"kind": kind.kind, "values": values}) == [12, 30]
    others = [
        kind
        for kind in registered().values()
        if issubclass(kind, Totals) and not kind.are_rows_of_classes
    ]
    assert others
    for kind in others:
        assert class_sizes({"kind": kind.kind, "values": [[12.0, 0.5]]}) == []


# --- cross tables ---------------------------------------------------------------------------

HIDDEN = "suppressed"


def table(
    fours: list[list[Any]], collapsed: list[list[int]], n: int = 100, matrix: Any = None
) -> Payload:
    return {
        "n_patients": n,
        "matrix": matrix or [[HIDDEN] * 3] * 3,
        "two_by_two": fours,
        "collapsed": collapsed,
    }


def test_a_whole_table_knows_every_number_of_positives() -> None:
    assert known_positives(table([[10, 5, 5, 80]], [], matrix=[[80, 5], [5, 10]])) is None
    one_hidden = table([[10, 5, 5, 80]], [], matrix=[[80, HIDDEN], [5, 10]])
    assert known_positives(one_hidden) == {100, 15}


@pytest.mark.parametrize(
    ("four", "known"),
    [
        ([30, 10, HIDDEN, HIDDEN], {40}),
        ([HIDDEN, HIDDEN, 20, 25], {55}),
        ([30, HIDDEN, 20, HIDDEN], set()),
        ([HIDDEN, 10, HIDDEN, 25], set()),
        ([HIDDEN] * 4, set()),
        ([30, 10, 25, 35], {40}),
    ],
)
def test_rows_of_a_2x2_table_tell_positives(four: list[Any], known: set[int]) -> None:
    assert known_positives(table([four, [HIDDEN] * 4], [])) == {100} | known


def test_a_collapsed_table_tells_positives_at_the_cut_offs_kept() -> None:
    assert known_positives(table([[HIDDEN] * 4] * 2, [[40, 10], [5, 45]])) == {100, 50}
    three = [[20, 1, 2], [3, 24, 10], [5, 15, 20]]
    assert known_positives(table([[HIDDEN] * 4] * 2, three)) == {100, 77, 40}


def test_a_table_turned_has_index_and_reference_exchanged() -> None:
    before = table(
        [[30, 10, 5, 55], [30, 10, HIDDEN, HIDDEN], [HIDDEN, HIDDEN, 5, 55]],
        [[40, 12], [3, 45]],
        matrix=[[40, 12], [3, 45]],
    )
    after = turned(before)
    assert after["two_by_two"] == [[30, 5, 10, 55], [HIDDEN] * 4, [HIDDEN] * 4]
    assert after["collapsed"] == after["matrix"] == [[40, 3], [12, 45]]
    assert after["n_patients"] == 100


def test_classes_of_other_sizes_are_withheld() -> None:
    shown = classes(100, 20, 50)
    kept = without_unknown_classes(shown, {50, 100})
    assert kept["counts"] == [[[], []], [[50], [50]]]
    assert kept["starts"] == [[[], []], [[0], [0]]]
    assert without_unknown_classes(shown, {20, 50}) == shown
    # Half of a pair is none, whatever it adds up to.
    for hidden in (0, 1):
        half = classes(100, 50)
        half["counts"][0][hidden], half["starts"][0][hidden] = [], []
        assert without_unknown_classes(half, {0, 50})["counts"] == [[[], []]]
    totals = {"values": [[20.0, 1.0], [], [50.0, 20.0]], "n_patients": 100}
    assert without_unknown_classes(totals, {20})["values"] == [[20.0, 1.0], [], []]


# --- what is asked --------------------------------------------------------------------------


def test_the_columns_behind_a_digest_of_scores() -> None:
    digest = digest_of(["index", "reference"])
    assert score_pair(("age", "reference", "index"), digest) == ("index", "reference")
    assert score_pair(("age", "index"), digest) is None


def test_a_payload_has_a_shape_by_its_fields() -> None:
    class Own(Moments):
        kind: ClassVar[str] = "not_registered_anywhere"

    payload = Own(n_patients=1, n=(1,), mean=(1.0,), m2=(0.0,)).to_payload()
    assert shape_is(payload, Moments)
    assert not shape_is(payload, Totals)
    assert not shape_is(payload, BinnedCounts)
    assert not shape_is(None, Moments)
    del payload["n"]
    assert not shape_is(payload, Moments)
