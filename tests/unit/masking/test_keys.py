"""Key agreement, contexts, masks and encrypted shares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedcac.masking import MaskingError
from fedcac.masking.fixed_point import words_to_bytes
from fedcac.masking.keys import (
    AgreementKey,
    commitment_of,
    mask_of,
    open_sealed,
    pair_mask_key,
    seal_for,
    self_mask_key,
    share_key,
)

CONTEXT: dict[str, Any] = {"round": "r-1", "exchange": 1, "plan": "p"}
SECRET = bytes(range(32))


def test_agreement_is_that_of_rfc_7748() -> None:
    # Section 6.1: Bob's private key, both public keys and the shared secret.
    bob = AgreementKey(
        bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    )
    alice = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert bob.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    common = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert bob.agree(alice).hex() == common


@pytest.mark.parametrize("public", [bytes(32), bytes([1]) + bytes(31), bytes(31)])
def test_public_keys_that_give_no_secret(public: bytes) -> None:
    with pytest.raises(MaskingError, match="bad_key"):
        AgreementKey(SECRET).agree(public)
    with pytest.raises(MaskingError, match="bad_key"):
        AgreementKey(bytes(31))


def test_every_context_gives_another_key() -> None:
    keys = [
        pair_mask_key(SECRET, CONTEXT, "cox", ("a", "b")),
        pair_mask_key(SECRET, CONTEXT, "auc", ("a", "b")),
        pair_mask_key(SECRET, CONTEXT, "cox", ("a", "c")),
        pair_mask_key(SECRET, {**CONTEXT, "exchange": 2}, "cox", ("a", "b")),
        pair_mask_key(SECRET, {**CONTEXT, "round": "r-2"}, "cox", ("a", "b")),
        pair_mask_key(SECRET, {**CONTEXT, "plan": "q"}, "cox", ("a", "b")),
        self_mask_key(SECRET, CONTEXT, "cox", "a"),
        self_mask_key(SECRET, CONTEXT, "cox", "b"),
        share_key(SECRET, CONTEXT, "a", "b"),
        share_key(SECRET, CONTEXT, "b", "a"),
        commitment_of(SECRET),
    ]
    assert len(set(keys)) == len(keys)


def test_both_sites_derive_the_same_pair_mask() -> None:
    assert pair_mask_key(SECRET, CONTEXT, "cox", ("a", "b")) == pair_mask_key(
        SECRET, CONTEXT, "cox", ("b", "a")
    )


def test_the_mask_is_the_chacha20_key_stream_of_rfc_8439() -> None:
    # Section A.1, test vector 1: key, counter and nonce are zero.
    assert (
        words_to_bytes(mask_of(bytes(32), 4)).hex().startswith("76b8e0ada0f13d90405d6ae55386bd28")
    )
    assert mask_of(SECRET, 3).shape == (3, 2)
    assert np.array_equal(mask_of(SECRET, 5)[:3], mask_of(SECRET, 3))


def test_sealed_shares_open_under_the_same_names_only() -> None:
    associated = {"from": "a", "to": "b", "round": "r-1"}
    sealed = seal_for(SECRET, b"shares", associated, lambda n_bytes: bytes(n_bytes))
    assert open_sealed(SECRET, sealed, associated) == b"shares"
    for wrong in ({**associated, "from": "c"}, {**associated, "round": "r-2"}):
        with pytest.raises(MaskingError, match="altered_ciphertext"):
            open_sealed(SECRET, sealed, wrong)
    for position in range(len(sealed)):
        altered = bytearray(sealed)
        altered[position] ^= 1
        with pytest.raises(MaskingError, match="altered_ciphertext"):
            open_sealed(SECRET, bytes(altered), associated)
    with pytest.raises(MaskingError, match="altered_ciphertext"):
        open_sealed(SECRET, b"short", associated)
