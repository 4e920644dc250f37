"""Rounds of one protocol side by side: two as a comparison, more as a course over time."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from coordinator.dashboard.desk import Dashboard
from coordinator.dashboard.output import output_folder
from fedcac.errors import UsageError
from fedcac.output import read_compared_round
from fedcac.report.comparison_folder import COMPARISON_PAGE, COMPARISON_TABLE, TREND_TABLE
from fedcac.report.comparison_page import write_comparison
from fedcac.report.rounds_compared import Patients, compare_rounds
from fedcac.report.rounds_trend import follow_rounds
from fedcac.report.trend_page import write_trend

__all__ = ["PATIENTS", "ComparedRounds", "compared"]

PATIENTS: Final = ("unknown", "different", "same")
"""Whether rounds are about the same patients."""


@dataclass(frozen=True)
class ComparedRounds:
    """The page of a comparison, and the table of its values under the name that it has there."""

    page: bytes
    table_name: str
    table: bytes


def compared(dashboard: Dashboard, round_ids: Sequence[str], patients: str) -> ComparedRounds:
    """Return the comparison of pooled rounds, the earliest first.

    Raises
    ------
    UsageError
        If fewer than two rounds were chosen (`too_few_rounds`), the word for the patients is none
        (`bad_patients`), a round was not pooled, or their protocols cannot be compared.
    """
    if len(round_ids) < 2:
        raise UsageError(
            "A comparison is of two rounds or more.",
            code="too_few_rounds",
            cure="Choose two rounds of one protocol.",
        )
    if patients not in PATIENTS:
        raise UsageError(
            "Whether the patients are the same was not said.",
            code="bad_patients",
            cure=f"Choose one of: {', '.join(PATIENTS)}.",
        )
    word = cast(Patients, patients)
    with dashboard.rounds() as rounds:
        views = sorted(
            (rounds.view(one) for one in round_ids), key=lambda view: view.record.started_at
        )
        found = [
            read_compared_round(output_folder(dashboard, rounds, view.record.round_id))
            for view in views
        ]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "comparison"
        if len(found) == 2:
            first, second = found
            rows = compare_rounds(first, second, word)
            write_comparison(first, second, rows, word, out)
            table_name = COMPARISON_TABLE
        else:
            write_trend(found, follow_rounds(found, word), word, out)
            table_name = TREND_TABLE
        page, table = (out / name for name in (COMPARISON_PAGE, table_name))
        return ComparedRounds(page.read_bytes(), table_name, table.read_bytes())
