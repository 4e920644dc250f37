"""Parcels cut into pieces named by their digest, so that a carrier can resume and cache them.

Needs nothing but the mailbox and pydantic: the courier at a site carries this file and no other
part of the project that knows what a parcel means.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedcac.errors import RoundError
from fedcac.exchange.mailbox import DirectoryMailbox

__all__ = ["CHUNK_BYTES", "ChunkStore", "Manifest", "chunks_of", "digest_of"]

CHUNK_BYTES = 4 * 2**20
"""Bytes of every chunk but the last. Flower cuts arrays at 5 MB itself; ours stay whole."""

DigestHex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def digest_of(payload: bytes) -> str:
    """Return the SHA-256 of some bytes, 64 hexadecimal digits."""
    return hashlib.sha256(payload).hexdigest()


def chunks_of(payload: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield each chunk of a parcel with its digest, in order; an empty parcel has none."""
    for start in range(0, len(payload), CHUNK_BYTES):
        chunk = payload[start : start + CHUNK_BYTES]
        yield digest_of(chunk), chunk


class Manifest(BaseModel):
    """A parcel as its size in bytes, its SHA-256 and the SHA-256 of each chunk in order."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    size: Annotated[int, Field(ge=0)]
    digest: DigestHex
    chunks: tuple[DigestHex, ...]

    @model_validator(mode="after")
    def _check(self) -> Manifest:
        if len(self.chunks) != -(-self.size // CHUNK_BYTES):
            raise ValueError("the number of chunks does not follow from the size")
        return self

    @classmethod
    def of(cls, payload: bytes) -> Manifest:
        """Return the manifest of a parcel."""
        digests = tuple(digest for digest, _ in chunks_of(payload))
        return cls(size=len(payload), digest=digest_of(payload), chunks=digests)


class ChunkStore:
    """Chunks on disk under their digests, the least recently used thrown out first.

    Parameters
    ----------
    root
        A folder of the carrier's own.
    limit_bytes
        What the folder may hold. A parcel larger than this cannot be put together here.
    """

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self._root = root
        self._files = DirectoryMailbox(root)
        self.limit_bytes = limit_bytes

    def has(self, digest: str) -> bool:
        """Say whether a chunk is here."""
        return (self._root / digest).exists()

    def put(self, digest: str, chunk: bytes) -> None:
        """Store a chunk; RoundError `chunk_altered` if it is not the one named."""
        if digest_of(chunk) != digest:
            raise RoundError(
                "A chunk does not have its digest.",
                code="chunk_altered",
                cure="It is asked for again; if that stays so, something alters what passes.",
            )
        if not self.has(digest):
            self._files.put(digest, chunk)

    def get(self, digest: str) -> bytes | None:
        """Return a chunk, or None; it counts as used now."""
        chunk = self._files.get(digest)
        if chunk is not None:
            # A journal is shared by two users: only the one that wrote the chunk can date it, and
            # the other may have thrown it out by now.
            with contextlib.suppress(PermissionError, FileNotFoundError):
                os.utime(self._root / digest)
        return chunk

    def missing(self, manifest: Manifest) -> tuple[str, ...]:
        """Return the digests of the chunks of a parcel that are not here, each once, in order."""
        return tuple(d for d in dict.fromkeys(manifest.chunks) if not self.has(d))

    def assemble(self, manifest: Manifest) -> bytes | None:
        """Return a parcel, or None while a chunk is missing.

        Raises
        ------
        RoundError
            If the chunks do not make up the parcel (`parcel_altered`): its manifest was false.
        """
        chunks = [self.get(digest) for digest in manifest.chunks]
        present = [chunk for chunk in chunks if chunk is not None]
        if len(present) < len(chunks):
            return None
        payload = b"".join(present)
        if digest_of(payload) != manifest.digest:
            raise RoundError(
                "Chunks do not make up their parcel.",
                code="parcel_altered",
                cure="Its sender described it falsely: ask for the parcel again.",
            )
        return payload

    def keep_only(self, keep: Collection[str]) -> None:
        """Throw out every chunk but those named."""
        for name in set(self._files.names()).difference(keep):
            (self._root / name).unlink(missing_ok=True)

    def make_room(self, n_bytes: int, keep: Collection[str]) -> None:
        """Throw out the least recently used chunks until `n_bytes` more fit; never those kept."""
        sizes = {name: (self._root / name).stat() for name in self._files.names()}
        total = sum(stat.st_size for stat in sizes.values())
        for name, stat in sorted(sizes.items(), key=lambda entry: entry[1].st_mtime_ns):
            if total + n_bytes <= self.limit_bytes:
                return
            if name not in keep:
                (self._root / name).unlink(missing_ok=True)
                total -= stat.st_size
