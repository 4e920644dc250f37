"""Opens the coordinator's database, knows its schema, and upgrades it.

A new database gets the newest schema. An older one in a SQLite file is copied beside itself and
upgraded when it is opened: a coordinator on one machine has nobody to ask. A server's database is
shared and is upgraded when its owner says so, by `fedcac-coordinator database upgrade`. A newer one
is never opened.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError, InterfaceError
from sqlalchemy.pool import StaticPool

from coordinator.state.schema import HEAD, METADATA, REVISIONS
from fedcac.console import say
from fedcac.errors import IntegrityError, UsageError

__all__ = ["connect", "open_database", "schema_of", "upgrade_database"]

_BUSY_S = 30.0
_MIGRATIONS = Path(__file__).parent / "migrations"
# Any number will do, as long as nothing else on the server takes it.
_SCHEMA_LOCK = 0x66656463


def connect(url: str) -> Engine:
    """Return an engine for a URL; nothing is made or changed.

    Transactions that write take SQLite's lock at their beginning (execution option `writes`): one
    that reads first and writes later could find that another has written in between.

    Raises
    ------
    UsageError
        If the URL cannot be read, or its driver is not installed (`bad_database_url`), or there is
        no such server or it does not let us in (`no_database`).
    """
    try:
        if make_url(url).get_backend_name() != "sqlite":
            engine = create_engine(url, pool_pre_ping=True)
        elif _path_of(url) is None:
            engine = create_engine(url, poolclass=StaticPool)
        else:
            engine = create_engine(url, connect_args={"timeout": _BUSY_S})
    except (ArgumentError, ImportError) as error:
        raise UsageError(
            "The database's URL cannot be used.",
            code="bad_database_url",
            cure="Write sqlite:///FILE or postgresql+pg8000://USER:PASSWORD@HOST/NAME.",
        ) from error
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine)
    try:
        _make_private(_path_of(url) if engine.dialect.name == "sqlite" else None)
        with engine.connect():
            return engine
    except (DatabaseError, InterfaceError, OSError) as error:
        engine.dispose()
        raise UsageError(
            f"The database at {make_url(url).render_as_string()} cannot be opened.",
            code="no_database",
            cure="Check that the server runs, that its name and port are right, and the password.",
        ) from error


def _path_of(url: str) -> Path | None:
    name = make_url(url).database
    return Path(name) if name and name != ":memory:" else None


def _make_private(path: Path | None) -> None:
    # The processes that talk to sites are other users of the same machine.
    if path is not None and not path.exists():
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _: object) -> None:
        # The driver's own transactions begin too late, and not at all before a CREATE.
        connection.isolation_level = None
        if _path_of(str(engine.url)) is not None:
            # A dashboard reads while the engine writes.
            with suppress(sqlite3.OperationalError):
                # The mode is the file's: where it cannot be set, another process is setting it.
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        is_writing = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")


def schema_of(engine: Engine) -> str | None:
    """Return the schema of a database, or None if it is empty.

    A database without a stamp, made by the first release, has schema 0001.
    """
    with engine.connect() as connection:
        tables = set(inspect(connection).get_table_names())
        if "alembic_version" in tables:
            found = connection.execute(text("SELECT version_num FROM alembic_version")).first()
            if found is not None:
                return str(found.version_num)
        return REVISIONS[0] if "rounds" in tables else None


def open_database(url: str) -> Engine:
    """Return an engine over a database with the newest schema.

    Raises
    ------
    UsageError
        As `connect`.
    IntegrityError
        `schema_newer` if a later release made it; `schema_older` if it is a server's and an
        earlier release made it.
    """
    engine = connect(url)
    try:
        _bring_up(engine, url)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _bring_up(engine: Engine, url: str) -> None:
    schema = schema_of(engine)
    if schema == HEAD:
        return
    if schema is None:
        with _alone(engine, url):
            _create(engine)
    elif _path_of(url) is None or engine.dialect.name != "sqlite":
        _check_known(schema)
        raise IntegrityError(
            f"The coordinator's database has schema {schema}; this release needs {HEAD}.",
            code="schema_older",
            cure="Make a backup, stop every coordinator, then run `fedcac-coordinator database "
            "upgrade`.",
        )
    else:
        upgrade_database(engine, url)


def upgrade_database(engine: Engine, url: str) -> tuple[str | None, Path | None]:
    """Bring a database to the newest schema.

    Returns
    -------
    The schema it had, and where the copy of a SQLite file as it was lies; (HEAD, None) if there
    was nothing to do.

    Raises
    ------
    IntegrityError
        `schema_newer` if a later release made it.
    """
    with _alone(engine, url):
        schema = schema_of(engine)
        if schema is None:
            _create(engine)
            return None, None
        _check_known(schema)
        if schema == HEAD:
            return schema, None
        copy = _back_up(url, schema) if engine.dialect.name == "sqlite" else None
        _migrate(engine, schema)
    if copy is not None:
        say(f"The database was upgraded from schema {schema} to {HEAD}; as it was: {copy}")
    return schema, copy


def _check_known(schema: str) -> None:
    if schema not in REVISIONS:
        raise IntegrityError(
            f"The coordinator's database has schema {schema}, which this release does not know; "
            f"its newest is {HEAD}.",
            code="schema_newer",
            cure="Install the release that wrote it, or a later one.",
        )


def _create(engine: Engine) -> None:
    if schema_of(engine) is not None:
        return
    with engine.execution_options(writes=True).begin() as connection:
        METADATA.create_all(connection)
        connection.execute(
            text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
        )
        connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})


def _migrate(engine: Engine, schema: str) -> None:
    from alembic import command
    from alembic.config import Config

    with engine.execution_options(writes=True).begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        if "alembic_version" not in inspect(connection).get_table_names():
            command.stamp(config, schema)
        command.upgrade(config, "head")


def _back_up(url: str, schema: str) -> Path | None:
    path = _path_of(url)
    if path is None:
        return None
    number = 1
    while (copy := path.with_name(f"{path.name}.schema-{schema}.{number}")).exists():
        number += 1
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


@contextmanager
def _alone(engine: Engine, url: str) -> Iterator[None]:
    """Keep other processes from making or upgrading the same database meanwhile."""
    path = _path_of(url)
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _SCHEMA_LOCK})
            connection.commit()
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _SCHEMA_LOCK})
                connection.commit()
        return
    if path is None:
        yield
        return
    with path.with_name(path.name + ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
