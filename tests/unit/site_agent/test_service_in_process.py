"""The service in this process: its loop, its pauses and its words, with exams that are made up."""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from site_bench import NAME, Bench

from fedcac.errors import FedcacError, ResourceError, UsageError
from site_agent.__main__ import main
from site_agent.faults import as_problem
from site_agent.opening import opened
from site_agent.rounds.answering import Answerer
from site_agent.service import lock, logs, loop, verbs
from site_agent.service.lock import agent_lock, running_agent
from site_agent.service.logs import kept_log, log_event
from site_agent.service.loop import AgentService
from site_agent.service.notify import Notifier
from site_agent.service.stopping import InterruptibleSource, Stopper, StopRequested
from site_agent.status.standing import LedgerNote, Progress, Standing, read_note
from site_agent.status.standing_reader import standing_path

ROUND = "eng-0001"


class Terminal(StringIO):
    """Standard error of a person."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, approval="auto")


@pytest.fixture
def stop_when(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[], bool]], None]:
    """Let the service open made-up exams; the function says after which step a signal comes."""
    conditions: list[Callable[[], bool]] = []

    @contextmanager
    def made_up(home: Path, **options: Any) -> Iterator[Any]:
        assert home == bench.folder.root
        with bench.agent(is_stopping=options["is_stopping"]) as agent:
            genuine = agent.step

            def step() -> bool:
                is_changed = genuine()
                if all(condition() for condition in conditions):
                    os.kill(os.getpid(), signal.SIGTERM)
                return is_changed

            agent.step = step  # type: ignore[method-assign]
            yield agent, agent._store

    monkeypatch.setattr(loop, "opened", made_up)
    return conditions.append


@pytest.fixture
def service_of(bench: Bench) -> Iterator[Callable[..., AgentService]]:
    """Make a service that a signal would stop; signals are given back at the end."""
    with (stopper := Stopper()).installed():

        def made(**changes: Any) -> AgentService:
            options: dict[str, Any] = {"interval_s": 0.01, "minimum_free_mb": 0, **changes}
            return AgentService(bench.folder, stopper, Notifier({}), **options)

        yield made


def standing(bench: Bench) -> Standing:
    found = read_note(standing_path(bench.folder), Standing)
    assert found is not None
    return found


# the command


def test_run_serves_until_a_signal_and_says_how_to_go_on(
    bench: Bench,
    stop_when: Callable[[Callable[[], bool]], None],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    bench.offer(ROUND)
    bench.ask(ROUND)
    stop_when(lambda: f"{ROUND}.reply-0001" in bench.outbox())
    before = signal.getsignal(signal.SIGTERM)
    log = tmp_path / "agent.log"
    words = ["--interval", "0.01", "--log-format", "json", "--log-file", str(log)]
    home = ["--home", str(bench.folder.root)]
    assert main([*home, "run", "--minimum-free-mb", "0", *words, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == {"stopped": True}
    events = [json.loads(line)["event"] for line in log.read_text("utf-8").splitlines()]
    assert (events[0], events[-1]) == ("started", "stopped")
    assert "round" in events
    agent = standing(bench).agent
    assert agent is not None
    assert agent.state == "stopped"
    # The lock and the signals are given back.
    assert not running_agent(bench.folder.lock_path)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_person_at_a_terminal_sees_each_standing_once(
    bench: Bench,
    stop_when: Callable[[Callable[[], bool]], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench.offer(ROUND)
    bench.ask(ROUND)
    n_steps: list[int] = []
    stop_when(lambda: n_steps.append(1) or len(n_steps) > 3)
    terminal = Terminal()
    monkeypatch.setattr(verbs.sys, "stderr", terminal)
    home = ["--home", str(bench.folder.root)]
    assert main([*home, "run", "--interval", "0.01", "--minimum-free-mb", "0"]) == 0
    assert "Stopped; `fedcac-site run` goes on" in capsys.readouterr().out
    shown = terminal.getvalue()
    assert ROUND in shown
    assert "Scoring exams: 0 of 4" in shown
    blocks = shown.split("\n\n")
    assert all(one != other for one, other in itertools.pairwise(blocks))


def test_progress_is_told_beside_what_has_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(verbs.sys, "stderr", terminal)
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    plain = Standing(
        site=NAME,
        software="1",
        policy="research",
        approval="manual",
        written_at=moment,
        ledger=LedgerNote(entries=0, head="sha256:" + "0" * 64),
    )
    told = verbs._Teller()
    told.tell(plain)
    first = terminal.getvalue()
    assert NAME in first
    told.tell(plain)
    assert terminal.getvalue() == first
    progress = Progress(description="Scoring exams", finished=1, total=3, started_at=moment)
    told.tell(plain.model_copy(update={"progress": progress}))
    assert terminal.getvalue().removeprefix(first) == "Scoring exams: 1 of 3 (33%)\n"


@pytest.mark.parametrize("seconds", ["0", "-1", "3601", "soon"])
def test_an_interval_is_a_number_of_seconds(
    bench: Bench, capsys: pytest.CaptureFixture[str], seconds: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--home", str(bench.folder.root), "run", "--interval", seconds])
    assert caught.value.code == 2
    assert "--interval" in capsys.readouterr().err


def test_what_cannot_be_read_is_a_coded_end_of_status(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object, **__: object) -> None:
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise error

    monkeypatch.setattr(verbs.StandingReader, "read", busy)
    assert (
        main(["--home", str(bench.folder.root), "status"]) == ResourceError("x", code="y").exit_code
    )
    told = capsys.readouterr().err
    assert "resource.database_busy" in told
    assert "fedcac-site doctor --only database,user,disk" in told


# the loop


def test_a_fault_at_the_very_start_ends_the_service(
    bench: Bench, service_of: Callable[..., AgentService], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise UsageError("The policy is missing.", code="missing")

    monkeypatch.setattr(loop, "opened", refuse)
    with pytest.raises(UsageError, match="policy is missing"):
        service_of().run()


def test_a_fault_of_the_machine_in_a_step_opens_everything_anew(
    bench: Bench, service_of: Callable[..., AgentService], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = service_of()
    events: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(
        loop, "log_event", lambda event, _="", **facts: events.append((event, facts))
    )
    openings: list[int] = []

    class Faulty:
        def __init__(self, store: object) -> None:
            self.problems: dict[str, FedcacError] = {}

        def step(self) -> bool:
            if len(openings) == 1:
                self.problems = {ROUND: ResourceError("A disk.", code="disk_fault")}
            else:
                service._stopper.is_stopping = True
            return True

    class Store:
        exams_under_way = frozenset({("p", "q", "r")})

    @contextmanager
    def made_up(*_: object, **__: object) -> Iterator[Any]:
        openings.append(1)
        yield Faulty(None), Store()

    def cannot(_: Path) -> None:
        raise sqlite3.DatabaseError("damaged")

    monkeypatch.setattr(loop, "opened", made_up)
    monkeypatch.setattr(loop, "SiteStore", cannot)
    service.run()
    assert len(openings) == 2
    paused = dict(events)["paused"]
    assert (paused["code"], paused["level"]) == ("resource.disk_fault", logging.ERROR)
    # What was under way cannot be taken back now; that is said, and tried again at the next start.
    assert dict(events)["not_taken_back"]["code"] == "internal.unexpected"
    assert service._left == {("p", "q", "r")}


def test_without_settings_the_folder_itself_is_watched(
    bench: Bench, service_of: Callable[..., AgentService]
) -> None:
    service = service_of()
    bench.folder.settings_path.write_text("[", encoding="utf-8")
    before = service._surroundings()
    (bench.folder.root / "new.csv").touch()
    assert service._surroundings() != before


def test_a_wait_ends_where_its_time_does(
    bench: Bench, service_of: Callable[..., AgentService], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = service_of()
    times = iter([0.0, 0.0, 0.1, 0.3])
    waited: list[float] = []
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(service._stopper, "wait", waited.append)
    service._watch_inbox(0.2)
    assert waited == pytest.approx([0.2, 0.1])


def test_a_standing_that_cannot_be_read_costs_a_line_and_nothing_else(
    bench: Bench, service_of: Callable[..., AgentService], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Standing] = []
    events: list[tuple[str, object]] = []
    service = service_of(tell=told.append)
    monkeypatch.setattr(
        loop, "log_event", lambda event, **facts: events.append((event, facts["code"]))
    )

    def break_down(**_: object) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(service._reader, "read", break_down)
    service._note("working", 0.0)
    assert events == [("not_noted", "resource.disk_fault")]
    assert told == []


def test_what_is_held_is_logged_once_by_its_digest(
    bench: Bench, service_of: Callable[..., AgentService], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.offer(ROUND)
    bench.ask(ROUND)
    monkeypatch.setattr(Answerer, "is_holding", True)
    with bench.agent() as agent:
        agent.step()
        assert list(agent._store.held()) == [(ROUND, 1)]
    events: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(loop, "log_event", lambda event, **facts: events.append((event, facts)))
    service = service_of()
    service._note("waiting", 0.0)
    service._note("waiting", 0.0)
    (found,) = [facts for event, facts in events if event == "held"]
    assert (found["round_id"], found["exchange"]) == (ROUND, "1")
    assert found["digest"] == standing(bench).held[0].digest


# stopping


def test_work_that_may_be_interrupted_ends_when_it_asks() -> None:
    stopper = Stopper()
    stopper.check()
    with stopper.interruptible():
        stopper.is_stopping = True
        with pytest.raises(StopRequested):
            stopper.check()
    # Outside of it the step under way is finished.
    stopper.check()
    with pytest.raises(StopRequested), stopper.interruptible():
        raise AssertionError("work began after the signal")
    stopper.wait(60.0)


def test_a_signal_interrupts_scoring_and_nothing_else() -> None:
    number = signal.SIGINT
    with (stopper := Stopper()).installed():
        os.kill(os.getpid(), number)
        assert stopper.is_stopping
    with (stopper := Stopper()).installed():
        with pytest.raises(StopRequested), stopper.interruptible():
            os.kill(os.getpid(), number)
        assert stopper.is_stopping


def test_a_guarded_source_is_the_one_beneath_it(bench: Bench) -> None:
    from site_bench import CountedSource

    with bench.agent() as agent:
        beneath = CountedSource(agent._store, 2, bench.journal)
        source = InterruptibleSource(beneath, Stopper())
        assert source.needs_package is beneath.needs_package is False
        assert source.scores(None) == beneath.scores(None)
        assert source.collect(bench.protocol, None).exams.n == 2


# lock, log, notification


def test_a_lock_holds_without_its_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    path = tmp_path / "agent.lock"
    with monkeypatch.context() as patch:
        patch.setattr(lock.os, "pwrite", full)
        with agent_lock(path):
            assert running_agent(path)
            with pytest.raises(UsageError, match="its number is not known"), agent_lock(path):
                raise AssertionError("both hold the lock")
    assert not running_agent(tmp_path / "absent.lock")


def test_a_full_disk_costs_log_lines_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left", "/data/DOE^JANE")

    path = tmp_path / "agent.log"
    with kept_log(("text", path)):
        log_event("before", "before DOE^JANE", round_id=ROUND)
        with monkeypatch.context() as patch:
            patch.setattr(logs._QuietFile, "shouldRollover", full)
            log_event("lost")
        log_event("after")
    lines = path.read_text("utf-8").splitlines()
    assert [line.split(" ")[1] for line in lines] == ["INFO", "INFO"]
    assert lines[0].endswith(f"round_id={ROUND}")
    assert lines[1].endswith("INFO after")
    assert "DOE" not in lines[0]
    assert path.stat().st_mode & 0o777 == 0o640
    assert "DOE" not in "".join(capfd.readouterr())


def test_a_log_to_standard_error_is_the_services_alone(capfd: pytest.CaptureFixture[str]) -> None:
    with kept_log(("text", None)):
        log_event("note", "the service\nspeaks", round_id=ROUND)
        os.write(2, b"a decoder quotes DOE^JANE\n")
        logging.getLogger("pydicom").error("DOE^JANE")
    told = capfd.readouterr().err
    assert f"INFO the service | speaks round_id={ROUND}" in told
    assert "DOE" not in told
    os.write(2, b"given back\n")
    assert "given back" in capfd.readouterr().err


def test_nobody_reads_standard_error_any_more() -> None:
    kept = os.dup(2)
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)
    os.close(reader)
    try:
        with kept_log(("json", None)):
            log_event("note")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    assert logging.getLogger("site_agent").handlers == []


def test_a_log_file_needs_its_folder(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    log = bench.root / "absent" / "agent.log"
    with pytest.raises(SystemExit) as caught:
        main(["--home", str(bench.folder.root), "run", "--log-file", str(log)])
    assert caught.value.code == 2
    assert "there is no folder to keep this file in" in capsys.readouterr().err


def test_an_abstract_socket_of_systemd_is_heard() -> None:
    name = f"fedcac-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name)
        receiver.settimeout(20)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready("works\nand more")
        assert receiver.recv(4096) == b"READY=1\nSTATUS=works"


# faults


def database_error(code: int, text: str = "x") -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "code", "cure"),
    [
        (OSError(errno.ENOSPC, "x", "/data/DOE"), "resource.disk_full", "Make room"),
        (OSError(errno.EDQUOT, "x"), "resource.disk_full", "Make room"),
        (OSError(errno.EACCES, "x", "/data/DOE"), "resource.not_permitted", "sudo -u"),
        (OSError(errno.EROFS, "x"), "resource.not_permitted", "sudo -u"),
        (OSError(errno.EIO, "x"), "resource.disk_fault", "Have the disk checked"),
        (OSError(errno.ENOENT, "x", "/data/DOE"), "internal.unexpected", "tried again"),
        (database_error(sqlite3.SQLITE_FULL), "resource.disk_full", "Make room"),
        (database_error(0, "disk I/O error"), "resource.disk_full", "Make room"),
        (database_error(sqlite3.SQLITE_BUSY), "resource.database_busy", "--only database"),
        (database_error(sqlite3.SQLITE_BUSY_SNAPSHOT), "resource.database_busy", "tried again"),
        (database_error(sqlite3.SQLITE_CANTOPEN), "resource.database_busy", "--only database"),
        (database_error(sqlite3.SQLITE_CORRUPT, "DOE"), "internal.unexpected", "tried again"),
        (ValueError("DOE^JANE"), "internal.unexpected", "nothing of a patient"),
        (UsageError("Own words.", code="own", cure="Own cure."), "usage.own", "Own cure."),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_whatever_ends_a_step_has_a_code_and_a_cure(error: Exception, code: str, cure: str) -> None:
    problem = as_problem(error)
    assert problem.code == code
    assert cure in problem.cure
    assert "DOE" not in problem.message + problem.cure
    assert problem is error or problem.__cause__ is error


# opening


def test_a_site_with_a_scored_table_answers_from_it_what_brings_no_package(bench: Bench) -> None:
    text = bench.folder.settings_path.read_text("utf-8")
    bench.folder.settings_path.write_text(
        text.replace("scored_table: null", "scored_table: scored.csv"), encoding="utf-8"
    )
    rows = "".join(f"P{number},{7 * number},{11 * number}\n" for number in range(30))
    bench.folder.resolve("scored.csv").write_text(
        "patient_id,index_score,reference_score\n" + rows, encoding="utf-8"
    )
    with opened(bench.folder.root) as (agent, _):
        source = agent._source
        assert source.needs_package
        assert source.scores("sha256:" + "0" * 64)
        assert not source.scores(None)
        assert source.collect(bench.protocol, None).exams.n == 30
