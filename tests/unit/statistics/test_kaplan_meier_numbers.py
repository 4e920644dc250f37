"""Curves and log-rank terms of small, absent and merged groups, by hand, and by other software."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from driven import Rows, assert_close, numbers, pool
from numpy.typing import NDArray
from plans import draw_exams, plan
from scipy import stats
from statsmodels.duration.survfunc import SurvfuncRight, survdiff

from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import KaplanMeierSpec
from fedcac.statistics import QueryError, estimator_for
from fedcac.statistics.kaplan_meier import KaplanMeierTable, LogRankTotals
from fedcac.statistics.life_table import (
    kaplan_meier_at,
    kaplan_meier_variance,
    life_table_curve,
    log_rank_terms,
)
from fedcac.vocabulary import CellStatus, RefusalCode, RowStatus

Vector = NDArray[np.float64]

Z95 = stats.norm.ppf(0.975)


def spec(by: str = "vendor", bin_days: int = 100, horizon_days: int = 300) -> KaplanMeierSpec:
    return KaplanMeierSpec(
        id="x",
        kind="kaplan_meier",
        endpoint="mace",
        by=by,
        bin_days=bin_days,
        horizon_days=horizon_days,
    )


def exams_of(*groups: Sequence[tuple[float, int]], seed: int = 1) -> Exams:
    """Return patients as (days, event) of the vendors a, b and c."""
    rows = [(day, event, number) for number, own in enumerate(groups) for day, event in own]
    time, event, vendor = np.array(rows, dtype=float).reshape(-1, 3).T
    columns = {"follow_up_days": time, "event": event, "vendor": vendor}
    return draw_exams(seed, len(rows), f"{seed}-", **columns)


def drawn(seed: int, n: int, n_groups: int = 3, scale: float = 150) -> Exams:
    rng = np.random.default_rng(seed)
    vendor = rng.integers(0, n_groups, n).astype(float)
    columns = {
        "vendor": vendor,
        "follow_up_days": np.ceil(rng.exponential(scale * (1 + vendor / 2), n)),
        "event": (rng.random(n) < 0.6).astype(float),
    }
    return draw_exams(seed, n, f"{seed}-", **columns)


def column(parts: dict[str, Exams], name: str) -> Vector:
    return np.concatenate([exams.column(name) for exams in parts.values()])


# --- what the gate is told ------------------------------------------------------------------


def log_rank(exams: Exams) -> LogRankTotals:
    answer = estimator_for("x", plan((spec(),))).summarise(exams, Query(step="log_rank"))
    assert isinstance(answer, LogRankTotals)
    return answer


@pytest.mark.parametrize(
    ("groups", "smallest"),
    [
        # With and without the event: 3 and 4, then 5 and 3; nobody has the vendor c.
        ([[(9, 1)] * 3 + [(50, 0)] * 4, [(20, 1)] * 5 + [(60, 0)] * 3], 3),
        ([[(9, 1)] * 3 + [(50, 0)] * 4, [(20, 1)] * 5 + [(60, 0)] * 2], 2),
        # One patient alone is on one side or the other.
        ([[(9, 1)] * 3 + [(50, 0)] * 4, [(20, 1)]], 0),
        ([[(9, 1)] * 3 + [(50, 0)] * 4, [], [(20, 0)]], 0),
        ([[(9, 1)] * 3 + [(50, 0)] * 4, [], [(20, 0), (5, 1)]], 1),
        ([], 0),
    ],
)
def test_the_smallest_group_is_of_those_a_site_has_with_or_without_the_event(
    groups: list[list[tuple[float, int]]], smallest: int
) -> None:
    answer = log_rank(exams_of(*groups))
    assert answer.evidence is not None
    assert answer.evidence.smallest_group == smallest
    assert answer.n_patients == sum(len(own) for own in groups)
    assert answer.n_events == sum(event for own in groups for _, event in own)


def test_the_table_says_how_many_had_the_event_in_each_group() -> None:
    own = exams_of([(9, 1)] * 3 + [(50, 0)] * 4, [], [(250, 1), (300, 1), (301, 1), (5, 0)])
    answer = estimator_for("x", plan((spec(),))).summarise(own, Query(step="table"))
    assert isinstance(answer, KaplanMeierTable)
    assert answer.evidence is not None
    # Whoever has it after the horizon has it, too.
    assert answer.evidence.row_groups == (3, 0, 3)
    assert (answer.n_patients, answer.n_events) == (11, 6)
    assert answer.edges == ((0, 1, 2, 3),) * 3
    assert answer.at_risk == ((7, 0, 0), (0, 0, 0), (4, 3, 3))
    assert answer.events == ((3, 0, 0), (0, 0, 0), (0, 0, 2))
    assert answer.censored == ((4, 0, 0), (0, 0, 0), (1, 0, 0))
    calm = exams_of([(9, 1)] * 3 + [(50, 0)] * 4, [(50, 0)] * 2)
    answer = estimator_for("x", plan((spec(),))).summarise(calm, Query(step="table"))
    assert answer.evidence is not None
    assert answer.evidence.row_groups == (3, 0, 0)


@pytest.mark.parametrize(
    "query",
    [Query(step="table", values={"at": (1.0,)}), Query(step="log_rank", values={"at": (1.0,)})],
)
def test_neither_question_has_values(query: Query) -> None:
    with pytest.raises(QueryError):
        estimator_for("x", plan((spec(),))).summarise(drawn(1, 20), query)


# --- curves ---------------------------------------------------------------------------------


def test_daily_curves_over_sites_are_those_of_statsmodels() -> None:
    parts = {"a": drawn(1, 40, scale=8), "b": drawn(2, 25, 2, scale=8)}
    rows = pool(spec(bin_days=1, horizon_days=12), parts)
    time, event, vendor = (column(parts, name) for name in ("follow_up_days", "event", "vendor"))
    for number, label in enumerate("abc"):
        own = vendor == number
        curve = SurvfuncRight(time[own], event[own])
        for day in (4, 8, 12):
            row, at = rows["pooled", "survival", label, f"{day}"], curve.surv_times <= day
            survival, se = curve.surv_prob[at][-1], curve.surv_prob_se[at][-1]
            assert_close(row.estimate, survival)
            assert_close(row.se, se)
            # log(-log S) with its error se / (S |log S|).
            half = Z95 * se / (survival * -np.log(survival))
            assert_close(row.ci_low, survival ** np.exp(half))
            assert_close(row.ci_high, survival ** np.exp(-half))
            assert (row.n, row.n_events) == (own.sum(), (own & (event == 1) & (time <= day)).sum())
            assert row.ci_method == "log_log"


def test_where_all_had_the_event_the_curve_ends_without_an_interval() -> None:
    rows = pool(spec(), {"a": exams_of([(50, 1)] * 2 + [(150, 1)] * 2)})
    half, end = (rows["pooled", "survival", "a", day] for day in ("100", "200"))
    assert_close(half.estimate, 0.5)
    assert_close(half.se, 0.25)
    assert half.ci_method == "log_log"
    assert (numbers(end), end.ci_method, end.n_events) == ((0, None, None, None, None), "", 4)
    assert rows["pooled", "survival", "a", "300"].estimate == 0
    left = [rows["pooled", "at_risk", "a", day].estimate for day in ("0", "100", "200", "300")]
    assert left == [4, 2, 0, 0]


@pytest.mark.parametrize(("days", "exposed"), [(1, 10), (2, 8), (30, 8)])
def test_half_of_the_censored_count_in_bins_of_more_than_a_day(days: int, exposed: int) -> None:
    curve = life_table_curve(np.array([10]), np.array([3]), np.array([4]), np.array([days]))
    assert_close(curve.survival[0], 1 - 3 / exposed)
    assert_close(curve.se[0], (3 * (exposed - 3) / exposed**3) ** 0.5)


def test_where_the_last_ones_are_censored_the_curve_stays_where_it_was() -> None:
    rows = pool(spec(), {"a": exams_of([(50, 1), (60, 0)])})
    # One of 2 - 1/2; Greenwood's sum is 1 / (1.5 * 0.5).
    for day in ("100", "200", "300"):
        row = rows["pooled", "survival", "a", day]
        assert_close(row.estimate, 1 / 3)
        assert_close(row.se, (4 / 3) ** 0.5 / 3)
        assert row.ci_method == "log_log"


def test_before_the_first_event_survival_is_the_point_1() -> None:
    rows = pool(spec(), {"a": exams_of([(150, 1), (250, 0), (350, 0)])})
    row = rows["pooled", "survival", "a", "100"]
    assert (row.estimate, row.ci_low, row.ci_high, row.n_events) == (1, 1, 1, 0)


def merged(kept: tuple[int, ...]) -> Callable[[Any], Any]:
    """Return a gate that shows of the first group's table these edges alone."""

    def merge(answer: Any) -> Any:
        if not isinstance(answer, KaplanMeierTable):
            return answer
        at_risk = tuple(answer.at_risk[0][edge] for edge in kept[:-1])
        events, censored = (
            tuple(sum(row[a:b]) for a, b in pairwise(kept))
            for row in (answer.events[0], answer.censored[0])
        )
        own = {"edges": kept, "at_risk": at_risk, "events": events, "censored": censored}
        return answer.model_copy(
            update={name: (part, *getattr(answer, name)[1:]) for name, part in own.items()}
        )

    return merge


def shown(parts: dict[str, Exams], bin_days: int = 100, **gates: Callable[[Any], Any]) -> Rows:
    def change(site: str, _: Any, answer: Any) -> Any:
        return gates[site](answer) if site in gates else answer

    return pool(spec(bin_days=bin_days), parts, change=change)


def test_sites_that_merged_bins_share_the_edges_that_all_show() -> None:
    first = [(50, 1)] * 2 + [(150, 0)] * 2 + [(250, 1)] * 3 + [(400, 0)] * 5
    second = [(50, 0)] * 4 + [(150, 1)] * 4 + [(290, 0)] * 2 + [(400, 0)] * 8
    parts = {"a": exams_of(first, seed=1), "b": exams_of(second, seed=2)}
    rows = shown(parts, a=merged((0, 2, 3)))
    assert [key[3] for key in rows if key[1:3] == ("survival", "a")] == ["200", "300"]
    # Up to day 200: 30 at risk, 6 events, 6 censored; then 18, 3 and 2.
    one = 1 - 6 / (30 - 3)
    row = rows["pooled", "survival", "a", "200"]
    assert_close(row.estimate, one)
    assert_close(row.se, one * (6 / (27 * 21)) ** 0.5)
    assert (row.n, row.n_events) == (30, 6)
    row = rows["pooled", "survival", "a", "300"]
    assert_close(row.estimate, one * (1 - 3 / (18 - 1)))
    assert row.n_events == 9
    left = [rows["pooled", "at_risk", "a", day] for day in ("0", "200", "300")]
    assert [(row.estimate, row.n) for row in left] == [(30, 30), (18, 30), (13, 30)]


def test_edges_of_many_bins_stay_in_order() -> None:
    parts = {"a": drawn(1, 60, 1), "b": drawn(2, 60, 1)}
    rows = shown(parts, 30, a=merged((0, 2, 9)))
    assert [key[3] for key in rows if key[1:3] == ("survival", "a")] == ["60", "270"]
    assert [key[3] for key in rows if key[1:3] == ("at_risk", "a")] == ["0", "60", "270"]
    time = column(parts, "follow_up_days")
    for day in (60, 270):
        assert rows["pooled", "at_risk", "a", f"{day}"].estimate == np.sum(time > day)


def test_a_site_that_cut_the_end_off_ends_the_curve_there() -> None:
    parts = {"a": drawn(1, 60, 1), "b": drawn(2, 60, 1)}
    rows, full = shown(parts, b=merged((0, 1))), pool(spec(), parts)
    assert [key for key in rows if key[1:3] == ("survival", "a")] == [
        ("pooled", "survival", "a", "100")
    ]
    key = "pooled", "survival", "a", "100"
    assert rows[key] == full[key]
    assert rows["pooled", "at_risk", "a", "100"] == full["pooled", "at_risk", "a", "100"]


def test_sites_without_an_edge_in_common_show_no_curve() -> None:
    parts = {"a": drawn(1, 60, 1), "b": drawn(2, 60, 1)}
    rows = shown(parts, a=merged((0, 2)), b=merged((0, 3)))
    own = {key: row for key, row in rows.items() if key[2] == "a"}
    assert list(own) == [("pooled", "survival", "a", "")]
    assert {row.status for row in own.values()} == {RowStatus.SUPPRESSED}


def one_group_more(answer: Any) -> Any:
    if not isinstance(answer, KaplanMeierTable):
        return answer
    parts = {name: getattr(answer, name) for name in ("edges", "at_risk", "events", "censored")}
    return answer.model_copy(update={name: (*part, part[0]) for name, part in parts.items()})


def one_bin_more(answer: Any) -> Any:
    """Let the last bin end one edge beyond the horizon."""
    if not isinstance(answer, KaplanMeierTable):
        return answer
    far = tuple((*edges[:-1], edges[-1] + 1) for edges in answer.edges)
    return answer.model_copy(update={"edges": far})


@pytest.mark.parametrize("wrong", [one_group_more, one_bin_more])
def test_a_table_of_another_shape_is_a_fault_at_its_site(wrong: Callable[[Any], Any]) -> None:
    parts = {"a": drawn(1, 60), "b": drawn(2, 60)}
    rows, alone = shown(parts, a=wrong), pool(spec(), {"b": parts["b"]})
    assert rows["a", "survival", "", ""].status is RowStatus.ERROR
    for key, row in alone.items():
        if key[1] != "logrank_chi2":
            assert rows[key] == row


@pytest.mark.parametrize("name", ["at_risk", "events", "censored", "edges"])
def test_a_withheld_count_leaves_the_site_out_of_that_curve_alone(name: str) -> None:
    def hide(answer: Any) -> Any:
        if not isinstance(answer, KaplanMeierTable):
            return answer
        if name == "edges":
            parts = ("edges", "at_risk", "events", "censored")
            return answer.model_copy(
                update={part: ((), *getattr(answer, part)[1:]) for part in parts}
            )
        first, *rest = getattr(answer, name)
        return answer.model_copy(update={name: ((*first[:-1], CellStatus.SUPPRESSED), *rest)})

    parts = {"a": drawn(1, 60, 2), "b": drawn(2, 60, 2)}
    rows = shown(parts, a=hide)
    alone, both = pool(spec(), {"b": parts["b"]}), pool(spec(), parts)
    for key, row in rows.items():
        if key[2] in ("a", "b"):
            assert row == (alone if key[2] == "a" else both)[key]


def test_a_site_without_the_group_does_not_end_the_others_curve() -> None:
    parts = {"a": drawn(1, 60, 1), "b": drawn(2, 60, 2)}
    rows, alone = pool(spec(), parts), pool(spec(), {"b": parts["b"]})
    for key, row in alone.items():
        if key[2] == "b":
            assert rows[key] == row
    assert rows["pooled", "survival", "c", ""].status is RowStatus.SUPPRESSED


@pytest.mark.parametrize(
    ("code", "status"),
    [(RefusalCode.TOO_FEW_EVENTS, "suppressed"), (RefusalCode.NO_REPLY, "error")],
)
def test_where_all_sites_refuse_each_curve_has_a_row_that_says_why(
    code: RefusalCode, status: str
) -> None:
    rows = pool(spec(), {"a": code, "b": code})
    assert set(rows) == {
        *(("pooled", "survival", label, "") for label in "abc"),
        ("pooled", "logrank_chi2", "", ""),
        *((site, "survival", "", "") for site in "ab"),
    }
    assert {row.status.value for row in rows.values()} == {status}


# --- the log-rank test ----------------------------------------------------------------------


def test_the_log_rank_test_over_sites_is_the_stratified_one() -> None:
    parts = {"a": drawn(1, 70), "b": drawn(2, 50, 2), "c": drawn(3, 40)}
    row = pool(spec(), parts)["pooled", "logrank_chi2", "", ""]
    time, event, vendor = (column(parts, name) for name in ("follow_up_days", "event", "vendor"))
    site = np.repeat(np.arange(3), [70, 50, 40])
    chi2, p_value = survdiff(time, event.astype(int), vendor, strata=site)
    assert_close(row.estimate, chi2)
    assert_close(row.p_value, p_value)
    assert (row.n, row.n_events) == (160, event.sum())


def test_a_site_that_withholds_its_terms_is_left_out_of_the_test() -> None:
    parts = {"a": drawn(1, 70), "b": drawn(2, 50)}

    def refuse(answer: Any) -> Any:
        return RefusalCode.TOO_FEW_EVENTS if isinstance(answer, LogRankTotals) else answer

    def empty(answer: Any) -> Any:
        if not isinstance(answer, LogRankTotals):
            return answer
        return answer.model_copy(update={"values": (*answer.values[:-1], ())})

    alone = pool(spec(), {"a": parts["a"]})
    for withhold in (refuse, empty):
        rows, key = shown(parts, b=withhold), ("pooled", "logrank_chi2", "", "")
        assert rows[key] == alone[key]
        assert rows["pooled", "survival", "a", "100"].n > alone["pooled", "survival", "a", "100"].n


def test_log_rank_terms_of_untied_times_by_hand() -> None:
    # At risk of 4, 3 and 1: shares of the first group 1/2, 1/3 and 0.
    time, event = np.array([1.0, 3.0, 5.0, 9.0]), np.array([True, True, False, True])
    observed, expected, variance = log_rank_terms(time, event, np.array([0, 1, 0, 1]), 3)
    np.testing.assert_array_equal(observed, [1, 2, 0])
    np.testing.assert_allclose(expected, [5 / 6, 13 / 6, 0])
    v = 1 / 4 + 2 / 9
    np.testing.assert_allclose(variance, [[v, -v, 0], [-v, v, 0], [0, 0, 0]], atol=1e-15)


def test_survival_at_a_horizon_and_its_variance_are_those_of_statsmodels() -> None:
    rng = np.random.default_rng(4)
    time, event = rng.integers(1, 30, 80).astype(float), rng.random(80) < 0.5
    curve = SurvfuncRight(time, event.astype(int))
    for horizon in (3.0, 10.5, 25.0):
        at = curve.surv_times <= horizon
        assert_close(kaplan_meier_at(time, event, horizon), curve.surv_prob[at][-1])
        assert_close(kaplan_meier_variance(time, event, horizon), curve.surv_prob_se[at][-1] ** 2)
    assert kaplan_meier_at(time, event, 0.5) == 1
    assert kaplan_meier_at(time, np.zeros(80, dtype=bool), 40.0) == 1
    assert kaplan_meier_variance(time, np.zeros(80, dtype=bool), 40.0) == 0
