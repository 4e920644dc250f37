"""What the ledger and the groups beside it write, and what stops them."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from fedcac.canonical import canonical_bytes
from fedcac.disclosure import FileLedger, Gate, MemoryLedger, Question, load_policy
from fedcac.disclosure.groups import FileGroups, group_of
from fedcac.disclosure.ledger import GENESIS, LedgerEntry
from fedcac.errors import IntegrityError
from fedcac.vocabulary import RefusalCode

Ask = Callable[..., Question]
KEYS = [f"p{number:03d}" for number in range(100)]


def _refused(ledger: FileLedger | MemoryLedger, question: Question) -> None:
    Gate(load_policy("research"), ledger).refuse(question, RefusalCode.UNKNOWN_ANALYSIS)


def _entry(ask: Ask, **changes: object) -> LedgerEntry:
    ledger = MemoryLedger()
    _refused(ledger, ask("km"))
    return ledger.entries[0].model_copy(update=changes)


def test_a_ledger_in_memory_holds_what_was_appended(make: SimpleNamespace, ask: Ask) -> None:
    ledger = MemoryLedger()
    gate = Gate(load_policy("research"), ledger)
    gate.release(ask("agreement"), make.table(((40, 10), (10, 40))))
    gate.refuse(ask("km"), RefusalCode.UNKNOWN_ANALYSIS)
    assert ledger.verify() == ledger.head == ledger.entries[1].digest()


@pytest.mark.parametrize(
    "changes", [{"previous": "sha256:" + "0" * 64}, {"index": 1}, {"index": 7}]
)
@pytest.mark.parametrize("is_file", [False, True])
def test_either_link_must_be_right(
    changes: dict[str, object], is_file: bool, tmp_path: Path, ask: Ask
) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = FileLedger(path) if is_file else MemoryLedger()
    with pytest.raises(IntegrityError) as caught:
        ledger.append(_entry(ask, **changes))
    assert caught.value.code == "integrity.wrong_link"
    assert ledger.verify() == GENESIS
    # Nor is such an entry read.
    path.write_bytes(canonical_bytes(_entry(ask, **changes).model_dump(mode="json")) + b"\n")
    with pytest.raises(IntegrityError) as caught:
        FileLedger(path)
    assert caught.value.code == "integrity.broken_link"
    assert "entry 0" in str(caught.value)
    assert "Restore the ledger from a backup" in caught.value.cure


def test_a_file_that_has_gone_is_said_to_have_gone(tmp_path: Path, ask: Ask) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = FileLedger(path)
    _refused(ledger, ask("km"))
    path.unlink()
    for use in (ledger.verify, lambda: _refused(ledger, ask("cox"))):
        with pytest.raises(IntegrityError, match="has gone") as caught:
            use()
        assert "Restore it from a backup" in caught.value.cure
    assert not path.exists()


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_file_shorter_than_what_left_is_not_continued(cut: int, tmp_path: Path, ask: Ask) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = FileLedger(path)
    _refused(ledger, ask("km"))
    shortened = path.read_bytes()[:-cut]
    path.write_bytes(shortened)
    with pytest.raises(IntegrityError) as caught:
        _refused(ledger, ask("cox"))
    assert caught.value.code == "integrity.foreign_entry"
    assert path.read_bytes() == shortened


def test_nothing_is_left_of_a_long_line_cut_short(tmp_path: Path, ask: Ask) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = FileLedger(path)
    with path.open("ab") as stream:
        stream.write(b"x" * 100_000)
    _refused(ledger, ask("km"))
    line = canonical_bytes(ledger.entries[0].model_dump(mode="json")) + b"\n"
    assert path.read_bytes() == line
    assert FileLedger(path).verify() == ledger.head


def test_a_line_that_did_not_reach_the_disk_is_taken_back(
    tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = FileLedger(path)
    _refused(ledger, ask("km"))
    before, head = path.read_bytes(), ledger.head

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            _refused(ledger, ask("cox"))
    assert path.read_bytes() == before
    assert ledger.verify() == head
    _refused(ledger, ask("cox"))
    assert FileLedger(path).verify() == ledger.head != head


def test_a_writer_waits_for_another(tmp_path: Path, ask: Ask) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = FileLedger(path)
    _refused(ledger, ask("km"))
    writing = threading.Thread(target=_refused, args=(ledger, ask("cox")))
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        before = path.read_bytes()
        writing.start()
        writing.join(0.2)
        assert path.read_bytes() == before
        fcntl.flock(other, fcntl.LOCK_UN)
    writing.join()
    assert len(FileLedger(path).entries) == 2


def test_no_descriptor_stays_open(tmp_path: Path, ask: Ask) -> None:
    def n_open() -> int:
        return len(os.listdir("/dev/fd"))

    before = n_open()
    _refused(FileLedger(tmp_path / "ledger.jsonl"), ask("km"))
    FileGroups(tmp_path / "other.groups").remember(group_of(KEYS[:50], KEYS))
    assert n_open() == before


def test_a_group_does_not_depend_on_the_order_of_its_cohort() -> None:
    members = KEYS[7:40]
    assert group_of(members, KEYS) == group_of(members[::-1], KEYS[::-1])
    assert group_of(members, KEYS) != group_of(KEYS[8:41], KEYS)


def test_a_group_is_on_the_disk_once_it_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.groups"
    path.write_bytes(b"x" * 10_000)  # of a kill: longer than the line that follows
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.read_bytes()))
    group = group_of(KEYS[:50], KEYS)
    digest = FileGroups(path).remember(group)
    assert synced == [group.encode() + b"\n"] == [path.read_bytes()]
    assert FileGroups(path).get(digest) == group


@pytest.mark.parametrize(
    "changes",
    [
        {"note": "Doe, Jane"},
        {"index": "0"},
        {"exchange": 1.0},
        {"columns": ["index_score", 3]},
        {"index": -1},
        {"n_bytes": -1},
        {"least_sites": -1},
        {"repeats": -1},
        {"key": "sha256:0"},
        {"payload": {"mean": float("nan")}},
        {"payload": {"mean": float("inf")}},
    ],
)
def test_an_entry_holds_what_it_declares_and_nothing_else(
    changes: dict[str, object], ask: Ask
) -> None:
    entry = _entry(ask)
    document = {**entry.model_dump(), "columns": entry.columns}
    assert LedgerEntry.model_validate(document) == entry
    with pytest.raises(ValidationError):
        LedgerEntry.model_validate({**document, **changes})
    with pytest.raises(ValidationError):
        entry.index = 7


def test_an_entry_of_a_refusal_says_that_nothing_left(ask: Ask) -> None:
    stated = _entry(ask).model_dump(exclude={"n_bytes", "least_sites"})
    entry = LedgerEntry.model_validate(stated)
    assert (entry.n_bytes, entry.least_sites, entry.payload) == (0, 0, None)
