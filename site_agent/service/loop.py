"""The loop of a running agent: look, do what can be done, say how it stands, wait."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from fedcac.console import heard_by
from fedcac.errors import FedcacError, IntegrityError, ResourceError
from site_agent.faults import as_problem, disk_full
from site_agent.opening import opened
from site_agent.rounds.agent import SiteAgent
from site_agent.service.logs import log_event
from site_agent.service.notify import Notifier, Pulse
from site_agent.service.stopping import InterruptibleSource, Stopper, StopRequested
from site_agent.settings import SiteFolder
from site_agent.state.store import SiteStore
from site_agent.status.standing import AgentNote, Progress, Standing, write_note
from site_agent.status.standing_reader import StandingReader, problem_note, standing_path
from site_agent.status.standing_words import progress_words

__all__ = ["LONGEST_PAUSE_S", "AgentService"]

LONGEST_PAUSE_S = 300.0
"""Repeated faults are looked at again after growing pauses, up to this one."""

_MB = 2**20
_NOTE_EVERY_S = 2.0
# A parcel is noticed so soon; everything else that may change is looked at every interval.
_INBOX_LOOK_S = 0.25
_PULSE_LIMIT_S = 1800.0

_ExamKey = tuple[str, str, str]


class AgentService:
    """Runs one site's agent until it is told to stop.

    Parameters
    ----------
    folder
        The site's folder; its lock is held by the caller.
    interval_s
        Seconds between two looks at the inbox.
    minimum_free_mb
        With less room on a disk the agent pauses before it begins anything.
    tell
        Called with the standing whenever it has changed, for a person at a terminal.
    """

    def __init__(
        self,
        folder: SiteFolder,
        stopper: Stopper,
        notifier: Notifier,
        *,
        interval_s: float,
        minimum_free_mb: int,
        tell: Callable[[Standing], None] = lambda _: None,
    ) -> None:
        self._folder = folder
        self._stopper = stopper
        self._notifier = notifier
        self._interval_s = interval_s
        self._minimum_free_mb = minimum_free_mb
        self._tell = tell
        self._reader = StandingReader(folder)
        self._since = datetime.now(UTC)
        self._pulse = Pulse(_PULSE_LIMIT_S)
        self._left: frozenset[_ExamKey] = frozenset()
        self._problems: dict[str, FedcacError] = {}
        self._problem: FedcacError | None = None
        self._progress: Progress | None = None
        self._noted = 0.0
        self._n_faults = 0
        self._told: dict[str, object] = {}

    def run(self) -> None:
        """Work until a signal comes; every fault is a problem with a pause, and never the end.

        Raises
        ------
        FedcacError
            If the folder cannot be opened at the very start: settings, keys, policy or ledger.
        """
        self._notifier.watch(self._pulse.is_beating)
        is_first = True
        with heard_by(self):
            while not self._stopper.is_stopping:
                try:
                    self._session()
                except StopRequested:
                    log_event("interrupted", "exams under way are begun anew at the next start")
                except Exception as error:
                    problem = as_problem(error)
                    if is_first and not isinstance(problem, ResourceError):
                        raise problem from error
                    self._problem = problem
                    self._pause(problem)
                is_first = False
            self._notifier.stopping()
            self._take_back()
            self._note("stopped", 0.0)
            log_event("stopped")

    # one opening of the folder

    def _session(self) -> None:
        """Step until a fault of the machine, after which everything is opened anew.

        What an open ledger or database has in memory may differ from the disk then.
        """
        self._check_room()
        self._take_back()
        with opened(
            self._folder.root,
            is_stopping=lambda: self._stopper.is_stopping,
            guard=lambda source: InterruptibleSource(source, self._stopper),
        ) as (agent, store):
            self._notifier.ready("looks at the inbox")
            log_event("started", process=os.getpid())
            try:
                while not self._stopper.is_stopping:
                    self._check_room()
                    self._step(agent)
            finally:
                self._left |= store.exams_under_way

    def _step(self, agent: SiteAgent) -> None:
        self._pulse.beat()
        self._note("working", 0.0)
        is_changed = agent.step()
        self._progress, self._problem = None, None
        self._problems = dict(agent.problems)
        ends = [p for p in self._problems.values() if isinstance(p, ResourceError | IntegrityError)]
        if ends and not self._stopper.is_stopping:
            raise ends[0]
        self._n_faults = self._n_faults + 1 if self._problems and not is_changed else 0
        if not is_changed:
            self._wait(self._delay())

    def _check_room(self) -> None:
        free_mb = min(
            shutil.disk_usage(path).free // _MB
            for path in (self._folder.root, self._folder.spool_path)
            if path.exists()
        )
        if free_mb < self._minimum_free_mb:
            raise disk_full(free_mb)

    def _take_back(self) -> None:
        """Take back the attempts at exams that a stop or a fault interrupted."""
        if not self._left:
            return
        try:
            with closing(SiteStore(self._folder.database_path)) as store:
                store.abandon_exams(self._left)
            self._left = frozenset()
        except Exception as error:
            log_event("not_taken_back", level=logging.WARNING, code=as_problem(error).code)

    # pauses

    def _delay(self) -> float:
        longer = self._interval_s * 2.0 ** min(self._n_faults, 10)
        return min(longer, max(LONGEST_PAUSE_S, self._interval_s))

    def _pause(self, problem: FedcacError) -> None:
        self._n_faults += 1
        self._progress = None
        log_event("paused", level=logging.ERROR, code=problem.code, seconds=self._delay())
        # A service that waits for room has started: systemd must not end it for being slow.
        self._notifier.ready(f"paused: {problem.code}")
        is_room = isinstance(problem, ResourceError) and problem.code == "resource.disk_full"
        # Room is looked for at every interval: measuring it costs nothing and writes nothing.
        self._wait(self._interval_s if is_room else self._delay(), state="paused")

    def _wait(self, seconds: float, state: str = "waiting") -> None:
        """Wait, but begin at once when something to look at has changed."""
        before = self._surroundings()
        end = time.monotonic() + seconds
        while not self._stopper.is_stopping:
            left = end - time.monotonic()
            self._pulse.beat()
            self._note(state, max(0.0, left))
            if left <= 0:
                return
            self._watch_inbox(min(left, self._interval_s))
            if self._surroundings() != before:
                self._n_faults = 0
                return

    def _watch_inbox(self, seconds: float) -> None:
        """Wait, but no longer than until a parcel comes."""
        inbox = self._folder.spool_path / "inbox"
        before = _stamp(inbox)
        end = time.monotonic() + seconds
        while not self._stopper.is_stopping and _stamp(inbox) == before:
            left = end - time.monotonic()
            if left <= 0:
                return
            self._stopper.wait(min(left, _INBOX_LOOK_S))

    def _surroundings(self) -> tuple[object, ...]:
        """Return what a person or a courier changes: parcels, settings, tables, decisions."""
        folder = self._folder
        paths = [
            folder.settings_path,
            folder.spool_path / "inbox",
            folder.database_path,
            folder.database_path.with_name(folder.database_path.name + "-wal"),
            folder.peers_path,
        ]
        try:
            settings = folder.settings()
            tables = (settings.manifest, settings.clinical_table, settings.scored_table)
            paths += [folder.resolve(name) for name in tables if name is not None]
        except FedcacError:
            paths.append(folder.root)
        return tuple(_stamp(path) for path in paths)

    # what is said

    def said(self, message: str) -> None:
        """Hear what the work tells a person."""
        log_event("note", message)

    def advanced(self, description: str, finished: int, total: int) -> None:
        """Hear how far long work is; end it if a signal came."""
        self._pulse.beat()
        now = datetime.now(UTC)
        before = self._progress
        is_new = before is None or before.description != description or finished == 0
        started_at = now if before is None or is_new else before.started_at
        seconds = (now - started_at).total_seconds()
        rate = 60 * finished / seconds if finished and seconds > 0 else None
        self._progress = Progress(
            description=description,
            finished=finished,
            total=total,
            started_at=started_at,
            rate_per_minute=rate,
            remaining_s=60 * (total - finished) / rate if rate else None,
        )
        if finished % max(1, total // 10) == 0:
            log_event("progress", description, finished=finished, total=total)
        if is_new or finished == total or time.monotonic() - self._noted > _NOTE_EVERY_S:
            self._note("working", 0.0)
        self._stopper.check()

    def _note(self, state: str, next_look_s: float) -> None:
        self._noted = time.monotonic()
        now = datetime.now(UTC)
        agent = AgentNote.model_validate(
            {
                "state": state,
                "process": os.getpid(),
                "since": self._since,
                "at": now,
                "next_look_s": next_look_s,
            }
        )
        try:
            standing = self._reader.read(
                agent=agent,
                progress=self._progress,
                problems={name: problem_note(error) for name, error in self._problems.items()},
                problem=problem_note(self._problem) if self._problem else None,
            )
        except Exception as error:
            log_event("not_noted", level=logging.WARNING, code=as_problem(error).code)
            return
        write_note(standing_path(self._folder), standing)
        self._tell(standing)
        self._notifier.status(progress_words(self._progress) if self._progress else state)
        self._log_changes(standing)

    def _log_changes(self, standing: Standing) -> None:
        now: dict[str, object] = {}
        for note in standing.rounds:
            code = note.problem.code if note.problem else None
            now[note.round_id] = (note.state, note.refusal, note.answered, code)
        now |= {f"{held.round_id} {held.exchange}": held.digest for held in standing.held}
        for name, what in now.items():
            if self._told.get(name) == what:
                continue
            if isinstance(what, tuple):
                _log_round(name, *what)
            else:
                round_id, _, exchange = name.partition(" ")
                log_event("held", round_id=round_id, exchange=exchange, digest=what)
        self._told = now


def _log_round(
    round_id: str, state: str, refusal: str | None, answered: int, code: str | None
) -> None:
    level = logging.WARNING if code else logging.INFO
    facts = {"refusal": refusal, "problem": code}
    known = {name: fact for name, fact in facts.items() if fact}
    log_event("round", level=level, round_id=round_id, state=state, answered=answered, **known)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size
