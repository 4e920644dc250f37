"""A request proves that the asker holds both keys, and serves once and here."""

from __future__ import annotations

import base64
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fedcac.canonical import canonical_bytes
from fedcac.errors import FedcacError
from fedcac.exchange.couriering import CourierKey
from fedcac.joining import EnrolmentRequest, RequestKeys, open_request
from fedcac.joining.requests import REQUEST_FORMAT
from fedcac.signing import SigningKey, seal

LEAD = SigningKey.generate()
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SITE, NODE, FORMER = SigningKey.generate(), CourierKey.generate(), SigningKey.generate()


def made(keys: RequestKeys, now: datetime = NOW, lead: SigningKey = LEAD) -> bytes:
    return EnrolmentRequest.make("CAC", lead.public, "duke", keys, now).seal(keys)


def code_of(payload: bytes, now: datetime = NOW) -> str:
    with pytest.raises(FedcacError) as caught:
        open_request(payload, LEAD.public, now)
    return caught.value.code


def test_a_request_names_what_its_keys_signed() -> None:
    checked = open_request(made(RequestKeys(SITE, NODE)), LEAD.public, NOW)
    assert checked.key == SITE.public
    assert checked.node_key is not None
    assert checked.node_key.to_text() == NODE.public.to_text()
    assert checked.renewal is None
    assert not checked.is_renewal_by(SITE.public)
    by_hand = open_request(made(RequestKeys(SITE)), LEAD.public, NOW)
    assert by_hand.node_key is None


def test_two_requests_have_two_fingerprints() -> None:
    keys = RequestKeys(SITE, NODE)
    pair = [EnrolmentRequest.make("CAC", LEAD.public, "duke", keys, NOW) for _ in range(2)]
    assert pair[0].fingerprint != pair[1].fingerprint


def parts_of(payload: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    document = json.loads(payload)
    return document, json.loads(base64.b64decode(document["request"]["payload"]))


def test_somebody_elses_signing_key_cannot_be_enrolled() -> None:
    # The thief has duke's public key and signs with one of their own.
    document, body = parts_of(made(RequestKeys(SIGNER := SigningKey.generate(), NODE)))
    body["key"] = SITE.public.to_text()
    document["request"] = json.loads(seal(canonical_bytes(body), REQUEST_FORMAT, SIGNER))
    assert code_of(json.dumps(document).encode()) == "signature.possession_not_proved"


def test_somebody_elses_node_key_cannot_be_enrolled() -> None:
    thief = RequestKeys(SIGNER := SigningKey.generate(), CourierKey.generate())
    document, body = parts_of(made(thief))
    body["node_key"] = NODE.public.to_text()
    document["request"] = json.loads(seal(canonical_bytes(body), REQUEST_FORMAT, SIGNER))
    assert code_of(json.dumps(document).encode()) == "signature.possession_not_proved"
    # Nor with the node's signature under another request.
    theirs, _ = parts_of(made(RequestKeys(SITE, NODE)))
    document["node_signature"] = theirs["node_signature"]
    assert code_of(json.dumps(document).encode()) == "signature.possession_not_proved"


@pytest.mark.parametrize("name", ["site", "key", "node_key", "made_at", "nonce", "lead"])
def test_no_field_of_a_request_can_be_altered(name: str) -> None:
    document, body = parts_of(made(RequestKeys(SITE, NODE)))
    body[name] = {
        "site": "yale",
        "key": FORMER.public.to_text(),
        "node_key": CourierKey.generate().public.to_text(),
        "made_at": "2026-03-01T12:00:01Z",
        "nonce": "0" * 32,
        "lead": FORMER.public.key_id,
    }[name]
    document["request"]["payload"] = base64.b64encode(canonical_bytes(body)).decode()
    assert code_of(json.dumps(document).encode()) == "signature.possession_not_proved"


def test_a_request_without_its_node_signature_is_none() -> None:
    document, _ = parts_of(made(RequestKeys(SITE, NODE)))
    document["node_signature"] = None
    assert code_of(json.dumps(document).encode()) == "signature.possession_not_proved"
    assert code_of(b"{}") == "signature.malformed_request"
    document["unknown"] = 1
    assert code_of(json.dumps(document).encode()) == "signature.malformed_request"


def test_a_request_for_another_lead_is_refused() -> None:
    payload = made(RequestKeys(SITE, NODE), lead=FORMER)
    assert code_of(payload) == "signature.other_consortium"


@pytest.mark.parametrize("age", [timedelta(days=31), -timedelta(minutes=11)])
def test_an_old_request_or_one_of_tomorrow_is_refused(age: timedelta) -> None:
    assert code_of(made(RequestKeys(SITE, NODE), NOW - age)) == "usage.request_stale"


def test_a_renewal_is_signed_by_the_key_in_force_and_no_other() -> None:
    payload = made(RequestKeys(SITE, NODE, FORMER))
    checked = open_request(payload, LEAD.public, NOW)
    assert checked.is_renewal_by(FORMER.public)
    assert not checked.is_renewal_by(SigningKey.generate().public)
    # Somebody else's renewal under this request.
    document, _ = parts_of(payload)
    other, _ = parts_of(made(RequestKeys(SITE, NODE, FORMER)))
    document["renewal"] = other["renewal"]
    altered = open_request(json.dumps(document).encode(), LEAD.public, NOW)
    assert not altered.is_renewal_by(FORMER.public)


def test_bytes_at_random_make_no_other_error() -> None:
    whole = made(RequestKeys(SITE, NODE, FORMER))
    source = random.Random(1)  # noqa: S311
    codes = set()
    for _ in range(1500):
        altered = bytearray(whole)
        for _ in range(source.choice((1, 2, 4))):
            altered[source.randrange(len(altered))] = source.randrange(256)
        if source.random() < 0.3:
            place = source.randrange(len(altered))
            altered[place:place] = "\u00e9".encode()
        try:
            checked = open_request(bytes(altered), LEAD.public, NOW)
        except FedcacError as error:
            codes.add(error.code)
        else:
            # Only the renewal beside the request is not looked at here.
            assert checked.request.body() == open_request(whole, LEAD.public, NOW).request.body()
            checked.is_renewal_by(FORMER.public)
    assert {"signature.malformed_request", "signature.possession_not_proved"} <= codes
