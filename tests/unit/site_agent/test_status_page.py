"""The status page: on loopback, for this computer's own names, without a way to change anything."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedcac.errors import UsageError
from site_agent.status.standing import (
    AgentNote,
    DoctorLine,
    DoctorNote,
    HeldNote,
    LedgerNote,
    ProblemNote,
    Progress,
    RoundNote,
    Standing,
    write_note,
)
from site_agent.status.standing_words import duration_words, standing_text
from site_agent.status_page.page import CONTENT_POLICY, page_of
from site_agent.status_page.server import StatusServer, make_server

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def a_standing(**changes: object) -> Standing:
    """Return a standing that has something to say everywhere."""
    made = Standing(
        site="duke",
        software="0.1.0",
        policy="research, a person releases each reply",
        approval="manual",
        written_at=NOW,
        agent=AgentNote(
            state="working",
            process=7,
            since=NOW - timedelta(hours=2),
            at=NOW - timedelta(seconds=4),
        ),
        progress=Progress(
            description="Scoring exams",
            finished=40,
            total=200,
            started_at=NOW - timedelta(minutes=20),
            rate_per_minute=2.0,
            remaining_s=4800.0,
        ),
        rounds=(
            RoundNote(
                round_id="eng-0001",
                title="A <script>alert(1)</script> title",
                state="offered",
                waits_for="a person approves or refuses the round",
                commands=("fedcac-site --home /srv/site approve eng-0001",),
            ),
            RoundNote(
                round_id="eng-0002",
                title="",
                state="approved",
                scored=38,
                excluded=2,
                exclusions={"slice_too_thick": 2},
                problem=ProblemNote(code="table.bad_cell", message="A cell.", cure="Mend it."),
            ),
        ),
        held=(
            HeldNote(
                round_id="eng-0003",
                exchange=4,
                digest="sha256:" + "a" * 64,
                commands=("fedcac-site review approve eng-0003 4 --digest sha256:aaaaaaaaaaaa",),
            ),
        ),
        ledger=LedgerNote(entries=9, head="sha256:" + "b" * 64),
        doctor=DoctorNote(
            at=NOW - timedelta(days=1),
            lines=(DoctorLine(name="clock", status="failed", found="12 s fast", cure="Run NTP."),),
        ),
    )
    return made.model_copy(update=changes)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StatusServer]:
    path = tmp_path / "status" / "status.json"
    assert write_note(path, a_standing())
    made = make_server(path, 0)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def ask(
    server: StatusServer, path: str = "/", method: str = "GET", **headers: str
) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=given)
    response = connection.getresponse()
    body = response.read().decode("utf-8")
    connection.close()
    return response.status, body, dict(response.getheaders())


def test_it_says_what_waits_and_how_far_work_is(server: StatusServer) -> None:
    status, body, headers = ask(server)
    assert status == 200
    for text in (
        "fedcac-site --home /srv/site approve eng-0001",
        "review approve eng-0003 4 --digest sha256:aaaaaaaaaaaa",
        "40 of 200 (20%), 2 a minute, about 1 h 20 min left",
        "slice_too_thick",
        "table.bad_cell",
        "Mend it.",
        "sha256:" + "b" * 64,
        "Run NTP.",
    ):
        assert text in body
    assert headers["Content-Security-Policy"] == CONTENT_POLICY
    assert "default-src 'none'" in CONTENT_POLICY


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(server: StatusServer) -> None:
    _, body, _ = ask(server)
    assert "<script" not in body
    assert "&lt;script&gt;" in body
    assert re.findall(r'(?:src|href|action)="(?!/|#)[^"]*"', body) == []
    assert "<form" not in body
    # The style sheet in it is the one that the policy names.
    assert "sha256-" in CONTENT_POLICY


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8470", "", "10.0.0.7"])
def test_other_hosts_are_turned_away(server: StatusServer, host: str) -> None:
    status, body, _ = ask(server, Host=host)
    assert status == 403
    assert "duke" not in body


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1", "[::1]:8470", "LOCALHOST"])
def test_own_names_are_served_also_through_a_tunnel(server: StatusServer, host: str) -> None:
    assert ask(server, Host=host)[0] == 200


def test_other_pages_cannot_read_it(server: StatusServer) -> None:
    assert (
        ask(server, "/status.json", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="empty")[0] == 403
    )
    assert ask(server, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="iframe")[0] == 403
    assert ask(server, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")[0] == 200
    assert ask(server, "/", Sec_Fetch_Site="none", Sec_Fetch_Dest="document")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(server: StatusServer, method: str) -> None:
    assert ask(server, "/", method)[0] == 501
    assert ask(server, "/approve/eng-0001")[0] == 404


def test_it_listens_on_loopback_only(server: StatusServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(UsageError, match="port_taken"):
        make_server(Path("absent"), server.server_address[1])


def test_json_and_a_page_that_stands_still(server: StatusServer) -> None:
    status, body, _ = ask(server, "/status.json")
    assert (status, json.loads(body)["site"]) == (200, "duke")
    assert 'http-equiv="refresh"' in ask(server, "/")[1]
    assert 'http-equiv="refresh"' not in ask(server, "/?still")[1]
    assert ask(server, "/", "HEAD")[1] == ""


def test_before_the_first_look_and_after_the_last(tmp_path: Path) -> None:
    text = page_of(None, now=NOW, refresh_s=0)
    assert "No agent has written" in text
    made = make_server(tmp_path / "absent.json", 0)
    made.server_close()
    silent = page_of(a_standing(), now=NOW + timedelta(hours=3), refresh_s=0)
    assert "No sign of life of the agent for 3 h" in silent
    note = AgentNote(state="stopped", process=7, since=NOW, at=NOW)
    assert "was stopped" in page_of(a_standing(agent=note), now=NOW, refresh_s=0)


def test_the_same_in_words() -> None:
    text = standing_text(a_standing(), is_running=True, now=NOW)
    for part in (
        "fedcac-site --home /srv/site approve eng-0001",
        "Scoring exams: 40 of 200 (20%), 2 a minute, about 1 h 20 min left",
        "Problem: A cell. [table.bad_cell]",
        "What to do: Mend it.",
        "Excluded: slice_too_thick 2",
        "Held: round eng-0003, exchange 4",
        "9 entries",
        "Doctor, 1 d ago: 1 failed.",
    ):
        assert part in text
    assert "not running" in standing_text(a_standing(), is_running=False, now=NOW)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.6, "1 min"),
        (3600, "1 h"),
        (3725, "1 h 2 min"),
        (90_000, "1 d 1 h"),
        (-3, "0 s"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration_words(seconds) == words
