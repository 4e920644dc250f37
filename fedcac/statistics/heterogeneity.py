"""Between-site heterogeneity: Q, I2, tau2, and the random-effects mean with its prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

__all__ = [
    "MINIMUM_SITES",
    "Heterogeneity",
    "RandomEffects",
    "dersimonian_laird",
    "logit_with_variance",
    "random_effects",
]

MINIMUM_SITES = 3
"""With two sites a between-site variance has one degree of freedom and says nothing."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Heterogeneity:
    """How site estimates differ. `i2` is a fraction; `tau2` in the estimates' squared unit."""

    q: float
    p_value: float
    i2: float
    tau2: float


@dataclass(frozen=True)
class RandomEffects:
    """The mean of site estimates, with the variance between sites by REML.

    `se` is Hartung and Knapp's (Stat Med 2001;20:3875), the interval t with k - 1 degrees of
    freedom. The prediction interval, for the value of a further site, has k - 2 (Higgins et al.,
    J R Stat Soc A 2009;172:137). `se` and both intervals are None where all estimates are the
    same: that few sites do not differ at all is chance, not certainty.
    """

    estimate: float
    se: float | None
    ci: tuple[float, float] | None
    tau2: float
    prediction: tuple[float, float] | None
    n_sites: int


def logit_with_variance(successes: int, n: int) -> tuple[float, float]:
    """Return the logit of a proportion and its variance; n > 0.

    0.5 is added to both cells of this site if one of them is empty.
    """
    add = 0.5 if successes in (0, n) else 0.0
    yes, no = successes + add, n - successes + add
    return float(np.log(yes / no)), 1 / yes + 1 / no


def _usable(estimates: Sequence[float], variances: Sequence[float]) -> tuple[Vector, Vector] | None:
    # An estimate without variance would take all the weight.
    y, v = np.asarray(estimates, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    return None if len(y) < MINIMUM_SITES or np.any(v <= 0) else (y, v)


def dersimonian_laird(
    estimates: Sequence[float], variances: Sequence[float]
) -> Heterogeneity | None:
    """Return the heterogeneity of independent estimates (DerSimonian and Laird 1986).

    None if there are fewer than `MINIMUM_SITES`, or if a variance is not positive.
    """
    usable = _usable(estimates, variances)
    if usable is None:
        return None
    y, v = usable
    w = 1 / v
    q = float(np.sum(w * (y - np.sum(w * y) / np.sum(w)) ** 2))
    df = len(y) - 1
    scale = float(np.sum(w) - np.sum(w**2) / np.sum(w))
    return Heterogeneity(
        q=q,
        p_value=float(special.chdtrc(df, q)),
        i2=max(0.0, (q - df) / q) if q > 0 else 0.0,
        tau2=max(0.0, (q - df) / scale),
    )


def random_effects(estimates: Sequence[float], variances: Sequence[float]) -> RandomEffects | None:
    """Return the random-effects mean of independent estimates; None as `dersimonian_laird`."""
    usable = _usable(estimates, variances)
    if usable is None:
        return None
    y, v = usable
    k = len(y)
    tau2 = _reml_tau2(y, v)
    w = 1 / (v + tau2)
    mean = float(np.sum(w * y) / np.sum(w))
    if np.ptp(y) == 0:
        return RandomEffects(mean, None, None, tau2, None, k)
    se = float(np.sqrt(np.sum(w * (y - mean) ** 2) / (k - 1) / np.sum(w)))
    half = float(special.stdtrit(k - 1, 0.975)) * se
    reach = float(special.stdtrit(k - 2, 0.975)) * (tau2 + se**2) ** 0.5
    return RandomEffects(
        estimate=mean,
        se=se,
        ci=(mean - half, mean + half),
        tau2=tau2,
        prediction=(mean - reach, mean + reach),
        n_sites=k,
    )


def _reml_tau2(y: Vector, v: Vector) -> float:
    """Return the tau2 at which the restricted likelihood is highest, 0 or above."""

    def terms(tau2: float) -> tuple[float, float]:
        w = 1 / (v + tau2)
        total = np.sum(w)
        residual = y - np.sum(w * y) / total
        value = np.sum(np.log(w)) / 2 - np.log(total) / 2 - np.sum(w * residual**2) / 2
        slope = (np.sum(w**2) / total - total + np.sum((w * residual) ** 2)) / 2
        return float(value), float(slope)

    # The likelihood may have two maxima: look along a grid before closing in on the higher one.
    top = 10 * float(np.var(y)) + float(v.max())
    grid = np.concatenate([[0.0], np.geomspace(top * 1e-8, top, 200)])
    best = int(np.argmax([terms(tau2)[0] for tau2 in grid]))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
    if terms(low)[1] <= 0:
        return 0.0
    return float(optimize.brentq(lambda tau2: terms(tau2)[1], low, high, xtol=1e-16, rtol=1e-14))
