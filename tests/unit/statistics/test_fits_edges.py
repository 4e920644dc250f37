"""Fits, refits, placement values and calibration at the edges of what they are asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from driven import assert_close, numbers, pool
from numpy.typing import NDArray
from plans import SPECS, draw_exams, plan
from scipy import stats

from fedcac.aggregate import Totals
from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.protocol import (
    CalibrationSpec,
    CoxSpec,
    KaplanMeierSpec,
    SurvivalCalibrationSpec,
)
from fedcac.statistics import QueryError, estimator_for
from fedcac.statistics.delong import Bins, auc_of_bins
from fedcac.statistics.newton import newton_query, queried_parameters
from fedcac.statistics.paired_roc import classes_from_query, classes_to_values, site_sums
from fedcac.statistics.refit import queried_table, refit, table_query
from fedcac.vocabulary import RefusalCode, RowStatus, SiteName

Vector = NDArray[np.float64]


# --- classes that a query sends out -----------------------------------------------------------

GRID = 10
SOUND = {"starts": (0.0, 3.0, 7.0), "counts": (5.0, 0.0, 2.0)}


def classes_query(**changes: tuple[float, ...]) -> Query:
    values: dict[str, tuple[float, ...]] = {}
    for part in ("p1", "n1", "p2", "n2"):
        for name, sound in SOUND.items():
            values[f"{name}_0_{part}"] = changes.get(name, sound) if part == "p2" else sound
    return Query(step="placements", values=values)


def test_sound_classes_are_read_as_they_were_written() -> None:
    (found, none) = classes_from_query(classes_query(), 2, GRID)
    assert none is None
    assert found is not None
    for bins in found:
        assert bins.starts.tolist() == [0, 3, 7]
        assert bins.counts.tolist() == [5, 0, 2]
        assert (bins.n, bins.n_grid, bins.ends.tolist()) == (7, GRID, [3, 7, 10])
    assert classes_to_values([found, None]) == classes_query().values
    # A grid whose bins are all there, and one that is a single bin.
    every = tuple(float(bin_) for bin_ in range(GRID))
    assert classes_from_query(classes_query(starts=every, counts=(1.0,) * GRID), 1, GRID)[0]
    assert classes_from_query(classes_query(starts=(0.0,), counts=(3.0,)), 1, GRID)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"starts": (), "counts": ()},
        {"starts": (0.0, 3.0)},
        {"starts": (1.0, 3.0, 7.0)},
        {"starts": (0.0, 3.0, 3.0)},
        {"starts": (0.0, 7.0, 3.0)},
        {"starts": (0.0, 3.0, 10.0)},
        {"starts": (0.0, 3.5, 7.0)},
        {"starts": (0.0, 3.0, float("inf"))},
        {"counts": (5.0, -1.0, 2.0)},
        {"counts": (0.0, 0.0, 0.0)},
        {"counts": (5.0, 0.5, 1.5)},
        {"starts": tuple(range(11)), "counts": (1.0,) * 11},
    ],
)
def test_classes_that_are_no_counts_on_the_grid_are_refused(changes: Any) -> None:
    if float("inf") in changes.get("starts", ()):
        with pytest.raises(ValueError, match="finite"):
            classes_query(**changes)
        return
    with pytest.raises(QueryError):
        classes_from_query(classes_query(**changes), 1, GRID)


def patients() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return bins of two tests and who is positive: 12 positives and 20 negatives."""
    rng = np.random.default_rng(11)
    positive = np.arange(32) < 12
    first, second = (rng.integers(0, 7, 32) + 3 * positive for _ in range(2))
    return first.astype(np.int64), second.astype(np.int64), positive


def pooled_from(times: int, starts: tuple[int, ...] = tuple(range(GRID))) -> Any:
    first, second, positive = patients()
    found = []
    for bins in (first, second):
        for chosen in (positive, ~positive):
            counts = np.bincount(bins[chosen], minlength=GRID) * times
            merged = np.add.reduceat(counts, list(starts))
            found.append(Bins(np.array(starts), merged, GRID))
    return tuple(found)


def test_placement_values_are_shares_of_the_other_class() -> None:
    first, second, positive = patients()
    values, evidence = site_sums([(first, second, positive)], [pooled_from(3)])
    for row, (own, other) in zip(
        values, ((positive, ~positive), (~positive, positive)), strict=True
    ):
        placed = []
        for bins in (first, second):
            a, b = bins[own][:, None], bins[other][None, :]
            # A positive's share of negatives below; a negative's of positives above.
            below = (a > b) if own is positive else (b > a)
            placed.append((below + 0.5 * (a == b)).mean(axis=1))
        one, two = placed
        assert row == pytest.approx(
            (own.sum(), one.sum(), two.sum(), one @ one, two @ two, one @ two)
        )
    assert evidence.nested == ((12,), (12,))
    smallest = min(
        int(counts[counts > 0].min())
        for bins in (first, second)
        for chosen in (positive, ~positive)
        for counts in [np.bincount(bins[chosen])]
    )
    assert (evidence.smallest_group, evidence.row_groups) == (smallest, (smallest, smallest))
    # In two wide bins, the smallest number of the site's patients in one.
    _, wide = site_sums([(first, second, positive)], [pooled_from(3, (0, 5))])
    halves = [
        int(n)
        for bins in (first, second)
        for chosen in (positive, ~positive)
        for n in (np.sum(bins[chosen] < 5), np.sum(bins[chosen] >= 5))
        if n
    ]
    assert wide.smallest_group == min(12, *halves)


def test_made_up_classes_stand_for_nobody() -> None:
    tests = [patients()]
    whole = pooled_from(1)
    assert site_sums(tests, [whole])[1].smallest_group != 0
    for part in range(4):
        fewer = list(whole)
        counts = fewer[part].counts.copy()
        counts[int(np.flatnonzero(counts)[0])] -= 1
        fewer[part] = Bins(fewer[part].starts, counts, GRID)
        assert site_sums(tests, [tuple(fewer)])[1].smallest_group == 0
    # As many times as large as the site as no federation is.
    assert site_sums(tests, [pooled_from(1000)])[1].smallest_group != 0
    assert site_sums(tests, [pooled_from(1001)])[1].smallest_group == 0
    # Classes that are left out are about nobody, and the smaller class is told all the same.
    values, evidence = site_sums(tests, [None])
    assert values == ((0.0,) * 6,) * 2
    assert (evidence.smallest_group, evidence.nested) == (12, ((12,), (12,)))


def test_patients_in_bins_that_overlap_may_be_ordered_either_way() -> None:
    """Positives known in two halves of the grid, negatives bin by bin."""
    positives = Bins(np.array([0, 5]), np.array([2, 6]), GRID)
    negatives = Bins(np.arange(GRID), np.array([4, 1, 0, 0, 1, 1, 0, 0, 0, 1]), GRID)
    found = auc_of_bins(positives, negatives)
    assert found is not None
    # Below: none of 8 for two, 6 of 8 for six; not above: 6 of 8, and all.
    assert found.estimate == pytest.approx((2 * (0 + 6) + 6 * (6 + 8)) / (2 * 8 * 8))
    assert found.error_bound == pytest.approx((2 * 6 + 6 * 2) / (2 * 8 * 8))
    reversed_roles = auc_of_bins(negatives, positives)
    assert reversed_roles is not None
    assert reversed_roles.estimate == pytest.approx(1 - found.estimate)
    assert reversed_roles.error_bound == pytest.approx(found.error_bound)
    # A first bin that holds a single value ties for certain, where both classes have it alone.
    single = [
        Bins(np.array([0, 1]), np.array(counts), GRID, is_first_single=True)
        for counts in ([3, 2], [4, 1])
    ]
    tied = auc_of_bins(*single)
    assert tied is not None
    assert tied.error_bound == pytest.approx(2 * 1 / (2 * 5 * 5))


# --- parameters of a query --------------------------------------------------------------------


def test_parameters_are_read_as_they_were_asked() -> None:
    beta = np.array([0.5, -1.0, 2.0])
    np.testing.assert_array_equal(queried_parameters(newton_query(beta), 3), beta)
    table = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(queried_table(table_query("refit", table), 2, 3), table)
    for query in (
        Query(step="other", values={"beta": (1.0,)}),
        Query(step="newton", values={"gamma": (1.0,)}),
        Query(step="newton", values={"beta": (1.0,), "gamma": (1.0,)}),
        Query(step="newton", values={"beta": (1.0, 2.0)}),
        Query(step="newton"),
    ):
        with pytest.raises(QueryError):
            queried_parameters(query, 1)
    for query in (
        Query(step="refit"),
        Query(step="refit", values={"beta": (1.0,) * 5}),
        Query(step="refit", values={"beta": (1.0,) * 6, "gamma": (1.0,)}),
        Query(step="refit", values={"gamma": (1.0,) * 6}),
    ):
        with pytest.raises(QueryError):
            queried_table(query, 2, 3)


# --- refits -----------------------------------------------------------------------------------

SITE = SiteName("s")


def gradients(at: Vector, centre: Vector, curvature: Vector) -> Any:
    """Return the gradients of parabolas (R, p) with their own centres and curvatures."""
    sample = estimator_for("x", plan((SPECS["survival_calibration"],)))
    answer = sample.summarise(draw_exams(1, 60), Query(step="bins"))
    values = tuple(tuple(row) for row in ((centre - at) * curvature).tolist())
    return answer.model_copy(update={"values": values})


def refitted(start: Vector, covariance: Vector, centre: Vector, curvature: Vector) -> Any:
    kind = type(gradients(start, centre, curvature))
    assert issubclass(kind, Totals)
    search = refit(start, covariance, (SITE,), kind)
    query = next(search)
    while True:
        at = queried_table(query, *start.shape)
        try:
            query = search.send({SITE: gradients(at, centre, curvature)})
        except StopIteration as stop:
            return stop.value


def test_replicates_with_other_information_reach_their_own_maxima() -> None:
    rng = np.random.default_rng(7)
    start, centre = np.zeros((4, 2)), rng.normal(0, 0.5, (4, 2))
    found = refitted(start, np.diag([1.0, 0.25]), centre, rng.uniform(0.7, 1.4, (4, 2)) * [1, 4])
    # Within a thousandth of a standard error.
    np.testing.assert_allclose(found, centre, atol=1e-3)


def test_a_parameter_without_information_stays() -> None:
    centre = np.array([[0.3, 5.0]])
    found = refitted(np.zeros((1, 2)), np.diag([1.0, 0.0]), centre, np.ones((1, 2)))
    np.testing.assert_allclose(found, [[0.3, 0.0]], atol=1e-3)


@pytest.mark.parametrize(("far", "is_too_far"), [(2.9, False), (3.1, True)])
def test_a_replicate_that_runs_away_is_not_estimable(far: float, is_too_far: bool) -> None:
    # Three standard errors, times the root of the number of replicates.
    start, centre = np.zeros((4, 1)), np.full((4, 1), 2 * far)
    found = refitted(start, np.ones((1, 1)), centre, np.ones((4, 1)))
    if is_too_far:
        assert found is RowStatus.NOT_ESTIMABLE
    else:
        np.testing.assert_allclose(found, centre, atol=1e-3)


# --- calibration ------------------------------------------------------------------------------


def calibrated(seed: int, n: int, probability: float, n_positive: int) -> Exams:
    reference = np.where(np.arange(n) < n_positive, 200.0, 20.0)
    rng = np.random.default_rng(seed)
    columns = {
        "reference_score": reference,
        "index_probability_100": np.clip(probability + rng.uniform(-0.04, 0.04, n), 0, 1),
    }
    return draw_exams(seed, n, f"{seed}-", **columns)


CALIBRATION = CalibrationSpec(
    id="x", kind="calibration", cut_offs=(100.0,), risk_bins=(0.1, 0.25, 0.5)
)


def test_observed_against_expected_by_hand() -> None:
    parts = {"a": calibrated(1, 60, 0.3, 15), "b": calibrated(2, 50, 0.4, 25)}
    rows = pool(CALIBRATION, parts)
    p = np.concatenate([exams.column("index_probability_100") for exams in parts.values()])
    row = rows["pooled", "oe_ratio", "", "100"]
    assert_close(row.estimate, 40 / p.sum())
    assert_close(row.se, 40**0.5 / p.sum())
    assert_close(row.ci_low, 40 / p.sum() - stats.norm.ppf(0.975) * 40**0.5 / p.sum())
    assert (row.n, row.ci_method) == (110, "wald")
    row = rows["pooled", "expected_risk", "", "100"]
    assert_close(row.estimate, p.mean())
    assert (row.n, row.se, row.ci_low) == (110, None, None)
    empty = rows["pooled", "observed_risk", "0-0.1", "100"]
    assert (empty.status, empty.n) == (RowStatus.NOT_ESTIMABLE, 0)
    middle = rows["pooled", "observed_risk", "0.25-0.5", "100"]
    assert (middle.n, middle.estimate) == (110, 40 / 110)


def test_where_nothing_was_observed_the_ratio_has_no_interval() -> None:
    rows = pool(CALIBRATION, {"a": calibrated(1, 60, 0.3, 0)})
    row = rows["pooled", "oe_ratio", "", "100"]
    assert (*numbers(row), row.ci_method) == (0.0, None, None, None, None, "")
    row = rows["pooled", "observed_risk", "", "100"]
    assert (row.estimate, row.ci_low) == (0.0, 0.0)
    assert row.ci_high is not None
    assert row.ci_high > 0.03
    assert rows["pooled", "calibration_slope", "", "100"].status is RowStatus.NOT_ESTIMABLE


def test_where_nothing_was_expected_there_is_no_ratio() -> None:
    exams = calibrated(1, 60, 0.3, 9).with_column("index_probability_100", np.zeros(60))
    row = pool(CALIBRATION, {"a": exams})["pooled", "oe_ratio", "", "100"]
    assert (row.status, row.n, row.estimate) == (RowStatus.NOT_ESTIMABLE, 60, None)


SURVIVAL = SurvivalCalibrationSpec(
    id="x",
    kind="survival_calibration",
    endpoint="mace",
    prediction="risk",
    horizon_days=720,
    risk_bins=(0.1, 0.2),
)


def followed(event: Vector, risk: float, days: float = 400.0) -> Exams:
    n = len(event)
    columns = {
        "follow_up_days": days + np.arange(n),
        "event": event,
        "risk": np.full(n, risk),
    }
    return draw_exams(1, n, **columns)


@pytest.mark.parametrize(("event", "observed"), [(0.0, 0.0), (1.0, 1.0)])
def test_where_none_or_all_have_the_event_risk_has_no_interval(
    event: float, observed: float
) -> None:
    rows = pool(SURVIVAL, {"a": followed(np.full(40, event), 0.15)})
    for group in ("0.1-0.2", ""):
        row = rows["pooled", "observed_risk", group, ""]
        assert (*numbers(row), row.ci_method, row.n) == (observed, *[None] * 4, "", 40)
    ratio = rows["pooled", "oe_ratio", "", ""]
    assert_close(ratio.estimate, observed / 0.15)
    assert (ratio.se, ratio.ci_low, ratio.ci_method) == (None, None, "")
    assert rows["pooled", "observed_risk", "0-0.1", ""].status is RowStatus.NOT_ESTIMABLE
    assert rows["pooled", "observed_risk", "0-0.1", ""].n == 0


def test_where_no_risk_is_predicted_there_is_no_ratio_but_its_row() -> None:
    rows = pool(SURVIVAL, {"a": followed(np.arange(40) % 2.0, 0.0)})
    row = rows["pooled", "oe_ratio", "", ""]
    assert (row.status, row.estimate, row.n) == (RowStatus.NOT_ESTIMABLE, None, 40)
    slope = rows["pooled", "calibration_slope", "", ""]
    assert (slope.status, slope.n, slope.n_events) == (RowStatus.NOT_ESTIMABLE, 40, 20)


def test_a_refused_site_beside_a_slope() -> None:
    rng = np.random.default_rng(3)
    exams = draw_exams(2, 120, risk=rng.uniform(0.05, 0.6, 120))
    rows = pool(SURVIVAL, {"a": exams, "b": RefusalCode.TOO_FEW_EVENTS})
    assert rows["b", "calibration_slope", "", ""].status is RowStatus.SUPPRESSED
    slope = rows["pooled", "calibration_slope", "", ""]
    assert (slope.status, slope.n) == (RowStatus.OK, 120)
    assert slope.n_events == exams.column("event").sum()
    nobody = pool(SURVIVAL, {"b": RefusalCode.TOO_FEW_EVENTS})
    slope = nobody["pooled", "calibration_slope", "", ""]
    assert (slope.status, slope.n, slope.n_events) == (RowStatus.SUPPRESSED, None, None)


# --- survival ---------------------------------------------------------------------------------


def test_how_many_are_left_at_every_edge() -> None:
    time = np.array([10, 50, 100, 101, 150, 150, 200, 230, 300, 300], dtype=float)
    event = np.array([1, 0, 1, 0, 1, 0, 0, 1, 0, 0], dtype=float)
    exams = draw_exams(1, 10, follow_up_days=time, event=event, vendor=np.zeros(10))
    spec = KaplanMeierSpec(
        id="x", kind="kaplan_meier", endpoint="mace", by="vendor", bin_days=100, horizon_days=200
    )
    rows = pool(spec, {"a": exams})
    for day, left in (("0", 10), ("100", 7), ("200", 3)):
        row = rows["pooled", "at_risk", "a", day]
        assert (row.estimate, row.n) == (left, 10)
    # 2 of 10 - 1/2, then 1 of 7 - 3/2.
    one, two = (rows["pooled", "survival", "a", day] for day in ("100", "200"))
    assert_close(one.estimate, 1 - 2 / 9.5)
    assert_close(two.estimate, (1 - 2 / 9.5) * (1 - 1 / 5.5))
    assert (one.n_events, two.n_events, two.n, two.ci_method) == (2, 3, 10, "log_log")
    assert rows["pooled", "survival", "b", ""].status is RowStatus.SUPPRESSED


def test_where_age_orders_all_events_there_is_no_c_index() -> None:
    """Whoever is older has the event earlier, at every site."""
    n = 40
    rng = np.random.default_rng(1)
    age = np.sort(rng.uniform(40, 80, n))[::-1]
    parts = {}
    for site in ("a", "b"):
        time = 10.0 * np.arange(1, n + 1)
        event = (rng.random(n) < 0.7).astype(float)
        parts[site] = draw_exams(1, n, site, age=age, follow_up_days=time, event=event)
    spec = CoxSpec(id="x", kind="cox", endpoint="mace", covariates=("age",), concordance=True)
    row = pool(spec, parts)["pooled", "c_index", "", ""]
    # The likelihood has no maximum here, and so there is nothing to order by.
    assert (row.status, row.estimate) == (RowStatus.NOT_ESTIMABLE, None)
