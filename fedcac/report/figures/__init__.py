"""Every figure of a report, drawn from its estimates."""

from __future__ import annotations

from fedcac.report.figures.canvas import Figure
from fedcac.report.figures.gallery import draw_figures

__all__ = ["Figure", "draw_figures"]
