"""Score distributions from released histograms, and categories by site from released matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.transforms import blended_transform_factory

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
from fedcac.report.released_scores import ScoreBins

__all__ = ["MixRow", "Violin", "draw_mix", "draw_violins"]

_WIDTH, _TOP, _BOTTOM = 680, 62, 44
_LEFT, _RIGHT = 0.2, 0.72
_TICKS: Final = (0, 1, 10, 100, 400, 1000, 4000)
_FEWEST_BINS = 36
_SHADES: Final = ("#f2f2f2", "#bdd7e7", "#6baed6", "#3182bd", "#08519c", "#08306b", "#04182f")


@dataclass(frozen=True)
class Violin:
    """One row: the histograms of the index and the reference score, or why there is none."""

    label: str
    index: ScoreBins | None
    reference: ScoreBins | None
    gap: str = ""
    is_summary: bool = False


@dataclass(frozen=True)
class MixRow:
    """One row: patients per category by the reference and by the index, or why there are none."""

    label: str
    reference: tuple[int, ...] = ()
    index: tuple[int, ...] = ()
    gap: str = ""
    is_summary: bool = False


def _step(n_rows: int, wide: float) -> tuple[float, float]:
    """Return the height of a row and the size of its text: many rows share an A4 page."""
    if n_rows <= 9:
        return wide, 11.0
    if n_rows <= 30:
        return max(26.0, wide / 2), 10.0
    return 900 / n_rows, 7.6


def draw_violins(
    analysis: str, title: str, rows: Sequence[Violin], names: tuple[str, str]
) -> Figure:
    """Draw the density of scores above zero: index above the line, reference below it.

    The axis is ln(score + 1). Neighbouring bins are joined until they are a thirty-sixth of the
    axis wide; bins that the gate merged stay as wide as they are. Scores of zero are a point mass
    and stand at the right as a share.
    """
    step, size = _step(len(rows), 60)
    height = _TOP + step * len(rows) + _BOTTOM
    name = slug("distribution", analysis)
    alt = f"Score distributions, {title}. " + "; ".join(
        f"{row.label}: {_words(row)}" for row in rows[:14]
    )
    top = max((_peak(bins) for row in rows for bins in (row.index, row.reference)), default=1.0)
    with canvas(_WIDTH, height) as figure:
        axes = _axes(figure, height, len(rows))
        axes.set_xlim(0, np.log1p(10_000))
        axes.set_xticks(np.log1p(_TICKS), [f"{tick:,}" for tick in _TICKS])
        axes.set_xlabel("Agatston score, logarithmic from 1 up")
        across = blended_transform_factory(figure.transFigure, axes.transData)
        for y, row in enumerate(rows):
            weight = "bold" if row.is_summary else "normal"
            axes.text(0.012, y, row.label, transform=across, va="center", size=size, weight=weight)
            axes.axhline(y, color=GREY, linewidth=0.5)
            for bins, side, colour in ((row.index, -1, BLUE), (row.reference, 1, ORANGE)):
                if bins is not None:
                    _half(axes, bins, y, side * 0.46 / (top or 1.0), colour)
            axes.text(
                _RIGHT + 0.02, y, _words(row), transform=across, va="center", size=size,
                color=GREY if row.gap else INK, style="italic" if row.gap else "normal",
            )  # fmt: skip
        _head(figure, height, title, "n; zero: index, reference", names)
        svg = to_svg(figure, name, alt + ".")
    return Figure(name, f"distribution:{analysis}", alt + ".", svg, _WIDTH)


def draw_mix(
    analysis: str, labels: Sequence[str], rows: Sequence[MixRow], names: tuple[str, str]
) -> Figure:
    """Draw each site's share of the categories: upper bar by the reference, lower by the index."""
    step, size = _step(len(rows), 36)
    height = _TOP + step * len(rows) + _BOTTOM
    name = slug("categories", analysis)
    alt = f"Share of the risk categories, {names[1]} and {names[0]}. " + "; ".join(
        f"{row.label}: {row.gap or _shares(row, labels)}" for row in rows[:14]
    )
    shades = [_SHADES[round(i * 5 / max(1, len(labels) - 1))] for i in range(len(labels))]
    with canvas(_WIDTH, height) as figure:
        axes = _axes(figure, height, len(rows))
        axes.set_xlim(0, 100)
        axes.set_xlabel("Patients, %")
        across = blended_transform_factory(figure.transFigure, axes.transData)
        for y, row in enumerate(rows):
            weight = "bold" if row.is_summary else "normal"
            axes.text(0.012, y, row.label, transform=across, va="center", size=size, weight=weight)
            if row.gap:
                axes.text(1, y, row.gap, va="center", size=size, color=GREY, style="italic")
                continue
            for counts, place in ((row.reference, y - 0.2), (row.index, y + 0.2)):
                _stack(axes, counts, place, shades)
            n = f"n = {sum(row.reference):,}"
            axes.text(_RIGHT + 0.02, y, n, transform=across, va="center", size=size)
        figure.text(0.012, 1 - 19 / height, "Categories by site", size=13, weight="bold")
        words = f"Upper bar: {names[1].lower()}; lower bar: {names[0].lower()}"
        figure.text(0.012, 1 - 38 / height, words, size=10, color=GREY)
        for number, (label, shade) in enumerate(zip(labels, shades, strict=True)):
            x = _LEFT + number * 0.1
            figure.text(x, 1 - 55 / height, "\N{BLACK SQUARE}", size=12, color=shade)
            figure.text(x + 0.024, 1 - 55 / height, label, size=10)
        svg = to_svg(figure, name, alt + ".")
    return Figure(name, f"mix:{analysis}", alt + ".", svg, _WIDTH)


def _axes(figure: Any, height: float, n_rows: int) -> Any:
    box = (_LEFT, _BOTTOM / height, _RIGHT - _LEFT, 1 - (_TOP + _BOTTOM) / height)
    axes = figure.add_axes(box)
    axes.set_ylim(n_rows - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    return axes


def _head(figure: Any, height: float, title: str, column: str, names: tuple[str, str]) -> None:
    figure.text(0.012, 1 - 19 / height, title, size=13, weight="bold")
    for number, (label, colour) in enumerate(zip(names, (BLUE, ORANGE), strict=True)):
        side = "above" if number == 0 else "below"
        x = 0.012 + 0.34 * number
        figure.text(x, 1 - 38 / height, "\N{BLACK SQUARE}", size=12, color=colour)
        figure.text(x + 0.024, 1 - 38 / height, f"{label} ({side} the line)", size=10)
    figure.text(_RIGHT + 0.02, 1 - 55 / height, column, size=10, color=GREY)


def _stack(axes: Any, counts: Sequence[int], y: float, shades: Sequence[str]) -> None:
    total, left = sum(counts) or 1, 0.0
    for count, shade in zip(counts, shades, strict=True):
        width = 100 * count / total
        if count:
            axes.barh(y, width, 0.34, left=left, color=shade, edgecolor=INK, linewidth=0.3)
        left += width


def _joined(bins: ScoreBins) -> tuple[list[float], list[float]]:
    """Return edges and densities (share of the patients per unit of ln) of the scores above 0."""
    first = 1 if bins.n_zero is not None else 0
    edges, counts = bins.edges[first:], bins.counts[first:]
    narrowest = float(np.log1p(10_000)) / _FEWEST_BINS
    joined, densities, sum_, start = [edges[0]], [], 0, edges[0]
    for number, count in enumerate(counts):
        sum_ += count
        end = edges[number + 1]
        if end - start >= narrowest or number == len(counts) - 1:
            densities.append(sum_ / (bins.n or 1) / max(end - start, 1e-9))
            joined.append(end)
            start, sum_ = end, 0
    return joined, densities


def _peak(bins: ScoreBins | None) -> float:
    return max(_joined(bins)[1], default=0.0) if bins is not None else 0.0


def _half(axes: Any, bins: ScoreBins, y: float, scale: float, colour: str) -> None:
    edges, densities = _joined(bins)
    corners = [(edges[0], y)]
    for number, density in enumerate(densities):
        corners += [(edges[number], y + scale * density), (edges[number + 1], y + scale * density)]
    corners.append((edges[-1], y))
    shape = PolyCollection([corners], facecolors=colour, alpha=0.75, edgecolors=INK, linewidths=0.5)
    axes.add_collection(shape)


def _words(row: Violin) -> str:
    if row.gap:
        return row.gap
    n = max((bins.n for bins in (row.index, row.reference) if bins is not None), default=0)
    return f"{n:,}; {', '.join(_zero(bins) for bins in (row.index, row.reference))}"


def _zero(bins: ScoreBins | None) -> str:
    if bins is None:
        return "suppressed"
    return "merged" if bins.n_zero is None else f"{100 * bins.n_zero / (bins.n or 1):.0f}%"


def _shares(row: MixRow, labels: Sequence[str]) -> str:
    total = sum(row.reference) or 1
    return ", ".join(
        f"{label} {100 * count / total:.0f}%"
        for label, count in zip(labels, row.reference, strict=True)
    )
