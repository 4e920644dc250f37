"""The options of every verb that writes a report."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedcac.report import ReportFormats

__all__ = ["add_format_options", "formats_of"]


def add_format_options(parser: argparse.ArgumentParser) -> None:
    """Give a verb's parser the options from which `formats_of` reads."""
    parser.add_argument(
        "--pdf", action="store_true", help="also print report.pdf (A4; needs a Chromium browser)"
    )
    parser.add_argument(
        "--png",
        type=int,
        choices=(85, 175),
        metavar="MM",
        help="also write the figures as PNG, 300 dpi, 85 or 175 mm wide (needs a Chromium "
        "browser); 175 where text would print below 5 points",
    )
    parser.add_argument(
        "--tables",
        action="store_true",
        help="also write every table for a manuscript as LaTeX (booktabs) into tables/",
    )
    parser.add_argument(
        "--word",
        action="store_true",
        help="also write tables.docx, all tables in one Word document (needs fedcac[publishing])",
    )
    parser.add_argument(
        "--parquet",
        action="store_true",
        help="also write estimates.parquet beside estimates.csv (needs fedcac[publishing])",
    )


def formats_of(arguments: argparse.Namespace) -> ReportFormats:
    """Return what the options of `add_format_options` ask for.

    Raises
    ------
    UsageError
        If what a form needs is not installed (`no_browser`, `no_publishing`).
    """
    # Not above: a help text must not wait for matplotlib.
    from fedcac.report import ReportFormats

    formats = ReportFormats(
        has_pdf=arguments.pdf,
        has_tables=arguments.tables,
        png_mm=arguments.png,
        has_word=arguments.word,
        has_parquet=arguments.parquet,
    )
    formats.check()
    return formats
