"""The zero-inflated likelihood with a patient effect, a few patients at a time, by plain sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, special

from fedcac.statistics.zero_inflated import ZipTerms, zip_start, zip_terms
from fedcac.statistics.zip_patient_effect import zip_random_terms

Vector = NDArray[np.float64]

# Seven patients of one to four rows, none of whose rows stand together.
Y = np.array([0, 0, 4, 7, 0, 1, 0, 5, 0, 3, 0, 0, 2, 0, 12], dtype=float)
PATIENT = np.array([3, -2, 9, 40, 3, 9, 5, 40, 9, 8, 6, 6, 6, 6, -2])
X = np.column_stack([np.ones(15), np.tile([0.0, 1.0, -0.5], 5)])
Z = np.column_stack([np.ones(15), np.linspace(-1, 1, 15), np.tile([0.0, 0.4, 0, 0, 1], 3)])
AT = np.array([1.2, 0.3, -0.4, 0.5, 0.2, np.log(0.7)])
U = np.linspace(-9, 9, 1201)
DIRECTION = np.array([0.7, -1.1, 0.9, 1.3, -0.8, 0.6])


def log_density(y: Vector, eta: Vector, zeta: Vector) -> Vector:
    """Return log P(y) row by row: an excess zero with the odds exp(zeta), else Poisson."""
    poisson = y * eta - np.exp(eta) - special.gammaln(y + 1) - np.logaddexp(0, zeta)
    return np.where(y == 0, np.logaddexp(zeta - np.logaddexp(0, zeta), poisson), poisson)


def height(u: Vector, y: Vector, eta: Vector, zeta: Vector, sigma: float) -> Vector:
    """Return log of a patient's integrand over the effect, up to the normal's constant, (u,)."""
    rows = log_density(y[:, None], eta[:, None] + sigma * u, zeta[:, None])
    return rows.sum(axis=0) - u**2 / 2


def by_patient(at: Vector) -> list[tuple[Vector, Vector, Vector, float]]:
    eta, zeta, sigma = X @ at[:2], Z @ at[2:5], float(np.exp(at[5]))
    chosen = [PATIENT == one for one in np.unique(PATIENT)]
    return [(Y[own], eta[own], zeta[own], sigma) for own in chosen]


def integrated(at: Vector) -> float:
    """Return the log-likelihood by the trapezoid rule, exact for what dies out at both ends."""
    densities = [np.exp(height(U, *one)) for one in by_patient(at)]
    return sum(np.log(np.sum(own) * (U[1] - U[0]) / np.sqrt(2 * np.pi)) for own in densities)


def start(y: Vector, eta: Vector, zeta: Vector, sigma: float) -> float:
    """Return the highest of three places: no effect, and the modes with zeros of one kind alone.

    Without excess zeros, or with no other, the integrand has one mode; its slope is searched.
    """
    places = [0.0]
    for poisson in (y >= 0, y > 0):
        places.append(
            optimize.brentq(
                lambda u, own=poisson: sigma * (y - own * np.exp(eta + sigma * u)).sum() - u,
                -50,
                50,
                xtol=1e-13,
            )
        )
    return max(places, key=lambda u: height(np.array([u]), y, eta, zeta, sigma)[0])


def laplace(y: Vector, eta: Vector, zeta: Vector, sigma: float) -> float:
    """Return Laplace's approximation at the mode uphill from the highest of the three places."""
    heights = height(U, y, eta, zeta, sigma)
    top = int(np.argmin(np.abs(U - start(y, eta, zeta, sigma))))
    while heights[top - 1 : top + 2].max() > heights[top]:
        top += int(np.argmax(heights[top - 1 : top + 2])) - 1

    def own(u: float) -> float:
        return float(height(np.array([u]), y, eta, zeta, sigma)[0])

    limits = (U[top - 1], U[top + 1])
    found = optimize.minimize_scalar(lambda u: -own(u), bounds=limits, options={"xatol": 1e-10})
    h = 0.02
    near = [own(found.x + step * h) for step in (-3, -2, -1, 0, 1, 2, 3)]
    curvature = -np.dot([2, -27, 270, -490, 270, -27, 2], near) / (180 * h**2)
    return own(found.x) - np.log(curvature) / 2


def slope(
    value: Callable[[Vector], NDArray[np.float64] | float], at: Vector, step: float = 2e-3
) -> Vector:
    """Return the fourth-order difference along `DIRECTION`, all of whose entries count."""
    e = step * DIRECTION[-len(at) :]
    near, far = (
        np.subtract(value(at + e), value(at - e)),
        np.subtract(value(at + 2 * e), value(at - 2 * e)),
    )
    return np.asarray((8 * near - far) / (12 * step))


def along(terms: ZipTerms) -> tuple[float, Vector]:
    """Return what the gradient and the information say about the same direction."""
    direction = DIRECTION[-len(terms.gradient) :]
    return float(terms.gradient @ direction), terms.information @ direction


def quadrature(n_nodes: int) -> Callable[[Vector], ZipTerms]:
    return lambda parameters: zip_random_terms(Y, X, Z, PATIENT, parameters, n_nodes)


def test_quadrature_is_the_integral_over_the_patients_effects() -> None:
    found = quadrature(31)(AT)
    assert found.log_likelihood == pytest.approx(integrated(AT), rel=0, abs=1e-9)
    assert along(found)[0] == pytest.approx(slope(integrated, AT), rel=0, abs=1e-8)


@pytest.mark.parametrize("n_nodes", [1, 2, 5, 31])
def test_the_gradient_is_that_of_the_value_at_any_number_of_nodes(n_nodes: int) -> None:
    """The nodes move with the parameters; few nodes make a coarse value and still its gradient."""
    terms, at = quadrature(n_nodes), AT + 0.1
    expected = slope(lambda p: terms(p).log_likelihood, at)
    assert along(terms(at))[0] == pytest.approx(expected, rel=0, abs=1e-8)


@pytest.mark.parametrize(
    ("n_nodes", "log_mean", "log_sigma", "tolerance"),
    [
        (41, 1.2, -1.5, 1e-8),
        (41, 1.2, -0.3, 1e-8),
        (41, 1.2, 0.2, 1e-7),
        (41, -2.0, -0.3, 1e-8),
        (1, 1.2, -0.3, 1e-7),
        (1, -2.0, -0.3, 1e-7),
    ],
)
def test_the_information_is_the_slope_of_the_gradient(
    n_nodes: int, log_mean: float, log_sigma: float, tolerance: float
) -> None:
    terms = quadrature(n_nodes)
    at = np.array([log_mean, *AT[1:-1], log_sigma])
    found = terms(at)
    expected = -slope(lambda p: terms(p).gradient, at)
    np.testing.assert_allclose(along(found)[1], expected, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(found.information, found.information.T)


def test_one_node_is_laplaces_approximation() -> None:
    expected = sum(laplace(*one) for one in by_patient(AT))
    assert quadrature(1)(AT).log_likelihood == pytest.approx(expected, rel=0, abs=1e-7)


def one_patient(
    y: Sequence[float], eta: float, zeta: float, log_sigma: float, n_nodes: int
) -> ZipTerms:
    one = np.ones((len(y), 1))
    patient = np.full(len(y), 17)
    at = np.array([eta, zeta, log_sigma])
    return zip_random_terms(np.array(y), one, one, patient, at, n_nodes)


@pytest.mark.parametrize(
    ("y", "eta", "zeta", "log_sigma"),
    [
        # The search starts where the integrand is hardly bent, or bent upwards.
        ((0.0, 0.0), 1.7078, -1.7338, -0.3947),
        ((0.0, 0.0, 0.0), 1.7916, -0.9253, -0.0456),
        ((0.0, 0.0), 1.5644, 0.3509, 0.5195),
        ((0.0, 0.0), 1.6365, -0.0775, 0.4484),
        # Two modes, and the three places to start are not all below the same one.
        ((0.0,), 4.788, -1.882, 0.846),
        ((0.0, 0.0, 0.0), 3.924, -1.484, 1.159),
        ((0.0, 0.0, 0.0, 0.0, 8.0), 0.36, -2.552, 0.38),
        ((8.0, 0.0, 0.0, 0.0, 0.0, 0.0), 3.67, -2.698, 0.408),
        ((0.0, 0.0), 4.36, -1.21, 0.91),
        ((0.0,) * 7, 4.03, -3.84, -0.59),
        ((0.0,) * 6, 5.59, -3.04, 0.45),
        # Zeros alone that all are structural say nothing: no effect is the place to start.
        ((0.0, 0.0), 1.83, -1.0, 0.09),
        # A small mean.
        ((0.0, 0.0, 8.0, 0.0, 0.0, 0.0), -2.43, -2.1, 0.78),
    ],
)
def test_laplaces_approximation_is_at_the_mode_above_the_highest_start(
    y: tuple[float, ...], eta: float, zeta: float, log_sigma: float
) -> None:
    n = len(y)
    rows = (np.array(y), np.full(n, eta), np.full(n, zeta), float(np.exp(log_sigma)))
    found = one_patient(y, eta, zeta, log_sigma, 1)
    assert found.log_likelihood == pytest.approx(laplace(*rows), rel=0, abs=1e-6)
    at = np.array([eta, zeta, log_sigma])
    expected = slope(lambda p: one_patient(y, *p.tolist(), 1).log_likelihood, at, 1e-4)
    assert along(found)[0] == pytest.approx(expected, rel=1e-6)


def test_a_column_without_a_value_has_no_information() -> None:
    x = np.column_stack([X[:, 0], np.zeros(15)])
    for n_nodes in (1, 15):
        found = zip_random_terms(Y, x, Z, PATIENT, AT, n_nodes)
        assert found.gradient[1] == 0
        np.testing.assert_array_equal(found.information[1], 0)
        np.testing.assert_array_equal(found.information[:, 1], 0)
        other = zip_random_terms(Y, X[:, :1], Z, PATIENT, np.delete(AT, 1), n_nodes)
        kept = np.delete(np.delete(found.information, 1, 0), 1, 1)
        np.testing.assert_allclose(kept, other.information, rtol=0, atol=1e-7)


@pytest.mark.parametrize("n_nodes", [1, 15])
def test_units_of_a_column_do_not_change_the_likelihood(n_nodes: int) -> None:
    """A column a thousand times as large has a thousandth of the parameter."""
    scale = np.array([1.0, 1e3, 1.0, 1.0, 1e-7, 1.0])
    found = zip_random_terms(Y, X * scale[:2], Z * scale[2:5], PATIENT, AT / scale, n_nodes)
    expected = zip_random_terms(Y, X, Z, PATIENT, AT, n_nodes)
    assert found.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-13)
    np.testing.assert_allclose(found.gradient, expected.gradient * scale, rtol=1e-9)
    np.testing.assert_allclose(
        found.information / np.outer(scale, scale), expected.information, rtol=0, atol=1e-7
    )


# --- without an effect ------------------------------------------------------------------------


def test_independent_rows_are_summed() -> None:
    at = AT[:-1]
    found = zip_terms(Y, X, Z, at)

    def summed(p: Vector) -> float:
        return float(log_density(Y, X @ p[:2], Z @ p[2:]).sum())

    assert found.log_likelihood == pytest.approx(summed(at), rel=1e-13)
    np.testing.assert_allclose(along(found)[0], slope(summed, at), rtol=0, atol=1e-9)
    expected = -slope(lambda p: zip_terms(Y, X, Z, p).gradient, at)
    np.testing.assert_allclose(along(found)[1], expected, rtol=0, atol=1e-9)


def test_the_ends_of_what_can_be_computed_are_within_it() -> None:
    one, y = np.ones((2, 1)), np.array([0.0, 3.0])
    for at in ([300.0, 0.0], [-300.0, 0.0], [0.0, 300.0], [0.0, -300.0]):
        assert np.isfinite(zip_terms(y, one, one, np.array(at)).log_likelihood)
    for log_sigma in (-300.0, 10.0):
        for n_nodes in (1, 100):
            at_end = np.array([0.0, 0.0, log_sigma])
            found = zip_random_terms(y, one, one, np.array([1, 2]), at_end, n_nodes)
            assert np.isfinite(found.log_likelihood)


def test_a_large_effect_on_a_small_mean_is_not_cut_off() -> None:
    """A patient ten standard deviations up would have a mean of e^30; two up, one of 1/7."""
    eta, sigma = -10.0, 4.0
    densities = np.exp(-np.exp(eta + sigma * U) - U**2 / 2)
    expected = np.log(densities.sum() * (U[1] - U[0]) / np.sqrt(2 * np.pi))
    found = one_patient((0.0,), eta, -300.0, np.log(sigma), 100)
    assert found.log_likelihood == pytest.approx(expected, rel=0, abs=1e-5)


def test_of_ten_zeros_at_most_the_patient_with_most_counts() -> None:
    one, at = np.ones((14, 1)), np.zeros(3)
    y = np.array([0.0] * 10 + [1.0] * 4)
    # Thirteen rows, ten of them zeros.
    most = np.array([1] * 13 + [2])
    assert np.isfinite(zip_random_terms(y, one, one, most, at).log_likelihood)
    y[10] = 0.0
    with pytest.raises(ValueError, match="more than 10 zeros"):
        zip_random_terms(y, one, one, most, at)


@pytest.mark.parametrize(
    ("x", "z"), [(np.ones(2), np.ones((2, 1))), (np.ones((2, 1)), np.ones(2))], ids=["x", "z"]
)
def test_a_design_has_rows_and_columns(x: Vector, z: Vector) -> None:
    with pytest.raises(ValueError, match="same number of rows"):
        zip_terms(np.array([0.0, 3.0]), x, z, np.zeros(2))


@pytest.mark.parametrize(
    "parameters", [(1e308,) * 4, (1e308, -1e308, 1e308, -1e308), (-31.0, 0.0, 0.0, 0.0)]
)
def test_predictors_beyond_what_can_be_computed_are_refused(
    parameters: tuple[float, ...],
) -> None:
    """Sums that overflow, that are infinity less infinity, and one row of two out of range."""
    x, z = np.array([[10.0] * 4, [0.0] * 4]), np.ones((2, 1))
    with pytest.raises(ValueError, match="linear predictor"):
        zip_terms(np.array([0.0, 3.0]), x, z, np.array([*parameters, 0.0]))
    with pytest.raises(ValueError, match="linear predictor"):
        zip_terms(np.array([0.0, 3.0]), z, x, np.array([0.0, *parameters]))


def test_a_start_may_have_no_zero_or_nothing_else() -> None:
    start = zip_start(4, 0, 4.0, 1, 1)
    assert start is not None
    np.testing.assert_allclose(start, [0.0, np.log(0.5 / 4.5)], rtol=1e-15)
    assert zip_start(4, 4, 0.0, 1, 1) is None
    for bad in ((4, 5, 4.0), (4, -1, 5.0), (4, 1, 2.9), (4, 1, -0.5), (4, 4, 0.5)):
        with pytest.raises(ValueError, match=r"total|start"):
            zip_start(*bad, 1, 1)
