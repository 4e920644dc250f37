"""Pairs of values side by side: two rounds, one line per measure."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.lines import Line2D

from fedcac.report.figures.canvas import BLUE, GREY, INK, VERMILLION, Figure, canvas, slug, to_svg

__all__ = ["PairRow", "draw_pairs"]

_WIDTH, _ROW, _TOP, _BOTTOM = 600, 30, 60, 46
_PLOT_LEFT, _PLOT_RIGHT = 0.27, 0.63
_OFFSET = 0.17

Bounds = tuple[float, float | None, float | None]


@dataclass(frozen=True)
class PairRow:
    """One line: a value of each round as (value, lower, upper limit), and both in words."""

    label: str
    first: Bounds
    second: Bounds
    first_words: str
    second_words: str


def draw_pairs(
    name: str, title: str, axis: str, rows: tuple[PairRow, ...], names: tuple[str, str]
) -> Figure:
    """Draw both values of every line with their own intervals, the first one above the second.

    Parameters
    ----------
    axis
        The axis's label; all lines share its unit.
    names
        What the first and the second value are called in the legend.
    """
    height = _TOP + _ROW * len(rows) + _BOTTOM
    alt = f"{title}. " + "; ".join(
        f"{row.label}: {names[0]} {row.first_words}, {names[1]} {row.second_words}" for row in rows
    )
    with canvas(_WIDTH, height) as figure:
        area = (
            _PLOT_LEFT,
            _BOTTOM / height,
            _PLOT_RIGHT - _PLOT_LEFT,
            1 - (_TOP + _BOTTOM) / height,
        )
        axes = figure.add_axes(area)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        for y, row in enumerate(rows):
            if y % 2:
                axes.axhspan(y - 0.5, y + 0.5, color="#f4f7f9", zorder=0)
            for value, words, shift, colour, marker in (
                (row.first, row.first_words, -_OFFSET, BLUE, "o"),
                (row.second, row.second_words, _OFFSET, VERMILLION, "s"),
            ):
                middle, low, high = value
                if low is not None and high is not None:
                    axes.plot([low, high], [y + shift] * 2, color=colour, linewidth=1.6)
                axes.plot([middle], [y + shift], color=colour, marker=marker, markersize=5)
                axes.text(
                    1.04,
                    y + shift,
                    words,
                    transform=axes.get_yaxis_transform(),
                    va="center",
                    fontsize=10,
                    color=colour,
                )
        axes.set_xlabel(axis)
        axes.grid(axis="x", color="#d5dbe0", linewidth=0.6)
        axes.set_axisbelow(True)
        figure.text(0.01, 1 - 20 / height, title, fontsize=13, fontweight="bold", color=INK)
        handles = [
            Line2D([], [], color=BLUE, marker="o", markersize=5, label=names[0]),
            Line2D([], [], color=VERMILLION, marker="s", markersize=5, label=names[1]),
        ]
        figure.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(0.0, 1 - 26 / height),
            ncols=2,
            frameon=False,
            fontsize=10,
            labelcolor=GREY,
        )
        svg = to_svg(figure, slug(name), alt)
    return Figure(slug(name), "comparison", alt, svg, _WIDTH)
