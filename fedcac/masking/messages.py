"""The messages of a masked sum. Bytes are base64 in the JSON document that travels.

A site sends `ChannelKey` once per round, and per exchange `ExchangeKeys`, `MaskedInput`,
`SurvivorSignature` and `UnmaskShares`. The coordinator sends `ChannelList` once, and per exchange
`PlanDelivery`, `SurvivorList` and `UnmaskRequest`.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
)

from fedcac.canonical import Digest, canonical_bytes, digest_of
from fedcac.masking.errors import MaskingError
from fedcac.masking.fixed_point import LARGEST_VALUE, MAXIMUM_SITES

__all__ = [
    "MINIMUM_SITES",
    "Block",
    "ChannelKey",
    "ChannelList",
    "ExchangeKeys",
    "ExchangePlan",
    "MaskKey",
    "MaskedInput",
    "MaskingMessage",
    "PlanDelivery",
    "Raw",
    "Raw32",
    "RoundId",
    "SiteWord",
    "SurvivorList",
    "SurvivorSignature",
    "UnmaskRequest",
    "UnmaskShares",
]

MINIMUM_SITES = 3
"""With two sites each would learn the other's vector from the sum."""


def _from_base64(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def _to_base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


Raw = Annotated[bytes, BeforeValidator(_from_base64), PlainSerializer(_to_base64, when_used="json")]
Raw32 = Annotated[Raw, Field(min_length=32, max_length=32)]
Raw64 = Annotated[Raw, Field(min_length=64, max_length=64)]
RoundId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{3,79}$")]
SiteWord = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]
Word = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
DigestWord = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Sites = Annotated[tuple[SiteWord, ...], Field(min_length=2, max_length=MAXIMUM_SITES)]


class MaskingMessage(BaseModel):
    """A frozen document with declared fields only."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def to_document(self) -> dict[str, Any]:
        """Return the JSON document that travels."""
        return self.model_dump(mode="json")

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """Return the typed message; MaskingError `malformed_message` if it has another shape."""
        try:
            return cls.model_validate_json(canonical_bytes(document))
        except (ValidationError, ValueError, TypeError) as error:
            raise MaskingError(
                f"A {cls.__name__} does not have its declared shape.",
                code="malformed_message",
                cure="Check that both sides run the same version.",
            ) from error


class ChannelKey(MaskingMessage):
    """A site's X25519 key of the round, under which other sites send it shares."""

    round_id: RoundId
    site: SiteWord
    public_key: Raw32
    signature: Raw64

    def statement(self) -> bytes:
        """Return what the site signs."""
        return _statement("channel key", self.model_dump(mode="json", exclude={"signature"}))


class ChannelList(MaskingMessage):
    """The sites of a round with their channel keys, in the order of their names.

    A site's share index in every secret is its place in this list, counted from 1.
    """

    round_id: RoundId
    threshold: Annotated[int, Field(ge=2)]
    keys: Annotated[
        tuple[ChannelKey, ...], Field(min_length=MINIMUM_SITES, max_length=MAXIMUM_SITES)
    ]

    @property
    def index_of(self) -> dict[str, int]:
        """Return every site's share index."""
        return {key.site: index for index, key in enumerate(self.keys, start=1)}

    def digest(self) -> Digest:
        """Return the digest that every later message is bound to."""
        return digest_of(self.to_document())


class MaskKey(MaskingMessage):
    """A site's X25519 key of one exchange, and the digest of its self-mask seed."""

    round_id: RoundId
    exchange: Annotated[int, Field(ge=1)]
    channels: DigestWord
    site: SiteWord
    public_key: Raw32
    seed_digest: Raw32
    signature: Raw64

    def statement(self) -> bytes:
        """Return what the site signs."""
        return _statement("mask key", self.model_dump(mode="json", exclude={"signature"}))


class ExchangeKeys(MaskingMessage):
    """A site's key of an exchange, with its encrypted shares for every other site."""

    key: MaskKey
    shares: dict[SiteWord, Raw]


class Block(MaskingMessage):
    """One vector to be summed: its length, the bound of its numbers, and whose are summed."""

    analysis: Word
    n_numbers: Annotated[int, Field(ge=1, le=1_000_000)]
    bound: Annotated[float, Field(gt=0.0, le=LARGEST_VALUE)]
    members: Sites


class ExchangePlan(MaskingMessage):
    """What an exchange sums over whom: the same document for all its sites."""

    round_id: RoundId
    exchange: Annotated[int, Field(ge=1)]
    channels: DigestWord
    keys: Annotated[tuple[MaskKey, ...], Field(min_length=2, max_length=MAXIMUM_SITES)]
    blocks: Annotated[tuple[Block, ...], Field(min_length=1)]

    @property
    def sites(self) -> tuple[str, ...]:
        """Return the names of the sites, in order."""
        return tuple(key.site for key in self.keys)

    def context(self) -> dict[str, Any]:
        """Return what every mask of this exchange is derived under."""
        return {"round": self.round_id, "exchange": self.exchange, "plan": self.digest()}

    def digest(self) -> Digest:
        """Return the digest that masks, signatures and answers are bound to."""
        return digest_of(self.to_document())


class PlanDelivery(MaskingMessage):
    """A plan, with the shares that the other sites encrypted for the receiver."""

    plan: ExchangePlan
    shares: dict[SiteWord, Raw]


class _Addressed(MaskingMessage):
    round_id: RoundId
    exchange: Annotated[int, Field(ge=1)]
    plan: DigestWord

    @property
    def address(self) -> tuple[str, int, str]:
        """Return what the message belongs to."""
        return self.round_id, self.exchange, self.plan


class MaskedInput(_Addressed):
    """A site's masked vectors, 16 bytes per number, by analysis."""

    site: SiteWord
    values: dict[Word, Raw]


class SurvivorList(_Addressed):
    """The sites whose masked vectors the coordinator has, in the order of their names."""

    survivors: Sites

    def statement(self) -> bytes:
        """Return what a surviving site signs."""
        return _statement("survivors", self.to_document())


class SurvivorSignature(_Addressed):
    """A site's signature of the one survivor list that it will unmask."""

    site: SiteWord
    signature: Raw64


class UnmaskRequest(MaskingMessage):
    """A survivor list with the signatures of at least `threshold` of its sites."""

    survivors: SurvivorList
    signatures: dict[SiteWord, Raw64]


class UnmaskShares(_Addressed):
    """A site's shares: of the seeds of those who stayed, of the keys of those who dropped out."""

    site: SiteWord
    seed_shares: dict[SiteWord, Raw]
    key_shares: dict[SiteWord, Raw]


def _statement(kind: str, document: dict[str, Any]) -> bytes:
    # No DSSE envelope and no signature of another kind begins like this.
    return f"fedcac.masking.v1 {kind} ".encode() + canonical_bytes(document)
