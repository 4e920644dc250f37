"""Launching a round: choose, look at what is asked of whom, confirm."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from coordinator.dashboard.access import LEAD, caller_of, dashboard_of, open_to
from coordinator.dashboard.forms import text_of
from coordinator.dashboard.launching import (
    LaunchForm,
    checked_protocol,
    form_from,
    package_choices,
    plan_of,
    protocol_words,
)
from coordinator.dashboard.pages import render, to
from coordinator.dashboard.trail import Deed
from coordinator.rounds.package_sealing import NOT_TRIED, is_pytorch_here
from fedcac.errors import FedcacError, ProtocolError
from fedcac.protocol import Protocol
from fedcac.protocol.catalogue import load_shipped, shipped_protocols

__all__ = ["router"]

router = APIRouter()


@router.get("/launch")
@open_to(LEAD)
def launch_page(request: Request) -> Response:
    """Choose what is to be asked, and of whom."""
    members = tuple(dashboard_of(request).store.members())
    form = LaunchForm(shipped=next(iter(shipped_protocols()), ""), sites=members)
    return _choose(request, form, ())


def _choose(
    request: Request, form: LaunchForm, problems: tuple[FedcacError, ...], status: int = 200
) -> Response:
    dashboard = dashboard_of(request)
    return render(
        request,
        "launch.html.j2",
        status,
        form=form,
        problems=problems,
        protocols={name: load_shipped(name).title for name in shipped_protocols()},
        packages=package_choices(dashboard.settings.packages),
        packages_folder=dashboard.settings.packages,
        members=tuple(dashboard.store.members()),
    )


@router.post("/launch/preview")
@open_to(LEAD)
def preview(request: Request) -> Response:
    """Check everything and show what each site will see; nothing is stored yet."""
    form = form_from(request)
    found = _checked(request, form)
    if isinstance(found, tuple):
        return _choose(request, form, found, 400)
    plan = found["plan"]
    return render(
        request,
        "launch_preview.html.j2",
        form=form,
        protocol=found["protocol"],
        digest=found["protocol"].digest(),
        words=protocol_words(found["protocol"]),
        amends=_amends(request, found["protocol"]),
        plan=plan,
        until=datetime.now(UTC) + timedelta(days=form.days),
        package_bytes=sum(map(len, plan.package_files.values())),
        not_tried="" if is_pytorch_here() else NOT_TRIED,
        once=secrets.token_urlsafe(16),
    )


def _checked(request: Request, form: LaunchForm) -> dict[str, Any] | tuple[FedcacError, ...]:
    """Return protocol and plan, or every problem."""
    problems = list(form.problems)
    protocol = None
    try:
        protocol = checked_protocol(form)
        plan = plan_of(request, form, protocol, caller_of(request).account.name)
        with dashboard_of(request).rounds() as rounds:
            rounds.check_launch(protocol, plan)
    except FedcacError as error:
        problems.append(error)
    if protocol is None or problems:
        return tuple(problems)
    return {"protocol": protocol, "plan": plan}


def _amends(request: Request, protocol: Protocol) -> str:
    newest = dashboard_of(request).store.newest_protocols().get(protocol.id)
    if newest is None:
        return "This protocol was not launched here before."
    if newest[0] == protocol.version:
        return f"Version {newest[0]} was launched here before; it is the same."
    return f"Version {newest[0]} was launched here before; this one amends it."


@router.post("/launch")
@open_to(LEAD)
def launch(request: Request) -> Response:
    """Store the round; the engine sends its offer."""
    dashboard, caller = dashboard_of(request), caller_of(request)
    form = form_from(request)
    found = _checked(request, form)
    if isinstance(found, tuple):
        return _choose(request, form, found, 400)
    if found["protocol"].digest() != text_of(request, "digest", 100):
        changed = ProtocolError(
            "The protocol is not the one that was shown.",
            code="not_as_shown",
            cure="Look at it once more.",
        )
        return _choose(request, form, (changed,), 409)
    once = text_of(request, "once", 40)
    # Held over all of it: of two clicks in the same moment the second finds what the first made.
    with dashboard.rounds(caller.account.name) as rounds:
        if once in dashboard.launched:
            return to(f"/rounds/{dashboard.launched[once]}")
        round_id = rounds.launch(found["protocol"], found["plan"])
        if once:
            dashboard.launched[once] = round_id
    dashboard.note(caller, Deed.ROUND_LAUNCHED, round_id)
    return to(f"/rounds/{round_id}")
