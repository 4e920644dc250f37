"""Figures of outcomes: survival curves, net reclassification, calibration."""

from __future__ import annotations

from collections.abc import Iterator

from fedcac.protocol import KaplanMeierSpec, ReclassificationSpec
from fedcac.report.figures.bars import (
    Bar,
    BarGroup,
    CalibrationPoint,
    draw_calibration,
    draw_nri,
)
from fedcac.report.figures.canvas import Figure
from fedcac.report.figures.survival import SurvivalCurve, SurvivalPlot, draw_survival
from fedcac.report.findings import Findings
from fedcac.report.wording import number_words, p_phrase, score_words
from fedcac.statistics.estimator import POOLED, Estimate
from fedcac.vocabulary import Measure

__all__ = ["outcome_figures"]

_NRI = {
    "Event": Measure.NRI_EVENT,
    "Non-event": Measure.NRI_NONEVENT,
    "Overall": Measure.NRI_OVERALL,
}


def outcome_figures(findings: Findings) -> Iterator[Figure]:
    """Yield curves per Kaplan-Meier analysis, one NRI figure, and calibration plots."""
    for spec in findings.analyses("kaplan_meier"):
        if isinstance(spec, KaplanMeierSpec):
            plot = _survival_plot(findings, spec)
            # Axes without a curve say nothing; the log-rank table counts the curves.
            if any(curve.points for curve in plot.curves):
                yield draw_survival(plot)
    yield from _nri(findings)
    for kind in ("calibration", "survival_calibration"):
        for analysis in findings.analyses(kind):
            yield from _calibrations(findings, analysis.id)


def _survival_plot(findings: Findings, spec: KaplanMeierSpec) -> SurvivalPlot:
    rows = [row for row in findings.rows(spec.id, (Measure.SURVIVAL,)) if row.scope == POOLED]
    groups = tuple(dict.fromkeys(row.group for row in rows))
    test = findings.find(spec.id, POOLED, Measure.LOGRANK_CHI2)
    note = ""
    if test is not None and test.estimate is not None:
        note = f"Log-rank test stratified by site: p {p_phrase(test.p_value)}"
    return SurvivalPlot(
        section=f"survival:{spec.id}",
        name=spec.id,
        title=(
            f"{spec.endpoint.replace('_', ' ').upper()} by "
            f"{score_words(findings.protocol, spec.by)}"
        ),
        curves=tuple(_curve(findings, spec.id, group, rows) for group in groups),
        horizon_days=spec.horizon_days,
        note=note,
    )


def _curve(findings: Findings, analysis: str, group: str, rows: list[Estimate]) -> SurvivalCurve:
    own = [row for row in rows if row.group == group]
    points = [
        (float(row.term), row.estimate, row.ci_low, row.ci_high)
        for row in own
        if row.estimate is not None
    ]
    at_risk = [
        (float(row.term), round(row.estimate))
        for row in findings.rows(analysis, (Measure.AT_RISK,))
        if row.group == group and row.estimate is not None
    ]
    if not points:
        gap = findings.gap(analysis, POOLED, own[0] if own else None)
        return SurvivalCurve(group, (), (), gap)
    return SurvivalCurve(group, ((0.0, 1.0, None, None), *points), tuple(at_risk))


def _nri(findings: Findings) -> Iterator[Figure]:
    groups = []
    for spec in findings.analyses("reclassification"):
        if not isinstance(spec, ReclassificationSpec):
            continue
        bars = []
        for label, measure in _NRI.items():
            row = findings.find(spec.id, POOLED, measure)
            gap = findings.gap(spec.id, POOLED, row)
            value = None if row is None or gap else row.estimate
            low, high = (row.ci_low, row.ci_high) if row else (None, None)
            bars.append(Bar(label, value, low, high, gap))
        groups.append(BarGroup(spec.full, tuple(bars)))
    if any(bar.value is not None for group in groups for bar in group.bars):
        title = "Net reclassification improvement"
        yield draw_nri("nri", "reclassification", title, tuple(groups))


def _calibrations(findings: Findings, analysis: str) -> Iterator[Figure]:
    for term in findings.terms(analysis, Measure.EXPECTED_RISK):
        bins = [
            row
            for row in findings.rows(analysis, (Measure.EXPECTED_RISK,))
            if row.term == term and row.group
        ]
        points = []
        for row in bins:
            seen = findings.find(analysis, POOLED, Measure.OBSERVED_RISK, term, row.group)
            if row.estimate is not None and seen is not None and seen.estimate is not None:
                points.append(
                    CalibrationPoint(
                        row.estimate, seen.estimate, seen.ci_low, seen.ci_high, row.n or 1
                    )
                )
        if not points:
            continue
        slope = findings.find(analysis, POOLED, Measure.CALIBRATION_SLOPE, term)
        notes = [f"Cut-off {term}"] if term else []
        if slope is not None and slope.estimate is not None:
            notes.append(f"Slope {number_words(slope)}")
        if len(points) < len(bins):
            notes.append(f"{len(points)} of {len(bins)} bins")
        yield draw_calibration(
            f"calibration:{analysis}",
            f"{analysis}_{term}",
            analysis,
            tuple(points),
            ". ".join(notes),
        )
