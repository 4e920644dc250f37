"""What follows from sizes of classes and of categories together: small answers worked by hand.

One cohort of 100 patients in three categories; the table of reference and index is

    30  7  3        40, 30 and 30 patients by the reference, of whom 60 and 30 are above its
     6 20  4        cut-offs; 37, 36 and 27 by the index, 63 and 27 above.
     1  9 20
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from fedcac.canonical import digest_of
from fedcac.disclosure import LedgerEntry, Question, load_policy
from fedcac.disclosure.classes import (
    beside_tables,
    is_of_classes,
    tells_few_between,
    tells_withheld_categories,
)
from fedcac.statistics.agreement import ConfusionCounts
from fedcac.statistics.auc import AucTotals, ClassHistogram
from fedcac.statistics.comparison import PairedCells
from fedcac.statistics.descriptives import CharacteristicCounts
from fedcac.statistics.kaplan_meier import KaplanMeierTable

K5 = load_policy("research")
BOTH = ("index", "reference")
HIDDEN = "suppressed"

Payload = dict[str, Any]


def question(
    columns: Sequence[str] = BOTH, scores: Sequence[str] = BOTH, cohort: str = "cohort"
) -> Question:
    return Question(
        round_id="round-1",
        protocol_digest=digest_of("protocol"),
        exchange=1,
        analysis="analysis",
        analysis_digest=digest_of("analysis"),
        query_digest=digest_of("query"),
        cohort_digest=digest_of(cohort),
        scores_digest=digest_of(list(scores)),
        categories_digest=digest_of("categories"),
        columns=tuple(columns),
    )


def entry(
    payload: Payload,
    columns: Sequence[str] = BOTH,
    scores: Sequence[str] = BOTH,
    cohort: str = "cohort",
) -> LedgerEntry:
    return LedgerEntry.model_construct(
        payload=payload,
        columns=tuple(columns),
        scores_digest=digest_of(list(scores)),
        cohort_digest=digest_of(cohort),
    )


def table(*two_by_two: list[Any], n: int = 100) -> Payload:
    """Return a table of which nothing but these 2x2 tables (tp, fn, fp, tn) was told."""
    size = len(two_by_two) + 1
    return {
        "kind": ConfusionCounts.kind,
        "n_patients": n,
        "matrix": [[HIDDEN] * size] * size,
        "two_by_two": list(two_by_two),
        "kept_cut_offs": [],
        "collapsed": [],
    }


LOWER, HIGHER, NONE = [53, 7, 10, 30], [20, 10, 7, 63], [HIDDEN] * 4
PARTIAL = table(LOWER, NONE)
"""Tells 60 positives by the reference, 63 by the index."""


def classes(*positives: int, n: int = 100) -> Payload:
    return {
        "kind": ClassHistogram.kind,
        "n_patients": n,
        "starts": [[[0], [0]] for _ in positives],
        "counts": [[[n - k], [k]] for k in positives],
    }


def totals(*positives: int, n: int = 100) -> Payload:
    values = [[float(k), float(n - k), 0.5] for k in positives]
    return {"kind": AucTotals.kind, "n_patients": n, "values": values}


def curves(*sizes: int | None, n: int = 100) -> Payload:
    return {
        "kind": KaplanMeierTable.kind,
        "n_patients": n,
        "edges": [[0, 1] if size else [] for size in sizes],
        "at_risk": [[size, 10] if size else [] for size in sizes],
        "events": [[1] if size else [] for size in sizes],
        "censored": [[1] if size else [] for size in sizes],
        "n_events": 0,
    }


def by_group(sizes: list[int], *variables: list[list[int]], n: int = 100) -> Payload:
    """Return a table of characteristics: the groups' sizes, then variables by group."""
    counts = [[sizes], *variables]
    return {
        "kind": CharacteristicCounts.kind,
        "n_patients": n,
        "starts": [[list(range(len(row))) for row in groups] for groups in counts],
        "counts": counts,
    }


def shown_of(payload: Payload) -> list[bool]:
    if "values" in payload:
        return [bool(row) for row in payload["values"]]
    return [all(groups) for groups in payload["counts"]]


# --- classes beside a table -----------------------------------------------------------------


def test_which_answers_tell_classes() -> None:
    assert is_of_classes(classes(60))
    assert is_of_classes(totals(60))
    assert not is_of_classes(curves(40, 30, 30))
    assert not is_of_classes(by_group([50, 50], [[25, 25], [25, 25]]))
    assert not is_of_classes(PARTIAL)
    assert not is_of_classes({"kind": "of_a_plugin_that_is_gone"})


@pytest.mark.parametrize("answer", [classes, totals])
@pytest.mark.parametrize(
    ("two_by_two", "expected"),
    [
        # Of 60, 30 and 63 positives; 63 are those of the index, by which the classes are not.
        ((LOWER, NONE), [True, False, False]),
        ((NONE, HIGHER), [False, True, False]),
        ((LOWER, HIGHER), [True, True, False]),
        ((NONE, NONE), [False, False, False]),
        # One row of a 2x2 table tells them as well; one number of a row does not.
        (([53, 7, HIDDEN, HIDDEN], NONE), [True, False, False]),
        (([HIDDEN, HIDDEN, 10, 30], NONE), [True, False, False]),
        (([53, HIDDEN, 10, HIDDEN], NONE), [False, False, False]),
        (([HIDDEN, 7, HIDDEN, 30], NONE), [False, False, False]),
    ],
)
def test_classes_stay_that_a_table_of_the_same_scores_told(
    answer: Any, two_by_two: tuple[list[Any], ...], expected: list[bool]
) -> None:
    released = answer(60, 30, 63)
    beside = beside_tables(question(), released, [entry(table(*two_by_two))])
    assert shown_of(beside) == expected
    # What is not withheld is as it was.
    name = "values" if "values" in released else "counts"
    for before, after, is_shown in zip(released[name], beside[name], expected, strict=True):
        assert after == before or not is_shown


@pytest.mark.parametrize(
    ("columns", "scores", "expected"),
    [
        # Of 60, 63 and 30: by the table's reference; by its index; by either.
        (("other", "reference"), ("other", "reference"), [True, False, False]),
        (("index", "other"), ("other", "index"), [False, True, False]),
        (BOTH, ("reference", "index"), [False, True, False]),
        (("age", *BOTH), ("age", "age"), [True, True, False]),
        # The classes are of a third score, but the answer reads one of the table's.
        (("other", "reference"), ("reference", "other"), [True, False, False]),
        (("index", "other"), ("index", "other"), [False, True, False]),
        # Which of its columns are scores is not known.
        (("age", "reference"), ("age", "age"), [True, False, False]),
        (("age", "index"), ("age", "age"), [False, True, False]),
        # It reads neither.
        (("age", "other"), ("other", "age"), [True, True, True]),
        (("age", "other"), ("age", "age"), [True, True, True]),
    ],
)
def test_classes_beside_a_table_of_other_scores(
    columns: tuple[str, ...], scores: tuple[str, str], expected: list[bool]
) -> None:
    beside = beside_tables(question(columns, scores), classes(60, 63, 30), [entry(PARTIAL)])
    assert shown_of(beside) == expected


def test_a_table_withholds_nothing_of_others() -> None:
    released = classes(60, 30)
    whole = {**table(LOWER, HIGHER), "matrix": [[30, 7, 3], [6, 20, 4], [1, 9, 20]]}
    elsewhere = entry(PARTIAL, cohort="elsewhere")
    other_scores = question(("other", "reference"), ("other", "reference"))
    for asked, past in (
        (question(), entry(whole)),
        (question(), elsewhere),
        (question(), entry(curves(40, None, 30))),
        # Other scores of as many patients are those of the same; of fewer they are not.
        (other_scores, entry(table([43, 7, 10, 30], NONE, n=90))),
    ):
        assert beside_tables(asked, released, [past]) == released
    # The same scores are judged whatever the number: the table tells of 50 positives.
    fewer = entry(table([43, 7, 10, 30], NONE, n=90))
    assert shown_of(beside_tables(question(), classes(50, 30), [fewer])) == [True, False]
    # What comes after the others is judged as well.
    past = [elsewhere, entry(curves(40, 30, 30)), entry(whole), entry(PARTIAL)]
    assert shown_of(beside_tables(question(), classes(60, 31), past)) == [True, False]


def test_answers_by_category_are_not_taken_for_classes() -> None:
    # Two groups, of which the second is not of the positives.
    released = by_group([50, 50], [[25, 25], [25, 25]])
    assert beside_tables(question(), released, [entry(PARTIAL)]) == released
    assert beside_tables(question(), PARTIAL, [entry(PARTIAL)]) == PARTIAL


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        # Of 60, 30, 25 and 70.
        (entry(classes(25)), [True, False, True, False]),
        (entry(totals(25)), [True, False, True, False]),
        (entry(classes(25), columns=("reference",)), [True, False, True, False]),
        (entry(classes(25), columns=("age", "index")), [True, False, False, False]),
        (entry(classes(25), cohort="elsewhere"), [True, False, False, False]),
        (entry(classes(25, n=101)), [True, False, False, False]),
        (entry(curves(40, 30, 30)), [True, True, False, False]),
        (entry(curves(30, 45, 25)), [True, False, True, True]),
        # Of which categories a positive is, is not known where one is missing.
        (entry(curves(30, None, 25)), [True, False, False, False]),
        (entry(curves(40, 30, None)), [True, False, False, False]),
        (entry(by_group([40, 35, 25], [[40], [35], [25]])), [True, False, True, False]),
        # Of groups whose sizes are not told one by one those of the variables.
        (entry(by_group([100], [[20, 10], [45], [5, 20]])), [True, False, True, True]),
    ],
)
def test_numbers_of_positives_told_before_the_table(
    before: LedgerEntry, expected: list[bool]
) -> None:
    released = classes(60, 30, 25, 70)
    for past in ([before, entry(PARTIAL)], [entry(PARTIAL), before]):
        assert shown_of(beside_tables(question(), released, past)) == expected
        assert shown_of(beside_tables(question(), totals(60, 30, 25, 70), past)) == expected


# --- two tests at once ----------------------------------------------------------------------


def cells(negative: tuple[list[int], list[int]], positive: tuple[list[int], list[int]]) -> Payload:
    """Return patients by class, and by where bins of two tests at once start."""
    sides = (negative, positive)
    return {
        "kind": PairedCells.kind,
        "n_patients": 100,
        "starts": [[firsts for firsts, _ in sides]],
        "counts": [[row for _, row in sides]],
    }


FOUR, HALVES = [0, 1, 2, 3], [0, 2]
ALL_NEGATIVE, ALL_POSITIVE = ([0], [40]), ([0], [60])


@pytest.mark.parametrize(
    ("negative", "positive", "is_shown"),
    [
        # Above the lower cut-off the index has 10 of the 40 negatives and 53 of the 60 positives.
        ((HALVES, [30, 10]), (HALVES, [7, 53]), True),
        ((HALVES, [29, 11]), (HALVES, [7, 53]), False),
        ((HALVES, [30, 10]), (HALVES, [8, 52]), False),
        ((HALVES, [30, 10]), ALL_POSITIVE, True),
        ((HALVES, [29, 11]), ALL_POSITIVE, False),
        (ALL_NEGATIVE, (HALVES, [7, 53]), True),
        (ALL_NEGATIVE, (HALVES, [8, 52]), False),
        (ALL_NEGATIVE, ALL_POSITIVE, True),
        # Of three bins the first test's are two on one side.
        (([0, 1, 2], [20, 10, 10]), ALL_POSITIVE, True),
        (([0, 1, 2], [10, 10, 20]), ALL_POSITIVE, False),
        (([0, 1, 2], [10, 19, 11]), ALL_POSITIVE, False),
        (([0, 2, 3], [30, 4, 6]), ALL_POSITIVE, True),
        (([0, 2, 3], [4, 30, 6]), ALL_POSITIVE, False),
        (ALL_NEGATIVE, ([0, 2, 3], [7, 20, 33]), True),
        # Of four the first test's are the first two, the second's every other.
        ((FOUR, [20, 10, 4, 6]), ALL_POSITIVE, True),
        ((FOUR, [20, 4, 10, 6]), ALL_POSITIVE, True),
        ((FOUR, [20, 4, 6, 10]), ALL_POSITIVE, False),
        ((FOUR, [20, 10, 4, 6]), (FOUR, [3, 4, 23, 30]), True),
        ((FOUR, [20, 10, 4, 6]), (FOUR, [3, 23, 4, 30]), True),
        ((FOUR, [20, 10, 4, 6]), (FOUR, [3, 23, 30, 4]), False),
        # A histogram, whose bins end elsewhere.
        (([0, 2, 8], [5, 24, 11]), ALL_POSITIVE, True),
        (([0, 2, 4], [5, 24, 11]), ALL_POSITIVE, True),
        (([0, 4, 8], [5, 24, 11]), ALL_POSITIVE, True),
    ],
)
def test_cells_of_two_tests_tell_no_row_that_a_table_withheld(
    negative: tuple[list[int], list[int]], positive: tuple[list[int], list[int]], is_shown: bool
) -> None:
    released = cells(negative, positive)
    withheld = {**released, "starts": [[[], []]], "counts": [[[], []]]}
    beside = beside_tables(question(), released, [entry(PARTIAL)])
    assert beside == (released if is_shown else withheld)
    # By the table's reference, of another index and with a third score as well.
    third = question((*BOTH, "third"), ("third", "reference"))
    assert beside_tables(third, released, [entry(PARTIAL)]) == beside
    # Of which score the classes are is not known: the table is taken as it is.
    unknown = question((*BOTH, "third"), ("third", "third"))
    assert beside_tables(unknown, released, [entry(PARTIAL)]) == beside
    # A table of another index has nothing to do with it.
    another = entry(PARTIAL, ("another", "reference"), ("another", "reference"))
    assert beside_tables(question(), released, [another]) == released


def test_rows_are_those_of_the_same_class_and_known_both() -> None:
    # A positives' row does not tell the negatives'.
    both = table([53, 7, HIDDEN, HIDDEN], [HIDDEN, HIDDEN, 7, 63])
    known = entry(totals(60, 30))
    # Of 40 negatives 7 and 33 would be new.
    released = cells((HALVES, [33, 7]), (HALVES, [7, 53]))
    assert not shown_of(beside_tables(question(), released, [known, entry(both)]))[0]
    released = cells(ALL_NEGATIVE, (HALVES, [7, 53]))
    assert shown_of(beside_tables(question(), released, [known, entry(both)]))[0]
    one_number = table([53, HIDDEN, 10, 30], NONE)
    assert not shown_of(beside_tables(question(), released, [known, entry(one_number)]))[0]


def test_rows_of_a_table_whose_index_the_classes_are_of() -> None:
    # By the index 63 are positive, of whom the reference has 10 below and 53 above.
    asked = question((*BOTH, "third"), ("third", "index"))
    for row, is_shown in (([10, 53], True), ([7, 56], False), ([53, 10], True)):
        released = cells(([0], [37]), (HALVES, row))
        assert shown_of(beside_tables(asked, released, [entry(PARTIAL)])) == [is_shown]
    for row, is_shown in (([30, 7], True), ([29, 8], False)):
        released = cells((HALVES, row), ([0], [63]))
        assert shown_of(beside_tables(asked, released, [entry(PARTIAL)])) == [is_shown]


# --- categories beside a table --------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "two_by_two", "is_told"),
    [
        # Of 60 positives and 40 negatives.
        ((40, None, None), (LOWER, NONE), False),
        ((60, None, None), (LOWER, NONE), False),
        ((None, None, None), (LOWER, NONE), False),
        ((40, 30, 30), (LOWER, NONE), True),
        ((None, 30, None), (LOWER, NONE), True),
        ((40, None, 30), (LOWER, NONE), True),
        ((None, None, 31), (LOWER, NONE), True),
        ((40, 30, 30), (LOWER, HIGHER), False),
        ((40, 31, 29), (LOWER, HIGHER), True),
        # Groups that cannot be the table's.
        ((50, 50), (LOWER, NONE), False),
        ((25, 25, 25, 25), (LOWER, NONE), False),
        # 63 by the index.
        ((37, None, 63), (LOWER, NONE), False),
        ((37, 36, 27), (LOWER, NONE), True),
    ],
)
def test_sizes_of_categories_that_a_table_withheld(
    sizes: tuple[int | None, ...], two_by_two: tuple[list[Any], ...], is_told: bool
) -> None:
    past = [entry(table(*two_by_two))]
    assert tells_withheld_categories(question(), curves(*sizes), past) is is_told


def test_categories_of_which_score() -> None:
    by_reference, by_index = curves(40, None, 60), curves(37, None, 63)
    past = [entry(PARTIAL)]
    for columns, released, is_told in (
        (("age", "reference"), by_reference, False),
        (("age", "reference"), by_index, True),
        (("age", "index"), by_index, False),
        (("age", "index"), by_reference, True),
        # By another column altogether.
        (("age", "sex"), curves(41, 31, 28), False),
    ):
        asked = question(columns, ("age", "age"))
        assert tells_withheld_categories(asked, released, past) is is_told
    # A table that does not fit, or is of other scores, hides none behind it.
    first = [entry(table(LOWER)), entry(PARTIAL, ("a", "b"), ("a", "b"))]
    asked = question(("age", "reference"), ("age", "age"))
    assert tells_withheld_categories(asked, by_index, [*first, *past])
    assert not tells_withheld_categories(asked, by_index, first)


def test_categories_that_were_told_before() -> None:
    sizes = curves(40, 30, 30)
    assert tells_withheld_categories(question(), sizes, [entry(PARTIAL)])
    for before in (curves(40, 30, 30), classes(30), totals(30), by_group([40, 30, 30], [[1]] * 3)):
        assert not tells_withheld_categories(question(), sizes, [entry(before), entry(PARTIAL)])
    for other in (
        entry(curves(40, 30, 30), ("age", "sex"), ("age", "sex")),
        entry(curves(40, 30, 30), cohort="elsewhere"),
        entry(classes(30, n=99)),
        entry(curves(40, None, 30)),
    ):
        assert tells_withheld_categories(question(), sizes, [other, entry(PARTIAL)])
    # What was told of one table's scores is not told of another's beside it.
    second = entry(PARTIAL, ("index", "other"), ("index", "other"))
    asked = question(("index", "other", "reference"), ("age", "age"))
    assert tells_withheld_categories(asked, curves(40, 30, 30), [second, entry(PARTIAL)])


@pytest.mark.parametrize(
    ("released", "is_told"),
    [
        (by_group([40, 30, 30], [[40], [30], [30]]), True),
        (by_group([40, 60, 0], [[40], [60], []]), False),
        # Sizes that the first variable tells together, by those of the others: of 30 in the second.
        (by_group([100], [[20, 20], [], [60]]), False),
        (by_group([100], [[20, 20], [10, 20], []]), True),
        (by_group([100], [[40], [], []], [[10, 30], [20, 10], []]), True),
        # The variable that is known of most.
        (by_group([100], [[40], [], []], [[38], [], []]), False),
        (by_group([100], [[38], [], []], [[40], [], []]), False),
        (by_group([100], [[], [], []]), False),
        # Without a variable by group nothing is told of groups.
        (by_group([40, 30, 30]), False),
        # Histograms of one group.
        (by_group([100], [[30, 70]]), False),
        (classes(30, 31, 32), False),
    ],
)
def test_groups_of_characteristics_as_categories(released: Payload, is_told: bool) -> None:
    assert tells_withheld_categories(question(), released, [entry(PARTIAL)]) is is_told


# --- few between two cut-offs ---------------------------------------------------------------


def few_with(
    released: Payload, *past: Payload | LedgerEntry, asked: Question | None = None
) -> bool:
    entries = [one if isinstance(one, LedgerEntry) else entry(one) for one in past]
    return tells_few_between(asked or question(), released, entries, K5)


@pytest.mark.parametrize(
    ("sizes", "few"),
    [
        # Positives that differ by one to four from 60 or 30, or from nobody or all.
        ((40, 30, 30), {26, 27, 28, 29, 31, 32, 33, 34, 56, 57, 58, 59, 61, 62, 63, 64}),
        # 30 in the highest category; at most 60 above the lowest.
        ((40, None, 30), {26, 27, 28, 29, 31, 32, 33, 34, 56, 57, 58, 59, 61, 62, 63, 64}),
        # Only 30 and above, 60 and below: all but 40 are the second and third together.
        ((40, None, None), {56, 57, 58, 59, 61, 62, 63, 64}),
        ((None, None, 30), {26, 27, 28, 29, 31, 32, 33, 34}),
    ],
)
@pytest.mark.parametrize("answer", [classes, totals])
def test_positives_beside_sizes_of_categories(
    answer: Any, sizes: tuple[int | None, ...], few: set[int]
) -> None:
    told = curves(*sizes)
    for positives in range(1, 100):
        released = answer(positives)
        # Nothing follows from others, whichever cut-off they belong to.
        assert few_with(released, told) is (positives in few), positives
        assert few_with(told, released) is (positives in few), positives


def test_only_answers_about_the_same_patients_and_score() -> None:
    sizes, other = curves(40, 30, 30), classes(33)
    assert few_with(other, sizes)
    assert not few_with(other, entry(sizes, cohort="elsewhere"))
    assert not few_with(other, curves(40, 30, 31, n=101))
    # What reads the reference is beside classes by it; classes are not by the index.
    assert few_with(other, entry(sizes, ("age", "reference"), ("age", "age")))
    assert not few_with(other, entry(sizes, ("age", "index"), ("age", "age")))
    by_index = question(BOTH, ("reference", "index"))
    assert few_with(other, entry(sizes, ("age", "index"), ("age", "age")), asked=by_index)
    assert not few_with(other, entry(sizes, ("age", "reference"), ("age", "age")), asked=by_index)
    # By which score classes are that belong to one is not known where no pair fits.
    unknown = question(("index", "reference"), ("age", "age"))
    assert few_with(other, entry(sizes, ("age", "index"), ("age", "age")), asked=unknown)


def test_all_that_was_told_is_compared() -> None:
    # Both were told before, as a policy that was open then let them; a table is judged elsewhere.
    assert not few_with(PARTIAL, curves(40, 30, 30), classes(33))
    # Two answers by class are compared with one another elsewhere.
    assert not few_with(classes(60, 33), classes(30))
    # An answer by category or class is refused then.
    assert few_with(classes(60), curves(40, 30, 30), classes(33))
    assert few_with(curves(40, 30, 30), classes(60), classes(33))
    assert not few_with(curves(40, 30, 30), classes(60), classes(30))
    assert few_with(classes(60, 33), classes(30), curves(40, 30, 30))
    assert few_with(classes(33), classes(30), PARTIAL, curves(None, 30, None), curves(40, 30, 30))


@pytest.mark.parametrize(
    ("sizes", "positives", "is_few"),
    [
        # 1-10 shown: of 52 to 54 negatives 2 to 4 are below it, of 50 nobody, of 55 enough.
        ((None, 50, None, None), [50], False),
        ((None, 50, None, None), [49], True),
        ((None, 50, None, None), [46], True),
        ((None, 50, None, None), [45], False),
        # Of 52 positives two are above; it is not known whether it is above or below.
        ((None, None, 50, None), [52], True),
        ((None, None, 50, None), [55], False),
        # Between two cut-offs: 3 and 5 beside the 40 that are shown.
        ((None, 20, None, 30, None), [33, 73], True),
        ((None, 20, None, 30, None), [35, 75], False),
        # Two classes, of which one alone leaves no few.
        ((None, 20, None, 30, None), [75], False),
        ((None, 20, None, 30, None), [35], False),
        ((None, 40, None, 10, None), [20, 75], False),
        ((None, 40, None, 10, None), [32, 75], True),
        # Beside a category that is not shown nothing is taken off.
        ((30, None, None, 40), [50], False),
        ((30, None, None, 40), [55, 50], False),
    ],
)
def test_what_is_left_beside_the_categories_shown(
    sizes: tuple[int | None, ...], positives: list[int], is_few: bool
) -> None:
    told = classes(*positives)
    assert few_with(told, curves(*sizes)) is is_few
    assert few_with(curves(*sizes), told) is is_few
    if len(positives) == 2:
        first, second = (classes(number) for number in positives)
        assert few_with(first, curves(*sizes), second) is is_few
        assert few_with(curves(*sizes), second, first) is is_few


@pytest.mark.parametrize(
    ("one", "other", "is_few"),
    [
        # Together all but three, but five.
        ((None, 40, None, 30), (27, 40, None, None), True),
        ((None, 40, None, 30), (25, 40, None, None), False),
        ((None, 40, None, None), (27, None, None, 30), True),
        # Of the same categories only if the sizes are equal that both show, and as many.
        ((None, 40, None, 30), (27, 41, None, None), False),
        ((None, 40, None, 30), (27, None, None, 31), False),
        ((None, 40, None, 30), (27, None, None), False),
        ((None, 40, None, 30), (27, None, None, None, None), False),
    ],
)
def test_two_answers_that_show_different_categories(
    one: tuple[int | None, ...], other: tuple[int | None, ...], is_few: bool
) -> None:
    assert few_with(curves(*one), curves(*other)) is is_few
    assert few_with(curves(*other), curves(*one)) is is_few
    # A third answer between them that shows none changes nothing.
    assert few_with(curves(*one), curves(*(None for _ in one)), curves(*other)) is is_few


def test_whatever_is_few_between_two_true_cut_offs_is_found() -> None:
    rng = np.random.default_rng(3)
    n_few = 0
    for _ in range(400):
        sizes = rng.choice([0, 1, 3, 4, 6, 20, 40], 4).tolist()
        shown = [size if size > 4 and rng.random() < 0.6 else None for size in sizes]
        n = sum(sizes)
        numbers = {cut: sum(sizes[cut:]) for cut in range(1, 4) if rng.random() < 0.6}
        ends = {0: n, **numbers, 4: 0}
        left = [
            ends[low] - ends[high] - sum(size or 0 for size in shown[low:high])
            for low, high in combinations(ends, 2)
            if any(shown[low:high])
        ]
        if numbers and any(0 < size < 5 for size in left):
            n_few += 1
            assert few_with(classes(*numbers.values(), n=n), curves(*shown, n=n))
            assert few_with(curves(*shown, n=n), classes(*numbers.values(), n=n))
    assert n_few > 100


def test_categories_of_enough_are_told_beside_a_class() -> None:
    # The lower two are hidden for another reason than their size, the class is their boundary: all
    # but 66 and 30 are 4, but nobody is above the highest category and everybody in some.
    assert not few_with(classes(66), curves(None, None, 30))
    assert not few_with(curves(None, None, 30), classes(66))
