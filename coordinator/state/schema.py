"""The tables of the coordinator's database, as the newest migration leaves them.

Times are UTC without a zone, because SQLite has none. Whoever changes a table adds a migration to
`coordinator/state/migrations/versions`, and its name to `REVISIONS`; a test compares the two.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    DDL,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    event,
)

__all__ = [
    "APPEND_ONLY",
    "AUDIT",
    "AUDIT_APPEND_ONLY",
    "EDITIONS",
    "EVENTS",
    "HEAD",
    "LEASES",
    "METADATA",
    "PARCELS",
    "PROTOCOLS",
    "REVISIONS",
    "ROUNDS",
    "SIGN_IN_FAILURES",
    "SITES",
    "USERS",
    "USER_SESSIONS",
]

REVISIONS: Final = ("0001", "0002", "0003")
"""Every schema there has been, oldest first; 0001 is that of databases without a stamp."""

HEAD: Final = REVISIONS[-1]

METADATA: Final = MetaData()

SITES: Final = Table(
    "sites",
    METADATA,
    Column("name", String(40), primary_key=True),
    Column("public_key", String(100), nullable=False),
    Column("spool", String(1000), nullable=False),
)
PROTOCOLS: Final = Table(
    "protocols",
    METADATA,
    Column("protocol_id", String(60), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("digest", String(80), nullable=False),
)
# `deadline`, `minimum_sites`, `quorum` and `edition_at` are those of the newest edition.
ROUNDS: Final = Table(
    "rounds",
    METADATA,
    Column("round_id", String(80), primary_key=True),
    Column("state", String(20), nullable=False),
    Column("minimum_sites", Integer, nullable=False),
    Column("started_at", DateTime, nullable=False),
    Column("deadline", DateTime, nullable=False),
    Column("finished_at", DateTime),
    Column("quorum", Integer),
    Column("edition", Integer, nullable=False, server_default="1"),
    Column("edition_at", DateTime),
)
EDITIONS: Final = Table(
    "editions",
    METADATA,
    Column("round_id", String(80), primary_key=True),
    Column("edition", Integer, primary_key=True),
    Column("started_at", DateTime, nullable=False),
    Column("deadline", DateTime, nullable=False),
    Column("finished_at", DateTime),
    Column("outcome", String(20)),
    Column("added", Text, nullable=False),
    Column("sites", Text, nullable=False),
    Column("reason", Text, nullable=False),
)
PARCELS: Final = Table(
    "parcels",
    METADATA,
    Column("round_id", String(80), primary_key=True),
    Column("direction", String(10), primary_key=True),
    Column("site", String(40), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("payload", LargeBinary, nullable=False),
    Column("at", DateTime),
)
EVENTS: Final = Table(
    "events",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("at", DateTime, nullable=False),
    Column("round_id", String(80), index=True),
    Column("actor", String(80), nullable=False),
    Column("what", String(30), nullable=False),
    Column("site", String(40)),
    Column("detail", Text, nullable=False),
    sqlite_autoincrement=True,
)
LEASES: Final = Table(
    "leases",
    METADATA,
    Column("name", String(120), primary_key=True),
    Column("holder", String(200), nullable=False),
    Column("beaten_at", DateTime, nullable=False),
    Column("expires_at", DateTime, nullable=False),
)
# Of the dashboard: a password is argon2's hash, a link or a session the SHA-256 of its token.
USERS: Final = Table(
    "users",
    METADATA,
    Column("name", String(40), primary_key=True),
    Column("role", String(20), nullable=False),
    Column("password", String(200)),
    Column("created_at", DateTime, nullable=False),
    Column("disabled_at", DateTime),
    Column("link_hash", String(64)),
    Column("link_until", DateTime),
)
USER_SESSIONS: Final = Table(
    "user_sessions",
    METADATA,
    Column("token_hash", String(64), primary_key=True),
    Column("user_name", String(40), nullable=False, index=True),
    Column("address", String(60), nullable=False),
    Column("browser", String(200), nullable=False),
    Column("created_at", DateTime, nullable=False),
    Column("used_at", DateTime, nullable=False),
)
SIGN_IN_FAILURES: Final = Table(
    "sign_in_failures",
    METADATA,
    Column("name", String(120), primary_key=True),
    Column("n_failures", Integer, nullable=False),
    Column("last_at", DateTime, nullable=False),
)
AUDIT: Final = Table(
    "audit",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("at", DateTime, nullable=False),
    Column("user_name", String(40), nullable=False),
    Column("what", String(40), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("address", String(60), nullable=False),
    sqlite_autoincrement=True,
)

APPEND_ONLY: Final[dict[str, tuple[str, ...]]] = {
    "sqlite": tuple(
        f"CREATE TRIGGER events_no_{word} BEFORE {word.upper()} ON events "
        "BEGIN SELECT RAISE(ABORT, 'events are only added'); END"
        for word in ("update", "delete")
    ),
    "postgresql": (
        "CREATE FUNCTION refuse_event_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'events are only added'; END $$",
        "CREATE TRIGGER events_only_added BEFORE UPDATE OR DELETE ON events "
        "FOR EACH ROW EXECUTE FUNCTION refuse_event_change()",
        "CREATE TRIGGER events_not_emptied BEFORE TRUNCATE ON events "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_event_change()",
    ),
}
"""What keeps the table of events from being rewritten, by the database's dialect."""

AUDIT_APPEND_ONLY: Final[dict[str, tuple[str, ...]]] = {
    "sqlite": tuple(
        f"CREATE TRIGGER audit_no_{word} BEFORE {word.upper()} ON audit "
        "BEGIN SELECT RAISE(ABORT, 'the audit trail is only added to'); END"
        for word in ("update", "delete")
    ),
    "postgresql": (
        "CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the audit trail is only added to'; END $$",
        "CREATE TRIGGER audit_only_added BEFORE UPDATE OR DELETE ON audit "
        "FOR EACH ROW EXECUTE FUNCTION refuse_audit_change()",
        "CREATE TRIGGER audit_not_emptied BEFORE TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()",
    ),
}
"""The same for the dashboard's audit trail."""

for _table, _by_dialect in ((EVENTS, APPEND_ONLY), (AUDIT, AUDIT_APPEND_ONLY)):
    for _dialect, _statements in _by_dialect.items():
        for _statement in _statements:
            _ddl = DDL(_statement)  # type: ignore[no-untyped-call]
            event.listen(_table, "after_create", _ddl.execute_if(dialect=_dialect))
