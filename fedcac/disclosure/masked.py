"""What a site may add to a sum over sites whose parts nobody sees.

The coordinator learns the sum over at least so many sites and nothing of one of them. Rules about
what a single site shows are therefore relaxed, and those about what a sum can tell are kept:

- counts may be of any size, for nobody sees whose they are;
- means and sums of squares are added where at least `minimum_cell` of the site's patients stand
  behind them, so that a sum is about that many whoever else adds to it; otherwise nothing is added;
- of a likelihood or of totals every site must bear its share: where a site alone needs k patients,
  events or patients in a group, it needs k divided by the least number of sites here. As every site
  of the sum does, the sum has k behind it.
"""

from __future__ import annotations

from fedcac.aggregate import (
    Aggregate,
    BinnedCounts,
    CrossTable,
    Moments,
    PairedMoments,
    SurvivalTable,
    Totals,
)
from fedcac.disclosure.policy import Policy
from fedcac.disclosure.rules import apply_rule
from fedcac.vocabulary import RefusalCode

__all__ = ["LEAST_SITES", "are_counts_alone", "judge", "patients_behind", "shared"]

LEAST_SITES = 3
"""Of a sum over two each knows the other's part."""

_COUNTS = (CrossTable, BinnedCounts, SurvivalTable)
_TERMS = (Moments, PairedMoments)


def shared(limit: int, least_sites: int) -> int:
    """Return a site's share of a limit that a sum over so many sites must reach."""
    return -(-limit // least_sites)


def are_counts_alone(aggregate_type: type[Aggregate]) -> bool:
    """Say whether a type holds numbers of patients and nothing else."""
    return issubclass(aggregate_type, _COUNTS)


def patients_behind(n_patients: int, least_sites: int) -> int:
    """Return for how many patients a site may reckon where numbers are held against patients.

    Every site of the sum holds them against its own, so many times over. The smallest one is
    therefore the bound, and there are at least so many times its patients behind the sum.
    """
    return least_sites * n_patients


def judge(aggregate: Aggregate, policy: Policy, least_sites: int) -> Aggregate | RefusalCode:
    """Return what a site adds to the sum, without evidence, or a refusal code."""
    bare = aggregate.model_copy(update={"evidence": None})
    if policy.is_open:
        return bare
    relaxed = _relaxed(policy, least_sites)
    if aggregate.n_patients < relaxed.minimum_patients:
        return RefusalCode.TOO_FEW_PATIENTS
    if are_counts_alone(type(aggregate)):
        return bare
    if isinstance(aggregate, _TERMS):
        least = max(policy.minimum_cell, relaxed.minimum_patients)
        return apply_rule(aggregate, policy.model_copy(update={"minimum_patients": least}))
    judged = apply_rule(aggregate, relaxed)
    if isinstance(judged, Totals) and not all(judged.values):
        # A row left out at one site would be that of the others in the sum, and not comparable.
        return RefusalCode.TOO_FEW_PER_CATEGORY
    return judged


def _relaxed(policy: Policy, least_sites: int) -> Policy:
    limits = policy.cox
    cox = limits.model_copy(
        update={
            "maximum_parameters_per_patient": limits.maximum_parameters_per_patient * least_sites,
            "minimum_events": shared(limits.minimum_events, least_sites),
            "minimum_per_category": shared(limits.minimum_per_category, least_sites),
        }
    )
    return policy.model_copy(
        update={
            "minimum_cell": shared(policy.minimum_cell, least_sites),
            "minimum_patients": shared(policy.minimum_patients, least_sites),
            "zero_is_small": False,
            "cox": cox,
        }
    )
