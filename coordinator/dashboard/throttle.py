"""How often somebody may try to sign in: by name, known or not, and by address."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError as DatabaseIntegrityError

from coordinator.state.records import to_naive
from coordinator.state.schema import SIGN_IN_FAILURES
from fedcac.canonical import sha256_hex

__all__ = ["FREE_BY_ADDRESS", "FREE_BY_NAME", "Throttle", "key_of_name"]

FREE_BY_NAME = 5
"""Failures of one name after which every further attempt waits, longer each time."""

FREE_BY_ADDRESS = 25
"""The same for one address, behind which a hospital's whole network may be."""

_FIRST_WAIT_S = 30
_LONGEST_WAIT_S = 900
_FORGOTTEN = timedelta(hours=24)


class Throttle:
    """Counts attempts before passwords are looked at, so that many at once count as many."""

    def __init__(
        self, engine: Engine, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._writer = engine.execution_options(writes=True)
        self._clock = clock

    def attempt(self, name: str, address: str) -> int:
        """Count an attempt and return 0, or return for how many seconds none is looked at."""
        now = self._clock()
        limits = {key_of_name(name): FREE_BY_NAME, _by_address(address): FREE_BY_ADDRESS}
        try:
            with self._writer.begin() as connection:
                connection.execute(
                    delete(SIGN_IN_FAILURES).where(
                        SIGN_IN_FAILURES.c.last_at < to_naive(now - _FORGOTTEN)
                    )
                )
                wait = max(_wait_s(connection, key, free, now) for key, free in limits.items())
                if wait == 0:
                    for key in limits:
                        _count(connection, key, now)
                return wait
        except DatabaseIntegrityError:
            # Another process counted the first attempt of the same name in the same moment.
            return 1

    def succeeded(self, name: str, address: str) -> None:
        """Forget a name's failures, and take this attempt back from the address's."""
        with self._writer.begin() as connection:
            connection.execute(
                delete(SIGN_IN_FAILURES).where(SIGN_IN_FAILURES.c.name == key_of_name(name))
            )
            connection.execute(
                update(SIGN_IN_FAILURES)
                .where(
                    SIGN_IN_FAILURES.c.name == _by_address(address),
                    SIGN_IN_FAILURES.c.n_failures > 0,
                )
                .values(n_failures=SIGN_IN_FAILURES.c.n_failures - 1)
            )


def key_of_name(name: str) -> str:
    """Return under what attempts of a name are counted; any text can be typed as a name."""
    return "user:" + sha256_hex(name.encode("utf-8", "replace")).removeprefix("sha256:")


def _by_address(address: str) -> str:
    return f"from:{address[:80]}"


def _wait_s(connection: Connection, key: str, free: int, now: datetime) -> int:
    row = connection.execute(
        select(SIGN_IN_FAILURES).where(SIGN_IN_FAILURES.c.name == key).with_for_update()
    ).first()
    if row is None or row.n_failures < free:
        return 0
    doublings = min(row.n_failures - free, 10)
    wait = min(_FIRST_WAIT_S * 2**doublings, _LONGEST_WAIT_S)
    over = row.last_at.replace(tzinfo=UTC) + timedelta(seconds=wait)
    return max(0, int((over - now).total_seconds()) + 1) if over > now else 0


def _count(connection: Connection, key: str, now: datetime) -> None:
    mine = SIGN_IN_FAILURES.c.name == key
    counted = connection.execute(
        update(SIGN_IN_FAILURES)
        .where(mine)
        .values(n_failures=SIGN_IN_FAILURES.c.n_failures + 1, last_at=to_naive(now))
    )
    if counted.rowcount == 0:
        connection.execute(
            insert(SIGN_IN_FAILURES).values(name=key, n_failures=1, last_at=to_naive(now))
        )
