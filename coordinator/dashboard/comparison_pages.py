"""The comparison of rounds: choose them, read the page in a frame, take the table away."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from coordinator.dashboard.access import READERS, caller_of, dashboard_of, open_to
from coordinator.dashboard.comparing import PATIENTS, compared
from coordinator.dashboard.output_pages import FRAME_HEADERS, attachment
from coordinator.dashboard.pages import render
from coordinator.dashboard.trail import Deed
from coordinator.rounds.status import summary_of
from fedcac.errors import FedcacError

__all__ = ["router"]

router = APIRouter()

_MOST_ROUNDS = 20


def _chosen(request: Request) -> tuple[tuple[str, ...], str]:
    ids = tuple(dict.fromkeys(request.query_params.getlist("round")))[:_MOST_ROUNDS]
    return ids, request.query_params.get("patients", PATIENTS[0])


@router.get("/comparison")
@open_to(READERS)
def comparison_page(request: Request) -> Response:
    """Choose rounds, and show the comparison of those that were chosen."""
    dashboard = dashboard_of(request)
    chosen, patients = _chosen(request)
    with dashboard.rounds() as rounds:
        views = [rounds.view(one.round_id) for one in reversed(dashboard.store.rounds())]
        pooled = [summary_of(view) for view in views if view.is_pooled]
    problem: FedcacError | None = None
    if chosen:
        try:
            compared(dashboard, chosen, patients)
        except FedcacError as error:
            problem = error
    query = urlencode([*(("round", one) for one in chosen), ("patients", patients)])
    return render(
        request,
        "comparison.html.j2",
        200 if problem is None else 400,
        pooled=pooled,
        chosen=chosen,
        patients=patients,
        problem=problem,
        query=query if chosen and problem is None else "",
    )


@router.get("/comparison/page")
@open_to(READERS)
def comparison_frame(request: Request) -> Response:
    """Give the comparison itself, which can run nothing and reach nothing."""
    found = compared(dashboard_of(request), *_chosen(request))
    return Response(found.page, media_type="text/html; charset=utf-8", headers=FRAME_HEADERS)


@router.get("/comparison/table")
@open_to(READERS)
def comparison_table(request: Request) -> Response:
    """Give the compared values as a table."""
    chosen, patients = _chosen(request)
    found = compared(dashboard_of(request), chosen, patients)
    dashboard_of(request).note(caller_of(request), Deed.COMPARED, ", ".join(chosen))
    return attachment(found.table, found.table_name)
