"""Output folders of pooled rounds, written once per edition and release of the software.

They lie under `dashboard/` in the coordinator's folder, and can be deleted at any time.
"""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

from coordinator.dashboard.desk import Dashboard
from coordinator.rounds.api import Rounds
from coordinator.rounds.views import RoundView
from coordinator.state.records import RoundState
from fedcac import __version__
from fedcac.errors import RoundError, UsageError
from fedcac.report import ReportFormats
from fedcac.report.browser import PDF_FILE, find_browser, print_pdf

__all__ = [
    "can_print",
    "newest_pooled",
    "output_files",
    "output_folder",
    "output_payload",
    "printed_report",
    "zipped_output",
]

_PROVENANCE = "provenance.json"


def newest_pooled(rounds: Rounds, round_id: str) -> RoundView | None:
    """Return a round's newest edition that was pooled, though a later one may run; or None."""
    view = rounds.view(round_id)
    if view.is_pooled:
        return view
    earlier = [one for one in view.editions[:-1] if one.outcome is RoundState.POOLED]
    return rounds.view(round_id, earlier[-1].edition) if earlier else None


def output_folder(dashboard: Dashboard, rounds: Rounds, round_id: str) -> Path:
    """Return the output folder of a pooled round, written if it is not there yet.

    Raises
    ------
    UsageError
        If no edition of the round was pooled (`round_not_pooled`).
    """
    view = newest_pooled(rounds, round_id)
    if view is None:
        raise UsageError(
            f"Round {round_id} was not pooled.",
            code="round_not_pooled",
            cure="Its page says what it waits for.",
        )
    folder = _folder(dashboard, view)
    if not (folder / _PROVENANCE).is_file():
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        has_extras = find_spec("docx") is not None and find_spec("pyarrow") is not None
        formats = ReportFormats(has_tables=True, has_word=has_extras, has_parquet=has_extras)
        rounds.write_report(round_id, folder, formats, view.record.edition)
    return folder


def output_files(dashboard: Dashboard, round_id: str) -> dict[str, int]:
    """Return the sizes in bytes of a round's output files by name; empty if there is none yet."""
    with dashboard.rounds() as rounds:
        if newest_pooled(rounds, round_id) is None:
            return {}
        folder = output_folder(dashboard, rounds, round_id)
    return {name: path.stat().st_size for name, path in _paths(folder).items()}


def output_payload(dashboard: Dashboard, round_id: str, name: str) -> bytes:
    """Return one output file.

    A name is looked up among those of the files, and never becomes a path.

    Raises
    ------
    RoundError
        `unknown_file` if the round has no such file.
    """
    with dashboard.rounds() as rounds:
        paths = _paths(output_folder(dashboard, rounds, round_id))
    if name not in paths:
        raise RoundError(
            "The round's output has no such file.",
            code="unknown_file",
            cure="Choose one from the round's page.",
        )
    return paths[name].read_bytes()


def can_print() -> bool:
    """Say whether a browser is installed here that prints reports."""
    try:
        find_browser()
    except UsageError:
        return False
    return True


def printed_report(dashboard: Dashboard, round_id: str) -> bytes:
    """Return the report as PDF, printed when it is first asked for.

    Raises
    ------
    UsageError
        As `output_folder` and `fedcac.report.browser.print_pdf`.
    """
    with dashboard.rounds() as rounds:
        folder = output_folder(dashboard, rounds, round_id)
    pdf = folder / PDF_FILE
    # A browser takes seconds: other pages have the rounds meanwhile, and two may ask at once.
    if not pdf.is_file():
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".part-") as scratch:
            printed = Path(scratch) / PDF_FILE
            print_pdf(folder / "report.html", printed)
            os.replace(printed, pdf)
    return pdf.read_bytes()


def zipped_output(dashboard: Dashboard, round_id: str) -> bytes:
    """Return the whole output folder as one ZIP file."""
    with dashboard.rounds() as rounds:
        paths = _paths(output_folder(dashboard, rounds, round_id))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in paths.items():
            archive.write(path, f"{round_id}/{name}")
    return packed.getvalue()


def _folder(dashboard: Dashboard, view: RoundView) -> Path:
    name = f"{view.record.round_id}-edition{view.record.edition}-{__version__}"
    return dashboard.folder.root / "dashboard" / name


def _paths(folder: Path) -> dict[str, Path]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in found}
