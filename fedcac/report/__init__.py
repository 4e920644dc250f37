"""Tables, figures and the report of a round.

`fedcac.report.writing` writes them; it stands apart, so that what only reads a round, or carries
it, loads no library for figures.
"""

from __future__ import annotations

from fedcac.report.content import ExchangeAnswer, PackageCard, RoundReport, SiteSummary
from fedcac.report.estimates_csv import COLUMNS, estimates_csv, read_estimates
from fedcac.report.formats import ReportFormats

__all__ = [
    "COLUMNS",
    "ExchangeAnswer",
    "PackageCard",
    "ReportFormats",
    "RoundReport",
    "SiteSummary",
    "estimates_csv",
    "read_estimates",
]
