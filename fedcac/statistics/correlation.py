"""Correlation coefficients of two columns, as functions of moments that add over sites."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedcac.statistics.intervals import Z95

__all__ = ["CoMoments", "Correlation", "ccc", "icc", "pearson"]

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class CoMoments:
    """Number of pairs, means, and sums of squares and products of the deviations from them."""

    n: int
    mean_x: float
    mean_y: float
    m2_x: float
    m2_y: float
    cross: float

    @classmethod
    def from_values(cls, x: Vector, y: Vector) -> Self:
        """Return the moments of the pairs (x, y), float64 arrays of shape (n,) with n >= 1."""
        # Relative to the first value, so that the deviations of a constant are exactly zero.
        shifted_x, shifted_y = x - x[0], y - y[0]
        step_x, step_y = shifted_x.mean(), shifted_y.mean()
        dx, dy = shifted_x - step_x, shifted_y - step_y
        return cls(
            len(x),
            float(x[0] + step_x),
            float(y[0] + step_y),
            float((dx * dx).sum()),
            float((dy * dy).sum()),
            float((dx * dy).sum()),
        )

    def merge(self, other: CoMoments) -> CoMoments:
        """Return the moments of both groups together (Chan, Golub and LeVeque 1983)."""
        if self.n == 0:
            return other
        n = self.n + other.n
        dx, dy = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        weight = self.n * other.n / n
        return CoMoments(
            n,
            self.mean_x + dx * other.n / n,
            self.mean_y + dy * other.n / n,
            self.m2_x + other.m2_x + dx * dx * weight,
            self.m2_y + other.m2_y + dy * dy * weight,
            self.cross + other.cross + dx * dy * weight,
        )


@dataclass(frozen=True)
class Correlation:
    """A coefficient with its 95 % interval; limits and p-value are None where undefined."""

    estimate: float
    ci_low: float | None
    ci_high: float | None
    p_value: float | None


def pearson(m: CoMoments) -> Correlation | None:
    """Return Pearson's r with Fisher's z interval and the t-test of zero, as R's cor.test.

    None with fewer than three pairs or a constant column; the interval needs four pairs.
    """
    r = _r(m)
    if r is None:
        return None
    # The two-sided tail of t = r sqrt((n-2) / (1-r^2)) is an incomplete beta function of 1-r^2.
    p_value = float(special.betainc((m.n - 2) / 2, 0.5, 1 - r * r))
    low, high = _z_interval(r, 1 / math.sqrt(m.n - 3)) if m.n > 3 else (None, None)
    return Correlation(r, low, high, p_value)


def icc(m: CoMoments, kind: str) -> Correlation | None:
    """Return the intraclass correlation of single measurements by two raters.

    With F intervals and the F-test of zero, one-sided (Shrout and Fleiss, Psychol Bull
    1979;86:420), as psych::ICC. None with fewer than three pairs or if both columns are constant.

    Parameters
    ----------
    m
        Moments of the two raters' scores.
    kind
        "icc1" (one-way random), "icc2" (two-way random, absolute agreement) or "icc3" (two-way
        mixed, consistency).

    Raises
    ------
    ValueError
        For another kind.
    """
    if kind not in ("icc1", "icc2", "icc3"):
        raise ValueError("kind is icc1, icc2 or icc3")
    n = m.n
    if n < 3 or m.m2_x + m.m2_y <= 0:
        return None
    # Mean squares of the analysis of variance with two raters. Rounding may take either sum of
    # squares below zero where the columns agree or oppose each other exactly.
    between = max(m.m2_x + m.m2_y + 2 * m.cross, 0.0) / 2 / (n - 1)
    residual = max(m.m2_x + m.m2_y - 2 * m.cross, 0.0) / 2 / (n - 1)
    raters = n * (m.mean_x - m.mean_y) ** 2 / 2
    if kind == "icc2":
        return _icc2(n, between, raters, residual)
    df_within = n - 1
    if kind == "icc1":
        residual = ((n - 1) * residual + raters) / n
        df_within = n
    low_quantile = _f_quantile(n - 1, df_within)
    high_quantile = _f_quantile(df_within, n - 1)
    return Correlation(
        (between - residual) / (between + residual),
        (between - low_quantile * residual) / (between + low_quantile * residual),
        (high_quantile * between - residual) / (high_quantile * between + residual),
        _f_test(between, residual, n - 1, df_within),
    )


def _icc2(n: int, between: float, raters: float, residual: float) -> Correlation:
    estimate = (between - residual) / (between + residual + 2 * (raters - residual) / n)
    p_value = _f_test(between, residual, n - 1, n - 1)
    # Satterthwaite's degrees of freedom, numerator and denominator times the residual squared.
    a = 2 * estimate * raters
    b = (n * (1 + estimate) - 2 * estimate) * residual
    spread = (n - 1) * a**2 + b**2
    # Without variation within patients the limits below are one whatever the degrees of freedom.
    df = (n - 1) * (a + b) ** 2 / spread if spread > 0 else float(n - 1)
    low_quantile, high_quantile = _f_quantile(n - 1, df), _f_quantile(df, n - 1)
    within = 2 * raters + (n - 2) * residual
    low = n * (between - low_quantile * residual) / (low_quantile * within + n * between)
    high = n * (high_quantile * between - residual) / (within + n * high_quantile * between)
    # A negative estimate can leave hardly any degrees of freedom. F then has no quantiles, or an
    # upper one below 1, which would put both limits below the estimate.
    if not math.isfinite(low) or high_quantile < 1:
        return Correlation(estimate, None, None, p_value)
    return Correlation(estimate, low, high, p_value)


def ccc(m: CoMoments) -> Correlation | None:
    """Return Lin's concordance correlation with 1/n variances and his z interval.

    The variance is that of the 2000 correction (Biometrics 1989;45:255, 2000;56:324), as
    epiR::epi.ccc. None with fewer than three pairs or a constant column.
    """
    r = _r(m)
    if r is None:
        return None
    n = m.n
    shift = (m.mean_y - m.mean_x) ** 2
    total = (m.m2_x + m.m2_y) / n + shift
    # Lin's variance has r and u = shift / (sx sy) in denominators; with rho / r = accuracy and
    # accuracy u = bias there is nothing to divide by, and it also exists at r = 0.
    accuracy = 2 * math.sqrt(m.m2_x) * math.sqrt(m.m2_y) / n / total
    bias = 2 * shift / total
    rho = r * accuracy
    variance = (
        (1 - r * r) * accuracy**2 * (1 - rho * rho)
        + 2 * rho**2 * (1 - rho) * bias
        - 0.5 * (rho * bias) ** 2
    ) / (n - 2)
    if abs(rho) >= 1:
        return Correlation(rho, rho, rho, None)
    low, high = _z_interval(rho, math.sqrt(max(variance, 0.0)) / (1 - rho * rho))
    return Correlation(rho, low, high, None)


def _r(m: CoMoments) -> float | None:
    if m.n < 3 or m.m2_x <= 0 or m.m2_y <= 0:
        return None
    return min(max(m.cross / math.sqrt(m.m2_x) / math.sqrt(m.m2_y), -1.0), 1.0)


def _z_interval(estimate: float, se: float) -> tuple[float, float]:
    """Return the limits of Fisher's transform +- 1.96 `se`, transformed back."""
    if abs(estimate) >= 1:
        return estimate, estimate
    z = math.atanh(estimate)
    return math.tanh(z - Z95 * se), math.tanh(z + Z95 * se)


def _f_quantile(df1: float, df2: float) -> float:
    return float(special.fdtri(df1, df2, 0.975))


def _f_test(between: float, residual: float, df1: int, df2: int) -> float:
    """Return P(F > between / residual), zero without residual variation."""
    return float(special.fdtrc(df1, df2, between / residual)) if residual > 0 else 0.0
