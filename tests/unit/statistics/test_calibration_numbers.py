"""Calibration of a few predictions by hand: risks by bin, intercept and slope, and what is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from driven import assert_close, assert_same, numbers, pool
from numpy.typing import NDArray
from plans import draw_exams, plan
from scipy import special, stats

from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.protocol import CalibrationSpec
from fedcac.statistics import QueryError, estimator_for
from fedcac.statistics.logistic import logistic_terms, logit
from fedcac.vocabulary import RefusalCode, RowStatus

Vector = NDArray[np.float64]

ONE = CalibrationSpec(id="x", kind="calibration", cut_offs=(100.0,), risk_bins=(0.1, 0.5))
TWO = CalibrationSpec(id="x", kind="calibration", cut_offs=(10.0, 100.0), risk_bins=(0.3,))
# Predicted risk and whether the reference is above 100.
RISK = np.array([0.05] * 10 + [0.2] * 15 + [0.4] * 15 + [0.7] * 10)
POSITIVE = np.array([1] + [0] * 9 + [1] * 4 + [0] * 11 + [1] * 5 + [0] * 10 + [1] * 6 + [0] * 4)


def site(risk: Vector, positive: Vector, prefix: str = "k") -> Exams:
    """Return patients whose reference is 200 or 5; of the latter every third's is 50."""
    low = np.where(np.arange(len(risk)) % 3 == 0, 50.0, 5.0)
    columns = {
        "reference_score": np.where(positive == 1, 200.0, low),
        "index_probability_100": risk,
        "index_probability_10": np.sqrt(risk),
    }
    return draw_exams(3, len(risk), prefix, **columns)


def wilson(k: float, n: float) -> tuple[float, float]:
    found = stats.binomtest(int(k), int(n)).proportion_ci(0.95, method="wilson")
    return found.low, found.high


def test_risks_by_bin() -> None:
    parts = {"a": site(RISK[::2], POSITIVE[::2], "a"), "b": site(RISK[1::2], POSITIVE[1::2], "b")}
    rows = pool(ONE, parts)
    expected = {
        "0-0.1": (10, 1, 0.05),
        "0.1-0.5": (30, 9, 0.3),
        "0.5-1": (10, 6, 0.7),
        "": (50, 16, 0.33),
    }
    for group, (n, k, mean) in expected.items():
        row = rows["pooled", "observed_risk", group, "100"]
        assert_close(row.estimate, k / n)
        low, high = wilson(k, n)
        assert_close(row.ci_low, low)
        assert_close(row.ci_high, high)
        assert (row.n, row.se, row.ci_method, row.p_value) == (n, None, "wilson", None)
        row = rows["pooled", "expected_risk", group, "100"]
        assert_close(row.estimate, mean)
        assert (row.n, row.se, row.ci_low, row.ci_method) == (n, None, None, "")
    ratio = rows["pooled", "oe_ratio", "", "100"]
    assert_close(ratio.estimate, 16 / 16.5)
    assert_close(ratio.se, 4 / 16.5)
    assert_close(ratio.ci_low, (16 - 4 * stats.norm.ppf(0.975)) / 16.5)
    assert_close(ratio.ci_high, (16 + 4 * stats.norm.ppf(0.975)) / 16.5)
    assert (ratio.n, ratio.ci_method, ratio.status) == (50, "wald", RowStatus.OK)


def test_a_ratio_of_numbers_is_never_below_zero() -> None:
    one = np.append(np.zeros(39), 1)
    row = pool(ONE, {"a": site(np.full(40, 0.05), one)})["pooled", "oe_ratio", "", "100"]
    # One observed among two expected: 1/2 +- 1.96 / 2.
    assert_close(row.estimate, 0.5)
    assert row.ci_low == 0
    assert_close(row.ci_high, 0.5 + stats.norm.ppf(0.975) / 2)


def test_bins_of_one_patient_and_of_nobody() -> None:
    risk = np.array([0.05] * 4 + [0.7])
    rows = pool(ONE, {"a": site(risk, np.array([0, 1, 0, 0, 1]))})
    row = rows["pooled", "observed_risk", "0.5-1", "100"]
    low, high = wilson(1, 1)
    assert (row.estimate, row.n) == (1.0, 1)
    assert_close(row.ci_low, low)
    assert_close(row.ci_high, high)
    assert_close(rows["pooled", "expected_risk", "0.5-1", "100"].estimate, 0.7)
    # Fewer than one expected.
    row = rows["pooled", "oe_ratio", "", "100"]
    assert_close(row.estimate, 2 / 0.9)
    for measure in ("observed_risk", "expected_risk"):
        row = rows["pooled", measure, "0.1-0.5", "100"]
        assert (row.status, row.n, numbers(row)) == (RowStatus.NOT_ESTIMABLE, 0, (None,) * 5)
    nothing = pool(ONE, {"a": site(np.zeros(5), np.array([0, 1, 0, 0, 1]))})
    row = nothing["pooled", "oe_ratio", "", "100"]
    assert (row.status, row.n, numbers(row)) == (RowStatus.NOT_ESTIMABLE, 5, (None,) * 5)


def test_all_predictions_alike_have_an_intercept_and_no_slope() -> None:
    positive = np.append(np.ones(12), np.zeros(28))
    rows = pool(ONE, {"a": site(np.full(40, 0.2), positive)})
    row = rows["pooled", "calibration_intercept", "", "100"]
    # What was observed and what was predicted, as logits; the information is n p (1 - p).
    assert_close(row.estimate, special.logit(0.3) - special.logit(0.2))
    se = (40 * 0.3 * 0.7) ** -0.5
    assert_close(row.se, se)
    assert_close(row.ci_low, row.estimate - stats.norm.ppf(0.975) * se)
    assert_close(row.ci_high, row.estimate + stats.norm.ppf(0.975) * se)
    assert (row.n, row.p_value, row.ci_method) == (40, None, "wald")
    row = rows["pooled", "calibration_slope", "", "100"]
    assert (row.status, row.n, numbers(row)) == (RowStatus.NOT_ESTIMABLE, 40, (None,) * 5)


def test_two_predictions_have_the_slope_between_them() -> None:
    risk = np.repeat([0.2, 0.6], (40, 20))
    positive = np.concatenate([np.ones(12), np.zeros(28), np.ones(9), np.zeros(11)])
    rows = pool(ONE, {"a": site(risk, positive)})
    row = rows["pooled", "calibration_slope", "", "100"]
    distance = special.logit(0.6) - special.logit(0.2)
    assert_close(row.estimate, (special.logit(0.45) - special.logit(0.3)) / distance)
    # The difference of two independent logits.
    se = (1 / (40 * 0.3 * 0.7) + 1 / (20 * 0.45 * 0.55)) ** 0.5 / distance
    assert_close(row.se, se)
    assert_close(row.ci_high, row.estimate + stats.norm.ppf(0.975) * se)
    assert row.n == 60


def test_cut_offs_are_fitted_side_by_side() -> None:
    parts = {"a": site(RISK, POSITIVE)}
    rows = pool(TWO, parts)
    for cut in (10.0, 100.0):
        alone = pool(TWO.model_copy(update={"cut_offs": (cut,)}), parts)
        own = {key: row for key, row in rows.items() if key[3] == f"{cut:g}"}
        assert own.keys() == alone.keys()
        for key, row in alone.items():
            assert_same(rows[key], row)


def test_withheld_bins_hide_what_they_are_part_of() -> None:
    parts = {"a": site(RISK, POSITIVE, "a"), "b": site(RISK[::-1], POSITIVE, "b")}

    def bins_alone(_: str, query: Query, answer: Any) -> Any:
        return answer if query.step == "bins" else RefusalCode.BUDGET_SPENT

    def withhold(name: str, query: Query, answer: Any) -> Any:
        if name != "b" or query.step != "bins":
            return bins_alone(name, query, answer)
        return answer.model_copy(update={"values": (*answer.values[:2], (), answer.values[3])})

    rows = pool(TWO, parts, change=withhold)
    whole = pool(TWO, parts, change=bins_alone)
    for key, row in whole.items():
        if key[2:] == ("0-0.3", "100"):
            # Of this bin the other site gives all there is.
            alone = pool(TWO, {"a": parts["a"]}, change=bins_alone)
            assert (numbers(rows[key]), rows[key].n) == (numbers(alone[key]), alone[key].n)
        elif key[1] in ("observed_risk", "expected_risk", "oe_ratio") and key[2:] == ("", "100"):
            assert rows[key].status is RowStatus.SUPPRESSED
            assert (rows[key].n, numbers(rows[key])) == (None, (None,) * 5)
        else:
            assert rows[key] == row
    # A bin that every site withholds.
    none = pool(TWO, {"b": parts["b"]}, change=withhold)
    row = none["pooled", "observed_risk", "0-0.3", "100"]
    assert (row.status, row.n, row.ci_low) == (RowStatus.SUPPRESSED, None, None)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (RefusalCode.EMPTY_COHORT, RowStatus.NOT_APPLICABLE),
        (RefusalCode.TOO_FEW_EVENTS, RowStatus.SUPPRESSED),
    ],
)
def test_where_all_refuse_every_row_says_why(code: RefusalCode, status: RowStatus) -> None:
    rows = pool(TWO, {"a": code, "b": code})
    assert {key[0] for key in rows} == {"pooled", "a", "b"}
    for row in rows.values():
        assert (row.status, row.n, row.n_events, numbers(row)) == (status, None, None, (None,) * 5)
    own = [key[1:] for key in rows if key[0] == "b"]
    assert own == [("calibration_slope", "", "10"), ("calibration_slope", "", "100")]


# --- what a site tells its gate ---------------------------------------------------------------


def test_the_bins_of_a_site_and_who_is_behind_them() -> None:
    estimator = estimator_for("x", plan((TWO,)))
    found = estimator.summarise(site(RISK, POSITIVE), Query(step="bins"))
    reference = site(RISK, POSITIVE).column("reference_score")
    values, groups = [], []
    for cut, risk in ((10, np.sqrt(RISK)), (100, RISK)):
        for own in (risk < 0.3, risk >= 0.3):
            observed = int(np.sum(reference[own] > cut))
            values.append((own.sum(), observed, risk[own].sum()))
            groups.append(min(observed, int(own.sum()) - observed))
    np.testing.assert_allclose(found.values, values, rtol=1e-12)
    assert (found.n_patients, found.n_events) == (50, None)
    assert found.evidence.row_groups == tuple(groups)
    assert found.evidence.smallest_group == max(groups)
    assert found.evidence.row_blocks == (0, 0, 1, 1)
    wider, narrow = int(np.sum(reference > 10)), 16
    assert found.evidence.nested == ((wider,), (wider,), (narrow,), (narrow,))


def test_the_likelihood_of_a_site_and_who_is_behind_it() -> None:
    estimator = estimator_for("x", plan((TWO,)))
    exams = site(RISK, POSITIVE)
    beta = np.array([0.3, -0.2, 0.8, -0.5, 0.4, 1.1])
    found = estimator.summarise(exams, Query(step="newton", values={"beta": tuple(beta.tolist())}))
    reference = exams.column("reference_score")

    def log_likelihood(b: Vector) -> float:
        total = 0.0
        for (a, c, d), cut, risk in zip(
            b.reshape(2, 3), (10, 100), (np.sqrt(RISK), RISK), strict=True
        ):
            y, x = reference > cut, np.log(risk / (1 - risk))
            for eta in (a + x, c + d * x):
                total += float(np.sum(np.log(np.where(y, special.expit(eta), special.expit(-eta)))))
        return total

    assert_close(found.log_likelihood, log_likelihood(beta), 1e-12)
    steps = np.diag(np.full(6, 1e-3))
    slope = [
        (8 * (log_likelihood(beta + e) - log_likelihood(beta - e)))
        - (log_likelihood(beta + 2 * e) - log_likelihood(beta - 2 * e))
        for e in steps
    ]
    np.testing.assert_allclose(found.gradient, np.array(slope) / 12e-3, rtol=1e-7)
    bend = [
        [
            log_likelihood(beta + e + f)
            - log_likelihood(beta + e - f)
            - log_likelihood(beta - e + f)
            + log_likelihood(beta - e - f)
            for e in 3 * steps
        ]
        for f in 3 * steps
    ]
    np.testing.assert_allclose(found.information, -np.array(bend) / 36e-6, rtol=1e-4, atol=1e-4)
    wider = int(np.sum(reference > 10))
    # The smaller class of either cut-off; the number of events is that cut-off's.
    assert (found.n_patients, found.n_events) == (50, 16)
    assert min(wider, 50 - wider) > 16
    assert (found.evidence.n_parameters, found.evidence.smallest_group) == (6, 16)
    assert found.evidence.nested == ((wider,), (16,))
    # The largest coefficient per standard deviation of its column.
    spreads = [np.std(np.log(risk / (1 - risk))) for risk in (np.sqrt(RISK), RISK)]
    assert_close(found.evidence.parameter_norm, max(0.8 * spreads[0], 1.1 * spreads[1]))
    for query in (Query(step="counts"), Query(step="newton", values={"beta": (0.0,) * 5})):
        with pytest.raises(QueryError):
            estimator.summarise(exams, query)


def test_the_classes_of_a_cut_off_with_few_negatives() -> None:
    estimator = estimator_for("x", plan((ONE,)))
    positive = np.append(np.ones(44), np.zeros(6))
    query = Query(step="newton", values={"beta": (0.0,) * 3})
    found = estimator.summarise(site(RISK, positive), query)
    assert (found.n_events, found.evidence.smallest_group) == (44, 6)
    assert found.evidence.parameter_norm == 0


# --- the logistic likelihood ------------------------------------------------------------------


def test_probabilities_of_0_and_1_have_a_logit() -> None:
    found = logit(np.array([0.0, 1e-7, 1e-6, 0.2, 1 - 1e-6, 1.0]))
    end = np.log(1e-6 / (1 - 1e-6))
    np.testing.assert_allclose(found, [end, end, end, np.log(0.25), -end, -end], rtol=1e-9)


def test_logistic_terms_with_an_offset_by_hand() -> None:
    x, beta = np.array([[1.0, 2.0], [1.0, -1.0]]), np.array([0.5, 0.25])
    found = logistic_terms(x, np.array([True, False]), beta, np.array([0.0, 1.0]))
    p = 1 / (1 + np.exp([-1.0, -1.25]))
    assert_close(found.log_likelihood, np.log(p[0]) + np.log(1 - p[1]), 1e-14)
    np.testing.assert_allclose(
        found.gradient, [(1 - p[0]) - p[1], 2 * (1 - p[0]) + p[1]], rtol=1e-13
    )
    w = p * (1 - p)
    np.testing.assert_allclose(
        found.information,
        [[w[0] + w[1], 2 * w[0] - w[1]], [2 * w[0] - w[1], 4 * w[0] + w[1]]],
        rtol=1e-13,
    )
    far = logistic_terms(np.ones((2, 1)), np.array([True, False]), np.array([800.0]), np.zeros(2))
    assert (far.log_likelihood, far.information[0, 0]) == (-800.0, 0.0)
