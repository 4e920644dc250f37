"""Every route for every role. A route that is not in the table here, or declares nobody, fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from dashboard.consortium import Consortium, Visitor
from fastapi import APIRouter
from fastapi.routing import APIRoute

from coordinator.dashboard import app as application
from coordinator.dashboard.access import access_of
from coordinator.dashboard.accounts import Role

NOBODY, ANYBODY = frozenset[Role](), frozenset(Role)
READERS, LEAD = frozenset({Role.LEAD, Role.STATISTICIAN}), frozenset({Role.LEAD})

# Who may use what; None needs no one signed in.
TABLE: dict[tuple[str, str], frozenset[Role] | None] = {
    ("GET", "/"): ANYBODY,
    ("GET", "/health"): None,
    ("GET", "/static/{name}"): None,
    ("GET", "/sign-in"): None,
    ("POST", "/sign-in"): None,
    ("GET", "/choose-password/{token}"): None,
    ("POST", "/choose-password/{token}"): None,
    ("POST", "/sign-out"): ANYBODY,
    ("GET", "/account"): ANYBODY,
    ("POST", "/account/password"): ANYBODY,
    ("POST", "/account/sessions/{number}/end"): ANYBODY,
    ("GET", "/rounds"): ANYBODY,
    ("GET", "/rounds/fragment"): ANYBODY,
    ("GET", "/rounds/{round_id}"): ANYBODY,
    ("GET", "/rounds/{round_id}/fragment"): ANYBODY,
    ("GET", "/rounds/{round_id}/report"): READERS,
    ("GET", "/rounds/{round_id}/report/page"): READERS,
    ("GET", "/rounds/{round_id}/report/pdf"): READERS,
    ("GET", "/rounds/{round_id}/files/{name:path}"): READERS,
    ("GET", "/rounds/{round_id}/output"): READERS,
    ("POST", "/rounds/{round_id}/archive"): READERS,
    ("GET", "/comparison"): READERS,
    ("GET", "/comparison/page"): READERS,
    ("GET", "/comparison/table"): READERS,
    ("GET", "/rounds/{round_id}/retry"): LEAD,
    ("POST", "/rounds/{round_id}/retry"): LEAD,
    ("GET", "/rounds/{round_id}/close"): LEAD,
    ("POST", "/rounds/{round_id}/close"): LEAD,
    ("GET", "/rounds/{round_id}/cancel"): LEAD,
    ("POST", "/rounds/{round_id}/cancel"): LEAD,
    ("GET", "/launch"): LEAD,
    ("POST", "/launch/preview"): LEAD,
    ("POST", "/launch"): LEAD,
    ("GET", "/sites"): LEAD,
    ("GET", "/sites/{site}"): LEAD,
    ("POST", "/sites/kit"): LEAD,
    ("POST", "/sites/enrol"): LEAD,
    ("POST", "/sites/{site}/revoke"): LEAD,
    ("GET", "/users"): LEAD,
    ("POST", "/users"): LEAD,
    ("POST", "/users/{name}/reset"): LEAD,
    ("POST", "/users/{name}/role"): LEAD,
    ("POST", "/users/{name}/disable"): LEAD,
    ("POST", "/users/{name}/enable"): LEAD,
    ("GET", "/audit"): LEAD,
}


def routes(consortium: Consortium) -> set[tuple[str, str]]:
    found = set()
    for route in consortium.app.routes:
        assert isinstance(route, APIRoute), route
        assert access_of(route.endpoint) is not None, route.path
        found |= {(method, route.path) for method in route.methods}
    return found


def test_the_table_names_every_route(bare: Consortium) -> None:
    assert routes(bare) == set(TABLE)


@pytest.mark.parametrize("role", [None, *Role])
def test_every_route_for_every_role(bare: Consortium, role: Role | None) -> None:
    visitor = Visitor(bare)
    if role is not None:
        assert visitor.sign_in(role.value).status_code == 303
    token = visitor.token("/account" if role else "/sign-in")
    for (method, path), roles in TABLE.items():
        if path == "/sign-out":
            continue
        address = path.replace("{name:path}", "x")
        for name in ("round_id", "name", "token", "number", "site"):
            address = address.replace(f"{{{name}}}", "nobody")
        if method == "GET":
            answer = visitor.get(address)
        else:
            answer = visitor.post(address, {"form_token": token})
        to_sign_in = answer.status_code == 303 and answer.headers["location"] == "/sign-in"
        where = f"{role} {method} {path}: {answer.status_code}"
        if roles is None:
            assert answer.status_code != 403, where
            assert not to_sign_in, where
        elif role is None:
            assert to_sign_in or (path.endswith("/fragment") and answer.status_code == 401), where
        elif role in roles:
            assert answer.status_code not in (401, 403, 500), where
            assert not to_sign_in, where
        else:
            assert answer.status_code == 403, where
            assert "not for your role" in answer.text, where
    if role in (Role.STATISTICIAN, Role.READ_ONLY):
        refused = [line for line in bare.dashboard.trail.newest(200) if line.what == "was refused"]
        assert {line.user for line in refused} == {role.value}


def test_a_route_that_declares_nobody_stops_the_dashboard(
    monkeypatch: pytest.MonkeyPatch, make: Callable[..., Consortium]
) -> None:
    careless = APIRouter()

    @careless.get("/careless")
    def careless_page() -> str:
        return "everything"

    monkeypatch.setattr(application, "_ROUTERS", (*application._ROUTERS, careless))
    with pytest.raises(TypeError, match="does not declare"):
        make()


def test_signing_out_ends_the_session_at_the_server(lead: Visitor) -> None:
    kept = dict(lead.client.cookies)
    assert lead.post("/sign-out", {}).headers["location"] == "/sign-in"
    lead.client.cookies.update(kept)
    assert lead.get("/rounds").headers["location"] == "/sign-in"
