"""What the gate answers: a release, a part of a sum over sites, or a refusal."""

from __future__ import annotations

import json
from dataclasses import InitVar, dataclass, field
from typing import Any

from fedcac.aggregate.vectors import Layout
from fedcac.canonical import Digest, sha256_hex
from fedcac.errors import GateError
from fedcac.vocabulary import RefusalCode

__all__ = ["GATE", "Contribution", "Refusal", "Release"]

GATE = object()
"""The gate's token: without it neither a release nor a contribution can be made."""


@dataclass(frozen=True)
class Release:
    """An aggregate that passed the gate. Only `Gate.release` can make one.

    `content` is the canonical JSON that leaves; `profile` is the policy's, so that a release made
    under `open` is known as such.
    """

    content: bytes
    profile: str
    policy_digest: Digest
    token: InitVar[object] = field(repr=False)

    def __post_init__(self, token: object) -> None:
        if token is not GATE:
            raise GateError(
                "A release can only be made by the gate.",
                code="forged_release",
                cure="Call Gate.release.",
            )

    def __init_subclass__(cls) -> None:
        raise GateError("A release has no other kinds.", code="forged_release")

    @property
    def payload(self) -> dict[str, Any]:
        """Return a fresh copy of the JSON document that leaves."""
        document: dict[str, Any] = json.loads(self.content)
        return document

    @property
    def digest(self) -> Digest:
        """Digest of the bytes that leave."""
        return sha256_hex(self.content)

    @property
    def n_bytes(self) -> int:
        """Number of bytes that leave."""
        return len(self.content)


@dataclass(frozen=True)
class Contribution:
    """What a site adds to a sum over sites. Only `Gate.contribute` can make one.

    `vector` has the length that `layout` gives. It must leave under masks and in no other way.
    """

    layout: Layout
    vector: tuple[float, ...] = field(repr=False)
    token: InitVar[object] = field(repr=False)

    def __post_init__(self, token: object) -> None:
        if token is not GATE:
            raise GateError("A contribution can only be made by the gate.", code="forged_release")

    def __init_subclass__(cls) -> None:
        raise GateError("A contribution has no other kinds.", code="forged_release")


@dataclass(frozen=True)
class Refusal:
    """A non-answer: its code is all that anyone outside learns."""

    code: RefusalCode
