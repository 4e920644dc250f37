"""The lines of `releases.jsonl`: every document of a round with its digest and its signature.

The first line is the round's: it lists the digest of every other line, and who signed what. A
signed document is stored as it was signed, opened: its envelope follows from the document's
canonical bytes and the signature.
"""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveInt,
)

from fedcac.canonical import canonical_bytes, digest_of, require_canonical
from fedcac.exchange import Offer, Reply, Request
from fedcac.protocol.signing import PAYLOAD_TYPE as PROTOCOL_TYPE
from fedcac.signing import Envelope
from fedcac.vocabulary import RefusalCode

__all__ = [
    "HEADER_TYPE",
    "PAYLOAD_TYPES",
    "RELEASES_FILE",
    "EditionEntry",
    "Part",
    "Record",
    "RoundHeader",
    "Signature",
    "SiteEntry",
    "What",
    "envelope_of",
    "part_words",
    "record_of",
]

RELEASES_FILE: Final = "releases.jsonl"
HEADER_TYPE: Final = "application/vnd.fedcac.releases+json"

What = Literal["round", "protocol", "offer", "request", "reply", "sums", "step"]

PAYLOAD_TYPES: Final[dict[What, str]] = {
    "round": HEADER_TYPE,
    "protocol": PROTOCOL_TYPE,
    "offer": Offer.payload_type,
    "request": Request.payload_type,
    "reply": Reply.payload_type,
}
"""What each document is signed as. Sums and steps are the coordinator's; the first line covers
them."""

DigestWord = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
KeyWord = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FreeDocument = Annotated[dict[str, JsonValue], AfterValidator(require_canonical)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Signature(_Document):
    """One Ed25519 signature: SHA-256 of the key, and the signature in base64."""

    keyid: KeyWord
    sig: str


class Part(_Document):
    """What the first line says of another one. `key_id` is None if that one is not signed."""

    what: What
    exchange: PositiveInt | None = None
    site: str | None = None
    digest: DigestWord
    key_id: KeyWord | None = None


class Record(_Document):
    """One line: a document, what it is, its digest, and its signature if it has one."""

    what: What
    exchange: PositiveInt | None = None
    site: str | None = None
    digest: DigestWord
    signature: Signature | None = None
    document: FreeDocument

    def part(self) -> Part:
        """Return what the first line says of this one."""
        return Part(
            what=self.what,
            exchange=self.exchange,
            site=self.site,
            digest=self.digest,
            key_id=self.signature.keyid if self.signature else None,
        )

    def to_line(self) -> bytes:
        """Return the canonical line with its line feed."""
        return canonical_bytes(self.model_dump(mode="json")) + b"\n"


class SiteEntry(_Document):
    """One invited site: its word on the offer, its key, and the bytes of what of it counts.

    `public_key` is None in a round whose signatures are not kept: one in memory, whose keys are
    made for it and prove nothing.
    """

    name: str
    is_accepting: bool | None
    refusal: RefusalCode | None
    public_key: str | None
    n_bytes: NonNegativeInt


class EditionEntry(_Document):
    """One edition of the round: which sites it added to the one before, and why."""

    edition: PositiveInt
    added: tuple[str, ...]
    reason: str
    started_at: datetime
    deadline: datetime
    finished_at: datetime | None
    outcome: Literal["pooled", "failed", "cancelled"] | None


class RoundHeader(_Document):
    """The first line's document.

    `estimates_digest` is that of the `estimates.csv` which the coordinator wrote; `package` is
    the model package's manifest. `editions` are those up to `edition`, the one pooled here.
    """

    format: Literal["fedcac-releases/1"] = "fedcac-releases/1"
    round_id: str
    software: str
    minimum_sites: PositiveInt
    started_at: datetime
    deadline: datetime
    finished_at: datetime
    exchanges: NonNegativeInt
    lead_key: str | None
    sites: tuple[SiteEntry, ...]
    estimates_digest: DigestWord
    package: FreeDocument | None
    edition: PositiveInt = 1
    editions: tuple[EditionEntry, ...] = ()
    parts: tuple[Part, ...]


def record_of(
    what: What,
    document: dict[str, JsonValue],
    envelope: bytes | None = None,
    *,
    exchange: int | None = None,
    site: str | None = None,
) -> Record:
    """Return a line for a document; with its envelope, as it was signed.

    An envelope whose payload is not canonical, or that has not exactly one signature, cannot be
    made again from a line: the document is then stored without a signature.
    """
    signature = None
    if envelope is not None:
        sealed = Envelope.model_validate_json(envelope)
        payload = base64.b64decode(sealed.payload)
        signed: dict[str, JsonValue] = json.loads(payload)
        if canonical_bytes(signed) == payload and len(sealed.signatures) == 1:
            document = signed
            first = sealed.signatures[0]
            signature = Signature(keyid=first.keyid, sig=first.sig)
    return Record(
        what=what,
        exchange=exchange,
        site=site,
        digest=digest_of(document),
        signature=signature,
        document=document,
    )


def envelope_of(record: Record) -> bytes | None:
    """Return the envelope that a signed line was taken from, byte for byte; None if unsigned."""
    if record.signature is None or record.what not in PAYLOAD_TYPES:
        return None
    document = {
        "payloadType": PAYLOAD_TYPES[record.what],
        "payload": base64.b64encode(canonical_bytes(record.document)).decode("ascii"),
        "signatures": [record.signature.model_dump(mode="json")],
    }
    return canonical_bytes(document)


def part_words(part: Part | Record) -> str:
    """Return a part's name for a message: `reply of north, exchange 3`."""
    text = part.what if part.site is None else f"{part.what} of {part.site}"
    return text if part.exchange is None else f"{text}, exchange {part.exchange}"
