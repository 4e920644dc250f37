"""Calibration of a risk at a horizon: rows, sums and evidence by hand; what one site withholds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from driven import assert_close, assert_same, numbers, pool
from plans import draw_exams, plan
from scipy import optimize, stats

from fedcac.exams import Exams
from fedcac.exchange import Query
from fedcac.protocol import SurvivalCalibrationSpec
from fedcac.statistics import QueryError, estimator_for
from fedcac.statistics.newton import newton_query
from fedcac.vocabulary import RefusalCode, RowStatus

Z95 = float(stats.norm.ppf(0.975))

SPEC = SurvivalCalibrationSpec(
    id="x",
    kind="survival_calibration",
    endpoint="mace",
    prediction="risk",
    horizon_days=700,
    risk_bins=(0.1, 0.2),
)


def followed(prefix: str, *patients: tuple[float, float, bool]) -> Exams:
    """Return patients with a risk, a follow-up and whether it ended with the event."""
    risk, days, event = (np.array(column, dtype=float) for column in zip(*patients, strict=True))
    return draw_exams(1, len(risk), prefix, risk=risk, follow_up_days=days, event=event)


# Of the lowest bin two of four have died by day 700, one before the third was censored.
A = followed(
    "a",
    (0.05, 100, True),
    (0.05, 200, False),
    (0.08, 700, True),
    (0.06, 900, False),
    (0.15, 300, True),
    (0.18, 800, True),
    (0.15, 900, False),
    (0.50, 650, True),
)
# One patient alone in the bin in the middle.
B = followed("b", (0.04, 500, True), (0.09, 800, False), (0.02, 900, False), (0.12, 1000, False))
BOTH = {"a": A, "b": B}


def test_the_lowest_bin_by_hand() -> None:
    rows = pool(SPEC, BOTH)
    row = rows["pooled", "observed_risk", "0-0.1", ""]
    # Site a: 3/4 after day 100, and half of it after day 700. Site b: 2/3.
    survivors = 4 * (3 / 4) / 2 + 3 * 2 / 3
    variance = (3 / 2) ** 2 * (1 / 12 + 1 / 2) + 2**2 * (1 / 6)
    observed, se = 1 - survivors / 7, variance**0.5 / 7
    assert numbers(row)[:2] == pytest.approx((observed, se))
    assert numbers(row)[2:4] == pytest.approx((max(0, observed - Z95 * se), observed + Z95 * se))
    assert (row.p_value, row.n, row.ci_method) == (None, 7, "greenwood")
    expected = rows["pooled", "expected_risk", "0-0.1", ""]
    assert_close(expected.estimate, (0.05 + 0.05 + 0.08 + 0.06 + 0.04 + 0.09 + 0.02) / 7)
    assert (expected.n, expected.ci_method, numbers(expected)[1:]) == (7, "", (None,) * 4)
    # A ratio is given of all patients alone.
    assert {key[2] for key in rows if key[1] == "oe_ratio"} == {""}


def test_the_ratio_by_hand() -> None:
    rows = pool(SPEC, BOTH)
    # Site a: 7/8, 6/7 ... at days 100, 300, 650 and 700; site b: 3/4.
    s = 7 / 8 * 5 / 6 * 4 / 5 * 3 / 4
    greenwood = 1 / (8 * 7) + 1 / (6 * 5) + 1 / (5 * 4) + 1 / (4 * 3)
    variance = (8 * s) ** 2 * greenwood + 3**2 * (1 / 12)
    observed, se = 1 - (8 * s + 3) / 12, variance**0.5 / 12
    mean = float(np.concatenate([A.column("risk"), B.column("risk")]).mean())
    assert numbers(rows["pooled", "observed_risk", "", ""])[:2] == pytest.approx((observed, se))
    row = rows["pooled", "oe_ratio", "", ""]
    ratio, error = observed / mean, se / mean
    assert numbers(row)[:2] == pytest.approx((ratio, error))
    assert numbers(row)[2:4] == pytest.approx((ratio - Z95 * error, ratio + Z95 * error))
    assert (row.n, row.ci_method) == (12, "greenwood")


def test_limits_stay_where_a_risk_and_a_ratio_can_be() -> None:
    patients = [(0.3, 100.0 + day, day == 0) for day in range(6)]
    few = pool(SPEC, {"a": followed("a", *patients)})
    low = few["pooled", "observed_risk", "", ""], few["pooled", "oe_ratio", "", ""]
    assert [row.ci_low for row in low] == [0, 0]
    assert_close(low[1].ci_high, low[0].ci_high / 0.3)
    patients = [(0.3, 100.0 + 200 * day, day < 5) for day in range(6)]
    most = pool(SPEC.model_copy(update={"horizon_days": 950}), {"a": followed("a", *patients)})
    assert most["pooled", "observed_risk", "", ""].ci_high == 1
    assert most["pooled", "oe_ratio", "", ""].ci_high > 1 / 0.3


def test_a_ratio_where_less_than_one_event_is_expected() -> None:
    row = pool(SPEC, {"b": B})["pooled", "oe_ratio", "", ""]
    assert_close(row.estimate, (1 / 4) / ((0.04 + 0.09 + 0.02 + 0.12) / 4))


def test_a_bin_of_one_patient_has_a_risk() -> None:
    row = pool(SPEC, {"b": B})["pooled", "observed_risk", "0.1-0.2", ""]
    # Alive at the horizon, as are all of the bin: no spread.
    assert (row.status, row.n, *numbers(row)) == (RowStatus.OK, 1, 0, None, None, None, None)
    expected = pool(SPEC, {"b": B})["pooled", "expected_risk", "0.1-0.2", ""]
    assert (expected.status, expected.n, expected.estimate) == (RowStatus.OK, 1, 0.12)


def test_a_bin_that_a_site_withholds_is_that_of_the_others() -> None:
    def withhold(site: str, query: Any, answer: Any) -> Any:
        if query.step != "bins" or site == "b":
            return answer
        return answer.model_copy(update={"values": ((), *answer.values[1:])})

    rows, alone, whole = pool(SPEC, BOTH, change=withhold), pool(SPEC, {"b": B}), pool(SPEC, BOTH)
    for measure in ("observed_risk", "expected_risk"):
        lowest = "pooled", measure, "0-0.1", ""
        assert_same(rows[lowest], alone[lowest])
        for label in ("0.1-0.2", "0.2-1", ""):
            assert_same(rows["pooled", measure, label, ""], whole["pooled", measure, label, ""])
    only = pool(SPEC, {"a": A}, change=withhold)["pooled", "observed_risk", "0-0.1", ""]
    assert (only.status, only.n, only.estimate) == (RowStatus.SUPPRESSED, None, None)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (RefusalCode.TOO_FEW_EVENTS, RowStatus.SUPPRESSED),
        (RefusalCode.EMPTY_COHORT, RowStatus.NOT_APPLICABLE),
    ],
)
def test_where_no_site_answers_every_row_says_why(code: RefusalCode, status: RowStatus) -> None:
    rows = pool(SPEC, {"a": code})
    assert {row.status for row in rows.values()} == {status}
    assert {(row.n, row.n_events) for row in rows.values()} == {(None, None)}
    assert sum(key[:2] == ("a", "calibration_slope") for key in rows) == 1


def test_the_slope_is_where_the_partial_likelihood_is_highest() -> None:
    """No two events of a site are on one day: each is one of those left at it."""
    row = pool(SPEC, BOTH)["pooled", "calibration_slope", "", ""]

    def lost(slope: float) -> float:
        total = 0.0
        for exams in BOTH.values():
            x = np.log(-np.log(1 - exams.column("risk")))
            time = exams.column("follow_up_days")
            for patient in np.flatnonzero(exams.column("event")):
                total += np.log(np.exp(slope * (x[time >= time[patient]] - x[patient])).sum())
        return total

    best = optimize.minimize_scalar(lost, (-1.0, 1.0), tol=1e-12)
    assert row.estimate == pytest.approx(best.x, abs=1e-6)
    curvature = (lost(best.x + 1e-3) - 2 * lost(best.x) + lost(best.x - 1e-3)) / 1e-6
    assert row.se == pytest.approx(curvature**-0.5, rel=1e-4)
    assert row.ci_high == pytest.approx(row.estimate + Z95 * row.se)
    assert (row.n, row.n_events, row.ci_method) == (12, 6, "wald")


def test_a_slope_of_predictions_that_are_all_the_same() -> None:
    flat = {site: exams.with_column("risk", np.full(exams.n, 0.15)) for site, exams in BOTH.items()}
    row = pool(SPEC, flat)["pooled", "calibration_slope", "", ""]
    assert (row.status, row.estimate) == (RowStatus.NOT_ESTIMABLE, None)
    assert (row.n, row.n_events) == (12, 6)


# --- what a site says of its sums -------------------------------------------------------------


def test_the_sums_of_a_site_and_whom_they_stand_for() -> None:
    found = estimator_for("x", plan((SPEC,))).summarise(A, Query(step="bins"))
    assert (found.n_patients, found.n_events) == (8, 5)
    assert [row[0] for row in found.values] == [4, 3, 1, 8]
    # Died by the horizon, of: 2 of 4, 1 of 3, 1 of 1, 4 of 8.
    assert found.evidence.row_groups == (2, 1, 0, 4)
    assert found.evidence.smallest_group == 4
    # The bins are parts of all patients, whose row is beside them.
    assert found.evidence.row_blocks == (0, 0, 0, -1)
    # Where most die, the others are the smaller group.
    most = followed("m", *[(0.05, 100.0 + day, day < 4) for day in range(5)])
    found = estimator_for("x", plan((SPEC,))).summarise(most, Query(step="bins"))
    assert found.evidence.row_groups == (1, 0, 0, 1)


def test_what_the_gate_is_told_of_the_slope() -> None:
    estimator = estimator_for("x", plan((SPEC,)))
    found = estimator.summarise(A, newton_query(np.array([-2.0])))
    spread = np.log(-np.log(1 - A.column("risk"))).std()
    assert (found.n_patients, found.n_events) == (8, 5)
    assert found.evidence.n_parameters == 1
    assert found.evidence.smallest_group is None
    assert_close(found.evidence.parameter_norm, 2 * spread)


def test_certain_predictions_count_as_one_in_a_million_from_certain() -> None:
    risk = np.array([0.0, 1.0, 0.5, 1e-6, 1 - 1e-6])
    exams = draw_exams(1, 5, risk=risk, follow_up_days=np.arange(5.0) + 1, event=np.ones(5))
    found = estimator_for("x", plan((SPEC,))).summarise(exams, newton_query(np.zeros(1)))
    x = np.log(-np.log(1 - np.clip(risk, 1e-6, 1 - 1e-6)))
    # Everybody dies in turn: the gradient is each one's distance from the mean of those left.
    assert_close(found.gradient[0], sum(x[day] - x[day:].mean() for day in range(5)))
    assert_close(found.information[0][0], sum(x[day:].var() for day in range(5)))


@pytest.mark.parametrize(
    "query",
    [
        Query(step="other"),
        Query(step="other", values={"beta": (1.0,)}),
        newton_query(np.zeros(2)),
        newton_query(np.array([1e308])),
    ],
)
def test_what_survival_calibration_is_not_asked(query: Query) -> None:
    with pytest.raises(QueryError):
        estimator_for("x", plan((SPEC,))).summarise(A, query)


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_one_prediction_that_is_no_risk(value: float) -> None:
    risk = np.where(np.arange(8) == 3, value, A.column("risk"))
    with pytest.raises(ValueError, match="between 0 and 1"):
        estimator_for("x", plan((SPEC,))).summarise(A.with_column("risk", risk), Query(step="bins"))
