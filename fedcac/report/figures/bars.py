"""Bars of net reclassification, and calibration of predicted against observed risk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fedcac.report.figures.canvas import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    SKY,
    Figure,
    canvas,
    slug,
    to_svg,
)

__all__ = ["Bar", "BarGroup", "CalibrationPoint", "draw_calibration", "draw_nri"]

_WIDTH, _HEIGHT, _SIDE = 640, 330, 380
_COLOURS = {"Event": BLUE, "Non-event": SKY, "Overall": ORANGE}


@dataclass(frozen=True)
class Bar:
    """One bar; limits are None where there are none, and so is the value behind `gap`."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    gap: str = ""


@dataclass(frozen=True)
class BarGroup:
    """The bars of one comparison of models."""

    label: str
    bars: tuple[Bar, ...]


def draw_nri(section: str, name: str, title: str, groups: tuple[BarGroup, ...]) -> Figure:
    """Draw event, non-event and overall net reclassification side by side."""
    alt = f"{title}. " + "; ".join(
        f"{group.label}, {bar.label.lower()}: "
        + (bar.gap if bar.value is None else f"{bar.value:.3f}")
        for group in groups
        for bar in group.bars
    )
    name = slug("nri", name)
    longest = max(len(group.label) for group in groups)
    is_crowded = longest * 7 > 0.87 * _WIDTH / len(groups)
    # Steep names need room below.
    extra = 6 * longest if is_crowded else 0
    height = _HEIGHT + extra
    has_intervals = any(bar.low is not None for group in groups for bar in group.bars)
    with canvas(_WIDTH, height) as figure:
        axes = figure.add_axes(
            (0.1, (0.15 * _HEIGHT + extra) / height, 0.87, 0.62 * _HEIGHT / height)
        )
        for place, group in enumerate(groups):
            for number, bar in enumerate(group.bars):
                x = place + 0.26 * (number - 1)
                if bar.value is None:
                    # At the foot of the plot, wherever 0 is.
                    axes.text(
                        x,
                        0.03,
                        bar.gap,
                        rotation=90,
                        ha="center",
                        size=9,
                        color=GREY,
                        transform=axes.get_xaxis_transform(),
                    )
                    continue
                axes.bar(x, bar.value, 0.23, color=_COLOURS.get(bar.label, GREY), edgecolor=INK,
                         linewidth=0.6)  # fmt: skip
                top = bar.value
                if bar.low is not None and bar.high is not None:
                    axes.plot([x, x], [bar.low, bar.high], color=INK, linewidth=1.2)
                    top = bar.high
                axes.annotate(
                    f"{bar.value:.3f}".replace("-", "\N{MINUS SIGN}"),
                    (x, max(top, 0.0)),
                    xytext=(0, 3),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    rotation=90 if len(groups) > 5 else 0,
                    size=9,
                )
        axes.axhline(0, color=INK, linewidth=0.8)
        slant: dict[str, Any] = (
            {"rotation": 70, "ha": "right", "rotation_mode": "anchor"} if is_crowded else {}
        )
        axes.set_xticks(range(len(groups)), [group.label for group in groups], **slant)
        axes.tick_params(axis="x", length=0)
        axes.set_xlim(-0.5, len(groups) - 0.5)
        axes.margins(y=0.12 if len(groups) <= 5 else 0.25)
        axes.set_ylabel("Net reclassification improvement")
        figure.text(0.012, 1 - 19 / height, title, size=13, weight="bold")
        for number, (label, colour) in enumerate(_COLOURS.items()):
            figure.text(0.1 + 0.17 * number, 1 - 46 / height, f"\N{BLACK SQUARE} {label}", size=11,
                        color=colour, weight="bold")  # fmt: skip
        lines = "Lines: 95% confidence intervals" if has_intervals else "Without intervals"
        figure.text(0.62, 1 - 46 / height, lines, size=10, color=GREY)
        svg = to_svg(figure, name, alt + ".")
    return Figure(name, section, alt + ".", svg, _WIDTH)


@dataclass(frozen=True)
class CalibrationPoint:
    """One bin of predicted risk: mean prediction, observed share with limits, patients."""

    expected: float
    observed: float
    low: float | None
    high: float | None
    n: int


def draw_calibration(
    section: str, name: str, title: str, points: tuple[CalibrationPoint, ...], note: str
) -> Figure:
    """Draw observed against expected risk with the line of perfect calibration."""
    alt = f"Calibration, {title}. " + "; ".join(
        f"expected {100 * p.expected:.1f}%, observed {100 * p.observed:.1f}%" for p in points
    )
    name = slug("calibration", name)
    with canvas(_SIDE, _SIDE) as figure:
        axes = figure.add_axes((0.16, 0.14, 0.78, 0.68))
        top = max(max(p.observed, p.high or 0.0, p.expected) for p in points)
        # Where nothing is expected and nothing seen, the axes still need a length.
        edge = min(1.0, max(1.08 * top, 0.05))
        axes.plot([0, edge], [0, edge], color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
        largest = max(p.n for p in points)
        for point in points:
            if point.low is not None and point.high is not None:
                axes.plot([point.expected] * 2, [point.low, point.high], color=INK, linewidth=1.1)
            area = 16 + 80 * point.n / largest
            axes.scatter([point.expected], [point.observed], s=area, color=BLUE, zorder=3)
        axes.set_xlim(0, edge)
        axes.set_ylim(0, edge)
        axes.set_xlabel("Predicted risk")
        axes.set_ylabel("Observed")
        figure.text(0.02, 1 - 19 / _SIDE, title, size=12, weight="bold")
        figure.text(0.02, 1 - 40 / _SIDE, note, size=10, color=GREY)
        svg = to_svg(figure, name, alt + ".")
    return Figure(name, section, alt + ".", svg, _SIDE)
