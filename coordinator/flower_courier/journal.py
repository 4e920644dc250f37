"""What is to be carried and what has come, on disk: the meeting place of engine and courier.

The engine's process adds parcels and asks for others; the courier's process carries. Either may
die at any time. SQLite with a write-ahead log, and chunks in files under their digests.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from fedcac.errors import RoundError
from fedcac.exchange.chunks import ChunkStore, Manifest, chunks_of
from fedcac.exchange.couriering import Asked, Delivery

__all__ = ["CourierJournal"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outgoing (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    site TEXT NOT NULL, name TEXT NOT NULL, manifest TEXT NOT NULL,
    is_delivered INTEGER NOT NULL DEFAULT 0, refused TEXT,
    UNIQUE (site, name));
CREATE TABLE IF NOT EXISTS asked (
    site TEXT NOT NULL, name TEXT NOT NULL, manifest TEXT,
    is_open INTEGER NOT NULL DEFAULT 1, is_handed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (site, name));
CREATE TABLE IF NOT EXISTS serial (only INTEGER PRIMARY KEY CHECK (only = 0), last INTEGER);
INSERT OR IGNORE INTO serial VALUES (0, 0);
"""
_NO_LIMIT = 2**62
_BUSY_S = 30.0


class CourierJournal:
    """The courier's durable state at the coordinator, in a folder both processes can write."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._path = root / "journal.sqlite"
        self.chunks = ChunkStore(root / "chunks", _NO_LIMIT)
        # Engine and courier are two users of one group, whatever their umask; SQLite gives its log
        # the mode that the database has by then.
        with suppress(PermissionError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o660))
        _share(self._path, 0o060)
        _share(root / "chunks", 0o070)
        with self._connected() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=_BUSY_S)) as connection, connection:
            connection.execute("PRAGMA synchronous = FULL")
            yield connection

    # the engine's side

    def add(self, site: str, name: str, payload: bytes) -> None:
        """Add a parcel for a site; the same again does nothing.

        Raises
        ------
        RoundError
            `parcel_changed` if other bytes were added under this name before.
        """
        manifest = Manifest.of(payload)
        with self._connected() as connection:
            row = connection.execute(
                "SELECT manifest FROM outgoing WHERE site = ? AND name = ?", (site, name)
            ).fetchone()
        if row is not None:
            if Manifest.model_validate_json(row[0]) != manifest:
                raise RoundError(
                    f"Parcel '{name}' already exists with other bytes.",
                    code="parcel_changed",
                    cure="Each exchange is written once; find out who wrote the other version.",
                )
            return
        # The chunks lie on disk before the row does: what is listed can be sent.
        for digest, chunk in chunks_of(payload):
            self.chunks.put(digest, chunk)
        with self._connected() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO outgoing (site, name, manifest) VALUES (?, ?, ?)",
                (site, name, manifest.model_dump_json()),
            )
            # `forget` may have swept a chunk since; it holds the lock that is held here now.
            if self.chunks.missing(manifest):
                for digest, chunk in chunks_of(payload):
                    self.chunks.put(digest, chunk)

    def ask(self, site: str, name: str) -> bytes | None:
        """Return a parcel of a site's outbox, or None and have it fetched.

        Asked for again after it was handed out, it is fetched anew if the site has other bytes
        by then: what came first may have been altered on the way.
        """
        with self._connected() as connection:
            row = connection.execute(
                "SELECT manifest, is_open, is_handed FROM asked WHERE site = ? AND name = ?",
                (site, name),
            ).fetchone()
            if row is None:
                connection.execute(
                    "INSERT OR IGNORE INTO asked (site, name) VALUES (?, ?)", (site, name)
                )
                return None
            manifest, is_open, is_handed = row
            payload = None if manifest is None else self._assembled(manifest)
            if payload is None:
                connection.execute(
                    "UPDATE asked SET is_open = 1 WHERE site = ? AND name = ?", (site, name)
                )
            elif not (is_open and is_handed):
                connection.execute(
                    "UPDATE asked SET is_handed = 1, is_open = ? WHERE site = ? AND name = ?",
                    (is_handed, site, name),
                )
        return payload

    def _assembled(self, manifest: str) -> bytes | None:
        try:
            return self.chunks.assemble(Manifest.model_validate_json(manifest))
        except RoundError:
            # A site's courier described it falsely; that must not stop the engine.
            return None

    def forget(self, round_id: str) -> int:
        """Carry nothing more of a round and drop its chunks; return how many parcels it had.

        A round that goes on is not harmed: its engine adds and asks for what it needs again.
        """
        pattern = (f"{round_id}.%",)
        with self._connected() as connection:
            n_parcels = 0
            for table in ("outgoing", "asked"):
                # The table's name is one of the two above.
                statement = f"DELETE FROM {table} WHERE name LIKE ?"  # noqa: S608
                n_parcels += connection.execute(statement, pattern).rowcount
            rows = connection.execute(
                "SELECT manifest FROM outgoing UNION SELECT manifest FROM asked "
                "WHERE manifest IS NOT NULL"
            ).fetchall()
            manifests = [Manifest.model_validate_json(text) for (text,) in rows]
            self.chunks.keep_only({digest for one in manifests for digest in one.chunks})
        return n_parcels

    # the courier's side

    def pending(self, site: str, limit: int = 50) -> tuple[Delivery, ...]:
        """Return what the site does not have yet, in the order in which it was added."""
        with self._connected() as connection:
            rows = connection.execute(
                "SELECT name, manifest FROM outgoing WHERE site = ? AND NOT is_delivered "
                "ORDER BY number LIMIT ?",
                (site, limit),
            ).fetchall()
        return tuple(
            Delivery(name=name, manifest=Manifest.model_validate_json(manifest))
            for name, manifest in rows
        )

    def refusals(self, site: str) -> dict[str, str]:
        """Return the parcels that the site's courier would not take, with its code."""
        with self._connected() as connection:
            rows = connection.execute(
                "SELECT name, refused FROM outgoing WHERE site = ? AND refused IS NOT NULL "
                "AND NOT is_delivered ORDER BY number",
                (site,),
            ).fetchall()
        return dict(rows)

    def asked(self, site: str) -> dict[str, Asked]:
        """Return what is asked of a site and has not come, with what is held of it already."""
        with self._connected() as connection:
            rows = connection.execute(
                "SELECT name, manifest FROM asked WHERE site = ? AND is_open ORDER BY name", (site,)
            ).fetchall()
        wanted: dict[str, Asked] = {}
        for name, text in rows:
            if text is None:
                wanted[name] = Asked()
                continue
            manifest = Manifest.model_validate_json(text)
            if not self.chunks.missing(manifest):
                wanted[name] = Asked(digest=manifest.digest)
            else:
                wanted[name] = Asked(chunks=tuple(filter(self.chunks.has, manifest.chunks)))
        return wanted

    def note_delivered(self, site: str, names: tuple[str, ...]) -> None:
        """Note that parcels lie in the site's inbox."""
        with self._connected() as connection:
            connection.executemany(
                "UPDATE outgoing SET is_delivered = 1, refused = NULL "
                "WHERE site = ? AND name = ? AND NOT is_delivered",
                [(site, name) for name in names],
            )

    def note_refused(self, site: str, refused: Mapping[str, str]) -> None:
        """Note which parcels the site's courier would not take, and its code."""
        with self._connected() as connection:
            connection.executemany(
                "UPDATE outgoing SET refused = ? WHERE site = ? AND name = ?",
                [(code, site, name) for name, code in refused.items()],
            )

    def note_collected(self, site: str, manifests: Mapping[str, Manifest]) -> None:
        """Note what the site's outbox holds of what was asked; complete ones are closed.

        The chunks that came with it are put into `chunks` before. What was not asked is dropped.
        """
        rows = [
            (manifest.model_dump_json(), bool(self.chunks.missing(manifest)), site, name)
            for name, manifest in manifests.items()
        ]
        with self._connected() as connection:
            connection.executemany(
                "UPDATE asked SET manifest = ?, is_open = ?, is_handed = 0 "
                "WHERE site = ? AND name = ? AND is_open",
                rows,
            )

    def next_serial(self) -> int:
        """Return a number larger than every one before, and than the clock's nanoseconds."""
        with self._connected() as connection:
            connection.execute("UPDATE serial SET last = max(last + 1, ?)", (time.time_ns(),))
            (serial,) = connection.execute("SELECT last FROM serial").fetchone()
        return int(serial)


def _share(path: Path, bits: int) -> None:
    # Only the owner can, and has.
    with suppress(PermissionError):
        path.chmod(stat.S_IMODE(path.stat().st_mode) | bits)
