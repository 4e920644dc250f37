"""Users and the audit trail: for leads."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from coordinator.dashboard.access import LEAD, caller_of, dashboard_of, open_to
from coordinator.dashboard.accounts import LINK_HOURS, Role
from coordinator.dashboard.forms import text_of
from coordinator.dashboard.pages import render, to
from coordinator.dashboard.trail import Deed
from fedcac.errors import FedcacError, UsageError

__all__ = ["router"]

router = APIRouter()

_PAGE = 100


@router.get("/users")
@open_to(LEAD)
def users_page(request: Request) -> Response:
    """Show every user."""
    return _users(request)


def _users(
    request: Request,
    *,
    link: str = "",
    whose: str = "",
    problem: FedcacError | None = None,
) -> Response:
    dashboard = dashboard_of(request)
    return render(
        request,
        "users.html.j2",
        400 if problem else 200,
        users=[
            (account, len(dashboard.sessions.of(account.name)))
            for account in dashboard.accounts.list()
        ],
        roles=tuple(Role),
        link=link,
        whose=whose,
        hours=LINK_HOURS,
        problem=problem,
    )


def _role(request: Request) -> Role:
    try:
        return Role(text_of(request, "role", 20))
    except ValueError as error:
        raise UsageError(
            "There is no such role.",
            code="bad_role",
            cure=f"Choose one of: {', '.join(Role)}.",
        ) from error


def _link(request: Request, token: str) -> str:
    return f"{dashboard_of(request).settings.public_url}/choose-password/{token}"


@router.post("/users")
@open_to(LEAD)
def add_user(request: Request) -> Response:
    """Add a user, and show once the link to choose a password."""
    dashboard = dashboard_of(request)
    name = text_of(request, "name", 80).strip().lower()
    try:
        role = _role(request)
        token = dashboard.accounts.add(name, role)
    except FedcacError as error:
        return _users(request, problem=error)
    dashboard.note(caller_of(request), Deed.USER_ADDED, f"{name}, {role.value}")
    return _users(request, link=_link(request, token), whose=name)


@router.post("/users/{name}/reset")
@open_to(LEAD)
def reset_user(request: Request, name: str) -> Response:
    """Take a user's password away, and show once the link to choose another."""
    dashboard = dashboard_of(request)
    token = dashboard.accounts.reset(name)
    dashboard.note(caller_of(request), Deed.USER_RESET, name)
    if name == caller_of(request).account.name:
        return to(f"/choose-password/{token}")
    return _users(request, link=_link(request, token), whose=name)


@router.post("/users/{name}/role")
@open_to(LEAD)
def change_role(request: Request, name: str) -> Response:
    """Give a user another role."""
    dashboard = dashboard_of(request)
    try:
        role = _role(request)
        dashboard.accounts.change_role(name, role)
    except FedcacError as error:
        return _users(request, problem=error)
    dashboard.note(caller_of(request), Deed.ROLE_CHANGED, f"{name}, {role.value}")
    return to("/users")


@router.post("/users/{name}/disable")
@open_to(LEAD)
def disable_user(request: Request, name: str) -> Response:
    """Let a user sign in no more."""
    dashboard = dashboard_of(request)
    try:
        dashboard.accounts.disable(name)
    except FedcacError as error:
        return _users(request, problem=error)
    dashboard.note(caller_of(request), Deed.USER_DISABLED, name)
    return to("/users")


@router.post("/users/{name}/enable")
@open_to(LEAD)
def enable_user(request: Request, name: str) -> Response:
    """Let a disabled user sign in again."""
    dashboard = dashboard_of(request)
    dashboard.accounts.enable(name)
    dashboard.note(caller_of(request), Deed.USER_ENABLED, name)
    return to("/users")


@router.get("/audit")
@open_to(LEAD)
def audit_page(request: Request) -> Response:
    """Show who did what, the newest first."""
    text = request.query_params.get("before", "")
    before = int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else None
    lines = dashboard_of(request).trail.newest(_PAGE, before)
    earlier = lines[-1].number if len(lines) == _PAGE else None
    return render(request, "audit.html.j2", lines=lines, earlier=earlier)
