"""The AUC of sites and of all patients: what a site says, who is left out, where limits end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from driven import Rows, assert_close, pool
from numpy.typing import NDArray
from plans import draw_exams, plan
from scipy import stats

from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.protocol import AucSpec
from fedcac.statistics import QueryError, estimator_for
from fedcac.vocabulary import CellStatus, RefusalCode, RowStatus

Vector = NDArray[np.float64]

TERM = "100"
Z95 = stats.norm.ppf(0.975)
WITHIN = Query(step="within")


def site(seed: int, values: Vector, positive: NDArray[np.bool_]) -> Exams:
    reference = np.where(positive, 150.0, 20.0)
    columns = {"reference_score": reference, "index_probability_100": values}
    return draw_exams(seed, len(values), f"{seed}-", index_score=100 * values, **columns)


def drawn(seed: int, n: int = 40, n_positive: int = 15) -> Exams:
    rng = np.random.default_rng(seed)
    positive = np.arange(n) < n_positive
    # Every value in the middle of a bin of a twentieth.
    values = (np.clip(rng.integers(0, 15, n) + 5 * positive, 0, 19) + 0.5) / 20
    return site(seed, values, positive)


def auc_spec(value: Any = "probability", *cut_offs: float, bins: int = 20) -> AucSpec:
    return AucSpec(id="x", kind="auc", value=value, cut_offs=cut_offs or (100.0,), bins=bins)


def aucs(parts: Any, spec: AucSpec | None = None, **how: Any) -> Rows:
    return pool(spec or auc_spec(), parts, **how)


def by_pairs(*parts: Exams) -> tuple[float, float]:
    """Return the AUC and DeLong's standard error of all pairs of a positive and a negative."""
    values, truth = (
        np.concatenate([exams.column(name) for exams in parts])
        for name in ("index_probability_100", "reference_score")
    )
    a, b = values[truth > 100][:, None], values[truth <= 100][None, :]
    kernel = (a > b) + 0.5 * (a == b)
    own = (kernel.mean(axis=1), kernel.mean(axis=0))
    return float(kernel.mean()), float(sum(part.var(ddof=1) / len(part) for part in own)) ** 0.5


def test_what_a_site_says_of_its_own_auc() -> None:
    values = np.array([0.9, 0.8, 0.7, 0.3, 0.2, 0.1, 0.1])
    estimator = estimator_for("x", plan((auc_spec("score", 10.0, 100.0, 400.0),)))
    for n_positive, own in (
        # Without a class, or with one patient in it, there is none; separated, its variance is 0.
        (0, (0.0, 7.0, 0.0, 0.0)),
        (1, (1.0, 6.0, 0.0, 0.0)),
        (3, (3.0, 4.0, 1.0, 0.0)),
        (6, (6.0, 1.0, 0.0, 0.0)),
    ):
        answer: Any = estimator.summarise(site(1, values, np.arange(7) < n_positive), WITHIN)
        # Above 10 is everybody, above 400 nobody.
        assert answer.values == ((7.0, 0.0, 0.0, 0.0), own, (0.0, 7.0, 0.0, 0.0))
        smaller = min(n_positive, 7 - n_positive)
        assert answer.evidence.row_groups == (0, smaller, 0)
        assert answer.evidence.smallest_group == smaller
        assert answer.evidence.nested == ((7,), (n_positive,), (0,))


@pytest.mark.parametrize(("n_positive", "n_negative"), [(2, 9), (9, 2)])
def test_two_patients_of_a_class_are_enough_for_a_sites_row(
    n_positive: int, n_negative: int
) -> None:
    values = np.array([0.9, 0.3, 0.1, 0.2, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.3])
    exams = site(1, np.roll(values, n_negative % 3), np.arange(11) < n_positive)
    rows = aucs({"a": exams})
    estimate, se = by_pairs(exams)
    assert_close(rows["a", "auc", "", TERM].estimate, estimate)
    assert_close(rows["a", "auc", "", TERM].se, se)
    row = rows["a", "auc", "", TERM]
    assert row.ci_low == pytest.approx(max(estimate - Z95 * se, 0))
    assert row.ci_high == pytest.approx(min(estimate + Z95 * se, 1))
    assert (row.n, row.n_events, row.ci_method) == (11, n_positive, "delong")
    assert ("a", "auc_error_bound", "", TERM) not in rows
    assert rows["pooled", "auc_error_bound", "", TERM].n == 11


def test_the_limits_of_a_sites_auc_stay_between_0_and_1() -> None:
    good = drawn(6, 30, 12)
    ranked = np.sort(good.column("index_probability_100"))
    # The positives highest or lowest, but for one.
    for order, name in ((ranked[::-1], "ci_high"), (ranked, "ci_low")):
        values = order.copy()
        values[[0, -1]] = values[[-1, 0]]
        exams = site(6, values, np.arange(30) < 12)
        row = aucs({"a": exams})["a", "auc", "", TERM]
        estimate, se = by_pairs(exams)
        assert not 0 <= estimate - Z95 * se <= estimate + Z95 * se <= 1
        assert getattr(row, name) == (1.0 if name == "ci_high" else 0.0)


@pytest.mark.parametrize("hidden", [0, 1])
def test_a_site_that_withholds_a_class_is_not_in_the_pooled_auc(hidden: int) -> None:
    parts = {"a": drawn(1), "b": drawn(2, 50, 20), "c": drawn(3, 30, 8)}

    def gate(site: str, query: Query, answer: Any) -> Any:
        if site != "b" or query == WITHIN:
            return answer
        counts = list(answer.counts[0])
        counts[hidden] = (CellStatus.SUPPRESSED,) * 20
        return answer.model_copy(update={"counts": (tuple(counts),)})

    row = aucs(parts, change=gate)["pooled", "auc", "", TERM]
    estimate, se = by_pairs(parts["a"], parts["c"])
    assert_close(row.estimate, estimate)
    assert_close(row.se, se)
    assert (row.n, row.n_events) == (70, 23)
    for beside in ({}, {"d": drawn(4, 30, 0)}):
        withheld = aucs({"b": parts["b"], **beside}, change=gate)["pooled", "auc", "", TERM]
        assert withheld.status is RowStatus.SUPPRESSED


def test_without_a_class_anywhere_there_is_no_auc_whatever_else_is_refused() -> None:
    healthy = drawn(1, 30, 0)
    rows = aucs({"a": healthy})
    assert rows["pooled", "auc", "", TERM].status is RowStatus.NOT_ESTIMABLE
    for code, status in (
        (RefusalCode.TOO_FEW_PATIENTS, RowStatus.SUPPRESSED),
        (RefusalCode.EMPTY_COHORT, RowStatus.NOT_APPLICABLE),
    ):
        rows = aucs({"a": healthy, "b": code})
        for scope in ("b", "pooled"):
            row = rows[scope, "auc", "", TERM]
            assert (row.status, row.estimate) == (status, None)


@pytest.mark.parametrize("value", ["score", "probability"])
def test_patients_without_calcium_are_tied_for_certain(value: str) -> None:
    positive = np.arange(20) < 8
    # In the first bin stand patients of both classes, beyond it of one class each.
    values = np.where(np.arange(20) % 2, np.where(positive, 0.9, 0.5), 0.0)
    rows = aucs({"a": site(1, values, positive)}, auc_spec(value, bins=100))
    # Of 8 x 12 pairs 4 x 6 share it; an unsure pair may move the AUC by half a pair.
    bound = rows["pooled", "auc_error_bound", "", TERM]
    if value == "score":
        assert bound.estimate == 0
        assert_close(rows["pooled", "auc", "", TERM].estimate, (24 + 24 + 12) / 96)
    else:
        assert bound.status is RowStatus.SUPPRESSED


def test_sites_of_which_one_is_separated_have_no_mean_auc() -> None:
    parts = {f"s{seed}": drawn(seed, 40, 15) for seed in range(3)}
    assert aucs(parts)["meta", "auc", "", TERM].estimate is not None
    parts["s1"] = site(1, np.linspace(0.9, 0.1, 40), np.arange(40) < 15)
    rows = aucs(parts)
    assert (rows["s1", "auc", "", TERM].estimate, rows["s1", "auc", "", TERM].se) == (1, None)
    # Without a variance there is no weight.
    assert rows["meta", "auc", "", TERM].status is RowStatus.NOT_ESTIMABLE
    assert rows["meta", "q", "auc", TERM].n == 120


def test_the_mean_auc_and_its_limits_stay_between_0_and_1() -> None:
    truth = np.arange(40) < 15
    parts = {}
    for number, swapped in enumerate((1, 6, 14)):
        values = np.linspace(0.9, 0.1, 40)
        # So many of the positives below the negatives.
        values[:swapped], values[-swapped:] = values[-swapped:].copy(), values[:swapped].copy()
        parts[f"s{number}"] = site(number, values, truth)
    row = aucs(parts)["meta", "auc", "", TERM]
    assert (row.ci_low, row.ci_high, row.se) == (0.0, 1.0, None)
    assert row.ci_method == "hartung_knapp"


@pytest.mark.parametrize(("n_negative", "is_given"), [(5, True), (4, False)])
def test_an_auc_that_bins_may_move_by_more_than_a_twentieth_is_suppressed(
    n_negative: int, is_given: bool
) -> None:
    # One pair of 2 n is in one bin: half a pair of ten may count or not, or of eight.
    values = np.array([0.925, 0.525, *np.linspace(0.025, 0.425, n_negative - 1), 0.525])
    positive = np.arange(n_negative + 2) < 2
    rows = aucs({"a": site(1, values, positive)})
    row, bound = (rows["pooled", name, "", TERM] for name in ("auc", "auc_error_bound"))
    assert {row.status, bound.status} == {RowStatus.OK if is_given else RowStatus.SUPPRESSED}
    assert (row.n, bound.n) == (n_negative + 2,) * 2
    if is_given:
        assert_close(row.estimate, 0.95)
        assert_close(bound.estimate, 0.05)


def test_the_auc_asks_two_steps_and_tells_the_gate_its_positives() -> None:
    estimator = estimator_for("x", plan((auc_spec("score", 10.0, 100.0),)))
    for query in (Query(step="placements"), Query(step="within", values={"beta": (1.0,)})):
        with pytest.raises(QueryError, match="histogram"):
            estimator.summarise(drawn(1), query)
    answer: Any = estimator.summarise(drawn(1, 40, 15), Query(step="histogram"))
    n_above = int(np.sum(drawn(1, 40, 15).column("reference_score") > 10))
    assert answer.evidence.nested == ((n_above,), (15,))
