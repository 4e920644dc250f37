"""The verbs of rounds: waiting with its exit codes, retry, close, export; and the service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from federation.test_masked_rounds import Consortium
from federation.test_round_states import SIZES, TABLE

from coordinator.__main__ import main
from coordinator.folder import CoordinatorFolder
from coordinator.rounds.api import LaunchPlan, Rounds
from coordinator.rounds.service import EngineService
from coordinator.rounds.status_words import in_words, in_words_short, time_left
from coordinator.state.records import EnrolledSite, RoundState
from coordinator.state.store import CoordinatorStore
from fedcac.errors import RoundError

NAMES = ("north", "east", "west")


class Lead:
    """A coordinator's folder, its sites in this process, and its command line."""

    def __init__(self, folder: Path, url: str) -> None:
        self.home = folder / "lead"
        self.consortium = Consortium(folder, {name: SIZES[name] for name in NAMES}, "open")
        # Command lines have the clock of this machine.
        self.consortium.now = datetime.now(UTC)
        made = CoordinatorFolder(self.home)
        made.key_path.parent.mkdir(parents=True)
        self.consortium.lead.save(made.key_path)
        if url:
            made.use_database(url)
        store = made.store()
        for name, key in self.consortium.public.items():
            store.enrol(EnrolledSite(name, key, str(folder / name / "spool")))
        store.close()

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "coordinator", "--home", str(self.home), *arguments]

    def sites(self, *names: str) -> None:
        self.consortium.now = datetime.now(UTC)
        for name in names or NAMES:
            agent, own = self.consortium.agent(name)
            agent.step()
            own.close()

    def launch(self) -> str:
        with Rounds.open(self.home, "anna") as rounds:
            plan = LaunchPlan(NAMES, 2, datetime.now(UTC) + timedelta(days=5), None, {}, 2)
            return rounds.launch(TABLE, plan)


@pytest.fixture
def lead(tmp_path: Path) -> Lead:
    return Lead(tmp_path, "")


def run(
    lead: Lead, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, dict[str, Any], str]:
    code = main(["--home", str(lead.home), *arguments, "--format", "json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out)["data"], captured.err


def test_wait_tells_what_happens_and_ends_with_its_codes(
    lead: Lead, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    round_id = lead.launch()
    wait = ("round", "wait", round_id, "--interval", "0.01")
    code, data, told = run(lead, capsys, *wait, "--timeout", "0")
    assert (code, data["state"]) == (3, "offered")
    assert f"{round_id}: offered, until" in told
    assert "north: no word yet" in told
    lead.sites("north", "east")
    code, data, told = run(lead, capsys, *wait, "--timeout", "0")
    assert (code, data["phase"]) == (3, "scoring")
    assert "north: takes part, has not answered yet" in told
    lead.sites("north", "east")
    code, data, told = run(lead, capsys, *wait, "--timeout", "60")
    assert (code, data["state"], data["is_pooled"]) == (0, "pooled", True)
    assert "north: is in the pool, 60 patients analysed, 1 replies" in told
    # Nothing is said twice.
    assert len(told.splitlines()) == len(set(told.splitlines()))
    assert run(lead, capsys, "round", "wait", "no-such-round")[0] == 2
    # West comes late.
    lead.sites("west")
    code, data, _ = run(lead, capsys, "round", "retry", round_id, "--reason", "was on holiday")
    assert (code, data["added"], data["edition"]) == (0, ["west"], 2)
    lead.sites("west")
    lead.sites("west")
    code, data, _ = run(lead, capsys, *wait, "--timeout", "60")
    assert (code, data["sites"]["west"]["standing"]) == (0, "pooled")
    assert run(lead, capsys, "round", "cancel", round_id)[0] == RoundError.exit_code
    assert run(lead, capsys, "round", "close", round_id)[0] == 0
    # A closed round stays pooled for whoever waits for it, and can be reported and exported.
    assert run(lead, capsys, *wait)[0] == 0
    assert run(lead, capsys, "report", round_id, "--out", str(tmp_path / "out"))[0] == 0
    archive = str(tmp_path / "round.zip")
    assert run(lead, capsys, "round", "export", round_id, "--out", archive)[0] == 0
    code, data, _ = run(lead, capsys, "round", "export", round_id, "--out", archive)
    assert (code, data["code"]) == (2, "usage.archive_exists")
    lead.sites()
    lead.sites()
    code, data, _ = run(lead, capsys, "round", "status")
    assert [one["state"] for one in data["rounds"]] == ["closed"]
    assert main(["--home", str(lead.home), "round", "status", round_id, "--events"]) == 0
    words = capsys.readouterr().out
    for part in ("edition 2: west added (was on holiday)", "anna: launched", "Next: Keep it"):
        assert part in words


def test_wait_ends_with_1_for_a_cancelled_round_and_running_ones_give_out_nothing(
    lead: Lead, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    round_id = lead.launch()
    for arguments, expected in (
        (("round", "close", round_id), "round.round_running"),
        (("round", "retry", round_id), "round.round_running"),
        (("round", "export", round_id, "--out", str(tmp_path / "x.zip")), "round.round_running"),
        (("report", round_id, "--out", str(tmp_path / "x")), "usage.round_not_pooled"),
    ):
        assert run(lead, capsys, *arguments)[1]["code"] == expected
    assert run(lead, capsys, "round", "cancel", round_id, "--reason", "by mistake")[0] == 0
    assert run(lead, capsys, "round", "wait", round_id)[0] == 1
    assert run(lead, capsys, "round", "export", round_id, "--out", str(tmp_path / "x.zip"))[0] == 0


def test_a_table_of_rounds_and_the_time_that_is_left(lead: Lead) -> None:
    now = datetime.now(UTC)
    assert list(in_words_short([])) == []
    first, second = lead.launch(), lead.launch()
    with Rounds.open(lead.home) as rounds:
        rounds.step(first)
        statuses = [rounds.status(one) for one in (first, second)]
    heading, *lines = in_words_short(statuses)
    assert heading.split() == ["ROUND", "PROTOCOL", "STATE", "SITES", "EXCHANGE", "DUE"]
    assert [line.split()[3] for line in lines] == ["offered", "draft"]
    assert "Send the offer" in list(in_words(statuses[1], now))[-1]
    assert time_left(now + timedelta(days=3, seconds=1), now) == "3 days left"
    assert time_left(now + timedelta(minutes=5), now) == "5 minutes left"
    assert time_left(now, now) == "over"


def test_the_service_moves_every_round_and_one_trouble_stops_no_other(lead: Lead) -> None:
    rounds = [lead.launch(), lead.launch()]
    folder = CoordinatorFolder(lead.home)
    store = folder.store()
    told: list[str] = []
    service = EngineService(folder, store, told.append)
    assert service.step() == 2
    # Another parcel lies where the first round's offer would go, at one site.
    spoiled = lead.launch()
    inbox = lead.consortium.folder / "north" / "spool" / "inbox"
    (inbox / f"{spoiled}.protocol").write_bytes(b"something else")
    for _ in range(4):
        lead.sites()
        service.step()
    states = {record.round_id: record.state for record in store.rounds()}
    assert [states[one] for one in rounds] == [RoundState.POOLED] * 2
    assert states[spoiled] is RoundState.DRAFT
    assert sum("round.parcel_changed" in line for line in told) == 1
    assert told.count(f"{rounds[0]}: pooled") == 1
    stop = threading.Event()
    stop.set()
    assert service.step(stop.is_set) == 0
    service.run(0.01, stop)
    store.close()


def test_the_service_outlives_a_database_that_goes_away(
    lead: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    round_id = lead.launch()
    folder = CoordinatorFolder(lead.home)
    store = folder.store()
    told: list[str] = []
    stop = threading.Event()
    real = CoordinatorStore.rounds
    faults = iter([OSError("secret"), OSError("secret")])

    def rounds(self: CoordinatorStore) -> Any:
        for fault in faults:
            raise fault
        return real(self)

    def say(line: str) -> None:
        told.append(line)
        if line.endswith("offered"):
            stop.set()

    monkeypatch.setattr(CoordinatorStore, "rounds", rounds)
    EngineService(folder, store, say).run(0.001, stop)
    store.close()
    assert told == ["The database does not answer (OSError); again.", f"{round_id}: offered"]


def test_on_a_terminal_waiting_shows_a_table(
    lead: Lead, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    round_id = lead.launch()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    code, _, told = run(lead, capsys, "round", "wait", round_id, "--timeout", "0")
    assert code == 3
    assert "4 days left" in told
    assert any("north" in line and "invited" in line for line in told.splitlines())


def test_two_services_at_once_and_a_graceful_stop(
    tmp_path: Path, new_database: Callable[[], str]
) -> None:
    database_url = new_database()
    lead = Lead(tmp_path, database_url)
    round_id = lead.launch()
    command = lead.command("engine", "run", "--interval", "0.02")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    services = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(2)
    ]
    store = CoordinatorStore(database_url)
    try:
        for service in services:
            # Only then does it listen to signals.
            assert service.stderr is not None
            assert b"The engine runs" in service.stderr.readline()
        for _ in range(2000):
            lead.sites()
            if store.round(round_id).state is RoundState.POOLED:
                break
        assert store.round(round_id).state is RoundState.POOLED
        for service, number in zip(services, (signal.SIGTERM, signal.SIGINT), strict=True):
            service.send_signal(number)
        for service in services:
            _, errors = service.communicate(timeout=300)
            assert service.returncode == 0
            assert b"Traceback" not in errors
    finally:
        for service in services:
            service.kill()
            service.communicate()
    whats = [(one.what.value, one.site) for one in store.events.of(round_id)]
    store.close()
    assert len(whats) == len(set(whats))
