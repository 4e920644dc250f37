"""A real PostgreSQL for tests: Debian's, on a socket in a temporary folder, with its own data."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import create_engine, text

__all__ = ["Postgres", "postgres_or_skip", "started"]

_BINARIES = Path("/usr/lib/postgresql")
_START_LIMIT_S = 240.0
_USER = "fedcac"


def postgres_or_skip() -> Path:
    """Return the newest server's binaries; skip without, but fail in continuous integration."""
    found = sorted(_BINARIES.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    reason = "PostgreSQL is not installed: apt-get install postgresql"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass(frozen=True)
class Postgres:
    """A running server; every test gets a database of its own."""

    folder: Path
    port: int
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def url(self, database: str) -> str:
        """Return the URL of a database over the server's socket."""
        socket = quote(f"{self.folder}/.s.PGSQL.{self.port}", safe="")
        return f"postgresql+pg8000://{_USER}@/{database}?unix_sock={socket}"

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"test{next(self.numbers)}"
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self.url(name)


def _as_user(*command: str) -> list[str]:
    # The server refuses to run as root.
    if os.geteuid() != 0:
        return list(command)
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--", *command]


@contextmanager
def started() -> Iterator[Postgres]:
    """Run a server until the block ends."""
    binaries = postgres_or_skip()
    # A socket's path must be short, and its folder open to the server's user.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody", "nogroup")
    # Nothing listens on a network: the port is but a part of the socket's name.
    port, data, log = 5432, folder / "data", folder / "log"
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "HOME": str(folder)}
    try:
        subprocess.run(
            _as_user(str(binaries / "initdb"), "-D", str(data), "-U", _USER, "-A", "trust", "-N"),
            check=True,
            capture_output=True,
            env=environment,
            cwd=folder,
        )
        options = {
            "unix_socket_directories": str(folder),
            "listen_addresses": "",
            "port": str(port),
            "fsync": "off",
            "full_page_writes": "off",
            "shared_buffers": "16MB",
            "max_connections": "50",
        }
        flags = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        with log.open("wb") as stream:
            process = subprocess.Popen(
                _as_user(str(binaries / "postgres"), "-D", str(data), *flags),
                stdout=stream,
                stderr=stream,
                env=environment,
                cwd=folder,
            )
        try:
            server = Postgres(folder, port)
            _wait(server, process, log)
            yield server
        finally:
            # SIGINT is the server's fast shutdown.
            process.send_signal(2)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(server: Postgres, process: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + _START_LIMIT_S
    engine = create_engine(server.url("postgres"))
    try:
        while time.monotonic() < limit and process.poll() is None:
            try:
                with engine.connect():
                    return
            except Exception:
                time.sleep(0.1)
    finally:
        engine.dispose()
    pytest.fail(f"PostgreSQL did not start: {log.read_text(errors='replace')[-2000:]}")
