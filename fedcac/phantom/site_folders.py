"""Folders of generated sites: new ones only, with their tables as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from fedcac.errors import UsageError

__all__ = ["check_new_folder", "write_csv"]


def check_new_folder(out: Path) -> None:
    """Check that nothing would be overwritten; UsageError `folder_not_empty`."""
    if out.exists() and any(out.iterdir()):
        raise UsageError(
            f"{out} is not empty.",
            code="folder_not_empty",
            cure="Give a new folder; generated exams never overwrite anything.",
        )


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write the named columns of rows; what else a row holds is left out."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(columns), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
