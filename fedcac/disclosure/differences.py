"""What follows when histograms or life tables of one cohort are subtracted from one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise, permutations, product
from typing import Any

from fedcac.aggregate import Aggregate, BinnedCounts, Totals
from fedcac.aggregate.base import registered
from fedcac.canonical import digest_of
from fedcac.disclosure.policy import Policy
from fedcac.disclosure.rules.common import is_few

__all__ = [
    "are_bins_compatible",
    "are_curves_compatible",
    "are_positives_apart",
    "class_sizes",
    "known_positives",
    "score_pair",
    "shape_is",
    "turned",
    "without_unknown_classes",
]

Payload = Mapping[str, Any]

Steps = dict[int, tuple[int, ...]]
"""Cumulated counts by place on a grid: of patients before a bin, or of a life table at an edge."""


def are_bins_compatible(one: Payload, other: Payload, policy: Policy) -> bool:
    """Say whether two tables of bins of one cohort may both be known.

    Not if one table's patients, less those that the other shows, are few in a bin. Which variable
    is the same in both is not known, so each is compared with each.
    """
    pairs = product(_variables(one), _variables(other))
    return not any(
        _tells_few(first, one["n_patients"], second, other["n_patients"], policy)
        for first, second in pairs
    )


def are_curves_compatible(one: Payload, other: Payload, policy: Policy) -> bool:
    """Say whether two life tables of one cohort, on the same days, may both be known."""
    first, second = _groups_of_curve(one), _groups_of_curve(other)
    n, m = one["n_patients"], other["n_patients"]
    parts = [(first, second)]
    if n == m:
        # All but one group of the same patients: what is left is that group, cut more finely.
        parts += [(first, _without(second, i)) for i in range(len(second))]
        parts += [(_without(first, i), second) for i in range(len(first))]
    return not any(_tells_few(a, n, b, m, policy) for a, b in parts)


def are_positives_apart(one: Payload, other: Payload, policy: Policy) -> bool:
    """Say whether no two numbers of positives of the same patients differ by few."""
    if one["n_patients"] != other["n_patients"]:
        return True
    pairs = product(class_sizes(one), class_sizes(other))
    return not any(is_few(abs(a - b), policy) for a, b in pairs)


def class_sizes(payload: Payload) -> list[int]:
    """Return the numbers of positives that a histogram by class, or totals by class, tell."""
    kind = registered().get(payload["kind"])
    if kind is not None and issubclass(kind, Totals) and kind.are_rows_of_classes:
        return [round(row[0]) for row in payload["values"] if row]
    if kind is not None and issubclass(kind, BinnedCounts) and kind.are_groups_nested:
        return [sum(groups[1]) for groups in payload["counts"] if len(groups) == 2 and groups[1]]
    return []


def shape_is(payload: Payload | None, shape: type[Aggregate]) -> bool:
    """Say whether a payload has a shape's fields; its kind may no longer be installed."""
    names = set(shape.model_fields) - {"evidence"}
    return payload is not None and names <= set(payload)


def score_pair(columns: Sequence[str], scores_digest: str) -> tuple[str, str] | None:
    """Return the index and the reference column of a digest of scores, if they are among these."""
    return _pairs(tuple(sorted(columns))).get(scores_digest)


@lru_cache(maxsize=32)
def _pairs(columns: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    return {digest_of(list(pair)): pair for pair in permutations(columns, 2)}


def known_positives(table: Payload) -> set[int] | None:
    """Return the numbers of positives that a released cross table tells; None if it is whole."""
    if not any(_is_hidden(count) for row in table["matrix"] for count in row):
        return None
    n = table["n_patients"]
    known = {n}
    for tp, fn, fp, tn in table["two_by_two"]:
        if not (_is_hidden(tp) or _is_hidden(fn)):
            known.add(tp + fn)
        if not (_is_hidden(fp) or _is_hidden(tn)):
            known.add(n - fp - tn)
    for row in range(len(table["collapsed"])):
        known.add(sum(map(sum, table["collapsed"][row:])))
    return known


def turned(table: Payload) -> dict[str, Any]:
    """Return a released cross table with index and reference exchanged.

    A row of its 2x2 tables is shown if both of its numbers are.
    """
    fours = []
    for tp, fn, fp, tn in table["two_by_two"]:
        is_shown = not any(map(_is_hidden, (tp, fn, fp, tn)))
        fours.append([tp, fp, fn, tn] if is_shown else ["suppressed"] * 4)
    return {
        **table,
        "matrix": [list(column) for column in zip(*table["matrix"], strict=True)],
        "two_by_two": fours,
        "collapsed": [list(column) for column in zip(*table["collapsed"], strict=True)],
    }


def without_unknown_classes(payload: Payload, known: set[int]) -> dict[str, Any]:
    """Return a histogram by class, or totals by class, without other numbers of positives."""
    if "values" in payload:
        rows = [row if row and round(row[0]) in known else [] for row in payload["values"]]
        return {**payload, "values": rows}
    shown = [
        # Where one class is withheld, so is its number.
        bool(groups[0] and groups[1] and sum(groups[1]) in known)
        for groups in payload["counts"]
    ]
    parts = {
        name: [
            groups if kept else [[] for _ in groups]
            for groups, kept in zip(payload[name], shown, strict=True)
        ]
        for name in ("starts", "counts")
    }
    return {**payload, **parts}


def _is_hidden(count: Any) -> bool:
    return not isinstance(count, int)


def _without(groups: Sequence[Steps], position: int) -> list[Steps]:
    return [group for i, group in enumerate(groups) if i != position]


def _variables(table: Payload) -> Iterator[list[Steps]]:
    for starts, counts in zip(table["starts"], table["counts"], strict=True):
        yield [_steps(first, row) for first, row in zip(starts, counts, strict=True) if first]


def _steps(starts: Sequence[int], counts: Sequence[int]) -> Steps:
    before = 0
    steps: Steps = {}
    for start, count in zip(starts, counts, strict=True):
        steps[start] = (before,)
        before += count
    # Beyond every grid.
    steps[_END] = (before,)
    return steps


_END = 1 << 62


def _groups_of_curve(table: Payload) -> list[Steps]:
    groups: list[Steps] = []
    for edges, at_risk, events, censored in zip(
        table["edges"], table["at_risk"], table["events"], table["censored"], strict=True
    ):
        if not edges:
            continue
        steps: Steps = {edges[0]: (0, 0, at_risk[0])}
        died, left = 0, at_risk[0]
        for edge, event, lost in zip(edges[1:], events, censored, strict=True):
            died, left = died + event, left - event - lost
            steps[edge] = (died, at_risk[0] - left - died, left)
        groups.append(steps)
    return groups


def _tells_few(
    one: Sequence[Steps], n: int, other: Sequence[Steps], m: int, policy: Policy
) -> bool:
    """Say whether the larger table's patients, less the smaller's, are few somewhere."""
    if not one or not other:
        return False
    places = sorted(set.intersection(*(set(group) for group in (*one, *other))))
    first, second = _sum(one, places), _sum(other, places)
    return (n >= m and _are_few_left(first, second, policy)) or (
        m >= n and _are_few_left(second, first, policy)
    )


def _are_few_left(
    whole: Sequence[tuple[int, ...]], part: Sequence[tuple[int, ...]], policy: Policy
) -> bool:
    rest = [
        tuple(a - b for a, b in zip(x, y, strict=True)) for x, y in zip(whole, part, strict=True)
    ]
    counts = [b - a for x, y in pairwise(rest) for a, b in zip(x[:2], y[:2], strict=True)]
    counts += [row[2] for row in rest if len(row) > 2]
    # A negative number says that the second is no part of the first.
    return all(count >= 0 for count in counts) and any(is_few(count, policy) for count in counts)


def _sum(groups: Sequence[Steps], places: Sequence[int]) -> list[tuple[int, ...]]:
    return [
        tuple(sum(parts) for parts in zip(*(group[place] for group in groups), strict=True))
        for place in places
    ]
