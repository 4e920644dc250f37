"""One disclosure rule per shape of aggregate. Each returns what may leave, or a refusal code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from fedcac.aggregate import (
    Aggregate,
    BinnedCounts,
    CrossTable,
    FlowCounts,
    LikelihoodTerms,
    Moments,
    PairedMoments,
    SurvivalTable,
    Totals,
)
from fedcac.disclosure.facts import Earlier
from fedcac.disclosure.policy import Policy
from fedcac.disclosure.rules import bins, cross_tables, flow, life_tables, moments, sums
from fedcac.disclosure.rules.common import Changes, round_to_digits
from fedcac.errors import GateError
from fedcac.vocabulary import RefusalCode

__all__ = ["apply_rule", "check_consistency", "round_to_digits", "rule_shape"]

A = TypeVar("A", bound=Aggregate)


class Rule(NamedTuple):
    """How a shape is judged: whether its numbers agree, and what of them may leave."""

    is_consistent: Callable[[Any], bool]
    protect: Callable[[Any, Policy], Changes]


_RULES: dict[type[Aggregate], Rule] = {
    CrossTable: Rule(cross_tables.is_consistent, cross_tables.protect),
    Moments: Rule(moments.is_consistent, moments.protect),
    PairedMoments: Rule(moments.is_consistent_pair, moments.protect_pair),
    BinnedCounts: Rule(bins.is_consistent_bins, bins.protect_bins),
    SurvivalTable: Rule(life_tables.is_consistent, life_tables.protect),
    LikelihoodTerms: Rule(sums.is_consistent_likelihood, sums.protect_likelihood),
    Totals: Rule(sums.is_consistent_totals, sums.protect_totals),
    FlowCounts: Rule(flow.is_consistent, flow.protect),
}


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
    for shape, rule in _RULES.items():
        if isinstance(aggregate, shape) and not rule.is_consistent(aggregate):
            raise GateError(
                f"The numbers of a {shape.__name__} contradict one another.",
                code="inconsistent_aggregate",
                cure="This is a fault of the estimator, not of the data; nothing has left.",
            )


def apply_rule(
    aggregate: Aggregate, policy: Policy, earlier: Earlier | None = None
) -> Aggregate | RefusalCode:
    """Return the aggregate with everything suppressed that may not leave, or a refusal code.

    The aggregate's type must have a `rule_shape` and pass `check_consistency`. The answer depends
    on the aggregate, the policy and, of a cross table, on what was told before; it carries no
    evidence.
    """
    bare = aggregate.model_copy(update={"evidence": None})
    if policy.is_open:
        return bare
    if aggregate.n_patients < policy.minimum_patients:
        return RefusalCode.TOO_FEW_PATIENTS
    shape = rule_shape(type(aggregate))
    if shape is None:
        return RefusalCode.UNREGISTERED_TYPE
    if isinstance(aggregate, CrossTable):
        changes = cross_tables.protect(aggregate, policy, earlier)
    else:
        changes = _RULES[shape].protect(aggregate, policy)
    return changes if isinstance(changes, RefusalCode) else bare.model_copy(update=changes)
