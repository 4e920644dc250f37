"""Where a search for a maximum asks, step by step, and when it stops: by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcac.statistics.cox import CoxTerms, CoxTotals
from fedcac.statistics.fit import Fit, FitStatus
from fedcac.statistics.newton import maximise
from fedcac.statistics.refit import queried_table, refit
from fedcac.vocabulary import RefusalCode, RowStatus, SiteName

Vector = NDArray[np.float64]
Hill = Callable[[Vector], tuple[float, Vector, Vector]]
SITE = SiteName("s")


def search(hill: Hill, n_parameters: int, **options: Any) -> tuple[Fit, list[Vector]]:
    """Return the fit, and where the search asked."""
    running = maximise((SITE,), n_parameters, CoxTerms, **options)
    query, asked = next(running), []
    while True:
        asked.append(np.array(query.values["beta"]))
        value, gradient, information = hill(asked[-1])
        answer = CoxTerms(
            n_patients=50,
            n_events=9,
            log_likelihood=value,
            gradient=tuple(gradient.tolist()),
            information=tuple(tuple(row) for row in information.tolist()),
        )
        try:
            query = running.send({SITE: answer})
        except StopIteration as stop:
            return stop.value, asked


def parabola(centre: Vector, information: Vector) -> Hill:
    def hill(beta: Vector) -> tuple[float, Vector, Vector]:
        away = beta - centre
        return float(-away @ information @ away / 2), -information @ away, information

    return hill


# --- Newton's method --------------------------------------------------------------------------


@pytest.mark.parametrize("is_concave", [True, False])
def test_a_parabola_takes_two_questions(is_concave: bool) -> None:
    hill = parabola(np.array([3.0]), np.array([[4.0]]))
    fit, asked = search(hill, 1, is_concave=is_concave, maximum_exchanges=2)
    assert (fit.status, fit.n_exchanges) == (FitStatus.OK, 2)
    np.testing.assert_allclose(asked, [[0], [3]])
    assert (fit.null_log_likelihood, fit.log_likelihood) == (-18, 0)
    # With one question fewer, it has not arrived, and asks no more.
    fit, asked = search(hill, 1, is_concave=is_concave, maximum_exchanges=1)
    assert (fit.status, fit.n_exchanges, len(asked)) == (FitStatus.UNBOUNDED, 1, 1)
    assert np.isnan(fit.parameters).all()
    assert (~fit.identified).all()


def test_the_last_step_is_taken_where_nothing_is_asked() -> None:
    fit, asked = search(parabola(np.array([1e-10]), np.array([[1.0]])), 1)
    assert len(asked) == 1
    assert fit.parameters == pytest.approx([1e-10], rel=1e-6, abs=0)


@pytest.mark.parametrize(
    ("now", "loss", "is_rounding"),
    [(0.0, 0.5e-10, True), (0.0, 1.5e-10, False), (-9.0, 9e-10, True), (-9.0, 11e-10, False)],
)
def test_a_step_down_is_halved_unless_rounding_explains_it(
    now: float, loss: float, is_rounding: bool
) -> None:
    def step_down(beta: Vector) -> tuple[float, Vector, Vector]:
        is_start = beta[0] == 0
        return now if is_start else now - loss, np.array([float(is_start)]), np.eye(1)

    fit, asked = search(step_down, 1)
    assert asked[1] == 1
    assert (fit.status is FitStatus.OK) == is_rounding
    if not is_rounding:
        assert [float(beta[0]) for beta in asked[2:5]] == [0.5, 0.25, 0.125]
        assert (fit.status, len(asked)) == (FitStatus.NOT_CONVERGED, 15)


def test_after_a_step_that_rises_the_next_one_is_whole_again() -> None:
    def cliff(beta: Vector) -> tuple[float, Vector, Vector]:
        """Falls beyond 3; before it the gradient is 4."""
        return float(4 * beta[0] if beta[0] <= 3 else -1), np.array([4.0]), np.eye(1)

    _, asked = search(cliff, 1, maximum_exchanges=4)
    assert [float(beta[0]) for beta in asked] == [0, 4, 2, 6]


@pytest.mark.parametrize("unit", [np.array([1.0, 1.0]), np.array([10.0, 1e-4])])
@pytest.mark.parametrize(
    ("information", "gradient", "step"),
    [
        # Eigenvalues 1 along (1, 1) and -3 along (1, -1), taken as 1 and 3.
        ([[-1.0, 2.0], [2.0, -1.0]], [3.0, 0.0], [2.0, 1.0]),
        # 2 and 0: where it is flat the step is 1000 times as long at most.
        ([[1.0, 1.0], [1.0, 1.0]], [1.0, 0.0], [250.25, -249.75]),
        ([[1.0, -1.0], [-1.0, 1.0]], [1.0, 1.0], [500.0, 500.0]),
        # Without a cross term a sign is turned.
        ([[-4.0, 0.0], [0.0, 9.0]], [2.0, 3.0], [0.5, 1 / 3]),
    ],
)
def test_a_step_climbs_where_the_likelihood_is_not_concave(
    information: Any, gradient: Any, step: Any, unit: Vector
) -> None:
    """Whatever units the parameters have."""

    def saddle(beta: Vector) -> tuple[float, Vector, Vector]:
        return 0.0, np.array(gradient) * unit, np.array(information) * np.outer(unit, unit)

    _, asked = search(saddle, 2, is_concave=False, maximum_exchanges=2)
    np.testing.assert_allclose(asked[1] * unit, step, rtol=1e-9)


@pytest.mark.parametrize("correlation", [0.5, -0.99999])
@pytest.mark.parametrize("is_concave", [True, False])
def test_at_a_maximum_errors_are_those_of_the_information(
    correlation: float, is_concave: bool
) -> None:
    information = np.array([[4.0, 2 * correlation], [2 * correlation, 1.0]])
    fit, asked = search(parabola(np.array([1.0, 2.0]), information), 2, is_concave=is_concave)
    assert len(asked) <= 3
    left = 1 - correlation**2
    np.testing.assert_allclose(fit.standard_errors, np.array([0.5, 1.0]) / left**0.5, rtol=1e-9)
    wanted = np.array([[1 / 4, -correlation / 2], [-correlation / 2, 1]]) / left
    np.testing.assert_allclose(fit.covariance, wanted, rtol=1e-9)
    np.testing.assert_allclose(fit.parameters, [1, 2], rtol=1e-7)


def test_columns_that_others_explain_stay_at_zero() -> None:
    """Of 1, x, 1 + 2 x, y, x - y and z the third and fifth are combinations of earlier ones."""
    rng = np.random.default_rng(6)
    ones, x, z = np.ones(40), rng.normal(6, 1, 40), rng.normal(0, 1, 40)
    y = 0.7 * x + rng.normal(0, 1, 40)
    columns = np.column_stack([ones, x, ones + 2 * x, y, x - y, z])
    information = columns.T @ columns
    fit, _ = search(parabola(np.arange(6.0), information), 6)
    assert fit.identified.tolist() == [True, True, False, True, False, True]
    keep = [0, 1, 3, 5]
    wanted = np.linalg.inv(information[np.ix_(keep, keep)])
    np.testing.assert_allclose(fit.covariance[np.ix_(keep, keep)], wanted, rtol=1e-8)
    assert not fit.covariance[[2, 4]].any()
    np.testing.assert_array_equal(np.isnan(fit.standard_errors), ~fit.identified)
    # 1 + 2 x counts as 2 in front of it, x - y as 4 x - 4 y.
    assert fit.parameters[keep] == pytest.approx([2, 1 + 4 + 4, 3 - 4, 5])


@pytest.mark.parametrize(("left", "is_identified"), [(1e-8, True), (1e-10, False)])
def test_how_little_of_a_column_may_be_left(left: float, is_identified: bool) -> None:
    across = (1 - left) ** 0.5
    information = np.array([[1.0, across], [across, 1.0]])
    fit, _ = search(lambda _: (0.0, np.zeros(2), information), 2)
    assert fit.identified.tolist() == [True, is_identified]


def test_information_that_rounding_leaves_below_zero_identifies_nothing() -> None:
    information = np.diag([4.0, -1e-18])
    fit, _ = search(lambda beta: (0.0, np.zeros(2), information), 2)
    assert fit.identified.tolist() == [True, False]
    np.testing.assert_array_equal(fit.covariance, np.diag([0.25, 0]))


def between(answers: Callable[[SiteName, Vector], Any], **options: Any) -> tuple[Fit, list[float]]:
    """Return the fit of one parameter over sites a and b, and where the search asked."""
    running = maximise((SiteName("a"), SiteName("b")), 1, CoxTerms, **options)
    query, asked = next(running), []
    while True:
        asked.append(query.values["beta"][0])
        at = np.array(asked[-1:])
        try:
            query = running.send({site: answers(site, at) for site in map(SiteName, "ab")})
        except StopIteration as stop:
            return stop.value, asked


def terms_of(hill: Hill, at: Vector) -> CoxTerms:
    value, gradient, information = hill(at)
    return CoxTerms(
        n_patients=50,
        n_events=9,
        log_likelihood=value,
        gradient=tuple(gradient.tolist()),
        information=tuple(tuple(row) for row in information.tolist()),
    )


OWN = {
    "a": parabola(np.array([3.0]), np.array([[1.0]])),
    "b": parabola(np.array([6.0]), np.array([[2.0]])),
}


@pytest.mark.parametrize("code", [RefusalCode.TOO_FEW_EVENTS, RefusalCode.BUDGET_SPENT])
@pytest.mark.parametrize("is_late", [False, True])
def test_the_fit_is_that_of_the_sites_that_answer_to_the_end(
    code: RefusalCode, is_late: bool
) -> None:
    def answers(site: SiteName, at: Vector) -> Any:
        has_refused = site == "b" and (not is_late or at[0] != 0)
        return code if has_refused else terms_of(OWN[site], at)

    fit, asked = between(answers)
    # Of both the maximum is at (3 + 2 * 6) / 3; what is left has its own at 3.
    assert asked == pytest.approx([0, 5, 3] if is_late else [0, 3])
    assert (fit.status, fit.sites, fit.refused) == (FitStatus.OK, ("a",), {"b": code})
    assert (fit.null_log_likelihood, fit.n_patients) == (-4.5, 50)
    assert fit.parameters == pytest.approx([3])


@pytest.mark.parametrize("is_kind", [True, False])
def test_an_answer_of_another_shape_or_kind_is_a_fault_of_the_site(is_kind: bool) -> None:
    two = terms_of(parabola(np.zeros(2), np.eye(2)), np.zeros(2))
    other = two if is_kind else CoxTotals(n_patients=50, n_events=9, values=((1.0,),))
    fit, _ = between(lambda site, at: other if site == "b" else terms_of(OWN["a"], at))
    assert (fit.status, fit.sites) == (FitStatus.OK, ("a",))
    assert fit.refused == {"b": RefusalCode.INTERNAL}


@pytest.mark.parametrize("is_once", [True, False])
def test_a_site_that_bounds_the_parameters_halves_the_steps(is_once: bool) -> None:
    """The maximum is at 5; one site bounds parameters by 4.5, or did so for one question."""
    asked_of_b: list[float] = []

    def answers(site: SiteName, at: Vector) -> Any:
        if site == "b":
            asked_of_b.append(float(at[0]))
            if at[0] > 4.5 and not (is_once and len(asked_of_b) > 2):
                return RefusalCode.PARAMETERS_OUT_OF_BOUNDS
        return terms_of(OWN[site], at)

    fit, asked = between(answers)
    assert (fit.sites, fit.refused) == (("a", "b"), {})
    if is_once:
        assert asked == pytest.approx([0, 5, 2.5, 5])
        assert (fit.status, fit.parameters[0]) == (FitStatus.OK, pytest.approx(5))
    else:
        assert asked[:5] == pytest.approx([0, 5, 2.5, 5, 3.75])
        assert (fit.status, len(asked)) == (FitStatus.OUT_OF_BOUNDS, 15)


# --- refits on replicates ---------------------------------------------------------------------


def refitted(
    start: Vector, covariance: Vector, gradient: Callable[[Vector], Vector], **options: Any
) -> tuple[Any, list[Vector]]:
    """Return what a refit ends with, and the parameters (R, p) of every question."""
    running = refit(start, covariance, (SITE,), CoxTotals, **options)
    query, asked = next(running), []
    while True:
        asked.append(queried_table(query, *start.shape))
        values = tuple(tuple(row) for row in gradient(asked[-1]).tolist())
        try:
            query = running.send({SITE: CoxTotals(n_patients=9, n_events=3, values=values)})
        except StopIteration as stop:
            return stop.value, asked


def test_after_one_step_a_parabola_is_known() -> None:
    """Information 4, but the replicates have 5, 4 and 3: the second step ends where they do."""
    centre, curvature = np.array([[0.2], [-0.3], [0.4]]), np.array([[5.0], [4.0], [3.0]])
    found, asked = refitted(
        np.zeros((3, 1)), np.array([[0.25]]), lambda at: curvature * (centre - at)
    )
    np.testing.assert_allclose(asked[1], centre * curvature / 4)
    np.testing.assert_allclose(asked[2], centre, atol=1e-12)
    np.testing.assert_allclose(found, centre, atol=1e-12)
    assert len(asked) == 3


def test_the_second_step_is_that_of_broyden_fletcher_goldfarb_and_shanno() -> None:
    covariance = np.array([[1.0, 0.3], [0.3, 0.5]])
    centres = np.array([[0.4, -0.2], [-0.1, 0.3]])
    information = np.array([[[1.5, -0.4], [-0.4, 2.5]], [[1.0, 0.2], [0.2, 3.0]]])

    def gradient(at: Vector) -> Vector:
        return np.stack([m @ (c - a) for m, c, a in zip(information, centres, at, strict=True)])

    found, asked = refitted(np.zeros((2, 2)), covariance, gradient)
    first = gradient(np.zeros((2, 2)))
    for replicate in range(2):
        step = covariance @ first[replicate]
        np.testing.assert_allclose(asked[1][replicate], step)
        after = gradient(asked[1])[replicate]
        change = first[replicate] - after
        turn = np.eye(2) - np.outer(step, change) / (step @ change)
        inverse = turn @ covariance @ turn.T + np.outer(step, step) / (step @ change)
        np.testing.assert_allclose(asked[2][replicate], step + inverse @ after)
    np.testing.assert_allclose(found, centres, atol=1e-3)


def test_a_replicate_at_its_maximum_stays_there() -> None:
    centre = np.array([[0.0, 0.0], [0.3, -0.2]])
    found, asked = refitted(
        np.zeros((2, 2)), np.diag([1.0, 2.0]), lambda at: (centre - at) * [1.2, 0.4]
    )
    assert len(asked) > 2
    np.testing.assert_array_equal([at[0] for at in asked], np.zeros((len(asked), 2)))
    np.testing.assert_array_equal(found[0], [0, 0])
    np.testing.assert_allclose(found[1], centre[1], atol=1e-3)


def test_where_a_gradient_rises_the_inverse_stays_as_it_was() -> None:
    """Gradients of -log(1 + (3 - b)^2) / 2, which is convex more than 1 away from its top."""

    def gradient(at: Vector) -> Vector:
        return (3 - at) / (1 + (3 - at) ** 2)

    found, asked = refitted(np.zeros((1, 1)), np.array([[4.0]]), gradient)
    second = 4 * 0.3 + 4 * 1.8 / (1 + 1.8**2)
    np.testing.assert_allclose(asked[:3], [[[0]], [[1.2]], [[second]]])
    np.testing.assert_allclose(found, [[3]], atol=2e-3)


@pytest.mark.parametrize(("far", "is_too_far"), [(0.59, False), (0.61, True)])
def test_one_replicate_that_runs_away_ends_the_refits(far: float, is_too_far: bool) -> None:
    """A standard error of 0.1, and four replicates: three times 0.1 times 2."""
    centre = np.array([[0.0], [0.01], [-0.02], [far]])
    found, _ = refitted(np.zeros((4, 1)), np.array([[0.01]]), lambda at: 100 * (centre - at))
    if is_too_far:
        assert found is RowStatus.NOT_ESTIMABLE
    else:
        np.testing.assert_allclose(found, centre)


def test_refits_end_when_nothing_moves_by_a_thousandth_of_an_error() -> None:
    """The inverse is right from the start: each step is the distance that is left."""
    for distance, n_asked in ((0.9e-4, 1), (1.1e-4, 2)):
        found, asked = refitted(
            np.zeros((1, 1)), np.array([[0.01]]), lambda at, d=distance: 100 * (d - at)
        )
        assert len(asked) == n_asked
        np.testing.assert_allclose(found, [[distance]])


def test_refits_that_do_not_settle_in_time_are_an_error() -> None:
    found, asked = refitted(
        np.zeros((1, 1)), np.array([[1.0]]), lambda at: np.full((1, 1), 0.1), maximum_exchanges=4
    )
    assert (found, len(asked)) == (RowStatus.ERROR, 4)


def test_a_site_without_gradients_ends_the_refits() -> None:
    running = refit(np.zeros((2, 1)), np.eye(1), (SITE,), CoxTotals)
    next(running)
    with pytest.raises(StopIteration) as stop:
        running.send({SITE: RefusalCode.TOO_FEW_PATIENTS})
    assert stop.value.value is RowStatus.SUPPRESSED
