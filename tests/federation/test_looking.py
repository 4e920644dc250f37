"""How often rounds are looked at, and what a look costs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import coordinator.rounds.intake as intake_module
from coordinator.rounds.engine import RoundEngine
from coordinator.rounds.pacing import Pace
from coordinator.rounds.views import LaunchPlan
from coordinator.state.store import CoordinatorStore, EnrolledSite
from fedcac.disclosure import FileLedger, load_policy
from fedcac.exchange import MailboxCourier, Spool
from fedcac.phantom import eng_tables, write_tables
from fedcac.protocol.catalogue import load_shipped
from fedcac.signing import PublicKey, SigningKey
from fedcac.vocabulary import SiteName
from site_agent.exams.table_source import TableSource
from site_agent.rounds.agent import SiteAgent
from site_agent.rounds.answering import Answerer
from site_agent.rounds.identity import SiteIdentity
from site_agent.service.loop import AgentService
from site_agent.service.notify import Notifier
from site_agent.settings import SiteFolder
from site_agent.state.store import SiteStore


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_pauses_are_short_after_something_moved_and_grow_to_the_interval() -> None:
    clock = Clock()
    pace = Pace(5.0, clock)
    pauses = []
    for _ in range(60):
        pauses.append(pace.pause(0.0, is_moved=False))
        clock.now += pauses[-1]
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.5
    assert pauses[-1] == 5.0
    assert pace.pause(0.0, is_moved=True) == pauses[0]


@pytest.mark.parametrize(("look_s", "least"), [(0.5, 1.5), (100.0, 5.0)])
def test_looks_that_take_long_do_not_fill_the_processor(look_s: float, least: float) -> None:
    assert Pace(5.0, Clock()).pause(look_s, is_moved=True) == least


def test_an_interval_that_is_shorter_than_every_pause_holds() -> None:
    assert Pace(0.001, Clock()).pause(0.0, is_moved=True) == 0.001


class Round:
    """Eng's round with the sites' agents and the engine in this process."""

    def __init__(self, root: Path) -> None:
        lead = self.lead = SigningKey.generate()
        spools = {}
        self.store = CoordinatorStore("sqlite://")
        self.agents = []
        for path in write_tables(eng_tables(seed=1), root / "tables"):
            key, name = SigningKey.generate(), SiteName(path.stem)
            spools[name] = Spool.in_memory()
            self.store.enrol(EnrolledSite(path.stem, key.public, ""))
            (root / path.stem).mkdir()
            ledger = FileLedger(root / path.stem / "ledger.jsonl")
            self.agents.append(
                SiteAgent(
                    identity=SiteIdentity(path.stem, key, lead.public),
                    spool=spools[name],
                    store=SiteStore(":memory:"),
                    source=TableSource(path),
                    answerer=Answerer(load_policy("open"), ledger, path.read_bytes()[:32]),
                    is_auto_approving=True,
                )
            )
        self.engine = RoundEngine(store=self.store, courier=MailboxCourier(spools), key=lead)
        plan = LaunchPlan(
            sites=tuple(spools),
            minimum_sites=len(spools),
            deadline=datetime.now(UTC) + timedelta(days=1),
            package_digest=None,
            package_files={},
        )
        self.round_id = self.engine.launch(load_shipped("eng2021-nongated"), plan)
        while not self.engine.step(self.round_id).is_finished:
            for agent in self.agents:
                agent.step()


def test_what_was_verified_is_not_verified_again_at_every_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = Round(tmp_path)
    verified = []
    verify = PublicKey.verify

    def counted(key: PublicKey, signature: bytes, message: bytes) -> bool:
        verified.append(key)
        return verify(key, signature, message)

    monkeypatch.setattr(PublicKey, "verify", counted)
    view = done.engine.view(done.round_id)
    assert verified == []
    # A process that starts anew reads every parcel, verifies it, and finds the same.
    fresh = RoundEngine(store=done.store, courier=MailboxCourier({}), key=done.lead)
    assert fresh.view(done.round_id) == view
    assert len(verified) >= 2 * len(view.sites)


def test_a_small_memory_changes_nothing_but_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "_KEPT_BYTES", 1)
    done = Round(tmp_path)
    small = done.engine.view(done.round_id)
    assert len(done.engine._exchanges._intake._opened) == 1
    monkeypatch.undo()
    large = RoundEngine(store=done.store, courier=MailboxCourier({}), key=done.lead)
    assert large.view(done.round_id) == small
    assert large.view(done.round_id) == small
    assert all(site.n_bytes > 1000 for site in small.sites)


class PuttingStopper:
    """Puts a parcel into the inbox while the agent waits, and counts the waits."""

    is_stopping = False

    def __init__(self, inbox: Path) -> None:
        self.inbox = inbox
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        if len(self.waits) == 3:
            (self.inbox / "r-1.offer").write_bytes(b"offer")


def test_a_parcel_is_noticed_long_before_the_next_look(tmp_path: Path) -> None:
    inbox = tmp_path / "spool" / "inbox"
    inbox.mkdir(parents=True)
    stopper = PuttingStopper(inbox)
    service = AgentService(
        SiteFolder(tmp_path),
        stopper,  # type: ignore[arg-type]
        Notifier({}),
        interval_s=3600.0,
        minimum_free_mb=0,
    )
    service._watch_inbox(3600.0)
    assert len(stopper.waits) == 3
    assert sum(stopper.waits) < 5
