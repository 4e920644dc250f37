"""Table 1 over four sites, and the tests behind it, against numpy and scipy on the stacked rows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import driven
import numpy as np
import pytest
from driven import numbers
from numpy.typing import NDArray
from plans import SPECS, draw_exams, plan
from scipy import stats

from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.protocol import DescriptivesSpec
from fedcac.statistics import QueryError, estimator_for
from fedcac.statistics.group_tests import binned_quantile, kruskal_wallis, pearson_chi2
from fedcac.vocabulary import RefusalCode, RowStatus

Vector = NDArray[np.float64]

SITES = ("s0", "s1", "s2", "s3")
EVENTS = ("no event", "event")
CATEGORIES = ("0", "1-10", "11-100", "101-400", ">400")
# The plan's age lies between 18 and 120: the first of 128 bins holds 18 alone, the rest are even.
AGE_EDGES = np.concatenate([[18.0, np.nextafter(18.0, 19.0)], np.linspace(18, 120, 128)[1:]])
BIN_WIDTH = 102 / 127


def four_sites(seed: int = 1, **columns: Any) -> dict[str, Exams]:
    """Return four sites of different sizes with gaps in two covariates."""
    sizes = (90, 120, 150, 105)
    parts = {}
    for number, (name, n) in enumerate(zip(SITES, sizes, strict=True)):
        exams = draw_exams(seed + number, n, f"{name}-", **columns)
        rng = np.random.default_rng(number)
        for column, share in (("age", 0.1), ("vendor", 0.2)):
            values = exams.column(column)
            exams = exams.with_column(column, np.where(rng.random(n) < share, np.nan, values))
        parts[name] = exams
    return parts


def stacked(parts: Mapping[str, Exams], column: str) -> Vector:
    return np.concatenate(
        [
            exams.column(column) if exams.has(column) else np.full(exams.n, np.nan)
            for exams in parts.values()
        ]
    )


def spec_of(by: str, *covariates: str) -> DescriptivesSpec:
    return DescriptivesSpec(
        id="x", kind="descriptives", covariates=covariates or ("age", "sex", "vendor"), by=by
    )


# One exchange for counts and one for moments; and sums that no rounding of a fit blurs.
pool = partial(driven.pool, exchanges=10)
assert_close = partial(driven.assert_close, tolerance=1e-10)
assert_same = partial(driven.assert_same, tolerance=1e-10)


def groups_of(by: str, parts: Mapping[str, Exams]) -> dict[str, NDArray[np.bool_]]:
    """Return who is in each group, from the definition of the groups."""
    n = sum(exams.n for exams in parts.values())
    if by == "all":
        return {"all": np.ones(n, dtype=bool)}
    if by == "index":
        score = stacked(parts, "index_score")
        number = (score >= 1).astype(int) + (score > 10) + (score > 100) + (score > 400)
        return {label: number == place for place, label in enumerate(CATEGORIES)}
    if by == "mace":
        return dict(zip(EVENTS, (stacked(parts, "event") == k for k in (0, 1)), strict=True))
    labels = ("no", "yes") if by == "sex" else ("a", "b", "c")
    return {label: stacked(parts, by) == place for place, label in enumerate(labels)}


# --- the rows -------------------------------------------------------------------------------

BYS = ("mace", "index", "all", "sex")


@pytest.mark.parametrize("by", BYS)
def test_counts_proportions_and_gaps(by: str) -> None:
    parts = four_sites()
    covariates = tuple(name for name in ("age", "sex", "vendor") if name != by)
    rows = pool(spec_of(by, *covariates), parts)
    sex, vendor, age = (stacked(parts, name) for name in ("sex", "vendor", "age"))
    for label, own in groups_of(by, parts).items():
        size = rows["pooled", "count", label, ""]
        assert (size.estimate, size.n) == (own.sum(), len(own))
        levels = {f"vendor={name}": (vendor, k) for k, name in enumerate("abc")}
        if by != "sex":
            levels["sex"] = sex, 1
        for term, (values, level) in levels.items():
            known = own & np.isfinite(values)
            count = rows["pooled", "count", label, term]
            assert (count.estimate, count.n) == (np.sum(values[own] == level), known.sum())
            share = rows["pooled", "proportion", label, term]
            assert_close(share.estimate, np.mean(values[known] == level))
        for name, values in (("age", age), ("vendor", vendor)):
            gap = rows["pooled", "count", label, f"{name}=missing"]
            assert (gap.estimate, gap.n) == (np.isnan(values[own]).sum(), own.sum())


@pytest.mark.parametrize("by", BYS)
def test_means_deviations_and_quartiles(by: str) -> None:
    parts = four_sites()
    rows = pool(spec_of(by, "age"), parts)
    age = stacked(parts, "age")
    for label, own in groups_of(by, parts).items():
        values = age[own & np.isfinite(age)]
        assert_close(rows["pooled", "mean", label, "age"].estimate, values.mean())
        assert_close(rows["pooled", "sd", label, "age"].estimate, values.std(ddof=1))
        for measure, share in (("quartile_low", 0.25), ("median", 0.5), ("quartile_high", 0.75)):
            row = rows["pooled", measure, label, "age"]
            # In whichever way a quantile is defined between two patients.
            low = np.quantile(values, share, method="lower")
            high = np.quantile(values, share, method="higher")
            assert low - BIN_WIDTH <= row.estimate <= high + BIN_WIDTH
            assert row.n == len(values)


@pytest.mark.parametrize("by", ["mace", "index", "sex"])
def test_differences_between_groups_are_tested_as_scipy_does(by: str) -> None:
    parts = four_sites()
    covariates = tuple(name for name in ("age", "sex", "vendor") if name != by)
    rows = pool(spec_of(by, *covariates), parts)
    chosen = list(groups_of(by, parts).values())
    age, vendor, sex = (stacked(parts, name) for name in ("age", "vendor", "sex"))
    binned = np.digitize(age, AGE_EDGES)
    samples = [binned[own & np.isfinite(age)] for own in chosen]
    row = rows["pooled", "difference_test", "", "age"]
    expected = stats.kruskal(*samples)
    assert_close(row.estimate, expected.statistic)
    assert_close(row.p_value, expected.pvalue)
    assert row.n == np.isfinite(age).sum()
    if len(chosen) == 2:
        p = stats.mannwhitneyu(*samples, use_continuity=False, method="asymptotic").pvalue
        assert_close(row.p_value, p)
    for name, values, levels in (("vendor", vendor, 3), ("sex", sex, 2)):
        if name == by:
            continue
        table = [[np.sum(values[own] == level) for level in range(levels)] for own in chosen]
        chi2 = stats.chi2_contingency(table, correction=False)
        row = rows["pooled", "difference_test", "", name]
        assert_close(row.estimate, chi2.statistic)
        assert_close(row.p_value, chi2.pvalue)


def test_one_group_has_nothing_to_compare() -> None:
    rows = pool(spec_of("all"), four_sites())
    for name in ("age", "sex", "vendor"):
        row = rows["pooled", "difference_test", "", name]
        assert row.status is RowStatus.NOT_APPLICABLE
        assert numbers(row) == (None,) * 5


def test_a_covariate_without_limits_has_a_mean_and_no_median() -> None:
    parts = four_sites()
    demo = plan((SPECS["descriptives"],))
    open_ended = tuple(
        c.model_copy(update={"minimum": None, "maximum": None}) if c.name == "age" else c
        for c in demo.covariates
    )
    subgroups = tuple(group for group in demo.subgroups if group.covariate != "age")
    rows = pool(spec_of("mace", "age"), parts, covariates=open_ended, subgroups=subgroups)
    assert ("pooled", "median", "event", "age") not in rows
    age = stacked(parts, "age")
    own = groups_of("mace", parts)["event"] & np.isfinite(age)
    assert_close(rows["pooled", "mean", "event", "age"].estimate, age[own].mean())
    # All values share one bin.
    row = rows["pooled", "difference_test", "", "age"]
    assert row.status is RowStatus.NOT_ESTIMABLE


def test_an_endpoints_landmark_decides_who_is_described() -> None:
    parts = four_sites()
    rows = pool(spec_of("late_mace", "age"), parts)
    followed = {
        site: exams.where(exams.column("follow_up_days") > 90) for site, exams in parts.items()
    }
    expected = pool(spec_of("mace", "age"), followed)
    assert rows.keys() == expected.keys()
    for key, row in rows.items():
        assert_same(row, expected[key])
    assert rows["pooled", "count", "event", ""].n < sum(exams.n for exams in parts.values())


# --- gaps -----------------------------------------------------------------------------------


def without_column(exams: Exams, name: str) -> Exams:
    columns = {key: values for key, values in exams.columns.items() if key != name}
    return Exams(columns=columns, keys=exams.keys, secret=exams.secret)


@pytest.mark.parametrize("name", ["age", "vendor", "sex"])
def test_a_covariate_that_a_site_lacks_is_missing_there(name: str) -> None:
    parts = four_sites()
    parts["s2"] = without_column(parts["s2"], name)
    rows = pool(SPECS["descriptives"], parts)
    values = stacked(parts, name)
    for label, own in groups_of("mace", parts).items():
        gap = rows["pooled", "count", label, f"{name}=missing"]
        assert (gap.estimate, gap.n) == (np.isnan(values[own]).sum(), own.sum())
        known = values[own & np.isfinite(values)]
        if name == "age":
            assert_close(rows["pooled", "mean", label, "age"].estimate, known.mean())
            assert_close(rows["pooled", "sd", label, "age"].estimate, known.std(ddof=1))
            median = rows["pooled", "median", label, "age"]
            assert abs(median.estimate - np.median(known)) <= BIN_WIDTH
            assert median.n == len(known)
        else:
            term, level = ("vendor=c", 2) if name == "vendor" else ("sex", 1)
            count = rows["pooled", "count", label, term]
            assert (count.estimate, count.n) == (np.sum(known == level), len(known))
    # What the site does hold is counted as before.
    other = "sex" if name == "age" else "age"
    whole = pool(SPECS["descriptives"], four_sites())
    for key, row in whole.items():
        if key[3].startswith(other):
            assert_same(rows[key], row)


def test_a_covariate_that_no_site_holds_has_no_numbers_but_its_gap() -> None:
    parts = {site: without_column(exams, "age") for site, exams in four_sites().items()}
    rows = pool(SPECS["descriptives"], parts)
    for label, own in groups_of("mace", parts).items():
        for measure in ("mean", "sd", "median", "quartile_low", "quartile_high"):
            row = rows["pooled", measure, label, "age"]
            assert row.status is not RowStatus.OK
            assert numbers(row) == (None,) * 5
        assert rows["pooled", "count", label, "age=missing"].estimate == own.sum()
    row = rows["pooled", "difference_test", "", "age"]
    assert row.status is RowStatus.NOT_ESTIMABLE


def test_a_patient_without_a_group_is_left_out() -> None:
    parts = four_sites()
    rows = pool(spec_of("vendor", "age"), parts)
    vendor = stacked(parts, "vendor")
    known = np.isfinite(vendor)
    assert 0 < known.sum() < len(vendor)
    for label, own in groups_of("vendor", parts).items():
        size = rows["pooled", "count", label, ""]
        assert (size.estimate, size.n) == (own.sum(), known.sum())


def test_a_value_that_is_no_group_is_an_error() -> None:
    exams = four_sites()["s0"]
    estimator = estimator_for("x", plan((spec_of("sex", "age"),)))
    for wrong in (2.0, 0.5, -1.0):
        with pytest.raises(ValueError, match="not the code of a group"):
            estimator.summarise(
                exams.with_column("sex", np.full(exams.n, wrong)), Query(step="counts")
            )
    with pytest.raises(QueryError):
        estimator.summarise(exams, Query(step="counts", values={"beta": (0.0,)}))


# --- gates ----------------------------------------------------------------------------------


def test_a_site_that_withholds_a_covariate_is_left_out_of_it_alone() -> None:
    parts = four_sites()

    def withhold(site: str, query: Query, answer: Any) -> Any:
        if site != "s1" or query.step != "counts":
            return answer
        # Group sizes, age, sex, vendor: the last is withheld in one group.
        starts, counts = (
            [list(groups) for groups in part] for part in (answer.starts, answer.counts)
        )
        starts[3][1], counts[3][1] = (), ()
        return answer.model_copy(
            update={
                "starts": tuple(map(tuple, starts)),
                "counts": tuple(map(tuple, counts)),
            }
        )

    rows = pool(SPECS["descriptives"], parts, change=withhold)
    whole = pool(SPECS["descriptives"], parts)
    others = pool(
        SPECS["descriptives"], {site: exams for site, exams in parts.items() if site != "s1"}
    )
    for key, row in rows.items():
        if key[3].startswith("vendor="):
            if key[2] == "no event" and key[3] == "vendor=missing":
                # Of this group the site gave all.
                assert_same(row, whole[key])
            else:
                assert_same(row, others[key])
        elif key[1:] == ("difference_test", "", "vendor"):
            assert_same(row, others[key])
        else:
            assert_same(row, whole[key])


def test_quartiles_from_merged_bins_stay_inside_the_bins() -> None:
    parts = four_sites()
    kept = (0, 40, 50, 55, 60, 70)

    def merge(site: str, query: Query, answer: Any) -> Any:
        if site != "s1" or query.step != "counts":
            return answer
        merged = tuple(
            tuple(np.add.reduceat(np.array(row), kept).tolist()) for row in answer.counts[1]
        )
        starts = (answer.starts[0], (kept,) * len(merged), *answer.starts[2:])
        counts = (answer.counts[0], merged, *answer.counts[2:])
        return answer.model_copy(update={"starts": starts, "counts": counts})

    rows = pool(SPECS["descriptives"], parts, change=merge)
    age = stacked(parts, "age")
    limits = np.append(AGE_EDGES[list(kept)], 120)
    samples = []
    for label, own in groups_of("mace", parts).items():
        values = age[own & np.isfinite(age)]
        samples.append(np.digitize(values, limits))
        for measure, share in (("quartile_low", 0.25), ("median", 0.5), ("quartile_high", 0.75)):
            row = rows["pooled", measure, label, "age"]
            place = np.digitize(np.quantile(values, share, method="inverted_cdf"), limits)
            assert limits[place - 1] <= row.estimate <= limits[place]
    expected = stats.kruskal(*samples)
    assert_close(rows["pooled", "difference_test", "", "age"].estimate, expected.statistic)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (RefusalCode.TOO_FEW_PATIENTS, RowStatus.SUPPRESSED),
        (RefusalCode.NOT_COMPUTABLE, RowStatus.NOT_APPLICABLE),
        (RefusalCode.INTERNAL, RowStatus.ERROR),
    ],
)
def test_where_all_sites_refuse_no_row_has_a_number(code: RefusalCode, status: RowStatus) -> None:
    rows = pool(SPECS["descriptives"], dict.fromkeys(SITES, code))
    assert {key[0] for key in rows} == {"pooled", *SITES}
    for row in rows.values():
        assert numbers(row) == (None,) * 5
        assert (row.status, row.n) == (status, None)


def test_where_one_site_refuses_the_others_are_pooled() -> None:
    parts: dict[str, Exams | RefusalCode] = dict(four_sites())
    others = {site: exams for site, exams in parts.items() if site != "s2"}
    expected = pool(SPECS["descriptives"], others)
    rows = pool(SPECS["descriptives"], {**parts, "s2": RefusalCode.TOO_FEW_PATIENTS})
    for key, row in expected.items():
        assert_same(rows[key], row)
    assert rows.keys() - expected.keys() == {("s2", "count", "", "")}
    assert rows["s2", "count", "", ""].status is RowStatus.SUPPRESSED


def test_a_subgroup_is_the_analysis_of_its_rows() -> None:
    parts = four_sites()
    women = {site: exams.where(exams.column("sex") == 1) for site, exams in parts.items()}
    rows = pool(SPECS["descriptives"].model_copy(update={"subgroup": "women"}), parts)
    expected = pool(SPECS["descriptives"], women)
    assert rows.keys() == expected.keys()
    for key, row in rows.items():
        assert_same(row, expected[key])


# --- group tests ----------------------------------------------------------------------------


@pytest.mark.parametrize("n_groups", [2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_kruskal_wallis_equals_scipys(seed: int, n_groups: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 6, (n_groups, 9))
    samples = [np.repeat(np.arange(9), row) for row in table]
    found = kruskal_wallis(table)
    assert found is not None
    expected = stats.kruskal(*samples)
    assert_close(found.chi2, expected.statistic)
    assert_close(found.p_value, expected.pvalue)
    # A group without patients is no group.
    padded = kruskal_wallis(np.vstack([table, np.zeros((1, 9), dtype=np.int64)]))
    assert padded == found


def test_kruskal_wallis_needs_two_groups_and_two_values() -> None:
    assert kruskal_wallis(np.array([[3, 4, 5]])) is None
    assert kruskal_wallis(np.array([[3, 4], [0, 0]])) is None
    assert kruskal_wallis(np.array([[3, 0], [4, 0]])) is None
    assert kruskal_wallis(np.zeros((2, 3), dtype=np.int64)) is None


@pytest.mark.parametrize("seed", range(5))
def test_pearsons_chi_square_equals_scipys(seed: int) -> None:
    table = np.random.default_rng(seed).integers(1, 30, (3, 4))
    expected = stats.chi2_contingency(table, correction=False)
    padded = np.zeros((4, 6), dtype=np.int64)
    padded[:3, 1:5] = table
    for counts in (table, padded):
        found = pearson_chi2(counts)
        assert found is not None
        assert_close(found.chi2, expected.statistic)
        assert_close(found.p_value, expected.pvalue)
        assert found.df == expected.dof


def test_pearsons_chi_square_needs_two_rows_and_two_columns() -> None:
    assert pearson_chi2(np.array([[3, 4], [0, 0]])) is None
    assert pearson_chi2(np.array([[3, 0], [4, 0]])) is None
    assert pearson_chi2(np.zeros((2, 2), dtype=np.int64)) is None


# --- quantiles ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        # Ten patients spread evenly over the first bin.
        ((10, 0, 0), 0.5, 5.0),
        ((10, 0, 0), 1.0, 10.0),
        ((10, 0, 0), 0.0, 0.0),
        # Empty bins before and after.
        ((0, 8, 0), 0.25, 12.5),
        ((0, 0, 4), 0.5, 30.0),
        # Half lies exactly on a limit.
        ((5, 5, 0), 0.5, 10.0),
        ((5, 0, 5), 0.5, 10.0),
        ((1, 0, 0), 0.5, 5.0),
        ((1, 1, 2), 0.75, 30.0),
        ((3, 3, 3), 1.0, 40.0),
    ],
)
def test_quantiles_of_binned_values(counts: tuple[int, ...], share: float, expected: float) -> None:
    edges = np.array([0.0, 10.0, 20.0, 40.0])
    found = binned_quantile(edges, np.array(counts), share)
    assert isinstance(found, float)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_quantiles_are_within_a_bin_of_those_of_the_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.gamma(2, 10, 301).clip(0, 99)
    edges = np.linspace(0, 100, 41)
    counts = np.histogram(values, edges)[0]
    previous = 0.0
    for share in np.linspace(0.01, 0.99, 50):
        found = binned_quantile(edges, counts, share)
        assert abs(found - np.quantile(values, share, method="inverted_cdf")) <= 2.5
        assert found >= previous
        previous = found
