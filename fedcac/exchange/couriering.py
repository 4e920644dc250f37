"""What two couriers say to each other: a signed order one way, a signed receipt the other.

An order brings parcels and asks for others; a receipt says which arrived, which chunks are still
missing, and brings what was asked for. Both name chunks by digest and carry them beside the
document. The signatures keep out whoever has only the network between the couriers: they say
nothing about what is in a parcel, which its author signed and its reader verifies.

Needs nothing but the mailbox, pydantic and cryptography (see `fedcac.exchange.chunks`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedcac.errors import RoundError, SignatureError
from fedcac.exchange.chunks import DigestHex, Manifest

__all__ = [
    "BODY_BYTES",
    "Asked",
    "CourierKey",
    "CourierPublicKey",
    "Delivery",
    "Order",
    "Receipt",
    "Sealed",
]

BODY_BYTES = 16 * 2**20
"""Most bytes of chunks in one order or receipt: a few seconds on a hospital's line."""

SiteWord = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]
ParcelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,119}$")]
# What cryptography raises at damaged keys, and at those under a password, has no common class.
_UNREADABLE = (ValueError, TypeError, NotImplementedError, UnsupportedAlgorithm, InternalError)
_CURVE = ec.SECP384R1()

RefusalWord = Literal["parcel_changed", "too_large", "parcel_altered", "malformed_parcel_name"]


class CourierPublicKey:
    """The public half of a courier's key, ECDSA on P-384 as Flower's node keys are."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._key = key

    @classmethod
    def from_text(cls, text: str) -> CourierPublicKey:
        """Read an OpenSSH public key line; SignatureError `bad_courier_key` if it is none."""
        try:
            key = serialization.load_ssh_public_key(text.strip().encode("ascii"))
        except _UNREADABLE as error:
            raise _bad_key() from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != _CURVE.name:
            raise _bad_key()
        return cls(key)

    def to_text(self) -> str:
        """Return the key as an OpenSSH public key line, without a comment."""
        return self._key.public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        ).decode("ascii")

    def as_key(self) -> ec.EllipticCurvePublicKey:
        """Return the key as cryptography has it."""
        return self._key

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raise SignatureError `courier_signature` unless this key signed the message."""
        try:
            self._key.verify(signature, message, ec.ECDSA(hashes.SHA384()))
        except InvalidSignature as error:
            raise SignatureError(
                "A courier's message is not signed by the courier it names.",
                code="courier_signature",
                cure="Compare the couriers' public keys; someone may be on the line.",
            ) from error


class CourierKey:
    """A courier's private key in an OpenSSH file, the form that a SuperNode reads."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> CourierKey:
        """Return a new key."""
        return cls(ec.generate_private_key(_CURVE))

    @classmethod
    def load(cls, path: Path) -> CourierKey:
        """Read a key; SignatureError `bad_courier_key` if the file holds none."""
        try:
            key = serialization.load_ssh_private_key(path.read_bytes(), None)
        except (OSError, *_UNREADABLE) as error:
            raise _bad_key() from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != _CURVE.name:
            raise _bad_key()
        return cls(key)

    def save(self, path: Path) -> None:
        """Write the key (mode 600) and `PATH.pub`; FileExistsError if there is one already."""
        text = self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(text)
        public = path.with_name(path.name + ".pub")
        public.write_text(self.public.to_text() + "\n", encoding="ascii")

    @property
    def public(self) -> CourierPublicKey:
        """The public half."""
        return CourierPublicKey(self._key.public_key())

    def sign(self, message: bytes) -> bytes:
        """Return this key's signature of a message."""
        return self._key.sign(message, ec.ECDSA(hashes.SHA384()))


def _bad_key() -> SignatureError:
    return SignatureError(
        "That is not a courier's key (ECDSA on P-384, OpenSSH form).",
        code="bad_courier_key",
        cure="Make one with `fedcac-site courier init` or `fedcac-coordinator init --host`.",
    )


class Sealed(BaseModel):
    """A document's bytes with the signature of the courier that wrote it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    document: bytes
    signature: bytes


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: ClassVar[bytes]

    version: Literal[1] = 1
    site: SiteWord
    serial: Annotated[int, Field(ge=1)]

    def seal(self, key: CourierKey) -> Sealed:
        """Return this document signed; the kind is signed with it."""
        document = self.model_dump_json().encode("utf-8")
        return Sealed(document=document, signature=key.sign(self.kind + document))

    @classmethod
    def open(cls, sealed: Sealed, key: CourierPublicKey) -> Self:
        """Verify and return a document.

        Raises
        ------
        SignatureError
            `courier_signature` if `key` did not sign it.
        RoundError
            `malformed_courier_message` if it does not have its declared shape.
        """
        key.verify(sealed.signature, cls.kind + sealed.document)
        try:
            return cls.model_validate_json(sealed.document)
        except ValidationError as error:
            raise RoundError(
                "A courier's signed message does not have its declared shape.",
                code="malformed_courier_message",
                cure="Install the same version at both couriers.",
            ) from error


class Delivery(BaseModel):
    """A parcel on its way into a site's inbox."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: ParcelName
    manifest: Manifest


class Asked(BaseModel):
    """A parcel asked for: the digest held already, if any, and the chunks held of another."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    digest: DigestHex | None = None
    chunks: tuple[DigestHex, ...] = ()


class Order(_Document):
    """To a site: put these parcels into the inbox in this order; send those from the outbox.

    `serial` grows from order to order, so that an old one cannot be replayed. `wait_s` is how long
    the courier may wait for something asked for: never long, the agent works outside of it.
    """

    kind: ClassVar[bytes] = b"fedcac courier order\n"

    deliver: tuple[Delivery, ...] = ()
    collect: dict[ParcelName, Asked] = {}
    wait_s: Annotated[float, Field(ge=0, le=5)] = 0.0


class Receipt(_Document):
    """From a site: what lies in the inbox, what is missing of it, and what the outbox holds.

    `missing` lists chunks to send next; `collected` the manifests of parcels that were asked for
    and lie in the outbox.
    """

    kind: ClassVar[bytes] = b"fedcac courier receipt\n"

    delivered: tuple[ParcelName, ...] = ()
    missing: dict[ParcelName, tuple[DigestHex, ...]] = {}
    refused: dict[ParcelName, RefusalWord] = {}
    collected: dict[ParcelName, Manifest] = {}
