"""Three or more rounds of one protocol in a row: each site's values, and whether they moved.

A test over rounds is valid only if the rounds are about different patients, as an interval of a
change is (`rounds_compared`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scipy import special

from fedcac.errors import UsageError
from fedcac.report.rounds_compared import (
    ComparedRound,
    ComparedRow,
    Patients,
    compare_rounds,
)
from fedcac.statistics.estimator import META, Estimate
from fedcac.statistics.intervals import Z95
from fedcac.vocabulary import Interval, Measure, RowStatus

__all__ = ["TREND_MEASURES", "TrendRow", "drift_test", "follow_rounds"]

TREND_MEASURES: Final = (
    Measure.KAPPA_LINEAR,
    Measure.KAPPA_UNWEIGHTED,
    Measure.SENSITIVITY,
    Measure.SPECIFICITY,
    Measure.PPV,
    Measure.NPV,
    Measure.AUC,
    Measure.BIAS,
    Measure.HAZARD_RATIO,
    Measure.C_INDEX,
    Measure.OE_RATIO,
    Measure.CALIBRATION_SLOPE,
)
"""What is followed over rounds."""

_ON_LOGITS = frozenset({Measure.SENSITIVITY, Measure.SPECIFICITY, Measure.PPV, Measure.NPV})
_ON_LOGS = frozenset({Measure.HAZARD_RATIO, Measure.OE_RATIO})


@dataclass(frozen=True)
class TrendRow:
    """One value of one scope over all rounds.

    Attributes
    ----------
    values
        Its row in every round, in their order; None where a round has none.
    changes
        Every later round against the first one, as `rounds_compared` has it.
    q, df, p_value
        Test that the value is the same in all rounds that have it: Cochran's Q, its degrees of
        freedom and p-value. None if it would not be valid or fewer than three rounds have a value.
    """

    analysis: str
    scope: str
    measure: Measure
    group: str
    term: str
    values: tuple[Estimate | None, ...]
    changes: tuple[ComparedRow | None, ...]
    q: float | None = None
    df: int | None = None
    p_value: float | None = None


def follow_rounds(rounds: Sequence[ComparedRound], patients: Patients) -> tuple[TrendRow, ...]:
    """Return every followed value over the rounds: pooled, between sites, and per site.

    Raises
    ------
    UsageError
        If there are fewer than three rounds (`too_few_rounds`), one is given twice
        (`round_given_twice`), or as `compare_rounds` of any two of them.
    """
    if len(rounds) < 3:
        raise UsageError(
            f"{len(rounds)} rounds cannot be followed.",
            code="too_few_rounds",
            cure="Give at least three output folders.",
        )
    names = [one.round_id for one in rounds]
    if len(set(names)) < len(names):
        raise UsageError(
            "A round is given twice.",
            code="round_given_twice",
            cure="Give every output folder once, the earliest first.",
        )
    first, *later = rounds
    # Any two rounds of the same patients spoil the test, not only one of them and the first.
    for number, one in enumerate(later):
        for other in later[number + 1 :]:
            compare_rounds(one, other, patients)
    by_round = [_followed(compare_rounds(first, one, patients)) for one in later]
    keys = dict.fromkeys(key for rows in by_round for key in rows)
    return tuple(_row(key, [rows.get(key) for rows in by_round], patients) for key in keys)


def drift_test(values: Sequence[tuple[float, float]]) -> tuple[float, int, float]:
    """Return Cochran's Q, its degrees of freedom and its p-value for independent values.

    Parameters
    ----------
    values
        (estimate, variance) on one scale, at least two, variances positive.
    """
    weights = [1 / variance for _, variance in values]
    middle = sum(w * x for w, (x, _) in zip(weights, values, strict=True)) / sum(weights)
    q = sum(w * (x - middle) ** 2 for w, (x, _) in zip(weights, values, strict=True))
    df = len(values) - 1
    return q, df, float(special.chdtrc(df, q))


Key = tuple[str, str, Measure, str, str]


def _followed(rows: Sequence[ComparedRow]) -> dict[Key, ComparedRow]:
    return {
        (row.analysis, row.scope, row.measure, row.group, row.term): row
        for row in rows
        if row.measure in TREND_MEASURES and not row.group
    }


def _row(key: Key, changes: Sequence[ComparedRow | None], patients: Patients) -> TrendRow:
    analysis, scope, measure, group, term = key
    first = next((change.first for change in changes if change is not None), None)
    values = (first, *(None if change is None else change.second for change in changes))
    found: tuple[float | None, int | None, float | None] = None, None, None
    if patients == "different":
        scaled = [pair for row in values if row is not None and (pair := _scaled(row)) is not None]
        if len(scaled) > 2:
            found = drift_test(scaled)
    return TrendRow(analysis, scope, measure, group, term, values, tuple(changes), *found)


def _scaled(row: Estimate) -> tuple[float, float] | None:
    """Return the value and its variance on the scale where it is nearly normal, if it has both."""
    if row.status is not RowStatus.OK or row.estimate is None:
        return None
    if row.measure in _ON_LOGITS and row.scope != META:
        return _logit(row.estimate, row.n)
    if row.ci_low is None or row.ci_high is None or row.ci_method == Interval.ENG2021.value:
        return None
    low, high, middle = row.ci_low, row.ci_high, row.estimate
    if row.measure in _ON_LOGS:
        if min(low, middle) <= 0:
            return None
        low, high, middle = math.log(low), math.log(high), math.log(middle)
    half = (high - low) / 2
    return (middle, (half / Z95) ** 2) if half > 0 else None


def _logit(share: float, n: int | None) -> tuple[float, float] | None:
    if not n:
        return None
    # Half a patient on either side keeps a share of 0 or 1 finite (Haldane; Anscombe).
    yes = share * n + 0.5
    no = n - share * n + 0.5
    return math.log(yes / no), 1 / yes + 1 / no
