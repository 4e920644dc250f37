"""Sites: who is enrolled with which key, kits, requests to join, and revocation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from coordinator.dashboard.access import LEAD, caller_of, dashboard_of, open_to
from coordinator.dashboard.desk import Dashboard
from coordinator.dashboard.forms import file_of, text_of
from coordinator.dashboard.output_pages import attachment
from coordinator.dashboard.pages import moment, render, to
from coordinator.dashboard.trail import Deed
from coordinator.enrolment.consortium import read_consortium
from coordinator.enrolment.enrolling import Enrolments
from coordinator.enrolment.kits import make_kit
from coordinator.enrolment.register import EventKind
from coordinator.flower_courier.authority import expiries_at
from coordinator.flower_courier.certificate_verbs import certificate_warnings
from coordinator.state.records import OPEN
from fedcac.errors import FedcacError, UsageError
from fedcac.joining import compared
from fedcac.signing import PublicKey

__all__ = ["router"]

router = APIRouter()


@dataclass(frozen=True)
class SiteRow:
    """One site: enrolled, revoked, or invited by a kit only."""

    name: str
    state: str
    since: datetime | None
    way: str
    fingerprint: str
    last_contact: datetime | None
    rounds: tuple[str, ...]


@router.get("/sites")
@open_to(LEAD)
def sites_page(request: Request) -> Response:
    """Show every site, the certificates, and what can be done."""
    return _sites(request, None)


def _sites(request: Request, problem: FedcacError | None, status: int = 200) -> Response:
    dashboard = dashboard_of(request)
    home = dashboard.folder.root
    now = datetime.now(UTC)
    certificates = [
        (one.name, moment(one.not_after), one.n_days(now)) for one in expiries_at(home / "courier")
    ]
    return render(
        request,
        "sites.html.j2",
        status,
        consortium=read_consortium(home),
        lead=dashboard.folder.key().public.fingerprint,
        sites=_rows(dashboard),
        certificates=certificates,
        warnings=certificate_warnings(home, now),
        problem=problem,
    )


def _rows(dashboard: Dashboard) -> tuple[SiteRow, ...]:
    enrolments = Enrolments(dashboard.folder, dashboard.store)
    register, roster = enrolments.register, enrolments.courier.roster()
    contacts = dashboard.store.events.last_contacts()
    revoked = register.revoked()
    with dashboard.rounds() as rounds:
        records = [one for one in dashboard.store.rounds() if one.state in OPEN]
        running = [rounds.view(one.round_id) for one in records]
    rows = []
    for name, key in enrolments.keys().items():
        events = [event for event in register.of(name) if event.kind is not EventKind.KIT]
        rows.append(
            SiteRow(
                name=name,
                state="revoked" if name in revoked else "enrolled",
                since=events[-1].at if events else None,
                way="Flower" if name in roster else "spool folder",
                fingerprint=key.fingerprint,
                last_contact=contacts.get(name),
                rounds=tuple(v.record.round_id for v in running if name in v.offer.sites),
            )
        )
    known = {row.name for row in rows}
    for name in sorted({event.site for event in register.events} - known):
        last = register.of(name)[-1]
        rows.append(SiteRow(name, "invited", last.at, "", "", None, ()))
    return tuple(rows)


@router.get("/sites/{site}")
@open_to(LEAD)
def site_page(request: Request, site: str) -> Response:
    """Show all that happened to one site's keys."""
    dashboard = dashboard_of(request)
    row = next((one for one in _rows(dashboard) if one.name == site), None)
    if row is None:
        raise UsageError(
            "There is no such site.",
            code="unknown_site",
            cure="The page of sites shows them all.",
        )
    events: list[dict[str, Any]] = [
        {
            "at": event.at,
            "what": event.kind.value,
            "revision": event.revision,
            "fingerprint": PublicKey.from_text(event.key).fingerprint if event.key else "",
            "reason": event.reason,
        }
        for event in dashboard.folder.register.of(site)
    ]
    return render(request, "site.html.j2", site=row, events=tuple(reversed(events)))


@router.post("/sites/kit")
@open_to(LEAD)
def kit(request: Request) -> Response:
    """Give a site's startup kit; it holds no secret."""
    dashboard = dashboard_of(request)
    site = text_of(request, "site", 60).strip()
    try:
        payload, revision = make_kit(dashboard.folder, site)
    except FedcacError as error:
        return _sites(request, error, 400)
    dashboard.note(caller_of(request), Deed.KIT_MADE, f"{site}, revision {revision}")
    return attachment(payload, f"{site}.zip")


@router.post("/sites/enrol")
@open_to(LEAD)
def enrol(request: Request) -> Response:
    """Enrol a site by its request, if its fingerprint was typed as its people read it aloud."""
    dashboard, caller = dashboard_of(request), caller_of(request)
    _, payload = file_of(request, "request")
    enrolments = Enrolments(dashboard.folder, dashboard.store)
    site = ""
    try:
        enrolments.repair()
        if not payload:
            raise UsageError(
                "No request was chosen.",
                code="no_request",
                cure="Choose the file that the site sent.",
            )
        checked = enrolments.open(payload)
        site = checked.request.site
        given = text_of(request, "fingerprint", 200)
        compared(checked.request.fingerprint, given or None, site, may_ask=False)
        enrolments.enrol(checked)
    except FedcacError as error:
        dashboard.note(caller, Deed.SITE_NOT_ENROLLED, f"{site} {error.code}".strip())
        return _sites(request, error, 400)
    dashboard.note(caller, Deed.SITE_ENROLLED, site)
    return to(f"/sites/{site}")


@router.post("/sites/{site}/revoke")
@open_to(LEAD)
def revoke(request: Request, site: str) -> Response:
    """Refuse a site's key everywhere from now on; its name is typed, so that it is meant."""
    dashboard = dashboard_of(request)
    reason = text_of(request, "reason", 400).strip()
    if text_of(request, "name", 60).strip() != site or not reason:
        raise UsageError(
            "A revocation has a reason, and the site's name typed once more.",
            code="not_confirmed",
            cure="Type both, and mind that it cannot be taken back.",
        )
    enrolments = Enrolments(dashboard.folder, dashboard.store)
    enrolments.repair()
    enrolments.revoke(site, reason)
    dashboard.note(caller_of(request), Deed.SITE_REVOKED, site)
    return to(f"/sites/{site}")
