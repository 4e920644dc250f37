"""The rows that say how sites differ: heterogeneity, random-effects mean, prediction interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from fedcac.statistics.estimator import META, Estimate
from fedcac.statistics.heterogeneity import dersimonian_laird, random_effects
from fedcac.statistics.rows import Value, value_row
from fedcac.vocabulary import Measure, SiteName

__all__ = ["meta_rows", "unit_interval", "without"]


_HETEROGENEITY = (
    Measure.Q,
    Measure.I2,
    Measure.TAU2,
    Measure.TAU2_REML,
    Measure.PREDICTION_INTERVAL,
)


def _same(value: float) -> float:
    return value


def meta_rows(
    analysis: str,
    measure: Measure,
    term: str,
    estimates: Sequence[float],
    variances: Sequence[float],
    n: int,
    *,
    back: Callable[[float], float] = _same,
    has_mean: bool = True,
) -> Iterator[Estimate]:
    """Yield the `meta` rows of a measure: how the sites' estimates differ and what they share.

    The measure itself is the random-effects mean (REML) with Hartung and Knapp's interval; then,
    with the measure as their group, q (with its p-value), i2 (a fraction), tau2 (DerSimonian and
    Laird), tau2_reml, and prediction_interval. Not estimable with fewer than three sites or where
    a site's variance is zero. Where all estimates are the same the mean has no interval, and
    there is no prediction.

    Parameters
    ----------
    estimates, variances
        One per site, on the scale on which they are combined.
    n
        Patients behind them.
    back
        From that scale to the measure's own, for the mean and both intervals; a standard error is
        given only where the scales are one.
    has_mean
        False leaves out the mean, for a measure whose summary is computed otherwise.
    """
    found = dersimonian_laird(estimates, variances)
    mean = random_effects(estimates, variances)
    values: dict[Measure, Value | None] = dict.fromkeys(_HETEROGENEITY)
    summary = None
    if found is not None and mean is not None:
        middle = back(mean.estimate)
        summary, prediction = Value(middle), None
        if mean.ci is not None:
            low, high = (back(limit) for limit in mean.ci)
            se = mean.se if back is _same else None
            summary = Value(middle, se, low, high, "hartung_knapp")
        if mean.prediction is not None:
            low, high = (back(limit) for limit in mean.prediction)
            prediction = Value(middle, None, low, high, "higgins_t")
        values = {
            Measure.Q: Value(found.q, p_value=found.p_value),
            Measure.I2: Value(found.i2, p_value=found.p_value),
            Measure.TAU2: Value(found.tau2),
            Measure.TAU2_REML: Value(mean.tau2),
            Measure.PREDICTION_INTERVAL: prediction,
        }
    if has_mean:
        yield value_row(analysis, META, measure, summary, term=term, n=n)
    for what, value in values.items():
        yield value_row(analysis, META, what, value, group=measure.value, term=term, n=n)


def without(site: SiteName) -> str:
    """Return the group of a pooled row that leaves one site out."""
    return f"without {site}"


def unit_interval(value: float) -> float:
    """Return a number cut to 0 .. 1: the `back` of a probability combined as it is."""
    return float(np.clip(value, 0.0, 1.0))
