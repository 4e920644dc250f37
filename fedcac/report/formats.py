"""Which further forms of a report are wanted: PDF, PNG figures, tables for a manuscript."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedcac.report.browser import print_pdf
from fedcac.report.figures import Figure
from fedcac.report.findings import Findings
from fedcac.report.table_files import write_tables

__all__ = ["PDF_FILE", "TABLES_FOLDER", "ReportFormats", "write_formats"]

PDF_FILE: Final = "report.pdf"
TABLES_FOLDER: Final = "tables"


@dataclass(frozen=True)
class ReportFormats:
    """What to write beside the HTML report and the SVG figures.

    `png_mm` is the width of PNG figures, 85 or 175 mm, or None for none.
    """

    has_pdf: bool = False
    has_tables: bool = False
    png_mm: int | None = None


def write_formats(
    formats: ReportFormats, findings: Findings, figures: Sequence[Figure], folder: Path
) -> None:
    """Write what is wanted into a folder that holds `report.html` and `figures/`.

    Raises
    ------
    UsageError
        If PDF or PNG is wanted and there is no browser (`no_browser`), or it failed
        (`browser_failed`).
    """
    if formats.has_tables:
        (folder / TABLES_FOLDER).mkdir()
        write_tables(findings, folder / TABLES_FOLDER)
    if formats.has_pdf:
        print_pdf(folder / "report.html", folder / PDF_FILE)
    if formats.png_mm is not None:
        from fedcac.report.rasters import write_pngs

        write_pngs(figures, folder / "figures", formats.png_mm)
