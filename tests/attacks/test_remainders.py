"""Single patients as what is left of a sum when the parts that are shown are taken off it.

Every attack works on what the profile `open` releases, and fails on `research`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gate_fixtures import answer_to, gate_of
from plans import draw_exams, plan

from fedcac.disclosure import Refusal, Release
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import (
    AucSpec,
    CalibrationSpec,
    ComparisonSpec,
    DescriptivesSpec,
    KaplanMeierSpec,
    Protocol,
    SurvivalCalibrationSpec,
    ZeroInflatedSpec,
)
from fedcac.statistics import calibration, survival_calibration
from fedcac.statistics.auc import HISTOGRAM_QUERY, WITHIN_QUERY
from fedcac.statistics.comparison import CELLS_QUERY
from fedcac.statistics.descriptives import COUNTS_QUERY, MOMENTS_QUERY
from fedcac.statistics.kaplan_meier import LOG_RANK_QUERY, TABLE_QUERY
from fedcac.statistics.newton import newton_query
from fedcac.statistics.zip_regression import START_QUERY
from fedcac.vocabulary import RefusalCode

TOO_FEW = Refusal(RefusalCode.TOO_FEW_PER_CATEGORY)


def _ask(profile: str, spec: Any, exams: Exams, query: Query) -> Release | Refusal:
    return answer_to(gate_of(profile), plan([spec]), "x", exams, query)


def _shown(profile: str, spec: Any, exams: Exams, query: Query) -> dict[str, Any]:
    answer = _ask(profile, spec, exams, query)
    assert isinstance(answer, Release)
    return answer.payload


def _exams(n: int, **columns: Any) -> Exams:
    return draw_exams(3, n, **columns)


def _curve(**changes: Any) -> KaplanMeierSpec:
    values = {"endpoint": "mace", "by": "all", "bin_days": 1, "horizon_days": 400, **changes}
    return KaplanMeierSpec(id="x", kind="kaplan_meier", **values)


# --- bins of predicted risk -----------------------------------------------------------------


def test_the_last_bin_is_what_is_left_of_all_patients() -> None:
    risk = np.r_[np.full(40, 0.03), np.full(59, 0.15), [0.77]]
    spec = SurvivalCalibrationSpec(
        id="x",
        kind="survival_calibration",
        endpoint="mace",
        prediction="risk",
        horizon_days=400,
        risk_bins=(0.1, 0.5),
    )
    event = (np.arange(100) % 3 == 0).astype(float)
    time = 300.0 + np.arange(100) % 3 * 200
    exams = _exams(100, risk=risk, follow_up_days=time, event=event)
    first, second, single, total = _shown("open", spec, exams, survival_calibration.BINS_QUERY)[
        "values"
    ]
    assert single[:2] == [1, 0.77]
    assert total[1] - first[1] - second[1] == pytest.approx(0.77)
    rows = _shown("research", spec, exams, survival_calibration.BINS_QUERY)["values"]
    assert [bool(row) for row in rows] == [False, True, False, True]
    assert rows[3][0] - rows[1][0] == 41


def test_the_likelihood_gives_the_sum_of_which_a_bin_is_missing() -> None:
    p = np.r_[np.full(40, 0.05), np.full(40, 0.4), [0.93]]
    positive = np.r_[np.arange(40) < 6, np.arange(40) < 15, [True]]
    spec = CalibrationSpec(id="x", kind="calibration", cut_offs=(100,), risk_bins=(0.1, 0.5))
    exams = _exams(81, index_probability_100=p, reference_score=np.where(positive, 250.0, 20.0))
    protocol, gradient_at = plan([spec]), Query(step="newton", values={"beta": (0.0, 0.0, 1.0)})

    def remainder(profile: str) -> list[float]:
        gate = gate_of(profile)
        bins = answer_to(gate, protocol, "x", exams, calibration.BINS_QUERY)
        terms = answer_to(gate, protocol, "x", exams, gradient_at)
        assert isinstance(bins, Release)
        assert isinstance(terms, Release)
        shown = np.sum([row for row in bins.payload["values"][:2] if row], axis=0)
        told = terms.payload
        total = [told["n_patients"], told["n_events"], told["n_events"] - told["gradient"][0]]
        return list(np.array(total) - shown)

    assert remainder("open") == pytest.approx([1, 1, 0.93])
    assert remainder("research")[0] == 41


# --- curves ---------------------------------------------------------------------------------


def test_edges_are_not_the_days_of_events_or_of_losses() -> None:
    time = np.r_[[10.0, 20, 30, 40, 50], np.full(55, 500.0)]
    exams = _exams(60, follow_up_days=time, event=(np.arange(60) < 5).astype(float))
    for by in (100, 1):
        spec = _curve(bin_days=by)
        assert _shown("research", spec, exams, TABLE_QUERY)["edges"] == [[0, 400 // by]]
    lost = _exams(60, follow_up_days=np.r_[[123.0, 200], np.full(58, 500.0)], event=np.zeros(60))
    told = _shown("open", _curve(), lost, TABLE_QUERY)
    assert [day for day, n in enumerate(told["censored"][0], 1) if n] == [123, 200]
    # The curve ends at the place of the tree before the first loss.
    assert _shown("research", _curve(), lost, TABLE_QUERY)["edges"] == [[0, 64]]


@pytest.mark.parametrize(("n_late", "is_shown"), [(2, False), (8, True), (0, True)])
def test_events_after_the_curve_are_what_is_left_of_all_events(n_late: int, is_shown: bool) -> None:
    n = 78 + 20 + n_late
    time = np.r_[np.full(20, 50.0), np.full(n_late, 300.0), np.full(78, 900.0)]
    exams = _exams(n, follow_up_days=time, event=(np.arange(n) < 20 + n_late).astype(float))
    spec = _curve(bin_days=100, horizon_days=100)
    told = _shown("open", spec, exams, TABLE_QUERY)
    assert told["n_events"] - sum(told["events"][0]) == n_late
    # The log-rank terms tell the number of all events, so the curve must stand beside it.
    log_rank = _shown("research", spec, exams, LOG_RANK_QUERY)
    assert log_rank["values"][0] == [20 + n_late]
    table = _shown("research", spec, exams, TABLE_QUERY)
    assert (table["events"] == [[20]]) == is_shown
    assert (table["n_events"] == "suppressed") == (not is_shown)


def test_two_left_at_the_end_of_the_last_bin() -> None:
    time = np.r_[np.full(20, 50.0), np.full(8, 90.0), np.full(2, 900.0)]
    exams = _exams(30, follow_up_days=time, event=(np.arange(30) < 20).astype(float))
    spec = _curve(bin_days=100, horizon_days=100)
    told = _shown("open", spec, exams, TABLE_QUERY)
    assert told["at_risk"][0][0] - told["events"][0][0] - told["censored"][0][0] == 2
    assert _shown("research", spec, exams, TABLE_QUERY)["at_risk"] == [[]]


def test_log_rank_terms_show_one_event_of_a_group() -> None:
    event = np.zeros(100)
    event[:20], event[99] = 1, 1
    exams = _exams(100, vendor=np.repeat([0.0, 1.0], [92, 8]), event=event)
    spec = _curve(by="vendor", bin_days=100)
    assert _shown("open", spec, exams, LOG_RANK_QUERY)["values"][0] == [20.0, 1.0, 0.0]
    assert _ask("research", spec, exams, LOG_RANK_QUERY) == TOO_FEW


# --- groups ---------------------------------------------------------------------------------

VENDORS = np.repeat([0.0, 1.0, 2.0], [50, 47, 3])


def test_a_group_of_three_is_what_is_left_of_a_hundred() -> None:
    exams = _exams(100, vendor=VENDORS)
    table = _shown("research", _curve(by="vendor", bin_days=100), exams, TABLE_QUERY)
    shown = [row[0] for row in table["at_risk"] if row]
    assert table["n_patients"] - sum(shown) >= 50
    spec = DescriptivesSpec(id="x", kind="descriptives", covariates=("sex", "age"), by="vendor")
    assert _shown("open", spec, exams, COUNTS_QUERY)["counts"][0] == [[50, 47, 3]]
    counts = _shown("research", spec, exams, COUNTS_QUERY)["counts"]
    assert counts[0] == [[100]]
    assert [[sum(row) for row in groups] for groups in counts[1:]] == [[50, 0, 0], [50, 0, 0]]
    assert _shown("research", spec, exams, MOMENTS_QUERY)["n"] == [50] + ["suppressed"] * 2


def test_different_groups_of_almost_one_size_are_no_parts_of_one_another() -> None:
    exams = _exams(97, vendor=np.r_[np.zeros(50), np.ones(47)])
    spec = DescriptivesSpec(id="x", kind="descriptives", covariates=("age",), by="kept_mace")
    by_event = _exams(97, event=np.r_[np.zeros(50), np.ones(47)], early=np.zeros(97))
    assert _shown("research", spec, by_event, MOMENTS_QUERY)["n"] == [50, 47]
    by_vendor = DescriptivesSpec(id="x", kind="descriptives", covariates=("age",), by="vendor")
    # The third vendor, whom nobody has, hides the smaller of the others.
    assert _shown("research", by_vendor, exams, MOMENTS_QUERY)["n"] == [50] + ["suppressed"] * 2


def test_a_site_without_a_group_still_gives_its_curves() -> None:
    exams = _exams(200, vendor=np.arange(200) % 2 * 1.0)
    table = _shown("research", _curve(by="vendor", bin_days=100), exams, TABLE_QUERY)
    assert sum(bool(edges) for edges in table["edges"]) == 1
    everything = _shown("open", _curve(by="vendor", bin_days=100), exams, TABLE_QUERY)
    assert everything["at_risk"][2] == [0, 0, 0, 0]


def test_two_without_a_value_are_what_is_left_of_the_known() -> None:
    age = draw_exams(3, 100).column("age").copy()
    age[:2] = np.nan
    exams = _exams(100, age=age)
    spec = DescriptivesSpec(id="x", kind="descriptives", covariates=("age", "sex"), by="all")
    assert sum(_shown("open", spec, exams, COUNTS_QUERY)["counts"][1][0]) == 98
    counts = _shown("research", spec, exams, COUNTS_QUERY)["counts"]
    assert [sum(groups[0]) for groups in counts] == [100, 0, 100]
    assert _shown("research", spec, exams, MOMENTS_QUERY)["n"] == ["suppressed"]


# --- nested cut-offs ------------------------------------------------------------------------

BETWEEN = np.r_[np.full(50, 5.0), np.full(3, 50.0), np.full(47, 600.0)]


def test_positives_between_two_cut_offs() -> None:
    index = np.r_[np.linspace(0, 90, 50), np.linspace(20, 900, 50)].round(1)
    exams = _exams(100, reference_score=BETWEEN, index_score=index, visual_score=index)
    spec = AucSpec(id="x", kind="auc", cut_offs=(10, 100), bins=100)

    def positives(profile: str) -> list[int]:
        counts = _shown(profile, spec, exams, HISTOGRAM_QUERY)["counts"]
        return [sum(groups[1]) for groups in counts]

    assert positives("open") == [50, 47]
    assert positives("research") == [50, 0]
    rows = _shown("research", spec, exams, WITHIN_QUERY)["values"]
    assert [bool(row) for row in rows] == [True, False]
    compared = ComparisonSpec(
        id="x", kind="comparison", compare="index_tests", cut_offs=(10, 100), bins=100
    )
    for query, shown in ((CELLS_QUERY, [True, False]), (HISTOGRAM_QUERY, [True] * 2 + [False] * 2)):
        counts = _shown("research", compared, exams, query)["counts"]
        assert [any(groups) for groups in counts] == shown


def test_two_analyses_do_not_tell_what_lies_between_their_cut_offs() -> None:
    index = np.r_[np.linspace(0, 90, 50), np.linspace(20, 900, 50)].round(1)
    exams = _exams(100, reference_score=BETWEEN, index_score=index)
    specs = [
        AucSpec(id=name, kind="auc", cut_offs=(cut,), bins=100)
        for name, cut in (("x", 10), ("y", 100))
    ]
    for queries in ((WITHIN_QUERY, WITHIN_QUERY), (HISTOGRAM_QUERY, WITHIN_QUERY)):
        for profile, is_told in (("open", True), ("research", False)):
            gate = gate_of(profile)
            answers = [
                answer_to(gate, plan(specs), spec.id, exams, query)
                for spec, query in zip(specs, queries, strict=True)
            ]
            assert isinstance(answers[0], Release)
            assert isinstance(answers[1], Release) is is_told


@pytest.mark.parametrize(("near", "is_answered"), [(3, False), (20, True)])
def test_a_gradient_of_two_cut_offs_does_not_tell_few_positives(
    near: int, is_answered: bool
) -> None:
    reference = np.r_[np.full(150, 5.0), np.full(near, 50.0), np.full(150, 600.0)]
    n = len(reference)
    p = np.linspace(0.1, 0.9, n)
    exams = _exams(n, reference_score=reference, index_probability_10=p, index_probability_100=p)
    spec = CalibrationSpec(id="x", kind="calibration", cut_offs=(10, 100))
    query = newton_query(np.zeros(6))
    told = _shown("open", spec, exams, query)["gradient"]
    # Each intercept's gradient at zero: the positives less what the prediction expects.
    assert round(told[1] - told[4]) == near
    assert isinstance(_ask("research", spec, exams, query), Release) is is_answered


# --- zeros ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_zero", "is_answered"), [(1, False), (4, False), (5, True)])
def test_zeros_of_one_score_only_are_what_is_left_of_all_zeros(
    n_zero: int, is_answered: bool
) -> None:
    reference = np.r_[np.zeros(50), np.full(50, 30.0)]
    index = reference.copy()
    index[-n_zero:] = 0
    spec = ZeroInflatedSpec(id="x", kind="zero_inflated")
    exams = _exams(100, reference_score=reference, index_score=index)
    told = _shown("open", spec, exams, START_QUERY)
    assert told["values"][0][1] - 2 * (told["n_patients"] - told["n_events"]) == n_zero
    assert isinstance(_ask("research", spec, exams, START_QUERY), Release) == is_answered


# --- classes that nobody pooled -------------------------------------------------------------

_PARTS = ("p1", "n1", "p2", "n2")


def _comparison() -> tuple[Protocol, Exams]:
    index = np.r_[np.linspace(0, 90, 99).round(1), [5000.0]]
    reference = np.r_[np.full(50, 5.0), np.full(50, 600.0)]
    spec = ComparisonSpec(
        id="x", kind="comparison", compare="index_tests", cut_offs=(100,), bins=100
    )
    exams = _exams(100, index_score=index, reference_score=reference, visual_score=index)
    return plan([spec]), exams


def _classes(parts: dict[str, tuple[list[int], list[int]]]) -> Query:
    values = {}
    for name, (starts, counts) in parts.items():
        values[f"starts_0_{name}"] = tuple(map(float, starts))
        values[f"counts_0_{name}"] = tuple(map(float, counts))
    return Query(step="placements", values=values)


def test_classes_made_up_count_the_patients_above_any_score() -> None:
    protocol, exams = _comparison()
    probe = _classes({name: ([0, 92], [0, 1]) for name in _PARTS})
    told = answer_to(gate_of("open"), protocol, "x", exams, probe)
    assert isinstance(told, Release)
    # One half for the one patient in the last bins, nothing for the others.
    assert told.payload["values"][0][1] == 0.5
    assert answer_to(gate_of("research"), protocol, "x", exams, probe) == TOO_FEW


@pytest.mark.parametrize(
    ("extra", "starts", "is_answered"),
    [
        (0, "released", True),
        (40, "released", True),
        (-1, "released", False),  # fewer than the site itself has
        (10**9, "released", False),  # a weight that drowns the site's own patients
        (40, "every bin", False),  # cut more finely than the site shows
    ],
)
def test_pooled_classes_hold_the_sites_own(extra: int, starts: str, is_answered: bool) -> None:
    protocol, exams = _comparison()
    gate = gate_of("research")
    profile = "research" if starts == "released" else "open"
    shown = answer_to(gate_of(profile), protocol, "x", exams, HISTOGRAM_QUERY)
    assert isinstance(shown, Release)
    table = shown.payload
    parts = {}
    for number, name in enumerate(_PARTS):
        place = number // 2, 1 - number % 2
        counts = [table["counts"][place[0]][place[1]], table["starts"][place[0]][place[1]]]
        counts[0][-1] += extra
        parts[name] = (counts[1], counts[0])
    answer = answer_to(gate, protocol, "x", exams, _classes(parts))
    assert isinstance(answer, Release) == is_answered
    if not is_answered:
        assert answer == TOO_FEW
        return
    # A second pool of classes is a second look at the same patients.
    parts["p1"][1][0] += 7
    again = answer_to(gate, protocol, "x", exams, _classes(parts))
    assert again == Refusal(RefusalCode.TOO_MANY_EXCHANGES)
