"""Keys that are none, and envelopes with more than one signature."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcac.errors import SignatureError
from fedcac.signing import PublicKey, SigningKey, open_envelope, seal, trusted

KIND = "application/vnd.fedcac.test+json"


def test_a_fingerprint_is_the_start_of_the_key_id_in_groups_of_four() -> None:
    # RFC 8032, section 7.1, test 1: the public key.
    raw = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    key = PublicKey(bytes.fromhex(raw))
    groups = key.fingerprint.split(" ")
    assert [len(group) for group in groups] == [4] * 8
    assert key.key_id.startswith("".join(groups))
    # printf RAW | xxd -r -p | sha256sum
    assert key.fingerprint == "21fe 31df a154 a261 626b f854 046f d227"


def test_a_signature_is_that_of_the_standard() -> None:
    # RFC 8032, section 7.1, test 1: the empty message.
    key = PublicKey(
        bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    )
    signature = bytes.fromhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bac"
        "c61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    assert key.verify(signature, b"")
    assert not key.verify(signature, b"x")
    assert not key.verify(signature[:-1], b"")


def _pem(key: Ed25519PrivateKey | rsa.RSAPrivateKey, password: bytes | None = None) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption()
        if password is None
        else serialization.BestAvailableEncryption(password),
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a key",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        _pem(Ed25519PrivateKey.generate(), b"a password"),
        _pem(rsa.generate_private_key(65537, 2048)),
        None,
    ],
    ids=["empty", "words", "cut", "password", "rsa", "folder"],
)
def test_what_is_no_signing_key_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "site.key"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(SignatureError) as caught:
        SigningKey.load(path)
    assert caught.value.code == "signature.malformed_key"
    assert str(path) in caught.value.message
    assert ".key file that `init` wrote" in caught.value.cure


def test_a_path_through_a_file_leads_to_no_key(tmp_path: Path) -> None:
    (tmp_path / "site.key").write_bytes(b"")
    with pytest.raises(SignatureError) as caught:
        SigningKey.load(tmp_path / "site.key" / "site.key")
    assert caught.value.code == "signature.no_key"
    assert "--key" in caught.value.cure


@pytest.mark.parametrize("text", ["fedcac-ed25519 AAAA", "fedcac-ed25519 \u00e9", "rsa AAAA", ""])
def test_what_is_no_public_key_says_what_to_give(text: str) -> None:
    with pytest.raises(SignatureError) as caught:
        PublicKey.from_text(text)
    assert caught.value.code == "signature.malformed_key"
    assert ".pub file" in caught.value.cure


def test_one_trusted_signature_among_others_is_enough() -> None:
    known, other = SigningKey.generate(), SigningKey.generate()
    envelopes = [json.loads(seal(b"payload", KIND, key)) for key in (other, known)]
    foreign, own = (envelope["signatures"][0] for envelope in envelopes)
    broken = {**own, "sig": foreign["sig"]}
    unreadable = {**own, "sig": "?"}
    for signatures in ([foreign, own], [broken, own], [unreadable, own]):
        envelope = json.dumps({**envelopes[0], "signatures": signatures}).encode()
        payload, signer = open_envelope(envelope, KIND, trusted([known.public]))
        assert (payload, signer) == (b"payload", known.public)


def test_an_envelope_of_another_kind_says_which_it_is() -> None:
    key = SigningKey.generate()
    with pytest.raises(SignatureError, match=r"holds 'application/vnd\.fedcac\.test") as caught:
        open_envelope(seal(b"", KIND, key), "application/other", trusted([key.public]))
    assert caught.value.code == "signature.wrong_type"
    assert "the one that is asked for" in caught.value.cure
