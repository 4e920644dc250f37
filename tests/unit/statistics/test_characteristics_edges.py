"""Grids, groups and characteristics at their edges: limits, levels, nobody, what does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from driven import assert_close, numbers, pool
from plans import draw_exams, plan

from fedcac.aggregate import BinnedCounts
from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.protocol import Covariate, DescriptivesSpec
from fedcac.statistics import Estimate, estimator_for
from fedcac.statistics.descriptive_variables import covariate_variable, score_variables
from fedcac.statistics.descriptives import CharacteristicCounts
from fedcac.statistics.grids import (
    bin_numbers,
    common_bins,
    covariate_edges,
    grid_counts,
    positive_at,
    probability_edges,
    released_row,
    risk_bin_labels,
    score_edges,
)
from fedcac.statistics.grouping import group_labels, group_numbers
from fedcac.vocabulary import CellStatus, RowStatus, ScoreRole


def spec(by: str, *covariates: str, **changes: Any) -> DescriptivesSpec:
    return DescriptivesSpec(id="x", kind="descriptives", by=by, covariates=covariates, **changes)


def absent(row: Estimate) -> tuple[str, int | None]:
    assert numbers(row) == (None,) * 5
    return row.status.value, row.n


def continuous(minimum: float | None, maximum: float | None, **changes: Any) -> Covariate:
    return Covariate(
        name="age",
        description="Age",
        minimum=minimum,
        maximum=maximum,
        **{"type": "continuous", **changes},
    )


# --- grids ------------------------------------------------------------------------------------


def test_edges_of_probabilities_and_scores() -> None:
    np.testing.assert_array_equal(probability_edges(4), [0.25, 0.5, 0.75])
    assert probability_edges(1).shape == (0,)
    edges = score_edges(5)
    assert edges[0] == np.nextafter(0.0, 1.0)
    # ln(score + 1) in four even parts up to ln(10 001); the last bin has no end.
    np.testing.assert_allclose(edges[1:] + 1, 10_001 ** np.array([0.25, 0.5, 0.75]), rtol=1e-12)
    found = bin_numbers(np.array([0.0, 0.5, 9.0, 10.0, 999.0, 1000.0, 1e4, 1e6]), edges)
    assert found.tolist() == [0, 1, 1, 2, 3, 4, 4, 4]


def test_edges_of_covariates() -> None:
    edges = covariate_edges(continuous(18, 120), 4)
    np.testing.assert_allclose(edges, [18, 52, 86], rtol=1e-12)
    assert edges[0] == np.nextafter(18.0, 19.0)
    # The minimum alone, up to the first third, and so on; what is beyond shares the last.
    values = np.array([17.0, 18.0, 18.1, 52.0, 85.9, 86.0, 120.0, 130.0])
    assert bin_numbers(values, edges).tolist() == [0, 0, 1, 2, 2, 3, 3, 3]
    for minimum, maximum in ((None, None), (18.0, None), (None, 120.0)):
        assert covariate_edges(continuous(minimum, maximum), 4).shape == (0,)
    binary = Covariate(name="sex", type="binary", description="Sex")
    np.testing.assert_array_equal(covariate_edges(binary, 128), [0.5])
    vendor = Covariate(
        name="vendor", type="categorical", description="Vendor", levels=("a", "b", "c", "d")
    )
    np.testing.assert_array_equal(covariate_edges(vendor, 128), [0.5, 1.5, 2.5])


def test_values_are_counted_by_group_and_bin() -> None:
    bins, group = np.array([0, 2, 2, 1, 2]), np.array([1, 1, 0, 1, 1])
    assert grid_counts(bins, group, 3, 4) == ((0, 0, 1, 0), (1, 1, 2, 0), (0, 0, 0, 0))
    assert risk_bin_labels((0.1, 0.25)) == ("0-0.1", "0.1-0.25", "0.25-1")


def test_who_is_positive_at_a_cut_off() -> None:
    protocol = plan((spec("all", "age"),))
    score = np.array([0.0, 0.5, 1.0, 10.0, 10.5, 100.0, 101.0, 400.0, 401.0])
    exams = draw_exams(1, 9, index_score=score)
    for cut, n in ((1, 7), (10, 5), (100, 3), (400, 1)):
        found = positive_at(exams, "index_score", cut, protocol)
        assert found.tolist() == [False] * (9 - n) + [True] * n


def binned(*rows: tuple[tuple[int, ...], tuple[Any, ...]]) -> BinnedCounts:
    return CharacteristicCounts(
        n_patients=9,
        starts=(tuple(row[0] for row in rows),),
        counts=(tuple(row[1] for row in rows),),
    )


def test_a_row_is_released_whole_or_not_at_all() -> None:
    hidden = CellStatus.SUPPRESSED
    answer = binned(((0, 2), (3, 4)), ((), ()), ((0, 2), (3, hidden)), ((0, 2), (hidden, hidden)))
    found = released_row(answer, 0, 0)
    assert found is not None
    assert [part.tolist() for part in found] == [[0, 2], [3, 4]]
    assert [released_row(answer, 0, group) for group in (1, 2, 3)] == [None] * 3


def test_rows_are_added_on_the_bins_they_share() -> None:
    one = (np.array([0, 2, 5, 7]), np.array([1, 2, 4, 8]))
    other = (np.array([0, 3, 5]), np.array([10, 20, 40]))
    starts, total = common_bins([one, other])
    assert (starts.tolist(), total.tolist(), total.dtype) == ([0, 5], [33, 52], np.int64)
    starts, total = common_bins([one])
    assert (starts.tolist(), total.tolist()) == ([0, 2, 5, 7], [1, 2, 4, 8])


# --- groups -----------------------------------------------------------------------------------


def test_groups_by_everything_there_is() -> None:
    protocol = plan((spec("all", "age"),))
    exams = draw_exams(
        1,
        4,
        index_score=np.array([0.0, 5.0, 50.0, 500.0]),
        event=np.array([0.0, 1, 1, 0]),
        sex=np.array([1.0, 0, 1, 1]),
        vendor=np.array([2.0, 0, 1, 2]),
    )
    expected = {
        "all": (("all",), [0, 0, 0, 0]),
        "index": (protocol.categories.labels, [0, 1, 2, 4]),
        "mace": (("no event", "event"), [0, 1, 1, 0]),
        "sex": (("no", "yes"), [1, 0, 1, 1]),
        "vendor": (("a", "b", "c"), [2, 0, 1, 2]),
    }
    for by, (labels, own) in expected.items():
        assert group_labels(by, protocol) == labels
        found = group_numbers(by, protocol, exams)
        assert (found.dtype, found.tolist()) == (np.int64, own)


@pytest.mark.parametrize("wrong", [-1.0, 0.5, 3.0])
def test_one_value_that_is_no_group_is_an_error(wrong: float) -> None:
    exams = draw_exams(1, 4, vendor=np.array([2.0, 0.0, wrong, 1.0]))
    with pytest.raises(ValueError, match="not the code of a group"):
        group_numbers("vendor", plan((spec("all", "age"),)), exams)


# --- variables --------------------------------------------------------------------------------


def test_what_is_written_about_a_covariate() -> None:
    age = covariate_variable(continuous(18, 120))
    assert (age.name, age.is_continuous, age.can_be_missing) == ("age", True, True)
    assert (age.level_terms, age.limits, len(age.edges)) == ((), (18, 120), 127)
    for limits in ((18.0, None), (None, 120.0), (None, None)):
        open_ended = covariate_variable(continuous(*limits))
        assert (open_ended.limits, len(open_ended.edges)) == (None, 0)
    sex = covariate_variable(continuous(0, 1, type="binary"))
    assert (sex.level_terms, sex.limits, sex.is_continuous) == (((1, "age"),), None, False)
    levels = covariate_variable(continuous(None, None, type="categorical", levels=("a", "b")))
    assert levels.level_terms == ((0, "age=a"), (1, "age=b"))


@pytest.mark.parametrize(
    ("covariate", "values", "is_right"),
    [
        (continuous(0, 1, type="binary"), (0.0, 1.0, np.nan), True),
        (continuous(0, 1, type="binary"), (0.0, 2.0, np.nan), False),
        (continuous(0, 1, type="categorical", levels=("a", "b", "c")), (2.0, 0.0, 1.0), True),
        (continuous(0, 1, type="categorical", levels=("a", "b", "c")), (2.0, 3.0, 1.0), False),
        (continuous(0, 1, type="categorical", levels=("a", "b", "c")), (0.0, 0.5, 1.0), False),
        (continuous(0, 1), (2.0, 0.5, -7.0), True),
    ],
)
def test_values_are_codes_of_levels(
    covariate: Covariate, values: tuple[float, ...], is_right: bool
) -> None:
    exams = draw_exams(1, 3, age=np.array(values))
    variable = covariate_variable(covariate)
    if is_right:
        np.testing.assert_array_equal(variable.values(exams), values)
    else:
        with pytest.raises(ValueError, match="code of a level"):
            variable.values(exams)


def test_a_column_that_is_not_there_is_missing_throughout() -> None:
    columns = {name: own for name, own in draw_exams(1, 3).columns.items() if name != "age"}
    exams = Exams(columns=columns, keys=("a", "b", "c"), secret=b"s")
    found = covariate_variable(continuous(18, 120)).values(exams)
    np.testing.assert_array_equal(found, [np.nan] * 3)


def test_scores_are_a_number_and_a_category() -> None:
    protocol = plan((spec("all", "age"),))
    score, category = score_variables(ScoreRole.INDEX, protocol)
    exams = draw_exams(1, 3, index_score=np.array([0.0, 100.0, 401.0]))
    assert (score.name, score.limits, score.can_be_missing) == ("index_score", (0.0, 1e4), False)
    assert (score.is_continuous, score.level_terms, len(score.edges)) == (True, (), 127)
    np.testing.assert_array_equal(score.values(exams), [0, 100, 401])
    np.testing.assert_array_equal(category.values(exams), [0, 2, 4])
    np.testing.assert_array_equal(category.edges, [0.5, 1.5, 2.5, 3.5])
    assert (category.name, category.is_continuous) == ("index_score_category", False)
    assert (category.limits, category.can_be_missing) == (None, False)
    labels = protocol.categories.labels
    assert category.level_terms == tuple((i, f"index_score={own}") for i, own in enumerate(labels))


# --- rows -------------------------------------------------------------------------------------


def test_a_covariate_with_one_limit_has_a_mean_and_no_median() -> None:
    others = tuple(own for own in plan((spec("all", "age"),)).covariates if own.name != "age")
    age = np.array([40.0, 50, 60, 70, 80])
    for minimum, maximum in ((18.0, None), (None, 120.0)):
        rows = pool(
            spec("mace", "age"),
            {"a": draw_exams(1, 5, age=age, event=np.array([0.0, 0, 0, 1, 1]))},
            covariates=(continuous(minimum, maximum), *others),
            subgroups=(),
        )
        assert {key[1] for key in rows} == {"count", "mean", "sd", "difference_test"}
        assert_close(rows["pooled", "mean", "no event", "age"].estimate, 50.0, 1e-12)
        # Of two patients there is a deviation.
        assert_close(rows["pooled", "sd", "event", "age"].estimate, 50**0.5, 1e-12)
        # All values share one bin.
        assert absent(rows["pooled", "difference_test", "", "age"]) == ("not_estimable", 5)


def test_scores_are_never_missing() -> None:
    exams = draw_exams(1, 30)
    rows = pool(spec("all", "sex", scores=(ScoreRole.INDEX,)), {"a": exams})
    assert [key[3] for key in rows if key[3].endswith("missing")] == ["sex=missing"]
    score = exams.column("index_score")
    assert_close(rows["pooled", "mean", "all", "index_score"].estimate, score.mean(), 1e-12)
    row = rows["pooled", "count", "all", "index_score=>400"]
    assert (row.estimate, row.n) == (np.sum(score > 400), 30)


def test_levels_that_all_patients_share_are_not_compared() -> None:
    exams = draw_exams(1, 20, sex=np.zeros(20), age=np.full(20, 60.0))
    rows = pool(spec("vendor", "sex", "age"), {"a": exams})
    for name in ("sex", "age"):
        assert absent(rows["pooled", "difference_test", "", name]) == ("not_estimable", 20)


def counts_changed(starts: tuple[int, ...], row: tuple[int, ...]) -> Any:
    """Return a gate that puts other bins of the first covariate in place of the first group's."""

    def change(_: str, query: Query, answer: Any) -> Any:
        if query.step != "counts":
            return answer
        update = {
            name: (getattr(answer, name)[0], (own, *getattr(answer, name)[1][1:]))
            for name, own in (("starts", starts), ("counts", row))
        }
        return answer.model_copy(update=update)

    return change


def test_levels_merged_in_one_group_alone_suppress_the_comparison() -> None:
    exams = draw_exams(1, 30)
    rows = pool(spec("mace", "vendor"), {"a": exams}, change=counts_changed((0, 2), (7, 3)))
    row = rows["pooled", "difference_test", "", "vendor"]
    assert row.status is RowStatus.SUPPRESSED
    assert rows["pooled", "count", "no event", "vendor=a"].status is RowStatus.SUPPRESSED
    assert rows["pooled", "count", "event", "vendor=a"].status is RowStatus.OK


@pytest.mark.parametrize(("last", "status"), [(2, RowStatus.OK), (3, RowStatus.ERROR)])
def test_a_bin_beyond_the_grid_is_a_fault(last: int, status: RowStatus) -> None:
    exams = draw_exams(1, 30)
    gate = counts_changed((0, 1, last), (7, 3, 1))
    rows = pool(spec("mace", "vendor"), {"a": exams}, change=gate)
    assert rows["pooled", "count", "event", "vendor=a"].status is status


def test_a_site_without_anybody_in_the_last_group() -> None:
    exams = draw_exams(
        3, 5, vendor=np.array([0.0, 0, 0, 0, 1]), age=np.array([50.0, 60, 70, 80, 64])
    )
    estimator = estimator_for("x", plan((spec("vendor", "age"),)))
    counts = estimator.summarise(exams, Query(step="counts"))
    assert (counts.counts[0], counts.evidence.nested) == (((4, 1, 0),), ((4, 1, 0), (4, 1, 0)))
    moments = estimator.summarise(exams, Query(step="moments"))
    assert (moments.n, moments.mean, moments.m2) == ((4, 1, 0), (65.0, 64.0, 0.0), (500.0, 0, 0))
    assert moments.evidence.block_sizes == (4, 1, 0)
    assert moments.evidence.row_blocks == (0, 1, 2)
    # Moments that nobody asks for are those of nobody.
    estimator = estimator_for("x", plan((spec("vendor", "sex"),)))
    moments = estimator.summarise(exams, Query(step="moments"))
    assert (moments.n_patients, moments.n, moments.mean, moments.m2) == (5, (0,), (0,), (0,))
    assert moments.evidence is None
