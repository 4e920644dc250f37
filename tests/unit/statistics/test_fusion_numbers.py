"""The fusion model on two folds: its rows where something is missing, and what the gate is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from driven import Rows, assert_close, numbers, pool
from numpy.typing import NDArray
from plans import draw_exams, plan
from statsmodels.api import Logit

from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.protocol import FusionSpec
from fedcac.statistics import QueryError, estimator_for
from fedcac.statistics.resampling import deal_groups
from fedcac.vocabulary import CellStatus, RefusalCode, RowStatus

Vector = NDArray[np.float64]

PROBABILITY = "index_probability_100"
SPEC = FusionSpec(
    id="x", kind="fusion", covariates=("age", "sex"), cut_off=100.0, folds=2, bins=200
)
TERMS = ("(intercept)", f"logit({PROBABILITY})", "age", "sex")
AUCS = (("auc", "fusion"), ("auc", "image"), ("auc_difference", ""))


def site(seed: int, n: int = 60, **columns: Any) -> Exams:
    exams = draw_exams(seed, n, f"{seed}-", **columns)
    # No probability of 0 or 1, and the middle of a bin.
    p = (np.floor(exams.column(PROBABILITY) * 200).clip(1, 198) + 0.5) / 200
    return exams.with_column(PROBABILITY, p)


def design(exams: Exams) -> Vector:
    p = exams.column(PROBABILITY)
    columns = [np.ones(exams.n), np.log(p / (1 - p)), exams.column("age") / 10]
    return np.column_stack([*columns, exams.column("sex")])


def is_positive(exams: Exams) -> NDArray[np.bool_]:
    return exams.column("reference_score") > 100


def folds_of(exams: Exams) -> NDArray[np.int64]:
    return deal_groups(exams, f"{plan((SPEC,)).id}|x", 2)


def fitted(parts: Any, **how: Any) -> Rows:
    return pool(SPEC, parts, **how)


def assert_absent(rows: Rows, status: RowStatus) -> None:
    for measure, group in AUCS:
        row = rows["pooled", measure, group, "100"]
        assert (row.status, numbers(row)) == (status, (None,) * 5)


def delong(first: Vector, second: Vector, truth: NDArray[np.bool_]) -> tuple[Vector, Vector]:
    """Return two AUCs and their covariance from all pairs of a positive and a negative."""
    sides: tuple[list[Vector], list[Vector]] = ([], [])
    for values in (first, second):
        a, b = values[truth][:, None], values[~truth][None, :]
        kernel = (a > b) + 0.5 * (a == b)
        for axis in (0, 1):
            sides[axis].append(kernel.mean(axis=1 - axis))
    covariance = sum(np.cov(side) / len(side[0]) for side in sides)
    return np.mean(sides[0], axis=1), np.asarray(covariance)


def test_cross_validated_aucs_are_those_of_predictions_without_the_patients_fold() -> None:
    parts = {"a": site(1), "b": site(2, 80)}
    asked: list[Query] = []

    def listen(site: str, query: Query, answer: Any) -> Any:
        asked.append(query)
        return answer

    rows = fitted(parts, change=listen)
    x, truth, fold, image = (
        np.concatenate([part(exams) for exams in parts.values()])
        for part in (design, is_positive, folds_of, lambda exams: exams.column(PROBABILITY))
    )
    beta = np.array(next(q for q in asked if q.step == "histogram").values["beta"]).reshape(2, 4)
    for number in (0, 1):
        kept = fold != number
        fit = Logit(truth[kept].astype(float), x[kept]).fit(disp=0, tol=1e-12)
        assert np.all(np.abs(beta[number] - fit.params) < 0.01 * fit.bse)
    fused = 1 / (1 + np.exp(-np.einsum("ij,ij->i", x, beta[fold])))
    auc, covariance = delong(np.floor(fused * 200), np.floor(image * 200), truth)
    for number, group in enumerate(("fusion", "image")):
        row = rows["pooled", "auc", group, "100"]
        assert_close(row.estimate, auc[number])
        assert_close(row.se, covariance[number, number] ** 0.5)
        assert (row.n, row.n_events) == (140, truth.sum())
    row = rows["pooled", "auc_difference", "", "100"]
    assert_close(row.estimate, auc[0] - auc[1])
    assert_close(row.se, (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) ** 0.5)
    fit = Logit(truth.astype(float), x).fit(disp=0, tol=1e-12)
    for place, term in enumerate(TERMS):
        row = rows["pooled", "log_odds_ratio", "", term]
        assert_close(row.estimate, fit.params[place], 1e-6)
        assert_close(row.se, fit.bse[place], 1e-6)
        assert_close(row.p_value, fit.pvalues[place], 1e-6)
        assert (row.n, row.n_events, row.ci_method) == (140, truth.sum(), "wald")


def test_a_covariate_of_one_value_has_no_odds_ratio_and_the_others_have() -> None:
    ones = np.ones(60)
    parts = {"a": site(1, sex=ones), "b": site(2, sex=ones)}
    rows = fitted(parts)
    row = rows["pooled", "log_odds_ratio", "", "sex"]
    assert (row.status, numbers(row)) == (RowStatus.NOT_ESTIMABLE, (None,) * 5)
    assert row.n == 120
    x, truth = (
        np.concatenate([part(exams) for exams in parts.values()]) for part in (design, is_positive)
    )
    fit = Logit(truth.astype(float), x[:, :3]).fit(disp=0, tol=1e-12)
    assert_close(rows["pooled", "log_odds_ratio", "", "age"].estimate, fit.params[2], 1e-6)
    assert rows["pooled", "auc", "fusion", "100"].status is RowStatus.OK


def test_where_the_classes_are_separated_no_term_has_a_number() -> None:
    rows = fitted({"a": site(1), "b": site(2)})
    assert {rows["pooled", "log_odds_ratio", "", term].status for term in TERMS} == {RowStatus.OK}
    parts = {}
    for name, seed in (("a", 1), ("b", 2)):
        exams = site(seed)
        parts[name] = exams.with_column("sex", is_positive(exams).astype(float))
    rows = fitted(parts)
    for term in TERMS:
        row = rows["pooled", "log_odds_ratio", "", term]
        assert (row.status, numbers(row)) == (RowStatus.NOT_ESTIMABLE, (None,) * 5)
    assert_absent(rows, RowStatus.NOT_ESTIMABLE)


def test_of_nobody_no_patients_are_counted() -> None:
    rows = fitted({"a": RefusalCode.TOO_FEW_PATIENTS, "b": RefusalCode.EMPTY_COHORT})
    for term in TERMS:
        row = rows["pooled", "log_odds_ratio", "", term]
        assert (row.status, row.n, row.n_events) == (RowStatus.SUPPRESSED, None, None)
    assert rows["a", "log_odds_ratio", "", ""].status is RowStatus.SUPPRESSED
    assert rows["b", "log_odds_ratio", "", ""].status is RowStatus.NOT_APPLICABLE
    assert_absent(rows, RowStatus.SUPPRESSED)


@pytest.mark.parametrize("step", ["refit", "histogram", "placements"])
@pytest.mark.parametrize(
    ("code", "status"),
    [
        (RefusalCode.EMPTY_COHORT, RowStatus.NOT_APPLICABLE),
        (RefusalCode.BUDGET_SPENT, RowStatus.SUPPRESSED),
        (RefusalCode.INTERNAL, RowStatus.ERROR),
    ],
)
def test_aucs_whose_counts_all_refuse_say_why(
    step: str, code: RefusalCode, status: RowStatus
) -> None:
    def refuse(site: str, query: Query, answer: Any) -> Any:
        return code if query.step == step else answer

    rows = fitted({"a": site(1), "b": site(2)}, change=refuse)
    assert_absent(rows, status)
    assert rows["pooled", "log_odds_ratio", "", "age"].status is RowStatus.OK


@pytest.mark.parametrize("step", ["histogram", "placements"])
def test_aucs_whose_counts_all_are_withheld_are_suppressed(step: str) -> None:
    def withhold(site: str, query: Query, answer: Any) -> Any:
        if query.step != step:
            return answer
        if step == "placements":
            return answer.model_copy(update={"values": ((), ())})
        hidden = ((CellStatus.SUPPRESSED,) * 200,) * 2
        return answer.model_copy(update={"counts": (hidden, hidden)})

    assert_absent(fitted({"a": site(1), "b": site(2)}, change=withhold), RowStatus.SUPPRESSED)


def test_a_tie_in_the_lowest_bin_is_as_unsure_as_any_other() -> None:
    exams = site(1)
    p = np.where(np.arange(60) % 10 == 0, 0.0025, exams.column(PROBABILITY))
    rows = fitted({"a": exams.with_column(PROBABILITY, p)})
    truth = is_positive(exams)
    a, b = np.floor(p[truth] * 200)[:, None], np.floor(p[~truth] * 200)[None, :]
    assert np.any((a == 0) & (b == 0))
    assert_close(rows["pooled", "auc_error_bound", "image", "100"].estimate, np.mean(a == b) / 2)


def test_a_site_of_one_class_alone_gives_no_auc_where_the_other_gives_no_histogram() -> None:
    def refuse(site: str, query: Query, answer: Any) -> Any:
        return RefusalCode.BUDGET_SPENT if (site, query.step) == ("a", "histogram") else answer

    healthy = site(2, 40)
    parts = {"a": site(1), "b": healthy.where(~is_positive(healthy))}
    rows = fitted(parts, change=refuse)
    assert_absent(rows, RowStatus.NOT_ESTIMABLE)
    assert rows["pooled", "log_odds_ratio", "", "age"].status is RowStatus.OK


def test_a_probability_far_out_is_in_the_first_or_the_last_bin() -> None:
    exams = site(1)
    estimator = estimator_for("x", plan((SPEC,)))
    for intercept, place in ((1e6, 199), (-1e6, 0)):
        beta = (intercept, 0.0, 0.0, 0.0) * 2
        answer: Any = estimator.summarise(exams, Query(step="histogram", values={"beta": beta}))
        fused = np.array(answer.counts[0]).sum(axis=0)
        assert fused[place] == exams.n
    # With the image's logit alone as its predictor the model says what the image says.
    same = Query(step="histogram", values={"beta": (0.0, 1.0, 0.0, 0.0) * 2})
    answer = estimator.summarise(exams, same)
    assert answer.counts[0] == answer.counts[1]


@pytest.mark.parametrize("step", ["refit", "counts"])
def test_a_step_that_is_not_asked_is_an_error(step: str) -> None:
    estimator = estimator_for("x", plan((SPEC,)))
    values = {"beta": (0.0,) * 8, **({"starts_0_p1": (0.0,)} if step == "refit" else {})}
    with pytest.raises(QueryError, match=step):
        estimator.summarise(site(1), Query(step=step, values=values))


def test_what_the_gate_is_told_at_every_step() -> None:
    exams = site(1, 61)
    estimator = estimator_for("x", plan((SPEC,)))
    spread = design(exams).std(axis=0)
    beta = np.array([0.5, -1.0, 2.0, 0.3])
    query = Query(step="newton", values={"beta": tuple(beta.tolist())})
    evidence = estimator.summarise(exams, query).evidence
    n_women = int(exams.column("sex").sum())
    assert evidence is not None
    assert evidence.n_parameters == 4
    assert evidence.smallest_group == min(n_women, 61 - n_women)
    assert evidence.parameter_norm == pytest.approx(np.max(np.abs(beta) * spread))
    both = np.stack([beta, 1.5 * beta[::-1]])
    values = {"beta": tuple(both.reshape(-1).tolist())}
    evidence = estimator.summarise(exams, Query(step="refit", values=values)).evidence
    assert evidence is not None
    assert evidence.smallest_group == 30
    assert evidence.parameter_norm == pytest.approx(np.max(np.abs(both) * spread))
    # Nobody is placed: there is a number of positives, and as many as the smaller class.
    answer: Any = estimator.summarise(exams, Query(step="placements", values=values))
    n_positive = int(is_positive(exams).sum())
    assert answer.evidence.row_groups == (min(n_positive, 61 - n_positive),) * 2
    assert answer.evidence.nested == ((n_positive,),) * 2


def test_without_one_fold_the_gradient_is_that_of_the_others() -> None:
    exams = site(1)
    estimator = estimator_for("x", plan((SPEC,)))
    both = np.array([[0.5, 0.1, -0.2, 0.3], [-0.4, 0.8, 0.05, -0.1]])
    query = Query(step="refit", values={"beta": tuple(both.reshape(-1).tolist())})
    answer: Any = estimator.summarise(exams, query)
    x, truth, fold = design(exams), is_positive(exams), folds_of(exams)
    for number, beta in enumerate(both):
        kept = fold != number
        residual = truth[kept] - 1 / (1 + np.exp(-x[kept] @ beta))
        np.testing.assert_allclose(answer.values[number], x[kept].T @ residual, rtol=1e-9)
    assert (answer.n_patients, answer.n_events) == (60, truth.sum())
