"""The one line out of a hospital: through a proxy or not, trusted how, and a look at it.

`look` tells IT people what a connection that fails would not: who answers instead of the lead,
whether a proxy breaks TLS open, whether the clock is wrong.
"""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit

from cryptography import x509

from fedcac.exchange.expiry import Expiry, expiries_of
from site_agent.flower_courier.settings import CourierFolder, CourierSettings

__all__ = ["Finding", "line_environment", "look", "trust_warnings"]

_TIMEOUT_S = 15.0
_MOST_FAST_S, _MOST_SLOW_S = 10.0, 300.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it is as it should be, and words for a person."""

    is_good: bool
    text: str
    is_about_clock: bool = False


def line_environment(settings: CourierSettings, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that speaks to the SuperLink.

    Loopback never goes through a proxy; the rest does if `proxy` is set, and follows the
    environment's own settings if it is not.
    """
    changed = {**environment, "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
    if settings.proxy is not None:
        changed.update(HTTPS_PROXY=settings.proxy, https_proxy=settings.proxy)
    return changed


def trust_warnings(folder: CourierFolder, now: datetime) -> list[str]:
    """Return warnings about the certificates that this site trusts."""
    folder.trust_path()
    pem = (folder.root / folder.settings().ca_certificate).read_bytes()
    found = [one.warning(now) for one in expiries_of(pem, "the consortium's authority in ca.crt")]
    return [text for text in found if text is not None]


def look(folder: CourierFolder, now: datetime | None = None) -> list[Finding]:
    """Reach for the coordinator once and say what was found, step by step.

    Parameters
    ----------
    folder
        The courier's folder.
    now
        The moment to hold certificates and the coordinator's clock against; the clock's own by
        default.

    Raises
    ------
    UsageError
        If the settings or a certificate cannot be read.
    """
    settings = folder.settings()
    found = [Finding(False, text) for text in trust_warnings(folder, now or datetime.now(UTC))]
    way = f" through {_without_password(settings.proxy)}" if settings.proxy else ""
    try:
        line = _connected(settings)
    except OSError as error:
        return [
            *found,
            Finding(
                False,
                f"{settings.superlink} cannot be reached{way} ({error or type(error).__name__}): "
                "ask for the one outgoing connection of the kit's README.",
            ),
        ]
    found.append(Finding(True, f"{settings.superlink} is reached{way}."))
    context = ssl.create_default_context(cafile=str(folder.trust_path()))
    host = settings.superlink.rpartition(":")[0]
    try:
        with line, context.wrap_socket(line, server_hostname=host) as secured:
            found.append(_lasting(secured, now))
            found += _healthy(secured, host, now)
    except ssl.SSLCertVerificationError as error:
        found.append(Finding(False, _why_not_trusted(settings, error)))
    except (OSError, http.client.HTTPException) as error:
        found.append(Finding(False, f"The connection broke off ({type(error).__name__})."))
    return found


def _connected(settings: CourierSettings) -> socket.socket:
    host, _, port = settings.superlink.rpartition(":")
    if settings.proxy is None:
        return socket.create_connection((host, int(port)), _TIMEOUT_S)
    proxy = urlsplit(settings.proxy)
    line = socket.create_connection((proxy.hostname or "", proxy.port or 3128), _TIMEOUT_S)
    headers = [f"CONNECT {host}:{port} HTTP/1.1", f"Host: {host}:{port}"]
    if proxy.username is not None:
        words = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
        headers.append(f"Proxy-Authorization: Basic {base64.b64encode(words).decode('ascii')}")
    try:
        line.sendall(("\r\n".join(headers) + "\r\n\r\n").encode("ascii"))
        answer = b""
        # One byte at a time: what follows the empty line belongs to TLS.
        while not answer.endswith(b"\r\n\r\n") and len(answer) < 16_384:
            byte = line.recv(1)
            if not byte:
                break
            answer += byte
        status = answer.split(b"\r\n", 1)[0].split()
        if len(status) < 2 or status[1] != b"200":
            word = status[1].decode("ascii", errors="replace") if len(status) > 1 else "nothing"
            raise OSError(f"the proxy answers {word}")
    except BaseException:
        line.close()
        raise
    return line


def _lasting(secured: ssl.SSLSocket, now: datetime | None) -> Finding:
    certificate = x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")
    expiry = Expiry("the coordinator's certificate", certificate.not_valid_after_utc)
    warning = expiry.warning(now or datetime.now(UTC))
    if warning is not None:
        return Finding(False, f"{warning} Tell the lead.")
    return Finding(True, f"Its certificate is trusted and holds until {expiry.not_after:%Y-%m-%d}.")


def _healthy(secured: ssl.SSLSocket, host: str, now: datetime | None) -> list[Finding]:
    secured.sendall(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    response = http.client.HTTPResponse(secured)
    response.begin()
    found = [Finding(response.status == 200, f"It answers {response.status} to /health.")]
    date = response.getheader("date")
    if date is not None:
        fast = ((now or datetime.now(UTC)) - parsedate_to_datetime(date)).total_seconds()
        if -_MOST_SLOW_S < fast < _MOST_FAST_S:
            found.append(Finding(True, "The two clocks agree.", is_about_clock=True))
        else:
            word = "fast" if fast > 0 else "slow"
            text = f"This clock is {abs(fast):.0f} s {word}; run NTP, or be refused."
            found.append(Finding(False, text, is_about_clock=True))
    return found


def _why_not_trusted(settings: CourierSettings, error: ssl.SSLCertVerificationError) -> str:
    text = f"The certificate is not trusted: {error.verify_message}."
    try:
        unverified = ssl.create_default_context()
        unverified.check_hostname = False
        # Looked at, never used: what is read is the name of who stands in the way.
        unverified.verify_mode = ssl.CERT_NONE
        with _connected(settings) as line, unverified.wrap_socket(line) as secured:
            der = secured.getpeercert(binary_form=True) or b""
            issuer = x509.load_der_x509_certificate(der).issuer.rfc4514_string()
    except (OSError, ValueError):
        return text
    return (
        f"{text} It was issued by {issuer}. If that is this hospital's own TLS inspection, exempt "
        "the host from it, or name its authority as extra_ca in courier.toml."
    )


def _without_password(proxy: str | None) -> str:
    parts = urlsplit(proxy or "")
    return f"{parts.hostname}:{parts.port}"
