"""`fedcac-site run` as a service: signals, lock, notification, log, pauses."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from site_bench import Bench, CountedSource

import site_agent.service.loop as loop
from fedcac.errors import UsageError
from site_agent.exams.cohort import ExamSource, FrozenCohort
from site_agent.service.lock import agent_lock, running_agent
from site_agent.service.logs import kept_log, log_event
from site_agent.service.loop import AgentService
from site_agent.service.notify import Notifier
from site_agent.service.stopping import Stopper
from site_agent.status.standing import Standing, read_note
from site_agent.status.standing_reader import standing_path

ROUND = "eng-0001"
NAME = "DOE^JANE"


class SlowSource(CountedSource):
    """Sleeps in the middle of the second exam until somebody stops it."""

    def collect(self, protocol: Any, package: Any, reference: Any = None) -> FrozenCohort:
        marker = self._journal.with_name("is-scoring")
        genuine = self._store.finish_exam

        def finish(*key: Any, **values: Any) -> None:
            if key[0] == "p001":
                marker.touch()
                time.sleep(60)
            genuine(*key, **values)

        self._store.finish_exam = finish  # type: ignore[method-assign]
        return super().collect(protocol, package)


@contextmanager
def opened_by(bench: Bench, source: type[CountedSource]) -> Iterator[None]:
    """Let the service open the bench's made-up exams in place of DICOM."""

    @contextmanager
    def opened(
        home: Path, *, is_stopping: Callable[[], bool], guard: Callable[[ExamSource], ExamSource]
    ) -> Iterator[Any]:
        with bench.agent(is_stopping=is_stopping) as agent:
            own = source(agent._store, bench.n_exams, bench.journal)
            agent._source = guard(own)
            yield agent, agent._store

    genuine, loop.opened = loop.opened, opened  # type: ignore[assignment]
    try:
        yield
    finally:
        loop.opened = genuine


def serve(
    bench: Bench,
    source: type[CountedSource] = CountedSource,
    environment: dict[str, str] | None = None,
    minimum_free_mb: int = 0,
) -> int:
    """Start the service in a child and return the child's number."""
    child = os.fork()
    if child:
        return child
    try:
        stopper = Stopper()
        with (
            opened_by(bench, source),
            agent_lock(bench.folder.root / "agent.lock"),
            stopper.installed(),
            kept_log(("json", bench.root / "agent.log")),
        ):
            AgentService(
                bench.folder,
                stopper,
                Notifier(environment or {}),
                interval_s=0.05,
                minimum_free_mb=minimum_free_mb,
            ).run()
    except BaseException as error:
        sys.__stderr__.write(f"{error!r}\n")
        os._exit(3)
    os._exit(0)


def until(has_happened: Callable[[], bool], child: int) -> None:
    deadline = time.monotonic() + 120
    while not has_happened():
        assert time.monotonic() < deadline, "it did not happen"
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the service ended"
        time.sleep(0.02)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def standing(bench: Bench) -> Standing | None:
    return read_note(standing_path(bench.folder), Standing)


def is_in(bench: Bench, state: str) -> bool:
    found = standing(bench)
    return found is not None and found.agent is not None and found.agent.state == state


def log_lines(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (bench.root / "agent.log").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_service_with_exit_0(tmp_path: Path, number: signal.Signals) -> None:
    bench = Bench(tmp_path, approval="auto")
    bench.offer(ROUND)
    bench.ask(ROUND)
    child = serve(bench)
    until(lambda: f"{ROUND}.reply-0001" in bench.outbox() and is_in(bench, "waiting"), child)
    os.kill(child, number)
    assert ended(child) == 0
    assert is_in(bench, "stopped")
    assert not running_agent(bench.folder.root / "agent.lock")
    events = [line["event"] for line in log_lines(bench)]
    assert events[0] == "started"
    assert events[-1] == "stopped"


def test_a_signal_in_mid_scoring_takes_the_attempt_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path, approval="auto", n_exams=3)
    bench.offer(ROUND)
    bench.ask(ROUND)
    for _ in range(4):
        child = serve(bench, SlowSource)
        until((tmp_path / "is-scoring").exists, child)
        found = standing(bench)
        assert found is not None
        assert found.progress is not None
        assert (found.progress.finished, found.progress.total) in ((0, 3), (1, 3), (0, 2), (1, 2))
        os.kill(child, signal.SIGTERM)
        assert ended(child) == 0
        (tmp_path / "is-scoring").unlink()
    # Four stops are more than the attempts an exam has: it is scored all the same.
    child = serve(bench)
    until(lambda: f"{ROUND}.reply-0001" in bench.outbox(), child)
    os.kill(child, signal.SIGTERM)
    assert ended(child) == 0
    assert bench.completions() == Counter({1: 3})
    assert Counter(bench.journal.read_text("ascii").split())["p000"] == 1


def test_the_second_signal_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, approval="auto")
    bench.offer(ROUND)
    marker = tmp_path / "is-writing"

    def hang(*_: object) -> bool:
        marker.touch()
        time.sleep(0.3)
        time.sleep(60)
        return False

    monkeypatch.setattr("site_agent.rounds.agent.SiteAgent._step_round", hang)
    child = serve(bench)
    until(marker.exists, child)
    os.kill(child, signal.SIGTERM)
    # Outside scoring the first one waits for the step, which here never ends.
    time.sleep(0.2)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(child, signal.SIGTERM)
    assert ended(child) == 128 + signal.SIGTERM


def test_systemd_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path, approval="auto")
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(address))
        receiver.settimeout(20)
        child = serve(bench, environment={"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "100000"})
        heard = []
        wanted = {"READY=1", "WATCHDOG=1", "STATUS=waiting"}
        while not wanted <= {line for text in heard for line in text}:
            heard.append(receiver.recv(4096).decode().split("\n"))
        os.kill(child, signal.SIGTERM)
        while ["STOPPING=1"] not in heard:
            heard.append(receiver.recv(4096).decode().split("\n"))
    assert ended(child) == 0


def test_the_watchdog_is_silent_when_the_work_does_not_move(tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(address))
        receiver.settimeout(0.3)
        notifier = Notifier({"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "40000"})
        notifier.watch(lambda: False)
        with pytest.raises(TimeoutError):
            receiver.recv(4096)
        notifier.stopping()
        assert receiver.recv(4096) == b"STOPPING=1"
    # Nobody listens: nothing is sent and nothing fails.
    assert not Notifier({}).is_heard
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "absent")}).ready("works")
    assert Notifier({"WATCHDOG_USEC": "100", "WATCHDOG_PID": "1"}).watchdog_s == 0.0


def test_two_agents_never_work_on_one_folder(tmp_path: Path) -> None:
    path = tmp_path / "agent.lock"
    with agent_lock(path):
        assert running_agent(path)
        with pytest.raises(UsageError, match=f"process {os.getpid()}") as caught, agent_lock(path):
            raise AssertionError("both hold the lock")
        assert caught.value.code == "usage.agent_running"
    assert not running_agent(path)
    # What a killed agent leaves behind names a process and holds nothing.
    child = os.fork()
    if child == 0:
        with agent_lock(path):
            os.kill(os.getpid(), signal.SIGKILL)
    assert ended(child) == -signal.SIGKILL
    assert path.read_text("ascii").strip() == str(child)
    with agent_lock(path):
        assert path.read_text("ascii").strip() == str(os.getpid())


def test_run_once_leaves_a_folder_alone_that_a_service_works_on(tmp_path: Path) -> None:
    from site_agent.__main__ import main

    bench = Bench(tmp_path)
    with agent_lock(bench.folder.root / "agent.lock"):
        assert main(["--home", str(bench.folder.root), "run", "--once", "--format", "json"]) == 2
    assert not bench.folder.database_path.exists()


class LeakingSource(CountedSource):
    """Meets every way in which a name may come into a log."""

    def collect(self, protocol: Any, package: Any, reference: Any = None) -> FrozenCohort:
        logging.getLogger("pydicom").warning("Invalid value %s", NAME)
        logging.getLogger().error("library at the root: %s", NAME)
        warnings.warn(f"header of {NAME}", UserWarning, stacklevel=1)
        os.write(2, f"a decoder in C writes {NAME}\n".encode())
        subprocess.run(
            [sys.executable, "-c", f"import sys; sys.stderr.write('{NAME}')"], check=True
        )
        raise ValueError(f"{NAME} 19510203 /data/{NAME}/1.2.840.113619.2.55.3")


def test_no_identifier_enters_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bench = Bench(tmp_path, approval="auto")
    bench.offer(ROUND)
    child = serve(bench, LeakingSource)

    def has_problem() -> bool:
        found = standing(bench)
        return found is not None and any(note.problem for note in found.rounds)

    until(has_problem, child)
    os.kill(child, signal.SIGTERM)
    assert ended(child) == 0
    lines = log_lines(bench)
    assert {"time", "level", "event", "message", "logger"} <= set(lines[0])
    assert [line for line in lines if line.get("problem") == "internal.unexpected"]
    shown = (bench.root / "agent.log").read_text("utf-8") + "".join(capfd.readouterr())
    shown += standing_path(bench.folder).read_text("utf-8")
    for secret in ("DOE", "JANE", "19510203", "1.2.840", "/data"):
        assert secret not in shown


def test_a_log_file_rotates_and_is_not_for_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("site_agent.service.logs._FILE_BYTES", 1000)
    path = tmp_path / "agent.log"
    child = os.fork()
    if child == 0:
        with kept_log(("text", path)):
            for number in range(300):
                log_event("note", f"line {number}")
        os._exit(0)
    assert ended(child) == 0
    files = sorted(tmp_path.glob("agent.log*"))
    assert len(files) == 6
    assert all(file.stat().st_size <= 1000 for file in files)
    assert {file.stat().st_mode & 0o777 for file in files} == {0o640}


def test_it_pauses_without_room_and_goes_on_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, approval="auto")
    bench.offer(ROUND)
    bench.ask(ROUND)
    marker = tmp_path / "has-room"

    class Usage:
        @property
        def free(self) -> int:
            return 10**12 if marker.exists() else 5 * 2**20

    monkeypatch.setattr("site_agent.service.loop.shutil.disk_usage", lambda _: Usage())
    child = serve(bench, minimum_free_mb=100)
    until(lambda: is_in(bench, "paused"), child)
    found = standing(bench)
    assert found is not None
    assert found.problem is not None
    assert found.problem.code == "resource.disk_full"
    assert "5 MB" in found.problem.message
    assert bench.outbox() == {}
    marker.touch()
    until(lambda: f"{ROUND}.reply-0001" in bench.outbox() and is_in(bench, "waiting"), child)
    found = standing(bench)
    assert found is not None
    assert found.problem is None
    os.kill(child, signal.SIGTERM)
    assert ended(child) == 0


def test_faults_are_looked_at_again_after_growing_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, approval="auto")
    stopper = Stopper()
    service = AgentService(bench.folder, stopper, Notifier({}), interval_s=5.0, minimum_free_mb=0)
    bench.offer(ROUND)
    bench.ask(ROUND, protocol_digest="sha256:" + "1" * 64)
    waited: list[float] = []
    monkeypatch.setattr(service, "_wait", lambda seconds, **_: waited.append(seconds))
    with bench.agent() as agent:
        for _ in range(12):
            service._step(agent)
    # The first step scores and takes no pause; the pauses double up to five minutes.
    assert waited[:4] == [10.0, 20.0, 40.0, 80.0]
    assert waited[-1] == 300.0
    (bench.folder.spool_path / "inbox" / f"{ROUND}.request-0001").unlink()
    with bench.agent() as agent:
        service._step(agent)
    assert waited[-1] == 5.0


@pytest.mark.parametrize("name", ["manifest.csv", "clinical.csv", "scored.csv"])
def test_a_table_that_is_mended_ends_a_wait(tmp_path: Path, name: str) -> None:
    bench = Bench(tmp_path)
    text = bench.folder.settings_path.read_text("utf-8")
    assert "scored_table: null" in text
    bench.folder.settings_path.write_text(
        text.replace("scored_table: null", "scored_table: scored.csv"), encoding="utf-8"
    )
    service = AgentService(bench.folder, Stopper(), Notifier({}), interval_s=5.0, minimum_free_mb=0)
    before = service._surroundings()
    assert service._surroundings() == before
    (bench.folder.root / name).write_text("mended")
    assert service._surroundings() != before


def test_another_user_is_told_so_without_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the operating system refuses ends a command with a code, and without a path."""
    from site_agent.__main__ import main

    bench = Bench(tmp_path)

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", str(bench.folder.settings_path))

    monkeypatch.setattr("site_agent.settings.Path.read_text", refuse)
    for words in (["run", "--once"], ["run"], ["status"]):
        assert main(["--home", str(bench.folder.root), *words]) == 12
        told = capsys.readouterr().err
        assert "resource.not_permitted" in told
        assert str(tmp_path) not in told


def test_status_shows_the_running_agents_problems_and_what_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from site_agent.__main__ import main

    bench = Bench(tmp_path, approval="auto")
    bench.offer(ROUND)
    bench.ask(ROUND, protocol_digest="sha256:" + "1" * 64)
    child = serve(bench)
    until(lambda: is_in(bench, "waiting"), child)
    bench.approval = "manual"
    with bench.agent() as agent:
        bench.offer("eng-0002")
        agent._receive_offer("eng-0002")
    home = str(bench.folder.root)
    capsys.readouterr()
    assert main(["--home", home, "status", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)["data"]
    assert shown["is_running"]
    assert shown["rounds"][ROUND]["problem"] == "round.wrong_protocol"
    waiting = {entry["round_id"]: entry["commands"] for entry in shown["waiting"]}
    assert waiting["eng-0002"][0] == f"fedcac-site --home {home} approve eng-0002"
    os.kill(child, signal.SIGTERM)
    assert ended(child) == 0
    assert main(["--home", home, "status"]) == 0
    assert "not running" in capsys.readouterr().out
