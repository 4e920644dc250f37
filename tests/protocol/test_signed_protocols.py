"""Signed protocols with exactly one fault each."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from fedcac.errors import FedcacError, ProtocolError, SignatureError
from fedcac.protocol.catalogue import load_shipped
from fedcac.protocol.signing import PAYLOAD_TYPE, open_protocol, seal_protocol
from fedcac.signing import SigningKey, seal, trusted

KEY = SigningKey.generate()
PROTOCOL = load_shipped("demo-nongated")
ENVELOPE = seal_protocol(PROTOCOL, KEY)
TRUSTED = trusted([KEY.public])


def changed(change: Callable[[dict[str, Any]], None]) -> bytes:
    document = json.loads(ENVELOPE)
    change(document)
    return json.dumps(document).encode()


def alter_payload(document: dict[str, Any]) -> None:
    payload = json.loads(base64.b64decode(document["payload"]))
    payload["disclosure"]["minimum_cell"] = 1
    document["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()


def without_end(where: str) -> bytes:
    """Return a signed protocol with a number that has no canonical form."""
    document = PROTOCOL.model_dump(mode="json")
    if where == "scale":
        document["covariates"][0]["scale"] = float("inf")
    elif where == "minimum":
        document["covariates"][0]["minimum"] = float("nan")
    else:
        document["categories"]["cut_offs"][-1] = float("inf")
    return seal(json.dumps(document).encode(), PAYLOAD_TYPE, KEY)


def test_a_sound_envelope_opens() -> None:
    assert open_protocol(ENVELOPE, TRUSTED, newest_seen={}) == PROTOCOL


@pytest.mark.parametrize(
    ("envelope", "code"),
    [
        (changed(alter_payload), "signature.bad_signature"),
        (changed(lambda d: d.update(payloadType="application/other")), "signature.wrong_type"),
        (changed(lambda d: d.update(extra=1)), "signature.malformed_envelope"),
        (changed(lambda d: d.update(signatures=[])), "signature.malformed_envelope"),
        (changed(lambda d: d.update(payload="???")), "signature.malformed_envelope"),
        (changed(lambda d: d.update(payload="\u00e9")), "signature.malformed_envelope"),
        (
            changed(lambda d: d["signatures"][0].update(sig="\u00e9")),
            "signature.bad_signature",
        ),
        (ENVELOPE[:-20], "signature.malformed_envelope"),
        (b"", "signature.malformed_envelope"),
        (json.dumps(PROTOCOL.model_dump(mode="json")).encode(), "signature.malformed_envelope"),
        (seal_protocol(PROTOCOL, SigningKey.generate()), "signature.untrusted_key"),
        (seal(b'{"id": "x"}', PAYLOAD_TYPE, KEY), "protocol.malformed"),
        # Their digest would be that of the same protocol with null in their place.
        (without_end("scale"), "protocol.malformed"),
        (without_end("minimum"), "protocol.malformed"),
        (without_end("cut_offs"), "protocol.malformed"),
    ],
)
def test_one_fault_is_refused_with_its_code(envelope: bytes, code: str) -> None:
    with pytest.raises(FedcacError) as caught:
        open_protocol(envelope, TRUSTED, newest_seen={})
    assert caught.value.code == code


def test_a_signature_of_another_type_cannot_be_reused() -> None:
    payload = base64.b64decode(json.loads(ENVELOPE)["payload"])
    other = json.loads(seal(payload, "application/vnd.fedcac.request+json", KEY))
    other["payloadType"] = PAYLOAD_TYPE
    with pytest.raises(SignatureError, match="bad_signature"):
        open_protocol(json.dumps(other).encode(), TRUSTED, newest_seen={})


def test_versions_never_roll_back() -> None:
    digest, version = PROTOCOL.digest(), PROTOCOL.version
    seen = {PROTOCOL.id: (version, digest)}
    assert open_protocol(ENVELOPE, TRUSTED, newest_seen=seen) == PROTOCOL
    with pytest.raises(ProtocolError, match="rolled_back"):
        open_protocol(ENVELOPE, TRUSTED, newest_seen={PROTOCOL.id: (version + 1, digest)})
    with pytest.raises(ProtocolError, match="version_reused"):
        open_protocol(ENVELOPE, TRUSTED, newest_seen={PROTOCOL.id: (version, "sha256:other")})
