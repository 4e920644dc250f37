"""The same round three ways: in memory, over spool folders, and over TLS with every process.

The third is what `tests/flower/deployment.py` starts (SuperLink, front, couriers, SuperNodes with
node authentication on loopback), with the engine and the agents as processes of their own, as
their services run: what an exchange waits for is part of what is measured.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from coordinator.rounds.engine import RoundEngine
from coordinator.rounds.views import LaunchPlan, RoundView
from coordinator.state.records import EventKind
from coordinator.state.store import CoordinatorStore, EnrolledSite
from fedcac.cli.in_memory import InMemorySite, run_round
from fedcac.disclosure import FileLedger, load_policy
from fedcac.exchange import MailboxCourier, Spool
from fedcac.protocol.catalogue import load_shipped
from fedcac.signing import SigningKey
from fedcac.vocabulary import SiteName
from site_agent.exams.table_source import TableSource
from site_agent.rounds.agent import SiteAgent
from site_agent.rounds.answering import Answerer
from site_agent.rounds.identity import SiteIdentity
from site_agent.settings import SiteFolder, SiteSettings
from site_agent.state.store import SiteStore

# The deployment of the tests is the deployment that is measured.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from flower.deployment import Deployment, Site, free_port

__all__ = [
    "Consortium",
    "Deployment",
    "RoundRun",
    "SpoolConsortium",
    "free_port",
    "in_memory_round",
    "secret_of",
]

POLICY = "open"


@dataclass(frozen=True)
class RoundRun:
    """A finished round: seconds from launch to estimates, from the first request on, its view."""

    seconds: float
    asking_s: float
    view: RoundView


def asking_s(store: CoordinatorStore, round_id: str) -> float:
    """Return the seconds from the first request to the estimates."""
    events = store.events.of(round_id)
    first = next(event.at for event in events if event.what is EventKind.EXCHANGE_SENT)
    return (events[-1].at - first).total_seconds()


def secret_of(name: str) -> bytes:
    """Return the secret that deals a site's patients to groups, the same on every way."""
    return f"secret of {name}".encode()


def plan_of(sites: Sequence[str], files: Mapping[str, bytes] | None = None) -> LaunchPlan:
    """Return a plan that waits for every site."""
    return LaunchPlan(
        sites=tuple(sites),
        minimum_sites=len(sites),
        deadline=datetime.now(UTC) + timedelta(days=1),
        package_digest=None,
        package_files=dict(files or {}),
    )


def in_memory_round(protocol: str, tables: Mapping[str, Path]) -> RoundRun:
    """Run a round with every site in this process and parcels in dictionaries."""
    with tempfile.TemporaryDirectory() as scratch:
        sites = [
            InMemorySite(
                name=name,
                source=TableSource(table),
                store=SiteStore(":memory:"),
                ledger_path=Path(scratch) / name / "ledger.jsonl",
                secret=secret_of(name),
            )
            for name, table in tables.items()
        ]
        start = time.perf_counter()
        view = run_round(load_shipped(protocol), sites, load_policy(POLICY), SigningKey.generate())
        seconds = time.perf_counter() - start
        return RoundRun(seconds, seconds, view)


class SpoolConsortium:
    """An engine and its agents in this process, every parcel and database on disk."""

    def __init__(self, root: Path, tables: Mapping[str, Path]) -> None:
        lead, self._names = SigningKey.generate(), tuple(tables)
        root.mkdir(parents=True)
        self.store = CoordinatorStore(f"sqlite:///{root / 'coordinator.sqlite'}")
        rules = load_policy(POLICY).model_copy(update={"review": "auto"})
        spools, self.agents = {}, {}
        self._site_stores: list[SiteStore] = []
        for name, table in tables.items():
            folder, key = root / name, SigningKey.generate()
            spools[SiteName(name)] = Spool.at(folder / "spool")
            self.store.enrol(EnrolledSite(name, key.public, str(folder / "spool")))
            ledger = FileLedger(folder / "ledger.jsonl")
            self._site_stores.append(SiteStore(folder / "state.sqlite"))
            self.agents[name] = SiteAgent(
                identity=SiteIdentity(name, key, lead.public),
                spool=spools[SiteName(name)],
                store=self._site_stores[-1],
                source=TableSource(table),
                answerer=Answerer(rules, ledger, secret_of(name)),
                is_auto_approving=True,
            )
        self.engine = RoundEngine(store=self.store, courier=MailboxCourier(spools), key=lead)
        self.engine_seconds: list[float] = []
        self.agent_seconds: list[float] = []

    def run(self, protocol: str) -> RoundRun:
        """Run a round to its end; keeps the processor's seconds of every step."""
        start = time.perf_counter()
        round_id = self.engine.launch(load_shipped(protocol), plan_of(self._names))
        view = self.step(round_id)
        while not view.is_finished:
            begun = time.process_time()
            for agent in self.agents.values():
                agent.step()
                if agent.problems:
                    raise next(iter(agent.problems.values()))
            self.agent_seconds.append(time.process_time() - begun)
            view = self.step(round_id)
        seconds = time.perf_counter() - start
        return RoundRun(seconds, asking_s(self.store, round_id), view)

    def step(self, round_id: str) -> RoundView:
        """Let the engine do what is due; keeps the processor's seconds."""
        begun = time.process_time()
        view = self.engine.step(round_id)
        self.engine_seconds.append(time.process_time() - begun)
        return view

    def close(self) -> None:
        """Close every database."""
        self.store.close()
        for store in self._site_stores:
            store.close()


class Consortium(Deployment):
    """A deployment whose engine and agents are processes too.

    Parameters
    ----------
    tables
        Per protocol each site's table; the sites are the same in all.
    """

    def __init__(self, root: Path, tables: Mapping[str, Mapping[str, Path]]) -> None:
        super().__init__(root, next(iter(tables.values())), policy=POLICY)
        self._tables = tables
        for site in self.sites.values():
            self._make_folder(site)

    def _make_folder(self, site: Site) -> None:
        folder = SiteFolder(site.root)
        folder.key_path.parent.mkdir(parents=True)
        site.key.save(folder.key_path)
        (folder.key_path.parent / "pseudonym.secret").write_bytes(secret_of(site.name))
        (site.root / "policy.yaml").write_text(
            yaml.safe_dump(
                load_policy(POLICY).model_copy(update={"review": "auto"}).model_dump(mode="json")
            ),
            encoding="utf-8",
        )
        settings = SiteSettings(
            name=site.name,
            lead_key=(self.home / "keys" / "lead.pub").read_text(encoding="ascii").strip(),
            policy="policy.yaml",
            approval="auto",
        )
        folder.settings_path.write_text(
            yaml.safe_dump(settings.model_dump(mode="json")), encoding="utf-8"
        )

    def command(self, name: str) -> list[str]:
        """Return a process's command line; its own interval is what the verb has by default."""
        kind, _, site = name.partition(":")
        if kind == "agent":
            tables = [f"{protocol}={of[site]}" for protocol, of in self._tables.items()]
            root = str(self.sites[site].root)
            return [sys.executable, "-m", "benchmarks.table_agent", root, *tables]
        if kind == "engine":
            return [sys.executable, "-m", "coordinator", "--home", str(self.home), "engine", "run"]
        return super().command(name)

    def start_all(self, pause_s: float = 0.5) -> float:
        """Start everything, the sites one after another; return the seconds until all are up."""
        start = time.perf_counter()
        for name in ("superlink", "front", "run", "engine"):
            self.start(name)
        self.wait_for(self.is_healthy, "the SuperLink does not become healthy")
        self.wait_for(lambda: "Connected" in self.log("run"), "the courier does not connect")
        for site in self.sites:
            for kind in ("run", "agent", "node"):
                self.start(f"{kind}:{site}")
                time.sleep(pause_s)
        self.wait_for(self._all_online, "a SuperNode does not come up", 240.0)
        return time.perf_counter() - start

    def _all_online(self) -> bool:
        # A SuperNode names itself in its log once the SuperLink has taken it.
        return all("SuperNode ID" in self.log(f"node:{site}") for site in self.sites)

    def launch_round(self, protocol: str, files: Mapping[str, bytes] | None = None) -> str:
        """Store a draft; the engine's process does the rest."""
        engine = self.coordinator.engine(self.store)
        return engine.launch(load_shipped(protocol), plan_of(tuple(self.sites), files))

    def run(self, protocol: str, limit_s: float = 400.0) -> RoundRun:
        """Run a round to its end."""
        start = time.perf_counter()
        round_id = self.launch_round(protocol)
        open_states = {"draft", "offered", "answering"}
        self.wait_for(
            lambda: self.store.round(round_id).state.value not in open_states,
            "the round does not end",
            limit_s,
        )
        seconds = time.perf_counter() - start
        view = self.coordinator.engine(self.store).view(round_id)
        return RoundRun(seconds, asking_s(self.store, round_id), view)

    def times_of(
        self, round_id: str
    ) -> tuple[dict[int, float], dict[int, float], dict[tuple[str, int], float]]:
        """Return when each exchange was sent and closed, and when each site's reply was taken in.

        Seconds of the clock that files have, by exchange, and by site and exchange.
        """
        sent: dict[int, float] = {}
        closed: dict[int, float] = {}
        replied: dict[tuple[str, int], float] = {}
        for event in self.store.events.of(round_id):
            exchange, at = event.detail.get("exchange"), event.at.timestamp()
            if not isinstance(exchange, int):
                continue
            if event.what is EventKind.EXCHANGE_SENT:
                sent[exchange] = at
            elif event.what is EventKind.EXCHANGE_CLOSED:
                closed[exchange] = at
            elif event.what is EventKind.REPLIED and event.site:
                replied[event.site, exchange] = at
        return sent, closed, replied
