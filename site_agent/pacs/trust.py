"""Certificates and passwords: whom a site believes, and how it says who it is itself."""

from __future__ import annotations

import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fedcac.errors import UsageError
from site_agent.pacs.settings import TlsSettings

__all__ = ["Resolve", "client_context", "read_secret", "server_context"]

_T = TypeVar("_T")

Resolve = Callable[[str], Path]
"""Turns a path of the settings into one of the file system."""


def read_secret(path: Path) -> str:
    """Return the first line of a file that only its owner can read.

    Raises
    ------
    UsageError
        `no_secret_file` or `open_secret_file`.
    """
    _check_private(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    return lines[0] if lines else ""


def client_context(tls: TlsSettings | None, resolve: Resolve) -> ssl.SSLContext:
    """Return the context of connections to the PACS: TLS 1.2 or newer, names checked.

    With `tls` None the operating system's authorities are trusted.

    Raises
    ------
    UsageError
        `bad_certificate`, `no_secret_file` or `open_secret_file`.
    """
    context = _guarded(lambda: ssl.create_default_context(cafile=_path(tls, resolve)))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_own(context, tls, resolve)
    return context


def server_context(tls: TlsSettings, resolve: Resolve) -> ssl.SSLContext:
    """Return the context of the C-MOVE listener: the PACS shows a certificate, or is refused.

    Raises
    ------
    UsageError
        As `client_context`.
    """
    context = _guarded(
        lambda: ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=_path(tls, resolve))
    )
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    _load_own(context, tls, resolve)
    return context


def _path(tls: TlsSettings | None, resolve: Resolve) -> str | None:
    return None if tls is None else str(resolve(tls.ca_file))


def _load_own(context: ssl.SSLContext, tls: TlsSettings | None, resolve: Resolve) -> None:
    if tls is None or tls.certificate is None or tls.key is None:
        return
    certificate, key = resolve(tls.certificate), resolve(tls.key)
    _check_private(key)
    _guarded(lambda: context.load_cert_chain(certificate, key))


def _guarded(load: Callable[[], _T]) -> _T:
    try:
        return load()
    except OSError as error:
        raise UsageError(
            "A certificate or key under `tls` cannot be read.",
            code="bad_certificate",
            cure="Give PEM files that exist, and the key that belongs to the certificate.",
        ) from error


def _check_private(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UsageError(
            "A file with a password or key does not exist, or cannot be read.",
            code="no_secret_file",
            cure="Write it where site.yaml says, readable by the site agent's user only.",
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(
            "A file with a password or key can be read by others.",
            code="open_secret_file",
            cure="Take the others' rights away: `chmod 600 FILE`.",
        )
