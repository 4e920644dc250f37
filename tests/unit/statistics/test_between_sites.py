"""How sites differ: printed examples, a plain search of the likelihood, and sites that agree."""

from __future__ import annotations

import numpy as np
import pytest
from driven import assert_close, numbers, pool
from numpy.typing import NDArray
from plans import SPECS, draw_exams
from scipy import optimize, stats

from fedcac.exams import Exams
from fedcac.protocol import AucSpec, CoxSpec
from fedcac.statistics.heterogeneity import (
    dersimonian_laird,
    logit_with_variance,
    random_effects,
)
from fedcac.statistics.meta_rows import meta_rows, unit_interval
from fedcac.vocabulary import Measure, RowStatus

Vector = NDArray[np.float64]

# Tuberculosis after BCG and without (Colditz et al., JAMA 1994;271:698): cases and the others of
# the vaccinated, then of the controls.
BCG = np.array(
    [
        (4, 119, 11, 128),
        (6, 300, 29, 274),
        (3, 228, 11, 209),
        (62, 13536, 248, 12619),
        (33, 5036, 47, 5761),
        (180, 1361, 372, 1079),
        (8, 2537, 10, 619),
        (505, 87886, 499, 87892),
        (29, 7470, 45, 7232),
        (17, 1699, 65, 1600),
        (186, 50448, 141, 27197),
        (5, 2493, 3, 2338),
        (27, 16886, 29, 17825),
    ]
)


def log_risk_ratios() -> tuple[list[float], list[float]]:
    a, b, c, d = BCG.T
    estimates = np.log((a / (a + b)) / (c / (c + d)))
    return estimates.tolist(), (1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)).tolist()


def restricted(tau2: float, y: Vector, v: Vector) -> float:
    """Return the restricted log-likelihood from its definition with matrices."""
    x, w = np.ones((len(y), 1)), np.diag(1 / (v + tau2))
    xwx = x.T @ w @ x
    r = y - x @ np.linalg.solve(xwx, x.T @ w @ y)
    return float(-(-np.linalg.slogdet(w)[1] + np.linalg.slogdet(xwx)[1] + r @ w @ r) / 2)


def searched_tau2(y: Vector, v: Vector) -> float:
    """Return the tau2 with the highest restricted likelihood, by trying many."""
    grid = np.concatenate([[0.0], np.geomspace(1e-7, 100, 4000)])
    best = int(np.argmax([restricted(tau2, y, v) for tau2 in grid]))
    if best == 0:
        return 0.0
    found = optimize.minimize_scalar(
        lambda tau2: -restricted(tau2, y, v),
        bounds=(grid[best - 1], grid[best + 1]),
        method="bounded",
        options={"xatol": 1e-12},
    )
    return float(found.x)


def test_the_bcg_trials_as_printed() -> None:
    """The numbers of metafor's documentation (Viechtbauer, J Stat Softw 2010;36:3)."""
    found = dersimonian_laird(*log_risk_ratios())
    assert found is not None
    assert (round(found.q, 3), round(found.tau2, 4), round(found.i2, 4)) == (
        152.233,
        0.3088,
        0.9212,
    )
    assert found.p_value == pytest.approx(stats.chi2.sf(found.q, 12), rel=1e-10)
    mean = random_effects(*log_risk_ratios())
    assert mean is not None
    assert mean.se is not None
    assert mean.ci is not None
    assert (round(mean.tau2, 4), round(mean.estimate, 4), round(mean.se, 4)) == (
        0.3132,
        -0.7145,
        0.1808,
    )
    assert [round(limit, 4) for limit in mean.ci] == [-1.1084, -0.3206]
    assert mean.n_sites == 13
    assert mean.prediction is not None
    reach = stats.t.ppf(0.975, 11) * (mean.tau2 + mean.se**2) ** 0.5
    np.testing.assert_allclose(mean.prediction, [mean.estimate - reach, mean.estimate + reach])


@pytest.mark.parametrize(
    ("estimates", "variances"),
    [
        # The likelihood falls from 0, and is highest at a second maximum.
        ([-0.35, -0.83, -0.89, 1.17], [1.354, 0.001, 0.005, 0.169]),
        ([-1.6, 0.2, -1.56, 0.57, -0.13], [0.003, 0.182, 0.002, 2.234, 0.905]),
        ([-0.06, -0.08, 0.92], [0.004, 0.001, 0.081]),
        # It is highest at 0.
        ([0.31, 0.29, 0.33], [0.2, 0.1, 0.3]),
        # Between sites almost everything, and almost nothing.
        ([5.0, -7.0, 1.0], [1e-4, 2e-4, 1e-4]),
        ([0.0, 0.011, -0.012, 0.001], [1e-4, 1e-4, 0.9e-4, 1.1e-4]),
    ],
)
def test_the_variance_between_sites_has_the_highest_likelihood(
    estimates: list[float], variances: list[float]
) -> None:
    y, v = np.array(estimates), np.array(variances)
    wanted = searched_tau2(y, v)
    found = random_effects(estimates, variances)
    assert found is not None
    assert found.tau2 == pytest.approx(wanted, rel=1e-5, abs=1e-9)
    w = 1 / (v + wanted)
    mean = np.average(y, weights=w)
    assert found.estimate == pytest.approx(mean, rel=1e-5, abs=1e-9)
    se = (np.average((y - mean) ** 2, weights=w) / (len(y) - 1)) ** 0.5
    assert found.se == pytest.approx(se, rel=1e-5)


@pytest.mark.parametrize(
    ("estimates", "variances"),
    [
        ([0.1, 0.2], [0.1, 0.1]),
        ([0.1, 0.2, 0.3], [0.1, 0.0, 0.1]),
        ([0.1, 0.2, 0.3], [0.1, -0.1, 0.1]),
        ([], []),
    ],
)
def test_few_sites_and_sites_without_variance_have_no_heterogeneity(
    estimates: list[float], variances: list[float]
) -> None:
    assert dersimonian_laird(estimates, variances) is None
    assert random_effects(estimates, variances) is None
    rows = list(meta_rows("x", Measure.AUC, "10", estimates, variances, 90))
    assert {row.status for row in rows} == {RowStatus.NOT_ESTIMABLE}
    assert all(numbers(row) == (None,) * 5 and row.n == 90 for row in rows)


def test_sites_that_do_not_differ_leave_no_interval() -> None:
    """An interval without width would say that a further site is known for certain."""
    estimates, variances = [0.4, 0.4, 0.4], [0.1, 0.2, 0.05]
    found, mean = dersimonian_laird(estimates, variances), random_effects(estimates, variances)
    assert found is not None
    assert mean is not None
    assert found.q == pytest.approx(0, abs=1e-25)
    assert (found.p_value, found.i2, found.tau2) == (1.0, 0.0, 0.0)
    assert mean.estimate == pytest.approx(0.4)
    assert (mean.se, mean.ci, mean.prediction, mean.tau2, mean.n_sites) == (None, None, None, 0, 3)
    rows = {row.measure: row for row in meta_rows("x", Measure.BIAS, "", estimates, variances, 60)}
    assert (*numbers(rows[Measure.BIAS])[1:], rows[Measure.BIAS].ci_method) == (*[None] * 4, "")
    assert rows[Measure.BIAS].estimate == pytest.approx(0.4)
    assert rows[Measure.PREDICTION_INTERVAL].status is RowStatus.NOT_ESTIMABLE
    assert rows[Measure.TAU2].estimate == rows[Measure.TAU2_REML].estimate == 0


def test_a_hundred_per_cent_everywhere_is_no_certainty() -> None:
    score = np.repeat([0.0, 250.0], 30)
    columns = {"reference_score": score, "index_score": score}
    parts = {f"s{number}": draw_exams(number, 60, f"{number}-", **columns) for number in range(3)}
    row = pool(SPECS["accuracy"], parts)["meta", "sensitivity", "", "100"]
    assert (row.ci_low, row.ci_high, row.ci_method) == (None, None, "")
    assert_close(row.estimate, 30.5 / 31)


def test_a_logit_and_its_variance() -> None:
    assert logit_with_variance(30, 40) == pytest.approx((np.log(3), 1 / 30 + 1 / 10))
    # A half is added to both cells if one is empty, and to none otherwise.
    assert logit_with_variance(0, 8) == pytest.approx((np.log(0.5 / 8.5), 2 + 1 / 8.5))
    assert logit_with_variance(8, 8) == pytest.approx((np.log(8.5 / 0.5), 2 + 1 / 8.5))
    assert logit_with_variance(1, 2) == pytest.approx((0.0, 2.0))


# --- the rows -------------------------------------------------------------------------------


def test_the_rows_of_the_bcg_trials() -> None:
    estimates, variances = log_risk_ratios()
    rows = list(meta_rows("x", Measure.HAZARD_RATIO, "age", estimates, variances, 357347))
    assert {(row.analysis, row.scope, row.term, row.n) for row in rows} == {
        ("x", "meta", "age", 357347)
    }
    first, *others = rows
    assert (first.measure, first.group, first.ci_method) == (
        Measure.HAZARD_RATIO,
        "",
        "hartung_knapp",
    )
    np.testing.assert_allclose(
        [first.estimate, first.se, first.ci_low, first.ci_high],
        [-0.7145, 0.1808, -1.1084, -0.3206],
        atol=5e-5,
    )
    by_measure = {row.measure: row for row in others}
    assert list(by_measure) == [
        Measure.Q,
        Measure.I2,
        Measure.TAU2,
        Measure.TAU2_REML,
        Measure.PREDICTION_INTERVAL,
    ]
    assert {row.group for row in others} == {"hazard_ratio"}
    p = stats.chi2.sf(152.233, 12)
    for measure, estimate, p_value in (
        (Measure.Q, 152.233, p),
        (Measure.I2, 0.92117, p),
        (Measure.TAU2, 0.3088, None),
        (Measure.TAU2_REML, 0.3132, None),
    ):
        row = by_measure[measure]
        assert row.estimate == pytest.approx(estimate, abs=6e-5)
        assert row.p_value == (p_value if p_value is None else pytest.approx(p_value, rel=1e-3))
        assert (row.se, row.ci_low, row.ci_high) == (None, None, None)
    prediction = by_measure[Measure.PREDICTION_INTERVAL]
    reach = stats.t.ppf(0.975, 11) * (0.3132 + 0.1808**2) ** 0.5
    assert prediction.estimate == first.estimate
    assert prediction.ci_method == "higgins_t"
    np.testing.assert_allclose(
        [prediction.ci_low, prediction.ci_high], [-0.7145 - reach, -0.7145 + reach], atol=3e-4
    )


def test_on_a_scale_of_its_own_a_mean_has_limits_but_no_standard_error() -> None:
    estimates, variances = log_risk_ratios()
    one = list(meta_rows("x", Measure.HAZARD_RATIO, "", estimates, variances, 9))
    other = list(meta_rows("x", Measure.HAZARD_RATIO, "", estimates, variances, 9, back=np.exp))
    for number in (0, -1):
        for name in ("estimate", "ci_low", "ci_high"):
            assert_close(getattr(other[number], name), np.exp(getattr(one[number], name)))
        assert other[number].se is None
    # What describes the spread stays on the scale on which the sites are combined.
    assert one[1:-1] == other[1:-1]
    without_mean = list(
        meta_rows("x", Measure.HAZARD_RATIO, "", estimates, variances, 9, has_mean=False)
    )
    assert without_mean == one[1:]


def test_a_probability_stays_between_0_and_1() -> None:
    assert [unit_interval(value) for value in (-0.2, 0.0, 0.25, 1.0, 1.7)] == [0, 0, 0.25, 1, 1]


def graded(seed: int, n: int, noise: float) -> Exams:
    """Return patients whose probability tells the condition the better the less noise it has."""
    rng = np.random.default_rng(seed)
    exams = draw_exams(seed, n, f"{seed}-")
    truth = exams.column("reference_score") > 100
    value = 1 / (1 + np.exp(-(2 * truth - 1 + rng.normal(0, noise, n))))
    return exams.with_column("index_probability_100", value)


def test_the_mean_auc_is_that_of_the_sites_own_aucs() -> None:
    parts = {f"s{n}": graded(n, 80 + 20 * n, noise) for n, noise in enumerate((1.0, 1.2, 3.0, 0.9))}
    spec = AucSpec(id="x", kind="auc", value="probability", cut_offs=(100.0,), bins=400)
    rows = pool(spec, parts)
    own = [rows[site, "auc", "", "100"] for site in parts]
    y, v = np.array([row.estimate for row in own]), np.array([row.se**2 for row in own])
    tau2 = searched_tau2(y, v)
    w = 1 / (v + tau2)
    mean = np.average(y, weights=w)
    se = (np.average((y - mean) ** 2, weights=w) / 3) ** 0.5
    row = rows["meta", "auc", "", "100"]
    assert_close(row.estimate, mean, 1e-6)
    half = stats.t.ppf(0.975, 3) * se
    assert_close(row.ci_low, mean - half, 1e-6)
    assert (row.ci_high, row.se, row.n) == (1.0, None, sum(row.n for row in own))
    reach = stats.t.ppf(0.975, 2) * (tau2 + se**2) ** 0.5
    prediction = rows["meta", "prediction_interval", "auc", "100"]
    assert_close(prediction.ci_low, max(mean - reach, 0), 1e-6)
    assert prediction.ci_high == 1.0


def test_hazard_ratios_of_sites_that_do_not_differ() -> None:
    """The same patients at four sites: one hazard ratio, and no interval between sites."""
    parts = {site: draw_exams(3, 150, site) for site in ("a", "b", "c", "d")}
    spec = CoxSpec(id="x", kind="cox", endpoint="mace", covariates=("age",), by_site=True)
    rows = pool(spec, parts)
    pooled = rows["pooled", "hazard_ratio", "", "age"]
    for group in ("", "without a", "without d"):
        row = rows["meta", "hazard_ratio", group, "age"]
        assert_close(row.estimate, pooled.estimate)
        assert (row.se, row.ci_low, row.ci_high, row.ci_method) == (None, None, None, "")
        assert row.n == (600 if group == "" else 450)
    assert rows["meta", "prediction_interval", "hazard_ratio", "age"].estimate is None
