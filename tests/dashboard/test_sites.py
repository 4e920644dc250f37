"""Sites by the dashboard: kits, enrolment by a typed fingerprint, revocation."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from dashboard.consortium import Consortium, Visitor

from coordinator.__main__ import main
from coordinator.state.store import EnrolledSite
from fedcac.exchange.couriering import CourierKey
from fedcac.joining import EnrolmentRequest, RequestKeys, open_kit
from fedcac.signing import SigningKey


@pytest.fixture
def made(make: Callable[..., Consortium]) -> Consortium:
    consortium = make(sites=("north",))
    home = ["--home", str(consortium.folder.root)]
    assert main([*home, "init", "--host", "lead.example.org", "--name", "CAC"]) == 0
    consortium.add_user("lead")
    return consortium


@pytest.fixture
def visitor(made: Consortium) -> Visitor:
    found = Visitor(made)
    assert found.sign_in("lead").status_code == 303
    return found


def request_of(made: Consortium, site: str = "duke") -> tuple[bytes, str]:
    keys = RequestKeys(SigningKey.generate(), CourierKey.generate())
    lead = made.folder.key().public
    request = EnrolmentRequest.make("CAC", lead, site, keys, datetime.now(UTC))
    return request.seal(keys), request.fingerprint


def enrol(visitor: Visitor, payload: bytes, fingerprint: str) -> Any:
    files = {"request": ("duke.request", payload, "application/json")}
    return visitor.post("/sites/enrol", {"fingerprint": fingerprint}, page="/sites", files=files)


def test_a_site_is_enrolled_by_the_fingerprint_that_was_read_aloud(
    made: Consortium, visitor: Visitor
) -> None:
    payload, fingerprint = request_of(made)
    answer = enrol(visitor, payload, fingerprint.replace(" ", "  "))
    assert answer.headers["location"] == "/sites/duke"
    assert set(made.store.members()) == {"north", "duke"}
    assert "Flower" in visitor.get("/sites/duke").text
    again = enrol(visitor, payload, fingerprint)
    assert "usage.request_replayed" in again.text


@pytest.mark.parametrize("given", ["", "yes", "part", "another"])
def test_without_the_whole_fingerprint_nobody_is_enrolled_and_it_is_not_shown(
    made: Consortium, visitor: Visitor, given: str
) -> None:
    payload, fingerprint = request_of(made)
    typed = {"part": fingerprint[:24], "another": request_of(made)[1]}.get(given, given)
    answer = enrol(visitor, payload, typed)
    assert answer.status_code == 400
    assert fingerprint not in answer.text
    assert "fingerprint" in answer.text
    assert set(made.store.members()) == {"north"}
    assert made.dashboard.trail.newest(1)[0].what == "could not enrol a site"


def test_what_is_no_request_is_refused(made: Consortium, visitor: Visitor) -> None:
    for payload in (b"", b"{}", b"\x00" * 1000, b"[" * 5000):
        assert enrol(visitor, payload, "0" * 32).status_code == 400
    assert set(made.store.members()) == {"north"}


def test_a_kit_is_what_the_command_makes(made: Consortium, visitor: Visitor) -> None:
    answer = visitor.post("/sites/kit", {"site": "duke"}, page="/sites")
    assert answer.headers["content-disposition"] == 'attachment; filename="duke.zip"'
    kit = open_kit(answer.content, made.folder.key().public)
    assert kit.manifest.site == "duke"
    assert "invited" in visitor.get("/sites").text
    assert visitor.post("/sites/kit", {"site": "../x"}, page="/sites").status_code == 400


def test_a_revocation_is_typed_and_kept(made: Consortium, visitor: Visitor) -> None:
    page = "/sites/north"
    for fields in ({"name": "north"}, {"reason": "lost"}, {"name": "n", "reason": "lost"}):
        assert visitor.post(f"{page}/revoke", fields, page=page).status_code == 400
    assert set(made.store.members()) == {"north"}
    fields = {"name": "north", "reason": "<b>laptop lost</b>"}
    assert visitor.post(f"{page}/revoke", fields, page=page).status_code == 303
    assert made.store.members() == {}
    shown = visitor.get(page).text
    assert "&lt;b&gt;laptop lost" in shown
    assert "/revoke" not in shown


def test_a_site_s_name_is_shown_as_text(made: Consortium, visitor: Visitor) -> None:
    name = "<img src=x onerror=alert(1)>"
    made.store.enrol(EnrolledSite(name, SigningKey.generate().public, "/nowhere"))
    for path in ("/sites", "/launch"):
        text = visitor.get(path).text
        assert "&lt;img src=x" in text
        assert "<img" not in text
