"""Which further forms of a report are wanted: PDF, PNG figures, tables, Word, Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedcac.report.browser import find_browser, print_pdf
from fedcac.report.estimates_frame import PARQUET_FILE
from fedcac.report.figures import Figure
from fedcac.report.findings import Findings
from fedcac.report.publishing import publishing_module
from fedcac.report.table_files import report_tables, write_tables
from fedcac.report.word_document import WORD_FILE, word_document

__all__ = ["EXTRA_FILES", "PDF_FILE", "TABLES_FOLDER", "ReportFormats", "write_formats"]

PDF_FILE: Final = "report.pdf"
TABLES_FOLDER: Final = "tables"
EXTRA_FILES: Final = (PDF_FILE, TABLES_FOLDER, WORD_FILE, PARQUET_FILE)
"""What of an earlier output goes when it is not asked for again: it would show other numbers."""


@dataclass(frozen=True)
class ReportFormats:
    """What to write beside the HTML report and the SVG figures.

    `has_tables` asks for LaTeX, `has_word` for one .docx with every table, `has_parquet` for the
    estimates as Parquet. `png_mm` is the width of PNG figures, 85 or 175 mm, or None for none.
    """

    has_pdf: bool = False
    has_tables: bool = False
    png_mm: int | None = None
    has_word: bool = False
    has_parquet: bool = False

    def check(self) -> None:
        """Say at once what is missing, before a round is pooled for nothing.

        Raises
        ------
        UsageError
            If a browser (`no_browser`) or a package (`no_publishing`) that a form needs is not
            installed.
        """
        if self.has_word:
            publishing_module("docx")
        if self.has_parquet:
            publishing_module("pyarrow")
        if self.has_pdf or self.png_mm is not None:
            find_browser()


def write_formats(
    formats: ReportFormats, findings: Findings, figures: Sequence[Figure], folder: Path
) -> None:
    """Write what is wanted into a folder that holds `report.html` and `figures/`.

    Raises
    ------
    UsageError
        If PDF or PNG is wanted and there is no browser (`no_browser`), or it failed
        (`browser_failed`); if Word is wanted and python-docx is not installed (`no_publishing`).
    """
    if formats.has_tables:
        (folder / TABLES_FOLDER).mkdir()
        write_tables(findings, folder / TABLES_FOLDER)
    if formats.has_word:
        tables = [table for _, table in report_tables(findings)]
        (folder / WORD_FILE).write_bytes(word_document(findings.report, tables))
    if formats.has_pdf:
        print_pdf(folder / "report.html", folder / PDF_FILE)
    if formats.png_mm is not None:
        from fedcac.report.rasters import write_pngs

        write_pngs(figures, folder / "figures", formats.png_mm)
