"""Tables, figures and the report of a round."""

from __future__ import annotations

from fedcac.report.content import ExchangeAnswer, PackageCard, RoundReport, SiteSummary
from fedcac.report.estimates_csv import COLUMNS, estimates_csv, read_estimates
from fedcac.report.formats import ReportFormats
from fedcac.report.writing import write_report

__all__ = [
    "COLUMNS",
    "ExchangeAnswer",
    "PackageCard",
    "ReportFormats",
    "RoundReport",
    "SiteSummary",
    "estimates_csv",
    "read_estimates",
    "write_report",
]
