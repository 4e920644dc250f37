"""Sums over groups of one cohort, combined."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcac.disclosure.groups import FileGroups, group_of, tells_few
from fedcac.errors import IntegrityError

KEYS = [f"p{number:03d}" for number in range(100)]


def group(*spans: tuple[int, int]) -> str:
    members = [key for first, end in spans for key in KEYS[first:end]]
    return group_of(members, KEYS[::-1])


@pytest.mark.parametrize(
    ("groups", "is_told"),
    [
        ([group((0, 100))], False),
        ([group((0, 100)), group((0, 97))], True),  # three others
        ([group((0, 100)), group((0, 95))], False),
        ([group((0, 50)), group((0, 22)), group((22, 49))], True),  # one of three sums
        ([group((0, 50)), group((0, 22)), group((22, 50))], False),
        ([group((0, 50)), group((1, 51))], True),  # the difference of two patients
        ([group((0, 3))], True),
        # Two women aged above 65 are not told of by women, those above 65, and all.
        ([group((0, 100)), group((0, 40)), group((38, 80))], False),
        ([group((0, 100)), group((0, 40)), group((38, 80)), group((0, 80))], True),
    ],
)
def test_what_combinations_of_sums_are_about(groups: list[str], is_told: bool) -> None:
    assert tells_few(groups, 100, 5) is is_told


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_groups=st.integers(1, 4))
def test_small_combinations_are_found(seed: int, n_groups: int) -> None:
    rng = np.random.default_rng(seed)
    n = 24
    flags = np.array([np.roll(np.arange(n) < rng.integers(6, 18), rng.integers(0, n))
                      for _ in range(n_groups)])  # fmt: skip
    groups = [group_of([KEYS[i] for i in np.flatnonzero(own)], KEYS[:n]) for own in flags]
    # Every combination with weights -2 .. 2, by brute force.
    found = False
    for weights in product(range(-2, 3), repeat=n_groups):
        size = np.count_nonzero(np.array(weights) @ flags)
        found |= 0 < size < 5
    if found:
        assert tells_few(groups, n, 5)


def test_groups_survive_a_restart_and_a_line_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "ledger.groups"
    first = FileGroups(path)
    digest = first.remember(group((0, 50)))
    assert first.remember(group((0, 50))) == digest
    with path.open("ab") as stream:
        stream.write(b"half a li")
    again = FileGroups(path)
    assert again.get(digest) == group((0, 50))
    other = again.remember(group((0, 60)))
    assert FileGroups(path).get(other) == group((0, 60))
    assert path.stat().st_mode & 0o777 == 0o600
    assert again.get("sha256:" + "0" * 64) is None


def test_a_damaged_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "ledger.groups"
    path.write_bytes(b"no group at all\n")
    with pytest.raises(IntegrityError, match="damaged"):
        FileGroups(path)
