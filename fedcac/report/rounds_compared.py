"""Two rounds of one protocol side by side: what changed, and how sure that is.

A difference of two pooled values has an interval only if the rounds are about different patients.
Values of the same patients are correlated, by how much only the patients' pairs of values say, and
aggregates do not hold those: the analysis `comparison` of a protocol asks the sites for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fedcac.errors import UsageError
from fedcac.statistics.estimator import META, Estimate
from fedcac.statistics.intervals import wilson
from fedcac.vocabulary import Interval, Measure, RowStatus

__all__ = [
    "RATIOS",
    "ComparedRound",
    "ComparedRow",
    "Patients",
    "compare_rounds",
    "difference_interval",
    "usable_limits",
]

Patients = Literal["different", "same", "unknown"]

RATIOS = frozenset({Measure.HAZARD_RATIO, Measure.OE_RATIO})
"""Measures compared by their ratio, on the log scale."""

_NOT_COMPARED = frozenset(
    {
        Measure.COUNT,
        Measure.LOG_HAZARD_RATIO,
        Measure.PREDICTION_INTERVAL,
        Measure.Q,
        Measure.I2,
        Measure.TAU2,
        Measure.TAU2_REML,
    }
)
_PROPORTIONS = frozenset(
    {
        Measure.SENSITIVITY,
        Measure.SPECIFICITY,
        Measure.PPV,
        Measure.NPV,
        Measure.ACCURACY,
    }
)
_WITHOUT = "without "

Three = tuple[float, float, float]

Key = tuple[str, str, Measure, str, str]


@dataclass(frozen=True)
class ComparedRound:
    """One round as its output folder tells it. `n_analysed` is by site, None if not released."""

    round_id: str
    finished: str
    package: str
    protocol_id: str
    protocol_version: int
    protocol_digest: str
    estimates: tuple[Estimate, ...]
    n_analysed: Mapping[str, int | None]
    policies: Mapping[str, str]

    @property
    def sites(self) -> tuple[str, ...]:
        """The invited sites."""
        return tuple(self.n_analysed)


@dataclass(frozen=True)
class ComparedRow:
    """One value in both rounds.

    Attributes
    ----------
    first, second
        The rows; None where a round has none.
    change
        Second minus first, or second over first for a ratio (`RATIOS`); None if either has no
        number.
    low, high
        95% interval of the change; None if it would not be valid.
    reason
        Why there is no interval: `patients_unknown`, `same_patients`, `no_interval` (one of the
        two has none); why there is no change: `only_first`, `only_second`, `no_number`. Empty
        otherwise.
    """

    analysis: str
    scope: str
    measure: Measure
    group: str
    term: str
    first: Estimate | None
    second: Estimate | None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""


def compare_rounds(
    first: ComparedRound, second: ComparedRound, patients: Patients
) -> tuple[ComparedRow, ...]:
    """Return every value that both or either round has: pooled, between sites, and per site.

    Raises
    ------
    UsageError
        If the rounds are not of one protocol (`other_protocol`), or are said to be of different
        patients and have the same counts of the reference standard (`same_patients`).
    """
    if first.protocol_digest != second.protocol_digest:
        raise UsageError(
            f"The rounds follow different protocols: {first.protocol_id} version "
            f"{first.protocol_version}, and {second.protocol_id} version "
            f"{second.protocol_version}.",
            code="other_protocol",
            cure="Compare rounds of one protocol and version, pooled in the same way; other "
            "definitions give other values, and `fedcac protocol diff` names them.",
        )
    if patients == "different" and (shared := _alike(first, second)):
        raise UsageError(
            f"The rounds count the same reference standard at {', '.join(shared)}: they seem to "
            "be about the same patients.",
            code="same_patients",
            cure="Compare with --patients same, and ask the sites for paired tables with an "
            "analysis of kind 'comparison'.",
        )
    return tuple(_rows(first, second, patients))


def difference_interval(first: Three, second: Three) -> tuple[float, float]:
    """Return the 95% interval of second minus first for independent samples.

    Each is (estimate, lower limit, upper limit). The limits' distances are added in squares
    (Zou and Donner, Stat Med 2008;27:1693): for Wilson's limits of proportions that is Newcombe's
    tenth method, for symmetric limits the usual normal interval.
    """
    (a, a_low, a_high), (b, b_low, b_high) = first, second
    middle = b - a
    return middle - math.hypot(b - b_low, a_high - a), middle + math.hypot(b_high - b, a - a_low)


def _rows(first: ComparedRound, second: ComparedRound, patients: Patients) -> Iterator[ComparedRow]:
    one, two = _by_key(first.estimates), _by_key(second.estimates)
    for key in dict.fromkeys([*one, *two]):
        yield _compared(key, one.get(key), two.get(key), patients)


def _by_key(estimates: Sequence[Estimate]) -> dict[Key, Estimate]:
    return {
        (row.analysis, row.scope, row.measure, row.group, row.term): row
        for row in estimates
        if row.measure not in _NOT_COMPARED and not row.group.startswith(_WITHOUT)
    }


def _compared(
    key: Key, first: Estimate | None, second: Estimate | None, patients: Patients
) -> ComparedRow:
    analysis, scope, measure, group, term = key
    change: float | None = None
    limits: tuple[float, float] | None = None
    if first is None or second is None:
        reason = "only_second" if first is None else "only_first"
    elif (values := _values(first, second)) is None:
        reason = "no_number"
    else:
        change = values[1] / values[0] if measure in RATIOS else values[1] - values[0]
        reason = {"different": "", "same": "same_patients", "unknown": "patients_unknown"}[patients]
        if not reason:
            limits = _limits(first, second, is_ratio=measure in RATIOS)
            reason = "" if limits else "no_interval"
    low, high = limits or (None, None)
    return ComparedRow(
        analysis, scope, measure, group, term, first, second, change, low, high, reason
    )


def _values(first: Estimate, second: Estimate) -> tuple[float, float] | None:
    is_whole = first.status is RowStatus.OK and second.status is RowStatus.OK
    if not is_whole or first.estimate is None or second.estimate is None:
        return None
    is_ratio = first.measure in RATIOS
    return None if is_ratio and first.estimate <= 0 else (first.estimate, second.estimate)


def _limits(first: Estimate, second: Estimate, *, is_ratio: bool) -> tuple[float, float] | None:
    one, two = usable_limits(first), usable_limits(second)
    if one is None or two is None:
        return None
    if not is_ratio:
        return difference_interval(one, two)
    if min(*one, *two) <= 0:
        return None
    low, high = difference_interval(_logs(one), _logs(two))
    return math.exp(low), math.exp(high)


def usable_limits(row: Estimate) -> Three | None:
    """Return value and limits that may be shown or combined; None if the row has none.

    Proportions have Wilson's limits, whatever limits the protocol asks for.
    """
    if row.estimate is None or row.ci_low is None or row.ci_high is None:
        return None
    if row.measure in _PROPORTIONS and row.scope != META and row.n:
        low, high = wilson(round(row.estimate * row.n), row.n)
        return row.estimate, float(low), float(high)
    # Eng's interval of a ratio has the wrong denominator, and vanishes at 0 and 1.
    is_usable = row.ci_method != Interval.ENG2021.value and row.ci_low < row.ci_high
    return (row.estimate, row.ci_low, row.ci_high) if is_usable else None


def _logs(numbers: Three) -> Three:
    one, two, three = (math.log(number) for number in numbers)
    return one, two, three


def _alike(first: ComparedRound, second: ComparedRound) -> tuple[str, ...]:
    """Return the scopes whose reference standard has the same counts in both rounds."""
    one, two = _reference_counts(first.estimates), _reference_counts(second.estimates)
    return tuple(scope for scope, counts in one.items() if counts and two.get(scope) == counts)


def _reference_counts(
    estimates: Sequence[Estimate],
) -> dict[str, dict[tuple[str, str], float]]:
    """Return, per scope, how many patients each reference category of an agreement has."""
    agreements = {row.analysis for row in estimates if row.measure.value.startswith("kappa_")}
    found: dict[str, dict[tuple[str, str], float]] = {}
    for row in estimates:
        is_cell = row.measure is Measure.COUNT and row.group and row.term
        if row.analysis in agreements and is_cell and row.scope != META and row.estimate:
            counts = found.setdefault(row.scope, {})
            key = row.analysis, row.group
            counts[key] = counts.get(key, 0.0) + row.estimate
    # One category alone says nothing of who the patients are.
    return {scope: counts for scope, counts in found.items() if len(counts) > 1}
