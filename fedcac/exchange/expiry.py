"""How long certificates hold, in the words of every status verb.

Needs nothing but cryptography, since the packed courier of a site carries it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from fedcac.errors import UsageError

__all__ = ["Expiry", "expiries_of"]

_SOON, _VERY_SOON = timedelta(days=30), timedelta(days=7)


@dataclass(frozen=True)
class Expiry:
    """Until when one certificate holds."""

    name: str
    not_after: datetime

    def n_days(self, now: datetime) -> int:
        """Return the whole days that are left, negative after the end."""
        return (self.not_after - now).days

    def warning(self, now: datetime) -> str | None:
        """Return what to tell people, None while more than 30 days are left."""
        if now >= self.not_after:
            return f"EXPIRED: {self.name} expired on {self.not_after:%Y-%m-%d}."
        left = self.not_after - now
        if left > _SOON:
            return None
        word = "URGENT" if left <= _VERY_SOON else "Warning"
        return (
            f"{word}: {self.name} expires on {self.not_after:%Y-%m-%d}, "
            f"in {max(self.n_days(now), 0)} days."
        )


def expiries_of(pem: bytes, name: str) -> list[Expiry]:
    """Return the end of every certificate of a PEM file.

    Raises
    ------
    UsageError
        `bad_certificate` if it holds none.
    """
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except (ValueError, x509.InvalidVersion) as error:
        raise UsageError(
            f"{name} is not a PEM file of certificates.",
            code="bad_certificate",
            cure="Give the certificate that begins with -----BEGIN CERTIFICATE-----.",
        ) from error
    many = len(certificates) > 1
    return [
        Expiry(
            f"{name} ({number} of {len(certificates)})" if many else name, one.not_valid_after_utc
        )
        for number, one in enumerate(certificates, start=1)
    ]
