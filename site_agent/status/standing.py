"""How the site stands: rounds, what waits for a person, progress, problems. Read-only.

The running agent writes this as `status/status.json` after every step, and during long work every
few seconds. It names no patient, exam or path of one: the page that shows it needs neither the
database nor any key. Counts in it have passed no gate and stay at the site.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

__all__ = [
    "AgentNote",
    "DoctorLine",
    "DoctorNote",
    "HeldNote",
    "LedgerNote",
    "ProblemNote",
    "Progress",
    "RoundNote",
    "Standing",
    "read_note",
    "write_note",
]

_Kind = TypeVar("_Kind", bound=BaseModel)


class _Note(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProblemNote(_Note):
    """A problem: its code, what happened and its cure, without paths or values."""

    code: str
    message: str
    cure: str = ""


class Progress(_Note):
    """Long work: how much of it is done, and since when. `rate_per_minute` is None at first."""

    description: str
    finished: int
    total: int
    started_at: datetime
    rate_per_minute: float | None = None
    remaining_s: float | None = None


class AgentNote(_Note):
    """What the agent's process does. `at` is its last sign of life."""

    state: Literal["working", "waiting", "paused", "stopped"]
    process: int
    since: datetime
    at: datetime
    next_look_s: float = 0.0


class RoundNote(_Note):
    """One round at this site."""

    round_id: str
    title: str
    state: str
    refusal: str | None = None
    waits_for: str = ""
    commands: tuple[str, ...] = ()
    scored: int = 0
    excluded: int = 0
    under_way: int = 0
    exclusions: dict[str, int] = {}
    answered: int = 0
    problem: ProblemNote | None = None


class HeldNote(_Note):
    """A reply that waits for a person."""

    round_id: str
    exchange: int
    digest: str
    commands: tuple[str, ...]


class LedgerNote(_Note):
    """How many answers left or were refused, and the digest of the last entry."""

    entries: Annotated[int, Field(ge=0)]
    head: str


class DoctorLine(_Note):
    """One check of `fedcac-site doctor`."""

    name: str
    status: Literal["ok", "warning", "failed", "skipped"]
    found: str
    cure: str = ""


class DoctorNote(_Note):
    """The last run of `fedcac-site doctor`."""

    at: datetime
    lines: tuple[DoctorLine, ...]


class Standing(_Note):
    """Everything that the status shows."""

    schema_version: Literal[1] = 1
    site: str
    software: str
    policy: str
    approval: str
    written_at: datetime
    agent: AgentNote | None = None
    progress: Progress | None = None
    rounds: tuple[RoundNote, ...] = ()
    held: tuple[HeldNote, ...] = ()
    ledger: LedgerNote
    problem: ProblemNote | None = None
    doctor: DoctorNote | None = None


def write_note(path: Path, note: BaseModel) -> bool:
    """Write a document whole or not at all; False, and the old one stays, if that cannot be."""
    temporary = path.with_suffix(".part")
    try:
        path.parent.mkdir(mode=0o750, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(note.model_dump_json(indent=1) + "\n")
        os.replace(temporary, path)
    except OSError:
        # What is shown may be old for a while; the round goes on.
        return False
    return True


def read_note(path: Path, kind: type[_Kind]) -> _Kind | None:
    """Return the document, or None if it is absent or of another release."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
