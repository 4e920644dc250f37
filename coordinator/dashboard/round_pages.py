"""The pages of rounds: all of them, one of them, and what a lead can do with one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from coordinator.dashboard import round_tables
from coordinator.dashboard.access import (
    EVERY_ROLE,
    LEAD,
    Access,
    caller_of,
    dashboard_of,
    open_to,
)
from coordinator.dashboard.accounts import Role
from coordinator.dashboard.desk import Dashboard
from coordinator.dashboard.forms import number_of, text_of, texts_of
from coordinator.dashboard.output import can_print, output_files
from coordinator.dashboard.pages import render, to
from coordinator.dashboard.round_words import may_add_late_sites, next_steps, steps_of
from coordinator.dashboard.trail import Deed
from coordinator.rounds.api import Retry
from coordinator.rounds.service import SERVICE_LEASE
from coordinator.rounds.status import status_of
from coordinator.rounds.views import RoundView, Standing
from coordinator.state.records import ENDED, OPEN, Event, EventKind, RoundState

__all__ = ["router"]

router = APIRouter()

_PASSIVE = Access(EVERY_ROLE.roles, is_passive=True)
_NEWEST_EVENTS = 200


@router.get("/rounds")
@open_to(EVERY_ROLE)
def rounds_page(request: Request) -> Response:
    """Show every round in a line, the newest first."""
    return render(request, "rounds.html.j2", **_all(request))


@router.get("/rounds/fragment")
@open_to(_PASSIVE)
def rounds_fragment(request: Request) -> Response:
    """Give the table alone, for a page that follows it."""
    return render(request, "rounds_table.html.j2", **_all(request))


def _all(request: Request) -> dict[str, Any]:
    now, dashboard = datetime.now(UTC), dashboard_of(request)
    rows = []
    with dashboard.rounds() as rounds:
        for record in reversed(dashboard.store.rounds()):
            row = dashboard.ended.get(record.round_id)
            if row is None:
                row = _row(rounds.view(record.round_id), now)
                if record.state in ENDED:
                    dashboard.ended[record.round_id] = row
            rows.append(row)
    is_waiting = any(record.state in OPEN for record in dashboard.store.rounds())
    is_still = is_waiting and dashboard.store.leases.holder(SERVICE_LEASE) is None
    return {"rows": rows, "is_still": is_still}


def _row(view: RoundView, now: datetime) -> dict[str, Any]:
    return {
        "status": status_of(view, now),
        "answered": _answered(view),
        "next": next(iter(next_steps(view, now)), ""),
    }


def _answered(view: RoundView) -> int:
    if view.record.state is RoundState.OFFERED:
        return sum(site.is_accepting is not None for site in view.sites)
    return sum(site.standing in (Standing.ANSWERED, Standing.POOLED) for site in view.sites)


@router.get("/rounds/{round_id}")
@open_to(EVERY_ROLE)
def round_page(request: Request, round_id: str) -> Response:
    """Show one round."""
    return render(request, "round.html.j2", **_one(request, round_id))


@router.get("/rounds/{round_id}/fragment")
@open_to(_PASSIVE)
def round_fragment(request: Request, round_id: str) -> Response:
    """Give what changes of a round alone, for a page that follows it."""
    return render(request, "round_body.html.j2", **_one(request, round_id))


def _one(request: Request, round_id: str) -> dict[str, Any]:
    now, dashboard = datetime.now(UTC), dashboard_of(request)
    with dashboard.rounds() as rounds:
        view = rounds.view(round_id)
        events = rounds.events(round_id)
        status = status_of(view, now)
        was_offered = any(event.what is EventKind.OFFERED for event in events)
        steps, beside = steps_of(status, was_offered=was_offered)
        is_reader = caller_of(request).account.role is not Role.READ_ONLY
        return {
            "status": status,
            "title": view.protocol.title,
            "is_open": view.is_open,
            "steps": steps,
            "beside": beside,
            "next_steps": tuple(next_steps(view, now)),
            "may_retry": may_add_late_sites(view) and bool(_late(view)),
            "may_close": view.record.state in (RoundState.POOLED, RoundState.FAILED),
            "may_cancel": view.record.state in (*OPEN, RoundState.FAILED),
            "contents": _contents(dashboard, view, events) if is_reader else None,
        }


def _contents(dashboard: Dashboard, view: RoundView, events: Sequence[Event]) -> dict[str, Any]:
    """Return what lead and statistician see besides where the round stands."""
    return {
        "stages": round_tables.stage_heads(),
        "flow": tuple(round_tables.flow_rows(view)),
        "exclusions": tuple(round_tables.exclusion_rows(view)),
        "exchanges": round_tables.exchange_rows(view, events),
        "answers": tuple(round_tables.answer_rows(view)),
        "sums": tuple(round_tables.sum_rows(view)),
        "estimates": tuple(round_tables.estimate_rows(view)),
        "ledgers": tuple(round_tables.ledger_rows(view)),
        "events": tuple(round_tables.event_rows(events))[:_NEWEST_EVENTS],
        "files": output_files(dashboard, view.record.round_id),
        "can_print": can_print(),
    }


def _late(view: RoundView) -> tuple[str, ...]:
    return tuple(
        site.name
        for site in view.sites
        if site.standing in (Standing.LATE, Standing.SILENT, Standing.NOT_ASKED)
    )


@router.get("/rounds/{round_id}/retry")
@open_to(LEAD)
def retry_page(request: Request, round_id: str) -> Response:
    """Ask which late sites are to be added."""
    return _confirm(request, round_id, "retry")


@router.get("/rounds/{round_id}/close")
@open_to(LEAD)
def close_page(request: Request, round_id: str) -> Response:
    """Ask whether a round is to be frozen."""
    return _confirm(request, round_id, "close")


@router.get("/rounds/{round_id}/cancel")
@open_to(LEAD)
def cancel_page(request: Request, round_id: str) -> Response:
    """Ask whether a round is to be ended for good."""
    return _confirm(request, round_id, "cancel")


def _confirm(request: Request, round_id: str, what: str) -> Response:
    with dashboard_of(request).rounds() as rounds:
        view = rounds.view(round_id)
        status = status_of(view, datetime.now(UTC))
    return render(request, "round_confirm.html.j2", what=what, status=status, late=_late(view))


@router.post("/rounds/{round_id}/retry")
@open_to(LEAD)
def retry(request: Request, round_id: str) -> Response:
    """Begin a later edition; the engine sends it."""
    caller = caller_of(request)
    plan = Retry(
        sites=texts_of(request, "site"),
        reason=text_of(request, "reason", 400).strip(),
        patience=timedelta(days=number_of(request, "days", least=1, most=365) or 30),
        actor=caller.account.name,
    )
    with _acting(request) as rounds:
        edition = rounds.retry(round_id, plan)
    _note(request, Deed.ROUND_RETRIED, f"{round_id}: {', '.join(edition.added)}")
    return to(f"/rounds/{round_id}")


@router.post("/rounds/{round_id}/close")
@open_to(LEAD)
def close(request: Request, round_id: str) -> Response:
    """Freeze a round."""
    with _acting(request) as rounds:
        rounds.close(round_id)
    _note(request, Deed.ROUND_CLOSED, round_id)
    return to(f"/rounds/{round_id}")


@router.post("/rounds/{round_id}/cancel")
@open_to(LEAD)
def cancel(request: Request, round_id: str) -> Response:
    """End a round for good."""
    with _acting(request) as rounds:
        rounds.cancel(round_id, text_of(request, "reason", 400).strip())
    _note(request, Deed.ROUND_CANCELLED, round_id)
    return to(f"/rounds/{round_id}")


def _acting(request: Request) -> Any:
    return dashboard_of(request).rounds(caller_of(request).account.name)


def _note(request: Request, deed: Deed, subject: str) -> None:
    dashboard_of(request).note(caller_of(request), deed, subject)
