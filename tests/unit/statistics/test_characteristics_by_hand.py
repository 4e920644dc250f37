"""Table 1 of a few patients by hand: every row, what is withheld, and where quantiles end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from driven import assert_close, numbers, pool
from plans import draw_exams, plan
from scipy import stats

from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.protocol import DescriptivesSpec
from fedcac.statistics import Estimate, estimator_for
from fedcac.vocabulary import CellStatus, RefusalCode, RowStatus

NAN = np.nan
EVENTS = ("no event", "event")


def spec(by: str, *covariates: str, **changes: Any) -> DescriptivesSpec:
    return DescriptivesSpec(id="x", kind="descriptives", by=by, covariates=covariates, **changes)


# Eight patients without an event and seven with one.
EVENT = np.array([0.0] * 8 + [1.0] * 7)
AGE = np.array([40, 50, 55, 60, 60, 70, NAN, NAN, 50, 61, 62, 70, 81, 90, NAN])
SEX = np.array([0, 1, 0, 1, 1, 1, 0, NAN, 1, 0, 0, 0, 1, 0, 0])
VENDOR = np.array([0, 0, 1, 2, NAN, NAN, 1, 1, 2, 2, 2, 0, 1, NAN, 2])


def patients(chosen: slice = slice(None), prefix: str = "k") -> Exams:
    columns = {"event": EVENT, "age": AGE, "sex": SEX, "vendor": VENDOR}
    own = {name: values[chosen].astype(float) for name, values in columns.items()}
    return draw_exams(3, len(own["event"]), prefix, **own)


PARTS = {"a": patients(slice(0, None, 2), "a"), "b": patients(slice(1, None, 2), "b")}


def given(rows: Any, measure: str, group: str, term: str = "") -> tuple[float | None, int | None]:
    row = rows["pooled", measure, group, term]
    assert row.status is RowStatus.OK
    assert (row.se, row.ci_low, row.ci_high, row.ci_method) == (None, None, None, "")
    return row.estimate, row.n


def absent(row: Estimate) -> tuple[str, int | None]:
    assert numbers(row) == (None,) * 5
    return row.status.value, row.n


@pytest.mark.parametrize("parts", [PARTS, {"a": patients()}], ids=["two_sites", "one_site"])
def test_every_row_of_a_small_table(parts: dict[str, Exams]) -> None:
    rows = pool(spec("mace", "age", "sex", "vendor"), parts)
    assert given(rows, "count", "no event") == (8, 15)
    assert given(rows, "count", "event") == (7, 15)
    # Of the patients whose value is known.
    expected = {
        ("no event", "sex"): (4, 7),
        ("event", "sex"): (2, 7),
        ("no event", "vendor=a"): (2, 6),
        ("no event", "vendor=b"): (3, 6),
        ("no event", "vendor=c"): (1, 6),
        ("event", "vendor=a"): (1, 6),
        ("event", "vendor=b"): (1, 6),
        ("event", "vendor=c"): (4, 6),
    }
    for (group, term), (count, n) in expected.items():
        assert given(rows, "count", group, term) == (count, n)
        assert given(rows, "proportion", group, term) == (count / n, n)
    missing = {"age": (2, 1), "sex": (1, 0), "vendor": (2, 1)}
    for name, counts in missing.items():
        for group, count, n in zip(EVENTS, counts, (8, 7), strict=True):
            assert given(rows, "count", group, f"{name}=missing") == (count, n)
    ages = [own[np.isfinite(own)] for own in (AGE[:8], AGE[8:])]
    for group, own in zip(EVENTS, ages, strict=True):
        for measure, value in (("mean", own.mean()), ("sd", own.std(ddof=1))):
            found, n = given(rows, measure, group, "age")
            assert_close(found, value, 1e-12)
            assert n == 6
    tests = {
        "age": stats.kruskal(*ages),
        "sex": stats.chi2_contingency([[3, 4], [5, 2]], correction=False),
        "vendor": stats.chi2_contingency([[2, 3, 1], [1, 1, 4]], correction=False),
    }
    for name, test in tests.items():
        row = rows["pooled", "difference_test", "", name]
        assert_close(row.estimate, test.statistic, 1e-9)
        assert_close(row.p_value, test.pvalue, 1e-9)
        assert row.n == (14 if name == "sex" else 12)
    quartiles = [key for key in rows if key[1] in ("median", "quartile_low", "quartile_high")]
    assert len(quartiles) == 6
    assert len(rows) == 2 + 16 + 6 + 4 + 3 + 6
    assert [key[3] for key in rows if key[1] == "difference_test"] == ["age", "sex", "vendor"]


# --- quantiles --------------------------------------------------------------------------------

WIDTH = (120 - 18) / 127


def upper(k: int) -> float:
    """Return where bin k of the plan's age ends: the first holds 18 alone."""
    return 18 + k * WIDTH


def test_quantiles_are_read_between_the_limits_of_their_bins() -> None:
    # One in bin 20, four in bin 40, two in bin 100, all in the middle of their bins.
    age = np.repeat([upper(20), upper(40), upper(100)], (1, 4, 2)) - WIDTH / 2
    rows = pool(spec("all", "age"), {"a": draw_exams(3, 7, age=age)})
    # The value below which 1.75, 3.5 and 5.25 of seven patients lie.
    for measure, place in (
        ("quartile_low", upper(39) + WIDTH * 0.75 / 4),
        ("median", upper(39) + WIDTH * 2.5 / 4),
        ("quartile_high", upper(99) + WIDTH * 0.25 / 2),
    ):
        found, n = given(rows, measure, "all", "age")
        assert_close(found, place, 1e-9)
        assert n == 7


def merging(kept: Sequence[int], *others: Sequence[int]) -> Any:
    """Return a gate that gives the first covariate on these bins, each group on its own."""

    def change(_: str, query: Query, answer: Any) -> Any:
        if query.step != "counts":
            return answer
        starts = (tuple(kept), *(tuple(other) for other in others))
        starts = starts if others else starts * len(answer.starts[1])
        counts = tuple(
            tuple(np.add.reduceat(np.array(row), own).tolist())
            for row, own in zip(answer.counts[1], starts, strict=True)
        )
        return answer.model_copy(
            update={
                "starts": (answer.starts[0], starts, *answer.starts[2:]),
                "counts": (answer.counts[0], counts, *answer.counts[2:]),
            }
        )

    return change


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ((0, 110, 118), (119.0 - 10 * WIDTH / 2, 20)),
        ((0, 110, 117), None),
        ((0, 10), None),
        ((0,), None),
    ],
)
def test_a_median_in_a_bin_merged_from_more_than_ten_is_withheld(
    kept: tuple[int, ...], expected: tuple[float, int] | None
) -> None:
    exams = draw_exams(3, 20, age=np.full(20, 119.9))
    rows = pool(spec("all", "age"), {"a": exams}, change=merging(kept))
    for measure, share in (("quartile_low", 0.25), ("median", 0.5), ("quartile_high", 0.75)):
        row = rows["pooled", measure, "all", "age"]
        if expected is None:
            assert absent(row) == ("suppressed", None)
        else:
            # The last ten bins end at the protocol's maximum.
            assert_close(row.estimate, 120 - 10 * WIDTH * (1 - share), 1e-9)
            assert row.n == 20
    # The mean does not come from the bins.
    assert_close(rows["pooled", "mean", "all", "age"].estimate, 119.9, 1e-12)


def test_a_median_in_the_middle_of_ten_bins_and_of_eleven() -> None:
    exams = draw_exams(3, 20, age=np.full(20, 60.0))
    for last, is_shown in ((60, True), (61, False)):
        rows = pool(spec("all", "age"), {"a": exams}, change=merging((0, 50, last)))
        row = rows["pooled", "median", "all", "age"]
        if is_shown:
            assert_close(row.estimate, (upper(49) + upper(59)) / 2, 1e-9)
        else:
            assert absent(row) == ("suppressed", None)


def test_groups_on_different_bins_are_compared_on_those_they_share() -> None:
    first, second = (0, 30, 45, 60, 70), (0, 45, 50, 60)
    rows = pool(spec("mace", "age"), {"a": patients()}, change=merging(first, second))
    shared = np.append([upper(k - 1) for k in (45, 60)], np.inf)
    table = [np.digitize(own[np.isfinite(own)], shared) for own in (AGE[:8], AGE[8:])]
    expected = stats.kruskal(*table)
    row = rows["pooled", "difference_test", "", "age"]
    assert_close(row.estimate, expected.statistic, 1e-9)
    assert_close(row.p_value, expected.pvalue, 1e-9)
    assert row.n == 12


# --- what is withheld -------------------------------------------------------------------------


def cells(names: dict[tuple[int, int], tuple[tuple[int, ...], tuple[int, ...]]]) -> Any:
    """Return a gate of site b that puts other bins in place of (variable, group)."""

    def change(name: str, query: Query, answer: Any) -> Any:
        if name != "b" or query.step != "counts":
            return answer
        starts, counts = ([list(own) for own in part] for part in (answer.starts, answer.counts))
        for (variable, group), (firsts, row) in names.items():
            starts[variable][group], counts[variable][group] = firsts, row
        return answer.model_copy(
            update={"starts": tuple(map(tuple, starts)), "counts": tuple(map(tuple, counts))}
        )

    return change


@pytest.mark.parametrize("sizes", [((), ()), ((0,), (7,))], ids=["withheld", "merged"])
def test_sizes_that_a_site_withholds(sizes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    gate, about = cells({(0, 0): sizes}), spec("mace", "sex")
    rows, alone = pool(about, PARTS, change=gate), pool(about, {"a": PARTS["a"]})
    whole = pool(about, PARTS)
    for key, row in rows.items():
        # The gaps are what is left of the size.
        is_of_size = key[1] == "count" and key[3] in ("", "sex=missing")
        assert row == (alone if is_of_size else whole)[key]
    none = pool(about, {"b": PARTS["b"]}, change=gate)
    for key, row in none.items():
        if key[1] == "count" and key[3] in ("", "sex=missing"):
            assert absent(row) == ("suppressed", None)
        else:
            assert row.status is RowStatus.OK


def test_levels_that_a_site_merges_are_withheld_with_what_they_stand_for() -> None:
    about = spec("mace", "vendor")
    gate = cells({(1, 0): ((0, 2), (2, 0)), (1, 1): ((0, 2), (2, 2))})
    rows = pool(about, PARTS, change=gate)
    for key, row in rows.items():
        if key[3].startswith("vendor=") and key[3] != "vendor=missing":
            assert absent(row) == ("suppressed", None)
    assert absent(rows["pooled", "difference_test", "", "vendor"])[0] == "suppressed"
    # All of a group that is given adds up, merged or not.
    assert given(rows, "count", "no event", "vendor=missing")[1] == 8


def test_a_group_that_one_site_withholds_leaves_the_site_out_of_the_variable() -> None:
    about = spec("mace", "sex", "age")
    rows = pool(about, PARTS, change=cells({(1, 1): ((), ())}))
    alone, whole = pool(about, {"a": PARTS["a"]}), pool(about, PARTS)
    for key, row in rows.items():
        is_left = "sex" in key[3] and key[2:] != ("no event", "sex=missing")
        assert row == (alone if is_left else whole)[key], key
    none = pool(about, {"b": PARTS["b"]}, change=cells({(1, 1): ((), ())}))
    for key, row in none.items():
        if "sex" in key[3] and key[2:] != ("no event", "sex=missing"):
            assert absent(row) == ("suppressed", None)
    row = rows["pooled", "difference_test", "", "sex"]
    assert row.n == 8


@pytest.mark.parametrize("name", ["n", "mean", "m2"])
def test_a_withheld_moment_leaves_the_site_out_of_its_group(name: str) -> None:
    def withhold(site: str, query: Query, answer: Any) -> Any:
        if site != "b" or query.step != "moments":
            return answer
        others = getattr(answer, name)[1:]
        return answer.model_copy(update={name: (CellStatus.SUPPRESSED, *others)})

    about = spec("mace", "age")
    rows, whole = pool(about, PARTS, change=withhold), pool(about, PARTS)
    alone = pool(about, {"a": PARTS["a"]})
    for key, row in rows.items():
        is_left = key[1] in ("mean", "sd") and key[2] == "no event"
        assert row == (alone if is_left else whole)[key]
    none = pool(about, {"b": PARTS["b"]}, change=withhold)
    assert absent(none["pooled", "mean", "no event", "age"]) == ("suppressed", None)
    assert none["pooled", "mean", "event", "age"].status is RowStatus.OK


# --- small and empty groups -------------------------------------------------------------------


def test_groups_of_one_and_of_nobody() -> None:
    exams = draw_exams(
        3, 5, vendor=np.array([0.0, 0, 0, 0, 1]), age=np.array([50.0, 60, 70, 80, 64])
    )
    rows = pool(spec("vendor", "age", "sex"), {"a": exams})
    assert given(rows, "mean", "b", "age") == (64.0, 1)
    assert absent(rows["pooled", "sd", "b", "age"]) == ("not_estimable", 1)
    assert given(rows, "median", "b", "age")[1] == 1
    for measure in ("mean", "sd", "median"):
        assert absent(rows["pooled", measure, "c", "age"]) == ("not_estimable", 0)
    assert given(rows, "count", "c") == (0, 5)
    assert given(rows, "count", "c", "sex") == (0, 0)
    assert absent(rows["pooled", "proportion", "c", "sex"]) == ("not_estimable", 0)
    # Two ranks apart: 1, 2, 4, 5 against 3.
    row = rows["pooled", "difference_test", "", "age"]
    assert_close(row.estimate, 0.0, 1e-12)
    assert_close(row.p_value, 1.0, 1e-12)
    assert row.n == 5


def test_one_group_has_nothing_to_be_compared_with() -> None:
    rows = pool(spec("all", "age", "sex"), PARTS)
    for name, n in (("age", 12), ("sex", 14)):
        row = rows["pooled", "difference_test", "", name]
        assert absent(row) == ("not_applicable", n)


def test_without_a_continuous_covariate_nothing_is_asked_twice() -> None:
    released: list[list[Any]] = []
    pool(spec("mace", "sex", "vendor"), PARTS, released)
    assert len(released) == 1
    released.clear()
    pool(spec("mace", "sex", "age"), PARTS, released)
    assert len(released) == 2


def test_refusals_of_one_exchange_and_of_all() -> None:
    about = spec("mace", "age", "sex")

    def no_moments(_: str, query: Query, answer: Any) -> Any:
        return RefusalCode.BUDGET_SPENT if query.step == "moments" else answer

    whole, rows = pool(about, PARTS), pool(about, PARTS, change=no_moments)
    for key, row in rows.items():
        if key[1] in ("mean", "sd"):
            assert absent(row) == ("suppressed", None)
        else:
            assert row == whole[key]
    none = pool(about, {"a": RefusalCode.INTERNAL, "b": RefusalCode.EMPTY_COHORT})
    statuses = {key[0]: row.status.value for key, row in none.items()}
    assert statuses == {"pooled": "error", "a": "error", "b": "not_applicable"}
    assert {row.n for row in none.values()} == {None}


# --- what a site tells its gate ---------------------------------------------------------------


def test_the_counts_and_moments_of_a_site() -> None:
    estimator = estimator_for("x", plan((spec("mace", "age", "vendor", "sex"),)))
    found = estimator.summarise(patients(), Query(step="counts"))
    assert (found.n_patients, found.starts[0], found.counts[0]) == (15, ((0, 1),), ((8, 7),))
    assert found.counts[2] == ((2, 3, 1), (1, 1, 4))
    assert found.counts[3] == ((3, 4), (5, 2))
    assert found.starts[2:] == (((0, 1, 2),) * 2, ((0, 1),) * 2)
    assert found.starts[1] == (tuple(range(128)),) * 2
    assert [sum(row) for row in found.counts[1]] == [6, 6]
    assert found.evidence.nested == ((8, 7), (6, 6), (6, 6), (7, 7))
    found = estimator.summarise(patients(), Query(step="moments"))
    assert (found.n_patients, found.n) == (15, (6, 6))
    np.testing.assert_allclose(found.mean, [np.nanmean(AGE[:8]), np.nanmean(AGE[8:])])
    np.testing.assert_allclose(found.m2, [6 * np.nanvar(AGE[:8]), 6 * np.nanvar(AGE[8:])])
    assert found.evidence.row_blocks == (0, 1)
    assert found.evidence.block_sizes == (8, 7)
    two = estimator_for("x", plan((spec("sex", "age", "risk"),)))
    found = two.summarise(patients(), Query(step="moments"))
    assert found.evidence.row_blocks == (0, 1, 0, 1)
    # The patient without a sex is in neither group.
    assert found.evidence.block_sizes == (8, 6)
    assert found.n == (6, 6, 8, 6)
