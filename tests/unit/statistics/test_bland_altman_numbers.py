"""Bland-Altman of few, equal, withheld and absent differences, by hand and by scipy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from driven import Rows, assert_close, numbers, pool
from plans import SPECS, draw_exams, plan
from scipy import stats

from fedcac.aggregate import Aggregate
from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.protocol import BlandAltmanSpec
from fedcac.statistics import QueryError, estimator_for
from fedcac.vocabulary import CellStatus, RefusalCode, RowStatus

TOTAL = BlandAltmanSpec(id="x", kind="bland_altman")
VESSELS = SPECS["bland_altman"]
LIMITS = ("bias", "loa_low", "loa_high")


def exams_of(difference: Any, seed: int = 1, base: Any = 100.0, **columns: Any) -> Exams:
    """Return patients whose index score is the reference score and this difference."""
    difference = np.asarray(difference, dtype=float)
    reference = np.broadcast_to(np.asarray(base, dtype=float), difference.shape).copy()
    columns |= {"reference_score": reference, "index_score": reference + difference}
    return draw_exams(seed, len(difference), f"{seed}-", **columns)


def withheld(site: str, *names: str) -> Any:
    """Return a gate that withholds the first entry of these parts of a site's answer."""

    def gate(own: str, _: Any, answer: Any) -> Any:
        if own != site:
            return answer
        hidden = {name: (CellStatus.SUPPRESSED, *getattr(answer, name)[1:]) for name in names}
        return answer.model_copy(update=hidden)

    return gate


def assert_bland_altman(rows: Rows, scope: str, term: str, difference: Any) -> None:
    """Compare with the t-test of scipy and the published error of the limits."""
    difference = np.asarray(difference, dtype=float)
    n, sd = len(difference), difference.std(ddof=1)
    test = stats.ttest_1samp(difference, 0)
    bias = rows[scope, "bias", "", term]
    assert_close(bias.estimate, difference.mean())
    assert_close(bias.se, sd / math.sqrt(n))
    assert_close(bias.p_value, test.pvalue)
    assert_close(bias.ci_low, test.confidence_interval().low)
    assert_close(bias.ci_high, test.confidence_interval().high)
    for measure, sign in (("loa_low", -1), ("loa_high", 1)):
        row, limit = rows[scope, measure, "", term], difference.mean() + sign * 1.96 * sd
        se = math.sqrt(sd**2 / n + 1.96**2 * sd**2 / (2 * (n - 1)))
        assert_close(row.estimate, limit)
        assert_close(row.se, se)
        assert_close(row.ci_low, limit - stats.t.ppf(0.975, n - 1) * se)
        assert_close(row.ci_high, limit + stats.t.ppf(0.975, n - 1) * se)
        assert (row.p_value, row.ci_method, row.n) == (None, "t", n)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_limits_of_agreement_in_any_unit(scale: float) -> None:
    rng = np.random.default_rng(3)
    own = {site: scale * rng.normal(0.3, 1, n) for site, n in (("a", 2), ("b", 40), ("c", 3))}
    rows = pool(TOTAL, {site: exams_of(d, base=0.0) for site, d in own.items()})
    for site, difference in own.items():
        assert_bland_altman(rows, site, "", difference)
    assert_bland_altman(rows, "pooled", "", np.concatenate(list(own.values())))
    for site in own:
        rest = np.concatenate([d for other, d in own.items() if other != site])
        row, test = rows["pooled", "bias", f"without {site}", ""], stats.ttest_1samp(rest, 0)
        assert_close(row.estimate, rest.mean())
        assert_close(row.p_value, test.pvalue)
        assert row.n == len(rest)


def test_one_difference_has_no_spread_and_joins_the_others() -> None:
    rows = pool(TOTAL, {"a": exams_of([4.0]), "b": exams_of([1.0, 2.0])})
    for measure in LIMITS:
        row = rows["a", measure, "", ""]
        assert (row.status, row.n, numbers(row)) == (RowStatus.NOT_ESTIMABLE, 1, (None,) * 5)
    assert_bland_altman(rows, "pooled", "", [4.0, 1.0, 2.0])


def test_differences_that_are_all_the_same_have_a_bias_without_error() -> None:
    rows = pool(TOTAL, {"a": exams_of([2.0] * 5)})
    for measure in LIMITS:
        row = rows["pooled", measure, "", ""]
        assert numbers(row) == (2.0, None, None, None, None)
        assert (row.ci_method, row.n) == ("", 5)


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("how", ["gaps", "one_gap_each", "no_column"])
def test_a_site_without_a_vessels_scores_changes_nothing(how: str, first: bool) -> None:
    difference = np.array([1.0, -2.0, 5.0, 3.0])
    full = exams_of(difference, 1, index_lad=difference, reference_lad=np.zeros(4))
    gap, score = np.full(4, np.nan), np.full(4, 7.0)
    half = np.array([np.nan, np.nan, 7.0, 7.0])
    index, reference = {"gaps": (gap, score), "one_gap_each": (half, half[::-1])}.get(
        how, (score, score)
    )
    empty = exams_of(difference, 2, index_lad=index, reference_lad=reference)
    if how == "no_column":
        kept = {name: own for name, own in empty.columns.items() if name != "index_lad"}
        empty = Exams(columns=kept, keys=empty.keys, secret=empty.secret)
    parts = {"a": empty, "b": full} if first else {"a": full, "b": empty}
    rows = pool(VESSELS, parts)
    assert_bland_altman(rows, "pooled", "lad", difference)
    assert_bland_altman(rows, "pooled", "", [*difference, *difference])
    for measure in LIMITS:
        row = rows["a" if first else "b", measure, "", "lad"]
        assert (row.status, row.n) == (RowStatus.NOT_ESTIMABLE, 0)


def test_where_no_site_has_a_vessels_scores_there_are_no_numbers() -> None:
    gap = np.full(3, np.nan)
    parts = {site: exams_of([1.0, 2.0, 4.0], seed, index_lad=gap) for seed, site in enumerate("ab")}
    rows = pool(VESSELS, parts)
    for measure in LIMITS:
        row = rows["pooled", measure, "", "lad"]
        assert (row.status, row.n) == (RowStatus.NOT_ESTIMABLE, 0)


@pytest.mark.parametrize("name", ["n", "mean", "m2"])
def test_a_withheld_moment_of_differences_withholds_its_site(name: str) -> None:
    difference = [1.0, -2.0, 5.0, 3.0]
    parts = {"a": exams_of([9.0, 1.0, 2.0], 1), "b": exams_of(difference, 2)}
    rows = pool(TOTAL, parts, change=withheld("a", name))
    for measure in LIMITS:
        row = rows["a", measure, "", ""]
        assert (row.status, row.n, numbers(row)) == (RowStatus.SUPPRESSED, None, (None,) * 5)
    assert_bland_altman(rows, "b", "", difference)
    assert_bland_altman(rows, "pooled", "", difference)


def test_a_refused_site_has_all_its_rows_and_the_others_theirs() -> None:
    difference = [1.0, -2.0, 5.0, 3.0]
    rows = pool(TOTAL, {"a": RefusalCode.TOO_FEW_PATIENTS, "b": exams_of(difference)})
    assert {key for key in rows if key[0] == "a"} == {("a", name, "", "") for name in LIMITS}
    for name in LIMITS:
        assert rows["a", name, "", ""].status is RowStatus.SUPPRESSED
    assert_bland_altman(rows, "pooled", "", difference)
    assert not [key for key in rows if key[0] == "meta"]
    rows = pool(VESSELS, {"a": RefusalCode.TOO_FEW_PATIENTS, "b": exams_of(difference)})
    terms = ("", "lm", "lad", "lcx", "rca")
    assert [key for key in rows if key[0] == "a"] == [
        ("a", name, "", term) for term in terms for name in LIMITS
    ]


def test_biases_between_three_sites_are_weighted_by_their_own_errors() -> None:
    """Cochran's Q of means with the variance s^2 / n, by hand; a fourth site of one is left out."""
    own = [[1.0, 2.0, 3.0], [2.0, 6.0, 4.0, 4.0], [8.0, 10.0], [50.0]]
    parts = {f"s{seed}": exams_of(d, seed) for seed, d in enumerate(own)}
    rows = pool(TOTAL, parts)
    w = np.array([len(d) / np.var(d, ddof=1) for d in own[:3]])
    mean = np.array([np.mean(d) for d in own[:3]])
    q = float((w * (mean - np.average(mean, weights=w)) ** 2).sum())
    row = rows["meta", "q", "bias", ""]
    assert_close(row.estimate, q)
    assert_close(row.p_value, stats.chi2.sf(q, 2))
    assert_close(rows["meta", "i2", "bias", ""].estimate, 1 - 2 / q)
    tau2 = (q - 2) / (w.sum() - (w**2).sum() / w.sum())
    assert_close(rows["meta", "tau2", "bias", ""].estimate, tau2)
    assert row.n == rows["meta", "bias", "", ""].n == 9
    assert rows["pooled", "bias", "without s0", ""].n == 7


def test_three_sites_of_which_one_refused_have_a_mean_bias_without_number() -> None:
    parts = {"a": exams_of([1.0, 2.0]), "b": exams_of([3.0, 5.0])}
    rows = pool(TOTAL, {**parts, "c": RefusalCode.INTERNAL})
    row = rows["meta", "bias", "", ""]
    assert (row.status, row.n) == (RowStatus.NOT_ESTIMABLE, 4)
    assert not [key for key in rows if key[2].startswith("without")]


# --- answers that do not fit ----------------------------------------------------------------


def answer_of(spec: Any, difference: Any) -> Aggregate:
    return estimator_for("x", plan((spec,))).summarise(exams_of(difference), Query(step="moments"))


@pytest.mark.parametrize(
    "wrong",
    [
        answer_of(VESSELS, [1.0, 2.0, 4.0]),
        estimator_for("x", plan((SPECS["agreement"],))).summarise(
            exams_of([1.0, 2.0]), Query(step="counts")
        ),
    ],
    ids=["longer", "counts"],
)
def test_an_answer_that_does_not_fit_is_a_fault_at_its_site(wrong: Any) -> None:
    def change(site: str, _: Any, answer: Any) -> Any:
        return wrong if site == "a" else answer

    difference = [1.0, -2.0, 5.0, 3.0]
    parts = {"a": exams_of([9.0, 1.0, 2.0], 1), "b": exams_of(difference, 2)}
    rows = pool(TOTAL, parts, change=change)
    for measure in LIMITS:
        row = rows["a", measure, "", ""]
        assert (row.status, row.n, numbers(row)) == (RowStatus.ERROR, None, (None,) * 5)
    assert_bland_altman(rows, "pooled", "", difference)


def test_a_sum_of_squares_below_0_is_rounding() -> None:
    def change(_site: str, _query: Any, answer: Any) -> Any:
        return answer.model_copy(update={"m2": (-1e-12,)})

    rows = pool(TOTAL, {"a": exams_of([2.0] * 5)}, change=change)
    for measure in LIMITS:
        assert numbers(rows["pooled", measure, "", ""]) == (2.0, None, None, None, None)


@pytest.mark.parametrize(
    "query", [Query(step="counts"), Query(step="moments", values={"at": (1.0,)})]
)
def test_differences_are_asked_by_one_question_alone(query: Query) -> None:
    with pytest.raises(QueryError):
        estimator_for("x", plan((TOTAL,))).summarise(exams_of([1.0, 2.0]), query)
