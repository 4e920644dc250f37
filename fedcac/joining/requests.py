"""An enrolment request: who asks to join, with proof of possession of both of its keys.

In effect a certificate signing request. One body names the consortium, the site, the agent's
signing key and the courier's node key; each of the two keys signs it, so that nobody can enrol a
key that somebody else holds, nor join two keys that do not belong together. A renewal is signed by
the key in force as well.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from fedcac.canonical import Digest, canonical_bytes, sha256_hex
from fedcac.errors import SignatureError, UsageError
from fedcac.exchange.couriering import CourierKey, CourierPublicKey
from fedcac.joining.fingerprints import fingerprint_of
from fedcac.joining.kits import ConsortiumName, SiteWord
from fedcac.signing import Envelope, PublicKey, SigningKey, open_envelope, seal, trusted

__all__ = ["CheckedRequest", "EnrolmentRequest", "RequestKeys", "open_request"]

REQUEST_FORMAT = "application/vnd.fedcac.enrolment-request+json"
RENEWAL_FORMAT = "application/vnd.fedcac.enrolment-renewal+json"
_NODE_PREFIX = b"fedcac enrolment request\n"
_LONGEST_LIFE = timedelta(days=30)
_CLOCK_SLACK = timedelta(minutes=10)

KeyIdWord = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class RequestKeys:
    """The private keys that sign a request.

    `node` is None where parcels go by hand; `former` is the key in force, in a renewal.
    """

    signing: SigningKey
    node: CourierKey | None = None
    former: SigningKey | None = None


class EnrolmentRequest(BaseModel):
    """The body that every key of a request signs.

    Attributes
    ----------
    consortium, lead
        The consortium and its lead's key id, so that a request serves nowhere else.
    site
        The name that the site asks for.
    key, node_key
        Public halves of the agent's signing key and the courier's node key, as text.
    former
        The key id in force, in a renewal.
    made_at, nonce
        When it was made; 32 hexadecimal digits that never occur twice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    consortium: ConsortiumName
    lead: KeyIdWord
    site: SiteWord
    key: str
    node_key: str | None = None
    former: KeyIdWord | None = None
    made_at: AwareDatetime
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]

    @classmethod
    def make(
        cls, consortium: str, lead: PublicKey, site: str, keys: RequestKeys, now: datetime
    ) -> EnrolmentRequest:
        """Return the body of a request by these keys."""
        return cls(
            consortium=consortium,
            lead=lead.key_id,
            site=site,
            key=keys.signing.public.to_text(),
            node_key=None if keys.node is None else keys.node.public.to_text(),
            former=None if keys.former is None else keys.former.public.key_id,
            made_at=now,
            nonce=secrets.token_hex(16),
        )

    def body(self) -> bytes:
        """Return the canonical bytes that are signed."""
        return canonical_bytes(self.model_dump(mode="json"))

    @property
    def fingerprint(self) -> str:
        """What the site's people read aloud: it stands for the name and for both keys."""
        return fingerprint_of(self.body())

    def seal(self, keys: RequestKeys) -> bytes:
        """Return the request's file."""
        body = self.body()
        node = None if keys.node is None else keys.node.sign(_NODE_PREFIX + body)
        former = None if keys.former is None else seal(body, RENEWAL_FORMAT, keys.former)
        sealed = _RequestFile(
            request=Envelope.model_validate_json(seal(body, REQUEST_FORMAT, keys.signing)),
            node_signature=None if node is None else base64.b64encode(node).decode("ascii"),
            renewal=None if former is None else Envelope.model_validate_json(former),
        )
        return canonical_bytes(sealed.model_dump(mode="json")) + b"\n"


class _RequestFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    request: Envelope
    node_signature: str | None
    renewal: Envelope | None


@dataclass(frozen=True)
class CheckedRequest:
    """A request whose keys proved that they made it. Who holds them, people have to say."""

    request: EnrolmentRequest
    key: PublicKey
    node_key: CourierPublicKey | None
    renewal: Envelope | None
    digest: Digest

    def is_renewal_by(self, key: PublicKey) -> bool:
        """Say whether the holder of `key` signed this request as its successor."""
        if self.renewal is None or self.request.former != key.key_id:
            return False
        try:
            body, _ = open_envelope(self.renewal.to_bytes(), RENEWAL_FORMAT, trusted([key]))
        except (SignatureError, ValueError):
            return False
        return body == self.request.body()


def open_request(payload: bytes, lead: PublicKey, now: datetime) -> CheckedRequest:
    """Check a request's shape, proofs of possession, addressee and age.

    Raises
    ------
    SignatureError
        `malformed_request` if it is no request; `possession_not_proved` if a key that it names did
        not sign it; `other_consortium` if it was made for another lead.
    UsageError
        `request_stale` if it is older than 30 days, or was made in the future.
    """
    try:
        sealed = _RequestFile.model_validate_json(payload)
        body = base64.b64decode(sealed.request.payload, validate=True)
        request = EnrolmentRequest.model_validate_json(body)
        key = PublicKey.from_text(request.key)
        node = request.node_key
        node_key = None if node is None else CourierPublicKey.from_text(node)
    except ValueError as error:
        raise _malformed() from error
    if request.body() != body:
        raise _malformed()
    try:
        open_envelope(sealed.request.to_bytes(), REQUEST_FORMAT, trusted([key]))
        _check_node(node_key, sealed.node_signature, body)
    except (SignatureError, ValueError) as error:
        raise SignatureError(
            f"The request of '{request.site}' is not signed by every key that it names.",
            code="possession_not_proved",
            cure="Enrol nothing; ask the site for the file that `fedcac-site init --kit` wrote.",
        ) from error
    if request.lead != lead.key_id:
        raise SignatureError(
            f"The request was made for another lead, of '{request.consortium}'.",
            code="other_consortium",
            cure="Send the site this consortium's kit, and let it ask again.",
        )
    if not now - _LONGEST_LIFE <= request.made_at <= now + _CLOCK_SLACK:
        raise UsageError(
            f"The request was made at {request.made_at:%Y-%m-%d %H:%M} UTC: too old, or its clock "
            "is wrong.",
            code="request_stale",
            cure="Let the site write it again with `fedcac-site keys request`, and check both "
            "clocks.",
        )
    return CheckedRequest(request, key, node_key, sealed.renewal, sha256_hex(body))


def _check_node(node_key: CourierPublicKey | None, signature: str | None, body: bytes) -> None:
    if node_key is None and signature is None:
        return
    if node_key is None or signature is None:
        raise _malformed()
    try:
        node_key.verify(base64.b64decode(signature, validate=True), _NODE_PREFIX + body)
    except ValueError as error:
        raise _malformed() from error


def _malformed() -> SignatureError:
    return SignatureError(
        "This is not an enrolment request.",
        code="malformed_request",
        cure="Give the file that the site's `fedcac-site init --kit` or `keys request` wrote.",
    )
