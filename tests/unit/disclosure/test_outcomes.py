"""Releases and contributions: made by the gate alone, and of one kind each."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from fedcac.canonical import digest_of, sha256_hex
from fedcac.disclosure import Contribution, Gate, MemoryLedger, Question, Release, load_policy
from fedcac.errors import GateError

Ask = Callable[..., Question]


@pytest.mark.parametrize("kind", [Release, Contribution])
def test_there_are_no_other_kinds(kind: type) -> None:
    # A kind of its own could be made without the gate's token.
    with pytest.raises(GateError) as caught:
        type("Own", (kind,), {"__post_init__": lambda self, token: None})
    assert caught.value.code == "gate.forged_release"


def test_a_release_is_the_bytes_that_leave_whatever_is_done_to_its_document(
    make: SimpleNamespace, ask: Ask
) -> None:
    release = Gate(load_policy("research"), MemoryLedger()).release(ask(), make.means(100, 100))
    assert isinstance(release, Release)
    document = release.payload
    document["mean"][0] = 9.9
    assert release.payload != document
    assert release.payload == {**document, "mean": release.payload["mean"]}
    assert digest_of(release.payload) == release.digest == sha256_hex(release.content)
    assert release.n_bytes == len(release.content)


def test_what_is_added_to_a_sum_is_not_shown_by_its_words(make: SimpleNamespace, ask: Ask) -> None:
    gate = Gate(load_policy("research"), MemoryLedger())
    added = gate.contribute(ask(), make.table(((60, 41), (42, 57))), 3)
    assert isinstance(added, Contribution)
    assert len(added.vector) == added.layout.n_numbers
    # A log that writes it down holds no count.
    assert "41" not in repr(added)
    assert "vector" not in repr(added)
    assert "token" not in repr(added)
    release = Gate(load_policy("open"), MemoryLedger()).release(ask(), make.means(100, 100))
    assert isinstance(release, Release)
    assert "token" not in repr(release)
