"""What a release means beside earlier ones: how much was told, and which tables may coexist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedcac.aggregate import (
    BinnedCounts,
    CrossTable,
    FlowCounts,
    Moments,
    PairedMoments,
    SurvivalTable,
)
from fedcac.aggregate.base import registered
from fedcac.disclosure.differences import (
    are_bins_compatible,
    are_curves_compatible,
    are_positives_apart,
    score_pair,
    shape_is,
)
from fedcac.disclosure.ledger import LedgerEntry
from fedcac.disclosure.policy import Policy
from fedcac.disclosure.question import Question
from fedcac.disclosure.rules import rule_shape
from fedcac.disclosure.rules.common import is_few
from fedcac.vocabulary import CellStatus

__all__ = [
    "are_compatible",
    "is_near_duplicate",
    "is_told_otherwise",
    "is_whole",
    "numbers_released",
    "shape_is",
]

Payload = Mapping[str, Any]


def numbers_released(payload: Payload) -> int:
    """Return how many real numbers a released likelihood or table of totals tells.

    Of a likelihood: its value, the gradient, and the information's upper triangle without the
    entries that are zero by design, between models that share no parameter.
    """
    if "information" in payload:
        rows = payload["information"]
        filled = sum(
            1 for i, row in enumerate(rows) for j in range(i, len(row)) if i == j or row[j] != 0
        )
        return 1 + len(payload["gradient"]) + filled
    return sum(len(row) for row in payload["values"])


def is_near_duplicate(
    question: Question,
    released: Payload,
    entry: LedgerEntry,
    policy: Policy,
    is_judged: bool = False,
) -> bool:
    """Say whether few patients follow from an answer and an earlier one by subtraction.

    `is_judged`: a cross table was protected given all that earlier ones tell (`facts.py`).
    """
    payload: Payload = entry.payload or {}
    gap = abs(payload["n_patients"] - released["n_patients"])
    if entry.cohort_digest != question.cohort_digest:
        if _is_flow_of(question, released, entry):
            return is_few(gap, policy)
        return gap < policy.minimum_cell and _is_alike(question, released, entry)
    if is_few(gap, policy):
        return True
    before, now = _n_events(payload), _n_events(released)
    if before is not None and now is not None and _count_alike(payload, released):
        # Parts of the events follow as parts of the patients do.
        if is_few(abs(before - now), policy):
            return True
    return not _may_stand_beside(question, released, entry, policy, is_judged)


def is_told_otherwise(
    question: Question, released: Payload, past: Sequence[LedgerEntry], *, is_masked: bool
) -> bool:
    """Say whether the same patients were told of by themselves, and otherwise than in a sum.

    Whoever knows what most sites told by themselves, and a sum over them and another, knows that
    one: its cells from their tables, its events from their models, its gradient from their own. It
    is no matter that this site withheld nothing; another might have. Means and sums of squares
    follow from nothing but themselves, and may stand beside the rest.
    """
    shape = rule_shape(registered()[released["kind"]])
    is_moments = shape in (Moments, PairedMoments)
    return any(
        bool(entry.least_sites) != is_masked
        and _are_same_patients(question, entry)
        and is_moments == any(shape_is(entry.payload, kind) for kind in (Moments, PairedMoments))
        for entry in past
    )


def _are_same_patients(question: Question, entry: LedgerEntry) -> bool:
    # A cohort's digest covers its columns, and another protocol may ask for one more.
    is_known = question.patients_digest is not None
    return entry.cohort_digest == question.cohort_digest or (
        is_known and entry.patients_digest == question.patients_digest
    )


def _is_flow_of(question: Question, released: Payload, entry: LedgerEntry) -> bool:
    """Say whether one of two answers is the flow of the cohort that the other is about.

    The flow has a digest of its own. It tells the number of all patients of the cohort, so that
    few without a value follow from it as from any other answer.
    """
    payload: Payload = entry.payload or {}
    is_flow, was_flow = (shape_is(told, FlowCounts) for told in (released, payload))
    if was_flow and not is_flow:
        return bool(payload["n_patients"] == question.cohort_size)
    return is_flow and not was_flow and entry.protocol_digest == question.protocol_digest


def _is_alike(question: Question, released: Payload, entry: LedgerEntry) -> bool:
    # The same shape about the same scores can be subtracted, whatever analysis it is for.
    if entry.analysis_digest == question.analysis_digest:
        return True
    shape = rule_shape(registered()[released["kind"]])
    return (
        shape is not None
        and shape_is(entry.payload, shape)
        and entry.scores_digest == question.scores_digest
    )


def _may_stand_beside(
    question: Question, released: Payload, entry: LedgerEntry, policy: Policy, is_judged: bool
) -> bool:
    payload: Payload = entry.payload or {}
    kind = registered()[released["kind"]]
    is_cut_alike = entry.categories_digest == question.categories_digest
    if issubclass(kind, CrossTable) and shape_is(payload, CrossTable):
        if entry.scores_digest != question.scores_digest:
            if is_judged:
                return True
            is_apart = is_cut_alike or not _have_one_score(question, entry)
            return is_apart and is_whole(payload) and is_whole(released)
        return is_cut_alike and are_compatible(payload, released, policy)
    if issubclass(kind, SurvivalTable) and shape_is(payload, SurvivalTable):
        return is_cut_alike and are_curves_compatible(payload, released, policy)
    earlier = registered().get(payload["kind"])
    if not are_positives_apart(payload, released, policy):
        return False
    if issubclass(kind, BinnedCounts) and kind is earlier:
        return are_bins_compatible(payload, released, policy)
    return True


def _have_one_score(question: Question, entry: LedgerEntry) -> bool:
    """Say whether two tables are about one score both; cut otherwise, it is cut more finely."""
    one = score_pair(question.columns, question.scores_digest)
    other = score_pair(entry.columns, entry.scores_digest)
    return bool(one and other and set(one) & set(other))


def _count_alike(one: Payload, other: Payload) -> bool:
    """Say whether two answers count the same sort of event."""
    kinds = [registered().get(payload["kind"]) for payload in (one, other)]
    return kinds[0] is kinds[1] or all(kind is not None and kind.has_endpoint for kind in kinds)


def _n_events(payload: Payload) -> int | None:
    events = payload.get("n_events")
    return events if isinstance(events, int) else None


def are_compatible(one: Payload, other: Payload, policy: Policy) -> bool:
    """Say whether two tables of the same scores, cut alike, may both be known of one cohort.

    The same table may. Two whole tables of unequal size are those of a group and a part of it if
    one is nowhere larger: then every difference is a count too, and must not be small. Anything
    withheld from either could follow from the other.
    """
    names = ("matrix", "two_by_two", "kept_cut_offs", "collapsed")
    if all(one[name] == other[name] for name in names):
        return True
    if not (is_whole(one) and is_whole(other)) or one["n_patients"] == other["n_patients"]:
        return False
    first, second = np.array(one["matrix"]), np.array(other["matrix"])
    difference = first - second if first.sum() > second.sum() else second - first
    is_part = bool(np.all(difference >= 0))
    return not is_part or not any(policy.is_small(int(count)) for count in difference.flat)


def is_whole(table: Payload) -> bool:
    """Say whether every cell of a released cross table is shown."""
    return not any(count == CellStatus.SUPPRESSED.value for row in table["matrix"] for count in row)
