"""Words that comparisons of two and of several rounds share."""

from __future__ import annotations

from fedcac.report.rounds_compared import RATIOS, ComparedRound, ComparedRow
from fedcac.report.wording import PERCENT_MEASURES, number_words
from fedcac.statistics.estimator import Estimate
from fedcac.vocabulary import Measure

__all__ = [
    "HEADLINES",
    "PATIENTS_WORDS",
    "change_words",
    "size_words",
    "value_words",
]


_REASONS = {
    "patients_unknown": "no interval: not said whether the patients differ",
    "same_patients": "no interval: same patients",
    "no_interval": "no interval: a round has none",
    "only_first": "not in round B",
    "only_second": "not in round A",
    "no_number": "not in both rounds",
}
HEADLINES = frozenset(
    {
        Measure.KAPPA_UNWEIGHTED,
        Measure.KAPPA_LINEAR,
        Measure.SENSITIVITY,
        Measure.SPECIFICITY,
        Measure.PPV,
        Measure.NPV,
        Measure.AUC,
        Measure.BIAS,
        Measure.HAZARD_RATIO,
        Measure.C_INDEX,
    }
)

PATIENTS_WORDS = {
    "different": "The rounds are said to be about different patients. Intervals of a change "
    "treat them as independent samples: the distances of both values' limits are added in squares "
    "(Zou and Donner 2008); for proportions with Wilson's limits (Newcombe 1998), whatever limits "
    "the protocol asks for. Sites that took part in both may "
    "be alike in ways that no interval covers.",
    "same": "The rounds are about the same patients. Their values are correlated, and only the "
    "patients' own pairs of values say how much; aggregates do not hold those. No interval of a "
    "change is valid, and none is given. A protocol with an analysis of kind 'comparison' asks the "
    "sites for paired tables and gives one.",
    "unknown": "Nobody has said whether the rounds are about the same patients. If they are, no "
    "interval of a change follows from aggregates, so none is given; if they are not, state "
    "'--patients different'.",
}


def size_words(told: ComparedRound, site: str) -> str:
    """Return how many patients a site analysed, or why that is not known."""
    if site not in told.n_analysed:
        return "not in this round"
    n = told.n_analysed[site]
    return "not released" if n is None else f"{n:,}"


def value_words(row: Estimate | None) -> str:
    """Return a round's value in words, or what stands in its place."""
    if row is None:
        return "not computed"
    return row.status.value.replace("_", " ") if row.estimate is None else number_words(row)


def change_words(row: ComparedRow) -> str:
    """Return a change with its interval, or why it has none."""
    if row.change is None:
        return _REASONS[row.reason]
    factor = 100.0 if row.measure in PERCENT_MEASURES else 1.0
    places = 1 if row.measure in {*PERCENT_MEASURES, Measure.BIAS} else 3
    sign = "" if row.measure in RATIOS else "+"
    number = f"{sign}z.{places}f"
    text = f"{factor * row.change:{number}}"
    if row.low is not None and row.high is not None:
        text += f" ({factor * row.low:{number}}, {factor * row.high:{number}})"
    else:
        text += f"; {_REASONS[row.reason]}"
    return text.replace("-", "\N{MINUS SIGN}")
