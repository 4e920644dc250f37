"""Mailboxes: where parcels of bytes wait. In memory, or a spool directory that survives kill -9."""

from __future__ import annotations

import os
import re
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path

from fedcac.errors import RoundError

__all__ = ["DirectoryMailbox", "Mailbox", "MemoryMailbox"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,119}")


def _check_name(name: str) -> str:
    # A name arrives over the network and becomes a path: one flat, lower-case word, no dot-dot.
    if not _NAME.fullmatch(name) or ".." in name:
        raise RoundError(
            "A parcel's name is not a plain word.",
            code="malformed_parcel_name",
            cure="No version of fedcac gives such a name: find out who wrote it.",
        )
    return name


class Mailbox(ABC):
    """Named parcels. Writing the same name again with the same bytes does nothing."""

    @abstractmethod
    def put(self, name: str, payload: bytes) -> None:
        """Store a parcel; RoundError `parcel_changed` if the name is taken by other bytes."""

    @abstractmethod
    def get(self, name: str) -> bytes | None:
        """Return a parcel's bytes, or None if it has not arrived."""

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Return the names of all parcels, sorted."""

    def _refuse_change(self, name: str, payload: bytes) -> bool:
        present = self.get(_check_name(name))
        if present is None:
            return False
        if present != payload:
            raise RoundError(
                f"Parcel '{name}' already exists with other bytes.",
                code="parcel_changed",
                cure="Each exchange is written once; find out who wrote the other version.",
            )
        return True


class MemoryMailbox(Mailbox):
    """A mailbox in a dictionary, for the demonstration, `analyze` and tests."""

    def __init__(self) -> None:
        self._parcels: dict[str, bytes] = {}

    def put(self, name: str, payload: bytes) -> None:
        """Store a parcel."""
        if not self._refuse_change(name, payload):
            self._parcels[name] = payload

    def get(self, name: str) -> bytes | None:
        """Return a parcel's bytes, or None."""
        return self._parcels.get(name)

    def names(self) -> tuple[str, ...]:
        """Return the sorted names."""
        return tuple(sorted(self._parcels))


class DirectoryMailbox(Mailbox):
    """A spool directory: a parcel is a file, written whole or not at all."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # Of other users only the courier's group looks in.
        root.mkdir(mode=0o750, parents=True, exist_ok=True)

    def put(self, name: str, payload: bytes) -> None:
        """Store a parcel through a synced temporary file and a rename."""
        if self._refuse_change(name, payload):
            return
        descriptor, temporary = tempfile.mkstemp(dir=self._root, prefix=".part-")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(payload)
                # Agent and courier are different users of one group.
                os.fchmod(stream.fileno(), 0o640)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, self._root / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        directory = os.open(self._root, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def get(self, name: str) -> bytes | None:
        """Return a parcel's bytes, or None."""
        try:
            return (self._root / _check_name(name)).read_bytes()
        except FileNotFoundError:
            return None

    def names(self) -> tuple[str, ...]:
        """Return the sorted names; unfinished files are not parcels."""
        return tuple(
            sorted(entry.name for entry in self._root.iterdir() if _NAME.fullmatch(entry.name))
        )
