"""The further forms of a report, written beside its page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fedcac.report.browser import PDF_FILE, print_pdf
from fedcac.report.estimates_frame import PARQUET_FILE
from fedcac.report.figures import Figure
from fedcac.report.findings import Findings
from fedcac.report.formats import ReportFormats
from fedcac.report.table_files import report_tables, write_tables
from fedcac.report.word_document import WORD_FILE, word_document

__all__ = ["EXTRA_FILES", "write_formats"]

_TABLES_FOLDER: Final = "tables"
EXTRA_FILES: Final = (PDF_FILE, _TABLES_FOLDER, WORD_FILE, PARQUET_FILE)
"""What of an earlier output goes when it is not asked for again: it would show other numbers."""


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
        (folder / _TABLES_FOLDER).mkdir()
        write_tables(findings, folder / _TABLES_FOLDER)
    if formats.has_word:
        tables = [table for _, table in report_tables(findings)]
        (folder / WORD_FILE).write_bytes(word_document(findings.report, tables))
    if formats.has_pdf:
        print_pdf(folder / "report.html", folder / PDF_FILE)
    if formats.png_mm is not None:
        from fedcac.report.rasters import write_pngs

        write_pngs(figures, folder / "figures", formats.png_mm)
