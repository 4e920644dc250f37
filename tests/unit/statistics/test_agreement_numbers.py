"""Kappas of few, of refused and of uniform sites, against statsmodels and sums by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from driven import Rows, assert_close, numbers, pool
from numpy.typing import NDArray
from plans import SPECS, draw_exams, plan
from scipy import stats
from statsmodels.stats.contingency_tables import SquareTable
from statsmodels.stats.inter_rater import cohens_kappa

from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.protocol import CategoryScheme
from fedcac.statistics import estimator_for
from fedcac.statistics.confusion import (
    ConfusionCounts,
    common_cut_offs,
    confusion_answers,
    count_matrix,
    matrix_on,
    merged_labels,
)
from fedcac.statistics.kappa import cohen_kappa
from fedcac.vocabulary import CellStatus, KappaWeights, RefusalCode, RowStatus, SiteName

Counts = NDArray[np.int64]

SCORES = np.array([0.0, 5.0, 50.0, 200.0, 900.0])
KAPPAS = tuple(f"kappa_{weights.value}" for weights in KappaWeights)
MARGINS = ("stuart_maxwell_chi2", "bhapkar_chi2")
BETWEEN = ("q", "i2", "tau2", "tau2_reml", "prediction_interval")


def table(seed: int, n: int = 120) -> Counts:
    """Return a full 5x5 table in which neighbours are confused more often than others."""
    rng = np.random.default_rng(seed)
    distance = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    share = np.exp(-distance * rng.uniform(0.8, 1.6)) * rng.uniform(0.5, 1.5, (5, 5))
    return np.asarray(rng.multinomial(n, (share / share.sum()).ravel()).reshape(5, 5))


def loose(seed: int, n: int) -> Counts:
    """Return a table of two readers who hardly agree more often than by chance."""
    share = np.full((5, 5), 1.0) + 0.3 * np.eye(5)
    drawn = np.random.default_rng(seed).multinomial(n, (share / share.sum()).ravel())
    return np.asarray(drawn.reshape(5, 5))


def exams_of(counts: Counts, seed: int = 1) -> Exams:
    """Return patients with these counts, rows = reference."""
    reference, index = np.indices(counts.shape)
    columns = {
        "reference_score": SCORES[np.repeat(reference, counts.ravel())],
        "index_score": SCORES[np.repeat(index, counts.ravel())],
    }
    return draw_exams(seed, int(counts.sum()), f"{seed}-", **columns)


def agree(**parts: Counts | RefusalCode) -> Rows:
    return pool(
        SPECS["agreement"],
        {
            site: part if isinstance(part, RefusalCode) else exams_of(part, seed)
            for seed, (site, part) in enumerate(parts.items())
        },
    )


def uniform(category: int, n: int = 20) -> Counts:
    counts = np.zeros((5, 5), dtype=np.int64)
    counts[category, category] = n
    return counts


# --- one table ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weights", list(KappaWeights))
def test_kappa_and_both_standard_errors_are_those_of_statsmodels(
    weights: KappaWeights, seed: int
) -> None:
    counts = table(seed, 60 + 100 * seed)
    wt = None if weights is KappaWeights.UNWEIGHTED else weights.value
    expected = cohens_kappa(counts, wt=wt)
    kappa = cohen_kappa(counts, weights)
    assert kappa is not None
    assert_close(kappa.estimate, expected.kappa, 1e-12)
    assert_close(kappa.se, expected.std_kappa, 1e-12)
    assert_close(kappa.se0, expected.std_kappa0, 1e-12)
    assert kappa.n == counts.sum()


@pytest.mark.parametrize("weights", list(KappaWeights))
def test_perfect_agreement_has_no_standard_error_whatever_the_counts(
    weights: KappaWeights,
) -> None:
    """The variance is a difference that is 0: what rounding leaves of it is no error."""
    rng = np.random.default_rng(7)
    for _ in range(60):
        kappa = cohen_kappa(np.diag(rng.integers(1, 90, 5)), weights)
        assert kappa is not None
        assert kappa.estimate == pytest.approx(1, abs=1e-12)
        assert kappa.se == 0
        assert kappa.se0 > 0


# --- between sites --------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [table, loose])
def test_the_mean_of_two_kappas_by_hand(draw: Callable[[int, int], Counts]) -> None:
    tables = {"a": draw(1, 120), "b": draw(2, 300)}
    rows = agree(**tables)
    for name, wt in zip(KAPPAS, (None, "linear", "quadratic"), strict=True):
        own = [cohens_kappa(counts, wt=wt) for counts in tables.values()]
        w = np.array([1 / kappa.var_kappa for kappa in own])
        mean = np.average([kappa.kappa for kappa in own], weights=w)
        se, row = w.sum() ** -0.5, rows["meta", name, "", ""]
        assert_close(row.estimate, mean)
        assert_close(row.se, se)
        half = stats.norm.ppf(0.975) * se
        assert_close(row.ci_low, mean - half)
        assert_close(row.ci_high, mean + half)
        # Under no agreement each kappa has the other variance, and the same weight.
        se0 = np.sqrt(sum((w / w.sum()) ** 2 * [kappa.var_kappa0 for kappa in own]))
        assert_close(row.p_value, 2 * stats.norm.sf(abs(mean) / se0))
        assert draw is table or row.p_value > 0.001
        assert (row.n, row.ci_method) == (420, "fleiss1969")


def test_two_sites_do_not_say_how_sites_differ() -> None:
    measures = {key[1] for key in agree(a=table(1), b=table(2))}
    assert measures == {"count", *KAPPAS, *MARGINS}


def test_three_sites_of_which_one_refused_are_too_few_to_differ() -> None:
    rows = agree(a=table(1), b=RefusalCode.TOO_FEW_PATIENTS, c=table(3, 200))
    two = agree(a=table(1), c=table(3, 200))
    for name in KAPPAS:
        for what in BETWEEN:
            row = rows["meta", what, name, ""]
            assert (row.status, row.n) == (RowStatus.NOT_ESTIMABLE, 320)
        assert numbers(rows["meta", name, "", ""]) == numbers(two["meta", name, "", ""])
        assert rows["b", name, "", ""].status is RowStatus.SUPPRESSED
    # A site left out of two would leave the other one's own row.
    assert not [key for key in rows if key[2].startswith("without")]
    for name in MARGINS:
        assert rows["b", name, "", ""].status is RowStatus.SUPPRESSED
        for site, counts in (("a", table(1)), ("c", table(3, 200))):
            test = SquareTable(counts, shift_zeros=False).homogeneity(method=name[:-5])
            assert_close(rows[site, name, "", ""].estimate, test.statistic)
            assert_close(rows[site, name, "", ""].p_value, test.pvalue)


def test_without_each_site_the_kappa_is_that_of_the_other_tables() -> None:
    tables = {site: table(seed) for seed, site in enumerate("abc")}
    rows = agree(**tables, d=RefusalCode.BUDGET_SPENT)
    for site in tables:
        rest = sum(counts for other, counts in tables.items() if other != site)
        expected = cohens_kappa(rest, wt="linear")
        row = rows["pooled", "kappa_linear", f"without {site}", ""]
        assert_close(row.estimate, expected.kappa)
        assert_close(row.se, expected.std_kappa)
        assert row.n == 240
    own = [cohens_kappa(counts, wt="linear") for counts in tables.values()]
    kappas, w = np.array([(kappa.kappa, 1 / kappa.var_kappa) for kappa in own]).T
    q = float((w * (kappas - np.average(kappas, weights=w)) ** 2).sum())
    assert_close(rows["meta", "q", "kappa_linear", ""].estimate, q)
    assert rows["meta", "q", "kappa_linear", ""].n == 360
    groups = {key[2] for key in rows if key[2].startswith("without")}
    assert groups == {"without a", "without b", "without c"}


@pytest.mark.parametrize(
    ("codes", "status"),
    [
        ((RefusalCode.TOO_FEW_PATIENTS, RefusalCode.INTERNAL), RowStatus.SUPPRESSED),
        ((RefusalCode.INTERNAL, RefusalCode.NO_REPLY), RowStatus.ERROR),
    ],
)
def test_where_all_sites_refuse_the_mean_has_their_status(
    codes: tuple[RefusalCode, ...], status: RowStatus
) -> None:
    rows = agree(a=codes[0], b=codes[1])
    for name in KAPPAS:
        assert rows["meta", name, "", ""].status is rows["pooled", name, "", ""].status is status
    for name in MARGINS:
        assert rows["pooled", name, "", ""].status is status


def test_sites_of_one_category_each_have_no_kappa_and_together_a_perfect_one() -> None:
    rows = agree(a=uniform(0), b=uniform(3, 30))
    for name in KAPPAS:
        for scope, n in (("a", 20), ("b", 30)):
            row = rows[scope, name, "", ""]
            assert (row.status, row.n) == (RowStatus.NOT_ESTIMABLE, n)
        assert numbers(rows["pooled", name, "", ""])[:4] == (1, None, None, None)
        assert rows["meta", name, "", ""].status is RowStatus.NOT_ESTIMABLE


def test_a_site_that_agrees_perfectly_would_take_all_the_weight() -> None:
    perfect = np.diag([12, 9, 8, 6, 5])
    row = agree(a=perfect, b=table(2))["meta", "kappa_linear", "", ""]
    assert (row.status, numbers(row)) == (RowStatus.NOT_ESTIMABLE, (None,) * 5)


# --- counts ---------------------------------------------------------------------------------


def test_the_two_by_two_tables_are_those_above_each_cut_off() -> None:
    counts, spec = table(5), SPECS["agreement"]
    released: list[list[Any]] = []
    pool(spec, {"a": exams_of(counts)}, released)
    answer = released[0][0]
    np.testing.assert_array_equal(answer.matrix, counts)
    for first, (tp, fn, fp, tn) in enumerate(answer.two_by_two, start=1):
        assert tp == sum(counts[i, j] for i in range(first, 5) for j in range(first, 5))
        assert fn == sum(counts[i, j] for i in range(first, 5) for j in range(first))
        assert fp == sum(counts[i, j] for i in range(first) for j in range(first, 5))
        assert tn == sum(counts[i, j] for i in range(first) for j in range(first))


# --- merged categories ----------------------------------------------------------------------

HIDDEN = ((CellStatus.SUPPRESSED,) * 5,) * 5
EVERYTHING = ((CellStatus.SUPPRESSED,) * 2,) * 2
TERM = "0-100 | >100"


def merging(**kept: tuple[int, ...]) -> Callable[[str, Any, Any], Any]:
    """Return a gate that shows of a site's table the categories between these cut-offs."""

    def gate(site: str, _: Any, answer: Any) -> Any:
        if site not in kept:
            return answer
        full = np.array(answer.matrix)
        starts = [0, *(cut + 1 for cut in kept[site])]
        part = np.add.reduceat(np.add.reduceat(full, starts, axis=0), starts, axis=1)
        collapsed = tuple(map(tuple, part.tolist())) if kept[site] else ()
        shown = {"matrix": HIDDEN, "kept_cut_offs": kept[site], "collapsed": collapsed}
        return answer.model_copy(update=shown)

    return gate


def test_sites_whose_merged_categories_share_no_cut_off_are_not_put_together() -> None:
    parts = {"a": exams_of(table(1), 1), "b": exams_of(table(2), 2)}
    rows = pool(SPECS["agreement"], parts, change=merging(a=(0,), b=(3,)))
    assert {key[3] for key in rows if key[1] != "count"} == {""}
    for name in (*KAPPAS, *MARGINS):
        assert rows["pooled", name, "", ""].status is RowStatus.SUPPRESSED


def test_a_site_that_shows_no_table_beside_one_that_merged() -> None:
    parts = {site: exams_of(table(seed), seed) for seed, site in enumerate("abc")}
    rows = pool(SPECS["agreement"], parts, change=merging(a=(), b=(2,)))
    alone = pool(SPECS["agreement"], {s: parts[s] for s in "bc"}, change=merging(b=(2,)))
    for name in (*KAPPAS, *MARGINS):
        assert rows["a", name, "", ""].status is RowStatus.SUPPRESSED
        assert rows["a", name, "", TERM].status is RowStatus.SUPPRESSED
        assert rows["pooled", name, "", TERM] == alone["pooled", name, "", TERM]
    both = table(1) + table(2)
    high, low = slice(3, None), slice(3)
    expected = cohens_kappa([[both[i, j].sum() for j in (low, high)] for i in (low, high)])
    assert_close(rows["pooled", "kappa_unweighted", "", TERM].estimate, expected.kappa)
    assert_close(rows["pooled", "kappa_unweighted", "", TERM].se, expected.std_kappa)


def test_kappas_on_merged_categories_that_do_not_exist_say_on_which() -> None:
    parts = {"a": exams_of(uniform(0), 1), "b": exams_of(uniform(4), 2)}
    rows = pool(SPECS["agreement"], parts, change=merging(b=(2,)))
    for name in KAPPAS:
        for scope in ("a", "b", "meta"):
            row = rows[scope, name, "", TERM]
            assert (row.status, numbers(row)) == (RowStatus.NOT_ESTIMABLE, (None,) * 5)
        assert rows["pooled", name, "", TERM].estimate == 1
        assert rows["meta", name, "", ""].status is RowStatus.NOT_ESTIMABLE


def whole(counts: Counts) -> ConfusionCounts:
    size = len(counts)
    return ConfusionCounts(
        n_patients=int(counts.sum()),
        matrix=tuple(map(tuple, counts.tolist())),
        two_by_two=((1, 1, 1, 1),) * (size - 1),
    )


def test_answers_are_of_the_kind_and_the_size_that_was_asked() -> None:
    scheme = plan((SPECS["agreement"],)).categories
    moments = estimator_for("x", plan((SPECS["correlation"],))).summarise(
        exams_of(table(1)), Query(step="moments")
    )
    given = {
        SiteName("good"): whole(table(1)),
        SiteName("small"): whole(table(1)[:4, :4]),
        SiteName("other"): moments,
        SiteName("refused"): RefusalCode.BUDGET_SPENT,
    }
    assert confusion_answers(given, tuple(given), scheme) == {
        "good": given[SiteName("good")],
        "small": RefusalCode.INTERNAL,
        "other": RefusalCode.INTERNAL,
        "refused": RefusalCode.BUDGET_SPENT,
    }


def test_one_withheld_cell_withholds_the_table() -> None:
    rows = ((1, 2), (CellStatus.SUPPRESSED, 4))
    assert count_matrix(rows) is None
    assert count_matrix(()) is None
    np.testing.assert_array_equal(count_matrix(((1, 2), (3, 4))), [[1, 2], [3, 4]])
    shown = {"matrix": HIDDEN, "kept_cut_offs": (2,), "collapsed": EVERYTHING}
    hidden = whole(table(1)).model_copy(update=shown)
    assert matrix_on(hidden, (2,)) is None
    assert common_cut_offs([hidden]) == ()


def test_cut_offs_that_all_sites_kept_are_in_order() -> None:
    collapsed = ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    hidden = ((CellStatus.SUPPRESSED,) * 10,) * 10
    shown = {"matrix": hidden, "kept_cut_offs": (1, 8), "collapsed": collapsed}
    answer = whole(np.ones((10, 10), dtype=np.int64)).model_copy(update=shown)
    assert common_cut_offs([answer]) == (1, 8)
    np.testing.assert_array_equal(matrix_on(answer, (8,)), [[12, 9], [15, 9]])


def test_a_cut_off_just_above_1_is_strict_and_named_so() -> None:
    scheme = CategoryScheme(cut_offs=(1.0, 1.5, 100.0), labels=("0", "1", "2-100", ">100"))
    assert scheme.categorise(np.array([1.5, 1.6])).tolist() == [1, 2]
    assert merged_labels(scheme, (1,)) == ("0-1.5", ">1.5")
