"""The service's log: one line an event, in text or JSON, to standard error or a rotating file.

Only this project's own loggers are heard: a library may quote a header or a path. What libraries
and reading processes write to standard error by themselves goes nowhere while the service keeps a
log, for the same reason.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Literal, TextIO

from site_agent.redaction import redacted

__all__ = ["LogPlan", "kept_log", "log_event"]

_OWN = ("site_agent", "fedcac")
_STANDARD_ERROR = 2
_FILE_BYTES = 10 * 2**20
_FILES_KEPT = 5

Format = Literal["text", "json"]
LogPlan = tuple[Format, Path | None]
"""Form of a line, and the file it goes to; None for standard error."""

_LOG = logging.getLogger("site_agent.service")


def log_event(event: str, message: str = "", *, level: int = logging.INFO, **facts: object) -> None:
    """Log an event by its fixed name, with facts that name nobody: round, code, counts."""
    _LOG.log(level, "%s", message or event, extra={"event": event, "facts": facts})


class _TextLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = " ".join(f"{name}={value}" for name, value in _facts(record).items())
        line = f"{_when(record)} {record.levelname} {redacted(record.getMessage())}"
        return f"{line} {facts}".rstrip().replace("\n", " | ")


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": _when(record),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "message"),
            "logger": record.name,
            "message": redacted(record.getMessage()),
            **_facts(record),
        }
        return json.dumps(document, ensure_ascii=False, default=str)


def _facts(record: logging.LogRecord) -> dict[str, object]:
    facts: dict[str, object] = getattr(record, "facts", {})
    return facts


def _when(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _QuietFile(RotatingFileHandler):
    """A log file readable by its owner's group only; a full disk costs lines and nothing else."""

    def _open(self) -> TextIOWrapper[Any]:
        stream = super()._open()
        os.fchmod(stream.fileno(), 0o640)
        return stream

    def handleError(self, record: logging.LogRecord) -> None:
        return


class _OwnError(logging.StreamHandler[TextIO]):
    """Standard error as it was; nobody may be left who reads it, and that is no fault."""

    def close(self) -> None:
        super().close()
        with suppress(OSError):
            self.stream.close()


@contextmanager
def kept_log(plan: LogPlan) -> Iterator[None]:
    """Keep a log in the planned form until the end of the block."""
    line_format, path = plan
    own_error = os.dup(_STANDARD_ERROR)
    handler: logging.Handler
    if path is None:
        handler = _OwnError(os.fdopen(os.dup(own_error), "w", encoding="utf-8"))
    else:
        handler = _QuietFile(path, maxBytes=_FILE_BYTES, backupCount=_FILES_KEPT, encoding="utf-8")
    handler.setFormatter(_JsonLine() if line_format == "json" else _TextLine())
    silent = logging.NullHandler()
    # Without a handler at the root Python writes warnings of libraries to standard error.
    logging.getLogger().addHandler(silent)
    logging.captureWarnings(True)
    for name in _OWN:
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STANDARD_ERROR)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(own_error, _STANDARD_ERROR)
        os.close(own_error)
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(silent)
        for name in _OWN:
            logging.getLogger(name).removeHandler(handler)
            logging.getLogger(name).propagate = True
        handler.close()
