"""Groups of one cohort's patients, and whether sums over them tell a sum over few patients."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcac.canonical import Digest, sha256_hex
from fedcac.errors import IntegrityError

__all__ = ["FileGroups", "Groups", "group_of", "tells_few"]

MAXIMUM_SMALL_PARTS = 16
"""With more small parts than this not all unions of them are looked at: the answer is refused."""

Flags = NDArray[np.bool_]


def group_of(members: Sequence[str], cohort: Sequence[str]) -> str:
    """Return a group of a cohort as text, from the keys of its members and of all patients."""
    chosen = set(members)
    is_member = np.array([key in chosen for key in sorted(cohort)], dtype=np.bool_)
    return base64.b64encode(np.packbits(is_member).tobytes()).decode()


def tells_few(groups: Sequence[str], n_patients: int, minimum: int) -> bool:
    """Say whether sums over all these groups can be combined to one over 1 to minimum - 1 patients.

    Patients who belong to the same groups are one part: no combination of sums tells them apart.
    A combination is about a union of parts alone if it vanishes on all others. There is one, other
    than nothing, just if the parts' memberships lose rank without that union.

    Parameters
    ----------
    groups
        As `group_of` gives them, of the same cohort in the same order.
    n_patients
        Patients of the cohort.
    minimum
        The smallest number of patients that may be told about.
    """
    members = np.array([_flags(group, n_patients) for group in groups])
    parts, sizes = np.unique(members.T, axis=0, return_counts=True)
    table = parts.astype(np.float64)
    small = [i for i in np.flatnonzero(sizes < minimum) if parts[i].any()]
    if len(small) > MAXIMUM_SMALL_PARTS:
        return True
    rank = np.linalg.matrix_rank(table)
    return any(
        np.linalg.matrix_rank(np.delete(table, union, axis=0)) < rank
        for union in _unions([int(i) for i in small], sizes, minimum)
    )


def _flags(group: str, n_patients: int) -> Flags:
    packed = np.frombuffer(base64.b64decode(group), dtype=np.uint8)
    return np.unpackbits(packed, count=n_patients).astype(np.bool_)


def _unions(parts: list[int], sizes: NDArray[np.int64], minimum: int) -> Iterator[list[int]]:
    """Yield unions of parts with fewer than `minimum` patients; each is in one of these."""

    def grow(start: int, union: list[int], size: int) -> Iterator[list[int]]:
        is_full = True
        for position in range(start, len(parts)):
            part = parts[position]
            if size + int(sizes[part]) < minimum:
                is_full = False
                yield from grow(position + 1, [*union, part], size + int(sizes[part]))
        if is_full and union:
            yield union

    yield from grow(0, [], 0)


class Groups:
    """The groups that answers were about, by digest. The ledger itself names the digests only.

    Which patients stand together in which groups is itself about patients: it never leaves, and
    lies apart from the ledger, which a site may show.
    """

    def __init__(self) -> None:
        self._groups: dict[str, str] = {}

    def get(self, digest: str) -> str | None:
        """Return a group, or None if it is not known."""
        return self._groups.get(digest)

    def remember(self, group: str) -> Digest:
        """Keep a group durably, and return its digest."""
        digest = sha256_hex(group.encode("ascii"))
        if digest not in self._groups:
            self._store(group)
            self._groups[digest] = group
        return digest

    def _store(self, group: str) -> None:
        """Make one group durable; in memory there is nothing to do."""


class FileGroups(Groups):
    """Groups in a file of lines, mode 0600. A line that a kill cut short is not read.

    Raises
    ------
    IntegrityError
        On opening, if a line is not a group (`broken_link`).
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        for line in lines:
            self._groups[sha256_hex(line)] = _checked(line)

    def _store(self, group: str) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b") as stream:
            content = stream.read()
            stream.seek(content.rfind(b"\n") + 1)
            stream.truncate()
            stream.write(group.encode("ascii") + b"\n")
            stream.flush()
            os.fsync(stream.fileno())


def _checked(line: bytes) -> str:
    try:
        base64.b64decode(line, validate=True)
    except binascii.Error as error:
        raise IntegrityError(
            "The file of groups beside the ledger is damaged.",
            code="broken_link",
            cure="Restore it from a backup together with the ledger; nothing leaves until then.",
        ) from error
    return line.decode("ascii")
