"""Tests of groups and quantiles from few counts, and spreads of small units, against scipy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from driven import assert_close
from scipy import stats

from fedcac.exams import Exams
from fedcac.statistics.group_tests import (
    binned_quantile,
    kruskal_wallis,
    pearson_chi2,
    quantile_bin,
)
from fedcac.statistics.intervals import (
    Limits,
    clopper_pearson,
    eng2021,
    proportion_interval,
    wilson,
)
from fedcac.statistics.resampling import deal_groups, replicate_rows, replicate_spread
from fedcac.vocabulary import Interval, Resampling

# --- tests of groups ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "counts",
    [
        # One patient alone in a column, then in a row, then in both.
        [[3, 1, 4], [5, 0, 2]],
        [[3, 6, 4], [0, 1, 0]],
        [[3, 0], [0, 1]],
        [[1, 0], [0, 1]],
    ],
)
def test_a_patient_alone_in_a_row_or_a_column_counts(counts: list[list[int]]) -> None:
    expected = stats.chi2_contingency(counts, correction=False)
    found = pearson_chi2(np.array(counts))
    assert found is not None
    assert (found.df, found.chi2) == (expected.dof, pytest.approx(expected.statistic))
    assert_close(found.p_value, expected.pvalue)


@pytest.mark.parametrize(
    "counts",
    [
        # Two values are enough, in neighbouring bins or not; and a group of one patient.
        [[3, 4], [6, 1]],
        [[3, 0, 4], [6, 0, 1], [2, 0, 5]],
        [[0, 1, 0], [4, 2, 3]],
        [[1, 0], [0, 1]],
    ],
)
def test_ranks_of_few_values_are_scipys(counts: list[list[int]]) -> None:
    expected = stats.kruskal(*(np.repeat(np.arange(len(row)), row) for row in counts))
    found = kruskal_wallis(np.array(counts))
    assert found is not None
    assert (found.df, found.chi2) == (len(counts) - 1, pytest.approx(expected.statistic))
    assert_close(found.p_value, expected.pvalue)


def test_with_two_groups_the_test_of_ranks_is_mann_and_whitneys() -> None:
    table = np.array([[4, 2, 0, 3, 1], [1, 0, 5, 2, 6]])
    one, other = (np.repeat(np.arange(5), row) for row in table)
    expected = stats.mannwhitneyu(one, other, use_continuity=False, method="asymptotic")
    found = kruskal_wallis(table)
    assert found is not None
    assert_close(found.p_value, expected.pvalue)


# --- quantiles ------------------------------------------------------------------------------

EDGES = np.array([0.0, np.nextafter(0, 1), 1.0, 10.0, 100.0])


@pytest.mark.parametrize(
    ("counts", "share", "place", "expected"),
    [
        # Half of the patients have a score of 0, whose bin ends at the smallest number above 0.
        ((5, 0, 3, 2), 0.5, 0, 0.0),
        ((5, 0, 3, 2), 0.25, 0, 0.0),
        ((5, 0, 3, 2), 0.0, 0, 0.0),
        ((5, 0, 3, 2), 0.8, 2, 10.0),
        ((5, 0, 3, 2), 0.9, 3, 55.0),
        ((0, 4, 0, 0), 0.25, 1, 0.25),
        ((0, 4, 0, 0), 1.0, 1, 1.0),
        ((0, 0, 1, 0), 0.5, 2, 5.5),
    ],
)
def test_quantiles_of_scores_of_which_many_are_0(
    counts: tuple[int, ...], share: float, place: int, expected: float
) -> None:
    assert quantile_bin(np.array(counts), share) == place
    assert binned_quantile(EDGES, np.array(counts), share) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_the_quantile_of_zeros_is_0_itself(share: float) -> None:
    """Not the smallest number above it, at which their bin ends and which no table can show."""
    assert binned_quantile(EDGES, np.array([5, 0, 3, 2]), share) == 0


def test_scores_below_0_have_quantiles_too() -> None:
    edges = np.array([-10.0, -5.0, 0.0])
    assert_close(binned_quantile(edges, np.array([4, 0]), 0.5), -7.5)
    assert_close(binned_quantile(edges, np.array([0, 4]), 0.5), -2.5)


# --- spreads --------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("method", [Resampling.JACKKNIFE, Resampling.BOOTSTRAP])
def test_a_spread_has_its_test_in_any_unit(method: Resampling, scale: float) -> None:
    replicates = np.array([0.8, 1.1, 1.3, 0.9, 1.2, 0.7])
    spread = replicate_spread(scale, scale * replicates, method)
    assert spread is not None
    n, sd = len(replicates), replicates.std(ddof=1)
    if method is Resampling.JACKKNIFE:
        se, expected = sd * (n - 1) / n**0.5, stats.t(n - 1)
    else:
        se, expected = sd, stats.norm
    assert spread.se == pytest.approx(scale * se, rel=1e-12)
    assert spread.p_value == pytest.approx(2 * expected.sf(1 / se), rel=1e-10)
    half = expected.ppf(0.975) * se
    assert spread.ci_low == pytest.approx(scale * (1 - half), rel=1e-10)
    assert spread.ci_high == pytest.approx(scale * (1 + half), rel=1e-10)


def test_two_replicates_are_enough() -> None:
    spread = replicate_spread(2.0, np.array([1.0, 3.0]), Resampling.JACKKNIFE)
    assert spread is not None
    # (G - 1)/G times 1 + 1; with one degree of freedom t at 0.975 is tan(0.475 pi).
    assert spread.se == pytest.approx(1)
    assert spread.ci_high == pytest.approx(2 + np.tan(0.475 * np.pi))


@pytest.mark.parametrize("method", [Resampling.JACKKNIFE, Resampling.BOOTSTRAP])
def test_nobody_is_resampled_to_nobody(method: Resampling) -> None:
    nobody = Exams({}, (), b"a site's secret")
    assert deal_groups(nobody, "study|nri", 3).shape == (0,)
    rows = replicate_rows(nobody, "study|nri", method, 3)
    assert [(own.shape, own.dtype) for own in rows] == [((0,), np.int64)] * 3


# --- proportions ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "of"), [("wilson", wilson), ("exact", clopper_pearson)], ids=["wilson", "exact"]
)
def test_intervals_of_all_small_samples_are_scipys(method: str, of: Callable[..., Limits]) -> None:
    for n in (1, 2, 7):
        k = np.arange(n + 1)
        low, high = of(k, n)
        for number in k:
            expected = stats.binomtest(int(number), n).proportion_ci(method=method)
            np.testing.assert_allclose(low[number], expected.low, rtol=1e-10, atol=1e-15)
            np.testing.assert_allclose(high[number], expected.high, rtol=1e-10, atol=1e-15)


def test_one_denominator_serves_many_counts_and_the_other_way_round() -> None:
    for of in (wilson, clopper_pearson):
        low, high = of([[1], [2]], [4, 8, 9])
        assert low.shape == high.shape == (2, 3)
        assert (low[1, 2], high[1, 2]) == of(2, 9)
    low, high = eng2021([0.25, 0.5], 40)
    np.testing.assert_allclose((low + high) / 2, [0.25, 0.5])
    np.testing.assert_allclose((high - low) / 2, 1.96 * np.array([0.1875 / 40, 0.25 / 40]) ** 0.5)


@pytest.mark.parametrize("of", [wilson, clopper_pearson])
def test_a_proportion_of_nobody_among_others_is_an_error(of: Callable[..., Limits]) -> None:
    with pytest.raises(ValueError, match="n > 0"):
        of([1, 0], [4, 0])


def test_engs_interval_of_one_patient_is_the_point() -> None:
    low, high = eng2021([0.0, 1.0], 1)
    np.testing.assert_array_equal([low, high], [[0, 1], [0, 1]])


def test_no_interval_leaves_the_range_of_proportions() -> None:
    for method in Interval:
        for k, n in ((0, 3), (1, 3), (3, 3), (1, 200), (199, 200)):
            low, high = proportion_interval(method, k, n, 5)
            assert 0 <= low <= k / n <= high <= 1
