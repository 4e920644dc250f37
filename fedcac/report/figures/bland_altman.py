"""Bias and limits of agreement per site and pooled, from aggregates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.transforms import blended_transform_factory

from fedcac.report.figures.canvas import (
    BLUE,
    GREY,
    INK,
    SKY,
    VERMILLION,
    Figure,
    canvas,
    slug,
    to_svg,
)

__all__ = ["BlandAltmanRow", "Bounds", "draw_bland_altman"]

_WIDTH, _TOP, _BOTTOM = 680, 52, 50
_PLOT_LEFT, _PLOT_RIGHT = 0.22, 0.70
_TOLD = 14

Bounds = tuple[float, float, float]
"""Estimate and the two ends of its confidence interval."""


@dataclass(frozen=True)
class BlandAltmanRow:
    """One site or summary: bias and limits in score units, or the words that say why not."""

    label: str
    words: str
    n: int | None = None
    bias: Bounds | None = None
    lower: Bounds | None = None
    upper: Bounds | None = None
    is_summary: bool = False


def draw_bland_altman(
    analysis: str, term: str, title: str, rows: tuple[BlandAltmanRow, ...]
) -> Figure:
    """Draw a bar from limit to limit with the bias in it; thin lines are confidence intervals."""
    # Many sites share the height of an A4 page.
    step = 34.0 if len(rows) <= 14 else 20.0 if len(rows) <= 45 else 1040 / len(rows)
    size = 11.0 if step >= 20 else 7.6
    height = _TOP + step * len(rows) + _BOTTOM
    name = slug("bland_altman", analysis, term)
    alt = (
        f"Bland-Altman summary, {title}, index minus reference score. "
        + "; ".join(
            f"{row.label}: {row.words}" for row in rows if row.is_summary or len(rows) <= _TOLD
        )
        + "."
    )
    with canvas(_WIDTH, height) as figure:
        box = (_PLOT_LEFT, _BOTTOM / height, _PLOT_RIGHT - _PLOT_LEFT)
        axes = figure.add_axes((*box, 1 - (_TOP + _BOTTOM) / height))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("Difference in score, index minus reference")
        axes.axvline(0, color=GREY, linewidth=0.9, zorder=0)
        across = blended_transform_factory(figure.transFigure, axes.transData)
        for y, row in enumerate(rows):
            _draw_row(axes, y, row, step / 34)
            _write_row(axes, across, y, row, size)
        axes.margins(x=0.04)
        figure.text(0.012, 1 - 19 / height, title, size=13, weight="bold")
        top = 1 - 42 / height
        figure.text(_PLOT_LEFT - 0.02, top, "n", size=10, color=GREY, ha="right")
        figure.text(_PLOT_RIGHT + 0.02, top, "Bias (limits of agreement)", size=10, color=GREY)
        svg = to_svg(figure, name, alt)
    return Figure(name, f"bland_altman:{analysis}", alt, svg, _WIDTH)


def _draw_row(axes: Any, y: int, row: BlandAltmanRow, size: float) -> None:
    if row.bias is None:
        return
    if row.lower is not None and row.upper is not None:
        axes.barh(
            y, row.upper[0] - row.lower[0], left=row.lower[0], height=0.3, color=SKY, alpha=0.5
        )
        for limit in (row.lower, row.upper):
            axes.plot([limit[0]] * 2, [y - 0.24, y + 0.24], color=BLUE, linewidth=0.6 + size)
            axes.plot(limit[1:], [y, y], color=BLUE, linewidth=0.4 + 0.8 * size)
    axes.plot(row.bias[1:], [y, y], color=INK, linewidth=0.6 + 1.8 * size, solid_capstyle="butt")
    marker = "D" if row.is_summary else "s"
    axes.plot([row.bias[0]], [y], marker=marker, color=VERMILLION, markersize=2 + 4 * size)


def _write_row(axes: Any, across: Any, y: int, row: BlandAltmanRow, size: float) -> None:
    weight = "bold" if row.is_summary else "normal"
    missing = row.bias is None
    axes.text(0.012, y, row.label, transform=across, va="center", weight=weight, size=size)
    n = "" if row.n is None else f"{row.n:,}"
    axes.text(_PLOT_LEFT - 0.02, y, n, transform=across, va="center", ha="right", size=size)
    axes.text(
        _PLOT_RIGHT + 0.02, y, row.words, transform=across, va="center", weight=weight, size=size,
        color=GREY if missing else INK, style="italic" if missing else "normal",
    )  # fmt: skip
