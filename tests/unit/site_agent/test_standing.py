"""How a site stands, read from its folder by somebody who is not the agent."""

from __future__ import annotations

import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from site_bench import PACKAGE, Bench

from fedcac.exchange import parcel_name
from fedcac.vocabulary import ExclusionReason
from site_agent.status.standing import AgentNote, DoctorNote, ProblemNote, write_note
from site_agent.status.standing_reader import StandingReader
from site_agent.status.standing_words import standing_text

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def _look(bench: Bench) -> None:
    with bench.agent() as agent:
        agent.step()


def test_a_title_is_of_a_protocol_that_the_lead_signed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.offer("round-1")
    _look(bench)
    reader = StandingReader(bench.folder)
    (note,) = reader.read().rounds
    protocol = bench.protocol
    assert note.title == f"{protocol.title} ({protocol.id}, version {protocol.version})"
    envelope = bench.spool.inbox.get(parcel_name("round-1", "protocol"))
    assert envelope is not None
    (path,) = (p for p in (bench.folder.spool_path / "inbox").iterdir() if "protocol" in p.name)
    for content in (b"no envelope", envelope.replace(b"a", b"b", 40), None):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        (unsigned,) = StandingReader(bench.folder).read().rounds
        assert unsigned.title == ""
        # Who has seen it once knows it.
        assert reader.read().rounds[0].title == note.title
    shutil.rmtree(bench.folder.spool_path)
    assert StandingReader(bench.folder).read().rounds[0].title == ""
    # Looking makes no folder.
    assert not bench.folder.spool_path.exists()


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("open", "open, released at once"),
        ("cms", "cms, a person releases each reply"),
        ("gone.yaml", "none: policy.missing"),
    ],
)
def test_the_policy_and_who_releases(policy: str, words: str, tmp_path: Path) -> None:
    assert StandingReader(Bench(tmp_path, policy=policy).folder).read().policy == words


def test_exams_are_counted_by_what_became_of_them(tmp_path: Path) -> None:
    bench = Bench(tmp_path, approval="auto")
    bench.offer("round-1")
    bench.ask("round-1")
    for _ in range(3):
        _look(bench)
    states = (("completions = 0", 2), (f"reason = '{ExclusionReason.TOO_LARGE.value}'", 1))
    with sqlite3.connect(bench.folder.database_path) as database:
        database.execute("UPDATE rounds SET package_digest = ?", (PACKAGE,))
        exams = [row[0] for row in database.execute("SELECT rowid FROM exams")]
        for change, n in states:
            for exam in [exams.pop() for _ in range(n)]:
                database.execute(f"UPDATE exams SET {change} WHERE rowid = {exam}")  # noqa: S608
    database.close()
    (note,) = StandingReader(bench.folder).read().rounds
    assert (note.scored, note.excluded, note.under_way) == (bench.n_exams - 3, 1, 2)


def test_the_words_of_an_agent_that_says_nothing_and_of_a_problem_without_a_cure(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path)
    reader = StandingReader(bench.folder)
    text = standing_text(reader.read(), is_running=True, now=NOW)
    assert "An agent is running." in text
    assert "The agent is not running; `fedcac-site run` starts it." in standing_text(
        reader.read(), is_running=False, now=NOW
    )
    silent = AgentNote(state="working", process=7, since=NOW - timedelta(hours=2), at=NOW)
    problem = ProblemNote(code="site.busy", message="It is busy.", cure="")
    text = standing_text(reader.read(agent=silent, problem=problem), is_running=True, now=NOW)
    assert "The agent is working (process 7, since 2 h)." in text
    assert "Problem: It is busy. [site.busy]\n" in text
    assert "What to do" not in text
    assert "sign of life" not in text
    dead = silent.model_copy(update={"at": NOW - timedelta(hours=1)})
    text = standing_text(reader.read(agent=dead), is_running=True, now=NOW)
    assert "Its last sign of life was 1 h ago." in text
    cured = problem.model_copy(update={"cure": "Wait."})
    text = standing_text(reader.read(problem=cured), is_running=None, now=NOW)
    assert "Problem: It is busy. [site.busy]\n  What to do: Wait." in text
    assert "agent" not in text


def test_a_note_is_written_whole_or_the_old_one_stays(tmp_path: Path) -> None:
    note = DoctorNote(at=NOW, lines=())
    path = tmp_path / "status" / "doctor.json"
    assert write_note(path, note)
    before = path.read_text("utf-8")
    later = note.model_copy(update={"at": NOW + timedelta(days=1)})
    path.with_suffix(".part").mkdir()
    assert not write_note(path, later)
    assert path.read_text("utf-8") == before
    path.with_suffix(".part").rmdir()
    assert write_note(path, later)
    assert path.read_text("utf-8") != before
