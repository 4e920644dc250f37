"""Matplotlib figures as clean, deterministic SVG: text as text, no style sheet, no date."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as MplFigure

__all__ = [
    "BLUE",
    "FONT_FAMILY",
    "GREY",
    "INK",
    "ORANGE",
    "SKY",
    "VERMILLION",
    "Figure",
    "canvas",
    "slug",
    "to_svg",
]

# Okabe and Ito (2008), safe for the common colour-vision deficiencies.
BLUE, SKY, ORANGE, VERMILLION = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
INK, GREY = "#1d2731", "#6b7680"
FONT_FAMILY = "Arial, Helvetica, 'DejaVu Sans', sans-serif"

_RC = {
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.labelsize": 11,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "hatch.color": "#b3bac1",
    "hatch.linewidth": 1.0,
    "svg.fonttype": "none",
    "svg.hashsalt": "fedcac",
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 10,
    "ytick.color": INK,
    "ytick.labelsize": 10,
}
_STYLE = re.compile(r'\sstyle="([^"]*)"')
_STYLE_SHEET = re.compile(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>", re.DOTALL)
_ID = re.compile(r'(\sid="|href="#|url\(#)')
_GROUP_ID = re.compile(r'<g id="[^"]*">')
_NO_TURN = re.compile(r' transform="rotate\(-?0 [^"]*\)"')
_GEOMETRY = re.compile(r'\s(d|x|y|points|transform)="([^"]*)"')
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_ROOT = re.compile(r"<svg[^>]*>")
_VIEW_BOX = re.compile(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"')


@dataclass(frozen=True)
class Figure:
    """One figure: `name` is its file name without `.svg`, `alt` its text alternative.

    `section` says which part of the report shows it; `width` is its natural width in CSS pixels.
    """

    name: str
    section: str
    alt: str
    svg: str
    width: int


def slug(*words: str) -> str:
    """Return a file name of lower-case letters, digits and underscores, never empty.

    Comparison signs are spelt out, so that `>400` and `400` stay apart.
    """
    text = "_".join(word for word in words if word).lower()
    for sign, word in ((">", "over"), ("<", "under"), ("=", "is"), (".", "p")):
        text = text.replace(sign, word)
    return re.sub(r"[^a-z0-9]+", "_", text).strip("_") or "figure"


@contextmanager
def canvas(width: float, height: float) -> Iterator[MplFigure]:
    """Give a figure of a size in CSS pixels under the report's style; no pyplot, no global state.

    Text and lines take their settings when they are made and when they are drawn, so call
    `to_svg` inside the `with` block.
    """
    with matplotlib.rc_context(_RC):
        figure = MplFigure(figsize=(width / 72, height / 72), facecolor="white")
        FigureCanvasSVG(figure)
        yield figure


def to_svg(figure: MplFigure, name: str, alt: str) -> str:
    """Return the figure as one `<svg>` element.

    Style attributes become presentation attributes, so that the element needs no exception in a
    content security policy; ids carry the figure's name, so that many figures share a page.
    """
    text = io.StringIO()
    metadata: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(text, format="svg", metadata=metadata)
    svg = _STYLE_SHEET.sub("", text.getvalue())
    svg = _STYLE.sub(_as_attributes, svg[svg.index("<svg") :])
    svg = _compact(svg)
    svg = _ID.sub(lambda match: f"{match.group(1)}{slug(name)}-", svg)
    box = _VIEW_BOX.search(svg)
    if box is None:
        raise ValueError("matplotlib wrote an SVG without a view box")
    width, height = box.groups()
    root = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f"aria-label={quoteattr(alt)} font-family={quoteattr(FONT_FAMILY)} "
        f'stroke-linejoin="round" stroke-linecap="butt">'
        f"<desc>{escape(alt)}</desc>"
    )
    return _ROOT.sub(lambda _: root, svg, count=1).strip() + "\n"


def _compact(svg: str) -> str:
    """Drop what matplotlib says twice: names of groups, turns by nothing, hundredths of a pixel."""
    svg = _GROUP_ID.sub("<g>", svg)
    svg = _NO_TURN.sub("", svg)
    return _GEOMETRY.sub(
        lambda match: f' {match.group(1)}="{_LONG_NUMBER.sub(_rounded, match.group(2))}"', svg
    )


def _rounded(match: re.Match[str]) -> str:
    return f"{float(match.group()):.2f}".rstrip("0").rstrip(".")


def _as_attributes(match: re.Match[str]) -> str:
    attributes = []
    for declaration in match.group(1).split(";"):
        name, _, value = declaration.strip().partition(": ")
        # The root has the family, once for all texts.
        if name and name != "font-family":
            attributes.append(f' {name}="{value}"')
    return "".join(attributes)
