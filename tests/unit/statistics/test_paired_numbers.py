"""Paired tests from counts and classes written out: margins, differences, comparison, DeLong."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from driven import Rows, assert_close, numbers, pool
from numpy.typing import NDArray
from plans import draw_exams, plan
from scipy import stats
from statsmodels.stats.contingency_tables import SquareTable
from statsmodels.stats.proportion import proportion_confint

from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.protocol import ComparisonSpec
from fedcac.statistics import QueryError, estimator_for
from fedcac.statistics.paired_counts import bhapkar, newcombe_difference, stuart_maxwell
from fedcac.vocabulary import CellStatus, RefusalCode, RowStatus

Vector = NDArray[np.float64]

TERM = "100"
Z95 = stats.norm.ppf(0.975)
# Patients by (reference, index, comparator), each negative and positive: eight unlike numbers.
CELLS = np.array([[[50, 7], [11, 3]], [[5, 6], [13, 40]]])


# --- from counts ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_margins_of_millions_are_tested_with_all_degrees_of_freedom(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.integers(1_000_000, 9_000_000, (5, 5))
    test = stuart_maxwell(matrix)
    expected = SquareTable(matrix, shift_zeros=False).homogeneity("stuart_maxwell")
    assert test is not None
    assert test.df == expected.df == 4
    assert test.chi2 == pytest.approx(expected.statistic, rel=1e-9)
    other = bhapkar(matrix)
    expected = SquareTable(matrix, shift_zeros=False).homogeneity("bhapkar")
    assert other is not None
    assert other.chi2 == pytest.approx(expected.statistic, rel=1e-9)


def newcombe(both: int, first: int, second: int, neither: int) -> tuple[float, float]:
    """Return method 10's interval of the difference, in whole numbers and logarithms of margins."""
    n = both + first + second + neither
    (l1, u1), (l2, u2) = (proportion_confint(both + k, n, method="wilson") for k in (first, second))
    p1, p2 = (both + first) / n, (both + second) / n
    margins = (both + first, second + neither, both + second, first + neither)
    phi, cross = 0.0, both * neither - first * second
    if min(margins) > 0:
        over = max(cross - n / 2, 0.0) if cross > 0 else cross
        phi = over * float(np.exp(-np.sum(np.log(margins)) / 2))
    d = p1 - p2
    low = (p1 - l1) ** 2 + (u2 - p2) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2)
    high = (u1 - p1) ** 2 + (p2 - l2) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2)
    return d - low**0.5, d + high**0.5


@pytest.mark.parametrize(
    "cells",
    [
        (0, 1, 1, 0),
        (1, 0, 0, 1),
        (9, 3, 1, 0),
        (0, 5, 0, 0),
        # phi is as good as 1.
        (50_000_000, 0, 0, 50_000_000),
        # Their margins multiply to more than a whole number of 64 bits holds.
        (90_000, 70_000, 60_000, 120_000),
    ],
)
def test_differences_of_paired_proportions(cells: tuple[int, int, int, int]) -> None:
    found = newcombe_difference(*cells)
    assert found is not None
    both, first, second, neither = cells
    n = sum(cells)
    assert_close(found.estimate, (first - second) / n)
    low, high = newcombe(*cells)
    assert_close(found.ci_low, low)
    assert_close(found.ci_high, high)
    each, weights = np.array([1.0, -1.0, 0.0]), [first, second, both + neither]
    spread = np.average((each - np.average(each, weights=weights)) ** 2, weights=weights)
    assert_close(found.se, float(spread / n) ** 0.5)
    p_value = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert_close(found.p_value, p_value)


# --- the comparison -------------------------------------------------------------------------


def exams_of(cells: Any, seed: int = 1, columns: tuple[str, ...] = ()) -> Exams:
    """Return patients of these counts at the cut-off of 100."""
    columns = columns or ("reference_score", "index_score", "visual_score")
    keys = np.array(list(product((0, 1), repeat=3)))
    flags = np.repeat(keys, np.asarray(cells).reshape(-1), axis=0)
    # Unlike at other cut-offs, so that none is taken for another.
    scores = np.where(flags == 1, 150.0, 20.0)
    named = dict(zip(columns, scores.T, strict=True))
    return draw_exams(seed, len(flags), f"{seed}-", **named)


def spec_of(compare: Any, *cut_offs: float, bins: int = 50) -> ComparisonSpec:
    cut_offs = cut_offs or (100.0,)
    return ComparisonSpec(id="x", kind="comparison", compare=compare, cut_offs=cut_offs, bins=bins)


def compared(parts: Any, compare: Any = "index_tests", **how: Any) -> Rows:
    return pool(spec_of(compare), parts, **how)


# Successes and denominator of each role from (tp, fn, fp, tn).
RATIOS: dict[str, Any] = {
    "sensitivity": lambda tp, fn, fp, tn: (tp, tp + fn),
    "specificity": lambda tp, fn, fp, tn: (tn, fp + tn),
    "ppv": lambda tp, fn, fp, tn: (tp, tp + fp),
    "npv": lambda tp, fn, fp, tn: (tn, fn + tn),
    "f1": lambda tp, fn, fp, tn: (tp, tp + fn + fp),
}


@pytest.mark.parametrize("measure", list(RATIOS))
@pytest.mark.parametrize("compare", ["index_tests", "references"])
def test_ratios_and_their_differences_by_hand(measure: str, compare: str) -> None:
    if compare == "index_tests":
        rows, roles = compared({"a": exams_of(CELLS)}), ("index", "comparator")
        tables = [CELLS.sum(axis=2), CELLS.sum(axis=1)]
    else:
        columns = ("index_score", "reference_score", "other_reader")
        rows = compared({"a": exams_of(CELLS, 1, columns)}, compare)
        roles = ("reference", "second_reference")
        tables = [CELLS.sum(axis=2).T, CELLS.sum(axis=1).T]
    estimates = []
    for role, table in zip(roles, tables, strict=True):
        # Rows are the reference, columns the index test.
        (tn, fp), (fn, tp) = table.tolist()
        k, n = RATIOS[measure](tp, fn, fp, tn)
        row = rows["pooled", measure, role, TERM]
        values = [k / n, *proportion_confint(k, n, method="wilson")]
        if measure == "f1":
            values = [2 * value / (1 + value) for value in values]
        estimates.append(values[0])
        for found, expected in zip((row.estimate, row.ci_low, row.ci_high), values, strict=True):
            assert_close(found, expected)
        assert (row.n, row.se, row.ci_method) == (n, None, "wilson")
    row = rows["pooled", f"{measure}_difference", "", TERM]
    assert_close(row.estimate, estimates[0] - estimates[1])
    assert row.n == CELLS.sum()
    if compare == "references" or measure not in ("sensitivity", "specificity"):
        assert row.ci_method == "delta"
        return
    # Of the diseased, or of the healthy, whom both tests call rightly, one of them, none.
    own = CELLS[1] if measure == "sensitivity" else CELLS[0][::-1, ::-1]
    cells = [int(own[key]) for key in ((1, 1), (1, 0), (0, 1), (0, 0))]
    for found, expected in zip((row.ci_low, row.ci_high), newcombe(*cells), strict=True):
        assert_close(found, expected)
    assert_close(row.p_value, stats.binomtest(cells[1], cells[1] + cells[2]).pvalue)
    assert row.ci_method == "newcombe"


def test_a_proportion_of_one_patient_is_one_and_of_nobody_none() -> None:
    # One diseased patient, called positive by both; the index test alone calls nobody else so.
    cells = np.array([[[30, 4], [0, 0]], [[0, 0], [0, 1]]])
    rows = compared({"a": exams_of(cells)})
    for measure, role, n in (
        ("sensitivity", "index", 1),
        ("ppv", "index", 1),
        ("f1", "index", 1),
        ("ppv", "comparator", 5),
    ):
        row = rows["pooled", measure, role, TERM]
        low, high = proportion_confint(1, n, method="wilson")
        if measure != "f1":
            assert_close(row.ci_low, low)
            assert_close(row.ci_high, high)
        assert (row.estimate, row.n) == (1 / n, n)
    # PPVs of 1 / 1 and 1 / 5: of the second's variance the share of five patients, by hand.
    row = rows["pooled", "ppv_difference", "", TERM]
    assert_close(row.estimate, 0.8)
    assert_close(row.se, (0.2 * 0.8 / 5) ** 0.5)
    assert_close(row.p_value, 2 * stats.norm.sf(0.8 / (0.2 * 0.8 / 5) ** 0.5))
    nobody = compared({"a": exams_of(np.array([[[30, 4], [2, 1]], [[0, 0], [0, 0]]]))})
    for measure in ("sensitivity", "sensitivity_difference"):
        row = nobody["pooled", measure, "" if "_" in measure else "index", TERM]
        assert (row.status, numbers(row)) == (RowStatus.NOT_ESTIMABLE, (None,) * 5)


@pytest.mark.parametrize("compare", ["index_tests", "references"])
@pytest.mark.parametrize(
    ("code", "status"),
    [
        (RefusalCode.TOO_FEW_PATIENTS, RowStatus.SUPPRESSED),
        (RefusalCode.EMPTY_COHORT, RowStatus.NOT_APPLICABLE),
    ],
)
def test_where_all_refuse_every_row_is_there_and_says_why(
    compare: str, code: RefusalCode, status: RowStatus
) -> None:
    rows = compared({"a": code, "b": code}, compare)
    given = set(compared({"a": exams_of(CELLS)}, compare))
    # Beside an AUC that is given stands its error bound.
    assert set(rows) == {key for key in given if key[1] != "auc_error_bound"}
    assert {row.status for row in rows.values()} == {status}
    assert {numbers(row) for row in rows.values()} == {(None,) * 5}


@pytest.mark.parametrize("n_merged", [0, 1, 2])
def test_a_site_that_withholds_or_merges_cells_is_left_out(n_merged: int) -> None:
    def gate(site: str, query: Query, answer: Any) -> Any:
        if site == "a" or query.step != "cells":
            return answer
        first, second = answer.counts[0]
        hidden = (CellStatus.SUPPRESSED, *first[1:])
        update: dict[str, Any] = {"counts": ((hidden, second),)}
        if n_merged:
            rows = [(row[0], row[1] + row[2], row[3]) for row in (first, second)[:n_merged]]
            counts = (*rows, *(first, second)[n_merged:])
            starts = ((0, 1, 3),) * n_merged + ((0, 1, 2, 3),) * (2 - n_merged)
            update = {"counts": (counts,), "starts": (starts,)}
        return answer.model_copy(update=update)

    parts = {"a": exams_of(CELLS), "b": exams_of(CELLS[::-1], 2)}
    rows, alone = compared(parts, change=gate), compared({"a": parts["a"]})
    whole = compared(parts)
    for measure in RATIOS:
        key = ("pooled", f"{measure}_difference", "", TERM)
        assert numbers(rows[key]) == numbers(alone[key])
        assert (rows[key].n, whole[key].n) == (CELLS.sum(), 2 * CELLS.sum())
    withheld = compared({"b": parts["b"]}, change=gate)
    assert withheld["pooled", "npv", "comparator", TERM].status is RowStatus.SUPPRESSED


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (RefusalCode.EMPTY_COHORT, RowStatus.NOT_APPLICABLE),
        (RefusalCode.INTERNAL, RowStatus.ERROR),
    ],
)
def test_aucs_whose_sums_all_refuse_say_why_beside_a_cut_off_of_one_class(
    code: RefusalCode, status: RowStatus
) -> None:
    def refuse(site: str, query: Query, answer: Any) -> Any:
        return code if query.step == "placements" else answer

    # Nobody's reference is above 400.
    rows = pool(spec_of("index_tests", 100.0, 400.0), {"a": exams_of(CELLS)}, change=refuse)
    for measure, group in (("auc", "index"), ("auc", "comparator"), ("auc_difference", "")):
        assert rows["pooled", measure, group, "100"].status is status
        assert rows["pooled", measure, group, "400"].status is RowStatus.NOT_ESTIMABLE


def aucs_of(*parts: Exams, cut: float) -> list[float]:
    reference, *scores = (
        np.concatenate([exams.column(f"{name}_score") for exams in parts])
        for name in ("reference", "index", "visual")
    )
    found = []
    for score in scores:
        a, b = score[reference > cut][:, None], score[reference <= cut][None, :]
        found.append(float(np.mean((a > b) + 0.5 * (a == b))))
    return found


def test_aucs_at_a_cut_off_are_of_the_sites_that_gave_their_classes_there() -> None:
    parts = {"a": draw_exams(1, 60, "a"), "b": draw_exams(2, 70, "b")}
    steps: list[str] = []

    def gate(site: str, query: Query, answer: Any) -> Any:
        steps.append(query.step)
        if (site, query.step) != ("b", "histogram"):
            return answer
        # Of the first cut-off the second test's positives are withheld.
        hidden = (answer.counts[1][0], (CellStatus.SUPPRESSED,) * 2000)
        counts = (answer.counts[0], hidden, *answer.counts[2:])
        return answer.model_copy(update={"counts": counts})

    rows = pool(spec_of("index_tests", 10.0, 100.0, bins=2000), parts, change=gate)
    for cut, chosen in ((10.0, "a"), (100.0, "ab")):
        expected = aucs_of(*(parts[site] for site in chosen), cut=cut)
        for role, value in zip(("index", "comparator"), expected, strict=True):
            row, bound = (
                rows["pooled", name, role, f"{cut:g}"] for name in ("auc", "auc_error_bound")
            )
            assert row.n == sum(parts[site].n for site in chosen)
            assert row.estimate is not None
            assert bound.estimate is not None
            assert abs(row.estimate - value) <= bound.estimate + 1e-12 < 0.01
    assert steps == ["cells"] * 2 + ["histogram"] * 2 + ["placements"] * 2


@pytest.mark.parametrize(
    ("is_withheld", "status"),
    [(True, RowStatus.SUPPRESSED), (False, RowStatus.NOT_ESTIMABLE)],
)
def test_without_any_class_placements_are_not_asked(is_withheld: bool, status: RowStatus) -> None:
    steps: list[str] = []

    def gate(site: str, query: Query, answer: Any) -> Any:
        steps.append(query.step)
        if not is_withheld or query.step != "histogram":
            return answer
        hidden = ((CellStatus.SUPPRESSED,) * 50,) * 2
        return answer.model_copy(update={"counts": (hidden, hidden)})

    rows = pool(spec_of("index_tests", 400.0), {"a": exams_of(CELLS)}, change=gate)
    assert steps == ["cells", "histogram"]
    for measure, group in (("auc", "index"), ("auc_difference", "")):
        assert rows["pooled", measure, group, "400"].status is status


# --- at a site ------------------------------------------------------------------------------


def test_two_references_are_not_asked_for_histograms_or_placements() -> None:
    exams = exams_of(CELLS)
    protocol = plan((spec_of("references"),))
    for step in ("histogram", "placements"):
        with pytest.raises(QueryError, match=step):
            estimator_for("x", protocol).summarise(exams, Query(step=step))
    with pytest.raises(QueryError, match="within"):
        estimator_for("x", plan((spec_of("index_tests"),))).summarise(exams, Query(step="within"))


def test_what_the_gate_is_told_of_cells_and_histograms() -> None:
    exams = exams_of(CELLS)
    estimator = estimator_for("x", plan((spec_of("index_tests", 10.0, 100.0),)))
    cells: Any = estimator.summarise(exams, Query(step="cells"))
    # Everybody has a score of 20 at least: at 10 all are positive by all three.
    n = exams.n
    truth, first, second = CELLS[1], CELLS[:, 1], CELLS[:, :, 1]
    one_by_one = [int(own.sum()) for own in (truth, first, second)]
    both = [int(own.sum()) for own in (CELLS[:, 1, 1], CELLS[1, :, 1], CELLS[1, 1])]
    several = {*one_by_one, *both, int(CELLS[1, 1, 1]), int(n - CELLS[0, 0, 0])}
    assert set(cells.evidence.nested[0]) == {n}
    assert several <= set(cells.evidence.nested[1])
    assert len(cells.evidence.nested[1]) == 2 * 7
    histogram: Any = estimator.summarise(exams, Query(step="histogram"))
    assert histogram.evidence.nested == ((n,), (n,), (int(truth.sum()),), (int(truth.sum()),))


def test_what_the_gate_is_told_of_sums_of_placements() -> None:
    exams = exams_of(CELLS)
    estimator = estimator_for("x", plan((spec_of("index_tests", 10.0, 100.0),)))
    answer: Any = estimator.summarise(exams, Query(step="placements"))
    n, diseased = exams.n, int(CELLS[1].sum())
    # Nothing was asked about; still at 10 nobody is negative, at 100 the diseased are fewer.
    assert set(answer.values) == {(0.0,) * 6}
    assert answer.evidence.row_groups == (0, 0, diseased, diseased)
    assert answer.evidence.smallest_group == diseased
    assert answer.evidence.nested == ((n,), (n,), (diseased,), (diseased,))
