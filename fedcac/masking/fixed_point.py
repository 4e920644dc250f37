"""Real numbers as integers modulo 2^128, so that masks can be added and cancel exactly.

A number x becomes round(x * 2^64) modulo 2^128, negative ones in two's complement. The 128 bits
are: 1 sign, 10 for the sum of up to 1000 sites, 53 for the whole part, 64 for the fraction. Sums
of encoded numbers are exact, so rounding happens once per site: the sum of n sites differs from
the sum of the true numbers by at most n * 2^-65 (`rounding_error_bound`). A float of magnitude
2^-12 or more is a multiple of 2^-64 and is not rounded at all.

Arrays have shape (n, 2) and dtype uint64: the low and the high half of each integer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fedcac.masking.errors import MaskingError

__all__ = [
    "LARGEST_VALUE",
    "MAXIMUM_SITES",
    "NUMBER_BYTES",
    "SCALE_BITS",
    "Vector",
    "Words",
    "add",
    "decode_exactly",
    "decode_sum",
    "encode",
    "negate",
    "rounding_error_bound",
    "words_from_bytes",
    "words_to_bytes",
]

Vector = NDArray[np.float64]
Words = NDArray[np.uint64]

MODULUS_BITS = 128
SCALE_BITS = 64
MAXIMUM_SITES = 1000
NUMBER_BYTES = MODULUS_BITS // 8
LARGEST_VALUE = 2.0**53
"""1000 * 2^53 * 2^64 < 2^127, and every whole number up to here is a float."""


def rounding_error_bound(n_sites: int) -> float:
    """Return the largest possible error of an exactly decoded sum of `n_sites` numbers."""
    return n_sites * 2.0 ** -(SCALE_BITS + 1)


def encode(values: Iterable[float], bound: float) -> Words:
    """Return numbers of magnitude at most `bound` as integers, shape (n, 2).

    Raises
    ------
    MaskingError
        If a number is not finite (`not_finite`) or its magnitude is above `bound`
        (`out_of_bounds`), or the bound itself is not in (0, LARGEST_VALUE] (`bad_bound`).
    """
    if not 0.0 < bound <= LARGEST_VALUE:
        raise MaskingError(
            "The declared bound is not a positive number up to 2^53.",
            code="bad_bound",
            cure="Rescale the quantity in the protocol.",
        )
    encoded = bytearray()
    for value in values:
        number = float(value)
        # The messages name no value: it may be a patient's.
        if not math.isfinite(number):
            raise MaskingError("A number to be summed is not finite.", code="not_finite")
        if abs(number) > bound:
            raise MaskingError(
                "A number to be summed is beyond its declared bound.",
                code="out_of_bounds",
                cure="Declare a wider bound for all sites; one site's would tell its value.",
            )
        # A power of two: the product is exact and only `round` rounds.
        scaled = round(math.ldexp(number, SCALE_BITS))
        encoded += (scaled % (1 << MODULUS_BITS)).to_bytes(NUMBER_BYTES, "little")
    return words_from_bytes(bytes(encoded))


def words_from_bytes(payload: bytes) -> Words:
    """Return little-endian bytes as words of shape (n, 2); MaskingError `bad_length` if odd."""
    if len(payload) % NUMBER_BYTES:
        raise MaskingError("A vector does not hold whole numbers.", code="bad_length")
    return np.frombuffer(payload, dtype="<u8").astype(np.uint64).reshape(-1, 2)


def words_to_bytes(words: Words) -> bytes:
    """Return words as little-endian bytes, 16 per number."""
    return words.astype("<u8").tobytes()


def add(left: Words, right: Words) -> Words:
    """Return the sums modulo 2^128 of two arrays of shape (n, 2)."""
    low = left[:, 0] + right[:, 0]
    carry = (low < left[:, 0]).astype(np.uint64)
    return np.stack([low, left[:, 1] + right[:, 1] + carry], axis=1)


def negate(words: Words) -> Words:
    """Return the negatives modulo 2^128."""
    low = ~words[:, 0] + np.uint64(1)
    carry = (low == 0).astype(np.uint64)
    return np.stack([low, ~words[:, 1] + carry], axis=1)


def decode_exactly(total: Words, n_sites: int, bound: float) -> list[Fraction]:
    """Return sums of `n_sites` encoded numbers as exact fractions.

    Raises
    ------
    MaskingError
        If a sum is larger than `n_sites` numbers of magnitude `bound` can give
        (`sum_out_of_bounds`): the masks did not cancel. If the sites are more than
        `MAXIMUM_SITES` or none (`too_many_sites`).
    """
    if not 1 <= n_sites <= MAXIMUM_SITES:
        raise MaskingError("At most 1000 sites can be summed.", code="too_many_sites")
    largest = n_sites * round(math.ldexp(bound, SCALE_BITS))
    sums = []
    for low, high in total.tolist():
        whole = low | (high << 64)
        signed = whole - (1 << MODULUS_BITS) if whole >> (MODULUS_BITS - 1) else whole
        if abs(signed) > largest:
            raise MaskingError(
                "The sum is larger than its sites' bounds allow: the masks did not cancel.",
                code="sum_out_of_bounds",
                cure="A site or the way altered a masked vector; repeat the exchange.",
            )
        sums.append(Fraction(signed, 1 << SCALE_BITS))
    return sums


def decode_sum(total: Words, n_sites: int, bound: float) -> Vector:
    """Return sums of encoded numbers as the nearest floats, shape (n,), as `decode_exactly`."""
    # Fraction to float rounds once and correctly.
    return np.array([float(value) for value in decode_exactly(total, n_sites, bound)])
