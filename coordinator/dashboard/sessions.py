"""Who is signed in. The database holds a token's hash: who reads it can sign in as nobody."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, Row, delete, func, insert, or_, select, update

from coordinator.state.records import to_naive
from coordinator.state.schema import USER_SESSIONS
from fedcac.canonical import sha256_hex

__all__ = ["ABSOLUTE", "IDLE", "Session", "Sessions", "form_token", "new_token", "token_hash"]

IDLE = timedelta(minutes=30)
"""A session ends when nothing was asked for so long."""

ABSOLUTE = timedelta(hours=12)
"""A session ends so long after it began, whatever happens."""

_TOUCH = timedelta(seconds=30)
_NUMBER_LENGTH = 16


@dataclass(frozen=True)
class Session:
    """One browser in which somebody is signed in; `number` names it, and opens nothing."""

    number: str
    user: str
    address: str
    browser: str
    created_at: datetime
    used_at: datetime


def new_token() -> str:
    """Return a token that nobody guesses: 256 random bits."""
    return secrets.token_urlsafe(32)


def form_token(token: str) -> str:
    """Return what forms of a browser carry, derived from its cookie, which other sites cannot read.

    A browser that is not signed in has a cookie too, so that also the sign-in form has one.
    """
    return hmac.new(token.encode(), b"fedcac dashboard form", "sha256").hexdigest()


class Sessions:
    """The table of sessions."""

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        idle: timedelta = IDLE,
        absolute: timedelta = ABSOLUTE,
    ) -> None:
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        self._clock = clock
        self._idle = idle
        self._absolute = absolute

    def begin(self, user: str, address: str, browser: str) -> str:
        """Begin a session and return its token; it was never known to anybody before."""
        token, now = new_token(), self._clock()
        with self._writer.begin() as connection:
            connection.execute(delete(USER_SESSIONS).where(self._is_over()))
            connection.execute(
                insert(USER_SESSIONS).values(
                    token_hash=token_hash(token),
                    user_name=user,
                    address=address[:60],
                    browser=browser[:200],
                    created_at=to_naive(now),
                    used_at=to_naive(now),
                )
            )
        return token

    def find(self, token: str, *, is_used: bool = True) -> Session | None:
        """Return the session of a token unless it is over; `is_used` keeps it from idling."""
        if not token:
            return None
        mine = USER_SESSIONS.c.token_hash == token_hash(token)
        with self._engine.connect() as connection:
            row = connection.execute(select(USER_SESSIONS).where(mine, ~self._is_over())).first()
        if row is None:
            return None
        now = self._clock()
        if is_used and now - row.used_at.replace(tzinfo=UTC) > _TOUCH:
            with self._writer.begin() as connection:
                connection.execute(update(USER_SESSIONS).where(mine).values(used_at=to_naive(now)))
        return _session(row)

    def of(self, user: str) -> tuple[Session, ...]:
        """Return a user's sessions, the newest first."""
        statement = (
            select(USER_SESSIONS)
            .where(USER_SESSIONS.c.user_name == user, ~self._is_over())
            .order_by(USER_SESSIONS.c.created_at.desc())
        )
        with self._engine.connect() as connection:
            return tuple(_session(row) for row in connection.execute(statement).all())

    def end(self, user: str, number: str) -> bool:
        """End one session of a user; say whether there was one."""
        with self._writer.begin() as connection:
            found = connection.execute(
                delete(USER_SESSIONS).where(
                    USER_SESSIONS.c.user_name == user,
                    func.substr(USER_SESSIONS.c.token_hash, 1, _NUMBER_LENGTH) == number,
                )
            )
        return bool(found.rowcount)

    def end_all(self, user: str) -> None:
        """Sign a user out everywhere."""
        with self._writer.begin() as connection:
            connection.execute(delete(USER_SESSIONS).where(USER_SESSIONS.c.user_name == user))

    def _is_over(self) -> Any:
        now = self._clock()
        return or_(
            USER_SESSIONS.c.used_at <= to_naive(now - self._idle),
            USER_SESSIONS.c.created_at <= to_naive(now - self._absolute),
        )


def token_hash(token: str) -> str:
    """Return what is stored of a token: 64 hexadecimal digits."""
    return sha256_hex(token.encode()).removeprefix("sha256:")


def _session(row: Row[Any]) -> Session:
    return Session(
        number=row.token_hash[:_NUMBER_LENGTH],
        user=row.user_name,
        address=row.address,
        browser=row.browser,
        created_at=row.created_at.replace(tzinfo=UTC),
        used_at=row.used_at.replace(tzinfo=UTC),
    )
