"""Run charts: one value of every site over rounds, a panel per site."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Any

from fedcac.report.figures.canvas import (
    BLUE,
    GREY,
    INK,
    VERMILLION,
    Figure,
    canvas,
    slug,
    to_svg,
)

__all__ = ["Run", "RunSheet", "draw_runs"]

_WIDTH, _TOP, _PANEL, _FOOT = 820, 58, 96, 44
_LABEL = 18


@dataclass(frozen=True)
class Run:
    """One panel: (value, low, high) per round, None where the round has no number.

    `note` stands at the panel's right, such as the p-value of a test over rounds.
    """

    label: str
    points: tuple[tuple[float, float | None, float | None] | None, ...]
    note: str = ""
    is_summary: bool = False


@dataclass(frozen=True)
class RunSheet:
    """The runs of one measure; all panels share the axis. `rounds` are the marks below it.

    `ceiling` is the greatest value that the measure can have, where it has one.
    """

    name: str
    title: str
    axis: str
    rounds: tuple[str, ...]
    runs: tuple[Run, ...]
    ceiling: float | None = None


def draw_runs(sheet: RunSheet) -> Figure:
    """Draw each site's values with their intervals; the line is the median of its own values.

    A value whose interval leaves out that median is drawn as a diamond in another colour.
    """
    n_columns = 4 if len(sheet.runs) > 8 else 3
    n_rows = math.ceil(len(sheet.runs) / n_columns)
    height = _TOP + n_rows * (_PANEL + _FOOT)
    name = slug("runs", sheet.name)
    alt = f"{sheet.title} over {len(sheet.rounds)} rounds. " + "; ".join(
        f"{run.label}: {', '.join(_words(point) for point in run.points)}"
        for run in sheet.runs[:14]
    )
    low, high = _limits(sheet.runs)
    if sheet.ceiling is not None:
        # A little above it, so that a mark on the ceiling is whole.
        high = min(high, sheet.ceiling + 0.03 * (sheet.ceiling - low))
    with canvas(_WIDTH, height) as figure:
        for number, run in enumerate(sheet.runs):
            row, column = divmod(number, n_columns)
            left = 0.06 + column * 0.94 / n_columns
            bottom = height - _TOP - row * (_PANEL + _FOOT) - _PANEL
            box = (left, bottom / height, 0.94 / n_columns - 0.05, (_PANEL - _LABEL) / height)
            axes = figure.add_axes(box)
            axes.set_xlim(-0.5, len(sheet.rounds) - 0.5)
            axes.set_ylim(low, high)
            axes.set_xticks(range(len(sheet.rounds)), sheet.rounds)
            axes.tick_params(labelsize=9)
            _draw(axes, run)
            top = (bottom + _PANEL - 12) / height
            weight = "bold"
            figure.text(left, top, run.label, size=11, weight=weight)
            right = left + 0.94 / n_columns - 0.05
            figure.text(right, top, run.note, size=9, color=GREY, ha="right")
        figure.text(0.012, 1 - 19 / height, sheet.title, size=13, weight="bold")
        figure.text(0.012, 1 - 38 / height, sheet.axis, size=10, color=GREY)
        svg = to_svg(figure, name, alt + ".")
    return Figure(name, "runs", alt + ".", svg, _WIDTH)


def _draw(axes: Any, run: Run) -> None:
    known = [(x, point) for x, point in enumerate(run.points) if point is not None]
    if not known:
        axes.text(
            0.5, 0.5, "no value", transform=axes.transAxes, ha="center", color=GREY, style="italic"
        )
        return
    middle = median(point[0] for _, point in known)
    axes.axhline(middle, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.plot([x for x, _ in known], [p[0] for _, p in known], color=BLUE, linewidth=1.0)
    for x, (value, low, high) in known:
        is_off = low is not None and high is not None and not low <= middle <= high
        if low is not None and high is not None:
            axes.plot([x, x], [low, high], color=INK, linewidth=1.0)
        axes.plot(
            [x],
            [value],
            marker="D" if is_off else "o",
            markersize=5.5 if is_off else 4.5,
            color=VERMILLION if is_off else BLUE,
        )


def _limits(runs: tuple[Run, ...]) -> tuple[float, float]:
    points = [point for run in runs for point in run.points if point is not None]
    # Intervals of a few patients must not flatten all the others; they run out of the panel.
    values = sorted(point[0] for point in points)
    ends = sorted(end for point in points for end in point[1:] if end is not None)
    if not values:
        return 0.0, 1.0
    cut = len(ends) // 20
    kept = [*values, *(ends[cut : len(ends) - cut] if ends else ())]
    margin = 0.06 * (max(kept) - min(kept)) or 0.5
    return min(kept) - margin, max(kept) + margin


def _words(point: tuple[float, float | None, float | None] | None) -> str:
    return "no value" if point is None else f"{point[0]:.3g}"
