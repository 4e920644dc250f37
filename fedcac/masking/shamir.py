"""Shamir's sharing of 32-byte secrets: `threshold` shares give the secret, fewer tell nothing.

A secret is the value at 0 of a polynomial of degree threshold - 1 whose other coefficients are
random; share i is its value at i (Shamir 1979). Arithmetic is modulo `PRIME`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from fedcac.masking.errors import MaskingError

__all__ = ["PRIME", "SECRET_BYTES", "SHARE_BYTES", "RandomBytes", "combine", "split"]

RandomBytes = Callable[[int], bytes]
"""Returns so many unpredictable bytes; anything but `secrets.token_bytes` is for tests."""

PRIME = 2**256 + 297
"""The smallest prime above 2^256: every 32-byte secret is below it, and a share has 33 bytes."""

SECRET_BYTES = 32
SHARE_BYTES = 33


def split(secret: bytes, n_shares: int, threshold: int, random: RandomBytes) -> dict[int, bytes]:
    """Return shares 1 to `n_shares` of a 32-byte secret.

    Raises
    ------
    MaskingError
        If the secret has another length or the threshold is not from 1 to `n_shares`
        (`bad_secret`).
    """
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= n_shares:
        raise MaskingError("This secret cannot be shared so.", code="bad_secret")
    # 64 random bytes modulo a 257-bit prime: the bias is below 2^-254.
    coefficients = [int.from_bytes(random(64), "big") % PRIME for _ in range(threshold - 1)]
    coefficients.insert(0, int.from_bytes(secret, "big"))
    return {
        index: _value_at(coefficients, index).to_bytes(SHARE_BYTES, "big")
        for index in range(1, n_shares + 1)
    }


def _value_at(coefficients: list[int], point: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * point + coefficient) % PRIME
    return value


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Return the secret of at least `threshold` shares; further shares are checked against it.

    With exactly `threshold` shares a wrong one cannot be noticed here: it gives another secret.
    Whoever combines compares the result with a public key or a digest.

    Raises
    ------
    MaskingError
        If there are too few shares (`too_few_shares`), a share is no number of the field or has
        no valid index (`bad_share`), or the shares contradict one another (`shares_disagree`).
    """
    if len(shares) < threshold or threshold < 1:
        raise MaskingError("There are too few shares of a secret.", code="too_few_shares")
    points = {index: _number(index, share) for index, share in shares.items()}
    indices = tuple(sorted(points))
    used, further = indices[:threshold], indices[threshold:]
    values = [points[index] for index in used]
    secret = _interpolate(used, values, 0)
    is_one = all(_interpolate(used, values, index) == points[index] for index in further)
    if not is_one or secret >= 1 << (8 * SECRET_BYTES):
        raise MaskingError(
            "The shares of a secret contradict one another.",
            code="shares_disagree",
            cure="A site sent a wrong share; repeat the exchange without it.",
        )
    return secret.to_bytes(SECRET_BYTES, "big")


def _number(index: int, share: bytes) -> int:
    value = int.from_bytes(share, "big")
    if len(share) != SHARE_BYTES or value >= PRIME or not 1 <= index < PRIME:
        raise MaskingError("A share is not a number of the field.", code="bad_share")
    return value


def _interpolate(indices: tuple[int, ...], values: list[int], at: int) -> int:
    weights = _weights(indices, at)
    return sum(w * value for w, value in zip(weights, values, strict=True)) % PRIME


@lru_cache(maxsize=64)
def _weights(indices: tuple[int, ...], at: int) -> tuple[int, ...]:
    # Lagrange's; the same sites answer for every secret of an exchange, so they are computed once.
    weights = []
    for own in indices:
        above, below = 1, 1
        for other in indices:
            if other != own:
                above = above * (at - other) % PRIME
                below = below * (own - other) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(weights)
