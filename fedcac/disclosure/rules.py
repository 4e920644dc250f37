"""One disclosure rule per shape of aggregate. Each returns what may leave, or a refusal code."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar

from fedcac.aggregate import Aggregate, Count, CrossTable, FlowCounts, LikelihoodTerms, Moments
from fedcac.aggregate.shapes import FlowStage
from fedcac.disclosure.cross_table import Matrix, protect_table, two_by_two_tables
from fedcac.disclosure.policy import Policy
from fedcac.errors import GateError
from fedcac.vocabulary import CellStatus, ExclusionReason, RefusalCode

__all__ = ["apply_rule", "check_consistency", "round_to_digits", "rule_shape"]

HIDDEN = CellStatus.SUPPRESSED

A = TypeVar("A", bound=Aggregate)


def round_to_digits(number: float, digits: int) -> float:
    """Return a number rounded to so many significant decimal digits."""
    return float(f"{number:.{digits - 1}e}")


def rule_shape(aggregate_type: type[Aggregate]) -> type[Aggregate] | None:
    """Return the one shape an aggregate type declares, or None if the gate has no rule for it.

    A type with a field that its shape does not declare has no rule either: nobody would look at
    that field.
    """
    shapes = [shape for shape in _RULES if issubclass(aggregate_type, shape)]
    if len(shapes) != 1 or set(aggregate_type.model_fields) != set(shapes[0].model_fields):
        return None
    return shapes[0]


def check_consistency(aggregate: Aggregate) -> None:
    """Check that an aggregate's own numbers agree, so that a rule judges the true counts.

    Raises
    ------
    GateError
        If a count is not the sum it must be, a cell is suppressed before the gate, or evidence
        that the shape's rule needs is missing (`inconsistent_aggregate`).
    """
    for shape, check in _CHECKS.items():
        if isinstance(aggregate, shape) and not check(aggregate):
            raise GateError(
                f"The numbers of a {shape.__name__} contradict one another.",
                code="inconsistent_aggregate",
                cure="This is a fault of the estimator, not of the data; nothing has left.",
            )


def apply_rule(aggregate: Aggregate, policy: Policy) -> Aggregate | RefusalCode:
    """Return the aggregate with everything suppressed that may not leave, or a refusal code.

    The aggregate's type must have a `rule_shape` and pass `check_consistency`. The answer depends
    on the aggregate and the policy alone, and carries no evidence.
    """
    bare = aggregate.model_copy(update={"evidence": None})
    if policy.is_open:
        return bare
    if aggregate.n_patients < policy.minimum_patients:
        return RefusalCode.TOO_FEW_PATIENTS
    shape = rule_shape(type(aggregate))
    if shape is None:
        return RefusalCode.UNREGISTERED_TYPE
    changes = _RULES[shape](aggregate, policy)
    return changes if isinstance(changes, RefusalCode) else bare.model_copy(update=changes)


Changes = dict[str, Any] | RefusalCode


def _digits(aggregate: Aggregate, policy: Policy) -> int:
    return min(policy.significant_digits, type(aggregate).significant_digits)


def _numbers(matrix: tuple[tuple[Count, ...], ...]) -> Matrix:
    return tuple(
        tuple(count for count in row if not isinstance(count, CellStatus)) for row in matrix
    )


# --- cross tables ---------------------------------------------------------------------------


def _is_consistent_table(table: Any) -> bool:
    matrix = _numbers(table.matrix)
    return (
        matrix == table.matrix
        and two_by_two_tables(matrix) == table.two_by_two
        and sum(map(sum, matrix)) == table.n_patients
        and not table.kept_cut_offs
        and not table.collapsed
    )


def _protect_cross_table(table: Any, policy: Policy) -> Changes:
    matrix = _numbers(table.matrix)
    safe = protect_table(matrix, policy.minimum_cell, policy.zero_is_small)
    if safe.is_whole:
        return {}
    cells = two_by_two_tables(matrix)
    return {
        "matrix": tuple((HIDDEN,) * len(row) for row in matrix),
        "two_by_two": tuple(
            (
                *(four[:2] if (cut_off, True) in safe.rows else (HIDDEN, HIDDEN)),
                *(four[2:] if (cut_off, False) in safe.rows else (HIDDEN, HIDDEN)),
            )
            for cut_off, four in enumerate(cells)
        ),
        "kept_cut_offs": safe.kept_cut_offs,
        "collapsed": safe.collapsed,
    }


# --- moments --------------------------------------------------------------------------------


def _is_consistent_moments(moments: Any) -> bool:
    cells = (*moments.n, *moments.mean, *moments.m2)
    return not any(isinstance(cell, CellStatus) for cell in cells) and all(
        n <= moments.n_patients and m2 >= 0 for n, m2 in zip(moments.n, moments.m2, strict=True)
    )


def _protect_moments(moments: Any, policy: Policy) -> Changes:
    digits = _digits(moments, policy)
    # Two numbers of patients that differ by fewer than k describe the few by subtraction. Terms
    # are compared in their order with everything kept before them, the cohort's number first.
    shown = [moments.n_patients]
    n: list[Count] = []
    mean: list[float | CellStatus] = []
    m2: list[float | CellStatus] = []
    for count, centre, spread in zip(moments.n, moments.mean, moments.m2, strict=True):
        if count < policy.minimum_patients or any(
            0 < abs(count - other) < policy.minimum_cell for other in shown
        ):
            n.append(HIDDEN)
            mean.append(HIDDEN)
            m2.append(HIDDEN)
            continue
        shown.append(count)
        n.append(count)
        mean.append(round_to_digits(centre, digits))
        m2.append(round_to_digits(spread, digits))
    return {"n": tuple(n), "mean": tuple(mean), "m2": tuple(m2)}


# --- likelihood terms -----------------------------------------------------------------------


def _is_consistent_likelihood(terms: Any) -> bool:
    return (
        terms.evidence is not None
        and terms.evidence.n_parameters == len(terms.gradient)
        and terms.n_events <= terms.n_patients
    )


def _protect_likelihood(terms: Any, policy: Policy) -> Changes:
    code = _refuse_likelihood(terms, policy)
    if code is not None:
        return code
    digits = _digits(terms, policy)
    return {
        "log_likelihood": round_to_digits(terms.log_likelihood, digits),
        "gradient": tuple(round_to_digits(number, digits) for number in terms.gradient),
        "information": tuple(
            tuple(round_to_digits(number, digits) for number in row) for row in terms.information
        ),
    }


def _refuse_likelihood(terms: Any, policy: Policy) -> RefusalCode | None:
    # A site is one stratum, so the minimum number of events also bars a single-event stratum,
    # whose gradient is the event's own covariates. The event-free are a cell as well.
    limits, seen = policy.cox, terms.evidence
    if terms.n_events < limits.minimum_events or policy.is_small(terms.n_patients - terms.n_events):
        return RefusalCode.TOO_FEW_EVENTS
    if seen.smallest_group is not None and seen.smallest_group < limits.minimum_per_category:
        return RefusalCode.TOO_FEW_PER_CATEGORY
    if len(terms.gradient) > limits.maximum_parameters_per_patient * terms.n_patients:
        return RefusalCode.TOO_MANY_PARAMETERS
    # Far from zero the likelihood's weights settle on single patients.
    if not abs(seen.parameter_norm) <= limits.maximum_parameter_norm:
        return RefusalCode.PARAMETERS_OUT_OF_BOUNDS
    return None


# --- flow counts ----------------------------------------------------------------------------


def _is_consistent_flow(flow: Any) -> bool:
    counts = [flow.stages[stage] for stage in FlowStage]
    if any(isinstance(count, CellStatus) for count in (*counts, *flow.exclusions.values())):
        return False
    is_falling = all(first >= second for first, second in pairwise(counts))
    return is_falling and counts[-1] == flow.n_patients


def _protect_flow(flow: Any, policy: Policy) -> Changes:
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
    while len(hidden) < 2 or sum(flow.exclusions[reason] for reason in hidden) < k:
        if not others:
            return False
        hidden.add(others.pop(0))
    return True


_RULES: dict[type[Aggregate], Callable[[Any, Policy], Changes]] = {
    CrossTable: _protect_cross_table,
    Moments: _protect_moments,
    LikelihoodTerms: _protect_likelihood,
    FlowCounts: _protect_flow,
}

_CHECKS: dict[type[Aggregate], Callable[[Any], bool]] = {
    CrossTable: _is_consistent_table,
    Moments: _is_consistent_moments,
    LikelihoodTerms: _is_consistent_likelihood,
    FlowCounts: _is_consistent_flow,
}
