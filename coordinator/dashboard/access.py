"""Who may use which route. A route that does not say is refused to everybody.

Every request that changes something carries the token of a form that was made for this browser, and
comes from a page of the dashboard itself.
"""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request

from coordinator.dashboard.accounts import Role
from coordinator.dashboard.desk import LOOPBACK, Caller, Dashboard
from coordinator.dashboard.guard import host_of
from coordinator.dashboard.sessions import form_token
from coordinator.dashboard.trail import Deed

__all__ = [
    "EVERY_ROLE",
    "LEAD",
    "PUBLIC",
    "READERS",
    "Access",
    "AccessError",
    "access_of",
    "address_of",
    "admit",
    "caller_of",
    "dashboard_of",
    "form_of",
    "open_to",
]


@dataclass(frozen=True)
class Access:
    """Who may use a route: nobody signed in needed, or one of `roles`.

    `is_passive` marks what a page asks by itself, which must not keep a session from idling.
    """

    roles: frozenset[Role] = frozenset()
    is_public: bool = False
    is_passive: bool = False


PUBLIC: Final = Access(is_public=True)
EVERY_ROLE: Final = Access(frozenset(Role))
READERS: Final = Access(frozenset({Role.LEAD, Role.STATISTICIAN}))
LEAD: Final = Access(frozenset({Role.LEAD}))

Page = TypeVar("Page", bound=Callable[..., Any])
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class AccessError(Exception):
    """A request that is not let in; `kind` is `sign_in`, `role`, `form` or `origin`."""

    def __init__(self, kind: str, *, is_passive: bool = False) -> None:
        super().__init__(kind)
        self.kind = kind
        self.is_passive = is_passive


def open_to(access: Access) -> Callable[[Page], Page]:
    """Declare who may use a route; stands below its path."""

    def declare(page: Page) -> Page:
        page.access = access  # type: ignore[attr-defined]
        return page

    return declare


def access_of(endpoint: object) -> Access | None:
    """Return what a route declares, or None."""
    found = getattr(endpoint, "access", None)
    return found if isinstance(found, Access) else None


def dashboard_of(request: Request) -> Dashboard:
    """Return the dashboard that answers a request."""
    found = request.app.state.dashboard
    if not isinstance(found, Dashboard):
        raise TypeError("the application has no dashboard")
    return found


def caller_of(request: Request) -> Caller:
    """Return who is signed in; AccessError `sign_in` on a public page where nobody is."""
    caller = getattr(request.state, "caller", None)
    if not isinstance(caller, Caller):
        raise AccessError("sign_in")
    return caller


def form_of(request: Request) -> FormData:
    """Return the form that came with a request; it was checked before the page began."""
    form = request.state.form
    return form if isinstance(form, FormData) else FormData()


def address_of(request: Request) -> str:
    """Return where a request comes from; a proxy's word counts where the server was told so."""
    return request.client.host if request.client else "unknown"


async def admit(request: Request) -> AsyncIterator[None]:
    """Let a request in, or raise AccessError. Runs before every route; closes uploads after it."""
    access = access_of(request.scope.get("endpoint"))
    dashboard = dashboard_of(request)
    token = request.cookies.get(dashboard.settings.cookie, "")
    # A browser that comes by a link from elsewhere does not send a strict cookie, and must not
    # lose the session that it has: what ties a form to it then is a cookie of its own.
    visit = request.cookies.get(dashboard.settings.visit_cookie, "")
    request.state.token = token or visit
    request.state.form = FormData()
    try:
        if request.method in _CHANGING:
            _check_origin(request, dashboard)
            request.state.form = await _form(request)
            given = request.state.form.get("form_token")
            if not isinstance(given, str) or not _is_of_browser(given, (token, visit)):
                raise AccessError("form")
        await run_in_threadpool(_admit, request, dashboard, access, token)
        yield
    finally:
        await request.state.form.close()


async def _form(request: Request) -> FormData:
    try:
        return await request.form(max_files=2, max_fields=200, max_part_size=512 * 1024)
    except (ValueError, LookupError) as error:
        # The parser's own errors reach no handler: a body that is no form would be our fault.
        raise AccessError("form") from error


def _is_of_browser(given: str, tokens: tuple[str, ...]) -> bool:
    return any(
        hmac.compare_digest(given.encode("utf-8", "replace"), form_token(token).encode())
        for token in tokens
        if token
    )


def _admit(request: Request, dashboard: Dashboard, access: Access | None, token: str) -> None:
    is_passive = access is not None and access.is_passive
    session = dashboard.sessions.find(token, is_used=not is_passive)
    account = None if session is None else dashboard.accounts.find(session.user)
    if session is not None and account is not None and not account.is_disabled:
        request.state.caller = Caller(account, session, address_of(request))
    if access is not None and access.is_public:
        return
    caller = getattr(request.state, "caller", None)
    if caller is None:
        raise AccessError("sign_in", is_passive=is_passive)
    if access is None or account is None or account.role not in access.roles:
        dashboard.note(caller, Deed.REFUSED, f"{request.method} {request.url.path}")
        raise AccessError("role")


def _check_origin(request: Request, dashboard: Dashboard) -> None:
    """A form comes from the public URL, or from the loopback address that it was sent to."""
    origin = request.headers.get("origin", "")
    host = request.headers.get("host", "")
    allowed = {dashboard.settings.public_url}
    is_direct = host_of(host) in LOOPBACK or not dashboard.settings.is_secure
    if is_direct:
        allowed.add(f"http://{host}")
    if origin not in allowed:
        raise AccessError("origin")
