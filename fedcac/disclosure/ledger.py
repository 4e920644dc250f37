"""The ledger: a hash-chained, append-only list of exactly what left, kept by the site.

Each entry carries the digest of the one before it, so that no line can be changed, removed or put
in between without `verify` noticing. Lines missing at the very end are noticed by whoever holds a
later head: every reply states it. Entries hold released payloads and codes, nothing of a patient.
"""

from __future__ import annotations

import fcntl
import io
import os
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    ValidationError,
)

from fedcac.canonical import (
    Digest,
    canonical_bytes,
    digest_of,
    require_canonical,
    sha256_hex,
)
from fedcac.disclosure.groups import FileGroups, Groups
from fedcac.disclosure.question import Question
from fedcac.errors import IntegrityError
from fedcac.vocabulary import RefusalCode

__all__ = ["GENESIS", "FileLedger", "Ledger", "LedgerEntry", "MemoryLedger"]

GENESIS = sha256_hex(b"fedcac disclosure ledger v1")
"""What the first entry names as its predecessor; the head of an empty ledger."""

DigestText = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class LedgerEntry(BaseModel):
    """One answer: a release with its payload, or a refusal with its code.

    `key` is the question's identity (`Question.key`). `repeats` is the index of the entry whose
    payload was given once more. `least_sites` is 0 for a payload that left by itself; otherwise the
    payload was added to a sum over at least so many sites, and nobody but the site has seen it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    index: NonNegativeInt
    previous: DigestText
    round_id: str
    protocol_digest: DigestText
    exchange: NonNegativeInt
    analysis: str
    analysis_digest: DigestText
    query_digest: DigestText
    cohort_digest: DigestText
    patients_digest: DigestText | None = None
    scores_digest: DigestText
    categories_digest: DigestText
    columns: tuple[str, ...]
    group: DigestText | None
    key: DigestText
    policy_digest: DigestText
    profile: str
    kind: str
    release_digest: DigestText | None = None
    n_bytes: NonNegativeInt = 0
    payload: Annotated[dict[str, JsonValue], AfterValidator(require_canonical)] | None = None
    refusal: RefusalCode | None = None
    repeats: NonNegativeInt | None = None
    least_sites: NonNegativeInt = 0

    def digest(self) -> Digest:
        """Return the digest that the next entry must name."""
        return digest_of(self.model_dump(mode="json"))

    def answers(self, question: Question) -> bool:
        """Say whether this entry is the answer given in this very exchange."""
        return (self.round_id, self.exchange, self.analysis, self.key) == (
            question.round_id,
            question.exchange,
            question.analysis,
            question.key,
        )


class Ledger(ABC):
    """Entries in order. Only the gate appends."""

    def __init__(self) -> None:
        self._entries: list[LedgerEntry] = []
        self.groups = Groups()

    @property
    def entries(self) -> tuple[LedgerEntry, ...]:
        """Every entry, oldest first."""
        return tuple(self._entries)

    @property
    def head(self) -> Digest:
        """Digest of the last entry, or GENESIS."""
        return self._entries[-1].digest() if self._entries else GENESIS

    def append(self, entry: LedgerEntry) -> None:
        """Append an entry durably.

        Raises
        ------
        IntegrityError
            If its index or predecessor is not the next one (`wrong_link`), or the stored ledger
            was changed by another process (`foreign_entry`).
        """
        if entry.index != len(self._entries) or entry.previous != self.head:
            raise IntegrityError("The entry does not continue the ledger.", code="wrong_link")
        self._store(canonical_bytes(entry.model_dump(mode="json")) + b"\n")
        self._entries.append(entry)

    @abstractmethod
    def _store(self, line: bytes) -> None:
        """Make one line durable before returning."""

    @abstractmethod
    def _stored_lines(self) -> list[bytes]:
        """Return every complete stored line, without its line end."""

    def verify(self) -> Digest:
        """Read everything stored again, check the chain, and return its head.

        Raises
        ------
        IntegrityError
            At the first line that is not an entry, or does not link to the one before it, or
            whose payload does not have the digest stated, or if the last is not the one this
            process knows (`broken_link`).
        """
        entries, head = _check_chain(self._stored_lines())
        if head != self.head:
            raise _broken(len(entries))
        return head


class MemoryLedger(Ledger):
    """A ledger in memory, for the demonstration and tests."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[bytes] = []

    def _store(self, line: bytes) -> None:
        self._lines.append(line[:-1])

    def _stored_lines(self) -> list[bytes]:
        return list(self._lines)


class FileLedger(Ledger):
    """A ledger in a file of JSON lines, mode 0600, every line synced before an answer leaves.

    A last line without its end is what a kill left of an answer that never went out: it is not
    read, and the next append overwrites it. The gate then gives the same answer again.

    Raises
    ------
    IntegrityError
        On opening, if the stored chain is broken.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.groups = FileGroups(path.with_suffix(".groups"))
        self._path = path
        self._size = 0
        lines = self._stored_lines()
        self._size = sum(len(line) + 1 for line in lines)
        self._entries = _check_chain(lines)[0]

    def _stored_lines(self) -> list[bytes]:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            if self._size:
                raise _vanished() from None
            return []
        return content.split(b"\n")[:-1]

    def _store(self, line: bytes) -> None:
        # A ledger that holds entries is never created anew.
        flags = os.O_RDWR if self._size else os.O_RDWR | os.O_CREAT
        try:
            descriptor = os.open(self._path, flags, 0o600)
        except FileNotFoundError as error:
            raise _vanished() from error
        with os.fdopen(descriptor, "r+b", buffering=0) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stored = stream.seek(0, os.SEEK_END)
            stream.seek(self._size)
            if stored < self._size or b"\n" in stream.read():
                raise IntegrityError(
                    "Another process has changed the ledger.",
                    code="foreign_entry",
                    cure="Stop the other agent, then start this one again.",
                )
            stream.truncate(self._size)
            stream.seek(self._size)
            try:
                _write_whole(stream, line)
                os.fsync(stream.fileno())
            except OSError:
                # Nobody knows what of it reached the disk, and no answer leaves with it.
                with suppress(OSError):
                    stream.truncate(self._size)
                raise
        if not self._size:
            _sync_directory(self._path.parent)
        self._size += len(line)


def _write_whole(stream: io.FileIO, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[stream.write(rest) :]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_chain(lines: list[bytes]) -> tuple[list[LedgerEntry], Digest]:
    entries: list[LedgerEntry] = []
    head = GENESIS
    for index, line in enumerate(lines):
        try:
            entry = LedgerEntry.model_validate_json(line)
        except ValidationError as error:
            raise _broken(index) from error
        is_intact = entry.payload is None or digest_of(entry.payload) == entry.release_digest
        if entry.index != index or entry.previous != head or not is_intact:
            raise _broken(index)
        entries.append(entry)
        head = sha256_hex(line)
        if head != entry.digest():
            raise _broken(index)
    return entries, head


def _broken(index: int) -> IntegrityError:
    return IntegrityError(
        f"The ledger's chain breaks at entry {index}.",
        code="broken_link",
        cure="Restore the ledger from a backup and find out who changed it; nothing leaves until "
        "then.",
    )


def _vanished() -> IntegrityError:
    return IntegrityError(
        "The ledger's file has gone.",
        code="broken_link",
        cure="Restore it from a backup; nothing leaves without it.",
    )
