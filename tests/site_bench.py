"""A site on disk and the lead that asks it, signed by hand: no coordinator, no network, no torch.

The exams are scored by the real queue over the site's database, with a function that costs nothing,
so that a process can be killed at every single write of a round.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from fedcac.aggregate import FlowStage
from fedcac.disclosure import FileLedger, load_policy
from fedcac.exams import Exams
from fedcac.exchange import Offer, Reply, Request, Spool, parcel_name
from fedcac.protocol import Protocol
from fedcac.protocol.catalogue import load_shipped
from fedcac.protocol.signing import seal_protocol
from fedcac.signing import SigningKey, trusted
from fedcac.statistics import PoolingSession
from fedcac.vocabulary import SiteName
from site_agent.exams.cohort import ExamSource, FrozenCohort, flow_of
from site_agent.exams.scoring_queue import IndexExam, ScoringQueue
from site_agent.rounds.agent import SiteAgent
from site_agent.rounds.answering import Answerer
from site_agent.rounds.identity import SiteIdentity
from site_agent.settings import SiteFolder, SiteSettings, create_site_folder
from site_agent.state.store import SiteStore

NAME = "duke"
START = datetime(2026, 1, 1, tzinfo=UTC)
PACKAGE, PROFILE = "sha256:" + "0" * 64, "test"


class CountedSource(ExamSource):
    """Scores made-up exams through the queue; what it is asked of each is written to a file."""

    needs_package = False

    def __init__(self, store: SiteStore, n_exams: int, journal: Path) -> None:
        self._store = store
        self._n_exams = n_exams
        self._journal = journal

    def collect(
        self, protocol: Protocol, package: object, reference: object = None
    ) -> FrozenCohort:
        from site_agent.exams.exam_pipeline import ExamScore

        def score(series: Path) -> ExamScore:
            with self._journal.open("a", encoding="ascii") as stream:
                stream.write(series.name + "\n")
            return ExamScore(total=7.0 * int(series.name[1:]), vessels={})

        names = [f"p{number:03d}" for number in range(self._n_exams)]
        records = ScoringQueue(self._store, PACKAGE, PROFILE, score).run(
            IndexExam(exam_key=name, series=Path(name)) for name in names
        )
        totals = np.array([records[name].total for name in names], dtype=float)
        columns = {"index_score": totals, "reference_score": totals[::-1].copy()}
        counts = dict.fromkeys(FlowStage, self._n_exams)
        return FrozenCohort(Exams(columns=columns, keys=tuple(names)), flow_of(counts, Counter()))


@dataclass
class Bench:
    """One site's folder and the lead's key. `now` is the site's clock, and the lead's."""

    root: Path
    approval: str = "manual"
    policy: str = "open"
    n_exams: int = 4
    now: datetime = START
    lead: SigningKey = field(default_factory=SigningKey.generate)
    protocol: Protocol = field(default_factory=lambda: load_shipped("eng2021-nongated"))

    def __post_init__(self) -> None:
        create_site_folder(
            self.root / "site",
            SiteSettings.model_validate(
                {
                    "name": NAME,
                    "lead_key": self.lead.public.to_text(),
                    "policy": self.policy,
                    "approval": self.approval,
                }
            ),
        )

    @property
    def folder(self) -> SiteFolder:
        return SiteFolder(self.root / "site")

    @property
    def journal(self) -> Path:
        return self.root / "scored.txt"

    @property
    def spool(self) -> Spool:
        return Spool.at(self.folder.spool_path)

    def offer(self, round_id: str, lead: SigningKey | None = None, **changes: Any) -> None:
        """Put an offer and its protocol into the inbox, as a courier would."""
        key = lead or self.lead
        offer = Offer(
            round_id=round_id,
            issued_at=self.now,
            protocol_id=self.protocol.id,
            protocol_version=self.protocol.version,
            protocol_digest=self.protocol.digest(),
            package_digest=None,
            sites=(NAME,),
            expires_at=self.now + timedelta(days=30),
        ).model_copy(update=changes)
        inbox = self.spool.inbox
        inbox.put(parcel_name(round_id, "protocol"), seal_protocol(self.protocol, key))
        inbox.put(parcel_name(round_id, "offer"), offer.seal(key))

    def request(self, round_id: str, exchange: int = 1, **changes: Any) -> bytes:
        """Return a signed request for what every analysis asks first."""
        session = PoolingSession(self.protocol, [SiteName(NAME)])
        return (
            Request(
                round_id=round_id,
                issued_at=self.now,
                exchange=exchange,
                protocol_digest=self.protocol.digest(),
                expires_at=self.now + timedelta(days=1),
                queries=dict(session.queries),
            )
            .model_copy(update=changes)
            .seal(self.lead)
        )

    def ask(self, round_id: str, exchange: int = 1, **changes: Any) -> None:
        """Put a request into the inbox."""
        name = parcel_name(round_id, "request", exchange)
        self.spool.inbox.put(name, self.request(round_id, exchange, **changes))

    @contextmanager
    def agent(self, **options: Any) -> Iterator[SiteAgent]:
        """Open the folder as the running agent does, with made-up exams."""
        settings = self.folder.settings()
        store = SiteStore(self.folder.database_path)
        name = settings.policy
        policy = load_policy(name if name in ("research", "cms", "open") else Path(name))
        try:
            yield SiteAgent(
                identity=SiteIdentity(
                    NAME, SigningKey.load(self.folder.key_path), self.lead.public
                ),
                spool=self.spool,
                store=store,
                source=CountedSource(store, self.n_exams, self.journal),
                answerer=Answerer(
                    policy, FileLedger(self.folder.ledger_path), self.folder.secret()
                ),
                is_auto_approving=self.approval == "auto",
                clock=lambda: self.now,
                **options,
            )
        finally:
            store.close()

    # what is there afterwards

    def outbox(self) -> dict[str, bytes]:
        outbox = self.spool.outbox
        return {name: outbox.get(name) or b"" for name in outbox.names()}

    def reply(self, round_id: str, exchange: int = 1) -> Reply:
        payload = self.outbox()[parcel_name(round_id, "reply", exchange)]
        key = SigningKey.load(self.folder.key_path).public
        return Reply.open(payload, trusted([key]))[0]

    def completions(self) -> Counter[int]:
        """Return how many exams were stored how often."""
        with sqlite3.connect(self.folder.database_path) as connection:
            rows = connection.execute("SELECT completions FROM exams").fetchall()
        connection.close()
        return Counter(row[0] for row in rows)

    def states(self) -> dict[str, str]:
        store = SiteStore(self.folder.database_path)
        try:
            return {record.round_id: record.state.value for record in store.rounds()}
        finally:
            store.close()

    def ledger_keys(self) -> list[tuple[str, int, str]]:
        """Return (round, exchange, analysis) of everything that the ledger says left or not."""
        ledger = FileLedger(self.folder.ledger_path)
        ledger.verify()
        return [(entry.round_id, entry.exchange, entry.analysis) for entry in ledger.entries]


def killed_at(number: int, work: Callable[[], None]) -> bool:
    """Run `work` in a child that is killed (SIGKILL) at its write of this number; say if it was.

    A write is what a crash can tear apart: a sync to disk, a rename, or a database statement.
    """
    child = os.fork()
    if child == 0:
        try:
            _kill_at(number)
            work()
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the work failed by itself"
    return False


def _kill_at(number: int) -> None:
    left = number

    def count(_: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    watch_writes(count)


def watch_writes(count: Callable[[str], None]) -> Callable[[], None]:
    """Call `count` before every write, with "file" or "database"; return what ends that."""
    genuine_sync, genuine_replace, connect = os.fsync, os.replace, sqlite3.connect

    def sync(descriptor: Any) -> None:
        count("file")
        genuine_sync(descriptor)

    def replace(*names: Any) -> None:
        count("file")
        genuine_replace(*names)

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            if statement.split(" ", 1)[0] in ("INSERT", "UPDATE", "COMMIT", "DELETE"):
                count("database")
            return super().execute(statement, *values)

    def connected(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return connect(*arguments, factory=Connection, **options)

    os.fsync, os.replace, sqlite3.connect = sync, replace, connected  # type: ignore[assignment]

    def end() -> None:
        os.fsync, os.replace, sqlite3.connect = genuine_sync, genuine_replace, connect

    return end
