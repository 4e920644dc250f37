"""The tables of a site's database, and how an older one becomes one of this release."""

from __future__ import annotations

import sqlite3

from fedcac.errors import IntegrityError

__all__ = ["prepare_schema"]

_SCHEMA_VERSION = 2

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rounds (
    round_id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    offer_digest TEXT NOT NULL,
    protocol_digest TEXT NOT NULL,
    package_digest TEXT,
    refusal TEXT
);
CREATE TABLE IF NOT EXISTS cohorts (
    round_id TEXT PRIMARY KEY,
    payload TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS protocols_seen (
    protocol_id TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    digest TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS exams (
    exam_key TEXT NOT NULL,
    package_digest TEXT NOT NULL,
    profile TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    completions INTEGER NOT NULL,
    reason TEXT,
    total REAL,
    vessels TEXT,
    native_score REAL,
    seconds REAL,
    native_category TEXT,
    probabilities TEXT,
    PRIMARY KEY (exam_key, package_digest, profile)
);
CREATE TABLE IF NOT EXISTS exchanges (
    round_id TEXT NOT NULL,
    exchange INTEGER NOT NULL,
    request_digest TEXT NOT NULL,
    state TEXT NOT NULL,
    reply BLOB NOT NULL,
    PRIMARY KEY (round_id, exchange)
);
CREATE TABLE IF NOT EXISTS documents (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (kind, name)
);
"""

_STEPS = {
    # What a model answers beside an Agatston score.
    1: (
        "ALTER TABLE exams ADD COLUMN native_category TEXT",
        "ALTER TABLE exams ADD COLUMN probabilities TEXT",
    ),
}
"""From each earlier version to the next one."""


def prepare_schema(connection: sqlite3.Connection) -> None:
    """Make the tables of an empty database, or those of an older release into this one's.

    One transaction: another process finds the old tables or the new ones.

    Raises
    ------
    IntegrityError
        `schema_version` if a later release wrote the database.
    """
    if _version(connection) == _SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        if not 0 <= version <= _SCHEMA_VERSION:
            raise IntegrityError(
                f"The site's database has schema {version}; this release reads {_SCHEMA_VERSION}.",
                code="schema_version",
                cure="Run the release that wrote it.",
            )
        for number in range(version or _SCHEMA_VERSION, _SCHEMA_VERSION):
            for step in _STEPS[number]:
                connection.execute(step)
        for statement in filter(str.strip, _SCHEMA.split(";")):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        # SQLite itself rolls some faults back, such as a full disk.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
