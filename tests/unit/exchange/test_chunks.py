"""Chunks on a carrier's disk: false manifests, two users of one folder, room that runs out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fedcac.errors import RoundError
from fedcac.exchange import chunks
from fedcac.exchange.chunks import ChunkStore, Manifest, digest_of


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ChunkStore:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 4)
    return ChunkStore(tmp_path / "chunks", limit_bytes=12)


def put(store: ChunkStore, *parts: bytes) -> list[str]:
    """Store chunks, each used a second after the one before, and return their digests."""
    digests = [digest_of(part) for part in parts]
    for second, (digest, part) in enumerate(zip(digests, parts, strict=True)):
        store.put(digest, part)
        os.utime(store._root / digest, (second, second))
    return digests


@pytest.mark.parametrize(("size", "n_chunks"), [(0, 1), (1, 0), (4, 2), (5, 1), (9, 2)])
def test_a_manifest_has_the_chunks_that_follow_from_its_size(
    store: ChunkStore, size: int, n_chunks: int
) -> None:
    digest = digest_of(b"")
    with pytest.raises(ValidationError, match="does not follow from the size"):
        Manifest(size=size, digest=digest, chunks=(digest,) * n_chunks)


def test_a_parcel_is_put_together_from_its_chunks(store: ChunkStore) -> None:
    payload = b"0123456789"
    manifest = Manifest.of(payload)
    assert manifest.chunks == tuple(digest_of(part) for part in (b"0123", b"4567", b"89"))
    put(store, b"0123", b"89")
    assert store.missing(manifest) == (digest_of(b"4567"),)
    assert store.assemble(manifest) is None
    put(store, b"4567")
    assert store.missing(manifest) == ()
    assert store.assemble(manifest) == payload
    assert store.assemble(Manifest.of(b"")) == b""


def test_altered_bytes_are_never_taken(store: ChunkStore) -> None:
    with pytest.raises(RoundError) as caught:
        store.put(digest_of(b"0123"), b"0124")
    assert caught.value.code == "round.chunk_altered"
    assert caught.value.cure
    assert not store.has(digest_of(b"0123"))
    put(store, b"0123", b"4567")
    false = Manifest.of(b"01234567").model_copy(update={"digest": digest_of(b"other")})
    with pytest.raises(RoundError) as caught:
        store.assemble(false)
    assert caught.value.code == "round.parcel_altered"
    assert caught.value.cure


def test_a_chunk_that_another_user_throws_out_while_it_is_read_is_still_whole(
    store: ChunkStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (digest,) = put(store, b"0123")
    dated = os.utime

    def thrown_out(path: Path, *times: Any) -> None:
        path.unlink()
        dated(path, *times)

    monkeypatch.setattr(chunks.os, "utime", thrown_out)
    assert store.get(digest) == b"0123"
    assert not store.has(digest)


def test_a_chunk_is_stored_once_and_kept_as_long_as_it_is_named(store: ChunkStore) -> None:
    first, second = put(store, b"0123", b"4567")
    when = (store._root / first).stat().st_mtime_ns
    store.put(first, b"0123")
    assert (store._root / first).stat().st_mtime_ns == when
    store.keep_only({second})
    assert store.get(first) is None
    assert store.get(second) == b"4567"


def test_room_is_made_of_what_was_used_longest_ago(store: ChunkStore) -> None:
    first, second, third = put(store, b"aaaa", b"bbbb", b"cccc")
    store.make_room(0, keep=())
    assert store.has(first)
    # Reading counts as use.
    assert store.get(first) == b"aaaa"
    store.make_room(4, keep=())
    assert [store.has(digest) for digest in (first, second, third)] == [True, False, True]


def test_what_is_kept_stays_even_if_nothing_more_fits(store: ChunkStore) -> None:
    digests = put(store, b"aaaa", b"bbbb", b"cccc")
    store.make_room(12, keep=digests)
    assert all(store.has(digest) for digest in digests)
    store.make_room(12, keep=digests[:1])
    assert [store.has(digest) for digest in digests] == [True, False, False]
