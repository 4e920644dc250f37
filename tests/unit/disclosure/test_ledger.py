from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from fedcac.canonical import canonical_bytes
from fedcac.disclosure import FileLedger, Gate, MemoryLedger, Question, Release, load_policy
from fedcac.disclosure.ledger import GENESIS
from fedcac.errors import IntegrityError
from fedcac.vocabulary import RefusalCode

TABLE = ((40, 10), (10, 40))
Ask = Callable[..., Question]


def _fill(path: Path, make: SimpleNamespace, ask: Ask) -> FileLedger:
    ledger = FileLedger(path)
    gate = Gate(load_policy("research"), ledger)
    gate.release(ask("agreement"), make.table(TABLE))
    gate.release(ask("bland_altman"), make.means(100, 100))
    gate.release(ask("cox"), make.terms(n=100, n_events=3))
    return ledger


def test_an_empty_ledger_starts_at_genesis(tmp_path: Path) -> None:
    for ledger in (MemoryLedger(), FileLedger(tmp_path / "ledger.jsonl")):
        assert ledger.head == ledger.verify() == GENESIS


def test_entries_say_exactly_what_left(tmp_path: Path, make: SimpleNamespace, ask: Ask) -> None:
    ledger = _fill(tmp_path / "ledger.jsonl", make, ask)
    first, second, refused = ledger.entries
    assert (first.index, first.previous, first.kind) == (0, GENESIS, "gate_test_table")
    assert second.previous == first.digest()
    assert first.payload is not None
    assert first.payload["matrix"] == [list(row) for row in TABLE]
    assert first.n_bytes == len(canonical_bytes(first.payload))
    assert (refused.kind, refused.refusal) == ("refusal", RefusalCode.TOO_FEW_EVENTS)
    assert (refused.payload, refused.release_digest, refused.n_bytes) == (None, None, 0)
    assert ledger.verify() == ledger.head == refused.digest()


def test_a_file_is_read_again_and_continued(
    tmp_path: Path, make: SimpleNamespace, ask: Ask
) -> None:
    path = tmp_path / "ledger.jsonl"
    written = _fill(path, make, ask)
    reopened = FileLedger(path)
    assert reopened.entries == written.entries
    Gate(load_policy("research"), reopened).refuse(ask("km"), RefusalCode.UNKNOWN_ANALYSIS)
    assert FileLedger(path).verify() == reopened.head
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("victim", [0, 1, 2])
@pytest.mark.parametrize("deed", ["change", "remove", "swap", "garble", "respell"])
def test_tampering_breaks_the_chain(
    tmp_path: Path, make: SimpleNamespace, ask: Ask, victim: int, deed: str
) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = _fill(path, make, ask)
    head = ledger.head
    lines = path.read_bytes().splitlines(keepends=True)
    if deed == "change":
        entry = json.loads(lines[victim])
        entry["analysis"] = "other"
        lines[victim] = canonical_bytes(entry) + b"\n"
    elif deed == "remove":
        del lines[victim]
    elif deed == "swap":
        lines[victim], lines[victim - 1] = lines[victim - 1], lines[victim]
    elif deed == "garble":
        lines[victim] = b"not an entry\n"
    else:
        lines[victim] = lines[victim].replace(b"{", b"{ ", 1)
    path.write_bytes(b"".join(lines))
    with pytest.raises(IntegrityError) as caught:
        ledger.verify()
    assert caught.value.code == "integrity.broken_link"
    # After a restart only the chain speaks; the very end is held by whoever knows a later head.
    if victim == 2 and deed in ("change", "remove"):
        assert FileLedger(path).head != head
    else:
        with pytest.raises(IntegrityError):
            FileLedger(path)


def test_the_break_is_named(tmp_path: Path, make: SimpleNamespace, ask: Ask) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = _fill(path, make, ask)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b'"exchange":1', b'"exchange":7') + lines[2])
    with pytest.raises(IntegrityError, match="entry 2"):
        ledger.verify()
    entry = json.loads(lines[1])
    entry["payload"]["mean"] = [9.9]
    path.write_bytes(lines[0] + canonical_bytes(entry) + b"\n" + lines[2])
    with pytest.raises(IntegrityError, match="entry 1"):
        ledger.verify()


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_line_cut_by_a_kill_is_made_again_identically(
    tmp_path: Path, make: SimpleNamespace, ask: Ask, cut: int
) -> None:
    path = tmp_path / "ledger.jsonl"
    gate = Gate(load_policy("research"), FileLedger(path))
    gate.release(ask("agreement"), make.table(TABLE))
    before = gate.release(ask("bland_altman"), make.means(100, 100))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])

    ledger = FileLedger(path)
    assert len(ledger.entries) == 1
    assert path.read_bytes() == whole[:-cut]  # reading alone repairs nothing
    after = Gate(load_policy("research"), ledger).release(ask("bland_altman"), make.means(100, 100))
    assert isinstance(before, Release)
    assert isinstance(after, Release)
    assert after.content == before.content
    assert path.read_bytes() == whole


def test_two_writers_do_not_overwrite_each_other(
    tmp_path: Path, make: SimpleNamespace, ask: Ask
) -> None:
    path = tmp_path / "ledger.jsonl"
    first, second = FileLedger(path), FileLedger(path)
    Gate(load_policy("research"), first).release(ask("agreement"), make.table(TABLE))
    with pytest.raises(IntegrityError) as caught:
        Gate(load_policy("research"), second).release(ask("agreement"), make.table(TABLE))
    assert caught.value.code == "integrity.foreign_entry"
    assert FileLedger(path).entries == first.entries


def test_a_shortened_or_vanished_file_stops_everything(
    tmp_path: Path, make: SimpleNamespace, ask: Ask
) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = _fill(path, make, ask)
    gate = Gate(load_policy("research"), ledger)
    path.write_bytes(b"")
    with pytest.raises(IntegrityError):
        gate.refuse(ask("km"), RefusalCode.UNKNOWN_ANALYSIS)
    path.unlink()
    with pytest.raises(IntegrityError):
        ledger.verify()
    with pytest.raises(IntegrityError):
        gate.refuse(ask("km"), RefusalCode.UNKNOWN_ANALYSIS)


def test_an_entry_must_continue_the_chain(make: SimpleNamespace, ask: Ask) -> None:
    ledger = MemoryLedger()
    Gate(load_policy("research"), ledger).release(ask(), make.table(TABLE))
    with pytest.raises(IntegrityError) as caught:
        ledger.append(ledger.entries[0])
    assert caught.value.code == "integrity.wrong_link"
