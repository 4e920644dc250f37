"""Answers by class or category, beside cross tables that withheld how large these are.

A ledger does not say at which cut-offs an answer divides the patients, but an answer whose numbers
were all told before tells nothing about them. Other numbers are withheld.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any

from fedcac.aggregate import BinnedCounts, CrossTable, SurvivalTable
from fedcac.aggregate.base import registered
from fedcac.disclosure.differences import (
    class_sizes,
    known_positives,
    score_pair,
    shape_is,
    turned,
    without_unknown_classes,
)
from fedcac.disclosure.ledger import LedgerEntry
from fedcac.disclosure.policy import Policy
from fedcac.disclosure.question import Question
from fedcac.disclosure.rules.common import is_few

__all__ = ["beside_tables", "is_of_classes", "tells_few_between", "tells_withheld_categories"]

Payload = Mapping[str, Any]


def is_of_classes(payload: Payload) -> bool:
    """Say whether an answer tells how many patients are positive at a cut-off."""
    kind = registered().get(payload["kind"])
    return kind is not None and bool(
        getattr(kind, "are_groups_nested", False) or getattr(kind, "are_rows_of_classes", False)
    )


def beside_tables(
    question: Question, released: dict[str, Any], past: Sequence[LedgerEntry]
) -> dict[str, Any]:
    """Withhold classes whose sizes, or whose parts, a cross table of a score of theirs withheld.

    `past`: every release that somebody has seen.
    """
    if not is_of_classes(released):
        return released
    pair = score_pair(question.columns, question.scores_digest)
    for table, scores, is_same in _partial_tables(question, released, past):
        # The classes are those of the reference; where that is not known, of any score both read.
        reference = scores[0] if is_same else pair[1] if pair and pair[1] in scores else None
        sides = [reference] if reference else [c for c in scores if c in question.columns]
        known: set[int] = set()
        for side in sides:
            known |= _known(table, scores, side) | _told(question, released, side, past)
        if sides:
            released = without_unknown_classes(released, known)
        if set(scores) <= set(question.columns) and "starts" in released:
            own = table if not reference or reference == scores[0] else turned(table)
            released = _without_untold_parts(released, own)
    return released


def tells_withheld_categories(
    question: Question, released: Payload, past: Sequence[LedgerEntry]
) -> bool:
    """Say whether an answer by category tells sizes that a cross table of the score withheld."""
    sizes = _sizes(released)
    for table, scores, _ in _partial_tables(question, released, past):
        sides = [column for column in scores if column in question.columns]
        if len(sizes) != len(table["matrix"]) or not sides:
            continue
        known = {0}
        for side in sides:
            known |= _known(table, scores, side) | _told(question, released, side, past)
        if not {size for size in sizes if size} <= {a - b for a in known for b in known}:
            return True
    return False


def tells_few_between(
    question: Question, released: Payload, past: Sequence[LedgerEntry], policy: Policy
) -> bool:
    """Say whether sizes of categories and numbers of positives of a score differ by few.

    Among as many patients. Both count those above a cut-off, so that few lie between two of them.
    Where a category is withheld, what is left between two cut-offs when the categories shown there
    are taken off must not be few either.
    """
    if not (class_sizes(released) or _sizes(released)):
        return False
    told: list[tuple[Question | LedgerEntry, Payload]] = [(question, released)]
    for entry in past:
        payload: Payload = entry.payload or {}
        is_same = payload["n_patients"] == released["n_patients"]
        if entry.cohort_digest == question.cohort_digest and is_same:
            told.append((entry, payload))
    lists = [_sizes(payload) for _, payload in told]
    for (of_sizes, payload), sizes in zip(told, lists, strict=True):
        if not sizes:
            continue
        classes = {
            size
            for of_classes, other in told
            if _class_columns(of_classes) & set(of_sizes.columns)
            for size in class_sizes(other)
        }
        if any(is_few(abs(a - b), policy) for a in classes for b in _above(payload)):
            return True
        if _are_few_left(_joined(sizes, lists), classes, released["n_patients"], policy):
            return True
    return False


def _joined(sizes: Sequence[int | None], lists: Sequence[Sequence[int | None]]) -> list[int | None]:
    """Return sizes of categories with those that answers by the same categories tell besides.

    Which answers these are is not known: as many groups, and equal where both tell a size.
    """
    joined = list(sizes)
    for other in lists:
        pairs = list(zip(joined, other, strict=False))
        if len(other) == len(joined) and all(None in pair or len({*pair}) == 1 for pair in pairs):
            joined = [second if first is None else first for first, second in pairs]
    return joined


def _are_few_left(
    sizes: Sequence[int | None], known: set[int], n_patients: int, policy: Policy
) -> bool:
    """Say whether few are left between two cut-offs beside the categories shown there.

    `known` are numbers above cut-offs. At which is not known, but a number above a cut-off is at
    least that of the categories shown above it, and leaves room for those shown below it. Above the
    lower end of the lowest category are all patients, above the upper end of the highest is nobody.
    """
    shown = [size or 0 for size in sizes]
    inner = [
        [n for n in known if sum(shown[cut:]) <= n <= n_patients - sum(shown[:cut])]
        for cut in range(1, len(shown))
    ]
    numbers = [[n_patients], *inner, [0]]
    return any(
        is_few(upper - lower - sum(shown[low:high]), policy)
        for low, high in combinations(range(len(numbers)), 2)
        # Where none is shown, nothing is taken off.
        if any(shown[low:high])
        for upper, lower in product(numbers[low], numbers[high])
    )


def _class_columns(asked: Question | LedgerEntry) -> set[str]:
    """Return the columns of which an answer's classes may be."""
    pair = score_pair(asked.columns, asked.scores_digest)
    return {pair[1]} if pair else set(asked.columns)


def _above(payload: Payload) -> set[int]:
    """Return how many are above any boundary between categories, as far as sizes tell it."""
    sizes, n = _sizes(payload), payload["n_patients"]
    cuts = range(1, len(sizes))
    upper = {sum(k for k in sizes[i:] if k) for i in cuts if None not in sizes[i:]}
    return upper | {n - sum(k for k in sizes[:i] if k) for i in cuts if None not in sizes[:i]}


def _partial_tables(
    question: Question, released: Payload, past: Sequence[LedgerEntry]
) -> Iterator[tuple[Payload, tuple[str, str], bool]]:
    """Yield earlier tables, their reference and index column, and whether the answer has the same.

    Of other scores only those of as many patients: the same ones.
    """
    for entry in past:
        table: Payload = entry.payload or {}
        if entry.cohort_digest != question.cohort_digest or not shape_is(table, CrossTable):
            continue
        is_same = entry.scores_digest == question.scores_digest
        is_near = is_same or table["n_patients"] == released["n_patients"]
        if is_near and known_positives(table) is not None:
            pair = score_pair(entry.columns, entry.scores_digest) or ("", "")
            yield table, (pair[1], pair[0]), is_same


def _known(table: Payload, scores: tuple[str, str], column: str) -> set[int]:
    return known_positives(table if column == scores[0] else turned(table)) or set()


def _told(
    question: Question, released: Payload, column: str, past: Sequence[LedgerEntry]
) -> set[int]:
    """Return how many are in the upper classes or categories of a score, as told before."""
    told: set[int] = set()
    for entry in past:
        payload: Payload = entry.payload or {}
        is_about = entry.cohort_digest == question.cohort_digest and column in entry.columns
        if is_about and payload["n_patients"] == released["n_patients"]:
            told.update(class_sizes(payload))
            sizes = _sizes(payload)
            if None not in sizes:
                told.update(sum(n for n in sizes[i:] if n) for i in range(len(sizes)))
    return told


def _sizes(payload: Payload) -> list[int | None]:
    """Return the sizes of the groups that an answer sorts patients into; None: not told."""
    if shape_is(payload, SurvivalTable):
        return [row[0] if row else None for row in payload["at_risk"]]
    kind = registered().get(payload["kind"])
    is_binned = kind is not None and issubclass(kind, BinnedCounts) and kind.has_common_grid
    if not is_binned or len(payload["counts"]) < 2:
        return []
    # The first variable of a table of characteristics is the groups' sizes. Where it does not
    # tell them one by one, the variables after it tell those of the groups that they show.
    own, *variables = payload["counts"]
    if len(own[0]) == len(variables[0]):
        return list(own[0])
    return [
        max((sum(groups[number]) for groups in variables if groups[number]), default=None)
        for number in range(len(variables[0]))
    ]


def _without_untold_parts(released: dict[str, Any], table: Payload) -> dict[str, Any]:
    """Withhold variables that tell rows of a 2x2 table, as tables of two tests do, not told."""
    told = [
        {
            (min(row), max(row))
            for row in (four[at : at + 2] for four in table["two_by_two"])
            if all(isinstance(n, int) for n in row)
        }
        for at in (2, 0)
    ]
    starts, counts = [], []
    for firsts, groups in zip(released["starts"], released["counts"], strict=True):
        is_told = len(groups) != 2 or all(
            _is_told(first, row, known)
            for first, row, known in zip(firsts, groups, told, strict=True)
        )
        starts.append(firsts if is_told else [[] for _ in firsts])
        counts.append(groups if is_told else [[] for _ in groups])
    return {**released, "starts": starts, "counts": counts}


def _is_told(starts: Sequence[int], row: Sequence[int], known: set[tuple[int, int]]) -> bool:
    if 2 not in starts or max(starts) > 3:
        # All in one, or a histogram: the bins of a score end elsewhere than its categories.
        return True
    half = starts.index(2)
    parts = [(sum(row[:half]), sum(row[half:]))]
    if len(starts) == 4:
        parts.append((row[0] + row[2], row[1] + row[3]))
    return any((min(part), max(part)) in known for part in parts)
