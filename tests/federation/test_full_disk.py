"""A full disk at a site: the agent says so and waits; nothing is lost, nothing leaves twice."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from site_bench import Bench, watch_writes

from fedcac.errors import ResourceError
from site_agent.faults import as_problem
from site_agent.rounds.agent import SiteAgent

ROUND = "eng-0001"


def full(kind: str) -> Exception:
    """Return what the operating system, or SQLite, raises on a full disk."""
    if kind == "file":
        return OSError(errno.ENOSPC, "No space left on device", "/srv/site/spool/outbox/.part-1")
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error


def worked(bench: Bench) -> dict[str, str]:
    """Open the folder, take a step, and return the codes of what stands in its way."""
    with bench.agent() as agent:
        agent.step()
        agent.step()
        return {name: problem.code for name, problem in agent.problems.items()}


def test_full_at_every_write_of_a_round(tmp_path: Path) -> None:
    """Each write fails once with ENOSPC, or with SQLite's own code; then there is room again."""
    number, codes = 0, Counter()
    while True:
        folder = tmp_path / str(number)
        folder.mkdir()
        bench = Bench(folder, approval="auto", n_exams=1)
        bench.offer(ROUND)
        bench.ask(ROUND)
        left = number
        has_failed = False

        def count(kind: str) -> None:
            nonlocal left, has_failed
            left -= 1
            if left < 0:
                has_failed = True
                raise full(kind)

        end = watch_writes(count)
        try:
            problems = worked(bench)
        except (OSError, sqlite3.Error) as error:
            # The database could not even be opened: the service pauses on that, too.
            problems = {"": as_problem(error).code}
        finally:
            end()
        if not has_failed:
            assert problems == {}
            break
        codes.update(problems.values())
        # A new session after the pause, as the service has one.
        assert worked(bench) == {}
        assert bench.completions() == Counter({1: 1})
        ledger = bench.ledger_keys()
        assert len(set(ledger)) == len(ledger) == len(bench.protocol.analyses) + 1
        assert sorted(bench.outbox()) == [f"{ROUND}.acceptance", f"{ROUND}.reply-0001"]
        number += 1
    assert number > 15
    # An entry that was written and perhaps not synced is not the open ledger's: that session
    # answers nothing more, and the next one finds the entry and gives the same answer.
    assert set(codes) <= {"resource.disk_full", "integrity.foreign_entry"}
    assert codes["resource.disk_full"] > 10


def test_a_step_goes_on_in_the_same_session(tmp_path: Path) -> None:
    """A transaction that a full disk broke off does not block the next one."""
    bench = Bench(tmp_path, approval="auto")
    bench.offer(ROUND)
    commits = 0

    def count(kind: str) -> None:
        nonlocal commits
        commits += kind == "database"
        if commits in (2, 4):
            commits += 1
            raise full(kind)

    end = watch_writes(count)
    try:
        with bench.agent() as agent:
            seen = [_codes(agent) for _ in range(4)]
    finally:
        end()
    assert ["resource.disk_full"] in seen
    assert seen[-1] == []
    assert bench.states() == {ROUND: "answering"}


def _codes(agent: SiteAgent) -> list[str]:
    agent.step()
    return [problem.code for problem in agent.problems.values()]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 3 MB, mounted for this test."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("mounting a small file system needs root")
    command = [mount, "-t", "tmpfs", "-o", "size=3m", "fedcac-test", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here, root or not")
    yield folder
    # Lazily: a test that failed may hold a file open, and must not keep the mount for others.
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    bench = Bench(small_disk, approval="auto", n_exams=40)
    bench.offer(ROUND)
    bench.ask(ROUND)
    ballast = small_disk / "ballast"
    seen: set[str] = set()
    for free_kb in (0, 4, 12, 24, 48, 96):
        _fill(ballast, free_kb)
        try:
            seen |= set(worked(bench).values())
        except (OSError, sqlite3.Error) as error:
            problem = as_problem(error)
            assert isinstance(problem, ResourceError)
            seen.add(problem.code)
    assert "resource.disk_full" in seen
    assert seen <= {"resource.disk_full", "resource.database_busy"}
    ballast.unlink()
    assert worked(bench) == {}
    assert bench.completions() == Counter({1: 40})
    ledger = bench.ledger_keys()
    assert len(set(ledger)) == len(ledger) == len(bench.protocol.analyses) + 1
    assert len(bench.reply(ROUND).answers) == len(bench.protocol.analyses)


def _fill(ballast: Path, free_kb: int) -> None:
    """Leave so much room, in steps of a page of memory."""
    ballast.unlink(missing_ok=True)
    facts = os.statvfs(ballast.parent)
    n_bytes = facts.f_bavail * facts.f_frsize - free_kb * 1024
    ballast.write_bytes(b"\0" * max(0, n_bytes))
