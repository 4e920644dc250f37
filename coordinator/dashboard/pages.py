"""Makes pages from templates, with what every page needs, and sets cookies."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from coordinator.dashboard.accounts import Role
from coordinator.dashboard.desk import Caller, Dashboard
from coordinator.dashboard.round_words import MARKED_STANDINGS, PHASE_WORDS
from coordinator.dashboard.sessions import form_token, new_token
from coordinator.rounds.status_words import span_words, time_left
from fedcac.report.wording import bytes_words

__all__ = ["moment", "render", "set_cookie", "to"]


def moment(at: datetime | None) -> str:
    """Return a time in words, UTC."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def ago(at: datetime | None) -> str:
    """Return how long ago something was, or `never`."""
    if at is None:
        return "never"
    return f"{span_words(datetime.now(UTC) - at)} ago"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("coordinator.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(moment=moment, ago=ago, size=bytes_words)
    environment.globals.update(
        PHASE_WORDS=PHASE_WORDS,
        MARKED_STANDINGS=MARKED_STANDINGS,
        time_left=lambda due: time_left(due, datetime.now(UTC)),
    )
    return environment


def render(request: Request, template: str, http_status: int = 200, /, **values: Any) -> Response:
    """Return a page. A browser without a cookie gets one, so that its forms can be told."""
    caller = getattr(request.state, "caller", None)
    token = getattr(request.state, "token", "") or new_token()
    is_new = token != getattr(request.state, "token", "")
    text = (
        _environment()
        .get_template(template)
        .render(
            me=caller,
            is_lead=isinstance(caller, Caller) and caller.account.role is Role.LEAD,
            is_reader=isinstance(caller, Caller) and caller.account.role is not Role.READ_ONLY,
            path=request.url.path,
            form_token=form_token(token),
            **values,
        )
    )
    response = HTMLResponse(text, http_status)
    if is_new:
        dashboard: Dashboard = request.app.state.dashboard
        set_cookie(response, dashboard, dashboard.settings.visit_cookie, token)
    return response


def set_cookie(response: Response, dashboard: Dashboard, name: str, token: str) -> None:
    """Give a browser a cookie that scripts cannot read and other sites' pages do not send."""
    response.set_cookie(
        name,
        token,
        httponly=True,
        samesite="strict",
        secure=dashboard.settings.is_secure,
        path="/",
    )


def to(path: str) -> RedirectResponse:
    """Return a redirection to a page of the dashboard, by GET."""
    return RedirectResponse(path, 303)
