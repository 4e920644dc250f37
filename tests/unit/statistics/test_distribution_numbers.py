"""Distances of two distributions and the sign-flip test, by hand on a few patients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from driven import Rows, assert_close, merged, numbers, pool
from numpy.typing import NDArray
from plans import SPECS, draw_exams, plan
from scipy import stats

from fedcac.aggregate import BinnedCounts
from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.statistics import Estimate, QueryError, estimator_for
from fedcac.vocabulary import CellStatus, RefusalCode, RowStatus

Vector = NDArray[np.float64]

SPEC = SPECS["distribution"]
# The public grid: zero alone, then 399 bins even in ln(score + 1), the last of them beyond 10 000.
EDGES = np.append(np.expm1(np.log(10_001) * np.arange(399) / 399), np.inf)


def site(index: Vector, reference: Vector, prefix: str = "k") -> Exams:
    return draw_exams(1, len(index), prefix, index_score=index, reference_score=reference)


def scores(seed: int, n: int) -> tuple[Vector, Vector]:
    rng = np.random.default_rng(seed)
    reference = np.where(rng.random(n) < 0.3, 0.0, rng.lognormal(4, 2, n).round(1))
    index = np.where(rng.random(n) < 0.1, 0.0, (reference * rng.lognormal(0.2, 0.5, n)).round(1))
    return index, reference


def row_of(rows: Rows, measure: str) -> Estimate:
    return rows["pooled", measure, "", ""]


def between(index: Vector, reference: Vector, limits: Vector) -> tuple[float, float]:
    """Return the largest distance at the limits of bins, and the largest that bins leave room for.

    At a limit both shares below it are known. Inside a bin the one may have risen to that of the
    upper limit while the other is still at that of the lower.
    """
    one, other = (np.array([np.mean(x < limit) for limit in limits]) for x in (index, reference))
    at_limits = np.abs(one - other)
    room = np.maximum(np.abs(one[1:] - other[:-1]), np.abs(one[:-1] - other[1:]))
    return at_limits.max(), room.max()


@pytest.mark.parametrize(
    "kept",
    [
        (0, 1, 60, 150, 230, 310),
        (0, 60, 150, 230, 310),
        (0, 2, 150, 399),
        (0, 1),
        (0, 200),
        (0,),
    ],
    ids=str,
)
def test_the_distance_and_its_bounds_on_merged_bins(kept: tuple[int, ...]) -> None:
    index, reference = scores(4, 80)
    row = row_of(pool(SPEC, {"a": site(index, reference)}, change=merged(kept)), "ks_d")
    # A bin of zeros alone leaves no room: what is known at zero is known below the next score.
    limits = np.array(
        [np.nextafter(0.0, 1.0) if start == 1 else EDGES[start - 1] for start in kept]
    )
    limits[0] = np.nextafter(0.0, 1.0) if kept[1:2] == (1,) else 0.0
    low, high = between(index, reference, np.append(np.unique(limits), np.inf))
    assert_close(row.estimate, low, 1e-12)
    assert_close(row.ci_low, low, 1e-12)
    assert_close(row.ci_high, min(1.0, high), 1e-12)
    assert_close(row.p_value, stats.kstwobign.sf((80 / 2) ** 0.5 * low), 1e-12)
    assert (row.n, row.se, row.ci_method) == (80, None, "grid_bounds")


def test_scores_that_differ_in_zeros_alone_have_a_known_distance() -> None:
    index = np.array([0.0] * 12 + [20.0] * 8 + [300.0] * 20)
    reference = np.array([20.0] * 20 + [300.0] * 20)
    row = row_of(pool(SPEC, {"a": site(index, reference)}), "ks_d")
    assert_close(row.estimate, 12 / 40, 1e-12)
    # In the bin of 20 the index adds eight patients and the reference twenty.
    assert_close(row.ci_high, 20 / 40, 1e-12)


@pytest.mark.parametrize("kept", [tuple(range(400)), (0, 1)], ids=["whole_grid", "two_bins"])
def test_zeros_leave_no_room_above_their_distance(kept: tuple[int, ...]) -> None:
    """Most scores are 0 and the others lie apart: nothing is unknown at 0 itself."""
    others = np.expm1(np.linspace(1, 8, 12))
    index, reference = np.append(np.zeros(28), others), np.append(np.zeros(31), 1.2 * others[:9])
    row = row_of(pool(SPEC, {"a": site(index, reference)}, change=merged(kept)), "ks_d")
    assert_close(row.estimate, 3 / 40, 1e-12)
    # On two bins all of the index's twelve others may come before the reference's nine.
    assert_close(row.ci_high, 3 / 40 if len(kept) > 2 else 12 / 40, 1e-12)


def test_scores_apart_have_the_largest_distance_there_is() -> None:
    row = row_of(pool(SPEC, {"a": site(np.zeros(30), np.full(30, 50.0))}), "ks_d")
    assert (row.estimate, row.ci_low, row.ci_high) == (1.0, 1.0, 1.0)


def test_a_site_that_withholds_one_of_its_histograms_is_left_out() -> None:
    parts = {"a": site(*scores(4, 60), "a"), "b": site(*scores(5, 50), "b")}
    alone = row_of(pool(SPEC, {"a": parts["a"]}), "ks_d")
    for hidden in (0, 1):

        def withhold(name: str, _: Query, answer: Any, hidden: int = hidden) -> Any:
            if name != "b" or not isinstance(answer, BinnedCounts):
                return answer
            starts, counts = list(answer.starts), list(answer.counts)
            starts[hidden], counts[hidden] = ((),), ((),)
            return answer.model_copy(update={"starts": tuple(starts), "counts": tuple(counts)})

        row = row_of(pool(SPEC, parts, change=withhold), "ks_d")
        assert (numbers(row), row.n) == (numbers(alone), 60)
        none = row_of(pool(SPEC, {"b": parts["b"]}, change=withhold), "ks_d")
        assert (none.status, none.n, numbers(none)) == (RowStatus.SUPPRESSED, None, (None,) * 5)


def test_sites_are_added_up() -> None:
    parts = {name: scores(seed, n) for seed, (name, n) in enumerate({"a": 60, "b": 35}.items())}
    rows = pool(SPEC, {name: site(*both, name) for name, both in parts.items()})
    index, reference = (np.concatenate([both[k] for both in parts.values()]) for k in (0, 1))
    whole = pool(SPEC, {"a": site(index, reference)})
    assert numbers(row_of(rows, "ks_d")) == numbers(row_of(whole, "ks_d"))
    d, row = index - reference, row_of(rows, "mean_difference")
    assert_close(row.estimate, d.mean(), 1e-12)
    assert_close(row.se, stats.sem(d), 1e-12)
    interval = stats.norm.interval(0.95, d.mean(), stats.sem(d))
    assert_close(row.ci_low, interval[0], 1e-12)
    assert_close(row.ci_high, interval[1], 1e-12)
    assert_close(row.p_value, 2 * stats.norm.sf(abs(d.sum()) / (d @ d) ** 0.5), 1e-12)
    assert (row.n, row.ci_method, row.status) == (95, "wald", RowStatus.OK)


def test_small_differences_are_tested_too() -> None:
    reference = np.array([0.0, 5.0, 40.0, 400.0])
    index = reference + np.array([0.1, 0.1, 0.0, -0.1])
    row = row_of(pool(SPEC, {"a": site(index, reference)}), "mean_difference")
    # Three signs, one against two: z = 0.1 / sqrt(0.03).
    assert_close(row.p_value, 2 * stats.norm.sf(3**-0.5), 1e-9)
    assert_close(row.estimate, 0.025, 1e-9)


def test_equal_scores_have_no_test() -> None:
    score = np.array([0.0, 3.0, 40.0, 500.0])
    rows = pool(SPEC, {"a": site(score, score)})
    assert (row_of(rows, "ks_d").estimate, row_of(rows, "ks_d").p_value) == (0.0, 1.0)
    row = row_of(rows, "mean_difference")
    assert (numbers(row), row.n, row.status) == ((0.0, *[None] * 4), 4, RowStatus.OK)


@pytest.mark.parametrize(("n", "status"), [(1, "not_estimable"), (0, "not_estimable")])
def test_hardly_anybody_has_no_difference(n: int, status: str) -> None:
    rows = pool(SPEC, {"a": site(*scores(4, 3)).where(np.arange(3) < n)})
    row = row_of(rows, "mean_difference")
    assert (row.status.value, row.n, numbers(row)) == (status, None, (None,) * 5)
    row = row_of(rows, "ks_d")
    if n == 0:
        assert (row.status.value, row.n, numbers(row)) == (status, 0, (None,) * 5)
    else:
        assert row.n == 1
    # Of two patients there is a spread.
    rows = pool(SPEC, {"a": site(*scores(4, 3)).where(np.arange(3) < 2)})
    assert row_of(rows, "mean_difference").n == 2


@pytest.mark.parametrize("names", [("n", "mean", "m2"), ("n",), ("mean",), ("m2",)], ids=str)
def test_withheld_moments_are_left_out(names: tuple[str, ...]) -> None:
    parts = {"a": site(*scores(4, 60), "a"), "b": site(*scores(5, 50), "b")}

    def withhold(name: str, _: Query, answer: Any) -> Any:
        if name != "b" or isinstance(answer, BinnedCounts):
            return answer
        return answer.model_copy(update=dict.fromkeys(names, (CellStatus.SUPPRESSED,)))

    row = row_of(pool(SPEC, parts, change=withhold), "mean_difference")
    alone = row_of(pool(SPEC, {"a": parts["a"]}), "mean_difference")
    assert (numbers(row), row.n) == (numbers(alone), 60)
    row = row_of(pool(SPEC, {"b": parts["b"]}, change=withhold), "mean_difference")
    assert (row.status, row.n, numbers(row)) == (RowStatus.SUPPRESSED, None, (None,) * 5)


@pytest.mark.parametrize(
    ("steps", "statuses"),
    [
        ({"histogram": RefusalCode.TOO_FEW_PATIENTS}, ("suppressed", "ok")),
        ({"moments": RefusalCode.INTERNAL}, ("ok", "error")),
        (
            {"histogram": RefusalCode.EMPTY_COHORT, "moments": RefusalCode.BUDGET_SPENT},
            ("not_applicable", "suppressed"),
        ),
    ],
)
def test_each_exchange_that_all_refuse_has_its_own_status(
    steps: Mapping[str, RefusalCode], statuses: tuple[str, str]
) -> None:
    rows = pool(
        SPEC,
        {"a": site(*scores(4, 60))},
        change=lambda _, query, answer: steps.get(query.step, answer),
    )
    assert list(rows) == [("pooled", "ks_d", "", ""), ("pooled", "mean_difference", "", "")]
    assert tuple(row.status.value for row in rows.values()) == statuses


def test_the_moments_are_those_of_index_less_reference() -> None:
    index, reference = scores(4, 60)
    estimator = estimator_for("x", plan((SPEC,)))
    found = estimator.summarise(site(index, reference), Query(step="moments"))
    d = index - reference
    assert (found.n_patients, found.n) == (60, (60,))
    assert_close(found.mean[0], d.mean(), 1e-12)
    assert_close(found.m2[0], d.var() * 60, 1e-12)
    bins = estimator.summarise(site(index, reference), Query(step="histogram"))
    assert (bins.n_patients, bins.starts) == (60, ((tuple(range(400)),),) * 2)
    for counts, values in zip(bins.counts, (index, reference), strict=True):
        inside = np.histogram(values[values > 0], EDGES)[0]
        assert counts == ((int(np.sum(values == 0)), *inside.tolist()),)
    for query in (Query(step="bins"), Query(step="moments", values={"beta": (0.0,)})):
        with pytest.raises(QueryError):
            estimator.summarise(site(index, reference), query)
