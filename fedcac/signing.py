"""Ed25519 signatures in a DSSE envelope (secure-systems-lab/dsse, protocol v1.0.2).

The signature covers the payload's type as well as its bytes, so that an envelope of one kind can
never be read as another. Bytes become trusted here and nowhere else.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NewType, Self

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field

from fedcac.canonical import canonical_bytes
from fedcac.errors import SignatureError

__all__ = ["Envelope", "KeyId", "PublicKey", "SigningKey", "TrustedKeys", "open_envelope", "seal"]

KeyId = NewType("KeyId", str)
"""SHA-256 of the raw 32-byte public key, in hexadecimal."""

_GIVE_PUBLIC_KEY = "Give the one-line .pub file that `init` wrote."
_GIVE_KEY = "Give the .key file that `init` wrote, or restore it from a backup."


def _damaged_key(message: str) -> SignatureError:
    return SignatureError(message, code="malformed_key", cure=_GIVE_PUBLIC_KEY)


@dataclass(frozen=True)
class PublicKey:
    """An Ed25519 verification key."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise _damaged_key("A public key has 32 bytes.")

    @property
    def key_id(self) -> KeyId:
        """Return the identifier of this key."""
        return KeyId(hashlib.sha256(self.raw).hexdigest())

    @property
    def fingerprint(self) -> str:
        """Return the identifier in groups of four, for comparison over the telephone."""
        key_id = self.key_id
        return " ".join(key_id[start : start + 4] for start in range(0, 32, 4))

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Say whether the signature is this key's over the message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def to_text(self) -> str:
        """Return the key as one line of text."""
        return "fedcac-ed25519 " + base64.b64encode(self.raw).decode("ascii")

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read a key written by `to_text`; SignatureError if it is not one."""
        words = text.split()
        if len(words) != 2 or words[0] != "fedcac-ed25519":
            raise SignatureError(
                "This is not a fedcac public key.",
                code="malformed_key",
                cure=_GIVE_PUBLIC_KEY,
            )
        try:
            return cls(base64.b64decode(words[1], validate=True))
        # Neither base64 nor, beyond ASCII, text that could be.
        except ValueError as error:
            raise _damaged_key("The public key is damaged.") from error


class SigningKey:
    """An Ed25519 private key. It is made where it is used and never travels."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> Self:
        """Make a new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @property
    def public(self) -> PublicKey:
        """Return the matching verification key."""
        return PublicKey(
            self._key.public_key().public_bytes(
                serialization.Encoding.Raw, serialization.PublicFormat.Raw
            )
        )

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of a message."""
        return self._key.sign(message)

    def save(self, path: Path) -> None:
        """Write the key as unencrypted PKCS#8 PEM with mode 0600; never overwrites a key."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise SignatureError(
                f"A key already lies at {path}.",
                code="key_exists",
                cure="Keep it, or move it away before making another.",
            ) from error
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(pem)
        path.with_suffix(".pub").write_text(self.public.to_text() + "\n", encoding="ascii")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a key written by `save`.

        Raises
        ------
        SignatureError
            If there is no file (`no_key`), or it is no Ed25519 key without a password
            (`malformed_key`).
        """
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SignatureError(
                f"There is no signing key at {path}.",
                code="no_key",
                cure="Run `init` first, or give the right --key.",
            ) from error
        # TypeError: the key is under a password. InternalError: OpenSSL gave up on a damaged one.
        except (
            ValueError,
            TypeError,
            UnsupportedAlgorithm,
            InternalError,
            IsADirectoryError,
        ) as error:
            raise SignatureError(
                f"{path} is not a readable key.", code="malformed_key", cure=_GIVE_KEY
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SignatureError(
                f"{path} is not an Ed25519 key.", code="malformed_key", cure=_GIVE_KEY
            )
        return cls(key)


class _Signature(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    keyid: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    sig: str


class Envelope(BaseModel):
    """A DSSE envelope: base64 payload, its type, and signatures over both."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    payloadType: str
    payload: str
    signatures: Annotated[tuple[_Signature, ...], Field(min_length=1, max_length=8)]

    def to_bytes(self) -> bytes:
        """Return the canonical bytes of the envelope."""
        return canonical_bytes(self.model_dump(mode="json"))


TrustedKeys = Mapping[KeyId, PublicKey]


def trusted(keys: Iterable[PublicKey]) -> TrustedKeys:
    """Index verification keys by their identifier."""
    return {key.key_id: key for key in keys}


def _pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    # DSSE v1: "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, payload_type: str, key: SigningKey) -> bytes:
    """Sign a payload of a given type and return the envelope's bytes."""
    signature = key.sign(_pre_authentication_encoding(payload_type, payload))
    return Envelope(
        payloadType=payload_type,
        payload=base64.b64encode(payload).decode("ascii"),
        signatures=(
            _Signature(keyid=key.public.key_id, sig=base64.b64encode(signature).decode("ascii")),
        ),
    ).to_bytes()


def open_envelope(envelope: bytes, payload_type: str, keys: TrustedKeys) -> tuple[bytes, PublicKey]:
    """Return the payload and the trusted key that signed it.

    Raises
    ------
    SignatureError
        If the bytes are no envelope (`malformed_envelope`), the type is another (`wrong_type`),
        no signature is by a trusted key (`untrusted_key`), or one is but does not fit
        (`bad_signature`).
    """
    try:
        parsed = Envelope.model_validate_json(envelope)
        payload = base64.b64decode(parsed.payload, validate=True)
    except ValueError as error:  # not the schema, not base64, or beyond ASCII
        raise SignatureError(
            "This is not a signed envelope.",
            code="malformed_envelope",
            cure="Ask the sender for the signed file; an unsigned document is never accepted.",
        ) from error
    if parsed.payloadType != payload_type:
        raise SignatureError(
            f"The envelope holds '{parsed.payloadType}', not '{payload_type}'.",
            code="wrong_type",
            cure="Two files were mistaken for one another: give the one that is asked for.",
        )
    message = _pre_authentication_encoding(payload_type, payload)
    is_known_key_seen = False
    for signature in parsed.signatures:
        key = keys.get(KeyId(signature.keyid))
        if key is None:
            continue
        is_known_key_seen = True
        try:
            raw = base64.b64decode(signature.sig, validate=True)
        except ValueError:
            continue
        if key.verify(raw, message):
            return payload, key
    if is_known_key_seen:
        raise SignatureError(
            "The signature does not fit: the document was altered after signing.",
            code="bad_signature",
            cure="Discard it and ask the sender for the original.",
        )
    raise SignatureError(
        "No signature is by a key that is trusted here.",
        code="untrusted_key",
        cure="Compare the signer's fingerprint out of band, then pin its key.",
    )
