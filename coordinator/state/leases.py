"""Leases: of several engine processes on one database, one moves a round on.

A lease is a row with its holder and the time at which it ends. Its holder beats while it works; one
that was killed is followed by another when its time is up, or at once if it ran on the same
machine and is seen to be gone.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError as DatabaseIntegrityError
from sqlalchemy.exc import OperationalError

from coordinator.state.records import to_naive
from coordinator.state.schema import LEASES
from fedcac.errors import RoundError

__all__ = ["LEASE_S", "Lease", "Leases"]

LEASE_S = 60.0
"""Seconds after which a silent holder on another machine is followed."""

_BEATS = 4
_RETRY_S = 0.05


def _machine() -> str:
    # Two containers may share a host's name, but not its numbers of processes.
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        space = 0
    return f"{socket.gethostname()}/{space}"


class Lease:
    """One held lease; `check` says whether it still is."""

    def __init__(self) -> None:
        self.is_lost = False

    def check(self) -> None:
        """Raise RoundError `lease_lost` if another process has taken over."""
        if self.is_lost:
            raise RoundError(
                "Another process has taken this round over.",
                code="lease_lost",
                cure="Nothing is lost; this machine was asleep or its clock was set. Go on there.",
            )


class Leases:
    """Takes and gives back leases.

    Parameters
    ----------
    is_shared
        False for a database in memory, which no other process can open: then leases are free.
    seconds
        How long a lease holds without a beat.
    """

    def __init__(self, engine: Engine, *, is_shared: bool, seconds: float = LEASE_S) -> None:
        self._engine = engine.execution_options(writes=True)
        self._is_shared = is_shared
        self._seconds = seconds
        self._machine = _machine()
        self._mark = secrets.token_hex(6)

    @contextmanager
    def hold(self, name: str, wait_s: float = 0.0) -> Iterator[Lease | None]:
        """Hold a lease while the block runs; yield None if another holds it for `wait_s`."""
        lease = Lease()
        if not self._is_shared:
            yield lease
            return
        # Threads of one process exclude one another too.
        holder = f"{self._machine}:{os.getpid()}:{self._mark}{secrets.token_hex(4)}"
        end = time.monotonic() + wait_s
        while not self._take(name, holder):
            if time.monotonic() >= end:
                yield None
                return
            time.sleep(_RETRY_S)
        over = threading.Event()
        beat = threading.Thread(target=self._beat, args=(name, holder, lease, over), daemon=True)
        beat.start()
        try:
            yield lease
        finally:
            over.set()
            beat.join()
            self._give_back(name, holder)

    def holder(self, name: str) -> str | None:
        """Return who holds a lease now, as machine, process and mark; None if nobody does."""
        with self._engine.begin() as connection:
            row = connection.execute(select(LEASES).where(LEASES.c.name == name)).first()
            if row is None or self._is_free(row.holder, row.expires_at, self._now(connection)):
                return None
        return str(row.holder)

    def _take(self, name: str, holder: str) -> bool:
        with self._engine.begin() as connection:
            now = self._now(connection)
            times = {"beaten_at": now, "expires_at": now + timedelta(seconds=self._seconds)}
            row = connection.execute(select(LEASES).where(LEASES.c.name == name)).first()
            if row is not None:
                if not self._is_free(row.holder, row.expires_at, now):
                    return False
                # Whoever else follows the same holder finds that it is no longer that one.
                statement = update(LEASES).where(
                    LEASES.c.name == name, LEASES.c.holder == row.holder
                )
                return connection.execute(statement.values(holder=holder, **times)).rowcount == 1
            try:
                with connection.begin_nested():
                    connection.execute(insert(LEASES).values(name=name, holder=holder, **times))
            except DatabaseIntegrityError:
                return False
            return True

    def _is_free(self, holder: str, expires_at: datetime, now: datetime) -> bool:
        if expires_at <= now:
            return True
        machine, pid, _ = holder.rsplit(":", 2)
        return machine == self._machine and not _is_running(int(pid))

    def _beat(self, name: str, holder: str, lease: Lease, over: threading.Event) -> None:
        held_until = time.monotonic() + self._seconds
        while not over.wait(self._seconds / _BEATS):
            try:
                is_mine = self._renew(name, holder)
            except OperationalError:
                # The server may come back before the lease is over.
                is_mine = time.monotonic() < held_until
            else:
                held_until = time.monotonic() + self._seconds
            if not is_mine:
                lease.is_lost = True
                return

    def _renew(self, name: str, holder: str) -> bool:
        with self._engine.begin() as connection:
            now = self._now(connection)
            statement = (
                update(LEASES)
                .where(LEASES.c.name == name, LEASES.c.holder == holder)
                .values(beaten_at=now, expires_at=now + timedelta(seconds=self._seconds))
            )
            return connection.execute(statement).rowcount == 1

    def _give_back(self, name: str, holder: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(
                delete(LEASES).where(LEASES.c.name == name, LEASES.c.holder == holder)
            )

    def _now(self, connection: Connection) -> datetime:
        # A server's clock is the one that all its machines agree on.
        if connection.dialect.name == "postgresql":
            now = connection.scalar(select(func.timezone("UTC", func.clock_timestamp())))
            if isinstance(now, datetime):
                return now
        return to_naive(datetime.now(UTC))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
