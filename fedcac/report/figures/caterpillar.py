"""Small multiples of many sites' values: one panel per measure, a line per site, sorted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from matplotlib.collections import LineCollection

from fedcac.report.figures.canvas import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    Figure,
    canvas,
    slug,
    to_svg,
)
from fedcac.report.figures.forest import Forest, ForestRow, scale_axis

__all__ = ["Caterpillars", "draw_caterpillars"]

_WIDTH, _TOP, _PANEL, _FOOT = 820, 34, 250, 62
_COLUMNS = 3


@dataclass(frozen=True)
class Caterpillars:
    """Several forest plots without names, on one sheet."""

    section: str
    name: str
    title: str
    panels: tuple[Forest, ...]


def draw_caterpillars(sheet: Caterpillars) -> Figure:
    """Draw each site's interval as a line, its value as a dot, sorted by the value.

    The dashed line is the pooled value, the shaded band the 95% prediction interval for a further
    site where the round has one.
    """
    n_rows = math.ceil(len(sheet.panels) / _COLUMNS)
    height = _TOP + n_rows * (_PANEL + _FOOT)
    name = slug("sites", sheet.name)
    alt = f"{sheet.title}. " + "; ".join(_words(panel) for panel in sheet.panels) + "."
    with canvas(_WIDTH, height) as figure:
        for number, panel in enumerate(sheet.panels):
            row, column = divmod(number, _COLUMNS)
            left = 0.02 + column / _COLUMNS
            bottom = height - _TOP - row * (_PANEL + _FOOT) - _PANEL
            box = (left, bottom / height, 1 / _COLUMNS - 0.04, (_PANEL - 24) / height)
            axes = figure.add_axes(box)
            _draw_panel(axes, panel)
            top = (bottom + _PANEL - 14) / height
            figure.text(left, top, panel.title, size=11, weight="bold")
        figure.text(0.02, 1 - 18 / height, sheet.title, size=13, weight="bold")
        svg = to_svg(figure, name, alt)
    return Figure(name, sheet.section, alt, svg, _WIDTH)


def _draw_panel(axes: Any, panel: Forest) -> None:
    sites = [row for row in panel.rows if not row.is_summary and not row.is_reach]
    known = sorted(_known(sites), key=lambda row: row.estimate or 0.0)
    scale_axis(axes, panel)
    axes.set_ylim(len(known) + 0.5, -1.5)
    for row in panel.rows:
        if row.is_reach and row.low is not None and row.high is not None:
            axes.axvspan(row.low, row.high, color=ORANGE, alpha=0.18, linewidth=0)
    lines = [
        ((row.low, y), (row.high, y))
        for y, row in enumerate(known)
        if row.low is not None and row.high is not None
    ]
    axes.add_collection(LineCollection(lines, colors=GREY, linewidths=0.6))
    values = [row.estimate for row in known]
    axes.plot(values, range(len(known)), linestyle="", marker="o", markersize=2.6, color=BLUE)
    summaries = [row.estimate for row in panel.rows if row.is_summary and row.estimate is not None]
    if summaries:
        axes.axvline(summaries[0], color=INK, linewidth=1.1, linestyle=(0, (4, 3)))
    if panel.reference is not None:
        axes.axvline(panel.reference, color=GREY, linewidth=0.8)


def _known(sites: list[ForestRow]) -> list[ForestRow]:
    return [row for row in sites if row.estimate is not None]


def _words(panel: Forest) -> str:
    sites = [row for row in panel.rows if not row.is_summary and not row.is_reach]
    values = sorted(row.estimate or 0.0 for row in _known(sites))
    summary = next((row.words for row in panel.rows if row.is_summary), "none")
    reach = f"{len(values)} sites from {values[0]:.3g} to {values[-1]:.3g}" if values else "no site"
    return f"{panel.title}: {reach}, pooled {summary}"
