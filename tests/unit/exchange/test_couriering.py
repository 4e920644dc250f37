"""Couriers' keys: ECDSA on P-384 without a password, and nothing else."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from fedcac.errors import RoundError, SignatureError
from fedcac.exchange.couriering import CourierKey, CourierPublicKey, Order, Receipt

KEY = CourierKey.generate()


def private_text(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )


def under_a_password() -> bytes:
    """Return an OpenSSH key file (PROTOCOL.key) whose secret part is encrypted."""

    def string(content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + content

    public = base64.b64decode(KEY.public.to_text().split()[1])
    options = string(bytes(16)) + struct.pack(">I", 16)
    content = b"openssh-key-v1\0" + string(b"aes256-ctr") + string(b"bcrypt") + string(options)
    content += struct.pack(">I", 1) + string(public) + string(bytes(64))
    body = base64.encodebytes(content).decode()
    return (
        f"-----BEGIN OPENSSH PRIVATE KEY-----\n{body}-----END OPENSSH PRIVATE KEY-----\n".encode()
    )


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"no key",
        under_a_password(),
        private_text(ec.generate_private_key(ec.SECP256R1())),
        private_text(ed25519.Ed25519PrivateKey.generate()),
    ],
    ids=["absent", "empty", "words", "password", "p256", "ed25519"],
)
def test_a_file_without_a_couriers_key_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "courier.key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SignatureError) as caught:
        CourierKey.load(path)
    assert caught.value.code == "signature.bad_courier_key"
    assert "fedcac-site courier init" in caught.value.cure


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ecdsa-sha2-nistp384 AAAA",
        "ecdsa-sha2-nistp384 \u00e9",
        "unheard-of AAAA",
        CourierPublicKey(ec.generate_private_key(ec.SECP256R1()).public_key()).to_text(),
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea",
    ],
    ids=["empty", "cut", "accent", "unknown", "p256", "ed25519"],
)
def test_a_line_without_a_couriers_key_is_refused(text: str) -> None:
    with pytest.raises(SignatureError) as caught:
        CourierPublicKey.from_text(text)
    assert caught.value.code == "signature.bad_courier_key"
    assert "fedcac-coordinator init --host" in caught.value.cure


def test_a_key_is_read_back_from_its_line_and_its_file(tmp_path: Path) -> None:
    KEY.save(tmp_path / "courier.key")
    loaded = CourierKey.load(tmp_path / "courier.key")
    line = (tmp_path / "courier.key.pub").read_text(encoding="ascii")
    public = CourierPublicKey.from_text(line)
    assert line.strip() == public.to_text() == KEY.public.to_text()
    assert public.as_key() == loaded.public.as_key()
    public.verify(loaded.sign(b"message"), b"message")
    with pytest.raises(SignatureError) as caught:
        public.verify(loaded.sign(b"message"), b"another")
    assert caught.value.code == "signature.courier_signature"
    assert "public keys" in caught.value.cure


def test_an_order_opens_as_nothing_else() -> None:
    order = Order(site="duke", serial=1, wait_s=2.5)
    sealed = order.seal(KEY)
    assert Order.open(sealed, KEY.public) == order
    with pytest.raises(SignatureError) as caught:
        Receipt.open(sealed, KEY.public)
    assert caught.value.code == "signature.courier_signature"
    foreign = Receipt(site="duke", serial=1).seal(KEY).model_copy()
    with pytest.raises(SignatureError):
        Order.open(foreign, KEY.public)


def test_a_signed_order_out_of_shape_says_what_to_install() -> None:
    document = b'{"version": 1, "site": "duke", "serial": 1, "wait_s": 60}'
    order = Order(site="duke", serial=1).seal(KEY)
    sealed = order.model_copy(
        update={"document": document, "signature": KEY.sign(Order.kind + document)}
    )
    with pytest.raises(RoundError) as caught:
        Order.open(sealed, KEY.public)
    assert caught.value.code == "round.malformed_courier_message"
    assert "same version" in caught.value.cure
