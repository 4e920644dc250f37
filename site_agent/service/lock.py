"""One agent on a site's folder at a time.

The lock is the operating system's (flock), not the file: it ends with the process that holds it,
however that ends, so that what a killed agent left behind is taken over without a question.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedcac.errors import UsageError

__all__ = ["agent_lock", "running_agent"]


@contextmanager
def agent_lock(path: Path) -> Iterator[None]:
    """Hold the folder's lock; the file names the process for people to read.

    Raises
    ------
    UsageError
        `agent_running` if another agent works on the folder.
    """
    # 0600, and never removed: removing a lock file lets two processes lock two files.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"Another agent works on this folder ({_holder(descriptor)}).",
                code="agent_running",
                cure="Stop that one first (`systemctl stop`, or end the process), or leave the "
                "work to it: `fedcac-site status` shows what it does.",
            ) from error
        _note(descriptor)
        yield
    finally:
        os.close(descriptor)


def _note(descriptor: int) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
    except OSError:
        # The number is for people only; the lock holds without it, on a full disk too.
        return


def _holder(descriptor: int) -> str:
    text = os.pread(descriptor, 32, 0).decode("ascii", errors="replace").strip()
    return f"process {text}" if text.isdigit() else "its number is not known"


def running_agent(path: Path) -> bool:
    """Say whether an agent holds the lock now."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
