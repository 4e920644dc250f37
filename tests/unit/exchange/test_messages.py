"""Signed messages that say what they may not, one fault each."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from fedcac.canonical import canonical_bytes
from fedcac.errors import RoundError
from fedcac.exchange import Acceptance, Closing, MaskingNote, Offer, Reply, Request
from fedcac.exchange.messages import Message
from fedcac.signing import SigningKey, seal, trusted

KEY = SigningKey.generate()
NOW = datetime(2026, 3, 1, tzinfo=UTC).isoformat()
DIGEST = "sha256:" + "0" * 64
HEAD = {"round_id": "eng-1a2b", "issued_at": NOW}
POLICY = {"profile": "research", "minimum_cell": 5, "minimum_patients": 20, "digest": DIGEST}
REFUSED = {"refusal": "too_few_patients"}

SOUND: dict[type[Message], dict[str, Any]] = {
    Offer: HEAD
    | {
        "protocol_id": "eng2021",
        "protocol_version": 1,
        "protocol_digest": DIGEST,
        "package_digest": None,
        "sites": ["duke"],
        "expires_at": NOW,
    },
    Acceptance: HEAD | {"site": "duke", "offer_digest": DIGEST},
    Request: HEAD | {"exchange": 1, "protocol_digest": DIGEST, "expires_at": NOW, "queries": {}},
    Reply: HEAD
    | {
        "site": "duke",
        "exchange": 1,
        "request_digest": DIGEST,
        "answers": {"agreement": REFUSED},
        "flow": REFUSED,
        "policy": POLICY,
        "ledger_head": DIGEST,
        "software": "0.1.0",
    },
    Closing: HEAD | {"outcome": "closed"},
    MaskingNote: HEAD | {"site": "duke", "exchange": 0, "step": "channels", "document": {}},
}


@pytest.mark.parametrize("kind", SOUND)
def test_a_sound_message_comes_back_as_it_was(kind: type[Message]) -> None:
    message = kind.model_validate_json(json.dumps(SOUND[kind]))
    opened, signer = kind.open(message.seal(KEY), trusted([KEY.public]))
    assert (opened, signer) == (message, KEY.public)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (Offer, {"sites": []}),
        (Offer, {"edition": 0}),
        (Acceptance, {"refusal": "no such code"}),
        (Acceptance, {"site": "duke university"}),
        (Request, {"exchange": 0}),
        (Reply, {"flow": {}}),
        (Reply, {"flow": {"release": {}, "refusal": "too_few_patients"}}),
        (Reply, {"policy": POLICY | {"profile": "none"}}),
        (Reply, {"note": "by the way"}),
        (Closing, {"outcome": "forgotten"}),
        (MaskingNote, {"step": "reveal"}),
        (MaskingNote, {"exchange": -1}),
    ],
)
def test_a_signed_message_with_one_fault_is_refused(
    kind: type[Message], fault: dict[str, Any]
) -> None:
    envelope = seal(canonical_bytes(SOUND[kind] | fault), kind.payload_type, KEY)
    with pytest.raises(RoundError) as caught:
        kind.open(envelope, trusted([KEY.public]))
    assert caught.value.code == "round.malformed_message"
    assert kind.__name__.lower() in caught.value.message
    assert "same version" in caught.value.cure
