"""What every page works with: the coordinator's folder and database, users, sessions, templates."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from argon2 import PasswordHasher

from coordinator.dashboard.accounts import Account, Accounts
from coordinator.dashboard.sessions import Session, Sessions
from coordinator.dashboard.throttle import Throttle
from coordinator.dashboard.trail import AuditTrail, Deed
from coordinator.folder import CoordinatorFolder
from coordinator.rounds.api import Rounds
from coordinator.state.store import CoordinatorStore
from fedcac.errors import UsageError

__all__ = ["LOOPBACK", "Caller", "Dashboard", "DashboardSettings", "made_settings"]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class DashboardSettings:
    """How the dashboard is reached.

    Attributes
    ----------
    hosts
        Names in a request's Host header that are meant for it; any other is refused.
    public_url
        Where people reach it, without a path; links and, by https, cookies follow it.
    packages
        Folder whose subfolders are model packages to choose from.
    """

    hosts: frozenset[str]
    public_url: str
    packages: Path

    @property
    def is_secure(self) -> bool:
        """Say whether browsers reach it by https."""
        return self.public_url.startswith("https://")

    @property
    def cookie(self) -> str:
        """Name of the session's cookie; by https one that no other host can have set."""
        return "__Host-fedcac" if self.is_secure else "fedcac"

    @property
    def visit_cookie(self) -> str:
        """Name of the cookie of a browser in which nobody is signed in."""
        return self.cookie + "-visit"


def made_settings(
    home: Path,
    listen: str = "127.0.0.1",
    port: int = 8480,
    public_url: str | None = None,
    packages: Path | None = None,
) -> DashboardSettings:
    """Return settings; UsageError `bad_public_url` if the URL is none, or has a path."""
    url = (public_url or f"http://localhost:{port}").rstrip("/")
    try:
        parts = urlsplit(url)
        is_sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_sound = False
    if not is_sound or parts.path or parts.query or parts.username is not None:
        raise UsageError(
            f"'{url}' is not where a dashboard can be reached.",
            code="bad_public_url",
            cure="Give https://HOST or https://HOST:PORT, without a path.",
        )
    own = frozenset() if listen in ("0.0.0.0", "::") else frozenset({listen.lower()})  # noqa: S104
    return DashboardSettings(
        hosts=LOOPBACK | own | {str(parts.hostname)},
        public_url=url,
        packages=packages or home / "packages",
    )


@dataclass(frozen=True)
class Caller:
    """Who asks: the account, the session, its forms' token, and from where."""

    account: Account
    session: Session
    address: str


@dataclass
class Dashboard:
    """One running dashboard. Rounds are read and written by one page at a time.

    `launched` holds which round a launch form made, so that a second click makes none; `ended` the
    list's rows of rounds that nothing leads out of, which are not read again.
    """

    folder: CoordinatorFolder
    store: CoordinatorStore
    settings: DashboardSettings
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    hasher: PasswordHasher | None = None
    launched: dict[str, str] = field(default_factory=dict)
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        engine = self.store.database
        self.accounts = Accounts(engine, self.clock, self.hasher)
        self.sessions = Sessions(engine, self.clock)
        self.throttle = Throttle(engine, self.clock)
        self.trail = AuditTrail(engine, self.clock)
        self._reader = Rounds(self.folder, self.store, "dashboard")
        self._lock = threading.RLock()

    @contextmanager
    def rounds(self, actor: str | None = None) -> Iterator[Rounds]:
        """Yield the rounds; whoever changes something says as whom."""
        with self._lock:
            yield self._reader if actor is None else Rounds(self.folder, self.store, actor)

    def note(self, caller: Caller, what: Deed, subject: str = "") -> None:
        """Write into the audit trail what a caller did."""
        self.trail.add(caller.account.name, what, subject, caller.address)
