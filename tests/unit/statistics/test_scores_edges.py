"""Analyses of scores at the edges: merged categories, one patient in a class, all alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from driven import Rows, assert_close, numbers, pool
from numpy.typing import NDArray
from plans import SPECS, draw_exams
from scipy import stats
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from fedcac.aggregate import CrossTable
from fedcac.exams import Exams
from fedcac.protocol import AccuracySpec, AucSpec, CategoryScheme, CorrelationSpec
from fedcac.statistics.confusion import (
    ConfusionCounts,
    common_cut_offs,
    matrix_on,
    merged_labels,
)
from fedcac.statistics.correlation import CoMoments, ccc, icc, pearson
from fedcac.statistics.delong import auc_of_values, pair_sums, paired_auc
from fedcac.statistics.paired_counts import bhapkar, mcnemar_exact, ratio_difference, stuart_maxwell
from fedcac.vocabulary import BoundaryConvention, CellStatus, RefusalCode, RowStatus

Vector = NDArray[np.float64]
DATA = Path(__file__).parents[2] / "oracle" / "data"
HIDDEN = CellStatus.SUPPRESSED
SCORES = np.array([0.0, 5.0, 50.0, 250.0, 800.0])
"""One score inside each of the categories 0 | 1-10 | 11-100 | 101-400 | >400."""


def exams_of(matrix: Any, seed: int = 1) -> Exams:
    """Return patients with these counts by reference (rows) and index category (columns)."""
    table = np.array(matrix)
    rows, columns = (np.repeat(where.ravel(), table.ravel()) for where in np.indices(table.shape))
    scores = {"reference_score": SCORES[rows], "index_score": SCORES[columns]}
    return draw_exams(seed, len(rows), f"{seed}-", **scores)


def table(seed: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    return rng.integers(1, 6, (5, 5)) + 12 * np.eye(5, dtype=np.int64)


# --- categories that a gate merged ----------------------------------------------------------


def merge(answer: Any, kept: tuple[int, ...]) -> Any:
    starts = [0, *(cut + 1 for cut in kept)]
    full = np.array(answer.matrix)
    part = np.add.reduceat(np.add.reduceat(full, starts, axis=0), starts, axis=1)
    return answer.model_copy(
        update={
            "matrix": ((HIDDEN,) * 5,) * 5,
            "collapsed": tuple(map(tuple, part.tolist())),
            "kept_cut_offs": kept,
        }
    )


def counts(seed: int, kept: tuple[int, ...] | None = None) -> ConfusionCounts:
    matrix = tuple(map(tuple, table(seed).tolist()))
    whole = ConfusionCounts(n_patients=1, matrix=matrix, two_by_two=((1, 1, 1, 1),) * 4)
    return whole if kept is None else merge(whole, kept)


def test_cut_offs_that_all_sites_kept() -> None:
    hidden = counts(1).model_copy(update={"matrix": ((HIDDEN,) * 5,) * 5})
    assert common_cut_offs([counts(1)]) == (0, 1, 2, 3)
    assert common_cut_offs([counts(1), counts(2, (0, 2, 3)), counts(3, (1, 2))]) == (2,)
    assert common_cut_offs([counts(1, (0,)), counts(2, (3,))]) == ()
    # Who gave nothing takes nothing away.
    assert common_cut_offs([counts(1, (0, 2)), hidden, RefusalCode.NO_REPLY]) == (0, 2)
    assert common_cut_offs([hidden, RefusalCode.NO_REPLY]) == ()


def test_a_matrix_on_fewer_cut_offs() -> None:
    full = table(1)
    by_hand = [
        [full[:1, :1].sum(), full[:1, 1:3].sum(), full[:1, 3:].sum()],
        [full[1:3, :1].sum(), full[1:3, 1:3].sum(), full[1:3, 3:].sum()],
        [full[3:, :1].sum(), full[3:, 1:3].sum(), full[3:, 3:].sum()],
    ]
    np.testing.assert_array_equal(matrix_on(counts(1), (0, 2)), by_hand)
    np.testing.assert_array_equal(matrix_on(counts(1, (0, 2, 3)), (0, 2)), by_hand)
    assert matrix_on(counts(1, (0, 3)), (0, 2)) is None
    assert matrix_on(RefusalCode.NO_REPLY, (0,)) is None
    hidden = counts(1).model_copy(update={"matrix": ((HIDDEN,) * 5,) * 5})
    assert matrix_on(hidden, (0,)) is None


@pytest.mark.parametrize(
    ("convention", "kept", "labels"),
    [
        (BoundaryConvention.UPPER_INCLUSIVE, (2,), ("0-100", ">100")),
        (BoundaryConvention.UPPER_INCLUSIVE, (0, 2), ("0", "1-100", ">100")),
        (BoundaryConvention.UPPER_INCLUSIVE, (0,), ("0", ">=1")),
        (BoundaryConvention.UPPER_INCLUSIVE, (1, 3), ("0-10", "11-400", ">400")),
        (BoundaryConvention.GUIDELINE_GE, (2,), ("<100", ">=100")),
        (BoundaryConvention.GUIDELINE_GE, (1, 3), ("<10", "10-<400", ">=400")),
        (BoundaryConvention.ROUND_FIRST, (0, 2), ("0", "1-100", ">100")),
        # Any calcium is above 0, not above 1.
        (BoundaryConvention.ANY_GT0, (0, 2), ("0", "1-100", ">100")),
        (BoundaryConvention.ANY_GT0, (0,), ("0", ">0")),
    ],
)
def test_names_of_merged_categories(
    convention: BoundaryConvention, kept: tuple[int, ...], labels: tuple[str, ...]
) -> None:
    scheme = CategoryScheme(
        cut_offs=(1.0, 10.0, 100.0, 400.0),
        labels=("0", "1-10", "11-100", "101-400", labels[-1] if 3 in kept else ">400"),
        convention=convention,
    )
    assert merged_labels(scheme, kept) == labels


def test_a_cut_off_between_whole_scores_is_named_as_it_is() -> None:
    scheme = CategoryScheme(cut_offs=(1.0, 10.5, 100.0), labels=("0", "1", "2", "3"))
    assert merged_labels(scheme, (1,)) == ("0-10.5", ">10.5")
    wide = CategoryScheme(cut_offs=(1.0, 10.5, 100.0, 400.0), labels=("0", "1", "2", "3", "4"))
    assert merged_labels(wide, (1, 3)) == ("0-10.5", ">10.5-400", "4")


def test_kappas_and_counts_on_merged_categories() -> None:
    tables = {"a": table(1), "b": table(2), "c": table(3)}
    parts = {site: exams_of(own, seed) for seed, (site, own) in enumerate(tables.items())}

    def gate(site: str, _: Any, answer: Any) -> Any:
        assert isinstance(answer, CrossTable)
        return merge(answer, (0, 2)) if site == "b" else answer

    rows = pool(SPECS["agreement"], parts, change=gate)
    labels = ("0", "1-100", ">100")
    term = " | ".join(labels)
    part = {
        site: np.add.reduceat(np.add.reduceat(own, [0, 1, 3], axis=0), [0, 1, 3], axis=1)
        for site, own in tables.items()
    }
    whole = sum(part.values())
    for scope, own in {**part, "pooled": whole}.items():
        for i, group in enumerate(labels):
            for j, index in enumerate(labels):
                row = rows[scope, "count", group, index]
                if scope == "pooled" and {i, j} == {0}:
                    # Known from the full matrices of two sites, which come first.
                    assert row.estimate == tables["a"][0, 0] + tables["c"][0, 0]
                    continue
                assert (row.status, row.estimate) == (RowStatus.OK, own[i, j])
        codes = [np.repeat(x.ravel(), own.ravel()) for x in np.indices(own.shape)]
        assert_close(
            rows[scope, "kappa_linear", "", term].estimate,
            cohen_kappa_score(*codes, weights="linear"),
        )
    assert rows["b", "count", "11-100", "11-100"].status is RowStatus.SUPPRESSED
    assert rows["pooled", "kappa_linear", "", ""].n == tables["a"].sum() + tables["c"].sum()
    assert rows["pooled", "bhapkar_chi2", "", term].n == whole.sum()


def test_where_no_site_merged_there_are_no_merged_rows() -> None:
    def gate(site: str, _: Any, answer: Any) -> Any:
        return answer.model_copy(update={"matrix": ((HIDDEN,) * 5,) * 5}) if site == "b" else answer

    parts = {"a": exams_of(table(1)), "b": exams_of(table(2))}
    rows = pool(SPECS["agreement"], parts, change=gate)
    assert {key[3] for key in rows if key[1].startswith("kappa")} == {""}
    refused = pool(SPECS["agreement"], {"a": parts["a"], "b": RefusalCode.BUDGET_SPENT})
    assert rows == refused


def test_a_refused_site_beside_one_that_merged() -> None:
    parts = {"a": exams_of(table(1)), "b": RefusalCode.INTERNAL, "c": exams_of(table(3))}

    def gate(site: str, _: Any, answer: Any) -> Any:
        return merge(answer, (2,)) if site == "c" else answer

    rows = pool(SPECS["agreement"], parts, change=gate)
    assert rows["b", "kappa_linear", "", "0-100 | >100"].status is RowStatus.ERROR
    assert rows["pooled", "kappa_linear", "", "0-100 | >100"].status is RowStatus.OK


def test_perfect_agreement_has_a_kappa_and_no_interval() -> None:
    rows = pool(SPECS["agreement"], {"a": exams_of(10 * np.eye(5, dtype=np.int64))})
    for scope in ("a", "pooled"):
        row = rows[scope, "kappa_linear", "", ""]
        assert (row.estimate, row.se, row.ci_low, row.ci_high) == (1, None, None, None)
        assert (row.ci_method, row.n) == ("", 50)
        assert row.p_value == pytest.approx(0, abs=1e-12)


def test_where_everybody_is_in_one_category_there_is_no_kappa() -> None:
    alone = np.zeros((5, 5), dtype=np.int64)
    alone[0, 0] = 40
    rows = pool(SPECS["agreement"], {"a": exams_of(alone), "b": exams_of(table(2), 2)})
    row = rows["a", "kappa_linear", "", ""]
    assert (row.status, row.n) == (RowStatus.NOT_ESTIMABLE, 40)
    meta, other = rows["meta", "kappa_linear", "", ""], rows["b", "kappa_linear", "", ""]
    # The one site that has a kappa is the whole mean.
    assert_close(meta.estimate, other.estimate)
    assert_close(meta.se, other.se)
    assert_close(meta.p_value, other.p_value)
    assert meta.n == other.n


# --- margins and proportions ----------------------------------------------------------------


def test_margins_that_disagree_in_two_separate_pairs() -> None:
    """Two tables of McNemar, side by side: two degrees of freedom, and their sum."""
    matrix = np.zeros((4, 4), dtype=np.int64)
    matrix[0, 1], matrix[1, 0], matrix[2, 3], matrix[3, 2] = 12, 4, 3, 9
    test = stuart_maxwell(matrix)
    assert test is not None
    expected = (12 - 4) ** 2 / 16 + (9 - 3) ** 2 / 12
    assert (test.df, test.chi2) == (2, pytest.approx(expected))
    assert test.p_value == pytest.approx(stats.chi2.sf(expected, 2))
    other = bhapkar(matrix)
    assert other is not None
    assert other.chi2 == pytest.approx(expected / (1 - expected / 28))
    assert other.p_value == pytest.approx(stats.chi2.sf(other.chi2, 2))


def test_margins_that_differ_as_much_as_they_can() -> None:
    matrix = np.array([[0, 9], [0, 0]])
    test = stuart_maxwell(matrix)
    assert test is not None
    assert test.chi2 == pytest.approx(9)
    assert bhapkar(matrix) is None
    assert stuart_maxwell(np.diag([3, 4])) is None
    assert bhapkar(np.diag([3, 4])) is None


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 5), (3, 9), (9, 3), (0, 12)])
def test_mcnemars_exact_test_is_the_binomial_one(first: int, second: int) -> None:
    n = first + second
    expected = stats.binomtest(first, n, 0.5).pvalue if n else 1.0
    assert mcnemar_exact(first, second) == pytest.approx(expected)


def test_a_difference_of_ratios_needs_both_denominators() -> None:
    cells, one, none = np.array([3.0, 7.0]), np.array([1.0, 1.0]), np.zeros(2)
    top = np.array([1.0, 0.0])
    assert ratio_difference(cells, (top, none), (top, one)) is None
    assert ratio_difference(cells, (top, one), (top, none)) is None
    same = ratio_difference(cells, (top, one), (top, one))
    assert same is not None
    assert (same.estimate, same.se, same.ci_low, same.p_value) == (0, None, None, None)


# --- correlation ----------------------------------------------------------------------------


def test_moments_of_nobody_change_nothing() -> None:
    rng = np.random.default_rng(2)
    own = CoMoments.from_values(rng.normal(size=9), rng.normal(size=9))
    nobody = CoMoments(0, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert own.merge(nobody) == own
    assert nobody.merge(own) == own
    assert nobody.merge(nobody) == nobody


def test_correlations_at_the_ends_of_their_range() -> None:
    x = np.array([1.0, 2.0, 4.0, 9.0])
    same, opposed = CoMoments.from_values(x, x), CoMoments.from_values(x, -x)
    for found, value in ((pearson(same), 1), (pearson(opposed), -1), (ccc(same), 1)):
        assert found is not None
        assert (found.estimate, found.ci_low, found.ci_high) == pytest.approx((value,) * 3)
    for kind in ("icc1", "icc2", "icc3"):
        found = icc(same, kind)
        assert found is not None
        assert (found.estimate, found.p_value) == (1, 0)
    with pytest.raises(ValueError, match="kind"):
        icc(same, "icc4")
    assert pearson(CoMoments.from_values(x[:2], x[:2] ** 2)) is None
    three = pearson(CoMoments.from_values(x[:3], x[:3] ** 2))
    assert three is not None
    assert (three.ci_low, three.ci_high) == (None, None)
    wanted = stats.pearsonr(x[:3], x[:3] ** 2)
    assert (three.estimate, three.p_value) == pytest.approx(tuple(wanted))
    constant = CoMoments.from_values(x, np.full(4, 3.0))
    assert (pearson(constant), ccc(constant)) == (None, None)
    assert icc(CoMoments.from_values(np.ones(4), np.ones(4)), "icc1") is None
    assert icc(CoMoments.from_values(x[:2], x[:2]), "icc3") is None


def test_a_site_of_nobody_is_no_correlation_and_changes_none() -> None:
    parts = {"a": draw_exams(1, 60), "b": draw_exams(2, 5).where(np.zeros(5, dtype=bool))}
    spec = CorrelationSpec(id="x", kind="correlation")
    rows, alone = pool(spec, parts), pool(spec, {"a": parts["a"]})
    assert rows["b", "pearson_r", "", ""].status is RowStatus.NOT_ESTIMABLE
    assert rows["b", "pearson_r", "", ""].n == 0
    assert numbers(rows["pooled", "ccc", "", ""]) == numbers(alone["pooled", "ccc", "", ""])


# --- AUC ------------------------------------------------------------------------------------


def brute_delong(v1: Vector, v2: Vector, truth: NDArray[np.bool_]) -> Vector:
    """Return the covariance of two AUCs from all pairs of a positive and a negative."""
    parts = []
    for values in (v1, v2):
        a, b = values[truth][:, None], values[~truth][None, :]
        kernel = (a > b) + 0.5 * (a == b)
        parts.append((kernel.mean(axis=1), kernel.mean(axis=0)))
    total = np.zeros((2, 2))
    for side in (0, 1):
        own = np.stack([part[side] for part in parts])
        total += np.cov(own) / own.shape[1]
    return total


@pytest.mark.parametrize(("n_positive", "n_negative"), [(2, 2), (2, 9), (9, 2), (12, 30)])
def test_an_auc_and_its_error_in_small_classes(n_positive: int, n_negative: int) -> None:
    rng = np.random.default_rng(n_positive)
    truth = np.arange(n_positive + n_negative) < n_positive
    values, other = (rng.integers(0, 6, len(truth)) + truth for _ in range(2))
    found = auc_of_values(values.astype(float), truth)
    assert found is not None
    assert_close(found.estimate, roc_auc_score(truth, values))
    covariance = brute_delong(values, other, truth)
    assert found.variance == pytest.approx(covariance[0, 0], abs=1e-14)
    assert (found.n_positive, found.n_negative) == (n_positive, n_negative)
    # Placement values against the other class, as a site computes them.
    placed = []
    for own in (values, other):
        a, b = own[:, None], own[None, :]
        kernel = (a > b) + 0.5 * (a == b)
        against = np.where(truth, kernel[:, ~truth].mean(axis=1), 1 - kernel[:, truth].mean(axis=1))
        placed.append(against)
    pair = paired_auc(pair_sums(placed[0], placed[1], truth), (0.0, 0.01))
    assert pair is not None
    assert_close(pair.first.estimate, roc_auc_score(truth, values))
    assert_close(pair.second.estimate, roc_auc_score(truth, other))
    assert (pair.first.error_bound, pair.second.error_bound) == (0.0, 0.01)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert pair.se == pytest.approx(variance**0.5, abs=1e-9)


@pytest.mark.parametrize(("n_positive", "n_negative"), [(1, 8), (8, 1), (1, 1)])
def test_one_patient_in_a_class_has_an_auc_without_an_error(
    n_positive: int, n_negative: int
) -> None:
    truth = np.arange(n_positive + n_negative) < n_positive
    values = np.arange(len(truth), dtype=float)[::-1]
    found = auc_of_values(values, truth)
    assert found is not None
    assert (found.estimate, found.variance, found.se) == (1.0, None, None)
    pair = paired_auc(pair_sums(np.ones(len(truth)), np.ones(len(truth)), truth), (0.0, 0.0))
    assert pair is not None
    assert (pair.first.variance, pair.se, pair.p_value, pair.difference) == (None, None, None, 0)
    assert auc_of_values(values, np.ones(len(truth), dtype=bool)) is None
    assert auc_of_values(values[:0], truth[:0]) is None


def test_a_site_with_one_positive_has_no_row_and_a_withheld_one_is_suppressed() -> None:
    parts = {f"s{seed}": draw_exams(seed, 90, f"{seed}-") for seed in range(4)}
    for site, keep in (("s0", np.less), ("s1", np.greater)):
        score = parts[site].column("reference_score")
        is_kept = keep(score, 100)
        # One patient of the other class stays.
        is_kept[np.flatnonzero(~is_kept)[0]] = True
        parts[site] = parts[site].where(is_kept)

    def gate(site: str, query: Any, answer: Any) -> Any:
        if (site, query.step) != ("s2", "within"):
            return answer
        return answer.model_copy(update={"values": ((),)})

    spec = AucSpec(id="x", kind="auc", value="probability", cut_offs=(100.0,), bins=400)
    rows = pool(spec, parts, change=gate)
    statuses = {site: rows[site, "auc", "", "100"].status for site in parts}
    assert statuses == {
        "s0": RowStatus.NOT_ESTIMABLE,
        "s1": RowStatus.NOT_ESTIMABLE,
        "s2": RowStatus.SUPPRESSED,
        "s3": RowStatus.OK,
    }
    assert rows["meta", "auc", "", "100"].status is RowStatus.NOT_ESTIMABLE
    assert rows["meta", "auc", "", "100"].n == 90


# --- sensitivity and specificity together ---------------------------------------------------


def bivariate(dataset: str) -> tuple[Rows, pd.Series]:
    tables = pd.read_csv(DATA / f"meta_bivariate_{dataset}.csv")
    parts = {}
    for number, (tp, fn, fp, tn) in enumerate(tables[["tp", "fn", "fp", "tn"]].to_numpy()):
        reference = np.repeat([150.0, 20.0], [tp + fn, fp + tn])
        index = np.repeat([150.0, 20.0, 150.0, 20.0], [tp, fn, fp, tn])
        columns = {"reference_score": reference, "index_score": index}
        parts[f"s{number}"] = draw_exams(number, len(index), f"{number}-", **columns)
    expected = pd.read_csv(DATA / "meta_bivariate_expected.csv").set_index("dataset").loc[dataset]
    return pool(AccuracySpec(id="x", kind="accuracy"), parts), expected


@pytest.mark.parametrize("dataset", ["twelve", "fifteen"])
def test_the_published_bivariate_rows_are_those_of_rma_mv(dataset: str) -> None:
    rows, expected = bivariate(dataset)
    n = rows["pooled", "accuracy", "", "100"].n
    for measure in ("sensitivity", "specificity"):
        row = rows["meta", measure, "bivariate", "100"]
        np.testing.assert_allclose(
            [row.estimate, row.ci_low, row.ci_high],
            [expected[measure], expected[f"{measure}_low"], expected[f"{measure}_high"]],
            atol=1e-6,
        )
        assert (row.ci_method, row.n, row.status) == ("wald_logit", n, RowStatus.OK)
    row = rows["meta", "correlation", "bivariate", "100"]
    assert_close(row.estimate, expected.rho, 1e-5)
    assert (row.se, row.ci_low, row.ci_high, row.ci_method, row.n) == (None, None, None, "", n)


# --- all alike ------------------------------------------------------------------------------


def test_differences_that_are_all_the_same_have_no_interval() -> None:
    score = np.repeat([10.0, 250.0], 20)
    columns = {"reference_score": score, "index_score": score + 5}
    parts = {"a": draw_exams(1, 40, "a", **columns), "b": draw_exams(2, 40, "b", **columns)}
    rows = pool(SPECS["bland_altman"], parts)
    for scope in ("a", "pooled"):
        for measure in ("bias", "loa_low", "loa_high"):
            row = rows[scope, measure, "", ""]
            assert (*numbers(row), row.ci_method) == (5.0, None, None, None, None, "")
    row = pool(SPECS["distribution"], parts)["pooled", "mean_difference", "", ""]
    # Eighty signs that are as likely to be either.
    assert_close(row.p_value, 2 * stats.norm.sf(80**0.5), 1e-12)
    assert (row.estimate, row.se, row.ci_low) == (5.0, None, None)
