"""Figures of outcomes: curves with numbers at risk, net reclassification, calibration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from plans import BASE, FULL, SPECS, plan

from fedcac.exchange.messages import PolicySummary
from fedcac.report import RoundReport, SiteSummary
from fedcac.report.figures import Figure, draw_figures
from fedcac.report.figures.bars import (
    Bar,
    BarGroup,
    CalibrationPoint,
    draw_calibration,
    draw_nri,
)
from fedcac.report.figures.outcomes import outcome_figures
from fedcac.report.figures.survival import SurvivalCurve, SurvivalPlot, draw_survival
from fedcac.report.findings import Findings
from fedcac.statistics.estimator import META, POOLED, Estimate
from fedcac.vocabulary import Measure, RefusalCode, RowStatus

GAP = "suppressed (<5)"
LONG = "a group of patients whose name goes on for longer than any figure is wide"
CURVE = ((0.0, 1.0, None, None), (365.0, 0.9, 0.85, 0.94), (730.0, 0.8, 0.74, 0.86))
AT_RISK = ((0.0, 100), (365.0, 80), (730.0, 55))


def checked(figure: Figure) -> ElementTree.Element:
    """Return the root of a figure that any browser draws without asking for anything."""
    root = ElementTree.fromstring(figure.svg)  # noqa: S314
    assert root.get("aria-label") == figure.alt
    tags = {node.tag.rpartition("}")[2] for node in root.iter()}
    assert not tags & {"script", "style", "foreignObject", "image"}
    assert not any("style" in node.attrib for node in root.iter())
    ids = [node.get("id") for node in root.iter() if node.get("id")]
    assert len(set(ids)) == len(ids)
    assert "nan" not in re.sub(r"[a-z]{2,}nan|nan[a-z]", "", figure.svg.lower())
    return root


def texts(figure: Figure) -> list[str]:
    return [
        "".join(node.itertext()).strip()
        for node in checked(figure).iter()
        if node.tag.endswith("}text")
    ]


def places(figure: Figure, words: str) -> list[tuple[float, float]]:
    """Return where a text stands, in the units of the figure's view box."""
    found = []
    for node in checked(figure).iter():
        if node.tag.endswith("}text") and "".join(node.itertext()).strip() == words:
            moved = re.search(r"translate\(([-0-9.]+) ([-0-9.]+)\)", node.get("transform", ""))
            x, y = moved.groups() if moved else (node.get("x", "nan"), node.get("y", "nan"))
            found.append((float(x), float(y)))
    return found


def survival(*curves: SurvivalCurve, note: str = "") -> Figure:
    return draw_survival(SurvivalPlot("survival:x", "x", "MACE by x", curves, 730, note))


# --- curves -----------------------------------------------------------------------------------


def test_curves_have_names_numbers_at_risk_and_the_test() -> None:
    figure = survival(
        SurvivalCurve("<1", CURVE, AT_RISK),
        SurvivalCurve(">400", CURVE, tuple((day, n + 1000) for day, n in AT_RISK)),
        note="Log-rank test stratified by site: p < 0.001",
    )
    found = texts(figure)
    # Once at the end of the curve, once in the table below.
    assert found.count("<1") == found.count(">400") == 2
    assert {"At risk", "100", "80", "55", "1,100", "1,080", "1,055"} <= set(found)
    assert "Log-rank test stratified by site: p < 0.001" in found
    assert "&lt;1" in figure.svg
    assert ">survival <" not in figure.svg


def test_the_text_alternative_says_the_last_number_and_the_gap() -> None:
    figure = survival(SurvivalCurve("low", CURVE, AT_RISK), SurvivalCurve("high", (), (), GAP))
    assert figure.alt == (
        "Kaplan-Meier curves, MACE by x. low: survival 80% at 2.0 years; high: suppressed (<5)."
    )
    assert GAP in texts(figure)
    # A group without a curve has a line in the table alone.
    assert texts(figure).count("high") == 1


def test_numbers_at_risk_that_are_unknown_are_marked() -> None:
    early = SurvivalCurve("low", CURVE[:2], ((0.0, 100), (365.0, 80)))
    found = texts(survival(early, SurvivalCurve("high", CURVE, AT_RISK)))
    # At two years there is a number for one group; at a year and a half for none.
    assert found.count("\N{EN DASH}") == 1
    assert any(text.startswith("At risk; \N{EN DASH} not released") for text in found)
    assert "At risk" in texts(survival(early))


def test_a_horizon_of_five_times_364_days_ends_at_five_years() -> None:
    curve = SurvivalCurve("low", ((0.0, 1.0, None, None), (1820.0, 0.5, None, None)),
                          ((0.0, 77), (1820.0, 33)))  # fmt: skip
    figure = draw_survival(SurvivalPlot("s", "x", "x", (curve,), 1820))
    assert {"0", "1", "2", "3", "4", "5", "77", "33"} <= set(texts(figure))
    assert "6" not in texts(figure)


def test_numbers_at_risk_are_those_of_the_nearest_day() -> None:
    days = tuple((30.0 * k, 1000 - k) for k in range(25))
    found = texts(survival(SurvivalCurve("low", CURVE, days)))
    # 365 days lie nearest to day 360, the twelfth bin.
    assert "988" in found
    assert "989" not in found
    assert "987" not in found


def test_the_curve_runs_straight_between_the_ends_of_bins() -> None:
    """A step would keep everybody free of events until the end of a wide bin."""
    root = checked(survival(SurvivalCurve("low", CURVE, AT_RISK)))
    lines = [
        node.get("d", "")
        for node in root.iter()
        if node.tag.endswith("}path") and node.get("stroke-width") == "1.8"
    ]
    assert len(lines) == 1
    assert len(re.findall(r"[ML] ", lines[0])) == len(CURVE)


def test_names_do_not_overlap_and_stay_inside() -> None:
    """All curves end at one place near the top."""
    high = ((0.0, 1.0, None, None), (730.0, 0.999, None, None))
    names = [f"group {number}" for number in range(9)]
    figure = survival(*(SurvivalCurve(name, high, AT_RISK) for name in names))
    ends = sorted(places(figure, name)[0][1] for name in names)
    assert min(later - first for first, later in pairwise(ends)) > 10
    title = places(figure, "MACE by x")[0][1]
    assert ends[0] > title + 20
    rows = sorted(places(figure, name)[1][1] for name in names)
    assert rows[0] > ends[-1]


def test_long_names_are_cut_in_the_figure_and_whole_in_its_words() -> None:
    figure = survival(SurvivalCurve(LONG, CURVE, AT_RISK), SurvivalCurve("b", CURVE, AT_RISK))
    shown = [text for text in texts(figure) if text.startswith("a group")]
    assert len(shown) == 2
    assert all(len(text) < 30 and text.endswith("\N{HORIZONTAL ELLIPSIS}") for text in shown)
    assert LONG in figure.alt
    # Nine letters of 10 pixels are the least that separates the name from the first number.
    assert places(figure, "100")[0][0] > 150


@pytest.mark.parametrize("n_groups", [1, 2, 7, 12])
def test_any_number_of_groups_is_drawn(n_groups: int) -> None:
    figure = survival(*(SurvivalCurve(f"g{n}", CURVE, AT_RISK) for n in range(n_groups)))
    assert texts(figure).count("100") == n_groups + 1  # The axis says 100, too.


def test_a_group_that_all_survive_or_nobody() -> None:
    flat = tuple((day, 1.0, None, None) for day in (0.0, 365.0, 730.0))
    fallen = ((0.0, 1.0, None, None), (365.0, 0.0, None, None))
    figure = survival(SurvivalCurve("flat", flat, AT_RISK), SurvivalCurve("fallen", fallen, ()))
    assert "flat: survival 100% at 2.0 years; fallen: survival 0% at 1.0 years" in figure.alt


# --- net reclassification ---------------------------------------------------------------------


def nri(*groups: BarGroup) -> Figure:
    return draw_nri("nri", "reclassification", "Net reclassification improvement", groups)


THREE = (Bar("Event", 0.2, 0.1, 0.3), Bar("Non-event", -0.05, -0.1, 0.0), Bar("Overall", 0.15))


def test_bars_say_their_numbers() -> None:
    figure = nri(BarGroup("full", THREE))
    assert "full, event: 0.200; full, non-event: -0.050; full, overall: 0.150." in figure.alt
    found = texts(figure)
    assert {"0.200", "\N{MINUS SIGN}0.050", "0.150", "full"} <= set(found)
    assert "Lines: 95% confidence intervals" in found


def test_bars_without_intervals_claim_none() -> None:
    figure = nri(BarGroup("full", tuple(Bar(bar.label, bar.value) for bar in THREE)))
    assert "Without intervals" in texts(figure)
    assert "Lines: 95% confidence intervals" not in texts(figure)


def test_a_missing_bar_is_said_not_drawn() -> None:
    bars = (Bar("Event", None, gap=GAP), *THREE[1:])
    figure = nri(BarGroup("full", bars), BarGroup("other", THREE))
    assert f"full, event: {GAP}" in figure.alt
    assert texts(figure).count(GAP) == 1
    assert "0.000" not in texts(figure)


def test_many_long_names_of_models_stand_inside_the_figure() -> None:
    groups = tuple(BarGroup(f"cox_model_with_a_very_long_name_{n}", THREE) for n in range(9))
    figure = nri(*groups)
    view = checked(figure).get("viewBox", "").split()
    assert float(view[3]) > 400
    # Steep names end below their group, and begin above the lower edge.
    for group in groups:
        (x, y) = places(figure, group.label)[0]
        assert 0 < x < float(view[2])
        assert y < float(view[3])


# --- calibration ------------------------------------------------------------------------------


def test_one_bin_is_enough_for_a_calibration_plot() -> None:
    point = CalibrationPoint(0.1, 0.2, 0.1, 0.4, 30)
    figure = draw_calibration("s", "x", "risk", (point,), "Slope 1.00")
    assert figure.alt == "Calibration, risk. expected 10.0%, observed 20.0%."
    assert {"Predicted risk", "Observed", "risk", "Slope 1.00"} <= set(texts(figure))


@pytest.mark.parametrize(
    "point",
    [
        CalibrationPoint(0.0, 0.0, None, None, 30),
        CalibrationPoint(1.0, 1.0, 0.9, 1.0, 30),
        CalibrationPoint(0.001, 0.0, 0.0, 0.004, 1),
    ],
)
def test_risks_at_the_ends_are_drawn(point: CalibrationPoint) -> None:
    checked(draw_calibration("s", "x", "risk", (point,), ""))


# --- from estimates ---------------------------------------------------------------------------


def rows_of_curves(groups: dict[str, bool]) -> Iterator[Estimate]:
    """Yield the rows of the analysis kaplan_meier; False: the group is withheld."""
    for group, is_shown in groups.items():
        if not is_shown:
            yield Estimate(
                "kaplan_meier", POOLED, Measure.SURVIVAL, group, status=RowStatus.SUPPRESSED
            )
            continue
        for day, share in (("450", 0.9), ("900", 0.8)):
            yield Estimate(
                "kaplan_meier", POOLED, Measure.SURVIVAL, group, day, estimate=share,
                ci_low=share - 0.05, ci_high=share + 0.05, n=200,
            )  # fmt: skip
        for day, left in (("0", 200.0), ("450", 150.0), ("900", 90.0)):
            yield Estimate(
                "kaplan_meier", POOLED, Measure.AT_RISK, group, day, estimate=left, n=200
            )
    yield Estimate("kaplan_meier", POOLED, Measure.LOGRANK_CHI2, estimate=9.0, p_value=0.011)
    yield Estimate("kaplan_meier", "b", Measure.SURVIVAL, status=RowStatus.SUPPRESSED)


def rows_of_bins(analysis: str, term: str, shown: int) -> Iterator[Estimate]:
    for number in range(4):
        status = RowStatus.OK if number < shown else RowStatus.SUPPRESSED
        for measure in (Measure.OBSERVED_RISK, Measure.EXPECTED_RISK):
            value = 0.1 + 0.2 * number if number < shown else None
            yield Estimate(
                analysis, POOLED, measure, f"bin {number}", term, estimate=value, n=50,
                status=status,
            )  # fmt: skip
    yield Estimate(
        analysis, POOLED, Measure.CALIBRATION_SLOPE, term=term, estimate=1.02, ci_low=0.9,
        ci_high=1.14,
    )  # fmt: skip


def rows_of_nri(*values: float | None) -> Iterator[Estimate]:
    measures = (Measure.NRI_EVENT, Measure.NRI_NONEVENT, Measure.NRI_OVERALL)
    for measure, value in zip(measures, values, strict=True):
        status = RowStatus.NOT_ESTIMABLE if value is None else RowStatus.OK
        yield Estimate("reclassification", POOLED, measure, estimate=value, status=status)


def findings_of(*rows: Estimate, sites: int = 2, **changes: Any) -> Findings:
    kinds = ("kaplan_meier", "calibration", "survival_calibration", "reclassification")
    specs = [SPECS[kind].model_copy(update={"id": kind}) for kind in kinds]
    by_site = SPECS["cox"].model_copy(update={"id": "by_site", "by_site": True})
    policy = PolicySummary(
        profile="research", minimum_cell=5, minimum_patients=20, digest="sha256:" + "ab" * 32
    )
    names = "abcdefghijklmnop"[:sites]
    moment = datetime(2026, 11, 2, 9, tzinfo=UTC)
    return Findings(
        RoundReport(
            round_id="r",
            protocol=plan([*specs, BASE, FULL, by_site]),
            sites=tuple(SiteSummary(name, None, policy, changes.get(name, {})) for name in names),
            estimates=rows,
            exchanges=1,
            started=moment,
            finished=moment,
        )
    )


def test_a_curve_begins_with_everybody() -> None:
    findings = findings_of(*rows_of_curves({"a": True, "b": False, "c": True}))
    (figure,) = outcome_figures(findings)
    assert (figure.section, figure.name) == ("survival:kaplan_meier", "survival_kaplan_meier")
    assert figure.alt == (
        "Kaplan-Meier curves, MACE by scanner vendor. a: survival 80% at 2.5 years; "
        "b: suppressed (<5); c: survival 80% at 2.5 years."
    )
    found = texts(figure)
    assert "Log-rank test stratified by site: p = 0.011" in found
    assert found.count("200") == 2
    assert GAP in found


def test_axes_without_any_curve_are_left_out() -> None:
    assert not list(outcome_figures(findings_of(*rows_of_curves({"a": False, "b": False}))))


def test_calibration_says_how_many_bins_it_shows() -> None:
    findings = findings_of(
        *rows_of_bins("calibration", "100", 4), *rows_of_bins("survival_calibration", "", 3)
    )
    whole, part = outcome_figures(findings)
    assert "Cut-off 100. Slope 1.02 (0.90, 1.14)" in texts(whole)
    assert "Slope 1.02 (0.90, 1.14). 3 of 4 bins" in texts(part)
    assert part.alt.count("expected") == 3
    assert whole.section == "calibration:calibration"
    assert not list(outcome_figures(findings_of(*rows_of_bins("calibration", "100", 0))))


def test_reclassification_needs_one_number_and_says_the_others() -> None:
    (figure,) = outcome_figures(findings_of(*rows_of_nri(0.2, None, None)))
    assert figure.alt == (
        "Net reclassification improvement. full, event: 0.200; full, non-event: not estimable; "
        "full, overall: not estimable."
    )
    assert not list(outcome_figures(findings_of(*rows_of_nri(None, None, None))))
    assert not list(outcome_figures(findings_of()))


def test_twelve_sites_have_a_line_each_or_a_gap() -> None:
    sites = "abcdefghijkl"
    rows = [
        Estimate(
            "by_site", site, Measure.HAZARD_RATIO, term="age", estimate=1.5, ci_low=1.1,
            ci_high=2.0, n=100,
        )
        for site in sites[:-1]
    ]  # fmt: skip
    rows += [
        Estimate(
            "by_site", scope, Measure.HAZARD_RATIO, term="age", estimate=1.4, ci_low=1.2,
            ci_high=1.7, n=1100,
        )
        for scope in (POOLED, META)
    ]  # fmt: skip
    refusals = {"l": {"by_site": RefusalCode.TOO_FEW_EVENTS}}
    figures = draw_figures(findings_of(*rows, sites=12, **refusals))
    (figure,) = [f for f in figures if f.section == "forest_by_site:by_site"]
    assert set(sites) | {"suppressed (too_few_events)", "Pooled", "Meta-analytic"} <= set(
        texts(figure)
    )


def test_two_runs_draw_the_same_bytes() -> None:
    def draw() -> list[Figure]:
        rows = (
            *rows_of_curves({"<1": True, ">400": True}),
            *rows_of_bins("calibration", "100", 4),
            *rows_of_nri(0.2, -0.1, 0.1),
        )
        return list(outcome_figures(findings_of(*rows)))

    first = draw()
    assert len(first) == 3
    assert first == draw()
    for figure in first:
        checked(figure)
