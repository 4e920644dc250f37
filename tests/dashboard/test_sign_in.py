"""Passwords, sessions, waiting times and the audit trail, on SQLite and PostgreSQL."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from dashboard.consortium import PASSWORD, Consortium, Visitor
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from coordinator.dashboard.accounts import Role
from coordinator.dashboard.sessions import ABSOLUTE, IDLE
from coordinator.dashboard.throttle import FREE_BY_ADDRESS, FREE_BY_NAME
from fedcac.errors import UsageError


def deeds(made: Consortium) -> list[tuple[str, str]]:
    return [(line.user, line.what) for line in reversed(made.dashboard.trail.newest(200))]


def is_in(visitor: Visitor) -> bool:
    return bool(visitor.get("/rounds").status_code == 200)


def test_a_session_is_a_cookie_that_only_its_hash_is_kept_of(stored: Consortium) -> None:
    stored.add_user("ada")
    visitor = Visitor(stored)
    planted = visitor.get("/sign-in").cookies["fedcac-visit"]
    visitor.client.cookies.set("fedcac", planted, domain="localhost.local")
    answer = visitor.sign_in("ada")
    cookie = next(one for one in answer.headers.get_list("set-cookie") if one.startswith("fedcac="))
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/" in cookie
    assert "Secure" not in cookie
    token = cookie.partition("=")[2].partition(";")[0]
    # What somebody else put there before is no session afterwards.
    assert token != planted
    with stored.store.database.connect() as connection:
        rows = connection.execute(text("SELECT * FROM user_sessions")).all()
        users = connection.execute(text("SELECT password FROM users")).all()
    assert len(rows) == 1
    assert token not in str(rows)
    assert PASSWORD not in str(users)
    assert users[0].password.startswith("$argon2id$")
    thief = Visitor(stored)
    thief.client.cookies.set("fedcac", planted)
    assert not is_in(thief)
    assert is_in(visitor)
    assert deeds(stored) == [("ada", "signed in")]


def test_a_second_sign_in_ends_the_session_before_it(stored: Consortium) -> None:
    stored.add_user("ada")
    visitor = Visitor(stored)
    visitor.sign_in("ada")
    first = visitor.client.cookies["fedcac"]
    answer = visitor.post("/sign-in", {"name": "ada", "password": PASSWORD})
    assert answer.status_code == 303
    old = Visitor(stored)
    old.client.cookies.set("fedcac", first)
    assert not is_in(old)
    assert is_in(visitor)


def test_sessions_end_when_idle_and_in_any_case(stored: Consortium) -> None:
    stored.add_user("ada")
    visitor = Visitor(stored)
    visitor.sign_in("ada")
    stored.clock.ahead = IDLE - timedelta(minutes=1)
    # What a page asks by itself does not keep the session from idling.
    assert visitor.get("/rounds/fragment").status_code == 200
    stored.clock.ahead = IDLE + timedelta(minutes=1)
    assert visitor.get("/rounds/fragment").status_code == 401
    assert not is_in(visitor)
    visitor.sign_in("ada")
    begun = stored.clock.ahead
    while stored.clock.ahead < begun + ABSOLUTE - IDLE:
        stored.clock.ahead += IDLE / 2
        assert is_in(visitor)
    stored.clock.ahead = begun + ABSOLUTE + timedelta(seconds=1)
    assert not is_in(visitor)


def plain(answer_text: str) -> str:
    without = re.sub(r'(form_token" value|name="name" value)="[^"]*"', "", answer_text)
    return re.sub(r"Wait \d+ seconds", "Wait", without)


def test_wrong_names_and_passwords_get_the_same_answers_and_wait_alike(
    stored: Consortium,
) -> None:
    stored.add_user("ada")
    stored.add_user("gone")
    stored.dashboard.accounts.disable("gone")
    told: dict[str, list[tuple[int, str]]] = {}
    for number, name in enumerate(("ada", "nobody", "gone", "ä\x00'; --")):
        visitor = Visitor(stored, f"198.51.100.{number}")
        given = "wrong wrong wrong" if name != "gone" else PASSWORD
        answers = [visitor.sign_in(name, given) for _ in range(FREE_BY_NAME + 1)]
        told[name] = [(one.status_code, plain(one.text)) for one in answers]
    assert [status for status, _ in told["ada"]] == [401] * FREE_BY_NAME + [429]
    assert told["ada"] == told["nobody"] == told["gone"] == told["ä\x00'; --"]


def test_waiting_grows_binds_the_right_password_too_and_ends(stored: Consortium) -> None:
    stored.add_user("ada")
    waits = []
    throttle = stored.dashboard.throttle
    for number in range(12):
        while wait := throttle.attempt("ada", f"198.51.100.{number}"):
            waits.append(wait)
            assert Visitor(stored, "203.0.113.9").sign_in("ada").status_code == 429
            stored.clock.ahead += timedelta(seconds=wait)
    assert waits == sorted(waits)
    assert waits[0] <= 31 < waits[1]
    assert max(waits) <= 901
    stored.clock.ahead += timedelta(seconds=901)
    assert Visitor(stored, "203.0.113.9").sign_in("ada").status_code == 303
    # From there on it is as if nothing had been.
    assert throttle.attempt("ada", "203.0.113.9") == 0


def test_one_address_does_not_try_many_names_for_free(stored: Consortium) -> None:
    throttle = stored.dashboard.throttle
    waits = [throttle.attempt(f"user{n}", "203.0.113.9") for n in range(FREE_BY_ADDRESS + 1)]
    assert waits[:-1] == [0] * FREE_BY_ADDRESS
    assert waits[-1] > 0
    assert throttle.attempt("user1", "203.0.113.10") == 0
    stored.add_user("ada")
    assert Visitor(stored, "203.0.113.9").sign_in("ada").status_code == 429


def test_a_link_serves_once_and_not_for_long(stored: Consortium) -> None:
    token = stored.dashboard.accounts.add("ada", Role.LEAD)
    page = f"/choose-password/{token}"
    visitor = Visitor(stored)
    short = visitor.post(page, {"password": "short", "again": "short"}, page=page)
    assert short.status_code == 400
    assert "12 to 256" in short.text
    two = visitor.post(page, {"password": PASSWORD, "again": PASSWORD + "!"}, page=page)
    assert "differ" in two.text
    done = visitor.post(page, {"password": PASSWORD, "again": PASSWORD}, page=page)
    assert done.headers["location"] == "/sign-in"
    assert visitor.sign_in("ada").status_code == 303
    assert visitor.get(page).status_code == 404
    later = stored.dashboard.accounts.add("eve", Role.READ_ONLY)
    stored.clock.ahead = timedelta(hours=25)
    assert visitor.get(f"/choose-password/{later}").status_code == 404
    assert Visitor(stored).sign_in("eve", "").status_code == 401


def test_reset_disable_and_sign_out_everywhere_end_every_session(stored: Consortium) -> None:
    stored.add_user("ada")
    stored.add_user("eve")
    accounts = stored.dashboard.accounts

    def two() -> list[Visitor]:
        found = [Visitor(stored), Visitor(stored)]
        for one in found:
            assert one.sign_in("eve").status_code == 303
        return found

    first, second = two()
    ends = first.get("/account").text
    other = next(
        one.number
        for one in stored.dashboard.sessions.of("eve")
        if f"/account/sessions/{one.number}/end" in ends
    )
    first.post(f"/account/sessions/{other}/end")
    assert (is_in(first), is_in(second)) == (True, False)
    second.sign_in("eve")
    first.post("/sign-out", {"everywhere": "yes"})
    assert not any(map(is_in, (first, second)))
    found = two()
    token = accounts.reset("eve")
    assert not any(map(is_in, found))
    assert found[0].sign_in("eve").status_code == 401
    page = f"/choose-password/{token}"
    found[0].post(page, {"password": PASSWORD, "again": PASSWORD}, page=page)
    found = two()
    accounts.disable("eve")
    assert not any(map(is_in, found))
    assert found[0].sign_in("eve").status_code == 401
    accounts.enable("eve")
    assert found[0].sign_in("eve").status_code == 303


def test_nobody_ends_another_one_s_session(stored: Consortium) -> None:
    for name in ("ada", "eve"):
        stored.add_user(name)
    ada, eve = Visitor(stored), Visitor(stored)
    ada.sign_in("ada")
    eve.sign_in("eve")
    for number in (stored.dashboard.sessions.of("ada")[0].number, "", "%", "_" * 16):
        if number:
            eve.post(f"/account/sessions/{number}/end")
    assert is_in(ada)


def test_the_last_lead_stays(stored: Consortium) -> None:
    accounts = stored.dashboard.accounts
    stored.add_user("ada")
    stored.add_user("eve", Role.STATISTICIAN)
    for change in (
        lambda: accounts.disable("ada"),
        lambda: accounts.change_role("ada", Role.READ_ONLY),
    ):
        with pytest.raises(UsageError) as caught:
            change()
        assert caught.value.code == "usage.last_lead"
    accounts.change_role("eve", Role.LEAD)
    accounts.disable("ada")
    assert [one.name for one in accounts.list() if not one.is_disabled] == ["eve"]


def test_a_role_that_was_taken_counts_from_the_next_page_on(stored: Consortium) -> None:
    stored.add_user("ada")
    stored.add_user("eve")
    eve = Visitor(stored)
    eve.sign_in("eve")
    assert eve.get("/users").status_code == 200
    stored.dashboard.accounts.change_role("eve", Role.READ_ONLY)
    assert eve.get("/users").status_code == 403


def test_the_audit_trail_is_only_added_to(stored: Consortium) -> None:
    stored.add_user("ada")
    visitor = Visitor(stored)
    visitor.sign_in("ada", "wrong wrong wrong")
    visitor.sign_in("ada")
    visitor.post("/users", {"name": "eve@example.org", "role": "statistician"}, page="/users")
    lines = stored.dashboard.trail.newest()
    assert [line.what for line in reversed(lines)] == [
        "failed to sign in",
        "signed in",
        "added a user",
    ]
    assert {line.address for line in lines} == {"198.51.100.7"}
    assert lines[0].subject == "eve@example.org, statistician"
    words = ["UPDATE audit SET user_name = 'nobody'", "DELETE FROM audit"]
    if stored.store.database.dialect.name == "postgresql":
        words.append("TRUNCATE audit")
    for statement in words:
        with (
            pytest.raises(DatabaseError),
            stored.store.database.execution_options(writes=True).begin() as connection,
        ):
            connection.execute(text(statement))
    assert stored.dashboard.trail.newest() == lines
    shown = visitor.get("/audit").text
    assert "added a user" in shown
    assert "eve@example.org, statistician" in shown
