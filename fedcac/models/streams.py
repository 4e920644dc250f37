"""Exams read ahead of the device: worker processes decode, a bounded number of volumes waits.

A decoder is C code that reads files of unknown origin: in a process of its own it may crash or
hang, and costs one exam. Volumes come back through anonymous memory (memfd), which has no name, no
limit of /dev/shm, and is gone with the processes however they end.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Self, TypeVar

from pydantic import JsonValue

from fedcac.errors import FedcacError
from fedcac.models.transport import Reading, receive, send

__all__ = ["Arrival", "Failure", "ReadAhead", "StreamLimits"]

_Item = TypeVar("_Item")

_CODE = re.compile(r"[a-z_]{1,40}\.[a-z_]{1,40}")


@dataclass(frozen=True)
class StreamLimits:
    """How far reading may run ahead.

    Attributes
    ----------
    n_in_flight
        Most exams between the start of their reading and their release: the bound on memory.
    n_workers
        Processes that read.
    time_limit_s
        An exam that takes longer to read is given up, and its process ended.
    """

    n_in_flight: int = 3
    n_workers: int = 1
    time_limit_s: float = 600.0

    def __post_init__(self) -> None:
        if self.n_in_flight < 1 or self.n_workers < 1 or self.time_limit_s <= 0:
            raise ValueError("limits must be positive")


@dataclass(frozen=True)
class Failure:
    """Why an item could not be read; never a message, which could quote a header or a path.

    `kind` is 'raised', 'died' (the process ended) or 'timed_out'. `code` is the FedcacError's,
    None for any other exception, whose class is `error`.
    """

    kind: str
    error: str = ""
    code: str | None = None


@dataclass(frozen=True, eq=False)
class Arrival(Generic[_Item]):
    """One item with what was read, or the failure in its place. `seconds` is the reading."""

    item: _Item
    value: Reading | None
    failure: Failure | None
    seconds: float


class _Worker:
    """One reading process and what it works on."""

    def __init__(self, context: Any, load: Callable[[Any], Reading]) -> None:
        self.connection, theirs = context.Pipe(duplex=True)
        self._process = context.Process(target=_serve, args=(theirs, load), daemon=True)
        self._process.start()
        theirs.close()
        self.item: Any = None
        self.started: float | None = None

    def begin(self, item: Any) -> None:
        self.item, self.started = item, time.monotonic()
        self.connection.send(item)

    def end(self) -> None:
        """Kill the process: it may hang in C code and hear nothing else."""
        self.connection.close()
        self._process.kill()
        self._process.join()


class ReadAhead(Generic[_Item]):
    """Reads items in worker processes; use it as a context manager.

    Parameters
    ----------
    load
        Reads one item; a function of a module, as it goes to the workers by name.
    limits
        See `StreamLimits`.
    preload
        Modules that a helper process imports once for all workers.
    """

    def __init__(
        self,
        load: Callable[[_Item], Reading],
        limits: StreamLimits,
        *,
        preload: Sequence[str] = (),
    ) -> None:
        self._load = load
        self._limits = limits
        # Never a plain fork: this process has the threads of torch, and their locks.
        methods = multiprocessing.get_all_start_methods()
        is_server = "forkserver" in methods
        self._context = multiprocessing.get_context("forkserver" if is_server else "spawn")
        if is_server and preload:
            self._context.set_forkserver_preload(list(preload))
        self._workers: list[_Worker] = []
        self.n_in_flight = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    @property
    def is_reading(self) -> bool:
        """Whether a worker is at work."""
        return any(worker.started is not None for worker in self._workers)

    def release(self) -> None:
        """Say that one arrival is not needed any more, so that another may be read."""
        self.n_in_flight -= 1

    def arrivals(self, next_item: Callable[[], _Item | None]) -> Iterator[Arrival[_Item]]:
        """Yield items as they are read, until `next_item` has none and none is being read.

        `next_item` is asked only when there is room, at the moment the reading begins. It may have
        items again after it had none, for example one that is to be tried once more. Each arrival
        is held until `release`.

        Raises
        ------
        RuntimeError
            If every place is taken by an arrival that was not released: nothing could go on.
        """
        while True:
            self._fill(next_item)
            busy = [worker for worker in self._workers if worker.started is not None]
            if not busy:
                if self.n_in_flight >= self._limits.n_in_flight:
                    raise RuntimeError("release an arrival before asking for the next")
                return
            for arrival in self._collect(busy):
                # The next series is read while the device works on this one.
                self._fill(next_item)
                yield arrival

    def _fill(self, next_item: Callable[[], _Item | None]) -> None:
        while self.n_in_flight < self._limits.n_in_flight:
            idle = [worker for worker in self._workers if worker.started is None]
            if not idle and len(self._workers) >= self._limits.n_workers:
                return
            item = next_item()
            if item is None:
                return
            worker = idle[0] if idle else _Worker(self._context, self._load)
            if not idle:
                self._workers.append(worker)
            self.n_in_flight += 1
            try:
                worker.begin(item)
            except OSError:
                # It died while it was idle; what it was given is reported with its end.
                continue

    def _collect(self, busy: Sequence[_Worker]) -> Iterator[Arrival[_Item]]:
        now = time.monotonic()
        deadline = min((w.started or now) for w in busy) + self._limits.time_limit_s
        ready = wait([w.connection for w in busy], timeout=max(0.0, deadline - now))
        for worker in busy:
            if worker.connection in ready:
                yield self._receive(worker)
            elif time.monotonic() - (worker.started or now) >= self._limits.time_limit_s:
                yield self._lost(worker, Failure("timed_out"))

    def _receive(self, worker: _Worker) -> Arrival[_Item]:
        try:
            reading, note = receive(worker.connection)
            failure = None if reading is not None else _failure_of(note)
        except (EOFError, OSError, ValueError, TypeError, OverflowError):
            # Ended, or not itself any more.
            return self._lost(worker, Failure("died"))
        return self._arrived(worker, reading, failure)

    def _lost(self, worker: _Worker, failure: Failure) -> Arrival[_Item]:
        self._workers.remove(worker)
        worker.end()
        return self._arrived(worker, None, failure)

    def _arrived(
        self, worker: _Worker, value: Reading | None, failure: Failure | None
    ) -> Arrival[_Item]:
        seconds = time.monotonic() - (worker.started or 0.0)
        item, worker.item, worker.started = worker.item, None, None
        return Arrival(item, value, failure, seconds)


def _end_with_parent() -> None:
    # After kill -9 of the parent a decoder that hangs would never look at its pipe again.
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _serve(connection: Connection, load: Callable[[Any], Reading]) -> None:
    """Read what is asked for until the other side is gone."""
    # Ctrl-C reaches every process of the terminal; the parent alone decides what to do with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            item = connection.recv()
        except (EOFError, OSError):
            return
        reading: Reading | None = None
        note: list[JsonValue] = []
        try:
            reading = load(item)
        except Exception as error:
            note = [type(error).__name__, error.code if isinstance(error, FedcacError) else None]
        try:
            send(connection, reading, note)
        except (BrokenPipeError, ConnectionResetError):
            return


def _failure_of(note: Any) -> Failure:
    """Return the failure of a note; words that are no class or code are not passed on."""
    error, code = note
    is_class = isinstance(error, str) and error.isidentifier()
    is_code = isinstance(code, str) and _CODE.fullmatch(code) is not None
    return Failure("raised", error if is_class else "Exception", code if is_code else None)
