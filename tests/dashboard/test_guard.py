"""Forms of other sites' pages, foreign hosts, headers, and bodies that are too large."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from dashboard.consortium import ORIGIN, PASSWORD, Consortium, Visitor

from coordinator.dashboard.desk import made_settings
from coordinator.dashboard.guard import LARGEST_BODY, host_of
from coordinator.dashboard.sessions import form_token
from fedcac.errors import UsageError

USER = {"name": "eve", "role": "read-only"}


def names(made: Consortium) -> set[str]:
    return {account.name for account in made.dashboard.accounts.list()}


@pytest.mark.parametrize("given", ["", "0" * 64, "ä", None])
def test_a_form_without_the_browser_s_token_does_nothing(
    bare: Consortium, lead: Visitor, given: str | None
) -> None:
    fields = {**USER, **({} if given is None else {"form_token": given})}
    answer = lead.client.post("/users", data=fields, headers={"Origin": ORIGIN})
    assert answer.status_code == 403
    assert "was not made for this browser" in answer.text
    assert "eve" not in names(bare)


def test_another_browser_s_token_does_nothing(bare: Consortium, lead: Visitor) -> None:
    other = Visitor(bare)
    other.sign_in("lead")
    answer = lead.post("/users", {**USER, "form_token": other.token("/account")})
    assert answer.status_code == 403
    assert "eve" not in names(bare)


def test_a_visit_cookie_planted_by_an_attacker_does_not_reach_a_session(
    bare: Consortium, lead: Visitor
) -> None:
    # Who can set cookies knows the visit's token, but pages on which somebody is signed in are
    # also asked from where they come.
    lead.client.cookies.set("fedcac-visit", "known")
    fields = {**USER, "form_token": form_token("known")}
    answer = lead.post("/users", fields, origin="https://attacker.example")
    assert answer.status_code == 403
    assert "eve" not in names(bare)


@pytest.mark.parametrize(
    "origin", [None, "null", "http://attacker.example", "https://localhost", "http://localhost:81"]
)
def test_a_form_of_another_page_does_nothing(
    bare: Consortium, lead: Visitor, origin: str | None
) -> None:
    answer = lead.post("/users", USER, origin=origin)
    assert answer.status_code == 403
    assert "own pages" in answer.text
    assert "eve" not in names(bare)


def test_what_changes_something_is_never_asked_by_get(lead: Visitor) -> None:
    for path in ("/sign-out", "/users/lead/disable", "/sites/enrol", "/rounds/x/archive"):
        assert lead.get(path).status_code in (404, 405), path


@pytest.mark.parametrize(
    "host", ["attacker.example", "localhost.attacker.example", "", "localhost:80:80", "127.0.0.2"]
)
def test_other_hosts_are_not_answered(lead: Visitor, host: str) -> None:
    answer = lead.get("/sign-in", headers={"Host": host})
    assert answer.status_code == 400
    assert "form_token" not in answer.text


def test_hosts_are_read_with_and_without_port() -> None:
    assert host_of("Localhost:8480") == "localhost"
    assert host_of("[::1]:8480") == "::1"
    assert host_of("dashboard.example.org") == "dashboard.example.org"


def test_every_page_says_what_a_browser_may_do(lead: Visitor) -> None:
    for path in ("/rounds", "/sign-in", "/nowhere", "/static/dashboard.css", "/users", "/health"):
        headers = lead.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy, path
        assert "unsafe" not in policy, path
        assert "frame-ancestors 'none'" in policy, path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
        is_static = path.startswith("/static")
        assert headers["cache-control"] == ("no-cache" if is_static else "no-store")
        assert "strict-transport-security" not in headers


def test_no_page_has_script_or_style_in_it(lead: Visitor) -> None:
    for path in ("/rounds", "/launch", "/sites", "/users", "/audit", "/account", "/comparison"):
        text = lead.get(path).text
        assert text.count("<script") == text.count('<script src="/static/') == 1
        assert "<style" not in text
        assert " style=" not in text
        assert "http://" not in text.replace("http://localhost", "")
        assert "https://" not in text


def test_by_https_cookies_are_bound_to_the_host_and_the_connection(
    make: Callable[..., Consortium],
) -> None:
    made = make(public_url="https://dashboard.example.org")
    made.add_user("ada")
    visitor = Visitor(made)
    visitor.client.base_url = "https://dashboard.example.org"
    page = visitor.get("/sign-in")
    assert "max-age=" in page.headers["strict-transport-security"]
    fields = {"name": "ada", "password": PASSWORD}
    refused = visitor.post("/sign-in", fields, page="/sign-in")
    assert refused.status_code == 403
    answer = visitor.post(
        "/sign-in", fields, page="/sign-in", origin="https://dashboard.example.org"
    )
    cookie = next(
        one for one in answer.headers.get_list("set-cookie") if one.startswith("__Host-fedcac=")
    )
    for word in ("Secure", "HttpOnly", "SameSite=strict", "Path=/"):
        assert word in cookie
    assert "Domain" not in cookie
    assert visitor.get("/rounds").status_code == 200
    link = visitor.post("/users", USER, page="/users", origin="https://dashboard.example.org").text
    assert 'value="https://dashboard.example.org/choose-password/' in link


@pytest.mark.parametrize(
    "url",
    [
        "dashboard.example.org",
        "ftp://dashboard.example.org",
        "https://dashboard.example.org/path",
        "https://user:word@dashboard.example.org",
        "https://",
        "https://[",
    ],
)
def test_a_public_url_is_a_scheme_and_a_host(url: str, tmp_path: object) -> None:
    from pathlib import Path

    with pytest.raises(UsageError) as caught:
        made_settings(Path(str(tmp_path)), public_url=url)
    assert caught.value.code == "usage.bad_public_url"


def test_more_than_a_form_holds_is_not_read(lead: Visitor) -> None:
    token = lead.token("/account")
    named = lead.post("/users", {**USER, "form_token": token, "name": "x" * LARGEST_BODY})
    assert named.status_code == 413

    def stream() -> object:
        for _ in range(LARGEST_BODY // 65536 + 2):
            yield b"x" * 65536

    headers = {"Origin": ORIGIN, "Content-Type": "application/x-www-form-urlencoded"}
    unnamed = lead.client.post("/users", content=stream(), headers=headers)  # type: ignore[arg-type]
    assert unnamed.status_code == 413


def test_static_files_are_named_ones(lead: Visitor) -> None:
    assert lead.get("/static/follow.js").headers["content-type"].startswith("text/javascript")
    for name in ("..%2fapp.py", "%2e%2e%2fapp.py", "base.html.j2", "app.py"):
        assert lead.get(f"/static/{name}").status_code == 404


def test_a_fault_shows_its_class_alone_and_has_the_same_headers(
    bare: Consortium, lead: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(bare.dashboard.trail, "newest", broken)
    answer = lead.get("/audit")
    assert answer.status_code == 500
    assert "internal.RuntimeError" in answer.text
    assert "a secret" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
