"""The output folder of a comparison, of two rounds or of several: one page, one table, figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedcac.canonical import sha256_hex
from fedcac.errors import UsageError
from fedcac.report.figures import Figure
from fedcac.report.rounds_compared import ComparedRound, Patients

__all__ = [
    "COMPARISON_PAGE",
    "COMPARISON_TABLE",
    "TREND_TABLE",
    "ComparisonOutput",
    "round_document",
    "write_comparison_folder",
]

COMPARISON_PAGE: Final = "comparison.html"

COMPARISON_TABLE: Final = "comparison.csv"
"""Of two rounds."""

TREND_TABLE: Final = "rounds.csv"
"""Of three rounds and more."""

_FORMAT = "fedcac-comparison/1"
_EARLIER_FIGURES = ("comparison.svg", "runs_*.svg")


@dataclass(frozen=True)
class ComparisonOutput:
    """What a comparison writes.

    Attributes
    ----------
    first
        The round whose protocol all follow.
    rounds
        What `provenance.json` says of the rounds, besides protocol and patients.
    table_name, table
        `COMPARISON_TABLE` or `TREND_TABLE`, and the file's text.
    page
        `comparison.html`.
    """

    first: ComparedRound
    patients: Patients
    rounds: Mapping[str, Any]
    table_name: str
    table: str
    page: str
    figures: Sequence[Figure]


def write_comparison_folder(output: ComparisonOutput, out: Path) -> None:
    """Write a comparison in place of an earlier one: page, table, `figures/`, `provenance.json`.

    Raises
    ------
    UsageError
        If `out` holds something that is not an earlier comparison (`output_not_empty`).
    """
    _check_target(out)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    # An earlier comparison may have been of another number of rounds.
    earlier = [out / COMPARISON_TABLE, out / TREND_TABLE]
    earlier += [path for name in _EARLIER_FIGURES for path in (out / "figures").glob(name)]
    for path in earlier:
        path.unlink(missing_ok=True)
    table = output.table.encode()
    for figure in output.figures:
        (out / "figures" / f"{figure.name}.svg").write_text(figure.svg, encoding="utf-8")
    (out / output.table_name).write_bytes(table)
    (out / COMPARISON_PAGE).write_text(output.page, encoding="utf-8")
    provenance = {
        "format": _FORMAT,
        "protocol": {
            "id": output.first.protocol_id,
            "version": output.first.protocol_version,
            "digest": output.first.protocol_digest,
        },
        "patients": output.patients,
        **output.rounds,
        "files": {output.table_name: sha256_hex(table)},
    }
    text = json.dumps(provenance, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (out / "provenance.json").write_text(text + "\n", encoding="utf-8")


def round_document(told: ComparedRound) -> dict[str, Any]:
    """Return what provenance.json says of a round."""
    return {"round_id": told.round_id, "finished": told.finished, "package": told.package}


def _check_target(out: Path) -> None:
    """Raise UsageError `output_not_empty` unless a comparison may be written there."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        document = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        document = None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise UsageError(
            f"'{out}' already holds something that is not an earlier comparison.",
            code="output_not_empty",
            cure="Name a new or empty folder.",
        )
