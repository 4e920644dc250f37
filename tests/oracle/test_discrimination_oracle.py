"""Correlation, AUC and reclassification against the numbers that R wrote to tests/oracle/data."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedcac.protocol import ReclassificationSpec
from fedcac.statistics.correlation import CoMoments, Correlation, ccc, icc, pearson
from fedcac.statistics.delong import (
    Auc,
    Bins,
    auc_of_bins,
    auc_of_values,
    pair_sums,
    paired_auc,
    placements,
)
from fedcac.statistics.grids import bin_numbers, score_edges
from fedcac.statistics.net_reclassification import (
    Reclassified,
    directions,
    net_reclassification,
    reclassified,
)
from fedcac.vocabulary import ReclassificationType, RiskEstimator

DATA = Path(__file__).parent / "data"
CLOSE = 1e-10
SCORES = pd.read_csv(DATA / "discrimination_scores.csv")
VETERAN = pd.read_csv(DATA / "discrimination_veteran.csv")
CASES = {
    "all": slice(None),
    "site1": SCORES.site == 1,
    "site2": SCORES.site == 2,
    "site3": SCORES.site == 3,
    "four": slice(0, 4),
    "three": slice(3, 6),
}
CORRELATIONS = list(pd.read_csv(DATA / "discrimination_correlation.csv").itertuples())
AUCS = list(pd.read_csv(DATA / "discrimination_auc.csv").itertuples())
NRIS = list(pd.read_csv(DATA / "discrimination_nri.csv").itertuples())


def _pairs(case: str, scale: str) -> tuple[np.ndarray, np.ndarray]:
    rows = SCORES[CASES[case]]
    x, y = rows["index"].to_numpy(float), rows["reference"].to_numpy(float)
    return (np.log1p(x), np.log1p(y)) if scale == "log" else (x, y)


def _coefficient(moments: CoMoments, measure: str) -> Correlation | None:
    if measure == "pearson":
        return pearson(moments)
    return ccc(moments) if measure == "ccc" else icc(moments, measure)


# --- correlation ----------------------------------------------------------------------------


@pytest.mark.parametrize("n_parts", [1, 4])
@pytest.mark.parametrize("row", CORRELATIONS, ids=lambda r: f"{r.case}-{r.scale}-{r.measure}")
def test_coefficients_equal_cor_test_psych_and_epir(row: object, n_parts: int) -> None:
    x, y = _pairs(row.case, row.scale)
    parts = [
        CoMoments.from_values(own_x, own_y)
        for own_x, own_y in zip(np.array_split(x, n_parts), np.array_split(y, n_parts), strict=True)
        if len(own_x)
    ]
    found = _coefficient(reduce(CoMoments.merge, parts), row.measure)
    assert found is not None
    for ours, theirs in (
        (found.estimate, row.estimate),
        (found.ci_low, row.ci_low),
        (found.ci_high, row.ci_high),
        (found.p_value, row.p_value),
    ):
        if np.isnan(theirs):
            assert ours is None
        else:
            assert ours == pytest.approx(theirs, rel=0, abs=CLOSE)


def test_small_p_values_agree_relatively() -> None:
    moments = CoMoments.from_values(*_pairs("all", "score"))
    expected = {
        row.measure: row.p_value
        for row in CORRELATIONS
        if (row.case, row.scale) == ("all", "score") and row.measure != "ccc"
    }
    for measure, p_value in expected.items():
        assert _coefficient(moments, measure).p_value == pytest.approx(p_value, rel=1e-8)


@pytest.mark.parametrize("scale", ["score", "log"])
def test_merged_moments_are_those_of_the_whole(scale: str) -> None:
    x, y = _pairs("all", scale)
    whole = CoMoments.from_values(x, y)
    bounds = [0, 1, 20, 90, len(x)]
    parts = [CoMoments.from_values(x[low:high], y[low:high]) for low, high in pairwise(bounds)]
    empty = CoMoments(0, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert empty.merge(whole) == whole.merge(empty) == whole
    for order in (parts, parts[::-1], [empty, *parts]):
        merged = reduce(CoMoments.merge, order)
        assert merged.n == whole.n
        for name in ("mean_x", "mean_y", "m2_x", "m2_y", "cross"):
            assert getattr(merged, name) == pytest.approx(getattr(whole, name), rel=1e-13)


def test_moments_do_not_lose_a_small_spread_around_a_large_mean() -> None:
    small = np.array([0.0, 1.0, 2.0, 4.0])
    near, far = (CoMoments.from_values(small + shift, small[::-1] + shift) for shift in (0, 1e9))
    assert (far.m2_x, far.m2_y, far.cross) == (near.m2_x, near.m2_y, near.cross)


@pytest.mark.parametrize("kind", ["icc1", "icc2", "icc3"])
def test_icc_of_equal_columns_is_one_with_its_interval(kind: str) -> None:
    x, _ = _pairs("all", "score")
    assert icc(CoMoments.from_values(x, x), kind) == Correlation(1.0, 1.0, 1.0, 0.0)


def test_icc_of_a_constant_shift() -> None:
    x = np.array([0.0, 10.0, 20.0, 40.0, 80.0])
    moments = CoMoments.from_values(x, x + 5)
    assert icc(moments, "icc3") == Correlation(1.0, 1.0, 1.0, 0.0)
    for kind in ("icc1", "icc2"):
        found = icc(moments, kind)
        assert -1 < found.ci_low < found.estimate < found.ci_high < 1


def test_perfect_and_opposite_correlation() -> None:
    x = np.array([0.0, 1.0, 2.0, 5.0])
    same, opposite = CoMoments.from_values(x, x), CoMoments.from_values(x, -x)
    assert pearson(same) == Correlation(1.0, 1.0, 1.0, 0.0)
    assert pearson(opposite) == Correlation(-1.0, -1.0, -1.0, 0.0)
    assert ccc(same) == Correlation(1.0, 1.0, 1.0, None)
    against = icc(CoMoments.from_values(x - x.mean(), x.mean() - x), "icc2")
    assert against.estimate <= 0
    assert against.p_value == 1


def test_ccc_exists_without_correlation() -> None:
    found = ccc(CoMoments.from_values(np.array([0.0, 0, 1, 1]), np.array([0.0, 1, 0, 1])))
    assert found.estimate == 0
    assert found.ci_high == -found.ci_low > 0


def test_coefficients_of_too_few_or_constant_values() -> None:
    some, constant = np.array([0.0, 1.0, 3.0, 7.0]), np.full(4, 0.1)
    for x, y in ((some[:2], some[:2]), (some, constant), (constant, some), (constant, constant)):
        assert pearson(CoMoments.from_values(x, y)) is None
        assert ccc(CoMoments.from_values(x, y)) is None
    for kind in ("icc1", "icc2", "icc3"):
        assert icc(CoMoments.from_values(some[:2], some[1:3]), kind) is None
        assert icc(CoMoments.from_values(constant, constant), kind) is None
        assert icc(CoMoments.from_values(constant, constant + 1), kind) is None
        assert icc(CoMoments.from_values(some, constant), kind) is not None
    with pytest.raises(ValueError, match="icc1"):
        icc(CoMoments.from_values(some, some), "icc4")


# --- AUC ------------------------------------------------------------------------------------


def _markers(name: str) -> dict[str, np.ndarray]:
    raw = {column: SCORES[column].to_numpy(float) for column in ("index", "reference")}
    if name == "coarse":
        return {column: np.minimum(values // 100, 3) for column, values in raw.items()}
    return raw if name == "continuous" else {**raw, "index": np.ones(len(SCORES))}


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.unique(values, return_inverse=True)[1].reshape(-1)


def _classes(bins: np.ndarray, is_positive: np.ndarray, n_bins: int) -> tuple[Bins, Bins]:
    return tuple(
        Bins.on_grid(np.bincount(bins[chosen], minlength=n_bins))
        for chosen in (is_positive, ~is_positive)
    )


@pytest.mark.parametrize("row", AUCS, ids=lambda row: row.markers)
@pytest.mark.parametrize("column", ["index", "reference"])
def test_auc_equals_proc(row: object, column: str) -> None:
    values, is_positive = _markers(row.markers)[column], SCORES.event.to_numpy() == 1
    ranks = _ranks(values)
    expected = getattr(row, f"auc_{column}"), getattr(row, f"var_{column}")
    for found in (
        auc_of_values(values, is_positive),
        auc_of_bins(*_classes(ranks, is_positive, int(ranks.max()) + 1)),
    ):
        assert found is not None
        assert (found.estimate, found.variance) == pytest.approx(expected, rel=0, abs=CLOSE)


@pytest.mark.parametrize("row", AUCS, ids=lambda row: row.markers)
def test_paired_test_from_site_sums_equals_roc_test(row: object) -> None:
    is_positive, site = SCORES.event.to_numpy() == 1, SCORES.site.to_numpy()
    values = []
    for marker in _markers(row.markers).values():
        ranks = _ranks(marker)
        size = int(ranks.max()) + 1
        by_site = [_classes(ranks[site == s], is_positive[site == s], size) for s in (1, 2, 3)]
        pooled = [
            Bins.on_grid(np.sum([own[kind].counts for own in by_site], axis=0)) for kind in (0, 1)
        ]
        values.append(
            {s: placements(ranks[site == s], is_positive[site == s], *pooled) for s in (1, 2, 3)}
        )
    sums = np.sum(
        [pair_sums(values[0][s], values[1][s], is_positive[site == s]) for s in (1, 2, 3)], axis=0
    )
    found = paired_auc(sums, (0.0, 0.0))
    assert found is not None
    assert found.se is not None
    first, second = found.first, found.second
    np.testing.assert_allclose(
        [first.estimate, first.variance, second.estimate, second.variance],
        [row.auc_index, row.var_index, row.auc_reference, row.var_reference],
        rtol=0,
        atol=CLOSE,
    )
    covariance = (first.variance + second.variance - found.se**2) / 2
    assert covariance == pytest.approx(row.covariance, rel=0, abs=CLOSE)
    assert found.difference / found.se == pytest.approx(row.z, rel=0, abs=CLOSE)
    assert found.p_value == pytest.approx(row.p_value, rel=0, abs=CLOSE)


@pytest.mark.parametrize("n_bins", [2, 5, 20, 100])
def test_auc_of_values_is_within_the_bound_of_the_binned_auc(n_bins: int) -> None:
    values, is_positive = _markers("continuous")["index"], SCORES.event.to_numpy() == 1
    bins = bin_numbers(values, score_edges(n_bins))
    binned = auc_of_bins(*_classes(bins, is_positive, n_bins))
    exact = auc_of_values(values, is_positive)
    assert abs(binned.estimate - exact.estimate) <= binned.error_bound + 1e-12


def test_identical_markers_have_no_difference() -> None:
    values, is_positive = np.array([0, 1, 1, 2, 3]), np.array([False, True, False, True, True])
    placed = placements(values, is_positive, *_classes(values, is_positive, 4))
    found = paired_auc(pair_sums(placed, placed, is_positive), (0.0, 0.0))
    assert (found.difference, found.se, found.p_value) == (0, 0, None)


def test_auc_of_tied_empty_and_single_classes() -> None:
    tied = auc_of_values(np.ones(6), np.arange(6) < 3)
    assert tied == Auc(0.5, 0.0, 0.0, 3, 3)
    for is_positive in (np.ones(3, bool), np.zeros(3, bool)):
        assert auc_of_values(np.arange(3.0), is_positive) is None
        assert paired_auc(pair_sums(np.zeros(3), np.zeros(3), is_positive), (0.0, 0.0)) is None
    assert auc_of_values(np.empty(0), np.empty(0, bool)) is None
    for values, estimate in (((0.0, 1.0), 1.0), ((1.0, 0.0), 0.0), ((1.0, 1.0), 0.5)):
        single = auc_of_values(np.array(values), np.array([False, True]))
        assert single == Auc(estimate, None, 0.0, 1, 1)
        assert single.se is None
    is_positive = np.array([False, True])
    pair = paired_auc(pair_sums(np.ones(2), np.full(2, 0.5), is_positive), (0.0, 0.0))
    assert (pair.difference, pair.se, pair.p_value) == (0.5, None, None)


# --- Kolmogorov-Smirnov ---------------------------------------------------------------------


@pytest.mark.parametrize("n_bins", [10, 50, 200, 1000])
def test_grid_distance_brackets_ks_test(n_bins: int) -> None:
    exact = pd.read_csv(DATA / "discrimination_ks.csv").ks_d.iloc[0]
    edges = score_edges(n_bins)
    shares = np.array(
        [
            np.bincount(bin_numbers(SCORES[name].to_numpy(float), edges), minlength=n_bins)
            / len(SCORES)
            for name in ("index", "reference")
        ]
    )
    on_grid = np.abs(np.diff(shares.cumsum(axis=1), axis=0)).max()
    assert on_grid <= exact + 1e-12
    assert exact <= on_grid + shares.max() + 1e-12


# --- net reclassification -------------------------------------------------------------------


def _spec(
    estimator: RiskEstimator,
    type_: ReclassificationType = ReclassificationType.CATEGORY_FREE,
    horizon: int = 180,
) -> ReclassificationSpec:
    return ReclassificationSpec(
        kind="reclassification",
        id="nri",
        base="old",
        full="new",
        horizon_days=horizon,
        type=type_,
        estimator=estimator,
        cuts=(0.4, 0.6, 0.8) if type_ is ReclassificationType.CATEGORICAL else (),
        delta=0.1 if type_ is ReclassificationType.DIFFERENCE else 0.0,
    )


def _binary(rows: pd.DataFrame) -> Reclassified:
    return reclassified(
        rows.risk_old.to_numpy(),
        rows.risk_new.to_numpy(),
        np.ones(len(rows)),
        rows.event.to_numpy() == 1,
        _spec(RiskEstimator.BINARY),
    )


def test_binary_reclassification_of_three_sites_equals_improve_prob() -> None:
    expected = pd.read_csv(DATA / "discrimination_improve_prob.csv").iloc[0]
    numbers = [np.array(_binary(rows).numbers()) for _, rows in SCORES.groupby("site")]
    sums = Reclassified.from_numbers(np.sum(numbers, axis=0))
    assert sums.numbers() == _binary(SCORES).numbers()
    assert net_reclassification(sums) == pytest.approx(
        (expected.nri_event, expected.nri_nonevent, expected.nri), rel=0, abs=CLOSE
    )
    # improveProb's variance of a net share holds the counts of both directions, not only of
    # their difference.
    for n, up, down, se in (
        (sums.event_all, sums.event_up, sums.event_down, expected.se_event),
        (sums.nonevent_all, sums.nonevent_up, sums.nonevent_down, expected.se_nonevent),
    ):
        variance = (up + down) / n**2 - (up - down) ** 2 / n**3
        assert np.sqrt(variance) == pytest.approx(se, rel=0, abs=CLOSE)


@pytest.mark.parametrize("row", NRIS, ids=lambda row: f"{row.type}-{row.horizon}-{row.estimator}")
def test_censored_reclassification_equals_survfit(row: object) -> None:
    spec = _spec(RiskEstimator(row.estimator), ReclassificationType(row.type), row.horizon)
    sums = reclassified(
        VETERAN.old.to_numpy(),
        VETERAN.new.to_numpy(),
        VETERAN.time.to_numpy(float),
        VETERAN.event.to_numpy() == 1,
        spec,
    )
    expected = (row.nri_event, row.nri_nonevent, row.nri_event + row.nri_nonevent)
    assert net_reclassification(sums) == pytest.approx(expected, rel=0, abs=CLOSE)


@pytest.mark.parametrize("estimator", list(RiskEstimator))
def test_reclassification_of_equal_risks_is_nothing(estimator: RiskEstimator) -> None:
    time, event = np.array([10.0, 20, 200, 300]), np.array([True, True, False, False])
    risk = np.full(4, 0.3)
    # The sums of two models differ in the last digit where the risks are the same.
    sums = reclassified(risk, risk + 1e-16, time, event, _spec(estimator))
    assert sums.numbers() == (2, 0, 0, 2, 0, 0)
    assert net_reclassification(sums) == (0, 0, 0)


@pytest.mark.parametrize("estimator", list(RiskEstimator))
def test_reclassification_without_a_class(estimator: RiskEstimator) -> None:
    old, new = np.array([0.1, 0.2]), np.array([0.2, 0.1])
    for time, event in (
        (np.array([10.0, 20]), np.array([True, True])),
        (np.array([200.0, 300]), np.array([False, False])),
    ):
        sums = reclassified(old, new, time, event, _spec(estimator))
        assert net_reclassification(sums) is None


@pytest.mark.parametrize("estimator", list(RiskEstimator))
def test_reclassification_of_one_patient_per_class(estimator: RiskEstimator) -> None:
    old, new = np.array([0.1, 0.2]), np.array([0.2, 0.1])
    time, event = np.array([10.0, 300]), np.array([True, False])
    sums = reclassified(old, new, time, event, _spec(estimator))
    assert sums.numbers() == (1, 1, 0, 1, 0, 1)
    assert net_reclassification(sums) == (1, 1, 2)


def test_a_risk_at_a_cut_belongs_above_it() -> None:
    old, new = np.array([0.39, 0.4, 0.6, 0.1]), np.array([0.4, 0.41, 0.59, 0.9])
    spec = _spec(RiskEstimator.KM, ReclassificationType.CATEGORICAL)
    assert directions(old, new, spec).tolist() == [1, 0, -1, 1]
