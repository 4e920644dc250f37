"""Rounds of one protocol side by side: two as a comparison, more as a course over time."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

from coordinator.dashboard.desk import Dashboard
from coordinator.dashboard.output import output_folder
from fedcac.errors import UsageError
from fedcac.output import read_output
from fedcac.report.comparison_page import write_comparison
from fedcac.report.estimates_frame import estimates_of
from fedcac.report.rounds_compared import ComparedRound, Patients, compare_rounds
from fedcac.report.rounds_trend import follow_rounds
from fedcac.report.trend_page import write_trend

__all__ = ["PATIENTS", "compared"]

PATIENTS: Final = ("unknown", "different", "same")
"""Whether rounds are about the same patients."""


def compared(dashboard: Dashboard, round_ids: Sequence[str], patients: str, name: str) -> bytes:
    """Return `comparison.html` or `comparison.csv` of pooled rounds, the earliest first.

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
        found = [_read(output_folder(dashboard, rounds, view.record.round_id)) for view in views]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "comparison"
        if len(found) == 2:
            first, second = found
            rows = compare_rounds(first, second, word)
            write_comparison(first, second, rows, word, out)
        else:
            write_trend(found, follow_rounds(found, word), word, out)
        return (out / name).read_bytes()


def _read(folder: Path) -> ComparedRound:
    output = read_output(folder)
    words = dict(zip(output.provenance["key"], output.provenance["value"], strict=True))
    policies = dict(zip(output.sites["site"], output.sites["policy"], strict=True))
    is_known = (output.flow["name"] == "analysed") & (output.flow["status"] == "ok")
    analysed = output.flow[is_known]
    sizes = {site: int(n) for site, n in zip(analysed["site"], analysed["n"], strict=True)}
    name = words.get("package.name", "")
    return ComparedRound(
        round_id=output.round_id,
        finished=words["round.finished"][:10],
        package=f"{name} {words['package.version']}" if name else "",
        protocol_id=output.protocol_id,
        protocol_version=output.protocol_version,
        protocol_digest=output.protocol_digest,
        estimates=estimates_of(output.estimates),
        n_analysed={site: sizes.get(site) for site in policies},
        policies={site: policy or "no reply" for site, policy in policies.items()},
    )
