"""Numbers as integers modulo 2^128."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcac.masking import MaskingError
from fedcac.masking.fixed_point import (
    LARGEST_VALUE,
    MAXIMUM_SITES,
    MODULUS_BITS,
    SCALE_BITS,
    add,
    decode_exactly,
    decode_sum,
    encode,
    negate,
    rounding_error_bound,
    words_from_bytes,
    words_to_bytes,
)

WHOLE = st.integers(0, 2**MODULUS_BITS - 1)


def words(*numbers: int) -> np.ndarray:
    return words_from_bytes(b"".join(number.to_bytes(16, "little") for number in numbers))


@given(WHOLE, WHOLE)
def test_addition_and_negation_are_modulo_2_to_128(left: int, right: int) -> None:
    assert (add(words(left), words(right)) == words((left + right) % 2**128)).all()
    assert (negate(words(left)) == words(-left % 2**128)).all()


def test_the_largest_sum_fits_with_headroom() -> None:
    assert MAXIMUM_SITES * int(LARGEST_VALUE) << SCALE_BITS < 2 ** (MODULUS_BITS - 1)
    for extreme in (LARGEST_VALUE, -LARGEST_VALUE):
        total = words(0)
        for _ in range(MAXIMUM_SITES):
            total = add(total, encode([extreme], LARGEST_VALUE))
        assert decode_sum(total, MAXIMUM_SITES, LARGEST_VALUE)[0] == MAXIMUM_SITES * extreme


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=40))
def test_the_error_of_a_sum_is_within_its_bound(values: list[float]) -> None:
    total = words(0)
    for value in values:
        total = add(total, encode([value], 1e9))
    decoded = decode_exactly(total, len(values), 1e9)[0]
    error = abs(decoded - sum(map(Fraction, values)))
    assert error <= Fraction(rounding_error_bound(len(values)))
    assert decode_sum(total, len(values), 1e9)[0] == float(decoded)


def test_the_error_bound_is_reached() -> None:
    half = 2.0**-65
    values = [half * 3, half * 3]
    total = add(encode(values[:1], 1.0), encode(values[1:], 1.0))
    assert abs(decode_exactly(total, 2, 1.0)[0] - Fraction(sum(values))) == Fraction(
        rounding_error_bound(2)
    )


@given(st.floats(2.0**-12, 1e9), st.booleans())
def test_floats_from_2_to_minus_12_are_not_rounded(size: float, is_negative: bool) -> None:
    value = -size if is_negative else size
    assert decode_exactly(encode([value], 1e9), 1, 1e9)[0] == Fraction(value)


@given(st.floats(1e-6, 1e9))
def test_likelihoods_keep_twelve_digits(value: float) -> None:
    assert decode_sum(encode([value], 1e9), 1, 1e9)[0] == pytest.approx(value, rel=1e-13, abs=0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(MaskingError, match="not_finite") as raised:
        encode([1.0, value], 1e9)
    assert raised.value.exit_code == 10


@pytest.mark.parametrize("value", [np.nextafter(10.0, 11.0), -10.5, 1e300])
def test_numbers_beyond_their_bound_are_refused_and_not_quoted(value: float) -> None:
    with pytest.raises(MaskingError, match="out_of_bounds") as raised:
        encode([value], 10.0)
    assert str(value) not in str(raised.value)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan, math.inf, 2 * LARGEST_VALUE])
def test_bounds_that_cannot_be_meant(bound: float) -> None:
    with pytest.raises(MaskingError, match="bad_bound"):
        encode([0.0], bound)


def test_a_sum_that_its_bounds_rule_out_is_refused() -> None:
    total = add(encode([10.0], 10.0), encode([10.0], 10.0))
    assert decode_sum(total, 2, 10.0)[0] == 20.0
    with pytest.raises(MaskingError, match="sum_out_of_bounds"):
        decode_sum(add(total, words(1)), 2, 10.0)


@pytest.mark.parametrize("n_sites", [0, MAXIMUM_SITES + 1])
def test_numbers_of_sites_without_headroom(n_sites: int) -> None:
    with pytest.raises(MaskingError, match="too_many_sites"):
        decode_sum(words(0), n_sites, 1.0)


def test_bytes_round_trip_and_broken_ones_are_refused() -> None:
    encoded = encode([1.5, -2.25, 0.0], 10.0)
    assert (words_from_bytes(words_to_bytes(encoded)) == encoded).all()
    with pytest.raises(MaskingError, match="bad_length"):
        words_from_bytes(bytes(17))
