"""Certificates of the consortium: its own authority's, and that of the public port."""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedcac.errors import UsageError

__all__ = ["hosts_of", "make_authority", "make_server", "pem_of", "replace_file", "write_key"]

_AUTHORITY_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=825)
_CLOCK_SLACK = timedelta(hours=1)
_ALWAYS = ("localhost", "127.0.0.1")


def make_authority(now: datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Return a new authority's key and certificate, which holds for ten years."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Two authorities stand side by side in a rollover, so the name tells them apart.
    name = _name(f"fedcac consortium authority {now:%Y-%m-%d} {os.urandom(4).hex()}")
    certificate = (
        _begun(name, name, key.public_key(), now, _AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def make_server(
    hosts: Sequence[str],
    authority: tuple[ec.EllipticCurvePrivateKey, x509.Certificate],
    now: datetime,
    life: timedelta = SERVER_LIFE,
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Return the key and certificate of the public port.

    Parameters
    ----------
    hosts
        Names and addresses under which sites reach the public port; loopback is always added.
    authority
        The key and certificate that it is issued by.
    now, life
        From when and for how long it holds.
    """
    authority_key, authority_certificate = authority
    key = ec.generate_private_key(ec.SECP256R1())
    names = [_host(host) for host in dict.fromkeys([*hosts, *_ALWAYS])]
    certificate = (
        _begun(_name(hosts[0]), authority_certificate.subject, key.public_key(), now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    return key, certificate


def hosts_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the names and addresses that a server's certificate holds for, without loopback."""
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    names = (str(one.value) for one in found)
    return tuple(name for name in names if name not in _ALWAYS) or _ALWAYS[1:]


def pem_of(certificate: x509.Certificate) -> bytes:
    """Return a certificate in PEM form."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def write_key(path: Path, key: ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> None:
    """Write a key with mode 600 in one step, encrypted if there is a passphrase."""
    replace_file(
        path,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase)
            if passphrase
            else serialization.NoEncryption(),
        ),
        0o600,
    )


def replace_file(path: Path, payload: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all; one that is there keeps its owner and its mode.

    Raises
    ------
    UsageError
        `no_rights` if it belongs to another user, who could not read what this one wrote.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as stream:
            # What a process of another user reads is readable whatever this user's umask is.
            os.fchmod(descriptor, mode)
            if path.exists():
                present = path.stat()
                os.fchown(descriptor, present.st_uid, present.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(present.st_mode))
            stream.write(payload)
            stream.flush()
            os.fsync(descriptor)
    except PermissionError as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(
            f"{path} may not be replaced by this user.",
            code="no_rights",
            cure="Run this as the file's owner, or as root: the processes' users must read it.",
        ) from error
    os.replace(temporary, path)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - _CLOCK_SLACK)
        .not_valid_after(now.astimezone(UTC) + life)
    )
