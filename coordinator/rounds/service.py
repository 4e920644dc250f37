"""The engine as a service: one process that moves every open round on, until it is asked to stop.

One round's trouble does not stop another: it is told, with its code, and tried again at the next
look. A second service on the same database does no harm: a round is moved on by one at a time.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from coordinator.folder import CoordinatorFolder
from coordinator.rounds.api import Rounds
from coordinator.rounds.pacing import Pace
from coordinator.state.leases import Lease
from coordinator.state.records import ENDED, OPEN
from coordinator.state.store import CoordinatorStore
from fedcac.errors import FedcacError

__all__ = ["SERVICE_LEASE", "EngineService", "stopping_on_signals"]

SERVICE_LEASE = "service"
"""Held by a service while it runs, so that others can see that rounds are moved on."""


class EngineService:
    """Steps rounds.

    Parameters
    ----------
    say
        Told in a line what changed. Lines hold names of rounds and sites, states and codes.
    """

    def __init__(
        self, folder: CoordinatorFolder, store: CoordinatorStore, say: Callable[[str], None]
    ) -> None:
        self._store = store
        self._rounds = Rounds(folder, store, "engine")
        self._say = say
        self._told: dict[str, str] = {}
        self._over: set[str] = set()
        self._heard: dict[str, object] = {}
        self._is_moved = False

    def step(self, is_stopping: Callable[[], bool] = lambda: False) -> int:
        """Move every round on that has something to do; return how many are open.

        `is_stopping` is asked before each round.
        """
        n_open = 0
        for record in self._store.rounds():
            if is_stopping():
                break
            n_open += record.state in OPEN
            if record.state not in OPEN and record.state not in ENDED:
                continue
            if record.round_id not in self._over:
                self._step_round(record.round_id)
        return n_open

    def run(self, interval_s: float, stop: threading.Event) -> None:
        """Look at least every `interval_s` seconds until `stop` is set; a step is finished.

        Sooner where something moved a moment ago (`coordinator.rounds.pacing`).
        """
        pace = Pace(interval_s)
        with ExitStack() as presence:
            self._run(pace, stop, presence)

    def _run(self, pace: Pace, stop: threading.Event, presence: ExitStack) -> None:
        lease: Lease | None = None
        while not stop.is_set():
            begun = time.monotonic()
            self._is_moved = False
            try:
                if lease is None or lease.is_lost:
                    # Another service may have had it until now.
                    presence.close()
                    lease = presence.enter_context(self._store.leases.hold(SERVICE_LEASE))
                self.step(stop.is_set)
            except Exception as error:
                # The database may come back; only the class, as a text can hold its URL.
                self._tell("", f"The database does not answer ({type(error).__name__}); again.")
            else:
                self._told.pop("", None)
            stop.wait(pace.pause(time.monotonic() - begun, is_moved=self._is_moved))

    def _step_round(self, round_id: str) -> None:
        try:
            status = self._rounds.step(round_id)
        except FedcacError as error:
            self._tell(round_id, f"{round_id}: cannot go on, {error.code}: {error.cure}")
            return
        except Exception as error:
            # A disk that is full, or a fault of ours: the other rounds go on.
            self._tell(round_id, f"{round_id}: cannot go on, {type(error).__name__}; tried again")
            return
        heard = (status.phase, status.open_exchange, *(site.last_contact for site in status.sites))
        self._is_moved |= self._heard.get(round_id) != heard
        self._heard[round_id] = heard
        if status.is_finished and status.state in {state.value for state in ENDED}:
            # Its sites were told by this step; there is nothing to come.
            self._over.add(round_id)
        where = f", exchange {status.open_exchange}" if status.open_exchange else ""
        self._tell(round_id, f"{round_id}: {status.phase}{where}")

    def _tell(self, round_id: str, line: str) -> None:
        if self._told.get(round_id) != line:
            self._told[round_id] = line
            self._say(line)


@contextmanager
def stopping_on_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM and SIGINT set while the block runs."""
    stop = threading.Event()

    def ask(_: int, __: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
