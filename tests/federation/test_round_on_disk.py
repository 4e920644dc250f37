"""A round over spool folders, with separate processes, approvals, and kill -9."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any


def exam_rows(site: Path) -> list[tuple[str, int, int, float | None]]:
    with sqlite3.connect(site / "state.sqlite", timeout=30) as connection:
        try:
            rows = connection.execute("SELECT exam_key, attempts, completions, total FROM exams")
            return [tuple(row) for row in rows]
        except sqlite3.OperationalError:
            return []


def finish(made: Any, round_id: str) -> dict[str, Any]:
    """Let site and coordinator take turns until the round ends."""
    for _ in range(20):
        made.run("site", "run", "--once")
        data = made.run("lead", "round", "status", round_id)["rounds"][0]
        if data["state"] in ("pooled", "failed"):
            return dict(data)
    raise AssertionError("the round did not end")


def test_nothing_is_read_before_a_person_approves(launched: tuple[Any, str]) -> None:
    made, round_id = launched
    data = made.run("site", "run", "--once")
    assert data["rounds"][round_id]["state"] == "offered"
    assert exam_rows(made.site) == []
    assert list((made.site / "spool" / "outbox").iterdir()) == []


def test_refusing_a_round_tells_the_lead_a_code_and_nothing_else(
    launched: tuple[Any, str],
) -> None:
    made, round_id = launched
    made.run("site", "refuse", round_id)
    data = made.run("lead", "round", "status", round_id)["rounds"][0]
    assert data["state"] == "failed"
    assert data["sites"]["duke"]["refusal"] == "rejected_by_site"
    assert exam_rows(made.site) == []


def test_kill_in_mid_scoring_then_restart_scores_no_exam_twice(launched: tuple[Any, str]) -> None:
    made, round_id = launched
    made.run("site", "approve", round_id)
    agent = subprocess.Popen(
        made.command("site", made.site, "run", "--once"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 480
    while time.monotonic() < deadline and agent.poll() is None:
        if sum(row[2] for row in exam_rows(made.site)) >= 2:
            break
        time.sleep(0.002)
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    before = {row[0]: row for row in exam_rows(made.site)}
    finished = {key for key, row in before.items() if row[2] == 1}
    assert len(finished) >= 2
    assert len(finished) < 6, "the agent was not killed in mid-scoring"

    data = finish(made, round_id)
    assert data["state"] == "pooled"
    after = {row[0]: row for row in exam_rows(made.site)}
    assert len(after) == 6
    for key, row in after.items():
        assert row[2] == 1, "an exam was scored twice, or not at all"
        if key in finished:
            assert row == before[key]
    assert made.run("site", "ledger", "verify")["entries"] > 0

    out = made.root / "out"
    made.run("lead", "report", round_id, "--out", str(out))
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Demonstration model" in page
    assert "not for clinical use" in page
    # A second round over the same exams and package scores nothing again.
    from fedcac.models import demonstration_package_folder

    again = made.run(
        "lead",
        "round",
        "launch",
        "demo-nongated",
        "--model",
        str(demonstration_package_folder()),
    )["round_id"]
    made.run("site", "approve", again)
    assert finish(made, again)["state"] == "pooled"
    assert {row[0]: row for row in exam_rows(made.site)} == after


def test_an_altered_request_and_a_foreign_offer_are_not_answered(
    launched: tuple[Any, str],
) -> None:
    made, round_id = launched
    made.run("site", "approve", round_id)
    made.run("site", "run", "--once")
    made.run("lead", "round", "status", round_id)
    inbox = made.site / "spool" / "inbox"
    request = inbox / f"{round_id}.request-0001"
    genuine = request.read_bytes()
    request.write_bytes(genuine.replace(b'"payload":"ey', b'"payload":"eX', 1))
    data = made.run("site", "run", "--once", expect=4)
    assert data["rounds"][round_id]["problem"].startswith("signature.")
    assert not list((made.site / "spool" / "outbox").glob("*reply*"))
    # The genuine request still gets its answer, and a stranger's offer gets no word at all.
    request.write_bytes(genuine)
    (inbox / "stranger-0001.offer").write_bytes(genuine)
    assert finish(made, round_id)["state"] == "pooled"
    assert not list((made.site / "spool" / "outbox").glob("stranger*"))


def test_held_reply_waits_for_the_site_and_may_be_rejected(launched: tuple[Any, str]) -> None:
    made, round_id = launched
    policy = made.site / "policy.yaml"
    from fedcac.disclosure import policy as policy_module

    shipped = Path(policy_module.__file__).parent / "policies" / "research.yaml"
    text = shipped.read_text(encoding="utf-8")
    assert "review: auto" in text
    text = text.replace("review: auto", "review: hold").replace(
        "profile: research", "profile: custom"
    )
    policy.write_text(text, encoding="utf-8")
    settings = made.site / "site.yaml"
    settings.write_text(
        settings.read_text().replace("policy: open", "policy: policy.yaml"), encoding="utf-8"
    )
    made.run("site", "approve", round_id)
    made.run("site", "run", "--once")
    made.run("lead", "round", "status", round_id)
    data = made.run("site", "run", "--once")
    assert data["held"] == [{"round_id": round_id, "exchange": 1}]
    outbox = made.site / "spool" / "outbox"
    assert not list(outbox.glob("*reply*"))
    (held,) = made.run("site", "review", "show")["held"]
    made.run("site", "review", "reject", round_id, "1", "--digest", held["digest"])
    assert list(outbox.glob("*reply*"))
    data = made.run("lead", "round", "status", round_id)["rounds"][0]
    assert data["state"] == "pooled"
    made.run("lead", "report", round_id, "--out", str(made.root / "out"))
    estimates = (made.root / "out" / "estimates.csv").read_text(encoding="utf-8")
    assert ",ok\n" not in estimates.replace("\r", "")
    assert "rejected" in (made.root / "out" / "report.html").read_text(encoding="utf-8")
