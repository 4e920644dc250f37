"""Every recorded ratio with its spread, on a log axis, as SVG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.registry import BENCHMARKS, Figure
from fedcac.report.figures.canvas import BLUE, GREY, INK, VERMILLION, canvas, to_svg

__all__ = ["ratio_figure"]

_WIDTH, _ROW, _EDGES = 620, 16, 104
_LIMITS = (0.004, 400)
_TICKS = (0.01, 0.1, 1, 10, 100)


def _ratios(results: Mapping[str, Any]) -> list[tuple[Figure, Mapping[str, float]]]:
    found = [
        (figure, results["ratios"][figure.key])
        for benchmark in BENCHMARKS
        for figure in benchmark.figures
        if figure.kind == "ratios" and figure.key in results["ratios"]
    ]
    # The two questions apart, each from fast to slow.
    return sorted(found, key=lambda pair: (pair[0].is_round, -pair[1]["median"]))


def ratio_figure(results: Mapping[str, Any]) -> str:
    """Return the figure; hollow squares are rounds beside models of pooled rows."""
    shown = _ratios(results)
    alt = "Ratio of the other's seconds to ours, median and range: " + "; ".join(
        f"{figure.words} {spread['median']:g} ({spread['least']:g} to {spread['greatest']:g})"
        for figure, spread in shown
    )
    # One empty row between the two questions.
    places = [place + figure.is_round for place, (figure, _) in enumerate(shown)]
    height = _ROW * (len(shown) + 1) + _EDGES
    with canvas(_WIDTH, height) as canvas_figure:
        axis: Any = canvas_figure.add_axes((0.42, 58 / height, 0.545, 1 - _EDGES / height))
        axis.set_xscale("log")
        axis.set_xlim(*_LIMITS)
        axis.set_ylim(len(shown) + 0.6, -0.6)
        axis.axvline(1, color=INK, linewidth=1)
        for place, (figure, spread) in zip(places, shown, strict=True):
            colour = VERMILLION if figure.is_round else BLUE
            ends = [max(spread["least"], _LIMITS[0]), spread["greatest"]]
            axis.plot(ends, [place, place], color=colour, linewidth=2, solid_capstyle="butt")
            axis.plot(
                [max(spread["median"], _LIMITS[0])],
                [place],
                "s" if figure.is_round else "o",
                color=colour,
                markerfacecolor="white" if figure.is_round else colour,
                markersize=5.5,
                clip_on=False,
            )
        axis.set_yticks(places, [figure.words for figure, _ in shown], fontsize=9)
        axis.tick_params(axis="y", length=0)
        axis.minorticks_off()
        axis.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
        axis.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.6)
        axis.set_axisbelow(True)
        axis.set_xlabel("the other's seconds / ours (log scale)")
        _draw_head(canvas_figure, axis, height)
        return to_svg(canvas_figure, "benchmarks", alt)


def _draw_head(figure: Any, axis: Any, height: float) -> None:
    below, above = 1 - 40 / height, 1 - 18 / height
    place = axis.get_position()
    figure.text(place.x0, below, "ours slower", fontsize=9, color=GREY)
    figure.text(place.x1, below, "ours faster", fontsize=9, color=GREY, ha="right")
    figure.text(0.012, above, "\u25cf the same work", fontsize=10, color=BLUE)
    text = "\u25a1 a signed round of ours, all rows in one place for the other"
    figure.text(0.2, above, text, fontsize=10, color=VERMILLION)
