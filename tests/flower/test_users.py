"""Every process under its own user, over folders that the tmpfiles rules made: a whole round.

No unit's sandbox is in force here: what a user cannot read, the file's own mode denies.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flower.accounts import REPOSITORY, Accounts, needs_accounts, open_to_all
from flower.deployment import free_port
from flower.small_tables import estimates_in_memory, paired_tables

from fedcac.protocol.catalogue import load_protocol_or_shipped
from site_agent.flower_courier.pack import pack_courier

PROTOCOL = "eng2021-nongated"
PROGRAM = [sys.executable, "-m", "coordinator"]
SITE_PROGRAM = [sys.executable, "-m", "site_agent"]
Process = subprocess.Popen[bytes]


class TwoHosts:
    """A coordinator's host and one hospital's, set up as the how-to pages say."""

    def __init__(self, root: Path, enter: list[str]) -> None:
        self.post = root / "post"
        self.post.mkdir()
        self.post.chmod(0o777)
        self._running: list[tuple[Callable[[], Process], Process]] = []
        self.lead = Accounts(root / "lead", REPOSITORY / "coordinator/deploy/systemd", 61100, enter)
        self.site = Accounts(root / "site", REPOSITORY / "site_agent/deploy/systemd", 61200, enter)
        self.home = self.lead.at("/srv/fedcac/lead")
        self.site_home = self.site.at("/srv/fedcac/site")
        self.table = self.site_home / "patients.csv"
        self.courier_home = self.site.at("/srv/fedcac/courier")
        self._log = root / "log"
        self._set_up()

    def lead_verb(self, *words: str) -> Any:
        arguments = [*PROGRAM, "--home", str(self.home), *words, "--format", "json"]
        return self.lead.run("fedcac-lead", *arguments)["data"]

    def _set_up(self) -> None:
        port = free_port()
        made = self.lead_verb(
            *("init", "--host", "127.0.0.1", "--listen", "127.0.0.1", "--name", "CAC"),
            *("--public-port", str(port), "--superlink-port", str(free_port())),
        )
        self.lead.make_folders()
        kit, request = self.post / "duke.zip", self.post / "duke.request.json"
        self.lead_verb("kit", "duke", "--out", str(kit))
        # By root, as the page says; then each folder is given to its user.
        joined = subprocess.run(
            [
                *(*SITE_PROGRAM, "--home", str(self.site_home), "init", "duke"),
                *("--kit", str(kit), "--courier-home", str(self.courier_home)),
                *("--port", str(free_port()), "--policy", "open", "--approval", "auto"),
                *("--fingerprint", made["fingerprint"], "--request", str(request)),
                *("--format", "json"),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=REPOSITORY,
        )
        assert joined.returncode == 0, joined.stdout + joined.stderr
        shutil.copy(paired_tables(self.post / "tables", "duke")["duke"], self.table)
        for folder, user in (
            (self.site_home, "fedcac-site"),
            (self.courier_home, "fedcac-courier"),
        ):
            number = str(self.site.number(user))
            subprocess.run(["chown", "-R", f"{number}:{number}", folder], check=True)
        self.site.make_folders()
        fingerprint = json.loads(joined.stdout)["data"]["fingerprint"]
        self.lead_verb("enrol", str(request), "--fingerprint", fingerprint)

    def start(self) -> None:
        for unit in ("fedcac-superlink", "fedcac-front", "fedcac-courier", "fedcac-engine"):
            self._start(self.lead, unit, PROGRAM)
        packed = self.post / "fedcac-courier.pyz"
        pack_courier(packed)
        for unit in ("fedcac-courier", "fedcac-courier-node"):
            self._start(self.site, unit, [sys.executable, str(packed)])
        words = [sys.executable, str(REPOSITORY / "tests/flower/table_site.py")]
        self._start(self.site, "fedcac-site", [*words, str(self.site_home), str(self.table)])

    def _start(self, host: Accounts, unit: str, words: list[str]) -> None:
        start = partial(host.start, unit, words, self._log)
        self._running.append((start, start()))

    def _restart_ended(self) -> None:
        # As each unit's Restart= says: a SuperNode gives up where the lead's courier, which
        # registers it, connects later than itself.
        self._running = [
            (start, process if process.poll() is None else start())
            for start, process in self._running
        ]

    def stop(self) -> None:
        for _, process in self._running:
            process.kill()
            process.wait()

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, is_reached: Callable[[], bool], pause_s: float = 0.5) -> None:
        end = time.monotonic() + 600
        while not is_reached():
            self._restart_ended()
            if time.monotonic() > end:
                raise TimeoutError(self.log()[-6000:])
            time.sleep(pause_s)

    def finish(self, round_id: str) -> None:
        # A process of its own each time: seldom, since the processors are few.
        self.wait_for(lambda: self._state(round_id) == "pooled", 3)

    def _state(self, round_id: str) -> str:
        shown = self.lead_verb("round", "status", round_id)
        return str(shown["rounds"][0]["state"])


@pytest.fixture(scope="module")
def hosts() -> Iterator[TwoHosts]:
    needs_accounts()
    # Below no folder that is closed to other users, as pytest's own are.
    with tempfile.TemporaryDirectory(prefix="fedcac-users-") as name:
        root = Path(name)
        root.chmod(0o755)
        with open_to_all(root / "aside") as enter:
            made = TwoHosts(root, enter)
            try:
                made.start()
                yield made
            finally:
                made.stop()


@pytest.fixture(scope="module")
def pooled(hosts: TwoHosts) -> str:
    round_id = str(hosts.lead_verb("round", "launch", PROTOCOL)["round_id"])
    hosts.finish(round_id)
    return round_id


def test_a_round_under_separate_users_gives_its_estimates(
    hosts: TwoHosts, pooled: str, tmp_path: Path
) -> None:
    out = hosts.post / "report"
    hosts.lead_verb("report", pooled, "--out", str(out))
    expected = estimates_in_memory(
        paired_tables(tmp_path, "duke"), load_protocol_or_shipped(PROTOCOL), tmp_path
    )
    assert (out / "estimates.csv").read_bytes() == expected


def test_each_process_of_the_coordinator_reads_its_own(hosts: TwoHosts, pooled: str) -> None:
    lead = "/srv/fedcac/lead"
    (chunk, *_) = sorted((hosts.home / "courier/journal/chunks").iterdir())
    its_own = {
        f"{lead}/keys/lead.key": {"lead"},
        f"{lead}/authority/ca.key": {"lead"},
        f"{lead}/coordinator.sqlite": {"lead"},
        f"{lead}/courier/journal/journal.sqlite": {"lead", "courier"},
        f"{lead}/courier/journal/chunks/{chunk.name}": {"lead", "courier"},
        f"{lead}/courier/courier.key": {"courier"},
        f"{lead}/courier/superexec.secret": {"courier", "link"},
        f"{lead}/courier/server.key": {"link"},
        f"{lead}/courier/link/superlink.sqlite": {"link"},
        f"{lead}/courier/roster.json": {"lead", "courier", "link"},
        f"{lead}/courier/ca.crt": {"lead", "courier", "link"},
    }
    for user in ("lead", "courier", "link"):
        found = hosts.lead.allowed(f"fedcac-{user}", "read", its_own)
        assert found == {path for path, users in its_own.items() if user in users}
    writable = {
        lead: {"lead"},
        f"{lead}/courier": {"lead"},
        f"{lead}/courier/roster.json": {"lead"},
        f"{lead}/courier/journal": {"lead", "courier"},
        f"{lead}/courier/journal/chunks": {"lead", "courier"},
        f"{lead}/courier/link": {"link"},
    }
    for user in ("lead", "courier", "link"):
        found = hosts.lead.allowed(f"fedcac-{user}", "write", writable)
        assert found == {path for path, users in writable.items() if user in users}


def test_a_site_s_courier_reads_no_patient_and_its_agent_no_courier_s_key(
    hosts: TwoHosts, pooled: str
) -> None:
    site, courier, spool = "/srv/fedcac/site", "/srv/fedcac/courier", "/srv/fedcac/spool"
    its_own = {
        f"{site}/keys/site.key": {"site"},
        f"{site}/keys/pseudonym.secret": {"site"},
        f"{site}/patients.csv": {"site"},
        f"{site}/state.sqlite": {"site"},
        f"{site}/ledger.jsonl": {"site"},
        f"{courier}/node.key": {"courier"},
        f"{courier}/runner.secret": {"courier"},
        f"{courier}/courier.toml": {"courier"},
        f"{courier}/state/last-serial": {"courier"},
        f"{spool}/inbox/{pooled}.offer": {"site", "courier"},
        f"{spool}/outbox/{pooled}.reply-0001": {"site", "courier"},
    }
    writable = {
        spool: {"site"},
        f"{spool}/inbox": {"site", "courier"},
        f"{spool}/outbox": {"site"},
        f"{spool}/outbox/{pooled}.reply-0001": {"site"},
    }
    for user in ("site", "courier"):
        for act, table in (("read", its_own), ("write", writable)):
            found = hosts.site.allowed(f"fedcac-{user}", act, table)
            assert found == {path for path, users in table.items() if user in users}


def test_what_root_renews_stays_with_its_process(hosts: TwoHosts, pooled: str) -> None:
    key = hosts.home / "courier" / "server.key"
    before = key.read_bytes()
    command = [*PROGRAM, "--home", str(hosts.home), "certificate", "renew"]
    subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY)
    assert key.read_bytes() != before
    assert (key.stat().st_uid, key.stat().st_mode & 0o777) == (
        hosts.lead.number("fedcac-link"),
        0o400,
    )
    hosts.wait_for(lambda: "A renewed certificate is in use." in hosts.log())


def test_the_rules_can_be_carried_out_again_at_work(hosts: TwoHosts, pooled: str) -> None:
    hosts.lead.make_folders()
    hosts.site.make_folders()
    again = str(hosts.lead_verb("round", "launch", PROTOCOL)["round_id"])
    hosts.finish(again)
