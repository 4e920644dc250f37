"""Forest plots in the manner of the Cochrane Collaboration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.patches import Polygon
from matplotlib.transforms import blended_transform_factory

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

__all__ = ["Forest", "ForestRow", "draw_forest", "scale_axis"]

_WIDTH, _TOP = 600, 50
_BOTTOM, _NOTE = 46, 22
_PLOT_LEFT, _PLOT_RIGHT = 0.31, 0.69
_TOLD = 14


@dataclass(frozen=True)
class _Density:
    """Height of a row and size of its text, in CSS pixels: a plot fits an A4 page."""

    row: float
    text: float

    @staticmethod
    def of(n_rows: int) -> _Density:
        if n_rows <= 14:
            return _Density(23, 11)
        if n_rows <= 45:
            return _Density(16, 10)
        return _Density(max(9.2, 920 / n_rows) if n_rows <= 100 else 920 / n_rows, 7.6)


@dataclass(frozen=True)
class ForestRow:
    """One line: a site's square or a summary's diamond; numbers in the units of the axis.

    `words` are the numbers at the right, or why there are none. `is_reach` marks a prediction
    interval, a line without a mark.
    """

    label: str
    words: str
    n: int | None = None
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    is_summary: bool = False
    is_reach: bool = False


@dataclass(frozen=True)
class Forest:
    """A forest plot. `limits` are the ends of the axis; None fits them to the intervals.

    `reference` is where a vertical line marks 'no effect'.
    """

    section: str
    name: str
    title: str
    axis: str
    rows: tuple[ForestRow, ...]
    note: str = ""
    is_log: bool = False
    limits: tuple[float, float] | None = None
    reference: float | None = None


def draw_forest(forest: Forest) -> Figure:
    """Draw squares sized by n, diamonds for summaries, and the numbers at the right."""
    # A note has a line of its own below the label of the axis.
    bottom = _BOTTOM + (_NOTE if forest.note else 0)
    density = _Density.of(len(forest.rows))
    height = _TOP + density.row * len(forest.rows) + bottom
    name = slug("forest", forest.name)
    alt = f"Forest plot, {forest.title}. {_describe(forest.rows)}"
    with canvas(_WIDTH, height) as figure:
        axes = figure.add_axes(
            (
                _PLOT_LEFT,
                bottom / height,
                _PLOT_RIGHT - _PLOT_LEFT,
                1 - (_TOP + bottom) / height,
            )
        )
        axes.set_ylim(len(forest.rows) - 0.5, -0.5)
        scale_axis(axes, forest)
        across = blended_transform_factory(figure.transFigure, axes.transData)
        largest = max((row.n or 0 for row in forest.rows if not row.is_summary), default=0)
        for y, row in enumerate(forest.rows):
            _draw_row(axes, y, row, largest, density)
            _write_row(axes, across, y, row, density.text)
        _draw_guides(axes, forest)
        _head(figure, height, forest)
        svg = to_svg(figure, name, alt + ".")
    return Figure(name, forest.section, alt + ".", svg, _WIDTH)


def _describe(rows: Sequence[ForestRow]) -> str:
    """Return the rows in words: of many sites the lowest and the highest, since a table follows."""
    sites = [row for row in rows if not row.is_summary and not row.is_reach]
    if len(sites) <= _TOLD:
        return "; ".join(f"{row.label}: {row.words}" for row in rows)
    known = sorted((r.estimate, r.label, r.words) for r in sites if r.estimate is not None)
    ends = [f"{label} {words}" for _, label, words in (known[:1] + known[-1:])]
    others = [f"{row.label}: {row.words}" for row in rows if row.is_summary or row.is_reach]
    return "; ".join([f"{len(known)} sites, from {' to '.join(ends)}", *others])


def scale_axis(axes: Any, forest: Forest) -> None:
    """Give axes the plot's scale, limits and label; there are no marks for the rows."""
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(forest.axis)
    if forest.is_log:
        axes.set_xscale("log")
    low, high = forest.limits or _fit(forest)
    axes.set_xlim(low, high)
    if forest.is_log:
        ticks = [
            t
            for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
            if low <= t <= high
        ]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()


def _fit(forest: Forest) -> tuple[float, float]:
    marks = [
        mark
        for row in forest.rows
        for mark in (row.low, row.estimate, row.high)
        if mark is not None and (mark > 0 or not forest.is_log)
    ]
    if forest.reference is not None:
        marks.append(forest.reference)
    low, high = (min(marks), max(marks)) if marks else (0.5, 2.0)
    if forest.is_log:
        # One absurd interval must not flatten the others; what lies outside gets an arrow.
        return max(low * 0.85, 0.01), min(high * 1.15, 100.0)
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin


def _draw_row(axes: Any, y: int, row: ForestRow, largest: int, density: _Density) -> None:
    if row.is_reach and row.low is not None and row.high is not None:
        left, right = axes.get_xlim()
        ends = [max(row.low, left), min(row.high, right)]
        axes.plot(ends, [y, y], color=VERMILLION, linewidth=2.2, solid_capstyle="butt")
        return
    if row.estimate is None:
        return
    low = row.estimate if row.low is None else row.low
    high = row.estimate if row.high is None else row.high
    if row.is_summary:
        corners = [(low, y), (row.estimate, y - 0.3), (high, y), (row.estimate, y + 0.3)]
        axes.add_patch(Polygon(corners, closed=True, facecolor=BLUE, edgecolor=INK, linewidth=0.8))
        return
    left, right = axes.get_xlim()
    size = density.row / 23
    axes.plot([max(low, left), min(high, right)], [y, y], color=INK, linewidth=0.5 + 0.7 * size)
    for end, edge, marker in ((low, left, "<"), (high, right, ">")):
        if (end < edge) if marker == "<" else (end > edge):
            axes.plot([edge], [y], marker=marker, color=INK, markersize=5 * size, clip_on=False)
    area = 14 + 86 * (row.n or 0) / largest if largest else 40
    area *= size**1.5
    axes.scatter([row.estimate], [y], s=area, marker="s", color=BLUE, linewidths=0, zorder=3)


def _write_row(axes: Any, across: Any, y: int, row: ForestRow, size: float) -> None:
    weight = "bold" if row.is_summary else "normal"
    missing = row.estimate is None and not row.is_reach
    axes.text(0.012, y, row.label, transform=across, va="center", weight=weight, size=size)
    n = "" if row.n is None else f"{row.n:,}"
    axes.text(_PLOT_LEFT - 0.02, y, n, transform=across, va="center", ha="right", size=size)
    axes.text(
        _PLOT_RIGHT + 0.025, y, row.words, transform=across, va="center", size=size, weight=weight,
        color=GREY if missing else INK, style="italic" if missing else "normal",
    )  # fmt: skip


def _draw_guides(axes: Any, forest: Forest) -> None:
    summaries = [row.estimate for row in forest.rows if row.is_summary and row.estimate is not None]
    if summaries and forest.reference is None:
        axes.axvline(summaries[0], color=BLUE, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    if forest.reference is not None:
        axes.axvline(forest.reference, color=GREY, linewidth=0.9, zorder=0)
    if any(row.is_summary for row in forest.rows) and not forest.rows[0].is_summary:
        first = next(y for y, row in enumerate(forest.rows) if row.is_summary)
        axes.axhline(first - 0.5, color="#c9d0d6", linewidth=0.8, zorder=0)


def _head(figure: Any, height: float, forest: Forest) -> None:
    figure.text(0.012, 1 - 19 / height, forest.title, size=13, weight="bold")
    top = 1 - 40 / height
    figure.text(_PLOT_LEFT - 0.02, top, "n", size=10, color=GREY, ha="right")
    figure.text(_PLOT_RIGHT + 0.025, top, "Estimate (95% CI)", size=10, color=GREY)
    if forest.note:
        figure.text(0.012, 12 / height, forest.note, size=10, color=GREY)
