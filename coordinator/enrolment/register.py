"""What happened to the consortium's keys, in a file that only grows: `enrolments.jsonl`.

The database says which key each site has now. This says which it had before, which are revoked,
which requests were taken, and which kits were made, so that no key and no request serves twice.
"""

from __future__ import annotations

import os
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from fedcac.canonical import canonical_bytes
from fedcac.errors import IntegrityError
from fedcac.signing import Envelope, PublicKey

__all__ = ["EnrolmentEvent", "EventKind", "Register"]


class EventKind(StrEnum):
    """What happened.

    kit: a startup kit was made. enrolled: a site joined. renewed: its former key named the next.
    replaced: the lead put a key in the former one's place. revoked: its key counts no more.
    """

    KIT = "kit"
    ENROLLED = "enrolled"
    RENEWED = "renewed"
    REPLACED = "replaced"
    REVOKED = "revoked"


class EnrolmentEvent(BaseModel):
    """One line of the register.

    Attributes
    ----------
    key, node_key
        The keys that count from then on; none of a kit or a revocation.
    former_key, former_node_key
        The keys that count no more.
    request, renewal
        Digest of the request, and the former key's signature over it in a renewal.
    revision, contents
        Of a kit: its number and the digest of what is in it.
    reason
        Why, in the lead's words; it stays here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    at: AwareDatetime
    kind: Annotated[EventKind, Field(strict=False)]
    site: str
    key: str | None = None
    node_key: str | None = None
    former_key: str | None = None
    former_node_key: str | None = None
    request: str | None = None
    renewal: Envelope | None = None
    revision: int | None = None
    contents: str | None = None
    reason: str = ""


class Register:
    """The register's file; made at the first event.

    Parameters
    ----------
    path
        `enrolments.jsonl` in the coordinator's folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[tuple[int, int], tuple[EnrolmentEvent, ...]] | None = None

    @property
    def events(self) -> tuple[EnrolmentEvent, ...]:
        """Every event, oldest first.

        Raises
        ------
        IntegrityError
            `register_malformed` if a line is no event; nothing is trusted then.
        """
        try:
            state = self._path.stat()
        except FileNotFoundError:
            return ()
        stamp = (state.st_mtime_ns, state.st_size)
        if self._read is None or self._read[0] != stamp:
            lines = self._path.read_bytes().splitlines()
            try:
                found = tuple(EnrolmentEvent.model_validate_json(line) for line in lines)
            except ValidationError as error:
                raise IntegrityError(
                    f"{self._path} holds a line that is no event.",
                    code="register_malformed",
                    cure="Restore the file from a backup: without it revoked keys are not known.",
                ) from error
            self._read = stamp, found
        return self._read[1]

    def append(self, event: EnrolmentEvent) -> None:
        """Write an event; it is on the disk when this returns."""
        line = canonical_bytes(event.model_dump(mode="json", exclude_none=True)) + b"\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())

    def of(self, site: str) -> tuple[EnrolmentEvent, ...]:
        """Return one site's events, oldest first."""
        return tuple(event for event in self.events if event.site == site)

    def changes(self) -> tuple[EnrolmentEvent, ...]:
        """Return every event after which a key counts no more, oldest first."""
        return tuple(event for event in self.events if event.former_key is not None)

    def revoked(self) -> frozenset[str]:
        """Return the sites whose last change was a revocation."""
        last = {e.site: e.kind for e in self.events if e.kind is not EventKind.KIT}
        return frozenset(site for site, kind in last.items() if kind is EventKind.REVOKED)

    def former_keys(self, site: str) -> tuple[PublicKey, ...]:
        """Return the keys that a site had before, oldest first."""
        return tuple(
            PublicKey.from_text(event.former_key)
            for event in self.of(site)
            if event.former_key is not None
        )

    def key_at(self, site: str, moment: datetime, current: PublicKey) -> PublicKey:
        """Return the key that a site had at a moment, given the one it has now."""
        for event in self.of(site):
            if event.former_key is not None and event.at > moment:
                return PublicKey.from_text(event.former_key)
        return current

    def used_keys(self) -> frozenset[str]:
        """Return every key, of agents and of couriers, that was ever enrolled."""
        return frozenset(
            key
            for e in self.events
            for key in (e.key, e.node_key, e.former_key, e.former_node_key)
            if key is not None
        )

    def requests(self) -> frozenset[str]:
        """Return the digests of the requests that were taken."""
        return frozenset(event.request for event in self.events if event.request is not None)
