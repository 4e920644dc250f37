"""Which further forms of a report are wanted: PDF, PNG figures, tables, Word, Parquet."""

from __future__ import annotations

from dataclasses import dataclass

from fedcac.report.browser import find_browser
from fedcac.report.publishing import publishing_module

__all__ = ["ReportFormats"]


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
