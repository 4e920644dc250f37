"""The report in its frame, downloads of output files, and the archive of a round."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path, PurePosixPath

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from coordinator.dashboard.access import READERS, caller_of, dashboard_of, open_to
from coordinator.dashboard.output import (
    can_print,
    newest_pooled,
    output_payload,
    printed_report,
    zipped_output,
)
from coordinator.dashboard.pages import render
from coordinator.dashboard.trail import Deed
from coordinator.rounds.status import summary_of

__all__ = ["FRAME_HEADERS", "attachment", "router"]

router = APIRouter()

FRAME_HEADERS = {
    # The page's own policy admits its one style sheet; in this one it has no origin and no script.
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Frame-Options": "SAMEORIGIN",
}
_KINDS = {
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".pdf": "application/pdf",
    ".svg": "image/svg+xml",
    ".tex": "text/plain; charset=utf-8",
    ".zip": "application/zip",
}


def attachment(payload: bytes, name: str) -> Response:
    """Return a file to be saved, under a name of letters that every system takes."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    kind = _KINDS.get(PurePosixPath(safe).suffix, "application/octet-stream")
    headers = {"Content-Disposition": f'attachment; filename="{safe}"'}
    return Response(payload, media_type=kind, headers=headers)


@router.get("/rounds/{round_id}/report")
@open_to(READERS)
def report_page(request: Request, round_id: str) -> Response:
    """Show the report in a frame, below the navigation."""
    with dashboard_of(request).rounds() as rounds:
        summary = summary_of(rounds.view(round_id))
        shown = newest_pooled(rounds, round_id)
    edition = None if shown is None else shown.record.edition
    return render(
        request, "report.html.j2", summary=summary, edition=edition, can_print=can_print()
    )


@router.get("/rounds/{round_id}/report/page")
@open_to(READERS)
def report_frame(request: Request, round_id: str) -> Response:
    """Give the report itself: a page that can run nothing and reach nothing."""
    payload = output_payload(dashboard_of(request), round_id, "report.html")
    return Response(payload, media_type="text/html; charset=utf-8", headers=FRAME_HEADERS)


@router.get("/rounds/{round_id}/report/pdf")
@open_to(READERS)
def report_pdf(request: Request, round_id: str) -> Response:
    """Give the report as PDF; pages offer it where a browser is installed that prints it."""
    dashboard = dashboard_of(request)
    payload = printed_report(dashboard, round_id)
    dashboard.note(caller_of(request), Deed.DOWNLOADED, f"{round_id}: report as PDF")
    return attachment(payload, f"{round_id}-report.pdf")


@router.get("/rounds/{round_id}/files/{name:path}")
@open_to(READERS)
def download(request: Request, round_id: str, name: str) -> Response:
    """Give one output file."""
    dashboard = dashboard_of(request)
    payload = output_payload(dashboard, round_id, name)
    dashboard.note(caller_of(request), Deed.DOWNLOADED, f"{round_id}: {name}")
    return attachment(payload, f"{round_id}-{PurePosixPath(name).name}")


@router.get("/rounds/{round_id}/output")
@open_to(READERS)
def download_all(request: Request, round_id: str) -> Response:
    """Give the whole output folder."""
    dashboard = dashboard_of(request)
    payload = zipped_output(dashboard, round_id)
    dashboard.note(caller_of(request), Deed.DOWNLOADED, f"{round_id}: output folder")
    return attachment(payload, f"{round_id}-output.zip")


@router.post("/rounds/{round_id}/archive")
@open_to(READERS)
def archive(request: Request, round_id: str) -> Response:
    """Make and give the archive of an ended round, from which anybody can pool it again."""
    dashboard, caller = dashboard_of(request), caller_of(request)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "round.zip"
        with dashboard.rounds(caller.account.name) as rounds:
            rounds.export(round_id, path)
        payload = path.read_bytes()
    dashboard.note(caller, Deed.EXPORTED, round_id)
    return attachment(payload, f"{round_id}.zip")
