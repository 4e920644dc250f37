"""Keys and masks: X25519, HKDF-SHA256, ChaCha20 as a mask generator, ChaCha20-Poly1305 for shares.

Every derived key has a context, a canonical JSON document that says what it is for. Two keys of
different contexts are independent, so nothing but the context decides what a key can open.
"""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedcac.canonical import canonical_bytes
from fedcac.masking.errors import MaskingError
from fedcac.masking.fixed_point import NUMBER_BYTES, Words, words_from_bytes
from fedcac.masking.shamir import RandomBytes

__all__ = [
    "KEY_BYTES",
    "AgreementKey",
    "commitment_of",
    "derived_key",
    "mask_of",
    "open_sealed",
    "pair_mask_key",
    "seal_for",
    "self_mask_key",
    "share_key",
]

KEY_BYTES = 32
_NONCE_BYTES = 12


class AgreementKey:
    """An X25519 private key made from 32 random bytes, which are what is shared."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise MaskingError("An agreement key has 32 bytes.", code="bad_key")
        self.secret = secret
        self._key = X25519PrivateKey.from_private_bytes(secret)

    @property
    def public(self) -> bytes:
        """Return the 32-byte public key."""
        return self._key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )

    def agree(self, peer: bytes) -> bytes:
        """Return the secret in common with a peer's public key; MaskingError `bad_key`."""
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(peer))
        except ValueError as error:
            # Another length, or a point of small order, with which the secret would be known.
            raise MaskingError("A peer's public key cannot be used.", code="bad_key") from error


def derived_key(secret: bytes, context: dict[str, Any]) -> bytes:
    """Return the 32-byte key of a secret and a context (HKDF-SHA256, RFC 5869)."""
    info = b"fedcac.masking.v1 " + canonical_bytes(context)
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)


def pair_mask_key(
    common: bytes, context: dict[str, Any], analysis: str, sites: tuple[str, str]
) -> bytes:
    """Return the key of the mask that two sites have in common for one analysis of one exchange.

    `context` holds round, exchange and plan; both sites must name each other in either order.
    """
    named = {**context, "analysis": analysis, "sites": sorted(sites), "for": "pair mask"}
    return derived_key(common, named)


def self_mask_key(seed: bytes, context: dict[str, Any], analysis: str, site: str) -> bytes:
    """Return the key of a site's own mask for one analysis of one exchange."""
    return derived_key(seed, {**context, "analysis": analysis, "site": site, "for": "self mask"})


def commitment_of(seed: bytes) -> bytes:
    """Return a digest by which a recovered self-mask seed can be recognised."""
    return hashlib.sha256(b"fedcac.masking.v1 seed " + seed).digest()


def mask_of(key: bytes, n_numbers: int) -> Words:
    """Return the ChaCha20 key stream as integers modulo 2^128, shape (n_numbers, 2)."""
    # Counter and nonce are zero: a key makes one mask and is never used again.
    encryptor = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    return words_from_bytes(encryptor.update(bytes(n_numbers * NUMBER_BYTES)))


def share_key(common: bytes, context: dict[str, Any], sender: str, receiver: str) -> bytes:
    """Return the key for what one site sends another in one exchange; directions differ."""
    return derived_key(common, {**context, "from": sender, "to": receiver, "for": "shares"})


def seal_for(
    key: bytes, plaintext: bytes, associated: dict[str, Any], random: RandomBytes
) -> bytes:
    """Return nonce, ciphertext and tag; `associated` must be the same when it is opened."""
    nonce = random(_NONCE_BYTES)
    sealed = ChaCha20Poly1305(key).encrypt(nonce, plaintext, canonical_bytes(associated))
    return nonce + sealed


def open_sealed(key: bytes, sealed: bytes, associated: dict[str, Any]) -> bytes:
    """Return the plaintext; MaskingError `altered_ciphertext` if anything differs."""
    try:
        return ChaCha20Poly1305(key).decrypt(
            sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], canonical_bytes(associated)
        )
    except (InvalidTag, ValueError) as error:
        raise MaskingError(
            "Shares for this site do not open: they were altered or are of another exchange.",
            code="altered_ciphertext",
            cure="Leave the sender out of the exchange, and find out who altered them.",
        ) from error
