"""What is said about certificates that end soon, and about files that hold none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedcac.errors import UsageError
from fedcac.exchange.expiry import Expiry, expiries_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("left", "warning"),
    [
        (timedelta(days=30, seconds=1), None),
        (timedelta(days=30), "Warning: lead.pem expires on 2026-03-31, in 30 days."),
        (timedelta(days=7, seconds=1), "Warning: lead.pem expires on 2026-03-08, in 7 days."),
        (timedelta(days=7), "URGENT: lead.pem expires on 2026-03-08, in 7 days."),
        (timedelta(seconds=1), "URGENT: lead.pem expires on 2026-03-01, in 0 days."),
        (timedelta(0), "EXPIRED: lead.pem expired on 2026-03-01."),
        (timedelta(days=-40), "EXPIRED: lead.pem expired on 2026-01-20."),
    ],
)
def test_the_nearer_the_end_the_louder(left: timedelta, warning: str | None) -> None:
    assert Expiry("lead.pem", NOW + left).warning(NOW) == warning


@pytest.mark.parametrize(("left", "n_days"), [(1.5, 1), (1.0, 1), (0.5, 0), (-0.5, -1), (-2, -2)])
def test_days_that_are_left_are_whole(left: float, n_days: int) -> None:
    assert Expiry("lead.pem", NOW + timedelta(days=left)).n_days(NOW) == n_days


def certificate(days: int) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lead.example.org")])
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), NOW, NOW + timedelta(days=days)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_every_certificate_of_a_file_has_its_own_end() -> None:
    assert expiries_of(certificate(5), "ca.crt") == [Expiry("ca.crt", NOW + timedelta(days=5))]
    both = expiries_of(certificate(5) + certificate(90), "ca.crt")
    assert both == [
        Expiry("ca.crt (1 of 2)", NOW + timedelta(days=5)),
        Expiry("ca.crt (2 of 2)", NOW + timedelta(days=90)),
    ]


@pytest.mark.parametrize("content", [b"", b"words", certificate(5)[:-40]])
def test_a_file_without_certificates_says_what_to_give(content: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        expiries_of(content, "ca.crt")
    assert caught.value.code == "usage.bad_certificate"
    assert "ca.crt" in caught.value.message
    assert "BEGIN CERTIFICATE" in caught.value.cure
