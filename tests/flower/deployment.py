"""A consortium on one machine: a SuperLink behind its front, and sites with SuperNodes over TLS.

Every process is the one that a deployment runs, on free ports of 127.0.0.1; only the agents and
the engine are stepped by the caller. Run as a program it is the demonstration of `make
deploy-demo`.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coordinator.__main__ import main as coordinator_main
from coordinator.flower_courier.folder import CourierFolder
from coordinator.folder import CoordinatorFolder
from coordinator.reports.reporting import write_round_report
from coordinator.rounds.views import LaunchPlan, RoundView
from fedcac.disclosure import FileLedger, load_policy
from fedcac.exchange import Spool
from fedcac.protocol import Protocol
from fedcac.protocol.catalogue import load_protocol_or_shipped
from fedcac.signing import PublicKey, SigningKey
from site_agent.exams.table_source import TableSource
from site_agent.flower_courier.pack import pack_courier
from site_agent.rounds.agent import SiteAgent
from site_agent.rounds.answering import Answerer
from site_agent.rounds.identity import SiteIdentity
from site_agent.state.store import SiteStore

if TYPE_CHECKING:
    from flower.namespaces import Network

__all__ = ["HOST", "Deployment", "free_port", "secret_of"]

HOST = "lead.example.org"
"""A name that the certificate holds for and no resolver knows: only a proxy finds it."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def secret_of(name: str) -> bytes:
    return f"secret of {name}".encode()


class Site:
    """One site: its agent in this process, its courier's folder, its node key."""

    def __init__(
        self,
        root: Path,
        name: str,
        table: Path,
        lead: Path,
        policy: str,
        peers: dict[str, PublicKey],
    ) -> None:
        self.name = name
        self.root = root
        self.key = SigningKey.generate()
        self.spool = root / "spool"
        self.courier = root / "courier"
        # Every site knows every other one's key, as a notice would tell it.
        peers[name] = self.key.public
        root.mkdir(parents=True)
        (root / "site.pub").write_text(self.key.public.to_text(), encoding="ascii")
        self.ledger = root / "ledger.jsonl"
        self.agent = SiteAgent(
            identity=SiteIdentity(name, self.key, PublicKey.from_text(lead.read_text()), peers),
            spool=Spool.at(self.spool),
            store=SiteStore(root / "state.sqlite"),
            source=TableSource(table),
            answerer=Answerer(load_policy(policy), FileLedger(self.ledger), secret_of(name)),
            is_auto_approving=True,
        )


class Deployment:
    """Folders and processes of a coordinator and its sites."""

    def __init__(
        self,
        root: Path,
        tables: Mapping[str, Path],
        policy: str = "open",
        network: Network | None = None,
    ) -> None:
        self.root = root
        self.network = network
        root.mkdir(parents=True, exist_ok=True)
        self.home = root / "coordinator"
        self.public_port = network.public_port if network else free_port()
        self.superlink_port = free_port()
        self.address = network.addresses[network.coordinator] if network else "127.0.0.1"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.packed = root / "fedcac-courier.pyz"
        pack_courier(self.packed)
        self.lead_verb(
            *("init", "--host", self.address, "--host", HOST, "--listen", self.address),
            *("--public-port", str(self.public_port)),
            *("--superlink-port", str(self.superlink_port)),
        )
        self.folder = CourierFolder(self.home / "courier")
        peers: dict[str, PublicKey] = {}
        lead = self.home / "keys" / "lead.pub"
        self.sites = {
            name: Site(root / "sites" / name, name, table, lead, policy, peers)
            for name, table in tables.items()
        }
        for site in self.sites.values():
            self.enrol(site)
        self.coordinator = CoordinatorFolder(self.home)
        self.store = self.coordinator.store()

    def enrol(self, site: Site) -> None:
        subprocess.run(
            [
                *(sys.executable, str(self.packed), "--home", str(site.courier)),
                *("init", site.name, "--spool", str(site.spool)),
                *("--superlink", f"{self.address}:{self.public_port}"),
                *("--ca", str(self.folder.root / "ca.crt")),
                *("--coordinator-key", str(self.folder.root / "courier.key.pub")),
                *("--port", str(free_port())),
            ],
            check=True,
            capture_output=True,
        )
        self.lead_verb(
            *("courier", "enrol", site.name, "--key", str(site.root / "site.pub")),
            *("--node-key", str(site.courier / "node.key.pub")),
        )

    def lead_verb(self, *arguments: str) -> dict[str, Any]:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            code = coordinator_main(["--home", str(self.home), *arguments, "--format", "json"])
        if code != 0:
            raise RuntimeError(output.getvalue())
        data: dict[str, Any] = json.loads(output.getvalue())["data"]
        return data

    # processes

    def command(self, name: str) -> list[str]:
        kind, _, site = name.partition(":")
        words = [sys.executable, "-m", "coordinator", "--home", str(self.home), "courier", kind]
        if site:
            home = str(self.sites[site].courier)
            words = [sys.executable, str(self.packed), "--home", home, kind]
        elif kind == "engine":
            words[-2:] = ["engine", "run", "--interval", "0.5"]
        if self.network:
            return self.network.command(site or self.network.coordinator, words)
        return words

    def start(self, name: str) -> None:
        log = self.root / f"{name.replace(':', '-')}.log"
        with log.open("ab") as stream:
            self.processes[name] = subprocess.Popen(
                self.command(name),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
                cwd=Path(__file__).parents[2],
            )

    def log(self, name: str) -> str:
        return (self.root / f"{name.replace(':', '-')}.log").read_text(errors="replace")

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def revive(self) -> None:
        """Do what systemd or a container's restart policy does."""
        for name, process in list(self.processes.items()):
            if process.poll() is not None:
                self.start(name)

    def start_all(self) -> None:
        for name in ("superlink", "front", "run", *(f"run:{site}" for site in self.sites)):
            self.start(name)
        self.wait_for(self.is_healthy, "the SuperLink does not become healthy")
        # A SuperNode that is not registered yet would be turned away and end.
        self.wait_for(lambda: "Connected" in self.log("run"), "the courier does not connect")
        for site in self.sites:
            self.start(f"node:{site}")

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.store.close()

    def wait_for(self, is_reached: Any, complaint: str, limit_s: float = 300.0) -> None:
        end = time.monotonic() + limit_s
        while not is_reached():
            is_dead = any(
                self.processes[name].poll() is not None
                for name in ("superlink", "front", "run")
                if name in self.processes
            )
            if is_dead or time.monotonic() > end:
                logs = {path.name: path.read_text()[-1500:] for path in self.root.glob("*.log")}
                raise TimeoutError(f"{complaint}: {json.dumps(logs, indent=1)}")
            time.sleep(0.2)

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.folder.root / "ca.crt"))

    def is_healthy(self) -> bool:
        if self.network:
            return bool(self.network.call(self.network.coordinator, self._is_healthy))
        return self._is_healthy()

    def _is_healthy(self) -> bool:
        url = f"https://{self.address}:{self.public_port}/health"
        try:
            with urllib.request.urlopen(url, timeout=5, context=self.tls()) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    # a round

    def launch(
        self,
        protocol: str | Protocol,
        package: Mapping[str, bytes] | None = None,
        sites: Sequence[str] = (),
        quorum: int | None = None,
    ) -> str:
        engine = self.coordinator.engine(self.store)
        plan = LaunchPlan(
            sites=tuple(sites or self.sites),
            minimum_sites=quorum or len(sites or self.sites),
            deadline=datetime.now(UTC) + timedelta(days=30),
            package_digest=None,
            package_files=package or {},
            quorum=quorum,
        )
        if isinstance(protocol, str):
            protocol = load_protocol_or_shipped(protocol)
        round_id = engine.launch(protocol, plan)
        engine.step(round_id)
        return round_id

    def step(self, round_id: str) -> RoundView:
        """Let every agent and the engine do what they can do now."""
        for site in self.sites:
            self.step_agent(site)
        return self.coordinator.engine(self.store).step(round_id)

    def step_agent(self, site: str) -> None:
        agent = self.sites[site].agent
        agent.step()
        if agent.problems:
            raise next(iter(agent.problems.values()))

    def finish(self, round_id: str, limit_s: float = 600.0) -> RoundView:
        views = []

        def is_finished() -> bool:
            self.revive()
            views.append(self.step(round_id))
            return views[-1].is_finished

        self.wait_for(is_finished, "the round does not end", limit_s)
        return views[-1]


def _write_tables(root: Path) -> dict[str, Path]:
    import numpy as np

    tables = {}
    for number, name in enumerate(("north", "east", "south", "west"), start=1):
        draw = np.random.default_rng(number)
        n_patients = 60 + 20 * number
        reference = np.where(
            draw.random(n_patients) < 0.35, 0.0, draw.lognormal(4, 1.6, n_patients)
        )
        index = np.where(
            draw.random(n_patients) < 0.05, 0.0, reference * draw.lognormal(0, 0.25, n_patients)
        )
        tables[name] = root / f"{name}.csv"
        with tables[name].open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["patient_id", "index_score", "reference_score"])
            for row in range(n_patients):
                writer.writerow([f"P{row}", round(index[row], 1), round(reference[row], 1)])
    return tables


def main() -> int:
    parser = argparse.ArgumentParser(description="Four sites over Flower on this machine.")
    parser.add_argument("--out", type=Path, required=True, help="output folder; replaced")
    parser.add_argument("--protocol", default="eng2021-nongated")
    arguments = parser.parse_args()
    is_ours = (arguments.out / "deployment").is_dir()
    if arguments.out.exists() and any(arguments.out.iterdir()) and not is_ours:
        parser.error(f"{arguments.out} holds something that is not an earlier output")
    shutil.rmtree(arguments.out, ignore_errors=True)
    arguments.out.mkdir(parents=True)

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    say("Making four sites with generated tables, keys and certificates.")
    deployment = Deployment(
        arguments.out / "deployment", _write_tables(arguments.out), policy="research"
    )
    try:
        say("Starting a SuperLink, its front, the couriers and four SuperNodes.")
        deployment.start_all()
        round_id = deployment.launch(arguments.protocol)
        say(f"Round {round_id} is offered over Flower; this takes about half a minute.")
        view = deployment.finish(round_id)
        write_round_report(view, arguments.out / "report", None)
    finally:
        deployment.stop()
    say(f"Pooled after {view.n_exchanges} exchanges: {arguments.out / 'report' / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
