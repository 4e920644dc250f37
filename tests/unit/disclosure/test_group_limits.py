"""Groups of a cohort at the limits of what is looked at, and their file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedcac.disclosure.groups import FileGroups, group_of, tells_few


def groups_of(parts: list[tuple[int, int]], n_groups: int) -> tuple[list[str], int]:
    """Return groups from parts of the cohort: in which groups, as bits, and how many patients."""
    member = np.concatenate([np.full(size, bits) for bits, size in parts])
    keys = [f"p{number:03d}" for number in range(len(member))]
    groups = [
        group_of([keys[i] for i in np.flatnonzero(member >> bit & 1)], keys)
        for bit in range(n_groups)
    ]
    return groups, len(keys)


@pytest.mark.parametrize(
    ("parts", "is_refused"),
    [
        # Sixteen small parts, none of which follows: each is a combination of the others.
        ([(bits, 4) for bits in range(16, 32)], False),
        # Patients in no group are none of them, however few.
        ([*((bits, 4) for bits in range(16, 32)), (0, 3)], False),
        ([*((bits, 4) for bits in range(16, 32)), (0, 30)], False),
        # A large part is no small one; of seventeen small ones not every union is looked at.
        ([*((bits, 4) for bits in range(16, 32)), (1, 5)], False),
        ([*((bits, 4) for bits in range(16, 32)), (1, 4)], True),
        # Only the last group holds them: four patients, or five.
        ([(15, 20), (7, 20), (3, 20), (1, 20), (16, 4)], True),
        ([(15, 20), (7, 20), (3, 20), (1, 20), (16, 5)], False),
    ],
)
def test_how_many_small_parts_are_looked_at(parts: list[tuple[int, int]], is_refused: bool) -> None:
    groups, n = groups_of(parts, 5)
    assert tells_few(groups, n, 5) is is_refused
    assert tells_few(groups[::-1], n, 5) is is_refused


@pytest.mark.parametrize("sizes", [(2, 2), (1, 3), (4, 1), (3, 2), (2, 3)])
def test_two_small_parts_are_few_together(sizes: tuple[int, int]) -> None:
    # Two groups, less one another: the sum over both parts follows, none over either.
    first, second = sizes
    groups, n = groups_of([(3, 20), (1, first), (2, second)], 2)
    assert tells_few(groups, n, 5) is (first + second < 5)


def test_a_group_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.groups"
    groups = FileGroups(path)
    first, second = groups_of([(1, 10), (2, 10)], 2)[0]
    digests = [groups.remember(text) for text in (first, second, first, second)]
    assert digests[:2] == digests[2:]
    assert path.read_text("ascii") == f"{first}\n{second}\n"
    again = FileGroups(path)
    again.remember(second)
    assert path.read_text("ascii") == f"{first}\n{second}\n"
    assert [again.get(digest) for digest in digests[:2]] == [first, second]
