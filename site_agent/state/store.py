"""The site's durable state in SQLite: rounds, exam records, exchanges. It never leaves the site.

Every write is a transaction, so kill -9 leaves either the old state or the new one. Scores are
keyed by exam, package and scoring profile: a finished exam is never scored again, whichever round
or protocol asks for it.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fedcac.errors import IntegrityError
from fedcac.vocabulary import ExclusionReason, Vessel
from site_agent.state.records import ExamRecord, ExchangeState, RoundRecord, RoundState
from site_agent.state.store_schema import prepare_schema

__all__ = ["ExamRecord", "ExchangeState", "RoundRecord", "RoundState", "SiteStore"]


class SiteStore:
    """Open or make the site's database; `":memory:"` for in-memory rounds."""

    def __init__(self, path: Path | str) -> None:
        self._under_way: set[tuple[str, str, str]] = set()
        # A status page or a second command may read while the agent writes: WAL lets both.
        if str(path) != ":memory:":
            # For its owner alone; SQLite gives its journal the same mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        try:
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            prepare_schema(self._connection)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            # SQLite itself rolls some faults back, such as a full disk, and not others.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    # rounds

    def add_round(self, record: RoundRecord) -> None:
        """Store a new round; a round that is already known stays as it is."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO rounds VALUES (?, ?, ?, ?, ?, ?)",
                (
                    record.round_id,
                    record.state.value,
                    record.offer_digest,
                    record.protocol_digest,
                    record.package_digest,
                    record.refusal,
                ),
            )

    def set_round_state(
        self, round_id: str, state: RoundState, *, refusal: str | None = None
    ) -> None:
        """Move a round on."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE rounds SET state = ?, refusal = ? WHERE round_id = ?",
                (state.value, refusal, round_id),
            )

    def freeze_cohort(self, round_id: str, payload: str) -> str:
        """Store the round's cohort and return what is stored: the first one holds for good."""
        with self._transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO cohorts VALUES (?, ?)", (round_id, payload))
        return self.frozen_cohort(round_id) or payload

    def frozen_cohort(self, round_id: str) -> str | None:
        """Return the round's frozen cohort, or None before it is frozen."""
        row = self._connection.execute(
            "SELECT payload FROM cohorts WHERE round_id = ?", (round_id,)
        ).fetchone()
        return None if row is None else str(row[0])

    def round(self, round_id: str) -> RoundRecord | None:
        """Return a round, or None if it is not known."""
        found = [record for record in self.rounds() if record.round_id == round_id]
        return found[0] if found else None

    def rounds(self) -> tuple[RoundRecord, ...]:
        """Return every round, sorted by id."""
        rows = self._connection.execute("SELECT * FROM rounds ORDER BY round_id").fetchall()
        return tuple(RoundRecord(row[0], RoundState(row[1]), *row[2:]) for row in rows)

    def newest_protocols(self) -> dict[str, tuple[int, str]]:
        """Return the newest version and digest seen of every protocol, for roll-back checks."""
        rows = self._connection.execute("SELECT protocol_id, version, digest FROM protocols_seen")
        return {protocol_id: (version, digest) for protocol_id, version, digest in rows}

    def remember_protocol(self, protocol_id: str, version: int, digest: str) -> None:
        """Note the newest version of a protocol."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO protocols_seen VALUES (?, ?, ?) ON CONFLICT (protocol_id) DO UPDATE "
                "SET version = excluded.version, digest = excluded.digest "
                "WHERE excluded.version >= version",
                (protocol_id, version, digest),
            )

    # exams

    def begin_exam(self, exam_key: str, package_digest: str, profile: str) -> int:
        """Note that an attempt at scoring begins; return how many attempts that makes."""
        key = (exam_key, package_digest, profile)
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO exams (exam_key, package_digest, profile, attempts, completions) "
                "VALUES (?, ?, ?, 1, 0) ON CONFLICT DO UPDATE SET attempts = attempts + 1",
                key,
            )
            row = connection.execute(
                "SELECT attempts FROM exams "
                "WHERE exam_key = ? AND package_digest = ? AND profile = ?",
                key,
            ).fetchone()
        self._under_way.add(key)
        return int(row[0])

    @property
    def exams_under_way(self) -> frozenset[tuple[str, str, str]]:
        """Exams that this process began and did not finish."""
        return frozenset(self._under_way)

    def abandon_exams(self, keys: Iterable[tuple[str, str, str]]) -> None:
        """Take back the attempts at exams that were under way when the site stopped the work.

        An exam is given up after a few attempts because it may be what ends the process. A stop
        on purpose or a full disk is not the exam's doing, and does not count.
        """
        keys = tuple(keys)
        which = "WHERE exam_key = ? AND package_digest = ? AND profile = ? AND completions = 0"
        with self._transaction() as connection:
            connection.executemany(f"UPDATE exams SET attempts = attempts - 1 {which}", keys)  # noqa: S608
            connection.execute("DELETE FROM exams WHERE attempts <= 0")
        self._under_way.difference_update(keys)

    def finish_exam(
        self,
        exam_key: str,
        package_digest: str,
        profile: str,
        *,
        seconds: float,
        reason: ExclusionReason | None = None,
        total: float | None = None,
        vessels: dict[Vessel, float] | None = None,
        native_score: float | None = None,
        native_category: str | None = None,
        probabilities: Mapping[int, float] | None = None,
    ) -> None:
        """Store a score or an exclusion for an exam whose attempt was begun."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE exams SET completions = completions + 1, reason = ?, total = ?, "
                "vessels = ?, native_score = ?, native_category = ?, probabilities = ?, "
                "seconds = ? "
                "WHERE exam_key = ? AND package_digest = ? AND profile = ?",
                (
                    reason.value if reason else None,
                    total,
                    json.dumps({vessel.value: score for vessel, score in (vessels or {}).items()}),
                    native_score,
                    native_category,
                    json.dumps(dict(probabilities or {})),
                    seconds,
                    exam_key,
                    package_digest,
                    profile,
                ),
            )
        self._under_way.discard((exam_key, package_digest, profile))

    def exams(self, package_digest: str, profile: str) -> dict[str, ExamRecord]:
        """Return every exam record of a package and scoring profile, by exam key."""
        rows = self._connection.execute(
            "SELECT exam_key, attempts, completions, reason, total, vessels, native_score, "
            "native_category, probabilities FROM exams WHERE package_digest = ? AND profile = ?",
            (package_digest, profile),
        )
        return {
            row[0]: ExamRecord(
                exam_key=row[0],
                attempts=row[1],
                completions=row[2],
                reason=ExclusionReason(row[3]) if row[3] else None,
                total=row[4],
                vessels={Vessel(name): score for name, score in json.loads(row[5] or "{}").items()},
                native_score=row[6],
                native_category=row[7],
                probabilities={int(name): p for name, p in json.loads(row[8] or "{}").items()},
            )
            for row in rows
        }

    # exchanges

    def add_reply(
        self, round_id: str, exchange: int, request_digest: str, reply: bytes, state: ExchangeState
    ) -> None:
        """Store the reply to an exchange; the first reply stored is the only one ever sent."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO exchanges VALUES (?, ?, ?, ?, ?)",
                (round_id, exchange, request_digest, state.value, reply),
            )

    def release_reply(self, round_id: str, exchange: int) -> bool:
        """Mark a held reply as released; False if there is none."""
        with self._transaction() as connection:
            cursor = connection.execute(
                "UPDATE exchanges SET state = ? WHERE round_id = ? AND exchange = ? AND state = ?",
                (ExchangeState.RELEASED.value, round_id, exchange, ExchangeState.HELD.value),
            )
        return cursor.rowcount == 1

    def replace_held_reply(self, round_id: str, exchange: int, reply: bytes) -> None:
        """Put another reply in the place of one that the site rejected before it left."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE exchanges SET reply = ?, state = ? "
                "WHERE round_id = ? AND exchange = ? AND state = ?",
                (
                    reply,
                    ExchangeState.RELEASED.value,
                    round_id,
                    exchange,
                    ExchangeState.HELD.value,
                ),
            )

    def reply(self, round_id: str, exchange: int) -> tuple[str, ExchangeState, bytes] | None:
        """Return (request digest, state, reply bytes) of an exchange, or None."""
        row = self._connection.execute(
            "SELECT request_digest, state, reply FROM exchanges "
            "WHERE round_id = ? AND exchange = ?",
            (round_id, exchange),
        ).fetchone()
        return None if row is None else (row[0], ExchangeState(row[1]), row[2])

    def held(self) -> tuple[tuple[str, int], ...]:
        """Return (round, exchange) of every reply that waits for the site's approval."""
        rows = self._connection.execute(
            "SELECT round_id, exchange FROM exchanges WHERE state = ? ORDER BY 1, 2",
            (ExchangeState.HELD.value,),
        )
        return tuple((row[0], int(row[1])) for row in rows)

    # documents of the masked sums and of reference scores

    def keep_documents(
        self, documents: Mapping[tuple[str, str], bytes], *, once: frozenset[str] = frozenset()
    ) -> None:
        """Store documents by kind and name, in the place of earlier ones, all of them or none.

        Raises
        ------
        IntegrityError
            If a document of a kind in `once` lies there already with other bytes: another process
            was faster, and what it stored holds.
        """
        with self._transaction() as connection:
            for (kind, name), payload in documents.items():
                if kind in once and self.document(kind, name) not in (None, payload):
                    raise IntegrityError(
                        "Another process has made this document.",
                        code="document_changed",
                        cure="Nothing is lost; the next step goes on with what was stored.",
                    )
            connection.executemany(
                "INSERT OR REPLACE INTO documents VALUES (?, ?, ?)",
                [(kind, name, payload) for (kind, name), payload in documents.items()],
            )

    def document(self, kind: str, name: str) -> bytes | None:
        """Return a stored document, or None."""
        row = self._connection.execute(
            "SELECT payload FROM documents WHERE kind = ? AND name = ?", (kind, name)
        ).fetchone()
        return None if row is None else bytes(row[0])
