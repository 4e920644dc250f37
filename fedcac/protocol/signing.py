"""Sealed protocols: a protocol in a signed envelope, and the rule that versions never roll back."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from fedcac.canonical import canonical_bytes
from fedcac.errors import ProtocolError
from fedcac.protocol.schema import Protocol
from fedcac.signing import SigningKey, TrustedKeys, open_envelope, seal

__all__ = ["PAYLOAD_TYPE", "open_protocol", "seal_protocol"]

PAYLOAD_TYPE = "application/vnd.fedcac.protocol+json"


def seal_protocol(protocol: Protocol, key: SigningKey) -> bytes:
    """Return the protocol's canonical JSON in an envelope signed by the lead."""
    return seal(canonical_bytes(protocol.model_dump(mode="json")), PAYLOAD_TYPE, key)


def open_protocol(
    envelope: bytes, keys: TrustedKeys, *, newest_seen: Mapping[str, tuple[int, str]]
) -> Protocol:
    """Return the verified protocol of an envelope.

    `newest_seen` maps a protocol's id to the newest version seen here and its digest.

    Raises
    ------
    SignatureError
        If the envelope is not signed by a trusted key.
    ProtocolError
        `malformed`; `rolled_back` for a version older than one seen; `version_reused` for a
        version seen before with other content.
    """
    payload, _ = open_envelope(envelope, PAYLOAD_TYPE, keys)
    try:
        protocol = Protocol.model_validate_json(payload)
    except ValidationError as error:
        raise ProtocolError(
            "A signed protocol does not have this release's shape.",
            code="malformed",
            cure="Check that both sides run the same release.",
        ) from error
    seen = newest_seen.get(protocol.id)
    if seen is not None:
        version, digest = seen
        if protocol.version < version:
            raise ProtocolError(
                f"Protocol '{protocol.id}' was seen at version {version}; this is version "
                f"{protocol.version}.",
                code="rolled_back",
                cure="Launch the newest version, or give the change a higher version number.",
            )
        if protocol.version == version and protocol.digest() != digest:
            raise ProtocolError(
                f"Version {version} of protocol '{protocol.id}' was seen with other content.",
                code="version_reused",
                cure="Give changed content a higher version number.",
            )
    return protocol
