"""Who did what in the dashboard, when and from where. The database refuses to change a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import Engine, insert, select

from coordinator.state.records import to_naive
from coordinator.state.schema import AUDIT

__all__ = ["AuditLine", "AuditTrail", "Deed"]


class Deed(StrEnum):
    """What was done, or tried."""

    SIGNED_IN = "signed in"
    SIGN_IN_FAILED = "failed to sign in"
    LOCKED_OUT = "was made to wait"
    SIGNED_OUT = "signed out"
    SIGNED_OUT_EVERYWHERE = "signed out everywhere"
    SESSION_ENDED = "ended a session"
    REFUSED = "was refused"
    CHOSE = "chose a password"
    USER_ADDED = "added a user"
    USER_RESET = "reset a user"
    USER_DISABLED = "disabled a user"
    USER_ENABLED = "enabled a user"
    ROLE_CHANGED = "changed a role"
    ROUND_LAUNCHED = "launched a round"
    ROUND_RETRIED = "added late sites"
    ROUND_CLOSED = "closed a round"
    ROUND_CANCELLED = "cancelled a round"
    DOWNLOADED = "downloaded"
    EXPORTED = "exported a round"
    COMPARED = "compared rounds"
    KIT_MADE = "made a kit"
    SITE_ENROLLED = "enrolled a site"
    SITE_NOT_ENROLLED = "could not enrol a site"
    SITE_REVOKED = "revoked a site"


@dataclass(frozen=True)
class AuditLine:
    """One line. `what` is a `Deed` in words; `subject` says to whom or to what."""

    number: int
    at: datetime
    user: str
    what: str
    subject: str
    address: str


class AuditTrail:
    """The table of deeds."""

    def __init__(
        self, engine: Engine, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        self._clock = clock

    def add(self, user: str, what: Deed, subject: str = "", address: str = "") -> None:
        """Write a line."""
        with self._writer.begin() as connection:
            connection.execute(
                insert(AUDIT).values(
                    at=to_naive(self._clock()),
                    user_name=_shown(user, 40),
                    what=what.value,
                    subject=_shown(subject, 200),
                    address=_shown(address, 60),
                )
            )

    def newest(self, n: int = 100, before: int | None = None) -> tuple[AuditLine, ...]:
        """Return the newest lines, or those before a number, the newest first."""
        statement = select(AUDIT).order_by(AUDIT.c.number.desc()).limit(n)
        if before is not None:
            statement = statement.where(AUDIT.c.number < before)
        with self._engine.connect() as connection:
            rows = connection.execute(statement).all()
        return tuple(
            AuditLine(
                number=row.number,
                at=row.at.replace(tzinfo=UTC),
                user=row.user_name,
                what=row.what,
                subject=row.subject,
                address=row.address,
            )
            for row in rows
        )


def _shown(text: str, longest: int) -> str:
    """Return text without control characters: what was typed as a name may be anything."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)[:longest]
