"""Who may use the dashboard: names, roles and passwords. Kept in the coordinator's database."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Engine, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError as DatabaseIntegrityError

from coordinator.dashboard.sessions import token_hash
from coordinator.dashboard.throttle import key_of_name
from coordinator.state.records import to_naive
from coordinator.state.schema import SIGN_IN_FAILURES, USER_SESSIONS, USERS
from fedcac.errors import UsageError

__all__ = ["LEAST_PASSWORD", "LINK_HOURS", "Account", "Accounts", "Role"]

LEAST_PASSWORD: Final = 12
"""Characters that a password has at least."""

LINK_HOURS: Final = 24
"""For how long a link to choose a password holds."""

_LONGEST_PASSWORD = 256
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,39}")
# Every hash takes 64 MiB while it is made: many at once would be a way to stop the machine.
_HASHING = threading.BoundedSemaphore(2)


class Role(StrEnum):
    """What somebody may do.

    lead: everything. statistician: reads reports, compares rounds, downloads. read-only: sees which
    rounds there are and where they stand.
    """

    LEAD = "lead"
    STATISTICIAN = "statistician"
    READ_ONLY = "read-only"


@dataclass(frozen=True)
class Account:
    """One user. Without a password nobody can sign in by the name."""

    name: str
    role: Role
    is_disabled: bool
    has_password: bool
    created_at: datetime


class Accounts:
    """The table of users.

    Parameters
    ----------
    engine
        The coordinator's database.
    hasher
        Makes and checks argon2id hashes; RFC 9106's second recommendation by default.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        hasher: PasswordHasher | None = None,
    ) -> None:
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        self._clock = clock
        self._hasher = hasher or PasswordHasher()
        # Checked where there is no user, so that an answer takes as long as where there is one.
        self._nobody = self._hasher.hash(secrets.token_urlsafe(24))

    # reading

    def list(self) -> tuple[Account, ...]:
        """Return every user by name."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(USERS).order_by(USERS.c.name)).all()
        return tuple(_account(row) for row in rows)

    def find(self, name: str) -> Account | None:
        """Return a user, or None."""
        row = self._row(name)
        return None if row is None else _account(row)

    def of_link(self, token: str) -> Account | None:
        """Return the user whom a link that still holds lets choose a password."""
        with self._engine.connect() as connection:
            row = connection.execute(
                select(USERS).where(
                    USERS.c.link_hash == token_hash(token),
                    USERS.c.link_until > to_naive(self._clock()),
                    USERS.c.disabled_at.is_(None),
                )
            ).first()
        return None if row is None else _account(row)

    def checked(self, name: str, password: str) -> Account | None:
        """Return the user if the password is right and the user is not disabled."""
        row = self._row(name)
        known = None if row is None else row.password
        if len(password) > _LONGEST_PASSWORD:
            return None
        with _HASHING:
            try:
                self._hasher.verify(known or self._nobody, password)
            except (VerificationError, InvalidHashError):
                return None
        if row is None or known is None or row.disabled_at is not None:
            return None
        if self._hasher.check_needs_rehash(known):
            self._change(name, password=self._hashed(password))
        return _account(row)

    # changing

    def add(self, name: str, role: Role) -> str:
        """Add a user and return the token of a link to choose a password.

        Raises
        ------
        UsageError
            If the name is none (`bad_user`) or is taken (`user_exists`).
        """
        if not _NAME.fullmatch(name):
            raise UsageError(
                "A user's name has small letters, digits, '.', '_', '@' and '-', 40 at most.",
                code="bad_user",
                cure="Give a short name or an address.",
            )
        token = secrets.token_urlsafe(32)
        try:
            with self._writer.begin() as connection:
                connection.execute(
                    insert(USERS).values(
                        name=name,
                        role=role.value,
                        created_at=to_naive(self._clock()),
                        **self._link(token),
                    )
                )
        except DatabaseIntegrityError as error:
            raise UsageError(
                f"There is a user '{name}' already.",
                code="user_exists",
                cure="Give another name, or reset the password of this one.",
            ) from error
        return token

    def reset(self, name: str) -> str:
        """Take a user's password and sessions away; return the token of a link to choose anew.

        Waiting times after failures to sign in end too.
        """
        self._known(name)
        token = secrets.token_urlsafe(32)
        with self._writer.begin() as connection:
            connection.execute(
                update(USERS).where(USERS.c.name == name).values(password=None, **self._link(token))
            )
            connection.execute(delete(USER_SESSIONS).where(USER_SESSIONS.c.user_name == name))
            connection.execute(
                delete(SIGN_IN_FAILURES).where(SIGN_IN_FAILURES.c.name == key_of_name(name))
            )
        return token

    def set_password(self, name: str, password: str) -> None:
        """Give a user a password; every session of the user and an open link end.

        Raises
        ------
        UsageError
            If the password is too short, too long, or the name (`weak_password`); `unknown_user`.
        """
        self._known(name)
        _check_password(name, password)
        hashed = self._hashed(password)
        with self._writer.begin() as connection:
            connection.execute(
                update(USERS)
                .where(USERS.c.name == name)
                .values(password=hashed, link_hash=None, link_until=None)
            )
            connection.execute(delete(USER_SESSIONS).where(USER_SESSIONS.c.user_name == name))

    def change_role(self, name: str, role: Role) -> None:
        """Give a user another role; UsageError `last_lead` if no lead would be left."""
        self._check_lead_is_left(name, role)
        self._change(name, role=role.value)

    def disable(self, name: str) -> None:
        """Let a user sign in no more, and end the sessions; UsageError `last_lead`."""
        self._check_lead_is_left(name, None)
        with self._writer.begin() as connection:
            connection.execute(
                update(USERS)
                .where(USERS.c.name == name)
                .values(disabled_at=to_naive(self._clock()), link_hash=None, link_until=None)
            )
            connection.execute(delete(USER_SESSIONS).where(USER_SESSIONS.c.user_name == name))

    def enable(self, name: str) -> None:
        """Let a disabled user sign in again."""
        self._known(name)
        self._change(name, disabled_at=None)

    def _row(self, name: str) -> Row[Any] | None:
        if not _NAME.fullmatch(name):
            return None
        with self._engine.connect() as connection:
            return connection.execute(select(USERS).where(USERS.c.name == name)).first()

    def _known(self, name: str) -> Account:
        account = self.find(name)
        if account is None:
            raise UsageError(
                f"There is no user '{name}'.",
                code="unknown_user",
                cure="`fedcac-coordinator users list` shows them.",
            )
        return account

    def _change(self, name: str, **values: object) -> None:
        with self._writer.begin() as connection:
            connection.execute(update(USERS).where(USERS.c.name == name).values(**values))

    def _check_lead_is_left(self, name: str, role: Role | None) -> None:
        account = self._known(name)
        if role is Role.LEAD or account.role is not Role.LEAD or account.is_disabled:
            return
        leads = [one for one in self.list() if one.role is Role.LEAD and not one.is_disabled]
        if len(leads) < 2:
            raise UsageError(
                f"'{name}' is the last lead.",
                code="last_lead",
                cure="Make somebody else lead first.",
            )

    def _hashed(self, password: str) -> str:
        with _HASHING:
            return self._hasher.hash(password)

    def _link(self, token: str) -> dict[str, object]:
        until = self._clock() + timedelta(hours=LINK_HOURS)
        return {"link_hash": token_hash(token), "link_until": to_naive(until)}


def _account(row: Row[Any]) -> Account:
    return Account(
        name=row.name,
        role=Role(row.role),
        is_disabled=row.disabled_at is not None,
        has_password=row.password is not None,
        created_at=row.created_at.replace(tzinfo=UTC),
    )


def _check_password(name: str, password: str) -> None:
    is_name = name in password.lower() and len(password) < len(name) + LEAST_PASSWORD
    if LEAST_PASSWORD <= len(password) <= _LONGEST_PASSWORD and not is_name:
        if len(set(password)) >= 5:
            return
    raise UsageError(
        f"A password has {LEAST_PASSWORD} to {_LONGEST_PASSWORD} characters, five different ones "
        "among them, and is not built around the user's name.",
        code="weak_password",
        cure="Choose a sentence of four or five words, or let a password manager make one.",
    )
