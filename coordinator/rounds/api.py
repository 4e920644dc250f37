"""What can be done with rounds: the interface for command lines, a service and a dashboard.

Nothing here prints, waits for a terminal, or needs the network. A dashboard opens the coordinator's
folder and works on the same database as the engine's service (`fedcac-coordinator engine run`)::

    from coordinator.rounds.api import Rounds

    with Rounds.open(home, actor="lead@example.org") as rounds:
        for summary in rounds.list():              # one line per round
            print(summary.round_id, summary.phase)
        round_id = rounds.launch(protocol, LaunchPlan(...))   # stored as a draft
        status = rounds.status(round_id)           # RoundStatus: sites, deadlines, what to do next
        rounds.retry(round_id, Retry(sites=("north",), reason="scanner was down"))
        rounds.close(round_id)
        rounds.events(round_id)                    # who did what, and when
        rounds.export(round_id, path)              # one archive

`launch`, `retry`, `close` and `cancel` write to the store and return at once; the service's next
step sends what follows. `step` does so in this process. Every method may be called by several
processes at once: a round that another process is moving is left alone, and whoever must change it
gets RoundError `round_busy`. Views are frozen dataclasses; `RoundStatus.to_dict` is their JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue

from coordinator.folder import CoordinatorFolder, opened
from coordinator.reports.archive import write_archive
from coordinator.reports.releases import seals_of
from coordinator.reports.reporting import write_round_report
from coordinator.rounds.editions import Retry
from coordinator.rounds.engine import RoundEngine
from coordinator.rounds.status import RoundStatus, RoundSummary, status_of, summary_of
from coordinator.rounds.views import LaunchPlan, RoundView
from coordinator.state.records import EditionRecord, Event, EventKind
from coordinator.state.store import CoordinatorStore
from fedcac.errors import RoundError, UsageError
from fedcac.protocol import Protocol
from fedcac.report import ReportFormats

__all__ = [
    "EditionRecord",
    "Event",
    "LaunchPlan",
    "Retry",
    "RoundStatus",
    "RoundSummary",
    "Rounds",
]


class Rounds:
    """The rounds of one coordinator.

    Parameters
    ----------
    folder, store
        The coordinator's folder and its open database.
    actor
        Who acts, for the events: a person's name or address.
    """

    def __init__(
        self, folder: CoordinatorFolder, store: CoordinatorStore, actor: str = "lead"
    ) -> None:
        self._folder = folder
        self._store = store
        self._actor = actor
        self._engine_for: tuple[tuple[str, ...], RoundEngine] | None = None

    @classmethod
    @contextmanager
    def open(cls, home: Path, actor: str = "lead") -> Iterator[Rounds]:
        """Open a coordinator's folder; its database is closed at the end of the block."""
        with opened(home) as (folder, store):
            yield cls(folder, store, actor)

    @property
    def engine(self) -> RoundEngine:
        """The engine over the sites that are enrolled now."""
        sites = tuple(sorted(self._store.members()))
        if self._engine_for is None or self._engine_for[0] != sites:
            self._engine_for = sites, self._folder.engine(self._store)
        return self._engine_for[1]

    # reading

    def list(self) -> tuple[RoundSummary, ...]:
        """Return one line per round, oldest first."""
        return tuple(
            summary_of(self.engine.view(record.round_id)) for record in self._store.rounds()
        )

    def status(self, round_id: str) -> RoundStatus:
        """Return a round in detail, from the store alone; RoundError `unknown_round`."""
        return status_of(self.engine.view(round_id), datetime.now(UTC))

    def view(self, round_id: str, edition: int | None = None) -> RoundView:
        """Return everything known of a round's newest edition, or of an earlier one."""
        return self.engine.view(round_id, edition)

    def events(self, round_id: str | None = None, after: int = 0) -> tuple[Event, ...]:
        """Return the events of a round, or of all; those after a number only, to follow them."""
        if round_id is not None:
            self._store.round(round_id)
        return self._store.events.of(round_id, after)

    # acting

    def check_launch(self, protocol: Protocol, plan: LaunchPlan) -> None:
        """Raise what `launch` would raise, and store nothing: for a preview."""
        self.engine.check_launch(protocol, plan)

    def launch(self, protocol: Protocol, plan: LaunchPlan) -> str:
        """Store a signed draft and return its id; errors are those of `RoundEngine.launch`.

        It is noted under this object's actor, whatever the plan says.
        """
        return self.engine.launch(protocol, replace(plan, actor=self._actor))

    def step(self, round_id: str) -> RoundStatus:
        """Move a round on in this process and return it."""
        return status_of(self.engine.step(round_id), datetime.now(UTC))

    def retry(self, round_id: str, retry: Retry) -> EditionRecord:
        """Begin a later edition with late sites; errors are those of `RoundEngine.retry`.

        It is noted under this object's actor, whatever `retry` says.
        """
        return self.engine.retry(round_id, replace(retry, actor=self._actor))

    def close(self, round_id: str) -> RoundStatus:
        """Freeze a round and tell its sites; errors are those of `RoundEngine.close`."""
        return status_of(self.engine.close(round_id, self._actor), datetime.now(UTC))

    def cancel(self, round_id: str, reason: str = "") -> RoundStatus:
        """End a round before it is pooled; errors are those of `RoundEngine.cancel`."""
        return status_of(self.engine.cancel(round_id, self._actor, reason), datetime.now(UTC))

    # giving out

    def write_report(
        self,
        round_id: str,
        out: Path,
        formats: ReportFormats | None = None,
        edition: int | None = None,
    ) -> None:
        """Write the output folder of a pooled round, or of an earlier edition.

        Raises
        ------
        UsageError
            If the edition was not pooled (`round_not_pooled`), and as
            `coordinator.reports.reporting.write_round_report`.
        """
        view = self._pooled(round_id, edition)
        seals = seals_of(self._store, self._folder.key(), round_id)
        package = self.engine.package_manifest(round_id)
        write_round_report(view, out, package, seals, formats)
        self._note(EventKind.REPORT_WRITTEN, round_id, {"edition": view.record.edition})

    def export(self, round_id: str, path: Path, *, with_package: bool = False) -> None:
        """Write one archive of an ended round (`coordinator.reports.archive`).

        Raises
        ------
        RoundError
            If the round still runs (`round_running`).
        UsageError
            If something lies at `path` already (`archive_exists`).
        """
        view = self.engine.view(round_id)
        if view.is_open:
            raise RoundError(
                f"Round {round_id} is {view.phase}: its archive would not be whole.",
                code="round_running",
                cure="Wait for it, or end it with `fedcac-coordinator round cancel`.",
            )
        write_archive(
            view,
            path,
            self._store,
            package=self.engine.package_manifest(round_id),
            seals=seals_of(self._store, self._folder.key(), round_id),
            with_package=with_package,
        )
        self._note(EventKind.EXPORTED, round_id, {"edition": view.record.edition})

    def _pooled(self, round_id: str, edition: int | None) -> RoundView:
        view = self.engine.view(round_id, edition)
        if not view.is_pooled:
            raise UsageError(
                f"Round {round_id} is {view.phase}, not pooled.",
                code="round_not_pooled",
                cure="Wait for it with `fedcac-coordinator round wait`.",
            )
        return view

    def _note(self, what: EventKind, round_id: str, detail: dict[str, JsonValue]) -> None:
        self._store.events.add(Event(datetime.now(UTC), self._actor, what, round_id, detail=detail))
