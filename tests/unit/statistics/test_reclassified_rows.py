"""Rows of a reclassification from fits and sums by hand; and what a site answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from driven import numbers
from numpy.typing import NDArray
from plans import BASE, FULL, plan
from scipy import stats

from fedcac.exchange import Query
from fedcac.protocol import CoxSpec, ReclassificationSpec
from fedcac.statistics import Estimate, estimator_for
from fedcac.statistics.fit import Fit, FitStatus
from fedcac.statistics.reclassification import ReclassificationTotals
from fedcac.vocabulary import (
    RefusalCode,
    Resampling,
    RowStatus,
    SiteName,
)

Vector = NDArray[np.float64]
A, B = SiteName("a"), SiteName("b")
MEASURES = ("nri_event", "nri_nonevent", "nri_overall", "auc_difference", "c_index_difference")


def spec_of(**changes: Any) -> ReclassificationSpec:
    values = {"id": "x", "kind": "reclassification", "base": "base", "full": "full"}
    return ReclassificationSpec(
        **{**values, "horizon_days": 700, "uncertainty": Resampling.NONE, **changes}
    )


def estimator(spec: ReclassificationSpec | None = None, pair: Any = (BASE, FULL)) -> Any:
    return estimator_for("x", plan((*pair, spec or spec_of())))


def fit_of(*parameters: float, gained: float = 5.0, **changes: Any) -> Fit:
    p = len(parameters)
    fit = Fit(
        status=FitStatus.OK,
        parameters=np.array(parameters),
        standard_errors=np.full(p, 0.5),
        covariance=np.diag(np.full(p, 0.25)),
        identified=np.ones(p, dtype=bool),
        log_likelihood=-100 + gained,
        null_log_likelihood=-100,
        n_patients=80,
        n_events=21,
        sites=(A, B),
        refused={},
        n_exchanges=4,
    )
    return replace(fit, **changes)


BASE_FIT, FULL_FIT = fit_of(0.4, -0.1), fit_of(0.3, -0.2, 0.5, gained=7.5)

# Events: 20, up 9, down 4; others 50, up 10, down 20. AUC 300 and 360 of 500 pairs, C 350 and 330
# of 400.
SUMS = np.array([20.0, 9, 4, 50, 10, 20, 300, 360, 500, 350, 330, 400])
ESTIMATES = (0.25, 0.2, 0.45, 0.12, -0.05)

Answer = Callable[[Query], Any]


def split(rows: Any, n: tuple[int, int] = (30, 50)) -> dict[SiteName, ReclassificationTotals]:
    """Return the answers of two sites whose sums are these rows."""
    table = np.atleast_2d(np.array(rows, dtype=float))
    own = {A: table * 0.25, B: table * 0.75}
    return {
        site: ReclassificationTotals(
            n_patients=size, n_events=7, values=tuple(map(tuple, part.tolist()))
        )
        for (site, part), size in zip(own.items(), n, strict=True)
    }


def rows_of(
    answer: Callable[[Query], Mapping[SiteName, Any]],
    base: Fit = BASE_FIT,
    full: Fit = FULL_FIT,
    of: Any = None,
) -> tuple[dict[str, Estimate], list[Query]]:
    """Return the pooled rows by measure, and what was asked."""
    running = (of or estimator()).pool((A, B), {"base": base, "full": full})
    asked: list[Query] = []
    given: Any = None
    while True:
        try:
            asked.append(running.send(given))
        except StopIteration as stop:
            return {row.measure.value: row for row in stop.value if row.scope == "pooled"}, asked
        given = answer(asked[-1])


# --- rows -------------------------------------------------------------------------------------


def test_measures_of_sums_by_hand() -> None:
    rows, asked = rows_of(lambda _: split(SUMS))
    assert [query.step for query in asked] == ["measures"]
    assert asked[0].values == {"beta": (0.4, -0.1, 0.3, -0.2, 0.5)}
    for measure, estimate in zip(MEASURES, ESTIMATES, strict=True):
        row = rows[measure]
        assert numbers(row) == (pytest.approx(estimate), None, None, None, None)
        assert (row.status, row.n, row.n_events, row.ci_method) == (RowStatus.OK, 80, 21, "")
    row = rows["lr_chi2_increase"]
    # One parameter more, log-likelihoods -95 and -92.5.
    assert numbers(row) == (5, None, None, None, pytest.approx(stats.chi2.sf(5, 1)))
    assert (row.n, row.n_events) == (80, 21)


@pytest.mark.parametrize(
    ("of_none", "lost"),
    [
        ((0,), MEASURES[:3]),
        ((3,), MEASURES[:3]),
        ((8,), MEASURES[3:4]),
        ((11,), MEASURES[4:]),
        ((0, 3, 8, 11), MEASURES),
    ],
)
def test_without_events_or_pairs_there_is_no_measure(
    of_none: tuple[int, ...], lost: tuple[str, ...]
) -> None:
    sums = SUMS.copy()
    sums[list(of_none)] = 0
    rows, _ = rows_of(lambda _: split(sums))
    for measure in MEASURES:
        wanted = RowStatus.NOT_ESTIMABLE if measure in lost else RowStatus.OK
        assert rows[measure].status is wanted
        assert (rows[measure].estimate is None) == (measure in lost)
    assert rows["lr_chi2_increase"].status is RowStatus.OK


def test_one_event_and_one_pair_are_enough() -> None:
    """Sums over sites of 1: of events and of others, of pairs for the AUC and for C."""
    sums = np.array([1.0, 1, 0, 1, 0, 1, 0.5, 1, 1, 0, 1, 1])
    rows, _ = rows_of(lambda _: split(sums))
    assert [rows[measure].estimate for measure in MEASURES] == [1, 1, 2, 0.5, 1]


@pytest.mark.parametrize("gained", [5.25, 5.0 - 1e-9])
def test_a_small_gain_has_a_large_p_value(gained: float) -> None:
    rows, _ = rows_of(lambda _: split(SUMS), full=replace(FULL_FIT, log_likelihood=-100 + gained))
    row = rows["lr_chi2_increase"]
    assert row.estimate == pytest.approx(2 * (gained - 5))
    assert row.p_value == pytest.approx(stats.chi2.sf(max(0, 2 * (gained - 5)), 1))


def test_what_the_likelihood_ratio_is_tested_with() -> None:
    """Identified parameters count; a model of the same terms adds none."""
    full = replace(FULL_FIT, identified=np.array([True, True, False]))
    assert rows_of(lambda _: split(SUMS), full=full)[0]["lr_chi2_increase"].p_value is None
    same = estimator(pair=(BASE, BASE.model_copy(update={"id": "full"})))
    assert (
        rows_of(lambda _: split(SUMS), full=BASE_FIT, of=same)[0]["lr_chi2_increase"].p_value
        is None
    )
    # The same terms, of which the smaller fit did not identify one.
    base = replace(BASE_FIT, identified=np.array([True, False]))
    row = rows_of(lambda _: split(SUMS), base=base, full=fit_of(0.1, 0.2, gained=7), of=same)[0]
    assert row["lr_chi2_increase"].p_value == pytest.approx(stats.chi2.sf(4, 1))
    other = estimator(
        pair=(CoxSpec(id="base", kind="cox", endpoint="mace", covariates=("risk",)), FULL)
    )
    row = rows_of(lambda _: split(SUMS), base=fit_of(1.0), of=other)[0]
    assert row["lr_chi2_increase"].p_value is None


@pytest.mark.parametrize(
    ("base", "full", "status"),
    [
        (FitStatus.OUT_OF_BOUNDS, FitStatus.OK, RowStatus.SUPPRESSED),
        (FitStatus.OK, FitStatus.OUT_OF_BOUNDS, RowStatus.SUPPRESSED),
        (FitStatus.OUT_OF_BOUNDS, FitStatus.UNBOUNDED, RowStatus.NOT_ESTIMABLE),
        (FitStatus.UNBOUNDED, FitStatus.OUT_OF_BOUNDS, RowStatus.SUPPRESSED),
        (FitStatus.NOT_CONVERGED, FitStatus.OK, RowStatus.ERROR),
    ],
)
def test_a_model_that_failed_says_why(base: FitStatus, full: FitStatus, status: RowStatus) -> None:
    rows, asked = rows_of(
        lambda _: split(SUMS), replace(BASE_FIT, status=base), replace(FULL_FIT, status=full)
    )
    assert not asked
    assert set(rows) == {*MEASURES, "lr_chi2_increase"}
    assert {(row.status, row.estimate, row.n) for row in rows.values()} == {(status, None, None)}


def test_models_of_other_patients_are_not_compared() -> None:
    fewer = replace(BASE_FIT, n_patients=79)
    rows, asked = rows_of(lambda _: split(SUMS), base=fewer)
    assert not asked
    assert {row.status for row in rows.values()} == {RowStatus.NOT_ESTIMABLE}
    # As many in each, but other ones: together the sites count fewer with both.
    rows, asked = rows_of(lambda _: split(SUMS, (30, 49)))
    assert len(asked) == 1
    assert {row.status for row in rows.values()} == {RowStatus.NOT_ESTIMABLE}
    lost = replace(BASE_FIT, sites=(A,), refused={B: RefusalCode.INTERNAL})
    rows, asked = rows_of(lambda _: split(SUMS), base=lost)
    assert not asked
    assert {row.status for row in rows.values()} == {RowStatus.ERROR}


# --- replicates -------------------------------------------------------------------------------


def driven(method: Resampling, gradient: Vector, replicated: Vector) -> Any:
    spec = spec_of(uncertainty=method, replicates=len(replicated))
    steps: list[Query] = []

    def answer(query: Query) -> Any:
        steps.append(query)
        if query.step == "refit":
            first = len([own for own in steps if own.step == "refit"]) == 1
            return split(gradient if first else np.zeros_like(gradient))
        return split(SUMS if len(steps) == 1 else replicated)

    return rows_of(answer, of=estimator(spec))


@pytest.mark.parametrize(
    ("method", "wider"), [(Resampling.JACKKNIFE, 5 / 4), (Resampling.BOOTSTRAP, 1.0)]
)
def test_replicates_start_at_the_fit_and_give_the_spread(method: Resampling, wider: float) -> None:
    rng = np.random.default_rng(2)
    gradient, replicated = rng.normal(0, 0.5, (5, 5)), SUMS + rng.normal(0, 1, (5, 12))
    rows, asked = driven(method, gradient, replicated)
    at = np.array([0.4, -0.1, 0.3, -0.2, 0.5])
    assert [query.step for query in asked] == ["measures", "refit", "refit", "measures"]
    beta = [np.array(query.values["beta"]).reshape(-1, 5) for query in asked]
    np.testing.assert_array_equal(beta[1], np.tile(at, (5, 1)))
    # Variances 0.25 each; without a fifth of the patients they are 5/4 of that.
    np.testing.assert_allclose(beta[2], at + 0.25 * wider * gradient)
    np.testing.assert_allclose(beta[3], beta[2])
    event, down = replicated[:, 1] - replicated[:, 2], replicated[:, 5] - replicated[:, 4]
    values = {
        "nri_event": event / replicated[:, 0],
        "nri_nonevent": down / replicated[:, 3],
        "nri_overall": event / replicated[:, 0] + down / replicated[:, 3],
        "auc_difference": (replicated[:, 7] - replicated[:, 6]) / replicated[:, 8],
        "c_index_difference": (replicated[:, 10] - replicated[:, 9]) / replicated[:, 11],
    }
    for (measure, of_each), estimate in zip(values.items(), ESTIMATES, strict=True):
        factor = 4.0 if method is Resampling.JACKKNIFE else 5 / 4
        se = float(np.sqrt(factor * of_each.var()))
        row = rows[measure]
        assert (row.estimate, row.se) == (pytest.approx(estimate), pytest.approx(se))
        t = stats.t.ppf(0.975, 4) if method is Resampling.JACKKNIFE else stats.norm.ppf(0.975)
        assert (row.ci_low, row.ci_high) == pytest.approx((estimate - t * se, estimate + t * se))
        assert (row.n, row.n_events) == (80, 21)


@pytest.mark.parametrize("lost", ["measures", "refit", "replicates"])
def test_a_site_that_does_not_answer_for_its_replicates(lost: str) -> None:
    spec = spec_of(uncertainty=Resampling.JACKKNIFE, replicates=5)
    steps: list[str] = []

    def answer(query: Query) -> Any:
        steps.append(query.step)
        step = "replicates" if steps.count("measures") == 2 else query.step
        if step == lost:
            return {**split(SUMS), B: RefusalCode.TOO_FEW_PATIENTS}
        return split(
            np.zeros((5, 5))
            if step == "refit"
            else np.tile(SUMS, (1 if steps.count("measures") == 1 else 5, 1))
        )

    rows, _ = rows_of(answer, of=estimator(spec))
    asked = {"measures": 1, "refit": 2, "replicates": 3}
    assert len(steps) == asked[lost]
    for measure, estimate in zip(MEASURES, ESTIMATES, strict=True):
        row = rows[measure]
        if lost == "measures":
            assert (row.status, *numbers(row)) == (RowStatus.SUPPRESSED, *[None] * 5)
        else:
            assert numbers(row) == (pytest.approx(estimate), None, None, None, None)
            assert (row.status, row.ci_method) == (RowStatus.OK, "")
    assert rows["lr_chi2_increase"].status is RowStatus.OK
