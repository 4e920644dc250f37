"""The coordinator's database: schemas, upgrades, leases and events, on SQLite and PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import DatabaseError

from coordinator.__main__ import main
from coordinator.state.database import connect, open_database, schema_of, upgrade_database
from coordinator.state.records import Event, EventKind, RoundRecord, RoundState
from coordinator.state.schema import HEAD, METADATA, REVISIONS
from coordinator.state.store import CoordinatorStore, Direction
from fedcac.errors import FedcacError, IntegrityError

START = datetime(2026, 1, 1, tzinfo=UTC)
LATER = START + timedelta(days=10)

# The tables as the first release made them, without a stamp.
FIRST = """
CREATE TABLE sites (name VARCHAR(40) NOT NULL PRIMARY KEY, public_key VARCHAR(100) NOT NULL,
    spool VARCHAR(1000) NOT NULL);
CREATE TABLE protocols (protocol_id VARCHAR(60) NOT NULL PRIMARY KEY, version INTEGER NOT NULL,
    digest VARCHAR(80) NOT NULL);
CREATE TABLE rounds (round_id VARCHAR(80) NOT NULL PRIMARY KEY, state VARCHAR(20) NOT NULL,
    minimum_sites INTEGER NOT NULL, started_at {time} NOT NULL, deadline {time} NOT NULL,
    finished_at {time});
CREATE TABLE parcels (round_id VARCHAR(80) NOT NULL, direction VARCHAR(10) NOT NULL,
    site VARCHAR(40) NOT NULL, name VARCHAR(200) NOT NULL, payload {bytes} NOT NULL,
    PRIMARY KEY (round_id, direction, site, name));
INSERT INTO rounds VALUES ('old-round', 'pooled', 2, '2026-01-01 00:00:00.000000',
    '2026-01-11 00:00:00.000000', '2026-01-05 00:00:00.000000');
"""


def make_first(url: str) -> None:
    engine = connect(url)
    kinds = {"time": "DATETIME", "bytes": "BLOB"}
    if engine.dialect.name == "postgresql":
        kinds = {"time": "TIMESTAMP", "bytes": "BYTEA"}
    with engine.execution_options(writes=True).begin() as connection:
        for statement in FIRST.format(**kinds).split(";\n"):
            if statement.strip():
                connection.execute(text(statement))
    engine.dispose()


def add_round(store: CoordinatorStore, round_id: str = "round-1") -> RoundRecord:
    record = RoundRecord(round_id, RoundState.DRAFT, 2, START, LATER, None)
    store.add_round(record, {"a": b"1"}, ("p", 1, "d"))
    return record


def test_a_new_database_has_the_newest_schema_and_the_migrations_make_the_same(
    new_database: Callable[[], str],
) -> None:
    fresh, old = new_database(), new_database()
    make_first(old)
    for url in (fresh, old):
        engine = connect(url)
        assert schema_of(engine) == (None if url == fresh else REVISIONS[0])
        upgrade_database(engine, url)
        assert schema_of(engine) == HEAD
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
            assert {"events", "leases", "editions"} < set(inspect(connection).get_table_names())
        assert upgrade_database(engine, url) == (HEAD, None)
        engine.dispose()


def test_every_migration_has_its_name_in_the_list() -> None:
    from coordinator.state import migrations

    files = sorted((Path(migrations.__file__).parent / "versions").glob("r*.py"))
    assert tuple(path.name[1:5] for path in files) == REVISIONS


def test_an_old_file_is_copied_and_upgraded_and_an_old_server_is_not(
    new_database: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    url = new_database()
    make_first(url)
    if url.startswith("postgresql"):
        with pytest.raises(IntegrityError, match=r"database upgrade.*") as caught:
            CoordinatorStore(url)
        assert caught.value.code == "integrity.schema_older"
        engine = connect(url)
        assert schema_of(engine) == "0001"
        upgrade_database(engine, url)
        engine.dispose()
    store = CoordinatorStore(url)
    record = store.round("old-round")
    assert (record.state, record.edition, record.quorum) == (RoundState.POOLED, 1, None)
    (edition,) = store.editions("old-round")
    assert (edition.outcome, edition.finished_at) == (RoundState.POOLED, record.finished_at)
    store.close()
    if url.startswith("sqlite"):
        copy = Path(url.removeprefix("sqlite:///") + ".schema-0001.1")
        assert str(copy) in capsys.readouterr().err
        before = create_engine(f"sqlite:///{copy}")
        assert schema_of(before) == "0001"
        before.dispose()


def test_a_newer_database_is_refused_and_left_alone(new_database: Callable[[], str]) -> None:
    url = new_database()
    engine = open_database(url)
    with engine.execution_options(writes=True).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for act in (lambda: CoordinatorStore(url), lambda: upgrade_database(engine, url)):
        with pytest.raises(IntegrityError, match="9999") as caught:
            act()
        assert caught.value.code == "integrity.schema_newer"
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("no url at all", "usage.bad_database_url"),
        ("postgresql+nodriver://x/y", "usage.bad_database_url"),
        ("sqlite:////no/such/folder/x.sqlite", "usage.no_database"),
        ("postgresql+pg8000://u:secret@127.0.0.1:1/x", "usage.no_database"),
    ],
)
def test_a_database_that_cannot_be_opened_says_so_without_its_password(url: str, code: str) -> None:
    with pytest.raises(FedcacError) as caught:
        CoordinatorStore(url)
    assert caught.value.code == code
    assert "secret" not in str(caught.value)


def test_events_are_only_added(database_url: str) -> None:
    store = CoordinatorStore(database_url)
    add_round(store)
    event = Event(START, "lead", EventKind.LAUNCHED, "round-1", detail={"n": 1})
    store.events.add(event, Event(LATER, "north", EventKind.ACCEPTED, "round-1", "north"))
    found = store.events.of("round-1")
    assert [(one.at, one.actor, one.what, dict(one.detail)) for one in found] == [
        (START, "lead", EventKind.LAUNCHED, {"n": 1}),
        (LATER, "north", EventKind.ACCEPTED, {}),
    ]
    assert store.events.of(after=found[0].number) == found[1:]
    assert store.events.of("other") == ()
    store.close()
    engine = connect(database_url)
    changes = ["UPDATE events SET actor = 'x'", "DELETE FROM events"]
    if engine.dialect.name == "postgresql":
        changes.append("TRUNCATE events")
    for statement in changes:
        with (
            pytest.raises(DatabaseError, match="only added"),
            engine.execution_options(writes=True).begin() as connection,
        ):
            connection.execute(text(statement))
    engine.dispose()


def test_two_that_do_the_same_leave_one_row_and_one_event(database_url: str) -> None:
    first, second = CoordinatorStore(database_url), CoordinatorStore(database_url)
    record = add_round(first)
    offered = Event(START, "engine", EventKind.OFFERED, "round-1")
    assert first.move(record, RoundState.OFFERED, offered)
    assert not second.move(record, RoundState.OFFERED, offered)
    told = Event(START, "engine", EventKind.REPLIED, "round-1")
    for store, is_new in ((first, True), (second, False)):
        assert (
            store.add_parcel("round-1", Direction.SENT, "b", b"2", at=START, events=[told])
            is is_new
        )
    with pytest.raises(IntegrityError, match="parcel_changed"):
        second.add_parcel("round-1", Direction.SENT, "b", b"3", events=[told])
    assert [one.what for one in first.events.of()] == [EventKind.OFFERED, EventKind.REPLIED]
    for store in (first, second):
        store.close()


def test_a_lease_is_one_holders_and_of_a_dead_one_the_next(database_url: str) -> None:
    first, second = (CoordinatorStore(database_url, lease_s=0.4) for _ in range(2))
    with first.leases.hold("round:r") as held:
        assert held is not None
        time.sleep(0.6)
        # Longer than the lease is: its holder beats.
        held.check()
        with second.leases.hold("round:r") as other:
            assert other is None
        with second.leases.hold("round:s") as another:
            assert another is not None
    with second.leases.hold("round:r") as after:
        assert after is not None
        assert first.leases.holder("round:r") is not None
    assert first.leases.holder("round:r") is None
    # A holder that nobody knows of keeps its lease until its time is up.
    engine = connect(database_url)
    with engine.execution_options(writes=True).begin() as connection:
        connection.execute(
            text("INSERT INTO leases VALUES ('round:t', 'elsewhere/1:7:x', :now, :end)"),
            {"now": datetime(2026, 1, 1), "end": datetime(2099, 1, 1)},
        )
    with first.leases.hold("round:t") as absent:
        assert absent is None
    with engine.execution_options(writes=True).begin() as connection:
        connection.execute(text("UPDATE leases SET expires_at = beaten_at WHERE name = 'round:t'"))
    with first.leases.hold("round:t") as mine:
        assert mine is not None
        with engine.execution_options(writes=True).begin() as connection:
            connection.execute(text("UPDATE leases SET holder = 'a/1:7:y' WHERE name = 'round:t'"))
        limit = time.monotonic() + 120
        while not mine.is_lost and time.monotonic() < limit:
            time.sleep(0.02)
        with pytest.raises(FedcacError, match="lease_lost"):
            mine.check()
    engine.dispose()
    for store in (first, second):
        store.close()


HOLDER = """
import sys, time
from coordinator.state.store import CoordinatorStore
store = CoordinatorStore(sys.argv[1])
for turn in range(40):
    with store.leases.hold("round:r", 60) as lease:
        assert lease is not None
        with open(sys.argv[2], "a+") as book:
            book.seek(0)
            inside = int(book.read() or 0)
            book.truncate(0)
            book.write(str(inside + 1))
            book.flush()
        time.sleep(0.002)
        with open(sys.argv[2], "r+") as book:
            assert int(book.read()) == inside + 1, "two processes held one lease"
if len(sys.argv) > 3:
    sys.stdin.readline()
    with store.leases.hold("round:r", 60):
        print("held", flush=True)
        time.sleep(600)
"""


def test_two_processes_take_turns_and_a_killed_one_is_followed_at_once(
    database_url: str, tmp_path: Path
) -> None:
    CoordinatorStore(database_url).close()
    book = tmp_path / "book"
    command = [sys.executable, "-c", HOLDER, database_url, str(book)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    first = subprocess.Popen(
        [*command, "stay"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    assert first.stdin is not None
    assert first.stdout is not None
    second = subprocess.Popen(command, env=environment)
    try:
        assert second.wait(timeout=120) == 0
        first.stdin.write(b"go on\n")
        first.stdin.flush()
        assert first.stdout.readline() == b"held\n"
        assert book.read_text() == "80"
        store = CoordinatorStore(database_url)
        with store.leases.hold("round:r") as lease:
            assert lease is None
        first.send_signal(signal.SIGKILL)
        first.wait()
        with store.leases.hold("round:r") as lease:
            assert lease is not None
        store.close()
    finally:
        first.kill()
        first.wait()
        first.stdin.close()
        first.stdout.close()


def test_the_database_verbs(
    new_database: Callable[[], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = ["--home", str(tmp_path / "lead")]
    assert main([*home, "init"]) == 0
    url = new_database()
    make_first(url)
    capsys.readouterr()
    if url.startswith("postgresql"):
        # A server's database is not upgraded in passing, nor used before it is.
        assert main([*home, "database", "use", url, "--format", "json"]) == 11
        assert json.loads(capsys.readouterr().out)["data"]["code"] == "integrity.schema_older"
        (tmp_path / "lead" / "database.url").write_text(url)
    else:
        path = Path(url.removeprefix("sqlite:///"))
        path.rename(tmp_path / "lead" / "coordinator.sqlite")
    assert main([*home, "database", "show", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["schema"] == "0001"
    assert main([*home, "database", "upgrade", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["after"] == HEAD
    assert main([*home, "round", "status", "--format", "json"]) != 1
    if url.startswith("postgresql"):
        assert main([*home, "database", "use", url]) == 0
        assert oct((tmp_path / "lead" / "database.url").stat().st_mode)[-3:] == "600"
