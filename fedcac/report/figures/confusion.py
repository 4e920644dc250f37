"""Confusion heat maps and Bangdiwala's agreement chart, from counts that passed the gate."""

from __future__ import annotations

from typing import Any

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from fedcac.report.figures.canvas import BLUE, GREY, INK, SKY, Figure, canvas, slug, to_svg
from fedcac.report.findings import Matrix
from fedcac.report.wording import scope_words

__all__ = ["draw_agreement", "draw_confusion"]

_SHADES = LinearSegmentedColormap.from_list("shares", ["#ffffff", "#9ecae9", BLUE, "#003f66"])
_LEFT, _TOP, _PLOT, _BOTTOM = 74, 46, 250, 62
_LONGEST = 34

Names = tuple[str, str]
"""What the columns and the rows are called."""

_NAMES: Names = ("Index test", "Reference standard")


def draw_confusion(analysis: str, matrix: Matrix, gap: str = "", names: Names = _NAMES) -> Figure:
    """Draw one matrix; shade = share of the reference category.

    `gap` is why a matrix without counts has none; such a matrix is a hatched panel that says so.
    """
    words = scope_words(matrix.scope)
    name = slug("confusion", analysis, matrix.scope, "collapsed" if matrix.is_collapsed else "")
    size = len(matrix.labels)
    with canvas(_LEFT + _PLOT + 14, _TOP + _PLOT + _BOTTOM) as figure:
        axes = _square(figure, size)
        for row, counts in enumerate([] if matrix.is_suppressed else _counts(matrix)):
            for column, count in enumerate(counts):
                _draw_cell(axes, row, column, count, sum(counts))
        _label_categories(axes, matrix, names)
        alt = _describe(matrix, words, gap)
        if matrix.is_suppressed:
            _hatch(axes, size, gap)
        merged = ", categories merged" if matrix.is_collapsed else ""
        _head(figure, words, "" if matrix.n is None else f"n = {matrix.n:,}{merged}")
        svg = to_svg(figure, name, alt)
    return Figure(name, f"confusion:{analysis}", alt, svg, _LEFT + _PLOT + 14)


def draw_agreement(analysis: str, matrix: Matrix, names: Names = _NAMES) -> Figure:
    """Draw Bangdiwala's agreement chart of a matrix without suppressed cells.

    Rectangle i spans the index and the reference count of category i; the dark square inside it
    is exact agreement, the light one also counts the neighbouring categories (Bangdiwala 1985).
    """
    counts = _counts(matrix)
    by_reference = [sum(row) for row in counts]
    by_index = [sum(row[i] for row in counts) for i in range(len(counts))]
    exact = sum(counts[i][i] ** 2 for i in range(len(counts)))
    area = sum(a * b for a, b in zip(by_reference, by_index, strict=True))
    strength = f", B = {exact / area:.2f}" if area else ""
    words = scope_words(matrix.scope)
    name = slug("agreement", analysis, matrix.scope, "collapsed" if matrix.is_collapsed else "")
    total = sum(by_reference)
    alt = (
        f"Agreement chart, {words}: {sum(counts[i][i] for i in range(len(counts)))} of {total} "
        f"patients in the same category by {names[0].lower()} and {names[1].lower()}{strength}."
    )
    with canvas(_LEFT + _PLOT + 14, _TOP + _PLOT + _BOTTOM) as figure:
        axes = _square(figure, total)
        axes.plot([0, total], [0, total], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        x = y = 0
        for i in range(len(counts)):
            axes.add_patch(
                Rectangle((x, y), by_index[i], by_reference[i], facecolor="white", edgecolor=INK)
            )
            for reach, colour in ((1, SKY), (0, BLUE)):
                axes.add_patch(Rectangle(*_overlap(counts, i, reach, x, y), facecolor=colour))
            x, y = x + by_index[i], y + by_reference[i]
        _ticks(axes.xaxis, by_index, matrix.labels, total)
        _ticks(axes.yaxis, by_reference, matrix.labels, total)
        axes.set_xlabel(f"{_short(names[0])} (cumulative)")
        axes.set_ylabel(_short(names[1]))
        _head(figure, words, f"n = {total:,}{strength}")
        svg = to_svg(figure, name, alt)
    return Figure(name, f"agreement:{analysis}", alt, svg, _LEFT + _PLOT + 14)


def _short(name: str) -> str:
    """Return a name that fits an axis."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1].rstrip()}…"


def _counts(matrix: Matrix) -> list[list[int]]:
    return [[cell or 0 for cell in row] for row in matrix.cells]


def _overlap(
    counts: list[list[int]], i: int, reach: int, x: int, y: int
) -> tuple[tuple[int, int], int, int]:
    # Within rectangle i, patients are ordered by the other test's category, low to high; the
    # agreeing ones are therefore a run that starts after those with a lower category.
    near = range(max(0, i - reach), min(len(counts), i + reach + 1))
    left = sum(counts[j][i] for j in range(near.start))
    below = sum(counts[i][j] for j in range(near.start))
    return (x + left, y + below), sum(counts[j][i] for j in near), sum(counts[i][j] for j in near)


def _square(figure: Any, size: float) -> Any:
    width, height = figure.get_size_inches() * 72
    axes = figure.add_axes(
        (_LEFT / width, _BOTTOM / height, _PLOT / width, _PLOT / height), facecolor="white"
    )
    axes.set_xlim(0, max(size, 1))
    axes.set_ylim(0, max(size, 1))
    axes.tick_params(length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)
    return axes


def _draw_cell(axes: Any, row: int, column: int, count: int, total: int) -> None:
    share = count / total if total else 0.0
    axes.add_patch(
        Rectangle(
            (column, row), 1, 1, facecolor=_SHADES(0.9 * share), edgecolor="#c9d0d6", linewidth=0.8
        )
    )
    style = {"ha": "center", "va": "center", "color": "white" if share > 0.45 else INK}
    weight = "bold" if row == column else "normal"
    axes.text(column + 0.5, row + 0.58, f"{count:,}", size=12, weight=weight, **style)
    axes.text(column + 0.5, row + 0.24, f"{100 * share:.0f}%", size=9, **style)


def _label_categories(axes: Any, matrix: Matrix, names: Names) -> None:
    centres = [i + 0.5 for i in range(len(matrix.labels))]
    axes.set_xticks(centres, matrix.labels)
    axes.set_yticks(centres, matrix.labels)
    axes.set_xlabel(_short(names[0]))
    axes.set_ylabel(_short(names[1]))


def _hatch(axes: Any, size: int, words: str) -> None:
    axes.add_patch(Rectangle((0, 0), size, size, facecolor="#f3f5f6", edgecolor=GREY, hatch="//"))
    axes.text(
        size / 2, size / 2, words, ha="center", va="center", size=13,
        bbox={"facecolor": "white", "edgecolor": GREY, "linewidth": 0.8, "pad": 7},
    )  # fmt: skip


def _ticks(axis: Any, widths: list[int], labels: tuple[str, ...], total: int) -> None:
    """Label the categories at the middle of their share, leaving out labels that would collide."""
    centres = [sum(widths[:i]) + width / 2 for i, width in enumerate(widths)]
    kept: list[int] = []
    for i in sorted(range(len(widths)), key=lambda i: -widths[i]):
        room = 0.05 * total * max(1.0, len(labels[i]) / 3)
        if widths[i] and all(abs(centres[i] - centres[j]) > room for j in kept):
            kept.append(i)
    axis.set_ticks([centres[i] for i in sorted(kept)], [labels[i] for i in sorted(kept)])


def _head(figure: Any, title: str, note: str) -> None:
    width, height = figure.get_size_inches() * 72
    figure.text(_LEFT / width, 1 - 19 / height, title, size=13, weight="bold")
    figure.text(_LEFT / width, 1 - 36 / height, note, size=10, color=GREY)


def _describe(matrix: Matrix, words: str, gap: str) -> str:
    if matrix.is_suppressed:
        return f"Confusion matrix, {words}: {gap}."
    rows = "; ".join(
        f"reference {label}: {', '.join(str(count) for count in counts)}"
        for label, counts in zip(matrix.labels, matrix.cells, strict=True)
    )
    return f"Confusion matrix, {words}, index categories {', '.join(matrix.labels)}. {rows}."
