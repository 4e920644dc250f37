"""Between-site heterogeneity: Cochran's Q, I2 and the DerSimonian-Laird tau2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

__all__ = ["MINIMUM_SITES", "Heterogeneity", "dersimonian_laird", "logit_with_variance"]

MINIMUM_SITES = 3
"""With two sites a between-site variance has one degree of freedom and says nothing."""


@dataclass(frozen=True)
class Heterogeneity:
    """How site estimates differ. `i2` is a fraction; `tau2` in the estimates' squared unit."""

    q: float
    p_value: float
    i2: float
    tau2: float


def logit_with_variance(successes: int, n: int) -> tuple[float, float]:
    """Return the logit of a proportion and its variance; n > 0.

    0.5 is added to both cells of this site if one of them is empty.
    """
    add = 0.5 if successes in (0, n) else 0.0
    yes, no = successes + add, n - successes + add
    return float(np.log(yes / no)), 1 / yes + 1 / no


def dersimonian_laird(
    estimates: Sequence[float], variances: Sequence[float]
) -> Heterogeneity | None:
    """Return the heterogeneity of independent estimates (DerSimonian and Laird 1986).

    None if there are fewer than `MINIMUM_SITES`, or if a variance is not positive, because an
    estimate without variance would take all the weight.
    """
    y, v = np.asarray(estimates, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    if len(y) < MINIMUM_SITES or np.any(v <= 0):
        return None
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
