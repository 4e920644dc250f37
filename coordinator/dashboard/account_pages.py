"""Signing in and out, choosing a password, and the static files."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from coordinator.dashboard.access import (
    EVERY_ROLE,
    PUBLIC,
    address_of,
    caller_of,
    dashboard_of,
    open_to,
)
from coordinator.dashboard.accounts import LEAST_PASSWORD
from coordinator.dashboard.desk import Dashboard
from coordinator.dashboard.forms import text_of
from coordinator.dashboard.pages import render, set_cookie, to
from coordinator.dashboard.trail import Deed
from fedcac.errors import UsageError

__all__ = ["router"]

router = APIRouter()

_STATIC = {
    "dashboard.css": "text/css; charset=utf-8",
    "follow.js": "text/javascript; charset=utf-8",
    "mark.svg": "image/svg+xml",
}
_WRONG = "The name or the password is not right, or a link to choose one was not used yet."


@cache
def _static(name: str) -> bytes:
    return files("coordinator.dashboard").joinpath("static", name).read_bytes()


@router.get("/static/{name}")
@open_to(PUBLIC)
def static(name: str) -> Response:
    """Style sheet, script and mark; nothing else lies here."""
    if name not in _STATIC:
        return PlainTextResponse("There is no such file.\n", 404)
    headers = {"Cache-Control": "no-cache"}
    return Response(_static(name), media_type=_STATIC[name], headers=headers)


@router.get("/health")
@open_to(PUBLIC)
def health() -> Response:
    """Say that the process answers."""
    return PlainTextResponse("ok\n")


@router.get("/")
@open_to(EVERY_ROLE)
def start() -> Response:
    """Lead to the rounds."""
    return to("/rounds")


@router.get("/sign-in")
@open_to(PUBLIC)
def sign_in_page(request: Request) -> Response:
    """Ask for name and password."""
    if getattr(request.state, "caller", None) is not None:
        return to("/rounds")
    has_users = bool(dashboard_of(request).accounts.list())
    return render(request, "sign_in.html.j2", problem="", name="", has_users=has_users)


@router.post("/sign-in")
@open_to(PUBLIC)
def sign_in(request: Request) -> Response:
    """Begin a session. What goes wrong is told in the same way whether the user exists or not."""
    dashboard, address = dashboard_of(request), address_of(request)
    name = text_of(request, "name", 80).strip().lower()
    wait = dashboard.throttle.attempt(name, address)
    if wait:
        _note_waiting(dashboard, name, address)
        problem = f"Too many attempts. Wait {_span(wait)}, then try again."
        return _again(request, problem, name, 429)
    account = dashboard.accounts.checked(name, text_of(request, "password", 1000))
    if account is None:
        dashboard.trail.add(name, Deed.SIGN_IN_FAILED, "", address)
        return _again(request, _WRONG, name, 401)
    dashboard.throttle.succeeded(name, address)
    earlier = dashboard.sessions.find(request.cookies.get(dashboard.settings.cookie, ""))
    if earlier is not None:
        dashboard.sessions.end(earlier.user, earlier.number)
    token = dashboard.sessions.begin(
        account.name, address, request.headers.get("user-agent", "unknown")
    )
    dashboard.trail.add(account.name, Deed.SIGNED_IN, f"as {account.role.value}", address)
    response = to("/rounds")
    set_cookie(response, dashboard, dashboard.settings.cookie, token)
    response.delete_cookie(
        dashboard.settings.visit_cookie,
        secure=dashboard.settings.is_secure,
        httponly=True,
        samesite="strict",
    )
    return response


def _note_waiting(dashboard: Dashboard, name: str, address: str) -> None:
    """Write one line of a waiting address, not one per attempt: that is how a trail is flooded."""
    is_told = any(
        line.what == Deed.LOCKED_OUT.value and line.address == address
        for line in dashboard.trail.newest(20)
    )
    if not is_told:
        dashboard.trail.add(name, Deed.LOCKED_OUT, "too many attempts", address)


def _again(request: Request, problem: str, name: str, status: int) -> Response:
    return render(request, "sign_in.html.j2", status, problem=problem, name=name, has_users=True)


def _span(seconds: int) -> str:
    return f"{seconds} seconds" if seconds < 120 else f"{-(-seconds // 60)} minutes"


@router.post("/sign-out")
@open_to(EVERY_ROLE)
def sign_out(request: Request) -> Response:
    """End this session, or every one of the user's."""
    dashboard, caller = dashboard_of(request), caller_of(request)
    if text_of(request, "everywhere", 5):
        dashboard.sessions.end_all(caller.account.name)
        dashboard.note(caller, Deed.SIGNED_OUT_EVERYWHERE)
    else:
        dashboard.sessions.end(caller.account.name, caller.session.number)
        dashboard.note(caller, Deed.SIGNED_OUT)
    response = to("/sign-in")
    response.delete_cookie(
        dashboard.settings.cookie,
        secure=dashboard.settings.is_secure,
        httponly=True,
        samesite="strict",
    )
    return response


@router.get("/account")
@open_to(EVERY_ROLE)
def account_page(request: Request) -> Response:
    """Show where one is signed in, and change the password."""
    return _account(request, "")


def _account(request: Request, problem: str, status: int = 200) -> Response:
    dashboard, caller = dashboard_of(request), caller_of(request)
    sessions = dashboard.sessions.of(caller.account.name)
    return render(
        request,
        "account.html.j2",
        status,
        sessions=sessions,
        problem=problem,
        least=LEAST_PASSWORD,
    )


@router.post("/account/sessions/{number}/end")
@open_to(EVERY_ROLE)
def end_session(request: Request, number: str) -> Response:
    """End one of one's own sessions."""
    dashboard, caller = dashboard_of(request), caller_of(request)
    if dashboard.sessions.end(caller.account.name, number):
        dashboard.note(caller, Deed.SESSION_ENDED)
    return to("/account")


@router.post("/account/password")
@open_to(EVERY_ROLE)
def change_password(request: Request) -> Response:
    """Change one's own password; every session ends, this one too."""
    dashboard, caller = dashboard_of(request), caller_of(request)
    name = caller.account.name
    wait = dashboard.throttle.attempt(name, caller.address)
    if wait:
        return _account(request, f"Too many attempts. Wait {_span(wait)}.", 429)
    if dashboard.accounts.checked(name, text_of(request, "current", 1000)) is None:
        dashboard.note(caller, Deed.SIGN_IN_FAILED, "to change the password")
        return _account(request, "The current password is not right.", 400)
    dashboard.throttle.succeeded(name, caller.address)
    problem = _password_set(request, name)
    if problem:
        return _account(request, problem, 400)
    dashboard.note(caller, Deed.CHOSE)
    return to("/sign-in")


def _password_set(request: Request, name: str) -> str:
    """Set the password that a form chose; return what is wrong with it, or nothing."""
    password = text_of(request, "password", 1000)
    if password != text_of(request, "again", 1000):
        return "The two new passwords differ."
    try:
        dashboard_of(request).accounts.set_password(name, password)
    except UsageError as error:
        return f"{error.message} {error.cure}"
    return ""


@router.get("/choose-password/{token}")
@open_to(PUBLIC)
def choose_page(request: Request, token: str) -> Response:
    """Let whoever has a link choose a password."""
    account = dashboard_of(request).accounts.of_link(token)
    return render(
        request,
        "choose_password.html.j2",
        200 if account else 404,
        account=account,
        problem="",
        least=LEAST_PASSWORD,
    )


@router.post("/choose-password/{token}")
@open_to(PUBLIC)
def choose(request: Request, token: str) -> Response:
    """Set the password; the link holds no more afterwards."""
    dashboard = dashboard_of(request)
    account = dashboard.accounts.of_link(token)
    if account is not None:
        problem = _password_set(request, account.name)
        if not problem:
            dashboard.trail.add(account.name, Deed.CHOSE, "by a link", address_of(request))
            return to("/sign-in")
    else:
        problem = ""
    return render(
        request,
        "choose_password.html.j2",
        400 if account else 404,
        account=account,
        problem=problem,
        least=LEAST_PASSWORD,
    )
