"""Canonical JSON and its SHA-256 digest: the one byte form that is signed, hashed and compared.

UTF-8, keys sorted by code point, no white space, no NaN or infinity, integers as integers, floats
in Python's shortest round-trip form. Integral floats keep their `.0`, so that a type never changes
on the way (RFC 8785 would drop it; both ends here are this module).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NewType, TypeVar

__all__ = ["Digest", "canonical_bytes", "digest_of", "require_canonical", "sha256_hex"]

D = TypeVar("D")

Digest = NewType("Digest", str)
"""`sha256:` followed by 64 lower-case hexadecimal digits."""


def canonical_bytes(document: Any) -> bytes:
    """Return the canonical JSON bytes of a JSON-like `document`.

    Raises
    ------
    ValueError
        If a number is not finite.
    TypeError
        If a value has no JSON form.
    """
    text = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")


def require_canonical(document: D) -> D:
    """Return a document that has canonical bytes, unchanged.

    For fields of free JSON: a schema takes `NaN` and `1e999` there, and what has them could be
    neither hashed nor written any more.

    Raises
    ------
    ValueError, TypeError
        As `canonical_bytes`.
    """
    canonical_bytes(document)
    return document


def sha256_hex(payload: bytes) -> Digest:
    """Return the digest of raw bytes."""
    return Digest("sha256:" + hashlib.sha256(payload).hexdigest())


def digest_of(document: Any) -> Digest:
    """Return the digest of a document's canonical bytes."""
    return sha256_hex(canonical_bytes(document))
