"""What the coordinator asks and what a site answers, as typed documents.

A request carries the current query of every running analysis; a reply one release or refusal
code for each. Each message travels in a signed envelope of its own payload type.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from fedcac.aggregate.vectors import Layout
from fedcac.canonical import canonical_bytes, require_canonical
from fedcac.errors import RoundError
from fedcac.masking.messages import ChannelKey, ExchangeKeys
from fedcac.signing import PublicKey, SigningKey, TrustedKeys, open_envelope, seal
from fedcac.vocabulary import RefusalCode

__all__ = [
    "Acceptance",
    "Answer",
    "Closing",
    "MaskingNote",
    "MaskingTerms",
    "Message",
    "Offer",
    "PolicySummary",
    "Query",
    "Reply",
    "Request",
]

Word = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
RoundId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{3,79}$")]
SiteWord = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]
DigestWord = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
FreeDocument = Annotated[dict[str, JsonValue], AfterValidator(require_canonical)]
Version = Annotated[str, Field(pattern=r"^[0-9]{1,4}(\.[0-9]{1,4}){1,3}$")]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Query(_Document):
    """One step of one analysis: numbers only. `step` names what is asked, for example `newton`."""

    step: Word
    values: dict[Word, tuple[float, ...]] = {}


M = TypeVar("M", bound="Message")


class Message(_Document):
    """A document with a payload type that can be sealed and opened."""

    payload_type: ClassVar[str]

    round_id: RoundId
    issued_at: AwareDatetime

    def seal(self, key: SigningKey) -> bytes:
        """Return this message in an envelope signed by `key`."""
        return seal(canonical_bytes(self.model_dump(mode="json")), self.payload_type, key)

    @classmethod
    def open(cls: type[M], envelope: bytes, keys: TrustedKeys) -> tuple[M, PublicKey]:
        """Verify an envelope and return the typed message with the key that signed it.

        Raises
        ------
        SignatureError
            As `fedcac.signing.open_envelope`.
        RoundError
            If the payload does not have the declared shape (`malformed_message`).
        """
        payload, key = open_envelope(envelope, cls.payload_type, keys)
        try:
            return cls.model_validate_json(payload), key
        except ValidationError as error:
            raise RoundError(
                f"A signed {cls.__name__.lower()} does not have its declared shape.",
                code="malformed_message",
                cure="Check that both sides run the same version.",
            ) from error


class MaskingTerms(_Document):
    """The masked sums of a round: how many sites a sum is over at least, and every site's key.

    `site_keys` are the sites' signing keys as `PublicKey.to_text` writes them. A site compares
    them with those it knows; it does not learn them from here.
    """

    threshold: Annotated[int, Field(ge=3)]
    site_keys: dict[SiteWord, str]


class Offer(Message):
    """The lead's invitation to a round: which protocol, which packages, which sites.

    With a `reference_package_digest` the reference standard is a model: each site reads the
    reference exam of every pair with that package, under a protocol whose reference is
    `gated_ct_model`.

    A later `edition` of a round invites sites that came late to the same protocol, package and
    sites as the first did. Requests under the numbers `withdrawn` need no answer any more.
    """

    payload_type: ClassVar[str] = "application/vnd.fedcac.offer+json"

    protocol_id: str
    protocol_version: Annotated[int, Field(ge=1)]
    protocol_digest: DigestWord
    package_digest: DigestWord | None
    reference_package_digest: DigestWord | None = None
    sites: Annotated[tuple[SiteWord, ...], Field(min_length=1)]
    expires_at: AwareDatetime
    masking: MaskingTerms | None = None
    edition: Annotated[int, Field(ge=1)] = 1
    withdrawn: tuple[Annotated[int, Field(ge=1)], ...] = ()


class Acceptance(Message):
    """A site's word on an offer: it takes part, or it does not, with a code and nothing else."""

    payload_type: ClassVar[str] = "application/vnd.fedcac.acceptance+json"

    site: SiteWord
    offer_digest: DigestWord
    refusal: RefusalCode | None = None
    channel_key: ChannelKey | None = None


class Request(Message):
    """One exchange: the current query of every running analysis."""

    payload_type: ClassVar[str] = "application/vnd.fedcac.request+json"

    exchange: Annotated[int, Field(ge=1)]
    protocol_digest: DigestWord
    expires_at: AwareDatetime
    queries: dict[Word, Query]


class Answer(_Document):
    """A released aggregate, the layout of a vector that will be added under masks, or a refusal."""

    release: FreeDocument | None = None
    layout: Layout | None = None
    refusal: RefusalCode | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = (self.release, self.layout, self.refusal)
        if sum(part is not None for part in given) != 1:
            raise ValueError("an answer is either a release, a layout or a refusal")
        return self


class PolicySummary(_Document):
    """The policy a site applied, so that the report can state it."""

    profile: Annotated[str, Field(pattern=r"^(research|cms|open|custom)$")]
    minimum_cell: Annotated[int, Field(ge=1)]
    minimum_patients: Annotated[int, Field(ge=1)]
    digest: DigestWord


class Reply(Message):
    """A site's answers to one request."""

    payload_type: ClassVar[str] = "application/vnd.fedcac.reply+json"

    site: SiteWord
    exchange: Annotated[int, Field(ge=1)]
    request_digest: DigestWord
    answers: dict[Word, Answer]
    flow: Answer
    policy: PolicySummary
    ledger_head: DigestWord
    software: Version
    masking_keys: ExchangeKeys | None = None


class Closing(Message):
    """The lead's last word on a round: nothing is asked or taken in any more."""

    payload_type: ClassVar[str] = "application/vnd.fedcac.closing+json"

    outcome: Literal["closed", "cancelled"]


class MaskingNote(Message):
    """One message of a masked sum (fedcac.masking), to or from `site`.

    The lead sends channels, plan, survivors and unmask; a site masked, signature and shares.
    `exchange` is 0 for channels, which are those of the round.
    """

    payload_type: ClassVar[str] = "application/vnd.fedcac.masking+json"

    site: SiteWord
    exchange: Annotated[int, Field(ge=0)]
    step: Literal["channels", "plan", "masked", "survivors", "signature", "unmask", "shares"]
    document: FreeDocument
