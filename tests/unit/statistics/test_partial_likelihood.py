"""The Cox partial likelihood, its pairs and residuals, against sums over every risk set."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from fedcac.statistics.concordance import (
    Concordance,
    concordance,
    concordant_pairs,
    count_smaller_before,
    ordered_pairs,
)
from fedcac.statistics.partial_likelihood import PartialLikelihood, partial_likelihood
from fedcac.statistics.risk_sets import (
    baseline_hazard,
    proportionality_terms,
    proportionality_test,
    score_residuals,
)
from fedcac.vocabulary import TieMethod

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]
Sums = tuple[float, Vector, Vector]
TIES = pytest.mark.parametrize("ties", list(TieMethod))


def by_risk_set(x: Vector, time: Vector, event: Flags, beta: Vector, ties: TieMethod) -> Sums:
    """Return log-likelihood, gradient and information, one event at a time."""
    value, gradient, information = 0.0, np.zeros(x.shape[1]), np.zeros((x.shape[1],) * 2)
    eta = (x * beta).sum(axis=1)
    for t in np.unique(time[event]):
        at_risk, dying = time >= t, event & (time == t)
        n_dying = int(dying.sum())
        value += float(eta[dying].sum())
        gradient = gradient + x[dying].sum(axis=0)
        for place in range(n_dying):
            share = place / n_dying if ties is TieMethod.EFRON else 0.0
            with np.errstate(divide="ignore"):
                log_weight = np.log(at_risk - share * dying) + eta
            log_sum = float(special.logsumexp(log_weight[at_risk]))
            weight = np.exp(log_weight - log_sum)
            mean = weight @ x
            value -= log_sum
            gradient = gradient - mean
            information = information + (x - mean).T @ (weight[:, None] * (x - mean))
    return value, gradient, information


def assert_equal(found: PartialLikelihood, wanted: Sums, tolerance: float = 1e-10) -> None:
    close = {"rtol": tolerance, "atol": tolerance}
    np.testing.assert_allclose(found.log_likelihood, wanted[0], **close)
    np.testing.assert_allclose(found.gradient, wanted[1], **close)
    np.testing.assert_allclose(found.information, wanted[2], **close)


def drawn(seed: int, n: int, p: int, n_times: int) -> tuple[Vector, Vector, Flags, Vector]:
    rng = np.random.default_rng(seed)
    x, time = rng.normal(0, 1, (n, p)), rng.integers(1, n_times + 1, n).astype(float)
    return x, time, rng.random(n) < 0.6, rng.normal(0, 0.7, p)


# --- likelihood -------------------------------------------------------------------------------


@TIES
@pytest.mark.parametrize(("n", "n_times"), [(40, 5), (40, 400), (7, 2), (30, 1)])
def test_the_terms_are_sums_over_risk_sets(n: int, n_times: int, ties: TieMethod) -> None:
    x, time, event, beta = drawn(n + n_times, n, 3, n_times)
    found = partial_likelihood(x, time, event, beta, ties)
    assert_equal(found, by_risk_set(x, time, event, beta, ties))
    assert found.n_events == event.sum()


@TIES
@pytest.mark.parametrize("spread", [250.0, 1000.0, 4000.0])
def test_risk_sets_of_very_unlike_patients(spread: float, ties: TieMethod) -> None:
    """Who is followed longest has the lowest hazard, or the highest, by a factor of e^spread."""
    x, time, event, _ = drawn(3, 25, 1, 12)
    for direction in (1.0, -1.0):
        x = direction * time[:, None] / 12 + 0.01 * x
        beta = np.array([spread])
        found = partial_likelihood(x, time, event, beta, ties)
        assert_equal(found, by_risk_set(x, time, event, beta, ties), 1e-9)


def test_one_event_after_another_with_predictors_far_apart() -> None:
    """The last to die has predictor 0, the one before 1000, the first 0 again."""
    x, time = np.array([[0.0], [1000.0], [0.0]]), np.array([3.0, 2.0, 1.0])
    found = partial_likelihood(x, time, np.ones(3, dtype=bool), np.ones(1), TieMethod.EFRON)
    # log 1 + log 1 + log e^-1000
    assert found.log_likelihood == pytest.approx(-1000)
    assert found.gradient == pytest.approx([-1000])
    assert found.information == pytest.approx(np.zeros((1, 1)), abs=1e-8)


@TIES
def test_one_patient_far_from_all_others_costs_no_digits(ties: TieMethod) -> None:
    """The first row is of a patient censored before any event: as if it were not there."""
    x, time, event, beta = drawn(8, 400, 2, 20)
    wanted = by_risk_set(x, time, event, beta, ties)
    rows = np.vstack([[[-1e6, 1e6]], x]), np.r_[0.5, time], np.r_[False, event]
    assert_equal(partial_likelihood(*rows, beta, ties), wanted, 1e-6)


@TIES
def test_what_is_the_same_for_all_is_exactly_without_information(ties: TieMethod) -> None:
    x, time, event, beta = drawn(4, 60, 2, 9)
    x[:, 1] = 0.1 + 1e5
    found = partial_likelihood(x, time, event, beta, ties)
    np.testing.assert_array_equal(found.information[1], 0)
    assert found.gradient[1] == 0


def test_without_an_event_there_is_nothing() -> None:
    x, time, _, beta = drawn(1, 12, 2, 4)
    found = partial_likelihood(x, time, np.zeros(12, dtype=bool), beta, TieMethod.EFRON)
    assert (found.log_likelihood, found.n_events) == (0, 0)
    np.testing.assert_array_equal(found.gradient, np.zeros(2))
    np.testing.assert_array_equal(found.information, np.zeros((2, 2)))


# --- what cannot be computed ------------------------------------------------------------------

# The patient in the middle has the mean: predictors of minus infinity, 0 and infinity.
BEYOND = np.array([[0.0], [1e200], [0.5e200]])


def test_a_single_predictor_beyond_what_can_be_computed() -> None:
    time, event, beta = np.arange(3.0), np.ones(3, dtype=bool), np.array([1e200])
    with pytest.raises(ValueError, match="not finite"):
        partial_likelihood(BEYOND, time, event, beta, TieMethod.EFRON)
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(ValueError, match="not finite"),
    ):
        score_residuals(BEYOND, time, event, beta, TieMethod.EFRON)


def test_predictors_that_are_no_numbers() -> None:
    """Two covariates whose shares of the predictor are infinite and cancel."""
    x = np.hstack([BEYOND, BEYOND])
    time, event, beta = np.arange(3.0), np.ones(3, dtype=bool), np.array([1e200, -1e200])
    with pytest.raises(ValueError, match="not finite"):
        partial_likelihood(x, time, event, beta, TieMethod.EFRON)


def test_predictors_whose_sum_would_be_too_large() -> None:
    x, time, event = np.array([[-1.0], [1.0]]), np.arange(2.0), np.ones(2, dtype=bool)
    with pytest.raises(ValueError, match="their sum"):
        partial_likelihood(x, time, event, np.array([1e308]), TieMethod.EFRON)
    found = partial_likelihood(x, time, event, np.array([1e307]), TieMethod.EFRON)
    assert found.log_likelihood == pytest.approx(-2e307)


# --- residuals and the terms of the proportionality test --------------------------------------


@TIES
def test_residuals_keep_their_digits_beside_a_patient_far_from_all_others(ties: TieMethod) -> None:
    x, time, event, beta = drawn(9, 300, 2, 20)
    # Numbers that stay as they are beside the far one.
    x, beta = np.round(x * 64) / 64, np.abs(beta)
    wanted = score_residuals(x, time, event, beta, ties)
    rows = np.vstack([[[-2e8, 0.0]], x]), np.r_[0.5, time], np.r_[False, event]
    found = score_residuals(*rows, beta, ties)
    np.testing.assert_allclose(found[1:], wanted, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(found[0], [0, 0])
    np.testing.assert_allclose(wanted.sum(axis=0), by_risk_set(x, time, event, beta, ties)[1])


@TIES
def test_terms_of_the_proportionality_test_are_sums_over_events(ties: TieMethod) -> None:
    x, time, event, beta = drawn(10, 40, 2, 9)
    found = proportionality_terms(x, time, event, beta, ties, 4.0)
    u, v = np.zeros((2, 2)), np.zeros((3, 2, 2))
    for t in np.unique(time[event]):
        own = event & (time == t)
        # One event time: the likelihood of those at risk at it, of whom the others are censored.
        _, gradient, information = by_risk_set(
            x[time >= t], time[time >= t], own[time >= t], beta, ties
        )
        u += np.array([1, t / 4])[:, None] * gradient
        v += np.array([1, t / 4, (t / 4) ** 2])[:, None, None] * information
    np.testing.assert_allclose([found.u, found.tu], u, atol=1e-10)
    np.testing.assert_allclose([found.v, found.tv, found.ttv], v, rtol=1e-10)


@TIES
@pytest.mark.parametrize("constant", [0.1, 1 / 3, 1e5 + 0.1])
def test_what_is_the_same_for_all_has_no_residual_and_no_test(
    constant: float, ties: TieMethod
) -> None:
    x, time, event, beta = drawn(11, 61, 2, 9)
    x[:, 1] = constant
    assert not score_residuals(x, time, event, beta, ties)[:, 1].any()
    found = proportionality_terms(x, time, event, beta, ties, 4.0)
    assert not any(table[1].any() for table in (found.v, found.tv, found.ttv))


@pytest.mark.parametrize(("left", "is_tested"), [(1e-8, True), (1e-9, True), (1e-11, False)])
def test_what_earlier_covariates_explain_has_no_test(left: float, is_tested: bool) -> None:
    across = (1 - left) ** 0.5
    v = np.array([[1.0, across], [across, 1.0]])
    tests = proportionality_test(np.zeros(2), np.ones(2), v, np.zeros((2, 2)), np.eye(2))
    assert [test is not None for test in tests] == [is_tested] * 3
    added = proportionality_test(np.zeros(2), np.ones(2), np.eye(2), np.zeros((2, 2)), v)
    assert [test is not None for test in added] == [True, True, is_tested]


@TIES
def test_the_baseline_hazard_is_the_sum_of_reciprocal_risk_sets(ties: TieMethod) -> None:
    x, time, event, beta = drawn(12, 40, 2, 9)
    weight = np.exp(x @ beta)
    for horizon in (0.5, 3.0, 3.5, 9.0):
        hazard = 0.0
        for t in np.unique(time[event & (time <= horizon)]):
            dying = event & (time == t)
            for place in range(dying.sum()):
                share = place / dying.sum() if ties is TieMethod.EFRON else 0.0
                hazard += 1 / (weight[time >= t].sum() - share * weight[dying].sum())
        found = baseline_hazard(x, time, event, beta, horizon, ties)
        assert found == pytest.approx(hazard, rel=1e-10)


def test_a_risk_set_after_the_horizon_may_weigh_nothing() -> None:
    """The last to die has a hazard of e^-1000 beside the first, who was censored at day 5."""
    x, time = np.array([[0.0], [1000.0]]), np.array([10.0, 5.0])
    event, beta = np.array([True, False]), np.ones(1)
    assert baseline_hazard(x, time, event, beta, 7.0, TieMethod.EFRON) == 0
    with pytest.raises(ValueError, match="weighs nothing"):
        baseline_hazard(x, time, event, beta, 10.0, TieMethod.EFRON)


# --- pairs ------------------------------------------------------------------------------------


def test_pairs_of_nobody() -> None:
    none, nobody = np.empty(0), np.empty(0, dtype=bool)
    assert concordant_pairs(none, none, nobody) == (0.0, 0.0)
    pairs = concordance(none, none, nobody)
    np.testing.assert_array_equal(pairs.numbers(), np.zeros(6))
    assert (pairs.c_index, pairs.standard_error) == (None, None)


def test_squares_that_rounding_leaves_below_zero_are_no_error() -> None:
    # a is a third of b for every patient, but for what a release rounds away.
    pairs = Concordance(1.0, 2.0, 0.0, 1 - 1e-9, 3.0, 9.0)
    assert (pairs.c_index, pairs.standard_error) == (1 / 3, 0)


@pytest.mark.parametrize("bound", [0, 1, 2, 3, 8, 9])
def test_how_many_before_a_position_are_smaller(bound: int) -> None:
    ranks = np.array([5, 1, 7, 0, 2, 8, 1])
    before = np.arange(8)
    found = count_smaller_before(ranks, before, np.full(8, bound))
    assert found.dtype == np.int64
    assert found.tolist() == [int(np.sum(ranks[:end] < bound)) for end in before]


@pytest.mark.parametrize("seed", range(4))
def test_pairs_with_ties_of_both_kinds_counted_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 25
    risk, time = rng.integers(0, 6, n).astype(float), rng.integers(0, 8, n).astype(float)
    event = rng.random(n) < 0.5
    counts = np.zeros((n, 2))
    concordant = discordant = tied = 0
    for i in range(n):
        for j in range(n):
            is_first = time[i] < time[j] or (time[i] == time[j] and not event[j])
            if i != j and event[i] and is_first:
                half = (risk[i] > risk[j]) + (risk[i] == risk[j]) / 2
                counts[[i, j]] += (half, 1)
                concordant += risk[i] > risk[j]
                discordant += risk[i] < risk[j]
                tied += risk[i] == risk[j]
    a, b = counts.T
    found = concordance(risk, time, event)
    wanted = (concordant, discordant, tied, a @ a, a @ b, b @ b)
    np.testing.assert_allclose(found.numbers(), wanted)
    assert concordant_pairs(risk, time, event) == (concordant + tied / 2, b.sum() / 2)
    have, lack = risk[event], risk[~event]
    higher = np.sum(have[:, None] > lack) + np.sum(have[:, None] == lack) / 2
    assert ordered_pairs(risk, event) == higher
    c = (concordant + tied / 2) / (b.sum() / 2)
    assert found.c_index == pytest.approx(c)
    assert found.standard_error == pytest.approx(np.sqrt(np.sum((a - c * b) ** 2)) / (b.sum() / 2))
