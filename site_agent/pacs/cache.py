"""What was pulled, where it lies and until when: a folder and a SQLite journal beside it.

Order makes it crash-safe. A series is in the journal before its first file exists, so nothing
lies there without a date to be removed by; a removal is in the journal before the first file is
gone, and is finished at the next opening if the process died in between.
"""

from __future__ import annotations

import csv
import fcntl
import os
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from fedcac.errors import IntegrityError, RoundError
from fedcac.imaging import Role
from site_agent.pacs.folder import InstanceFolder, name_of_uid, sync_folder
from site_agent.pacs.query import SeriesRecord

__all__ = ["CachedSeries", "PacsCache", "SeriesState"]

_SCHEMA_VERSION = 1
_NAME = re.compile("[0-9a-f]{32}")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS series (
    name TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    state TEXT NOT NULL,
    n_instances INTEGER NOT NULL,
    patient_key TEXT,
    since TEXT NOT NULL,
    removal TEXT
);
CREATE TABLE IF NOT EXISTS journal (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    name TEXT NOT NULL,
    event TEXT NOT NULL,
    n_instances INTEGER NOT NULL
);
"""


class SeriesState(StrEnum):
    """Where a series of the cache stands."""

    WANTED = "wanted"
    COMPLETE = "complete"
    REMOVING = "removing"
    REMOVED = "removed"


@dataclass(frozen=True)
class CachedSeries:
    """One series of the journal: no identifier, no UID.

    Attributes
    ----------
    name
        Digest of the series UID; the name of its folder.
    n_instances
        Instances pulled since it was begun.
    patient_key
        The site's pseudonym of the patient (`exam_key`); None before it is complete.
    since
        When it was begun: retention counts from here.
    removal
        Why it was removed: `keep_days` or `scored`.
    """

    name: str
    role: Role
    state: SeriesState
    n_instances: int
    patient_key: str | None = field(repr=False)
    since: datetime
    removal: str | None


class PacsCache:
    """Open or make a cache. One process at a time: the second one gets `round.pacs_busy`."""

    def __init__(self, root: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._root = root
        self._guard = threading.RLock()
        self._series_root.mkdir(parents=True, exist_ok=True, mode=0o700)
        root.chmod(0o700)
        self._lock = _locked(root / "lock")
        try:
            self._connection = _database(root / "journal.sqlite")
        except BaseException:
            os.close(self._lock)
            raise
        self._finish_removals()

    def close(self) -> None:
        """Close the journal, and let another process in."""
        self._connection.close()
        os.close(self._lock)

    def __enter__(self) -> PacsCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _series_root(self) -> Path:
        return self._root / "series"

    @property
    def manifest_path(self) -> Path:
        """The manifest of what was pulled."""
        return self._root / "manifest.csv"

    def find(self, series: SeriesRecord) -> CachedSeries | None:
        """Return what the journal knows of a series."""
        found = self._select("WHERE name = ?", name_of_uid(series.series_uid))
        return found[0] if found else None

    def entries(self) -> tuple[CachedSeries, ...]:
        """Return every series ever begun, sorted by name."""
        return self._select("ORDER BY name")

    def holds(self, entry: CachedSeries, series: SeriesRecord) -> bool:
        """Say whether a complete series still lies here whole, and the PACS has no more of it."""
        n_held = sum(1 for _ in (self._series_root / entry.name).glob("*.dcm"))
        return n_held >= max(entry.n_instances, series.n_instances or 0)

    def _select(self, clause: str, *values: str) -> tuple[CachedSeries, ...]:
        query = "SELECT name, role, state, n_instances, patient_key, since, removal FROM series "
        with self._guard:
            rows = self._connection.execute(query + clause, values).fetchall()
        return tuple(
            CachedSeries(
                name, Role(role), SeriesState(state), n, key, datetime.fromisoformat(since), removal
            )
            for name, role, state, n, key, since, removal in rows
        )

    def events(self) -> tuple[tuple[str, str, int], ...]:
        """Return (name, event, instances) of everything that happened, oldest first."""
        with self._guard:
            rows = self._connection.execute(
                "SELECT name, event, n_instances FROM journal ORDER BY number"
            ).fetchall()
        return tuple((str(name), str(event), int(n)) for name, event, n in rows)

    def begin(self, series: SeriesRecord, role: Role) -> InstanceFolder:
        """Note that a series is wanted, or wanted again, and return its folder."""
        name = name_of_uid(series.series_uid)
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO series VALUES (?, ?, ?, 0, NULL, ?, NULL) ON CONFLICT (name) "
                "DO UPDATE SET role = excluded.role, state = excluded.state, n_instances = 0, "
                "since = excluded.since, removal = NULL WHERE state = ?",
                (name, role, SeriesState.WANTED, self._now().isoformat(), SeriesState.REMOVED),
            )
            self._note(connection, name, "begun", 0)
        return InstanceFolder(self._series_root / name)

    def add_pulled(self, series: SeriesRecord, n_instances: int) -> None:
        """Note how many instances one request brought."""
        name = name_of_uid(series.series_uid)
        with self._transaction() as connection:
            connection.execute(
                "UPDATE series SET n_instances = n_instances + ? WHERE name = ?",
                (n_instances, name),
            )
            self._note(connection, name, "pulled", n_instances)

    def complete(self, series: SeriesRecord, n_instances: int, patient_key: str | None) -> None:
        """Note that every instance of a series is here."""
        name = name_of_uid(series.series_uid)
        with self._transaction() as connection:
            connection.execute(
                "UPDATE series SET state = ?, n_instances = ?, patient_key = ? WHERE name = ?",
                (SeriesState.COMPLETE, n_instances, patient_key, name),
            )
            self._note(connection, name, "complete", n_instances)

    def purge(
        self, keep_days: int, is_scored: Callable[[str], bool] = lambda _: False
    ) -> dict[str, int]:
        """Remove what has been here long enough, or is not needed any more.

        Returns
        -------
        dict
            Series removed, by reason: `keep_days`, `scored`.
        """
        limit = self._now() - timedelta(days=keep_days)
        removed = {"keep_days": 0, "scored": 0}
        for entry in self.entries():
            if entry.state not in (SeriesState.WANTED, SeriesState.COMPLETE):
                continue
            if entry.since <= limit:
                reason = "keep_days"
            elif entry.patient_key is not None and is_scored(entry.patient_key):
                reason = "scored"
            else:
                continue
            with self._transaction() as connection:
                connection.execute(
                    "UPDATE series SET state = ?, removal = ? WHERE name = ?",
                    (SeriesState.REMOVING, reason, entry.name),
                )
                self._note(connection, entry.name, f"removing:{reason}", entry.n_instances)
            self._remove(entry.name)
            removed[reason] += 1
        return removed

    def _finish_removals(self) -> None:
        for entry in self.entries():
            if entry.state is SeriesState.REMOVING:
                self._remove(entry.name)
        # Without its line in the journal nobody knows since when a series has been here.
        known = {entry.name for entry in self.entries()}
        for folder in self._series_root.iterdir():
            if _NAME.fullmatch(folder.name) and folder.name not in known:
                self._remove(folder.name)

    def _remove(self, name: str) -> None:
        folder = self._series_root / name
        if folder.exists():
            shutil.rmtree(folder)
        sync_folder(self._series_root)
        with self._transaction() as connection:
            connection.execute(
                "UPDATE series SET state = ?, patient_key = NULL WHERE name = ?",
                (SeriesState.REMOVED, name),
            )
            self._note(connection, name, "removed", 0)

    def write_manifest(self) -> int:
        """Write the manifest of every complete series that is still here; return how many."""
        rows = [
            (f"{self._series_root.name}/{entry.name}", entry.role.value)
            for entry in self.entries()
            if entry.state is SeriesState.COMPLETE
        ]
        part = self.manifest_path.with_suffix(".part")
        with part.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("path", "role"))
            writer.writerows(rows)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(self.manifest_path)
        sync_folder(self._root)
        return len(rows)

    def _note(
        self, connection: sqlite3.Connection, name: str, event: str, n_instances: int
    ) -> None:
        connection.execute(
            "INSERT INTO journal (at, name, event, n_instances) VALUES (?, ?, ?, ?)",
            (self._now().isoformat(), name, event, n_instances),
        )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._guard:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


def _locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise RoundError(
            "Another process is pulling into this folder or removing from it.",
            code="pacs_busy",
            cure="Wait until it has ended.",
        ) from error
    return descriptor


def _database(path: Path) -> sqlite3.Connection:
    # Threads share the connection; every use holds the cache's lock.
    connection = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version not in (0, _SCHEMA_VERSION):
        connection.close()
        raise IntegrityError(
            f"The journal of pulled files has schema {version}; this release reads "
            f"{_SCHEMA_VERSION}.",
            code="schema_version",
            cure="Run the release that wrote it.",
        )
    connection.executescript(_SCHEMA)
    connection.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")
    return connection
