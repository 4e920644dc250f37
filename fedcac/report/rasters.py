"""The figures as PNG at the widths that journals print: 85 mm (a column) and 175 mm (a page)."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from PIL import Image

from fedcac.errors import UsageError
from fedcac.report.browser import photograph
from fedcac.report.figures import Figure

__all__ = ["DOTS_PER_INCH", "WIDTHS_MM", "pixels_across", "printed_width_mm", "write_pngs"]

WIDTHS_MM: Final = (85, 175)
DOTS_PER_INCH: Final = 300

_MM_PER_INCH = 25.4
_POINTS_PER_INCH = 72
_SMALLEST_TEXT = 10
"""Font size of the smallest text of a figure, in its own units."""
_SMALLEST_PRINTED_PT = 5.0
"""Journals ask for 5 to 7 points at least."""
_TALLEST_WINDOW = 12_000
_SLACK = 400
"""A headless window may show less than its height; figures end this far above its end."""
_ROOT_SIZE = re.compile(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)" width="[0-9.]+" height="[0-9.]+"')


def pixels_across(width_mm: int) -> int:
    """Return how many pixels a width has at 300 dots per inch."""
    return round(width_mm / _MM_PER_INCH * DOTS_PER_INCH)


def printed_width_mm(natural_width: float, asked_mm: int) -> int:
    """Return 85 or 175: the width asked for, or 175 if text would print below 5 points at 85."""
    printed = _SMALLEST_TEXT * asked_mm / _MM_PER_INCH * _POINTS_PER_INCH / natural_width
    return asked_mm if printed >= _SMALLEST_PRINTED_PT else WIDTHS_MM[-1]


def write_pngs(figures: Sequence[Figure], folder: Path, asked_mm: int) -> tuple[str, ...]:
    """Write every figure as `NAME_85mm.png` or `NAME_175mm.png`, 300 dots per inch.

    Returns
    -------
    The names of figures that were written at 175 mm because their text would be too small.

    Raises
    ------
    UsageError
        If there is no browser (`no_browser`), it wrote nothing (`browser_failed`), or its window
        cut a figure (`browser_failed`).
    """
    widened = []
    placed = []
    for figure in figures:
        natural, height = _size(figure.svg)
        width_mm = printed_width_mm(natural, asked_mm)
        if width_mm != asked_mm:
            widened.append(figure.name)
        across = pixels_across(width_mm)
        placed.append((figure, width_mm, across, round(height * across / natural)))
    for group in _groups(placed):
        _photograph_group(group, folder)
    return tuple(widened)


_Placed = tuple[Figure, int, int, int]


def _size(svg: str) -> tuple[float, float]:
    found = _ROOT_SIZE.search(svg)
    if found is None:
        raise ValueError("a figure without a size")
    return float(found.group(1)), float(found.group(2))


def _groups(placed: Sequence[_Placed]) -> Iterator[list[_Placed]]:
    """Yield runs of figures that fit into one window below one another."""
    group: list[_Placed] = []
    for one in placed:
        if group and sum(height for *_, height in [*group, one]) > _TALLEST_WINDOW:
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _photograph_group(group: Sequence[_Placed], folder: Path) -> None:
    style = (
        "html,body{margin:0;background:#fff}svg{display:block;width:100%;height:100%}"
        "div{overflow:hidden}hr{margin:0;border:0;height:20px;background:#f0f}"
    )
    body = "".join(
        f'<div style="width:{across}px;height:{height}px">{figure.svg}</div>'
        for figure, _, across, height in group
    )
    total = sum(height for *_, height in group)
    with tempfile.TemporaryDirectory(prefix="fedcac-figures-") as scratch:
        page, shot = Path(scratch) / "figures.html", Path(scratch) / "figures.png"
        page.write_text(
            f'<!DOCTYPE html><meta charset="utf-8"><style>{style}</style>{body}<hr>',
            encoding="utf-8",
        )
        photograph(page, shot, max(across for _, _, across, _ in group), total + _SLACK)
        with Image.open(shot) as image:
            pixels = image.convert("RGB")
    # The bar below the last figure shows that nothing was cut.
    if pixels.height < total + 10 or pixels.getpixel((5, total + 10)) != (255, 0, 255):
        raise UsageError(
            "The browser's window cut a figure.",
            code="browser_failed",
            cure="Use the SVG files, which any drawing program converts.",
        )
    top = 0
    for figure, width_mm, across, height in group:
        part = pixels.crop((0, top, across, top + height))
        part.save(folder / f"{figure.name}_{width_mm}mm.png", dpi=(DOTS_PER_INCH, DOTS_PER_INCH))
        top += height
