"""Confusion heat maps of many sites as small multiples on one sheet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape, quoteattr

from fedcac.report.figures.canvas import FONT_FAMILY, Figure, slug
from fedcac.report.findings import Matrix

__all__ = ["draw_mosaic"]

_WIDTH, _TOP, _GAP, _NAME = 660, 46, 10, 24
_LIGHT, _DARK = (255, 255, 255), (0, 63, 102)


def draw_mosaic(analysis: str, matrices: Sequence[Matrix], names: tuple[str, str]) -> Figure:
    """Draw one small matrix per site: rows = reference, upwards; shade = share of the row.

    Counts are in the tables. A site whose matrix could not leave has a crossed-out square.
    """
    n_columns = 10 if len(matrices) > 40 else 8
    side = (_WIDTH - _GAP * (n_columns + 1)) / n_columns
    step = side + _NAME + 4
    height = _TOP + math.ceil(len(matrices) / n_columns) * step
    name = slug("confusion", analysis, "sites")
    n_given = sum(not matrix.is_suppressed for matrix in matrices)
    alt = (
        f"Confusion matrices of {len(matrices)} sites, {n_given} of them released: {names[1]} "
        f"against {names[0]}; the shade is the share of the reference category."
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" '
        f'width="{_WIDTH}" height="{height:.0f}" role="img" aria-label={quoteattr(alt)} '
        f"font-family={quoteattr(FONT_FAMILY)} "
        f'font-size="10" fill="#1d2731"><desc>{escape(alt)}</desc>'
        f'<rect width="{_WIDTH}" height="{height:.0f}" fill="#fff"/>'
        f'<text x="{_GAP}" y="17" font-size="13" font-weight="bold">Sites</text>'
        f'<text x="{_GAP}" y="34" fill="#55616c">Upwards: {escape(names[1])}; to the right: '
        f"{escape(names[0])}; lowest category at the lower left</text>"
    ]
    for number, matrix in enumerate(matrices):
        row, column = divmod(number, n_columns)
        parts.extend(_small(matrix, _GAP + column * (side + _GAP), _TOP + row * step + _NAME, side))
    svg = "".join(parts) + "</svg>\n"
    return Figure(name, f"confusion_sites:{analysis}", alt, svg, _WIDTH)


def _small(matrix: Matrix, x: float, y: float, side: float) -> Iterator[str]:
    n = "" if matrix.n is None else f"n {matrix.n:,}"
    letters = int(side / 5.4)
    label = matrix.scope
    if len(label) > letters:
        label = f"{label[: letters - 1]}\N{HORIZONTAL ELLIPSIS}"
    yield (
        f'<g transform="translate({x:.1f} {y:.1f})"><title>{escape(matrix.scope)}</title>'
        f'<text y="-13" font-weight="bold">{escape(label)}</text>'
        f'<text y="-3" font-size="9" fill="#55616c">{n}</text>'
    )
    if matrix.is_suppressed:
        yield (
            f'<path d="M0 0H{side:.1f}V{side:.1f}H0ZL{side:.1f} {side:.1f}M0 {side:.1f}'
            f'L{side:.1f} 0" fill="#f3f5f6" stroke="#6b7680"/></g>'
        )
        return
    cell = side / len(matrix.labels)
    for row, counts in enumerate(matrix.cells):
        total = sum(count or 0 for count in counts)
        for column, count in enumerate(counts):
            share = (count or 0) / total if total else 0.0
            if share >= 0.005:
                yield (
                    f'<rect x="{column * cell:.1f}" y="{side - (row + 1) * cell:.1f}" '
                    f'width="{cell:.1f}" height="{cell:.1f}" fill="{_shade(share)}"/>'
                )
    # A merged matrix has fewer cells; a dashed frame tells it from a full one.
    dash = ' stroke-dasharray="3 2"' if matrix.is_collapsed else ""
    yield (f'<rect width="{side:.1f}" height="{side:.1f}" fill="none" stroke="#6b7680"{dash}/></g>')


def _shade(share: float) -> str:
    parts = (
        round(light + (dark - light) * share**0.8)
        for light, dark in zip(_LIGHT, _DARK, strict=True)
    )
    return "#" + "".join(f"{part:02x}" for part in parts)
