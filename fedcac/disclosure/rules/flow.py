"""The flow of patients: stages and exclusions without differences below k."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from fedcac.aggregate.shapes import FlowStage
from fedcac.disclosure.policy import Policy
from fedcac.disclosure.rules.common import HIDDEN, Changes
from fedcac.vocabulary import CellStatus, ExclusionReason

__all__ = ["is_consistent", "protect"]


def is_consistent(flow: Any) -> bool:
    """Say whether the stages fall and end with the patients analysed."""
    counts = [flow.stages[stage] for stage in FlowStage]
    if any(isinstance(count, CellStatus) for count in (*counts, *flow.exclusions.values())):
        return False
    is_falling = all(first >= second for first, second in pairwise(counts))
    return is_falling and counts[-1] == flow.n_patients


def protect(flow: Any, policy: Policy) -> Changes:
    """Suppress small exclusions, and the stages from which they could be derived."""
    k = policy.minimum_cell
    hidden = {reason for reason, count in flow.exclusions.items() if 0 < count < k}
    if hidden:
        is_total_safe = _cover_small_exclusions(flow, hidden, k)
        shown = {flow.n_patients, flow.stages[FlowStage.LISTED]} if is_total_safe else set()
    else:
        shown = _separate_stages(flow, k)
    shown.add(flow.n_patients)
    lost = flow.stages[FlowStage.LISTED] - flow.n_patients
    if 0 < lost < k or 0 < abs(lost - sum(flow.exclusions.values())) < k:
        # Fewer than k patients were lost at all, or without a reason, or counted under two.
        shown = {flow.n_patients}
    return {
        "stages": {s: count if count in shown else HIDDEN for s, count in flow.stages.items()},
        "exclusions": {
            reason: HIDDEN if reason in hidden else count
            for reason, count in flow.exclusions.items()
        },
    }


def _separate_stages(flow: Any, k: int) -> set[int]:
    # From the analysed patients, who stay, upwards: a stage that differs from the last one shown
    # by 1 .. k - 1 patients is suppressed.
    shown = [flow.n_patients]
    for stage in reversed(FlowStage):
        if not 0 < flow.stages[stage] - shown[-1] < k:
            shown.append(flow.stages[stage])
    return set(shown)


def _cover_small_exclusions(flow: Any, hidden: set[ExclusionReason], k: int) -> bool:
    # With a small exclusion, a stage between the first and the last would say at which step it
    # happened, so the caller shows those two only. The suppressed exclusions must be at least two
    # and together at least k, or the total gives them away: others are suppressed beside them,
    # the smallest first. Where none is left to do so, the total has to go, and this is False.
    order = list(ExclusionReason)
    others = sorted(
        (reason for reason, count in flow.exclusions.items() if count >= k),
        key=lambda reason: (flow.exclusions[reason], order.index(reason)),
    )
    while sum(flow.exclusions[reason] for reason in hidden) < k:
        if not others:
            return False
        hidden.add(others.pop(0))
    return True
