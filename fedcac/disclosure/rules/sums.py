"""Likelihood terms and totals: sums over patients, judged by what stands behind them."""

from __future__ import annotations

from typing import Any

from fedcac.aggregate import Evidence
from fedcac.disclosure.policy import Policy
from fedcac.disclosure.rules.common import (
    Changes,
    kept_of_nested,
    round_to_digits,
    rounded,
    significant_digits,
)
from fedcac.vocabulary import RefusalCode

__all__ = [
    "is_consistent_likelihood",
    "is_consistent_totals",
    "protect_likelihood",
    "protect_totals",
]


def is_consistent_likelihood(terms: Any) -> bool:
    """Say whether the evidence is there and fits the gradient, and events are patients."""
    return (
        terms.evidence is not None
        and terms.evidence.n_parameters == len(terms.gradient)
        and terms.n_events <= terms.n_patients
    )


def is_consistent_totals(totals: Any) -> bool:
    """Say whether nothing is suppressed yet and the evidence names the smallest groups."""
    seen = totals.evidence
    return (
        seen is not None
        and seen.smallest_group is not None
        and all(totals.values)
        and all(
            len(given) in (0, len(totals.values))
            for given in (seen.row_groups, seen.row_blocks, seen.nested)
        )
        and (totals.n_events is None or totals.n_events <= totals.n_patients)
    )


def protect_likelihood(terms: Any, policy: Policy) -> Changes:
    """Refuse a likelihood that few patients or events determine; round the rest."""
    code = _refuse_events(terms, policy) or _refuse_design(terms, policy)
    if code is not None:
        return code
    digits = significant_digits(terms, policy)
    return {
        "log_likelihood": round_to_digits(terms.log_likelihood, digits),
        "gradient": rounded((terms.gradient,), digits)[0],
        "information": rounded(terms.information, digits),
    }


def protect_totals(totals: Any, policy: Policy) -> Changes:
    """Refuse sums, or rows, with too few events or a small group behind them; round the rest."""
    if totals.n_events is not None and (code := _refuse_events(totals, policy)):
        return code
    seen, least = totals.evidence, policy.cox.minimum_per_category
    groups = seen.row_groups or (seen.smallest_group,) * len(totals.values)
    if seen.smallest_group < least:
        return RefusalCode.TOO_FEW_PER_CATEGORY
    if not abs(seen.parameter_norm) <= policy.cox.maximum_parameter_norm:
        return RefusalCode.PARAMETERS_OUT_OF_BOUNDS
    is_kept = kept_of_nested(seen.nested, [group >= least for group in groups], policy)
    _complete_blocks(seen, groups, is_kept, least)
    if not any(is_kept):
        return RefusalCode.TOO_FEW_PER_CATEGORY
    shown = tuple(row if kept else () for row, kept in zip(totals.values, is_kept, strict=True))
    return {"values": rounded(shown, significant_digits(totals, policy))}


def _complete_blocks(
    seen: Evidence, groups: tuple[int, ...], is_kept: list[bool], least: int
) -> None:
    # The sum over a block is known, from a row of all patients or a likelihood. What is left of
    # it when the rows shown are taken off must be about enough patients as well: the smallest
    # rows are emptied beside those that must be.
    for block in set(seen.row_blocks) - {-1}:
        rows = [row for row, own in enumerate(seen.row_blocks) if own == block]
        hidden = [groups[row] for row in rows if not is_kept[row]]
        shown = sorted((row for row in rows if is_kept[row]), key=lambda row: groups[row])
        while hidden and shown and sum(hidden) < least:
            smallest = shown.pop(0)
            is_kept[smallest] = False
            hidden.append(groups[smallest])


def _refuse_events(sums: Any, policy: Policy) -> RefusalCode | None:
    # A site is one stratum, so the minimum number of events also bars a single-event stratum,
    # whose gradient is the event's own covariates. The event-free are a cell as well.
    is_few = sums.n_events < policy.cox.minimum_events
    if is_few or policy.is_small(sums.n_patients - sums.n_events):
        return RefusalCode.TOO_FEW_EVENTS
    return None


def _refuse_design(terms: Any, policy: Policy) -> RefusalCode | None:
    limits, seen = policy.cox, terms.evidence
    if seen.smallest_group is not None and seen.smallest_group < limits.minimum_per_category:
        return RefusalCode.TOO_FEW_PER_CATEGORY
    # The gradient tells the positives at every cut-off, and one cut-off cannot be left out.
    if not all(kept_of_nested(seen.nested, [True] * len(seen.nested), policy)):
        return RefusalCode.TOO_FEW_PER_CATEGORY
    if len(terms.gradient) > limits.maximum_parameters_per_patient * terms.n_patients:
        return RefusalCode.TOO_MANY_PARAMETERS
    # Far from zero the likelihood's weights settle on single patients.
    if not abs(seen.parameter_norm) <= limits.maximum_parameter_norm:
        return RefusalCode.PARAMETERS_OUT_OF_BOUNDS
    return None
