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
_NARROW, _WIDE, _LETTER = 92, 200, 7.4


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
    """Draw the curves with shaded limits, labelled at their ends, and a risk table.

    Survival is known where bins end; straight lines lead from one end to the next.
    """
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
        longest = max((len(curve.label) for curve in plot.curves), default=0)
        side = min(max(_NARROW, 16 + _LETTER * longest), _WIDE) / _WIDTH
        axes = figure.add_axes(
            (side + 0.02, (below + 30) / height, 0.97 - 2 * side, (_PLOT - 78) / height)
        )
        ticks = _ticks(plot.horizon_days / _YEAR)
        axes.set_xlim(0, max(plot.horizon_days / _YEAR, ticks[-1]))
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        lowest = min(
            (p[2] if p[2] is not None else p[1] for c in shown for p in c.points), default=0
        )
        axes.set_ylim(max(0.0, 10 * int(10 * lowest) - 5), 101)
        axes.set_xlabel("Years")
        axes.set_ylabel("Event-free, %")
        for number, curve in enumerate(plot.curves):
            _draw_curve(axes, curve, number)
        _label_ends(axes, plot.curves)
        _risk_table(figure, axes, plot, height, ticks)
        figure.text(0.012, 1 - 19 / height, plot.title, size=13, weight="bold")
        figure.text(0.012, 1 - 38 / height, plot.note, size=10, color=GREY)
        svg = to_svg(figure, name, alt + ".")
    return Figure(name, plot.section, alt + ".", svg, _WIDTH)


def _ticks(years: float) -> list[float]:
    """Return at most eight marks; 730 days count as two years, 1,820 as five."""
    step = next((step for step in (0.25, 0.5, 1.0, 2.0, 5.0) if years / step <= 7), 10.0)
    return [step * number for number in range(int((years + 0.03) / step) + 1)]


def _draw_curve(axes: Any, curve: SurvivalCurve, number: int) -> None:
    if not curve.points:
        return
    colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)]
    years = [point[0] / _YEAR for point in curve.points]
    axes.plot(
        years,
        [100 * point[1] for point in curve.points],
        color=colour,
        linestyle=dash,
        linewidth=1.8,
    )
    # At day 0 everybody is free of the event, and no limit is needed.
    limits = [(0.0, 100.0, 100.0)] + [
        (year, 100 * point[2], 100 * point[3])
        for year, point in zip(years, curve.points, strict=True)
        if point[2] is not None and point[3] is not None
    ]
    if len(limits) > 1:
        x, low, high = zip(*limits, strict=True)
        axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)


def _short(label: str) -> str:
    room = int((_WIDE - 16) / _LETTER)
    return label if len(label) <= room else label[: room - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _label_ends(axes: Any, curves: tuple[SurvivalCurve, ...]) -> None:
    """Write each group's name at the end of its curve, apart from one another."""
    low, high = axes.get_ylim()
    gap = 0.065 * (high - low)
    ends = sorted(
        (100 * curve.points[-1][1], number, curve)
        for number, curve in enumerate(curves)
        if curve.points
    )
    places: list[float] = []
    for value, _, _ in ends:
        places.append(max(value, places[-1] + gap) if places else value)
    top = high
    for number in reversed(range(len(places))):
        places[number] = top = min(places[number], top)
        top -= gap
    right = axes.get_xlim()[1]
    for place, (value, number, curve) in zip(places, ends, strict=True):
        colour = _COLOURS[number % len(_COLOURS)]
        # Some curves end early; a thin line leads from the end to the name.
        axes.plot(
            [curve.points[-1][0] / _YEAR, 1.01 * right],
            [value, place],
            color=colour,
            linewidth=0.6,
            linestyle=(0, (1, 2)),
            clip_on=False,
        )
        axes.annotate(
            _short(curve.label),
            (1.02, (place - low) / (high - low)),
            xycoords="axes fraction",
            color=colour,
            va="center",
            weight="bold",
            size=11,
        )


def _risk_table(
    figure: Any, axes: Any, plot: SurvivalPlot, height: float, ticks: list[float]
) -> None:
    box = axes.get_position()
    top = box.y0 - 58 / height
    known = [
        tick
        for tick in ticks
        if any(_count_at(curve, tick * _YEAR) is not None for curve in plot.curves)
    ]
    has_gap = False
    for number, curve in enumerate(plot.curves):
        y = top - _LINE * (number + 1) / height
        colour = _COLOURS[number % len(_COLOURS)]
        figure.text(0.012, y, _short(curve.label), size=10, color=colour, weight="bold")
        if curve.gap:
            figure.text(box.x0, y, curve.gap, size=10, color=GREY, style="italic")
            continue
        for tick in known:
            count = _count_at(curve, tick * _YEAR)
            has_gap |= count is None
            x = box.x0 + box.width * tick / axes.get_xlim()[1]
            words = "\N{EN DASH}" if count is None else f"{count:,}"
            figure.text(x, y, words, size=10, ha="center", color=INK if count else GREY)
    unknown = "; \N{EN DASH} not released or not followed" if has_gap else ""
    figure.text(0.012, top, f"At risk{unknown}", size=10, color=GREY)


def _count_at(curve: SurvivalCurve, day: float) -> int | None:
    """Return the number at risk at the nearest end of a bin, if one is near."""
    if not curve.at_risk:
        return None
    nearest, count = min(curve.at_risk, key=lambda pair: abs(pair[0] - day))
    return count if abs(nearest - day) <= _YEAR / 8 else None
