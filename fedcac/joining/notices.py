"""What the lead tells every site about another site's key: it changed, or it is revoked.

A notice can only take trust away at a site. It carries the new key, so that people there can
confirm it without a file, and the renewal that the former key signed, if there is one.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from fedcac.canonical import canonical_bytes
from fedcac.errors import SignatureError
from fedcac.joining.kits import SiteWord
from fedcac.joining.requests import RENEWAL_FORMAT, EnrolmentRequest
from fedcac.signing import Envelope, PublicKey, SigningKey, open_envelope, seal, trusted

__all__ = ["Notice", "is_notice_name", "notice_name"]

_FORMAT = "application/vnd.fedcac.notice+json"
_NAME = re.compile(r"consortium\.notice-[0-9]{4,8}")


def notice_name(number: int) -> str:
    """Return the parcel name of a notice."""
    return f"consortium.notice-{number:04d}"


def is_notice_name(name: str) -> bool:
    """Say whether a parcel is a notice by its name."""
    return _NAME.fullmatch(name) is not None


class Notice(BaseModel):
    """One notice of the lead.

    Attributes
    ----------
    number
        Counts the consortium's notices.
    site
        Whose key it is about.
    former_key
        The key that counts no more.
    new_key
        Its successor, None after a revocation.
    renewal
        The former key's own signature over the request of its successor; None where the lead
        replaced the key without it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    number: Annotated[int, Field(ge=1)]
    issued_at: AwareDatetime
    site: SiteWord
    former_key: str
    new_key: str | None = None
    renewal: Envelope | None = None

    def seal(self, key: SigningKey) -> bytes:
        """Return the notice signed by the lead."""
        return seal(canonical_bytes(self.model_dump(mode="json")), _FORMAT, key)

    @classmethod
    def open(cls, envelope: bytes, lead: PublicKey) -> Self:
        """Return a verified notice.

        Raises
        ------
        SignatureError
            If the lead did not sign it, or it has another shape (`malformed_notice`).
        """
        try:
            document, _ = open_envelope(envelope, _FORMAT, trusted([lead]))
            return cls.model_validate_json(document)
        except ValueError as error:
            raise SignatureError(
                "A notice of the lead does not have its declared shape.", code="malformed_notice"
            ) from error

    @property
    def is_signed_by_former(self) -> bool:
        """Say whether the former key itself named the new one as its successor."""
        if self.renewal is None or self.new_key is None:
            return False
        try:
            former = PublicKey.from_text(self.former_key)
            body, _ = open_envelope(self.renewal.to_bytes(), RENEWAL_FORMAT, trusted([former]))
            request = EnrolmentRequest.model_validate_json(body)
        except (SignatureError, ValueError):
            return False
        return (request.site, request.key) == (self.site, self.new_key)
