"""Between-site variance where the likelihood has two maxima, and three sites by hand."""

from __future__ import annotations

import numpy as np
import pytest
from driven import assert_close, numbers
from numpy.typing import NDArray
from scipy import optimize, stats
from statsmodels.stats.meta_analysis import combine_effects

from fedcac.statistics.heterogeneity import dersimonian_laird, random_effects
from fedcac.statistics.meta_rows import meta_rows
from fedcac.vocabulary import Measure, RowStatus

Vector = NDArray[np.float64]


def restricted(tau2: float, y: Vector, v: Vector) -> float:
    """Return the restricted likelihood as the density of the estimates' differences.

    Those from the first one are normal around 0; which one they are taken from does not matter.
    """
    covariance = np.diag(v[1:] + tau2) + v[0] + tau2
    return float(stats.multivariate_normal(cov=covariance).logpdf(y[1:] - y[0]))


def highest(y: Vector, v: Vector) -> tuple[float, int]:
    """Return the tau2 of the highest restricted likelihood, and how many maxima there are."""
    grid = np.concatenate([[0.0], np.geomspace(1e-5, 30, 150)])
    values = np.array([-np.inf, *(restricted(tau2, y, v) for tau2 in grid), -np.inf])
    is_top = (values[1:-1] > values[:-2]) & (values[1:-1] > values[2:])
    best = int(np.argmax(values[1:-1]))
    found = optimize.minimize_scalar(
        lambda tau2: -restricted(tau2, y, v),
        bounds=(grid[max(best - 1, 0)], grid[best + 1]),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return (0.0 if best == 0 else float(found.x)), int(is_top.sum())


@pytest.mark.parametrize(
    ("estimates", "variances"),
    [
        # Precise sites that agree, and a vague one far away: the first maximum is the higher one.
        ([-0.82, -0.73, 2.22], [0.0007, 0.0083, 1.0931]),
        ([0.95, -2.15, 0.81], [0.001, 1.4326, 0.0036]),
        ([-1.91, -0.53, -2.23, 1.1], [0.0017, 2.3062, 0.0005, 1.799]),
        # The second one is.
        ([-0.06, -0.08, 0.92], [0.004, 0.001, 0.081]),
    ],
)
def test_of_two_maxima_the_higher_one_is_taken(
    estimates: list[float], variances: list[float]
) -> None:
    y, v = np.array(estimates), np.array(variances)
    tau2, n_maxima = highest(y, v)
    assert n_maxima == 2
    found = random_effects(estimates, variances)
    assert found is not None
    assert found.tau2 == pytest.approx(tau2, rel=1e-4)
    assert found.estimate == pytest.approx(np.average(y, weights=1 / (v + tau2)), rel=1e-4)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_equal_variances_have_closed_forms_in_any_unit(scale: float) -> None:
    """With one variance v the REML estimate is that of the moments: s^2 - v."""
    y, v = np.array([1.0, 3.0, 8.0, 4.0]), 2.0
    spread = float(np.var(y, ddof=1))
    estimates, variances = (scale * y).tolist(), [scale**2 * v] * 4
    mean, found = random_effects(estimates, variances), dersimonian_laird(estimates, variances)
    assert mean is not None
    assert found is not None
    assert found.q == pytest.approx(3 * spread / v)
    assert found.p_value == pytest.approx(stats.chi2.sf(3 * spread / v, 3))
    assert found.i2 == pytest.approx(1 - v / spread)
    assert found.tau2 == pytest.approx(scale**2 * (spread - v))
    assert mean.tau2 == pytest.approx(scale**2 * (spread - v))
    assert mean.estimate == pytest.approx(scale * 4)
    # Hartung and Knapp's is then the plain t-test of the estimates.
    test = stats.ttest_1samp(y, 0)
    assert mean.se == pytest.approx(scale * (spread / 4) ** 0.5)
    assert mean.ci == pytest.approx([scale * limit for limit in test.confidence_interval()])
    reach = stats.t.ppf(0.975, 2) * (spread - v + spread / 4) ** 0.5
    assert mean.prediction == pytest.approx([scale * (4 - reach), scale * (4 + reach)])
    assert mean.n_sites == 4


def test_a_variance_between_sites_of_exactly_1() -> None:
    mean = random_effects([1.0, 3.0, 5.0], [3.0, 3.0, 3.0])
    assert mean is not None
    assert mean.tau2 == pytest.approx(1)


def test_a_variance_that_only_the_precise_sites_show() -> None:
    """Two sites that differ by far less than the third one's error: s^2 - v of the two."""
    for gap, v in ((1e-4, 1e-9), (4e-5, 1e-10)):
        mean = random_effects([0.0, gap, 0.5], [v, v, 1.0])
        assert mean is not None
        assert mean.tau2 == pytest.approx(gap**2 / 2 - v, rel=1e-6)


def test_a_variance_far_beyond_that_of_the_estimates_themselves() -> None:
    """Two precise sites lie apart, and 28 vague ones between them."""
    mean = random_effects([1.0, -1.0, *[0.0] * 28], [1e-4, 1e-4, *[1e4] * 28])
    assert mean is not None
    assert mean.tau2 == pytest.approx(2, rel=0.01)


def test_sites_closer_than_chance_have_no_variance_between_them() -> None:
    mean = random_effects([1.0, 1.1, 0.9], [1.0, 1.0, 1.0])
    found = dersimonian_laird([1.0, 1.1, 0.9], [1.0, 1.0, 1.0])
    assert mean is not None
    assert found is not None
    assert (mean.tau2, found.tau2, found.i2) == (0, 0, 0)
    assert found.q == pytest.approx(0.02)
    assert mean.se == pytest.approx((0.01 / 3) ** 0.5)
    assert mean.prediction is not None
    # Without that variance it differs from the interval by its degrees of freedom alone.
    half = stats.t.ppf(0.975, 1) * (0.01 / 3) ** 0.5
    assert mean.prediction == pytest.approx([1 - half, 1 + half])


@pytest.mark.parametrize("seed", range(3))
def test_moments_and_their_interval_are_those_of_statsmodels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, v = rng.normal(0.3, 0.6, 6), rng.uniform(0.01, 0.3, 6)
    expected = combine_effects(y, v, method_re="chi2")
    found = dersimonian_laird(y.tolist(), v.tolist())
    assert found is not None
    assert_close(found.q, expected.q)
    assert_close(found.tau2, max(expected.tau2, 0))
    assert_close(found.i2, max(expected.i2, 0))


def test_the_rows_without_a_mean_and_of_sites_that_are_too_few() -> None:
    few = list(meta_rows("x", Measure.BIAS, "lad", [1.0, 2.0], [1.0, 1.0], 50))
    assert [row.measure for row in few] == [
        Measure.BIAS,
        Measure.Q,
        Measure.I2,
        Measure.TAU2,
        Measure.TAU2_REML,
        Measure.PREDICTION_INTERVAL,
    ]
    for row in few:
        assert (row.scope, row.term, row.n) == ("meta", "lad", 50)
        assert (row.status, numbers(row)) == (RowStatus.NOT_ESTIMABLE, (None,) * 5)
        assert row.group == ("" if row.measure is Measure.BIAS else "bias")
    estimates, variances = [1.0, 3.0, 8.0, 4.0], [2.0] * 4
    full = list(meta_rows("x", Measure.BIAS, "", estimates, variances, 50))
    bare = list(meta_rows("x", Measure.BIAS, "", estimates, variances, 50, has_mean=False))
    assert bare == full[1:]
    assert [row.estimate for row in full] == pytest.approx([4, 13, 10 / 13, 20 / 3, 20 / 3, 4])
    assert [row.ci_method for row in full] == ["hartung_knapp", "", "", "", "", "higgins_t"]
