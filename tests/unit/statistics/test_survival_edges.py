"""Survival at the edges: groups never side by side, events on the horizon, all censored before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from driven import assert_close, numbers, pool
from numpy.typing import NDArray
from plans import draw_exams
from scipy import stats
from statsmodels.duration.survfunc import survdiff

from fedcac.exams import Exams
from fedcac.protocol import KaplanMeierSpec, ReclassificationSpec
from fedcac.statistics.life_table import (
    binned_table,
    kaplan_meier_at,
    kaplan_meier_variance,
    life_table_curve,
    log_rank_terms,
    log_rank_test,
    product_limit,
)
from fedcac.statistics.net_reclassification import (
    Reclassified,
    directions,
    net_reclassification,
    reclassified,
)
from fedcac.vocabulary import ReclassificationType, RefusalCode, RiskEstimator, RowStatus

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]
Groups = NDArray[np.int64]
Stratum = tuple[Vector, Flags, Groups]


def drawn(seed: int, n: int, groups: tuple[int, ...]) -> Stratum:
    rng = np.random.default_rng(seed)
    group = rng.choice(groups, n)
    time = np.ceil(rng.exponential(30 * (1 + group), n))
    return time, rng.random(n) < 0.6, group


def summed(strata: list[Stratum], n_groups: int) -> tuple[Vector, Vector, NDArray[np.float64]]:
    terms = [log_rank_terms(*stratum, n_groups) for stratum in strata]
    observed, expected, variance = (sum(parts) for parts in zip(*terms, strict=True))
    return np.asarray(observed), np.asarray(expected), np.asarray(variance)


# --- log-rank -------------------------------------------------------------------------------


def test_the_stratified_test_is_that_of_statsmodels() -> None:
    strata = [drawn(seed, 50 + 20 * seed, (0, 1, 2)) for seed in range(3)]
    test = log_rank_test(*summed(strata, 3))
    assert test is not None
    time, event, group = (np.concatenate(parts) for parts in zip(*strata, strict=True))
    site = np.repeat(np.arange(3), [len(stratum[0]) for stratum in strata])
    chi2, p_value = survdiff(time, event.astype(int), group, strata=site)
    assert test.chi2 == pytest.approx(chi2, rel=1e-9)
    assert (test.df, test.p_value) == (2, pytest.approx(p_value, rel=1e-9))


@pytest.mark.parametrize("seed", range(12))
def test_a_group_that_is_alone_at_its_site_is_compared_with_nobody(seed: int) -> None:
    """One site has two groups and another one a third: the test is that of the first two."""
    pair, alone = drawn(seed, 60, (0, 1)), drawn(seed + 100, 60, (2,))
    test, expected = log_rank_test(*summed([pair, alone], 3)), log_rank_test(*summed([pair], 2))
    assert test is not None
    assert expected is not None
    assert (test.df, expected.df) == (1, 1)
    assert test.chi2 == pytest.approx(expected.chi2, rel=1e-9)
    assert test.p_value == pytest.approx(stats.chi2.sf(expected.chi2, 1), rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_sites_that_share_no_group_add_their_tests(seed: int) -> None:
    strata = [drawn(seed, 70, (0, 3)), drawn(seed + 50, 80, (1, 2, 4))]
    test = log_rank_test(*summed(strata, 5))
    one = log_rank_test(*summed(strata[:1], 5))
    other = log_rank_test(*summed(strata[1:], 5))
    assert test is not None
    assert one is not None
    assert other is not None
    assert (one.df, other.df, test.df) == (1, 2, 3)
    assert test.chi2 == pytest.approx(one.chi2 + other.chi2, rel=1e-9)
    assert test.p_value == pytest.approx(stats.chi2.sf(test.chi2, 3), rel=1e-9)


def test_which_group_is_named_first_does_not_matter() -> None:
    time, event, group = drawn(4, 90, (0, 1, 2))
    one = log_rank_test(*log_rank_terms(time, event, group, 3))
    other = log_rank_test(*log_rank_terms(time, event, 2 - group, 3))
    assert one is not None
    assert other is not None
    assert one.chi2 == pytest.approx(other.chi2, rel=1e-10)


def test_a_rare_group_counts() -> None:
    """Three patients of a thousand are a group as any other."""
    time, event, _ = drawn(8, 1000, (0,))
    group = (np.arange(1000) % 400 == 7).astype(np.int64)
    test = log_rank_test(*log_rank_terms(time, event, group, 2))
    assert test is not None
    chi2, p_value = survdiff(time, event.astype(int), group)
    assert (test.df, test.chi2) == (1, pytest.approx(chi2, rel=1e-9))
    assert test.p_value == pytest.approx(p_value, rel=1e-9)


def test_the_hypergeometric_variance_of_ties_by_hand() -> None:
    # Day 1: two of four die, both groups have two; day 2: the one of group 1 left dies alone.
    time, event = np.array([1.0, 1.0, 1.5, 2.0]), np.array([True, True, False, True])
    group = np.array([0, 1, 0, 1])
    observed, expected, variance = log_rank_terms(time, event, group, 2)
    np.testing.assert_array_equal(observed, [1, 2])
    np.testing.assert_allclose(expected, [1, 2])
    # 2 (4 - 2) / (4 - 1) * 1/2 * 1/2
    np.testing.assert_allclose(variance, np.array([[1, -1], [-1, 1]]) / 3)


def km_exams(seed: int, vendor: Vector, **changes: Any) -> Exams:
    rng = np.random.default_rng(seed)
    n = len(vendor)
    columns = {
        "vendor": vendor,
        "follow_up_days": np.ceil(rng.exponential(300 * (1 + vendor), n)),
        "event": (rng.random(n) < 0.6).astype(float),
        **changes,
    }
    return draw_exams(seed, n, f"{seed}-", **columns)


BY_VENDOR = KaplanMeierSpec(
    id="x", kind="kaplan_meier", endpoint="mace", by="vendor", bin_days=100, horizon_days=250
)


def test_a_vendor_at_one_site_alone_costs_the_published_test_a_degree_of_freedom() -> None:
    parts = {"a": km_exams(1, np.arange(80) % 2.0), "b": km_exams(2, np.full(60, 2.0))}
    row = pool(BY_VENDOR, parts)["pooled", "logrank_chi2", "", ""]
    own = parts["a"]
    chi2, p_value = survdiff(
        own.column("follow_up_days"), own.column("event").astype(int), own.column("vendor")
    )
    assert_close(row.estimate, chi2)
    assert_close(row.p_value, p_value)
    assert (row.n, row.n_events) == (140, sum(e.column("event").sum() for e in parts.values()))


def test_sites_of_one_group_each_compare_nothing() -> None:
    parts = {"a": km_exams(1, np.zeros(50)), "b": km_exams(2, np.ones(60))}
    rows = pool(BY_VENDOR, parts)
    row = rows["pooled", "logrank_chi2", "", ""]
    assert (row.status, row.n) == (RowStatus.NOT_ESTIMABLE, 110)
    assert numbers(row) == (None,) * 5
    # The curves stand all the same, and the last bin ends at the horizon.
    terms = [key[3] for key in rows if key[:3] == ("pooled", "survival", "a")]
    assert terms == ["100", "200", "250"]
    assert [key[3] for key in rows if key[:3] == ("pooled", "at_risk", "b")] == [
        "0",
        "100",
        "200",
        "250",
    ]


def test_where_no_site_gives_log_rank_terms_the_row_says_why() -> None:
    parts = {"a": km_exams(1, np.arange(80) % 2.0), "b": km_exams(2, np.arange(60) % 2.0)}

    def withhold(site: str, query: Any, answer: Any) -> Any:
        return RefusalCode.TOO_FEW_EVENTS if query.step == "log_rank" else answer

    rows = pool(BY_VENDOR, parts, change=withhold)
    assert rows["pooled", "logrank_chi2", "", ""].status is RowStatus.SUPPRESSED
    assert rows["pooled", "survival", "a", "100"].status is RowStatus.OK


def test_a_curve_by_hand() -> None:
    """Bins of 100 days: 10 at risk, 2 events and 2 censored; then 6 at risk and all 6 die."""
    time = np.array([10, 20, 30, 40, *[150] * 6], dtype=float)
    event = np.array([True, True, False, False, *[True] * 6])
    edges = np.array([0, 100, 200])
    at_risk, events, censored = binned_table(time, event, edges)
    assert (at_risk.tolist(), events.tolist(), censored.tolist()) == ([10, 6], [2, 6], [2, 0])
    curve = life_table_curve(at_risk, events, censored, np.diff(edges))
    # Actuarial: 2 of 10 - 2/2.
    s = 1 - 2 / 9
    se = s * (2 / (9 * 7)) ** 0.5
    np.testing.assert_allclose(curve.survival, [s, 0])
    assert curve.se[0] == pytest.approx(se)
    theta = stats.norm.ppf(0.975) * se / (s * np.log(s))
    np.testing.assert_allclose([curve.ci_low[0], curve.ci_high[0]], s ** np.exp([-theta, theta]))
    assert np.isnan([curve.se[1], curve.ci_low[1], curve.ci_high[1]]).all()
    # In bins of one day the censored stay at risk to the day's end.
    daily = life_table_curve(np.array([10]), np.array([2]), np.array([2]), np.array([1]))
    assert daily.survival[0] == pytest.approx(0.8)


def test_after_the_last_patient_the_curve_stays_at_0() -> None:
    curve = life_table_curve(
        np.array([5, 3, 0, 0]), np.array([2, 3, 0, 0]), np.zeros(4, dtype=int), np.full(4, 90)
    )
    np.testing.assert_allclose(curve.survival, [0.6, 0, 0, 0])
    assert np.isnan(curve.se).tolist() == [False, True, True, True]
    # Where the last ones are censored it stays where it was, and so does its error.
    left = life_table_curve(np.array([5, 0]), np.array([1, 0]), np.array([4, 0]), np.full(2, 90))
    np.testing.assert_allclose(left.survival, [2 / 3, 2 / 3])
    np.testing.assert_allclose(left.se, [2 / 3 * (1 / 6) ** 0.5] * 2)


def test_greenwoods_variance_by_hand() -> None:
    time = np.array([1.0, 2.0, 2.0, 3.0, 4.0, 5.0])
    event = np.array([True, True, False, True, False, True])
    # 5/6, then 4/5, then 2/3; at 5 the last one dies.
    assert kaplan_meier_at(time, event, 3.0) == pytest.approx(4 / 9)
    variance = (4 / 9) ** 2 * (1 / 30 + 1 / 20 + 1 / 6)
    assert kaplan_meier_variance(time, event, 3.0) == pytest.approx(variance)
    assert kaplan_meier_variance(time, event, 4.9) == pytest.approx(variance)
    assert kaplan_meier_variance(time, event, 0.5) == 0
    assert kaplan_meier_variance(time, event, 5.0) == 0
    at = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(
        product_limit(time, event, at, is_left_limit=True), [1, 5 / 6, 2 / 3]
    )
    np.testing.assert_allclose(
        product_limit(time, event, at, is_left_limit=False), [5 / 6, 2 / 3, 4 / 9]
    )


# --- net reclassification -------------------------------------------------------------------


def nri_spec(estimator: str = "km", kind: str = "category_free", **changes: Any) -> Any:
    values = {"id": "x", "kind": "reclassification", "base": "base", "full": "full"}
    return ReclassificationSpec(
        **{**values, **changes},
        horizon_days=100,
        estimator=RiskEstimator(estimator),
        type=ReclassificationType(kind),
    )


def test_an_event_on_the_horizon_counts_and_follow_up_to_it_does_not() -> None:
    """Weights by hand: one of four is censored at 50, so an event after it stands for 3/2."""
    old = np.array([0.2, 0.2, 0.2, 0.2])
    new = np.array([0.3, 0.1, 0.3, 0.1])
    time = np.array([50.0, 100.0, 60.0, 101.0])
    event = np.array([False, True, True, False])
    found = reclassified(old, new, time, event, nri_spec(estimator="ipw"))
    # G is 3/4 after 50. Events at 60 (up) and 100 (down): 4/3 each; beyond 100: 4/3 (down).
    assert found.numbers() == pytest.approx((8 / 3, 4 / 3, 4 / 3, 4 / 3, 0, 4 / 3))
    kept = reclassified(old, new, time - [0, 0, 0, 1], event, nri_spec(estimator="ipw"))
    assert kept.numbers()[3:] == (0, 0, 0)


@pytest.mark.parametrize("estimator", ["km", "ipw"])
def test_where_all_the_others_are_censored_before_the_horizon(estimator: str) -> None:
    rng = np.random.default_rng(5)
    old, new = rng.random(40), rng.random(40)
    time = np.concatenate([rng.integers(1, 30, 20), rng.integers(40, 90, 20)]).astype(float)
    event = np.arange(40) < 20
    found = reclassified(old, new, time, event, nri_spec(estimator=estimator))
    assert np.all(np.isfinite(found.numbers()))
    if estimator == "ipw":
        # Nobody is known to be free of the event at the horizon.
        assert found.nonevent_all == 0
        assert net_reclassification(found) is None
    else:
        # The curve stays where the last event left it.
        assert found.numbers()[::3] == pytest.approx((20, 20))


def test_the_smallest_number_of_patients_behind_the_sums() -> None:
    # Up: two events, three others; down: four and one; six stay.
    moved = np.repeat([1, 1, -1, -1, 0], [2, 3, 4, 1, 6])
    event = np.repeat([True, False, True, False, True], [2, 3, 4, 1, 6])
    time = np.full(16, 50.0)
    old = np.full(16, 0.5)
    new = old + 0.1 * moved

    def smallest(**changes: Any) -> int:
        return reclassified(old, new, time, event, nri_spec(**changes)).smallest_group

    assert smallest() == 1
    event[9] = True
    assert smallest() == 0
    event[9] = False
    time[:2] = 101.0
    # After the horizon an event is none, but not where time does not matter.
    assert smallest() == 0
    assert smallest(estimator="binary") == 1
    # Those who stay count as a group if there are any.
    moved = np.repeat([1, 1, -1, -1, 0], [5, 5, 5, 5, 2])
    event = np.repeat([True, False, True, False, True], [5, 5, 5, 5, 2])
    time, old = np.full(22, 50.0), np.full(22, 0.5)
    new = old + 0.1 * moved
    assert smallest() == 2
    time, event, old, new = time[:20], event[:20], old[:20], new[:20]
    assert smallest() == 5


def test_directions_at_the_edges() -> None:
    old, new = np.array([0.1, 0.1, 0.2, 0.05, 0.3]), np.array([0.2, 0.1, 0.1, 0.15, 0.3 + 1e-14])
    free = directions(old, new, nri_spec())
    assert free.tolist() == [1, 0, -1, 1, 0]
    # A risk on a cut belongs above it.
    cut = directions(old, new, nri_spec(kind="categorical", cuts=(0.1, 0.2)))
    assert cut.tolist() == [1, 0, -1, 1, 0]
    more = directions(old, new, nri_spec(kind="difference", delta=0.11))
    assert more.tolist() == [0] * 5
    exact = directions(
        np.array([0.25, 0.5]), np.array([0.5, 0.25]), nri_spec(kind="difference", delta=0.25)
    )
    assert exact.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("sums", "expected"),
    [
        (Reclassified(10, 6, 1, 40, 8, 12), (0.5, 0.1, 0.6)),
        (Reclassified(0, 0, 0, 40, 8, 12), None),
        (Reclassified(10, 6, 1, 0, 0, 0), None),
        (Reclassified(0.5, 0.5, 0, 0.5, 0, 0.5), (1, 1, 2)),
    ],
)
def test_net_reclassification_by_hand(sums: Reclassified, expected: Any) -> None:
    found = net_reclassification(sums)
    assert found == (expected if expected is None else pytest.approx(expected))
