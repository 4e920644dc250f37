"""Intervals of proportions and kappa at the edges of their ranges, and printed worked examples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from driven import assert_close, numbers, pool
from numpy.typing import NDArray
from plans import draw_exams
from scipy import stats

from fedcac.exams import Exams
from fedcac.protocol import AccuracySpec
from fedcac.statistics.intervals import (
    Z95,
    Limits,
    clopper_pearson,
    eng2021,
    proportion_interval,
    wilson,
)
from fedcac.statistics.kappa import agreement_weights, cohen_kappa
from fedcac.vocabulary import Interval, KappaWeights, RowStatus

Counts = NDArray[np.int64]


# --- intervals ------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [wilson, clopper_pearson])
@pytest.mark.parametrize(
    ("successes", "n"),
    [([3, 0], [5, 0]), ([3, -1], [5, 5]), ([3, 6], [5, 5]), (0, 0), (1, -2), (-1, -1)],
)
def test_one_impossible_count_among_several_is_an_error(
    of: Callable[..., Limits], successes: object, n: object
) -> None:
    with pytest.raises(ValueError, match="a proportion needs"):
        of(successes, n)


@pytest.mark.parametrize(
    ("proportion", "n"),
    [([0.5, 0.5], [10, 0]), ([0.5, -0.1], [10, 10]), ([0.5, 1.1], [10, 10]), (0.5, -3)],
)
def test_one_impossible_proportion_among_several_is_an_error(proportion: object, n: object) -> None:
    with pytest.raises(ValueError, match="eng2021 needs"):
        eng2021(proportion, n)


def test_limits_at_none_and_at_all_are_the_closed_forms() -> None:
    for n in (1, 7, 40):
        z2 = Z95**2
        low, high = wilson([0, n], n)
        np.testing.assert_array_equal([low[0], high[1]], [0, 1])
        np.testing.assert_allclose([high[0], low[1]], [z2 / (n + z2), n / (n + z2)], rtol=1e-13)
        low, high = clopper_pearson([0, n], n)
        np.testing.assert_array_equal([low[0], high[1]], [0, 1])
        root = 0.025 ** (1 / n)
        np.testing.assert_allclose([high[0], low[1]], [1 - root, root], rtol=1e-12)


def test_wilsons_interval_as_printed() -> None:
    # Newcombe (Stat Med 1998;17:857), table I, method 3.
    low, high = wilson([81, 15, 0, 1], [263, 148, 20, 29])
    np.testing.assert_array_equal(low.round(4), [0.2553, 0.0624, 0.0, 0.0061])
    np.testing.assert_array_equal(high.round(4), [0.3662, 0.1605, 0.1611, 0.1718])


def test_clopper_and_pearsons_interval_as_printed() -> None:
    # As above, method 5.
    low, high = clopper_pearson([81, 15, 0, 1], [263, 148, 20, 29])
    np.testing.assert_array_equal(low.round(4), [0.2527, 0.0578, 0.0, 0.0009])
    np.testing.assert_array_equal(high.round(4), [0.3676, 0.1617, 0.1684, 0.1776])


def test_each_interval_is_the_one_it_is_called() -> None:
    assert proportion_interval(Interval.WILSON, 15, 148, 900) == wilson(15, 148)
    assert proportion_interval(Interval.CLOPPER_PEARSON, 15, 148, 900) == clopper_pearson(15, 148)
    p = 15 / 148
    half = 1.96 * (p * (1 - p) / 900) ** 0.5
    np.testing.assert_allclose(
        proportion_interval(Interval.ENG2021, 15, 148, 900), [p - half, p + half], rtol=1e-13
    )


def test_engs_interval_ends_where_a_proportion_does() -> None:
    # 1.96 sqrt(0.05 * 0.95 / 20) = 0.0955
    low, high = eng2021([0.05, 0.95, 0.0, 1.0, 0.5], 20)
    np.testing.assert_allclose(low, [0, 0.854482, 0, 1, 0.280865], atol=1e-6)
    np.testing.assert_allclose(high, [0.145518, 1, 0, 1, 0.719135], atol=1e-6)


# --- accuracy -------------------------------------------------------------------------------


def scored(table: tuple[int, int, int, int], seed: int) -> Exams:
    """Return patients with this 2x2 (tp, fn, fp, tn) at the cut-off 100."""
    tp, fn, fp, tn = table
    reference = np.repeat([150.0, 150.0, 20.0, 20.0], (tp, fn, fp, tn))
    index = np.repeat([150.0, 20.0, 150.0, 20.0], (tp, fn, fp, tn))
    columns = {"reference_score": reference, "index_score": index}
    return draw_exams(seed, len(index), f"{seed}-", **columns)


TABLES = {"a": (15, 2, 3, 20), "b": (11, 4, 1, 44)}


def test_engs_interval_counts_all_patients_whatever_the_denominator() -> None:
    parts = {site: scored(table, seed) for seed, (site, table) in enumerate(TABLES.items())}
    rows = pool(AccuracySpec(id="x", kind="accuracy", interval=Interval.ENG2021), parts)
    both = tuple(np.sum(list(TABLES.values()), axis=0).tolist())
    for scope, (tp, fn, fp, tn) in {**TABLES, "pooled": both}.items():
        n_total = tp + fn + fp + tn
        for measure, p in {
            "sensitivity": tp / (tp + fn),
            "specificity": tn / (tn + fp),
            "ppv": tp / (tp + fp),
            "npv": tn / (tn + fn),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "accuracy": (tp + tn) / n_total,
        }.items():
            row = rows[scope, measure, "", "100"]
            half = 1.96 * (p * (1 - p) / n_total) ** 0.5
            assert_close(row.estimate, p)
            assert_close(row.ci_low, p - half)
            assert_close(row.ci_high, min(p + half, 1))
            assert row.ci_method == "eng2021"


def test_standard_errors_are_binomial_and_f1s_follows_from_the_jaccard_index() -> None:
    tp, fn, fp, tn = TABLES["a"]
    rows = pool(AccuracySpec(id="x", kind="accuracy"), {"a": scored(TABLES["a"], 1)})
    for measure, k, n in (
        ("sensitivity", tp, tp + fn),
        ("specificity", tn, tn + fp),
        ("accuracy", tp + tn, tp + fn + fp + tn),
    ):
        row = rows["pooled", measure, "", "100"]
        assert_close(row.se, stats.binom(n, k / n).std() / n)
        assert (row.ci_method, row.n) == ("wilson", n)
    row, n = rows["pooled", "f1", "", "100"], tp + fn + fp
    # The derivative of 2 J / (1 + J), by a difference.
    j, step = tp / n, 1e-6
    slope = (2 * (j + step) / (1 + j + step) - 2 * (j - step) / (1 + j - step)) / (2 * step)
    assert_close(row.se, slope * stats.binom(n, j).std() / n)
    for number, cell in enumerate(("tp", "fn", "fp", "tn")):
        row = rows["pooled", "count", cell, "100"]
        assert (row.estimate, row.n) == (TABLES["a"][number], sum(TABLES["a"]))


def test_a_proportion_of_nobody_is_not_estimable_and_the_others_stand() -> None:
    # Nobody has the condition at the first site, and nobody is called positive.
    parts = {"a": scored((0, 0, 0, 30), 1), "b": scored((10, 2, 3, 25), 2)}
    rows = pool(AccuracySpec(id="x", kind="accuracy"), parts)
    for measure in ("sensitivity", "ppv", "f1"):
        row = rows["a", measure, "", "100"]
        assert (row.status, row.n) == (RowStatus.NOT_ESTIMABLE, 0)
        assert numbers(row) == (None,) * 5
    assert rows["a", "specificity", "", "100"].estimate == 1
    assert rows["a", "npv", "", "100"].n == 30
    pooled = rows["pooled", "sensitivity", "", "100"]
    assert (pooled.estimate, pooled.n) == (10 / 12, 12)
    assert not [key for key in rows if key[0] == "meta"]


def test_sites_without_the_condition_do_not_count_among_those_that_differ() -> None:
    """Three sites of which one has no positive: two sensitivities, three specificities."""
    tables = {"a": (0, 0, 2, 30), "b": (10, 2, 3, 25), "c": (9, 3, 4, 40)}
    parts = {site: scored(table, seed) for seed, (site, table) in enumerate(tables.items())}
    rows = pool(AccuracySpec(id="x", kind="accuracy"), parts)
    assert rows["meta", "sensitivity", "", "100"].status is RowStatus.NOT_ESTIMABLE
    assert rows["meta", "specificity", "", "100"].status is RowStatus.OK
    without = {key[1] for key in rows if key[2].startswith("without ") and key[3] == "100"}
    assert without == {"specificity"}
    row = rows["pooled", "specificity", "without b", "100"]
    assert (row.estimate, row.n) == (70 / 76, 76)
    # The bivariate model counts the patients of sites with both classes alone.
    assert rows["meta", "sensitivity", "bivariate", "100"].n == 40 + 56


# --- kappa ----------------------------------------------------------------------------------


def test_weights_are_cohens_and_those_of_fleiss_and_cohen() -> None:
    linear, quadratic = (
        agreement_weights(4, kind) for kind in (KappaWeights.LINEAR, KappaWeights.QUADRATIC)
    )
    np.testing.assert_allclose(linear[0], [1, 2 / 3, 1 / 3, 0], atol=1e-15)
    np.testing.assert_allclose(linear[2], [1 / 3, 2 / 3, 1, 2 / 3], atol=1e-15)
    np.testing.assert_allclose(quadratic[0], [1, 8 / 9, 5 / 9, 0], atol=1e-15)
    np.testing.assert_array_equal(agreement_weights(3, KappaWeights.UNWEIGHTED), np.eye(3))


def test_kappa_of_the_printed_example() -> None:
    """Fleiss, Cohen and Everitt (1969), table 1: 200 patients, three categories."""
    shares = np.array([[0.53, 0.05, 0.02], [0.11, 0.14, 0.05], [0.01, 0.06, 0.03]])
    kappa = cohen_kappa((200 * shares).round().astype(np.int64), KappaWeights.UNWEIGHTED)
    assert kappa is not None
    assert (round(kappa.estimate, 3), kappa.n) == (0.429, 200)


@pytest.mark.parametrize("weights", list(KappaWeights))
def test_where_chance_explains_all_agreement_there_is_no_kappa(weights: KappaWeights) -> None:
    assert cohen_kappa(np.zeros((3, 3), dtype=np.int64), weights) is None
    for n in (1, 40):
        alone = np.zeros((3, 3), dtype=np.int64)
        alone[1, 1] = n
        assert cohen_kappa(alone, weights) is None


@pytest.mark.parametrize("weights", list(KappaWeights))
def test_two_patients_in_two_categories_have_a_kappa(weights: KappaWeights) -> None:
    agreed = cohen_kappa(np.array([[1, 0], [0, 1]]), weights)
    opposed = cohen_kappa(np.array([[0, 1], [1, 0]]), weights)
    assert agreed is not None
    assert opposed is not None
    # Under no agreement: p = 1/2 everywhere, so sqrt(pe / (n (1 - pe))) = sqrt(1/2).
    assert (agreed.estimate, agreed.se, agreed.n) == (1, 0, 2)
    assert (opposed.estimate, opposed.se) == (-1, 0)
    assert_close(agreed.se0, 0.5**0.5)
