"""Puts the dashboard together: routes, who may use them, and what an error looks like."""

from __future__ import annotations

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from coordinator.dashboard import (
    account_pages,
    comparison_pages,
    launch_pages,
    output_pages,
    round_pages,
    site_pages,
    user_pages,
)
from coordinator.dashboard.access import AccessError, access_of, admit
from coordinator.dashboard.desk import Dashboard
from coordinator.dashboard.guard import SECURITY_HEADERS, Guard
from coordinator.dashboard.pages import render, to
from fedcac.errors import FedcacError

__all__ = ["make_app"]

_ROUTERS = (
    account_pages.router,
    round_pages.router,
    output_pages.router,
    launch_pages.router,
    comparison_pages.router,
    site_pages.router,
    user_pages.router,
)
_NOT_FOUND = frozenset(
    {"unknown_round", "unknown_edition", "unknown_user", "unknown_file", "unknown_site"}
)
_REFUSALS = {
    "role": ("This is not for your role.", "Ask a lead of the consortium to do it."),
    "form": (
        "This form was not made for this browser, or is too old.",
        "Go back, load the page again, and send the form once more.",
    ),
    "origin": (
        "This form did not come from the dashboard's own pages.",
        "Open the dashboard under its own address; a proxy needs `--public-url`.",
    ),
}


def make_app(dashboard: Dashboard) -> FastAPI:
    """Return the application over an open dashboard.

    Raises
    ------
    TypeError
        If a route does not declare who may use it.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, dependencies=[Depends(admit)])
    app.state.dashboard = dashboard
    for router in _ROUTERS:
        for route in router.routes:
            if not isinstance(route, APIRoute) or access_of(route.endpoint) is None:
                raise TypeError(f"{route} does not declare who may use it")
            app.add_api_route(route.path, route.endpoint, methods=sorted(route.methods or ()))
    app.add_exception_handler(AccessError, _refused)
    app.add_exception_handler(FedcacError, _failed)
    app.add_exception_handler(HTTPException, _missed)
    app.add_exception_handler(Exception, _broken)
    app.add_middleware(
        Guard, hosts=dashboard.settings.hosts, is_secure=dashboard.settings.is_secure
    )
    return app


def _refused(request: Request, error: Exception) -> Response:
    kind = error.kind if isinstance(error, AccessError) else "role"
    if kind == "sign_in":
        if isinstance(error, AccessError) and error.is_passive:
            return PlainTextResponse("signed out", 401)
        return to("/sign-in")
    message, cure = _REFUSALS[kind]
    return render(request, "error.html.j2", 403, message=message, cure=cure, code=kind)


def _failed(request: Request, error: Exception) -> Response:
    if not isinstance(error, FedcacError):
        raise error
    status = 404 if error.code.partition(".")[2] in _NOT_FOUND else 400
    return render(
        request, "error.html.j2", status, message=error.message, cure=error.cure, code=error.code
    )


def _missed(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    words = {
        404: ("There is no such page.", "Choose one from the navigation above."),
        405: ("This address does not take that.", "Use the dashboard's own forms."),
    }
    message, cure = words.get(status, ("This was not understood.", "Load the page again."))
    return render(request, "error.html.j2", status, message=message, cure=cure, code=str(status))


def _broken(request: Request, error: Exception) -> Response:
    response = render(
        request,
        "error.html.j2",
        500,
        message="A fault of the dashboard; rounds go on, for they do not depend on it.",
        cure="The process's log has the fault. Please report it.",
        code=f"internal.{type(error).__name__}",
    )
    # This answer is made outside the guard.
    response.headers.update(SECURITY_HEADERS)
    return response
