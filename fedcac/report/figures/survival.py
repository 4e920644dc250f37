"""Kaplan-Meier curves with the numbers at risk below them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fedcac.report.figures.canvas import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    SKY,
    VERMILLION,
    Figure,
    canvas,
    slug,
    to_svg,
)

__all__ = ["SurvivalCurve", "SurvivalPlot", "draw_survival"]

_WIDTH, _PLOT, _LINE = 640, 330, 18
_COLOURS = (BLUE, ORANGE, "#009E73", VERMILLION, "#CC79A7", SKY, INK)
_DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)))
_YEAR = 365.25


@dataclass(frozen=True)
class SurvivalCurve:
    """One group: points (day, survival, low, high) from day 0 on, and (day, at risk).

    Limits are None where they do not exist. Without points, `gap` says why.
    """

    label: str
    points: tuple[tuple[float, float, float | None, float | None], ...]
    at_risk: tuple[tuple[float, int], ...]
    gap: str = ""


@dataclass(frozen=True)
class SurvivalPlot:
    """A plot of several groups; `note` states the log-rank test."""

    section: str
    name: str
    title: str
    curves: tuple[SurvivalCurve, ...]
    horizon_days: float
    note: str = ""


def draw_survival(plot: SurvivalPlot) -> Figure:
    """Draw the curves as steps with shaded limits, labelled at their ends, and a risk table."""
    shown = [curve for curve in plot.curves if curve.points]
    height = _PLOT + _LINE * (len(plot.curves) + 1) + 34
    name = slug("survival", plot.name)
    alt = f"Kaplan-Meier curves, {plot.title}. " + "; ".join(
        f"{curve.label}: survival {100 * curve.points[-1][1]:.0f}% at "
        f"{curve.points[-1][0] / _YEAR:.1f} years"
        if curve.points
        else f"{curve.label}: {curve.gap}"
        for curve in plot.curves
    )
    with canvas(_WIDTH, height) as figure:
        below = height - _PLOT
        axes = figure.add_axes((0.16, (below + 30) / height, 0.66, (_PLOT - 78) / height))
        axes.set_xlim(0, plot.horizon_days / _YEAR)
        lowest = min(
            (p[2] if p[2] is not None else p[1] for c in shown for p in c.points), default=0
        )
        axes.set_ylim(max(0.0, 10 * int(10 * lowest) - 5), 101)
        axes.set_xlabel("Years")
        axes.set_ylabel("Event-free, %")
        for number, curve in enumerate(plot.curves):
            _draw_curve(axes, curve, number)
        _label_ends(axes, plot.curves)
        _risk_table(figure, axes, plot, height)
        figure.text(0.012, 1 - 19 / height, plot.title, size=13, weight="bold")
        figure.text(0.012, 1 - 38 / height, plot.note, size=10, color=GREY)
        svg = to_svg(figure, name, alt + ".")
    return Figure(name, plot.section, alt + ".", svg, _WIDTH)


def _draw_curve(axes: Any, curve: SurvivalCurve, number: int) -> None:
    if not curve.points:
        return
    colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)]
    years = [point[0] / _YEAR for point in curve.points]
    axes.step(
        years,
        [100 * point[1] for point in curve.points],
        where="post",
        color=colour,
        linestyle=dash,
        linewidth=1.8,
    )
    limits = [
        (year, 100 * point[2], 100 * point[3])
        for year, point in zip(years, curve.points, strict=True)
        if point[2] is not None and point[3] is not None
    ]
    if limits:
        x, low, high = zip(*limits, strict=True)
        axes.fill_between(x, low, high, step="post", color=colour, alpha=0.13, linewidth=0)


def _label_ends(axes: Any, curves: tuple[SurvivalCurve, ...]) -> None:
    """Write each group's name at the end of its curve, apart from one another."""
    low, high = axes.get_ylim()
    gap = 0.065 * (high - low)
    ends = sorted(
        (100 * curve.points[-1][1], number, curve)
        for number, curve in enumerate(curves)
        if curve.points
    )
    last = -1e9
    for value, number, curve in ends:
        last = max(value, last + gap)
        axes.annotate(
            curve.label,
            (1.015, (last - low) / (high - low)),
            xycoords="axes fraction",
            color=_COLOURS[number % len(_COLOURS)],
            va="center",
            weight="bold",
            size=11,
        )


def _risk_table(figure: Any, axes: Any, plot: SurvivalPlot, height: float) -> None:
    box = axes.get_position()
    top = box.y0 - 58 / height
    figure.text(0.012, top, "At risk", size=10, color=GREY)
    ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= plot.horizon_days / _YEAR + 1e-9]
    for number, curve in enumerate(plot.curves):
        y = top - _LINE * (number + 1) / height
        colour = _COLOURS[number % len(_COLOURS)]
        figure.text(0.012, y, curve.label, size=10, color=colour, weight="bold")
        if curve.gap:
            figure.text(box.x0, y, curve.gap, size=10, color=GREY, style="italic")
        for tick in ticks:
            known = [n for day, n in curve.at_risk if abs(day - tick * _YEAR) <= _YEAR / 8]
            if known:
                x = box.x0 + box.width * tick / (plot.horizon_days / _YEAR)
                figure.text(x, y, f"{known[0]:,}", size=10, ha="center")
