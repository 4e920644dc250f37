"""`fedcac-site status-page` from the command on, and the words of each state of the agent."""

from __future__ import annotations

import http.client
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from site_bench import Bench

from site_agent.__main__ import main
from site_agent.status.standing import AgentNote, LedgerNote, Standing
from site_agent.status_page.page import page_of
from site_agent.status_page.server import StatusServer

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_the_command_serves_what_the_agent_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench(tmp_path)
    home = ["--home", str(bench.folder.root)]
    assert main([*home, "run", "--once"]) == 0
    genuine = StatusServer.serve_forever
    answers: list[tuple[int, str]] = []

    def visited(server: StatusServer) -> None:
        thread = threading.Thread(target=genuine, args=(server,))
        thread.start()
        port = server.server_address[1]
        for path in ("/", "/status.json"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", path)
            response = connection.getresponse()
            answers.append((response.status, response.read().decode("utf-8")))
            connection.close()
        assert f"http://127.0.0.1:{port}/ until stopped" in capsys.readouterr().err
        server.shutdown()
        thread.join()

    monkeypatch.setattr(StatusServer, "serve_forever", visited)
    assert main([*home, "status-page", "--port", "0"]) == 0
    (page_status, page), (json_status, document) = answers
    assert page_status == json_status == 200
    # The last look was by hand, and no service runs.
    assert "No agent runs as a service; the last look was by hand." in page
    assert '"site": "duke"' in document


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("paused", "The agent has paused; it goes on by itself once the cause is gone."),
        ("waiting", "The agent is waiting, since 2 h."),
        ("working", "The agent is working, since 2 h."),
        ("stopped", "The agent was stopped "),
    ],
)
def test_each_state_has_its_words_and_no_doctor_is_no_fault(state: Any, words: str) -> None:
    note = AgentNote(state=state, process=7, since=NOW - timedelta(hours=2), at=NOW)
    standing = Standing(
        site="duke",
        software="1",
        policy="research",
        approval="manual",
        written_at=NOW,
        agent=note,
        ledger=LedgerNote(entries=0, head="sha256:" + "0" * 64),
    )
    page = page_of(standing, now=NOW, refresh_s=0)
    assert words in page
    # Only a service that was stopped is marked as a fault; that nobody ran the doctor is none.
    assert ("✕" in page) == (state == "stopped")
    assert page.count("✕") <= 1
