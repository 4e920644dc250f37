"""Secret sharing: enough shares give the secret, fewer fit every secret."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcac.masking import MaskingError
from fedcac.masking.shamir import PRIME, SHARE_BYTES, combine, split

RandomOf = Callable[[str], Callable[[int], bytes]]
SECRET = bytes(range(32))


def is_probable_prime(number: int) -> bool:
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53):
        value = pow(base, odd, number)
        chain = [pow(value, 2**step, number) for step in range(twos)]
        if value != 1 and number - 1 not in chain:
            return False
    return True


def test_the_prime_is_the_smallest_above_every_secret() -> None:
    assert is_probable_prime(PRIME)
    assert not any(is_probable_prime(number) for number in range(2**256 + 1, PRIME, 2))
    assert (PRIME - 1).bit_length() <= 8 * SHARE_BYTES


def test_every_set_of_enough_shares_gives_the_secret(random_of: RandomOf) -> None:
    shares = split(SECRET, 6, 4, random_of("a"))
    for size in (4, 5, 6):
        for chosen in combinations(shares, size):
            assert combine({index: shares[index] for index in chosen}, 4) == SECRET


@given(secret=st.binary(min_size=32, max_size=32), threshold=st.integers(1, 9))
@settings(max_examples=30)
def test_secrets_survive(random_of: RandomOf, secret: bytes, threshold: int) -> None:
    shares = split(secret, 9, threshold, random_of("b"))
    last = dict(list(shares.items())[9 - threshold :])
    assert combine(last, threshold) == secret


def test_too_few_shares_are_refused(random_of: RandomOf) -> None:
    shares = split(SECRET, 5, 3, random_of("c"))
    with pytest.raises(MaskingError, match="too_few_shares"):
        combine({1: shares[1], 2: shares[2]}, 3)


def test_too_few_shares_fit_every_secret(random_of: RandomOf) -> None:
    shares = split(SECRET, 5, 3, random_of("d"))
    for candidate in (bytes(32), b"\xff" * 32, SECRET[::-1]):
        # A third share at 3 that, with the two known ones, gives the candidate.
        target = int.from_bytes(candidate, "big")
        first, second = (int.from_bytes(shares[index], "big") for index in (1, 2))
        # The secret of shares at 1, 2, 3 is 3 f(1) - 3 f(2) + f(3).
        third = (target - 3 * first + 3 * second) % PRIME
        made_up = {1: shares[1], 2: shares[2], 3: third.to_bytes(SHARE_BYTES, "big")}
        assert combine(made_up, 3) == candidate


def test_a_wrong_share_gives_another_secret_or_is_noticed(random_of: RandomOf) -> None:
    shares = split(SECRET, 5, 3, random_of("e"))
    wrong = {**shares, 2: shares[3]}
    assert combine({index: wrong[index] for index in (1, 2, 4)}, 3) != SECRET
    with pytest.raises(MaskingError, match="shares_disagree"):
        combine(wrong, 3)


def test_a_share_given_twice_counts_once(random_of: RandomOf) -> None:
    shares = split(SECRET, 5, 3, random_of("f"))
    same = [(1, shares[1]), (1, shares[1]), (2, shares[2])]
    with pytest.raises(MaskingError, match="too_few_shares"):
        combine(dict(same), 3)


@pytest.mark.parametrize(
    ("index", "share"),
    [(0, bytes(33)), (-1, bytes(33)), (3, bytes(32)), (3, b"\xff" * 33), (PRIME, bytes(33))],
)
def test_shares_outside_the_field(random_of: RandomOf, index: int, share: bytes) -> None:
    shares = split(SECRET, 5, 3, random_of("g"))
    with pytest.raises(MaskingError, match="bad_share"):
        combine({1: shares[1], 2: shares[2], index: share}, 3)


@pytest.mark.parametrize(("secret", "threshold"), [(bytes(31), 2), (SECRET, 0), (SECRET, 6)])
def test_what_cannot_be_shared(random_of: RandomOf, secret: bytes, threshold: int) -> None:
    with pytest.raises(MaskingError, match="bad_secret"):
        split(secret, 5, threshold, random_of("h"))
