"""The bivariate model of sensitivity and specificity: its likelihood, its search, which sites."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import linalg, optimize
from statsmodels.tools.numdiff import approx_fprime

from fedcac.statistics.reitsma import (
    MINIMUM_SITES_BIVARIATE,
    Fallback,
    Reitsma,
    _Restricted,
    reitsma,
)

Array = NDArray[np.float64]
Table = tuple[int, int, int, int]

THETAS = [(0.9, -0.4, 0.7), (0.2, 0.5, 1.4), (1.5, 0.0, 0.3)]


def drawn(n: int = 14, seed: int = 2) -> list[Table]:
    """Return (tp, fn, fp, tn) of sites that differ, with no empty cell."""
    rng = np.random.default_rng(seed)
    a = 1.2 + 0.8 * rng.normal(size=n)
    b = 1.5 - 0.4 * (a - 1.2) + 0.6 * rng.normal(size=n)
    diseased, healthy = rng.integers(60, 200, n), rng.integers(90, 300, n)
    tp = np.clip(rng.binomial(diseased, 1 / (1 + np.exp(-a))), 1, diseased - 1)
    tn = np.clip(rng.binomial(healthy, 1 / (1 + np.exp(-b))), 1, healthy - 1)
    columns = (tp, diseased - tp, healthy - tn, tn)
    return [(w, x, y, z) for w, x, y, z in np.array(columns).T.tolist()]


def logits(tables: list[Table]) -> tuple[Array, Array]:
    """Return logits (n, 2) and their variances, half a patient added beside an empty cell."""
    cells = np.array(tables, dtype=np.float64)
    cells[np.any(cells == 0, axis=1)] += 0.5
    tp, fn, fp, tn = cells.T
    y = np.stack([np.log(tp / fn), np.log(tn / fp)], axis=1)
    return y, np.stack([1 / tp + 1 / fn, 1 / tn + 1 / fp], axis=1)


def minus_log_likelihood(theta: Array, y: Array, v: Array) -> float:
    """Return minus the restricted log-likelihood of all sites' logits stacked (Harville 1974)."""
    factor = np.array([[theta[0], 0.0], [theta[1], theta[2]]])
    total = linalg.block_diag(*(np.diag(own) + factor @ factor.T for own in v))
    x = np.tile(np.eye(2), (len(y), 1))
    inverse = np.linalg.inv(total)
    information = x.T @ inverse @ x
    residual = y.ravel() - x @ np.linalg.solve(information, x.T @ inverse @ y.ravel())
    halves = np.linalg.slogdet(total)[1] + np.linalg.slogdet(information)[1]
    return float((halves + residual @ inverse @ residual) / 2)


@pytest.mark.parametrize("theta", THETAS)
def test_the_restricted_likelihood_is_that_of_the_stacked_logits(theta: tuple[float, ...]) -> None:
    y, v = logits(drawn())
    cost, gradient = _Restricted(y, v).cost(np.array(theta))
    assert cost == pytest.approx(minus_log_likelihood(np.array(theta), y, v), rel=1e-10)
    slopes = approx_fprime(np.array(theta), minus_log_likelihood, args=(y, v), centered=True)
    np.testing.assert_allclose(gradient, slopes, atol=1e-6)


def test_the_search_ends_where_no_other_variances_are_likelier() -> None:
    y, v = logits(drawn())
    theta = _Restricted(y, v).maximum()
    least = minus_log_likelihood(theta, y, v)
    rng = np.random.default_rng(1)
    for scale in (1e-3, 0.1, 1.0):
        for step in rng.normal(scale=scale, size=(20, 3)):
            assert minus_log_likelihood(theta + step, y, v) > least


@pytest.mark.parametrize("away", [0.02, -0.05])
def test_a_rough_maximum_is_refined_to_the_last_digits(away: float) -> None:
    model = _Restricted(*logits(drawn()))
    best = model.maximum()
    assert np.max(np.abs(model.cost(best)[1])) < 1e-9
    refined = model.polished(best + away)
    assert np.max(np.abs(model.cost(best + away)[1])) > 1e-3
    np.testing.assert_allclose(refined, best, rtol=0, atol=1e-10)


def test_a_step_that_leads_uphill_is_not_taken() -> None:
    model = _Restricted(*logits(drawn()))
    start = np.array([3.8, 1.5, 1.2])
    assert np.max(np.abs(model.cost(start)[1])) > 1
    np.testing.assert_array_equal(model.polished(start), start)


# Large sites that agree, small ones that do not: several maxima, of which searches from the spread
# of the logits find the lower one, all or most of them. Beside tp fn fp tn of each site: tau at the
# highest maximum.
SEVERAL_HILLS = [
    (
        """3 0 6 4  3778 1228 2457 6221  12860 4939 5058 13197  9 0 7 4  9485 3624 1969 5253
        3 4 1 2  0 4 10 1  10799 3875 694 2096  9 2 1 6  9 0 2 3""",
        (0.07, 0.06),
    ),
    (
        """4 0 0 10  1 3 3 8  0 10 1 10  13930 4650 1784 4628  4239 1425 547 1336
        8417 2844 730 2155  0 11 0 9  3678 1174 2811 7427  4740 1766 5141 13824  0 3 0 6""",
        (0.05, 0.03),
    ),
    (
        """0 2 6 3  7512 2851 3659 11725  6 0 0 7  0 6 7 0  12957 4780 3358 9378
        7745 2364 2731 6850  3 0 3 6  3 3 2 8  1 6 3 2  8854 3446 5761 13998""",
        (1.13, 0.78),
    ),
    (
        """7 1 3 4  6 6 8 7  12 1 10 2  0 7 8 3  14013 5163 4521 11991  13633 5117 1293 3335
        7 0 1 11  5 7 5 4  8041 3042 4370 11521  6485 2608 1367 3661""",
        (0.03, 0.0),
    ),
    (
        """1554 600 1080 2767  3 10 1 7  2085 751 2079 5015  1 9 1 7  16 1 5 11
        3983 1472 3274 8521  10 7 7 11  1 3 8 11  5 5 0 3  11430 4081 4212 10036""",
        (0.02, 0.04),
    ),
    (
        """173 69 150 410  1 17 2 9  10 5 4 12  3 6 0 7  1 12 8 2  3 2 0 12  418 120 34 90
        7 9 9 4  1 7 1 8  8 1 1 17  13 0 0 19  12 0 6 4  453 146 141 387""",
        (1.31, 0.58),
    ),
]


def tables_of(text: str) -> list[Table]:
    rows = np.array(text.split(), dtype=np.int64).reshape(-1, 4)
    return [(tp, fn, fp, tn) for tp, fn, fp, tn in rows.tolist()]


@pytest.mark.parametrize(("text", "tau"), SEVERAL_HILLS)
def test_of_several_maxima_the_highest_is_found(text: str, tau: tuple[float, float]) -> None:
    y, v = logits(tables_of(text))
    theta = _Restricted(y, v).maximum()
    np.testing.assert_allclose([abs(theta[0]), np.hypot(theta[1], theta[2])], tau, atol=0.01)
    least = minus_log_likelihood(theta, y, v)
    rng = np.random.default_rng(3)
    for scale in (0.03, 0.3, 2.0):
        starts = rng.normal(scale=scale, size=(15, 3))
        near = min(starts, key=lambda start: minus_log_likelihood(start, y, v))
        climbed = optimize.minimize(
            minus_log_likelihood, near, (y, v), "Nelder-Mead", options={"maxfev": 60}
        )
        assert least <= climbed.fun + 1e-9


def test_a_lower_maximum_inside_is_no_fit_where_the_highest_is_on_the_edge() -> None:
    for text, _ in SEVERAL_HILLS[-2:]:
        assert reitsma(tables_of(text)) is Fallback.SINGULAR


@pytest.mark.parametrize(
    "table",
    [(1, 0, 30, 170), (0, 1, 30, 170), (80, 20, 1, 0), (80, 20, 0, 1), (80, 20, 9, 0)],
)
def test_one_patient_of_a_class_makes_a_site_of_the_model(table: Table) -> None:
    nine = drawn(MINIMUM_SITES_BIVARIATE - 1)
    assert reitsma(nine) is Fallback.FEW_SITES
    found = reitsma([*nine, table])
    assert isinstance(found, Reitsma)
    assert found.n_sites == MINIMUM_SITES_BIVARIATE


def test_half_a_patient_is_added_where_a_cell_is_empty_and_nowhere_else() -> None:
    tables = [*drawn(), (17, 0, 4, 60)]
    added = logits([*tables[:-1], (35, 1, 9, 121)])
    y, v = added[0], added[1].copy()
    # Doubled counts have the same logits and half the variance.
    v[-1] *= 2
    model = _Restricted(y, v)
    means, covariance = model.means(model.maximum())
    found = reitsma(tables)
    assert isinstance(found, Reitsma)
    np.testing.assert_allclose(found.means, means, atol=1e-9)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-9)
    half = 1.959963984540054 * np.sqrt(np.diag(covariance))
    for number, limits in enumerate((found.sensitivity, found.specificity)):
        expected = [means[number] + sign * half[number] for sign in (0, -1, 1)]
        np.testing.assert_allclose(limits, 1 / (1 + np.exp(-np.array(expected))), atol=1e-9)
