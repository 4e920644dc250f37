"""Parcels on their way: names, mailboxes, and the courier between two of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedcac.errors import RoundError
from fedcac.exchange import (
    DirectoryMailbox,
    MailboxCourier,
    MemoryMailbox,
    Spool,
    mailbox,
    package_parcels,
    parcel_name,
)
from fedcac.exchange.parcels import numbered_parcels, package_files, rounds_in
from fedcac.vocabulary import SiteName

DUKE = SiteName("duke")


@pytest.mark.parametrize("is_on_disk", [True, False])
def test_a_courier_moves_what_is_there_and_waits_for_what_is_not(
    tmp_path: Path, is_on_disk: bool
) -> None:
    spool = Spool.at(tmp_path / "spool") if is_on_disk else Spool.in_memory()
    courier = MailboxCourier({DUKE: spool})
    for _ in range(2):
        courier.send(DUKE, "eng-1a2b.offer", b"an offer")
    assert spool.inbox.get("eng-1a2b.offer") == b"an offer"
    assert courier.collect(DUKE, "eng-1a2b.acceptance") is None
    spool.outbox.put("eng-1a2b.acceptance", b"yes")
    assert courier.collect(DUKE, "eng-1a2b.acceptance") == b"yes"
    with pytest.raises(RoundError) as caught:
        courier.send(DUKE, "eng-1a2b.offer", b"another offer")
    assert caught.value.code == "round.parcel_changed"
    assert "written once" in caught.value.cure


def test_a_parcel_that_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = DirectoryMailbox(tmp_path / "box")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(mailbox.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            box.put("eng-1a2b.offer", b"an offer")
    assert os.listdir(tmp_path / "box") == []
    box.put("eng-1a2b.offer", b"an offer")
    assert box.get("eng-1a2b.offer") == b"an offer"


def test_a_name_that_is_no_word_says_whom_to_look_for(tmp_path: Path) -> None:
    box = DirectoryMailbox(tmp_path / "box")
    for act in (lambda: box.put("../x", b""), lambda: box.get("../x")):
        with pytest.raises(RoundError) as caught:
            act()
        assert caught.value.code == "round.malformed_parcel_name"
        assert "who wrote it" in caught.value.cure


def test_files_of_a_package_are_found_again_under_their_names() -> None:
    inbox = MemoryMailbox()
    names = package_parcels("eng-1a2b", ["manifest.json", "weights.safetensors"])
    readers = package_parcels("eng-1a2b", ["manifest.json"], "reference_package")
    for parcel in names.values():
        inbox.put(parcel, b"index")
    for parcel in readers.values():
        inbox.put(parcel, b"reference")
    inbox.put("eng-1a2b.offer", b"")
    inbox.put("eng-1a2c.package.manifest.json", b"another round")
    assert package_files(inbox, "eng-1a2b") == dict.fromkeys(names, b"index")
    found = package_files(inbox, "eng-1a2b", "reference_package")
    assert found == {"manifest.json": b"reference"}
    assert package_files(inbox, "eng-1a2d") == {}


def test_a_package_file_that_vanishes_while_it_is_read_has_not_arrived() -> None:
    class Vanishing(MemoryMailbox):
        def get(self, name: str) -> bytes | None:
            return None if name.endswith("manifest.json") else super().get(name)

    inbox = Vanishing()
    for parcel in package_parcels("eng-1a2b", ["manifest.json", "card.json"]).values():
        inbox._parcels[parcel] = b"content"
    assert package_files(inbox, "eng-1a2b") == {"card.json": b"content"}


def test_a_number_has_one_spelling() -> None:
    inbox = MemoryMailbox()
    for tail in ("0001", "0012", "10000", "1", "00013", "000x", "\u0664", ""):
        inbox._parcels[f"eng-1a2b.request-{tail}"] = b""
    assert numbered_parcels(inbox, "eng-1a2b", "request") == (1, 12, 10000)
    assert parcel_name("eng-1a2b", "request", 12) == "eng-1a2b.request-0012"
    assert parcel_name("eng-1a2b", "offer") == "eng-1a2b.offer"


def test_rounds_are_those_that_were_offered() -> None:
    inbox = MemoryMailbox()
    for name in ("b.offer", "a.offer", "a.request-0001", "c.offer-0002", "offer"):
        inbox.put(name, b"")
    assert rounds_in(inbox) == ("a", "b")
