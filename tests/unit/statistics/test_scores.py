"""Analyses of two scores, pooled over four sites, against other software on the stacked rows."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pytest
from driven import Rows, assert_close, assert_same, merged, numbers, pool
from numpy.typing import NDArray
from plans import SPECS, draw_exams
from scipy import stats
from sklearn.metrics import confusion_matrix
from statsmodels.discrete.count_model import ZeroInflatedPoisson
from statsmodels.stats.contingency_tables import SquareTable, mcnemar
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.meta_analysis import combine_effects
from statsmodels.stats.proportion import proportion_confint
from statsmodels.tools.numdiff import approx_fprime

from fedcac.aggregate import CrossTable, LikelihoodTerms
from fedcac.exams import Exams
from fedcac.protocol import (
    AccuracySpec,
    CategoryScheme,
    ComparisonSpec,
    CorrelationSpec,
    ZeroInflatedSpec,
)
from fedcac.statistics.grids import bin_numbers, score_edges
from fedcac.statistics.paired_counts import newcombe_difference
from fedcac.vocabulary import BoundaryConvention, CellStatus, Interval, RefusalCode, RowStatus

Vector = NDArray[np.float64]

SITES = ("s0", "s1", "s2", "s3")
CUT_OFFS = (1.0, 10.0, 100.0, 400.0)
LABELS = ("0", "1-10", "11-100", "101-400", ">400")
Z95 = stats.norm.ppf(0.975)
SCORE_KINDS = (
    "accuracy",
    "agreement",
    "bland_altman",
    "comparison",
    "correlation",
    "distribution",
    "zero_inflated",
)


def four_sites(seed: int = 1, **columns: Any) -> dict[str, Exams]:
    """Return four sites of different sizes."""
    sizes = (90, 120, 150, 105)
    return {
        name: draw_exams(seed + number, n, f"{name}-", **columns)
        for number, (name, n) in enumerate(zip(SITES, sizes, strict=True))
    }


def split(columns: Mapping[str, Vector]) -> dict[str, Exams]:
    """Return rows dealt to four sites, with the plan's other columns."""
    n = len(next(iter(columns.values())))
    whole = draw_exams(9, n, **columns)
    return {name: whole.where(np.arange(n) % 4 == number) for number, name in enumerate(SITES)}


def stacked(parts: Mapping[str, Exams], column: str) -> Vector:
    return np.concatenate([exams.column(column) for exams in parts.values()])


def category(score: Vector) -> NDArray[np.int64]:
    """Return Eng's categories: none below 1, then (1, 10], (10, 100], (100, 400], above."""
    return (score >= 1).astype(int) + (score > 10) + (score > 100) + (score > 400)


def table_of(parts: Mapping[str, Exams], sites: tuple[str, ...] = SITES) -> NDArray[np.int64]:
    chosen = {site: parts[site] for site in sites}
    reference, index = (stacked(chosen, f"{name}_score") for name in ("reference", "index"))
    return confusion_matrix(category(reference), category(index), labels=range(5))


# --- agreement ------------------------------------------------------------------------------


def test_counts_are_the_cells_of_the_confusion_matrix() -> None:
    parts = four_sites()
    rows = pool(SPECS["agreement"], parts)
    for scope, sites in (*((site, (site,)) for site in SITES), ("pooled", SITES)):
        table = table_of(parts, sites)
        for i, j in product(range(5), repeat=2):
            row = rows[scope, "count", LABELS[i], LABELS[j]]
            assert (row.estimate, row.n) == (table[i, j], table.sum())


def test_tests_of_equal_margins_equal_those_of_statsmodels() -> None:
    parts = four_sites()
    rows = pool(SPECS["agreement"], parts)
    for scope, sites in (*((site, (site,)) for site in SITES), ("pooled", SITES)):
        table = SquareTable(table_of(parts, sites), shift_zeros=False)
        for method in ("stuart_maxwell", "bhapkar"):
            expected = table.homogeneity(method=method)
            row = rows[scope, f"{method}_chi2", "", ""]
            assert_close(row.estimate, expected.statistic)
            assert_close(row.p_value, expected.pvalue)
            assert row.n == table_of(parts, sites).sum()


@pytest.mark.parametrize("weights", ["unweighted", "linear", "quadratic"])
def test_kappas_equal_those_of_statsmodels(weights: str) -> None:
    parts = four_sites()
    rows = pool(SPECS["agreement"], parts)
    scopes = {(site, ""): (site,) for site in SITES} | {("pooled", ""): SITES}
    for site in SITES:
        scopes["pooled", f"without {site}"] = tuple(other for other in SITES if other != site)
    wt = None if weights == "unweighted" else weights
    found = {}
    for (scope, group), sites in scopes.items():
        expected = cohens_kappa(table_of(parts, sites), wt=wt)
        row = rows[scope, f"kappa_{weights}", group, ""]
        assert_close(row.estimate, expected.kappa)
        assert_close(row.se, expected.std_kappa)
        assert_close(row.ci_low, expected.kappa_low)
        assert_close(row.ci_high, expected.kappa_upp)
        assert_close(row.p_value, expected.pvalue_two_sided)
        assert row.n == table_of(parts, sites).sum()
        found[scope, group] = expected
    own = [found[site, ""] for site in SITES]
    weight = np.array([kappa.std_kappa**-2 for kappa in own])
    meta = rows["meta", f"kappa_{weights}", "", ""]
    assert_close(meta.estimate, np.average([kappa.kappa for kappa in own], weights=weight))
    assert_close(meta.se, weight.sum() ** -0.5)
    assert_heterogeneity(
        rows, f"kappa_{weights}", "", [k.kappa for k in own], [k.std_kappa**2 for k in own]
    )


def assert_heterogeneity(
    rows: Rows, measure: str, term: str, estimates: list[float], variances: list[float]
) -> None:
    # A negative tau2, which statsmodels keeps, has no square root.
    with np.errstate(invalid="ignore"):
        expected = combine_effects(np.array(estimates), np.array(variances), method_re="dl")
    assert_close(rows["meta", "q", measure, term].estimate, expected.q)
    assert_close(rows["meta", "tau2", measure, term].estimate, max(expected.tau2, 0.0))
    assert_close(rows["meta", "i2", measure, term].estimate, max(expected.i2, 0.0))
    assert_close(rows["meta", "q", measure, term].p_value, stats.chi2.sf(expected.q, 3))


def test_perfect_agreement_has_no_meta_row_and_no_margins_to_test() -> None:
    score = np.repeat([0.0, 5.0, 50.0, 200.0, 900.0], 24)
    rows = pool(SPECS["agreement"], split({"reference_score": score, "index_score": score}))
    assert rows["pooled", "kappa_linear", "", ""].estimate == 1
    for scope, measure in (
        ("meta", "kappa_linear"),
        ("pooled", "stuart_maxwell_chi2"),
        ("pooled", "bhapkar_chi2"),
    ):
        row = rows[scope, measure, "", ""]
        assert row.status is RowStatus.NOT_ESTIMABLE
        assert numbers(row) == (None,) * 5


def test_an_unused_category_costs_the_margin_test_a_degree_of_freedom() -> None:
    parts = four_sites()
    for site, exams in parts.items():
        parts[site] = exams.where(
            (exams.column("index_score") <= 400) & (exams.column("reference_score") <= 400)
        )
    row = pool(SPECS["agreement"], parts)["pooled", "stuart_maxwell_chi2", "", ""]
    table = table_of(parts)
    assert table[4].sum() == table[:, 4].sum() == 0
    expected = SquareTable(table[:4, :4], shift_zeros=False).homogeneity()
    assert_close(row.estimate, expected.statistic)
    assert_close(row.p_value, expected.pvalue)


def test_a_site_that_merged_categories_joins_in_on_the_cut_offs_it_kept() -> None:
    parts = four_sites()

    def merge(site: str, _: Any, answer: Any) -> Any:
        if site != "s2" or not isinstance(answer, CrossTable):
            return answer
        full = np.array(answer.matrix)
        part = np.add.reduceat(np.add.reduceat(full, [0, 3], axis=0), [0, 3], axis=1)
        return answer.model_copy(
            update={
                "matrix": ((CellStatus.SUPPRESSED,) * 5,) * 5,
                "collapsed": tuple(map(tuple, part.tolist())),
                "kept_cut_offs": (2,),
            }
        )

    rows = pool(SPECS["agreement"], parts, change=merge)
    term = "0-100 | >100"
    others = cohens_kappa(table_of(parts, ("s0", "s1", "s3")), wt="linear")
    assert_close(rows["pooled", "kappa_linear", "", ""].estimate, others.kappa)
    assert rows["s2", "kappa_linear", "", ""].status is RowStatus.SUPPRESSED
    full = table_of(parts)
    table = np.add.reduceat(np.add.reduceat(full, [0, 3], axis=0), [0, 3], axis=1)
    assert_close(rows["pooled", "kappa_linear", "", term].estimate, cohens_kappa(table).kappa)
    without = np.add.reduceat(
        np.add.reduceat(table_of(parts, ("s1", "s2", "s3")), [0, 3], axis=0), [0, 3], axis=1
    )
    row = rows["pooled", "kappa_linear", "without s0", term]
    assert_close(row.estimate, cohens_kappa(without).kappa)


# --- accuracy -------------------------------------------------------------------------------

FRACTIONS: dict[str, tuple[str, str]] = {
    "sensitivity": ("tp", "tp fn"),
    "specificity": ("tn", "tn fp"),
    "ppv": ("tp", "tp fp"),
    "npv": ("tn", "tn fn"),
    "accuracy": ("tp tn", "tp tn fp fn"),
}


def cells_of(parts: Mapping[str, Exams], cut: float, sites: tuple[str, ...]) -> dict[str, int]:
    chosen = {site: parts[site] for site in sites}
    called = [stacked(chosen, f"{name}_score") for name in ("reference", "index")]
    truth, test = (value >= cut if cut == 1 else value > cut for value in called)
    tn, fp, fn, tp = confusion_matrix(truth, test, labels=[False, True]).ravel()
    return {"tp": tp, "fn": fn, "fp": fp, "tn": tn}


@pytest.mark.parametrize(
    ("interval", "method"), [(Interval.WILSON, "wilson"), (Interval.CLOPPER_PEARSON, "beta")]
)
def test_accuracy_equals_that_of_the_stacked_rows(interval: Interval, method: str) -> None:
    parts = four_sites()
    rows = pool(AccuracySpec(id="x", kind="accuracy", interval=interval), parts)
    scopes = {(site, ""): (site,) for site in SITES} | {("pooled", ""): SITES}
    for site in SITES:
        scopes["pooled", f"without {site}"] = tuple(other for other in SITES if other != site)
    for cut, ((scope, group), sites) in product(CUT_OFFS, scopes.items()):
        cells, term = cells_of(parts, cut, sites), f"{cut:g}"
        for measure, (top, bottom) in FRACTIONS.items():
            if group and measure not in ("sensitivity", "specificity"):
                assert (scope, measure, group, term) not in rows
                continue
            k, n = (sum(cells[cell] for cell in which.split()) for which in (top, bottom))
            row = rows[scope, measure, group, term]
            low, high = proportion_confint(k, n, method=method)
            assert_close(row.estimate, k / n)
            assert_close(row.ci_low, low)
            assert_close(row.ci_high, high)
            assert row.n == n
        if not group:
            jaccard = cells["tp"], cells["tp"] + cells["fn"] + cells["fp"]
            limits = proportion_confint(*jaccard, method=method)
            row = rows[scope, "f1", "", term]
            for found, j in zip(
                (row.estimate, row.ci_low, row.ci_high),
                (jaccard[0] / jaccard[1], *limits),
                strict=True,
            ):
                assert_close(found, 2 * j / (1 + j))
            for cell, count in cells.items():
                assert rows[scope, "count", cell, term].estimate == count


def test_accuracy_between_sites() -> None:
    parts = four_sites()
    rows = pool(SPECS["accuracy"], parts)
    for cut, measure in product(CUT_OFFS, ("sensitivity", "specificity")):
        logits, variances = [], []
        for site in SITES:
            top, bottom = FRACTIONS[measure]
            cells = cells_of(parts, cut, (site,))
            k, n = (sum(cells[cell] for cell in which.split()) for which in (top, bottom))
            add = 0.5 if k in (0, n) else 0
            logits.append(np.log((k + add) / (n - k + add)))
            variances.append(1 / (k + add) + 1 / (n - k + add))
        assert_heterogeneity(rows, measure, f"{cut:g}", logits, variances)


def test_four_sites_are_too_few_for_the_bivariate_model() -> None:
    rows = pool(SPECS["accuracy"], four_sites())
    bivariate = [row for row in rows.values() if row.group == "bivariate"]
    assert len(bivariate) == 3 * len(CUT_OFFS)
    for row in bivariate:
        assert (row.scope, row.ci_method) == ("meta", "few_sites")
        assert row.status is RowStatus.NOT_ESTIMABLE
        assert numbers(row) == (None,) * 5


def test_a_withheld_cell_hides_only_what_needs_it() -> None:
    parts = four_sites()

    def hide(site: str, _: Any, answer: Any) -> Any:
        if site != "s1":
            return answer
        hidden = tuple((tp, CellStatus.SUPPRESSED, fp, tn) for tp, _, fp, tn in answer.two_by_two)
        return answer.model_copy(update={"two_by_two": hidden})

    rows = pool(SPECS["accuracy"], parts, change=hide)
    others = pool(SPECS["accuracy"], {site: parts[site] for site in SITES if site != "s1"})
    every = pool(SPECS["accuracy"], parts)
    for measure in ("sensitivity", "npv", "f1", "accuracy"):
        assert rows["s1", measure, "", "100"].status is RowStatus.SUPPRESSED
        assert_same(rows["pooled", measure, "", "100"], others["pooled", measure, "", "100"])
    for measure in ("specificity", "ppv"):
        assert_same(rows["pooled", measure, "", "100"], every["pooled", measure, "", "100"])


BOUNDARY_SCORES = (0.0, 0.4, 0.5, 1.0, 10.0, 10.4, 10.5, 100.0, 400.0, 401.0)
# Who is positive at 1, 10, 100 and 400, written out from the definitions.
POSITIVE = {
    BoundaryConvention.UPPER_INCLUSIVE: ("0001111111", "0000011111", "0000000011", "0000000001"),
    BoundaryConvention.GUIDELINE_GE: ("0001111111", "0000111111", "0000000111", "0000000011"),
    BoundaryConvention.ANY_GT0: ("0111111111", "0000011111", "0000000011", "0000000001"),
    BoundaryConvention.ROUND_FIRST: ("0011111111", "0000001111", "0000000011", "0000000001"),
}


@pytest.mark.parametrize("convention", list(BoundaryConvention))
def test_scores_on_a_cut_off_fall_where_the_convention_says(
    convention: BoundaryConvention,
) -> None:
    size = len(BOUNDARY_SCORES)
    # Unequal frequencies, so that no two cells of a table can be confused.
    pairs = [(i, j) for i, j in product(range(size), repeat=2) for _ in range(1 + (3 * i + j) % 7)]
    scores = np.array([(BOUNDARY_SCORES[i], BOUNDARY_SCORES[j]) for i, j in pairs])
    parts = split({"reference_score": scores[:, 0], "index_score": scores[:, 1]})
    scheme = CategoryScheme(cut_offs=CUT_OFFS, convention=convention, labels=LABELS)
    rows = pool(SPECS["accuracy"], parts, categories=scheme)
    for cut, flags in zip(CUT_OFFS, POSITIVE[convention], strict=True):
        cells = {"tp": 0, "fn": 0, "fp": 0, "tn": 0}
        for i, j in pairs:
            cells[{"11": "tp", "10": "fn", "01": "fp", "00": "tn"}[flags[i] + flags[j]]] += 1
        for cell, count in cells.items():
            assert rows["pooled", "count", cell, f"{cut:g}"].estimate == count, (cut, cell)


# --- comparison -----------------------------------------------------------------------------


def positive(parts: Mapping[str, Exams], column: str, cut: float) -> NDArray[np.bool_]:
    score = stacked(parts, column)
    return score >= cut if cut == 1 else score > cut


TESTS = ComparisonSpec(id="x", kind="comparison", compare="index_tests", bins=2000)
REFERENCES = ComparisonSpec(id="x", kind="comparison", compare="references")


@pytest.mark.parametrize("cut", CUT_OFFS)
def test_paired_sensitivity_and_specificity_have_the_exact_mcnemar_test(cut: float) -> None:
    parts = four_sites()
    rows = pool(TESTS, parts)
    truth, first, second = (
        positive(parts, f"{name}_score", cut) for name in ("reference", "index", "visual")
    )
    for measure, chosen, sign in (("sensitivity", truth, True), ("specificity", ~truth, False)):
        a, b = first[chosen] == sign, second[chosen] == sign
        table = [[np.sum(a & b), np.sum(a & ~b)], [np.sum(~a & b), np.sum(~a & ~b)]]
        row = rows["pooled", f"{measure}_difference", "", f"{cut:g}"]
        difference = a.astype(float) - b
        assert_close(row.estimate, difference.mean())
        assert_close(row.se, difference.std() / len(a) ** 0.5)
        assert_close(row.p_value, mcnemar(table, exact=True).pvalue)
        assert row.ci_method == "newcombe"
        assert -1 <= row.ci_low <= row.estimate <= row.ci_high <= 1
        for role, own in (("index", a), ("comparator", b)):
            single = rows["pooled", measure, role, f"{cut:g}"]
            low, high = proportion_confint(own.sum(), len(own), method="wilson")
            assert_close(single.estimate, own.mean())
            assert_close(single.ci_low, low)
            assert_close(single.ci_high, high)


def newcombe(e: int, f: int, g: int, h: int) -> tuple[float, float]:
    """Return the square-and-add interval of f - g, from the published steps of method 10."""
    n = e + f + g + h
    p1, p2 = (e + f) / n, (e + g) / n
    (l1, u1), (l2, u2) = (
        proportion_confint(k, n, method="wilson", alpha=0.05) for k in (e + f, e + g)
    )
    product_of_margins = (e + f) * (g + h) * (e + g) * (f + h)
    if product_of_margins == 0:
        phi = 0.0
    else:
        a = e * h - f * g
        c = a - n / 2 if a > n / 2 else 0.0 if a >= 0 else float(a)
        phi = c / product_of_margins**0.5
    low = np.sqrt((p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2)
    high = np.sqrt((p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2)
    return p1 - p2 - low, p1 - p2 + high


@pytest.mark.parametrize(
    "cells", [(1, 1, 7, 12), (36, 12, 2, 0), (20, 12, 2, 16), (18, 14, 4, 14), (54, 0, 0, 0)]
)
def test_newcombes_interval_follows_its_published_steps(cells: tuple[int, int, int, int]) -> None:
    found = newcombe_difference(*cells)
    assert found is not None
    low, high = newcombe(*cells)
    assert_close(found.ci_low, low)
    assert_close(found.ci_high, high)
    e, f, g, h = cells
    mirrored = newcombe_difference(e, g, f, h)
    assert mirrored is not None
    assert_close(mirrored.ci_low, -high)
    assert_close(mirrored.ci_high, -low)


def test_newcombes_interval_as_printed() -> None:
    # Fagerland et al., Stat Med 2014;33:2850 (Bentur's data) and Newcombe 1998, Table II.
    for cells, limits in (
        ((1, 1, 7, 12), (-0.507, -0.026)),
        ((36, 12, 2, 0), (0.057, 0.340)),
    ):
        found = newcombe_difference(*cells)
        assert found is not None
        assert (round(found.ci_low, 3), round(found.ci_high, 3)) == limits


def ratio_of(measure: str, mode: str, cells: Vector, which: int) -> complex:
    """Return a measure from counts (shared, first, second) that may be complex."""
    total: dict[tuple[int, int], complex] = {}
    for key in product((0, 1), repeat=3):
        own = key[1 + which]
        index, truth = (own, key[0]) if mode == "index_tests" else (key[0], own)
        total[index, truth] = total.get((index, truth), 0) + cells[key]
    tp, fp, fn, tn = (total[key] for key in ((1, 1), (1, 0), (0, 1), (0, 0)))
    return {
        "sensitivity": lambda: tp / (tp + fn),
        "specificity": lambda: tn / (tn + fp),
        "ppv": lambda: tp / (tp + fp),
        "npv": lambda: tn / (tn + fn),
        "f1": lambda: 2 * tp / (2 * tp + fp + fn),
    }[measure]()


@pytest.mark.parametrize("spec", [TESTS, REFERENCES], ids=lambda spec: spec.compare)
def test_differences_of_ratios_have_the_multinomial_delta_methods_error(
    spec: ComparisonSpec,
) -> None:
    parts = four_sites()
    rows = pool(spec, parts)
    is_of_tests = spec.compare == "index_tests"
    names = ("reference_score", "index_score", "visual_score")
    if not is_of_tests:
        names = ("index_score", "reference_score", "other_reader")
    for cut in CUT_OFFS:
        cells = np.zeros((2, 2, 2))
        flags = [positive(parts, name, cut).astype(int) for name in names]
        np.add.at(cells, tuple(flags), 1)
        n = cells.sum()
        for measure in ("sensitivity", "specificity", "ppv", "npv", "f1"):
            row = rows["pooled", f"{measure}_difference", "", f"{cut:g}"]
            first, second = (ratio_of(measure, spec.compare, cells, which) for which in (0, 1))
            assert_close(row.estimate, first - second)
            assert row.n == n
            if is_of_tests and measure in ("sensitivity", "specificity"):
                continue
            gradient = np.zeros((2, 2, 2))
            for cell in product((0, 1), repeat=3):
                # A complex step has no cancellation: exact to rounding.
                moved = cells / n + 0j
                moved[cell] += 1e-30j
                one, other = (ratio_of(measure, spec.compare, moved, which) for which in (0, 1))
                gradient[cell] = (one - other).imag / 1e-30
            p, g = (cells / n).reshape(-1), gradient.reshape(-1)
            variance = g @ (np.diag(p) - np.outer(p, p)) @ g / n
            if variance < 1e-20:
                # Nobody is called differently from the reference by either.
                assert (*numbers(row)[1:], row.ci_method) == (None, None, None, None, "")
                continue
            assert_close(row.se, variance**0.5)
            assert_close(row.p_value, 2 * stats.norm.sf(abs(row.estimate) / row.se))
            assert_close(row.ci_low, row.estimate - Z95 * row.se)
            assert row.ci_method == "delta"


def delong(first: Vector, second: Vector, truth: NDArray[np.bool_]) -> tuple[Vector, Vector]:
    """Return both AUCs and their covariance over all pairs of a positive and a negative."""
    by_positive, by_negative = [], []
    for score in (first, second):
        a, b = score[truth][:, None], score[~truth][None, :]
        kernel = (a > b) + 0.5 * (a == b)
        by_positive.append(kernel.mean(axis=1))
        by_negative.append(kernel.mean(axis=0))
    auc = np.mean(by_positive, axis=1)
    covariance = np.cov(by_positive) / truth.sum() + np.cov(by_negative) / (~truth).sum()
    return auc, covariance


def test_auc_difference_is_delongs_where_bins_separate_all_values() -> None:
    rng = np.random.default_rng(3)
    n = 360
    ladder = np.concatenate([[0.0], 0.3 * 1.3 ** np.arange(38)])
    reference = rng.integers(0, 39, n)
    index, visual = (np.clip(reference + rng.integers(-k, k + 1, n), 0, 38) for k in (6, 9))
    bins = bin_numbers(ladder, score_edges(TESTS.bins))
    assert len(set(bins.tolist())) == len(ladder)
    parts = split(
        {
            name: ladder[steps]
            for name, steps in (
                ("reference_score", reference),
                ("index_score", index),
                ("visual_score", visual),
            )
        }
    )
    rows = pool(TESTS, parts)
    for cut in CUT_OFFS:
        truth = positive(parts, "reference_score", cut)
        auc, covariance = delong(
            stacked(parts, "index_score"), stacked(parts, "visual_score"), truth
        )
        term = f"{cut:g}"
        for number, role in enumerate(("index", "comparator")):
            row = rows["pooled", "auc", role, term]
            assert_close(row.estimate, auc[number])
            assert_close(row.se, covariance[number, number] ** 0.5)
        row = rows["pooled", "auc_difference", "", term]
        assert_close(row.estimate, auc[0] - auc[1])
        se = (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) ** 0.5
        assert_close(row.se, se)
        assert_close(row.p_value, 2 * stats.norm.sf(abs(auc[0] - auc[1]) / se))
        assert (row.n, row.n_events) == (n, truth.sum())


def test_aucs_on_a_coarse_grid_are_within_their_error_bound() -> None:
    parts = four_sites()
    spec = ComparisonSpec(id="x", kind="comparison", compare="index_tests", bins=12)
    rows = pool(spec, parts)
    for cut in CUT_OFFS:
        truth = positive(parts, "reference_score", cut)
        auc, _ = delong(stacked(parts, "index_score"), stacked(parts, "visual_score"), truth)
        for number, role in enumerate(("index", "comparator")):
            row = rows["pooled", "auc", role, f"{cut:g}"]
            bound = rows["pooled", "auc_error_bound", role, f"{cut:g}"]
            # The first bin holds zero alone: at the cut-off 1 nothing else is compared.
            assert 0 <= bound.estimate < 0.2
            assert bound.estimate > 0 or cut == 1
            assert abs(row.estimate - auc[number]) <= bound.estimate + 1e-12


# --- correlation ----------------------------------------------------------------------------


def intraclass(x: Vector, y: Vector) -> dict[str, float]:
    """Return Shrout and Fleiss's three coefficients from the analysis of variance."""
    ratings = np.column_stack([x, y])
    n, k = ratings.shape
    grand = ratings.mean()
    between = k * np.sum((ratings.mean(axis=1) - grand) ** 2) / (n - 1)
    raters = n * np.sum((ratings.mean(axis=0) - grand) ** 2) / (k - 1)
    total = np.sum((ratings - grand) ** 2)
    within = (total - between * (n - 1)) / n / (k - 1)
    error = (total - between * (n - 1) - raters * (k - 1)) / (n - 1) / (k - 1)
    return {
        "icc1": (between - within) / (between + (k - 1) * within),
        "icc2": (between - error) / (between + (k - 1) * error + k * (raters - error) / n),
        "icc3": (between - error) / (between + (k - 1) * error),
    }


@pytest.mark.parametrize("scale", ["score", "log"])
def test_correlations_equal_those_of_the_stacked_rows(scale: Any) -> None:
    parts = four_sites()
    rows = pool(CorrelationSpec(id="x", kind="correlation", scale=scale), parts)
    for scope, sites in (*((site, (site,)) for site in SITES), ("pooled", SITES)):
        chosen = {site: parts[site] for site in sites}
        x, y = (stacked(chosen, f"{name}_score") for name in ("index", "reference"))
        if scale == "log":
            x, y = np.log(x + 1), np.log(y + 1)
        expected = stats.pearsonr(x, y)
        row = rows[scope, "pearson_r", "", ""]
        assert_close(row.estimate, expected.statistic)
        assert_close(row.p_value, expected.pvalue)
        interval = expected.confidence_interval(0.95)
        assert_close(row.ci_low, interval.low)
        assert_close(row.ci_high, interval.high)
        assert row.n == len(x)
        for term, coefficient in intraclass(x, y).items():
            assert_close(rows[scope, "icc", "", term].estimate, coefficient)
        ccc = 2 * np.cov(x, y, ddof=0)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
        row = rows[scope, "ccc", "", ""]
        assert_close(row.estimate, ccc)
        assert row.ci_low < row.estimate < row.ci_high


def test_a_constant_score_has_no_correlation() -> None:
    parts = split({"index_score": np.full(120, 7.0)})
    rows = pool(SPECS["correlation"], parts)
    for measure in ("pearson_r", "ccc"):
        row = rows["pooled", measure, "", ""]
        assert row.status is RowStatus.NOT_ESTIMABLE
        assert numbers(row) == (None,) * 5


# --- distribution ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 11, 21])
def test_kolmogorov_smirnov_distance_is_inside_its_bounds(seed: int) -> None:
    parts = four_sites(seed)
    row = pool(SPECS["distribution"], parts)["pooled", "ks_d", "", ""]
    index, reference = (stacked(parts, f"{name}_score") for name in ("index", "reference"))
    exact = stats.ks_2samp(index, reference, method="asymp").statistic
    assert row.ci_low - 1e-12 <= exact <= row.ci_high + 1e-12
    assert row.estimate == row.ci_low
    assert row.ci_high - row.ci_low < 0.03
    n = len(index)
    assert row.n == n
    assert_close(row.p_value, stats.kstwobign.sf((n / 2) ** 0.5 * row.estimate))


def test_kolmogorov_smirnov_bounds_hold_on_bins_that_a_gate_merged() -> None:
    parts = four_sites()
    kept = (0, 1, 60, 150, 230, 310)
    row = pool(SPECS["distribution"], parts, change=merged(kept))["pooled", "ks_d", "", ""]
    index, reference = (stacked(parts, f"{name}_score") for name in ("index", "reference"))
    exact = stats.ks_2samp(index, reference, method="asymp").statistic
    assert row.ci_low - 1e-12 <= exact <= row.ci_high + 1e-12


def test_sign_flip_p_value_is_that_of_drawn_flips() -> None:
    rng = np.random.default_rng(12)
    reference = rng.lognormal(4, 1, 400).round(1)
    index = np.maximum(reference + rng.normal(1.2, 12, 400).round(1), 0.0)
    parts = split({"reference_score": reference, "index_score": index})
    row = pool(SPECS["distribution"], parts)["pooled", "mean_difference", "", ""]
    d = index - reference
    assert_close(row.estimate, d.mean())
    assert_close(row.se, stats.sem(d))
    assert_close(row.ci_low, d.mean() - Z95 * stats.sem(d))
    assert_close(row.ci_high, d.mean() + Z95 * stats.sem(d))
    assert_close(row.p_value, 2 * stats.norm.sf(abs(d.sum()) / (d @ d) ** 0.5))
    draws = 20_000
    flipped = np.where(rng.random((draws, len(d))) < 0.5, -1.0, 1.0) @ d
    share = np.mean(np.abs(flipped) >= abs(d.sum()) - 1e-9)
    assert 0.01 < share < 0.5
    assert abs(row.p_value - share) < 4 * (share * (1 - share) / draws) ** 0.5


def test_equal_scores_have_no_distance_and_no_test() -> None:
    score = np.repeat([0.0, 3.0, 40.0, 500.0], 30)
    rows = pool(SPECS["distribution"], split({"reference_score": score, "index_score": score}))
    assert rows["pooled", "ks_d", "", ""].estimate == 0
    row = rows["pooled", "mean_difference", "", ""]
    assert (*numbers(row), row.ci_method) == (0.0, None, None, None, None, "")


# --- zero-inflated Poisson ------------------------------------------------------------------


def inflated_sites(sigma: float = 0.0, n: int = 400) -> dict[str, Exams]:
    """Return small scores, a share of them structural zeros; `sigma` spreads patients' means."""
    rng = np.random.default_rng(8)
    level = np.exp(1.5 + sigma * rng.normal(size=n))
    scores = {
        "reference_score": np.where(rng.random(n) < 0.3, 0, rng.poisson(level)),
        "index_score": np.where(rng.random(n) < 0.2, 0, rng.poisson(1.2 * level)),
    }
    return split({name: score.astype(float) for name, score in scores.items()})


def test_zero_inflated_regression_equals_that_of_statsmodels() -> None:
    parts = inflated_sites()
    rows = pool(SPECS["zero_inflated"], parts)
    reference, index = (stacked(parts, f"{name}_score") for name in ("reference", "index"))
    y = np.concatenate([reference, index])
    x = np.column_stack([np.ones(len(y)), np.repeat([0.0, 1.0], len(index))])
    model = ZeroInflatedPoisson(y, x, exog_infl=x, inflation="logit")
    # The default of 35 steps does not converge.
    fit = model.fit(method="bfgs", maxiter=5000, gtol=1e-9, disp=0)
    # statsmodels' own Hessian has zeros between the mean's and the inflation's parameters.
    information = -approx_fprime(fit.params, model.score, centered=True)
    covariance = np.linalg.inv((information + information.T) / 2)
    for measure, place in (("zip_log_odds_ratio", 1), ("zip_log_rate_ratio", 3)):
        row = rows["pooled", measure, "", "index"]
        se = covariance[place, place] ** 0.5
        assert_close(row.estimate, fit.params[place], 1e-5)
        assert_close(row.se, se, 1e-5)
        assert_close(row.ci_low, fit.params[place] - Z95 * se, 1e-5)
        assert_close(row.p_value, 2 * stats.norm.sf(abs(fit.params[place]) / se), 1e-4)
        assert row.n == len(index)
        assert row.n_events == np.count_nonzero((reference > 0) | (index > 0))


def final_log_likelihood(released: list[list[Any]]) -> float:
    return sum(answer.log_likelihood for answer in released[-1])


def test_a_patient_effect_is_found_and_raises_the_likelihood() -> None:
    parts = inflated_sites(sigma=0.8)
    plain: list[list[Any]] = []
    mixed: list[list[Any]] = []
    without = pool(SPECS["zero_inflated"], parts, plain)
    spec = ZeroInflatedSpec(id="x", kind="zero_inflated", patient_effect=True)
    rows = pool(spec, parts, mixed)
    assert ("pooled", "zip_log_sigma", "", "index") not in without
    row = rows["pooled", "zip_log_sigma", "", "index"]
    assert row.status is RowStatus.OK
    assert row.p_value is None
    assert abs(row.estimate - np.log(0.8)) < 3 * row.se
    assert all(isinstance(answer, LikelihoodTerms) for answer in (*plain[-1], *mixed[-1]))
    assert final_log_likelihood(mixed) > final_log_likelihood(plain) + 50
    rate = rows["pooled", "zip_log_rate_ratio", "", "index"]
    assert abs(rate.estimate - np.log(1.2)) < 3 * rate.se


# --- Bland-Altman ---------------------------------------------------------------------------


@pytest.mark.parametrize("term", ["", "lm", "lad", "lcx", "rca"])
def test_bland_altman_equals_that_of_the_stacked_rows(term: str) -> None:
    parts = four_sites()
    rows = pool(SPECS["bland_altman"], parts)
    suffix = term or "score"
    scopes = {(site, ""): (site,) for site in SITES} | {("pooled", ""): SITES}
    for site in SITES:
        scopes["pooled", f"without {site}"] = tuple(other for other in SITES if other != site)
    own = {}
    for (scope, group), sites in scopes.items():
        chosen = {site: parts[site] for site in sites}
        d = stacked(chosen, f"index_{suffix}") - stacked(chosen, f"reference_{suffix}")
        test = stats.ttest_1samp(d, 0.0)
        row = rows[scope, "bias", group, term]
        assert_close(row.estimate, d.mean())
        assert_close(row.se, stats.sem(d))
        assert_close(row.p_value, test.pvalue)
        interval = test.confidence_interval(0.95)
        assert_close(row.ci_low, interval.low)
        assert_close(row.ci_high, interval.high)
        assert row.n == len(d)
        own[scope, group] = d
        if group:
            assert (scope, "loa_low", group, term) not in rows
            continue
        sd, n = d.std(ddof=1), len(d)
        for measure, sign in (("loa_low", -1), ("loa_high", 1)):
            limit = rows[scope, measure, "", term]
            se = sd * (1 / n + 1.96**2 / (2 * (n - 1))) ** 0.5
            assert_close(limit.estimate, d.mean() + sign * 1.96 * sd)
            assert_close(limit.se, se)
            assert_close(limit.ci_low, limit.estimate - stats.t.ppf(0.975, n - 1) * se)
    assert_heterogeneity(
        rows,
        "bias",
        term,
        [own[site, ""].mean() for site in SITES],
        [stats.sem(own[site, ""]) ** 2 for site in SITES],
    )


# --- what holds for all of them -------------------------------------------------------------


@pytest.mark.parametrize("kind", SCORE_KINDS)
def test_a_subgroup_is_the_analysis_of_its_rows(kind: str) -> None:
    parts = inflated_sites() if kind == "zero_inflated" else four_sites()
    women = {site: exams.where(exams.column("sex") == 1) for site, exams in parts.items()}
    spec = SPECS[kind]
    rows = pool(spec.model_copy(update={"subgroup": "women"}), parts)
    expected = pool(spec, women)
    assert rows.keys() == expected.keys()
    for key, row in rows.items():
        assert_same(row, expected[key])
    whole = pool(spec, parts)
    assert rows != whole


@pytest.mark.parametrize("kind", SCORE_KINDS)
@pytest.mark.parametrize(
    ("code", "status"),
    [
        (RefusalCode.TOO_FEW_PATIENTS, RowStatus.SUPPRESSED),
        (RefusalCode.NOT_COMPUTABLE, RowStatus.NOT_APPLICABLE),
        (RefusalCode.INTERNAL, RowStatus.ERROR),
    ],
)
def test_where_all_sites_refuse_no_row_has_a_number(
    kind: str, code: RefusalCode, status: RowStatus
) -> None:
    rows = pool(SPECS[kind], dict.fromkeys(SITES, code))
    assert rows
    for (scope, *_), row in rows.items():
        assert numbers(row) == (None,) * 5
        if scope == "meta":
            # Between sites that gave nothing there is nothing to estimate.
            assert row.status is not RowStatus.OK
        else:
            assert row.status is status
            assert not row.n


@pytest.mark.parametrize("kind", SCORE_KINDS)
def test_where_one_site_refuses_the_others_are_pooled(kind: str) -> None:
    parts: dict[str, Exams | RefusalCode] = dict(
        inflated_sites() if kind == "zero_inflated" else four_sites()
    )
    others = {site: exams for site, exams in parts.items() if site != "s2"}
    expected = pool(SPECS[kind], others)
    rows = pool(SPECS[kind], {**parts, "s2": RefusalCode.TOO_FEW_PATIENTS})
    assert rows.keys() >= expected.keys()
    for key, row in expected.items():
        assert_same(rows[key], row)
    for key in rows.keys() - expected.keys():
        assert key[0] == "s2"
        assert rows[key].status is RowStatus.SUPPRESSED
        assert numbers(rows[key]) == (None,) * 5


def test_a_site_that_falls_silent_during_the_fit_is_left_out() -> None:
    parts = inflated_sites()
    seen: list[str] = []

    def silence(site: str, _: Any, answer: Any) -> Any:
        seen.append(site)
        is_late = site == "s3" and seen.count(site) > 2
        return RefusalCode.TOO_MANY_EXCHANGES if is_late else answer

    rows = pool(SPECS["zero_inflated"], parts, change=silence)
    expected = pool(SPECS["zero_inflated"], {site: parts[site] for site in SITES[:3]})
    key = ("pooled", "zip_log_rate_ratio", "", "index")
    assert_same(rows[key], expected[key])
    assert rows["s3", "zip_log_rate_ratio", "", "index"].status is RowStatus.SUPPRESSED
