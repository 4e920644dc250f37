"""Zero-inflated Poisson terms against pscl, glmmTMB, numeric derivatives and plain integration."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

from fedcac.statistics.zero_inflated import ZipTerms, zip_start, zip_terms
from fedcac.statistics.zip_patient_effect import zip_random_terms

DATA = Path(__file__).parent / "data"
PLAIN = ["articles", "scores", "rare"]
PAIRED = ["paired_low", "paired_mid", "paired_high"]
NODES = [1, 15, 31]


def expected(dataset: str) -> pd.DataFrame:
    rows = pd.read_csv(DATA / "zero_inflated_expected.csv")
    return rows[rows.dataset == dataset]


def designs(dataset: str) -> tuple[np.ndarray, ...]:
    table = pd.read_csv(DATA / f"zero_inflated_{dataset}.csv")
    one = np.ones(len(table))
    x = np.column_stack([one, *(table[c] for c in table if c.startswith("x"))])
    z = np.column_stack([one, table.z1])
    patient = table.id.to_numpy() if "id" in table else np.arange(len(table))
    return table.y.to_numpy(float), x, z, patient


def maximise(terms: Callable[[np.ndarray], ZipTerms], start: np.ndarray) -> np.ndarray:
    """Newton steps, uphill by the information's absolute eigenvalues, halved until they gain."""
    at, here = start, terms(start)
    for _ in range(100):
        values, vectors = np.linalg.eigh(here.information)
        step = vectors @ ((vectors.T @ here.gradient) / np.maximum(np.abs(values), 1e-6))
        if here.gradient @ step < 1e-16:
            return at
        for _ in range(40):
            try:
                there = terms(at + step)
            except ValueError:
                step = step / 2
                continue
            if there.log_likelihood >= here.log_likelihood - 1e-9:
                break
            step = step / 2
        at, here = at + step, there
    pytest.fail("no maximum in 100 steps")


def slopes(value: Callable[[np.ndarray], np.ndarray], at: np.ndarray, *columns: np.ndarray):
    """Fourth-order differences by every parameter, steps of 1e-3 in the linear predictor."""
    reach = np.concatenate([np.abs(np.column_stack(columns)).max(axis=0), np.ones(1)])[: len(at)]
    return np.array(
        [
            (value(at - 2 * e) - 8 * value(at - e) + 8 * value(at + e) - value(at + 2 * e))
            / (12 * e.max())
            for e in np.diag(1e-3 / reach)
        ]
    )


def brute_force(
    y: np.ndarray, x: np.ndarray, z: np.ndarray, patient: np.ndarray, parameters: np.ndarray
) -> float:
    """Integrate each patient's whole likelihood over the intercept, piece by piece."""
    q, sigma = x.shape[1], np.exp(parameters[-1])
    pi = 1 / (1 + np.exp(-z @ parameters[q:-1]))
    eta = x @ parameters[:q]
    total = 0.0
    for one in np.unique(patient):
        rows = patient == one

        def log_density(u: float, rows: np.ndarray = rows) -> float:
            mu = np.exp(eta[rows] + sigma * u)
            poisson = stats.poisson.logpmf(y[rows], mu) + np.log1p(-pi[rows])
            each = np.where(y[rows] == 0, np.logaddexp(np.log(pi[rows]), poisson), poisson)
            return float(np.sum(each)) - u**2 / 2 - np.log(2 * np.pi) / 2

        grid = np.linspace(-12, 12, 4801)
        heights = np.array([log_density(u) for u in grid])
        peak = heights.max()
        near = grid[heights > peak - 60]
        pieces = np.linspace(near[0] - 0.01, near[-1] + 0.01, 25)
        area = sum(
            integrate.quad(
                lambda u, f=log_density, p=peak: np.exp(f(u) - p), low, high, epsrel=1e-12
            )[0]
            for low, high in pairwise(pieces)
        )
        total += peak + np.log(area)
    return total


@pytest.mark.parametrize("dataset", PLAIN)
def test_terms_equal_zeroinfl(dataset: str) -> None:
    y, x, z, _ = designs(dataset)
    found = expected(dataset)
    at_r = zip_terms(y, x, z, found.estimate.to_numpy())
    assert at_r.log_likelihood == pytest.approx(found.loglik.iloc[0], rel=0, abs=1e-8)
    # optim leaves a gradient; in standard errors it is below 1e-4.
    covariance = np.linalg.inv(at_r.information)
    assert at_r.gradient @ covariance @ at_r.gradient < 1e-8
    start = zip_start(len(y), int(np.sum(y == 0)), float(y.sum()), x.shape[1], z.shape[1])
    fit = maximise(lambda p: zip_terms(y, x, z, p), start)
    np.testing.assert_allclose(fit, found.estimate, rtol=0, atol=1e-5)
    se = np.sqrt(np.diag(np.linalg.inv(zip_terms(y, x, z, fit).information)))
    np.testing.assert_allclose(se, found.se, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shift", [0.0, 0.2])
@pytest.mark.parametrize("dataset", PLAIN)
def test_terms_are_derivatives(dataset: str, shift: float) -> None:
    y, x, z, _ = designs(dataset)
    at = expected(dataset).estimate.to_numpy() + shift

    def terms(p: np.ndarray) -> ZipTerms:
        return zip_terms(y, x, z, p)

    here = terms(at)
    scale = np.abs(here.information).max()
    gradient = slopes(lambda p: terms(p).log_likelihood, at, x, z)
    np.testing.assert_allclose(here.gradient, gradient, rtol=1e-8, atol=1e-9 * scale)
    information = -slopes(lambda p: terms(p).gradient, at, x, z)
    np.testing.assert_allclose(here.information, information, rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize("dataset", PAIRED)
def test_one_node_equals_glmmtmb(dataset: str) -> None:
    y, x, z, patient = designs(dataset)
    found = expected(dataset)

    def terms(p: np.ndarray) -> ZipTerms:
        return zip_random_terms(y, x, z, patient, p, n_nodes=1)

    at_r = terms(found.estimate.to_numpy())
    assert at_r.log_likelihood == pytest.approx(found.loglik.iloc[0], rel=0, abs=1e-6)
    np.testing.assert_allclose(at_r.gradient * found.se, 0, atol=1e-5)
    fit = maximise(terms, found.estimate.to_numpy() + 0.02)
    np.testing.assert_allclose(fit, found.estimate, rtol=0, atol=1e-5)
    # R takes differences of the gradient with a step of 1e-3.
    se = np.sqrt(np.diag(np.linalg.inv(terms(fit).information)))
    np.testing.assert_allclose(se, found.se, rtol=1e-4)


@pytest.mark.parametrize("shift", [0.0, 0.1])
@pytest.mark.parametrize("n_nodes", NODES)
@pytest.mark.parametrize("dataset", PAIRED)
def test_random_terms_are_derivatives(dataset: str, n_nodes: int, shift: float) -> None:
    y, x, z, patient = designs(dataset)
    at = expected(dataset).estimate.to_numpy() + shift

    def terms(p: np.ndarray) -> ZipTerms:
        return zip_random_terms(y, x, z, patient, p, n_nodes)

    here = terms(at)
    scale = np.abs(here.information).max()
    gradient = slopes(lambda p: terms(p).log_likelihood, at, x, z)
    np.testing.assert_allclose(here.gradient, gradient, rtol=1e-8, atol=1e-9 * scale)
    # Louis's information at the nodes is as accurate as the quadrature; one node's is a difference.
    tolerance = {1: 1e-7, 15: 1e-5, 31: 1e-7}[n_nodes]
    information = -slopes(lambda p: terms(p).gradient, at, x, z)
    np.testing.assert_allclose(here.information, information, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize(
    ("sigma", "n_nodes", "tolerance"),
    [
        (0.5, 15, 1e-7),
        (1.0, 15, 1e-6),
        (2.0, 15, 2e-4),
        (3.0, 15, 5e-4),
        (0.5, 31, 1e-9),
        (1.0, 31, 1e-9),
        (2.0, 31, 1e-6),
        (3.0, 31, 2e-6),
    ],
)
def test_quadrature_equals_integration(sigma: float, n_nodes: int, tolerance: float) -> None:
    pairs = [(0, 0), (0, 0), (0, 3), (1, 0), (7, 5), (140, 0), (900, 1100), (0, 4200)]
    y = np.array(pairs, dtype=float).ravel()
    patient = np.repeat(np.arange(len(pairs)), 2)
    x = np.column_stack([np.ones(len(y)), np.tile([0.0, 1.0], len(pairs))])
    z = np.column_stack([np.ones(len(y)), np.repeat(np.linspace(-2, 2, len(pairs)), 2)])
    parameters = np.array([4.0, 0.3, -0.8, 0.7, np.log(sigma)])
    for one in range(len(pairs)):
        rows = patient == one
        few = (y[rows], x[rows], z[rows], patient[rows], parameters)
        found = zip_random_terms(*few, n_nodes).log_likelihood
        assert found == pytest.approx(brute_force(*few), rel=0, abs=tolerance)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_huge_scores_do_not_round_the_information_away(sigma: float) -> None:
    y, one = np.array([1e6, 1.1e6, 0.0, 9e5]), np.ones((4, 1))
    x = np.column_stack([one, [0.0, 1.0, 0.0, 1.0]])
    at = np.array([6.0, 0.1, -1.0, np.log(sigma)])
    few, many = (zip_random_terms(y, x, one, np.array([1, 1, 2, 2]), at, n) for n in (15, 61))
    # The information of the intercept is 1 / sigma^2 per patient, left of scores of a million.
    assert few.information[0, 0] == pytest.approx(2 / sigma**2, rel=1e-3)
    scale = np.sqrt(np.diag(many.information))
    difference = (few.information - many.information) / np.outer(scale, scale)
    np.testing.assert_allclose(difference[[0, 1, 3]][:, [0, 1, 3]], 0, atol=1e-6)


@pytest.mark.parametrize("dataset", PAIRED)
def test_random_fit_converges_from_the_start(dataset: str) -> None:
    y, x, z, patient = designs(dataset)
    start = zip_start(len(y), int(np.sum(y == 0)), float(y.sum()), x.shape[1], z.shape[1], True)
    fit = maximise(lambda p: zip_random_terms(y, x, z, patient, p), start)
    # Laplace's approximation, R's, is only near.
    found = expected(dataset)
    np.testing.assert_allclose((fit - found.estimate) / found.se, 0, atol=0.5)
    finer = maximise(lambda p: zip_random_terms(y, x, z, patient, p, 61), fit)
    np.testing.assert_allclose((fit - finer) / found.se, 0, atol=1e-4)
    coarse_se, se = (
        np.sqrt(np.diag(np.linalg.inv(zip_random_terms(y, x, z, patient, at, n).information)))
        for at, n in ((fit, 15), (finer, 61))
    )
    np.testing.assert_allclose(coarse_se, se, rtol=1e-4)


@pytest.mark.parametrize("n_nodes", NODES)
def test_terms_of_two_groups_of_patients_add_up(n_nodes: int) -> None:
    y, x, z, patient = designs("paired_mid")
    at = expected("paired_mid").estimate.to_numpy() + 0.05
    order = np.random.default_rng(1).permutation(len(y))
    whole = zip_random_terms(y[order], x[order], z[order], patient[order] * 7 - 50, at, n_nodes)
    parts = [
        zip_random_terms(y[rows], x[rows], z[rows], patient[rows], at, n_nodes)
        for rows in (patient % 3 == 0, patient % 3 != 0)
    ]
    for name in ("log_likelihood", "gradient", "information"):
        pooled = getattr(parts[0], name) + getattr(parts[1], name)
        scale = np.abs(pooled).max()
        np.testing.assert_allclose(getattr(whole, name), pooled, rtol=0, atol=1e-9 * scale)


@pytest.mark.parametrize("n_nodes", NODES)
def test_without_spread_the_random_terms_are_the_plain_ones(n_nodes: int) -> None:
    y, x, z, patient = designs("paired_low")
    at = expected("paired_low").estimate.to_numpy()
    at[-1] = -300
    random = zip_random_terms(y, x, z, patient, at, n_nodes)
    plain = zip_terms(y, x, z, at[:-1])
    assert random.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-9)
    np.testing.assert_allclose(random.gradient, [*plain.gradient, 0], atol=1e-8)
    np.testing.assert_allclose(
        random.information[:-1, :-1], plain.information, atol=1e-3 if n_nodes == 1 else 1e-7
    )
    np.testing.assert_allclose(random.information[-1], 0, atol=1e-8)


@pytest.mark.parametrize("n_nodes", [None, *NODES])
@pytest.mark.parametrize("log_sigma", [-300.0, 0.0, 10.0])
@pytest.mark.parametrize("zeta", [-300.0, 0.0, 300.0])
@pytest.mark.parametrize("eta", [-300.0, 0.0, 8.0, 300.0])
def test_terms_are_finite_within_the_bounds(
    eta: float, zeta: float, log_sigma: float, n_nodes: int | None
) -> None:
    y = np.array([0.0, 0.0, 0.0, 1.0, 8000.0, 8000.0, 0.0, 1e6])
    patient = np.array([1, 1, 2, 2, 3, 3, 4, 5])
    one = np.ones((len(y), 1))
    if n_nodes is None:
        found = zip_terms(y, one, one, np.array([eta, zeta]))
    else:
        at = np.array([eta, zeta, log_sigma])
        found = zip_random_terms(y, one, one, patient, at, n_nodes)
    assert found.log_likelihood <= 0
    for values in (found.log_likelihood, found.gradient, found.information):
        assert np.all(np.isfinite(values))


def test_no_rows_give_zero() -> None:
    nothing, design = np.zeros(0), np.zeros((0, 1))
    for found in (
        zip_terms(nothing, design, design, np.zeros(2)),
        zip_random_terms(nothing, design, design, np.zeros(0, dtype=np.int64), np.zeros(3)),
    ):
        assert found.log_likelihood == 0
        assert not found.gradient.any()
        assert not found.information.any()


def test_start_is_the_moments() -> None:
    start = zip_start(10, 4, 120.0, 2, 3)
    np.testing.assert_allclose(start, [np.log(20), 0, np.log(4.5 / 6.5), 0, 0], rtol=1e-15)
    start = zip_start(10, 0, 120.0, 1, 1, random=True)
    np.testing.assert_allclose(start, [np.log(12) - 0.5, np.log(0.5 / 10.5), 0], rtol=1e-15)
    assert zip_start(10, 10, 0.0, 2, 2) is None
    assert zip_start(0, 0, 0.0, 2, 2) is None


@pytest.mark.parametrize(
    "arguments",
    [
        (3, 4, 5.0, 1, 1),
        (3, -1, 5.0, 1, 1),
        (3, 1, 1.0, 1, 1),
        (3, 3, 1.0, 1, 1),
        (3, 1, np.nan, 1, 1),
        (3, 1, np.inf, 1, 1),
        (3, 1, 5.0, 0, 1),
        (3, 1, 5.0, 1, 0),
    ],
)
def test_impossible_sums_are_refused(arguments: tuple) -> None:
    with pytest.raises(ValueError, match=r"total|start"):
        zip_start(*arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.array([0.5, 1.0])}, "whole number"),
        ({"y": np.array([-1.0, 1.0])}, "whole number"),
        ({"y": np.array([np.nan, 1.0])}, "whole number"),
        ({"y": np.array([1.0])}, "same number of rows"),
        ({"z": np.ones((3, 1))}, "same number of rows"),
        ({"parameters": np.zeros(4)}, "one parameter per column"),
        ({"parameters": np.array([301.0, 0.0, 0.0])}, "linear predictor"),
        ({"parameters": np.array([0.0, -301.0, 0.0])}, "linear predictor"),
        ({"parameters": np.array([0.0, np.nan, 0.0])}, "linear predictor"),
        ({"parameters": np.array([0.0, 0.0, 10.1])}, "log sigma"),
        ({"parameters": np.array([0.0, 0.0, np.nan])}, "log sigma"),
        ({"n_nodes": 0}, "nodes"),
        ({"n_nodes": 101}, "nodes"),
        ({"patient": np.array([1])}, "patient code"),
    ],
)
def test_bad_arguments_are_refused(change: dict, message: str) -> None:
    good = {"y": np.array([0.0, 2.0]), "x": np.ones((2, 1)), "z": np.ones((2, 1))}
    good |= {"patient": np.array([1, 1]), "parameters": np.zeros(3)}
    with pytest.raises(ValueError, match=message):
        zip_random_terms(**(good | change))


def test_a_patient_with_many_zeros_is_refused() -> None:
    one = np.ones((11, 1))
    patient = np.zeros(11, dtype=np.int64)
    with pytest.raises(ValueError, match="more than 10 zeros"):
        zip_random_terms(np.zeros(11), one, one, patient, np.zeros(3))
    assert zip_random_terms(np.zeros(10), one[1:], one[1:], patient[1:], np.zeros(3))
