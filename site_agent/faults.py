"""Whatever ends a step, as a problem with a code and a cure; never with a foreign message.

The text of an exception that this project did not raise may quote a patient's value or the path of
an exam. Of such an exception only the class and the places in the code are kept.
"""

from __future__ import annotations

import errno
import sqlite3
import traceback
from pathlib import Path

from fedcac.errors import FedcacError, ResourceError

__all__ = ["MINIMUM_FREE_MB", "as_problem", "disk_full"]

MINIMUM_FREE_MB = 256
"""With less room on a disk an agent pauses, unless `run --minimum-free-mb` says otherwise."""


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_SQLITE_FULL, _SQLITE_BUSY, _SQLITE_CANT_OPEN = 13, 5, 14
_N_PLACES = 4


def as_problem(error: BaseException) -> FedcacError:
    """Return an error of this project's tree; another one's class and places stand for it."""
    if isinstance(error, FedcacError):
        return error
    problem = _resource(error) or FedcacError(
        f"An unexpected fault: {type(error).__name__} at {_places_of(error)}.",
        code="unexpected",
        cure="It is tried again; if it stays, report the line above, which holds nothing of a "
        "patient.",
    )
    problem.__cause__ = error
    return problem


def disk_full(free_mb: int | None = None) -> ResourceError:
    """Return the problem of a disk without room; `free_mb` is what was measured, in MB."""
    measured = "" if free_mb is None else f" ({free_mb} MB are free)"
    return ResourceError(
        f"There is no room left on a disk that the agent writes to{measured}.",
        code="disk_full",
        cure="Make room; the agent goes on by itself, and nothing is lost. "
        "`fedcac-site doctor --only disk` says what is needed.",
    )


def _resource(error: BaseException) -> ResourceError | None:
    if isinstance(error, sqlite3.Error):
        return _database(error)
    if not isinstance(error, OSError):
        return None
    if error.errno in _FULL:
        return disk_full()
    if error.errno in _DENIED:
        return ResourceError(
            "A file or folder that the agent needs may not be read or written by its user.",
            code="not_permitted",
            cure="Run it as the agent's user (`sudo -u`); if it is, "
            "`fedcac-site doctor --only user,spool,identity` says which file to mend.",
        )
    if error.errno == errno.EIO:
        return ResourceError(
            "A disk answers with input or output errors.",
            code="disk_fault",
            cure="Have the disk checked; restore the site's folder from a backup if it is damaged.",
        )
    return None


def _database(error: sqlite3.Error) -> ResourceError | None:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    # Without room SQLite cannot make its journal's files either.
    if code == _SQLITE_FULL or "disk I/O error" in str(error):
        return disk_full()
    if code in (_SQLITE_BUSY, _SQLITE_CANT_OPEN):
        return ResourceError(
            "The site's database cannot be opened, or another process holds it.",
            code="database_busy",
            cure="It is tried again; if it stays, `fedcac-site doctor --only database,user,disk`.",
        )
    return None


def _places_of(error: BaseException) -> str:
    """Return where an exception came from, innermost last: module names and lines only."""
    frames = traceback.extract_tb(error.__traceback__)[-_N_PLACES:]
    return " > ".join(f"{Path(frame.filename).stem}:{frame.lineno}" for frame in frames) or "?"
