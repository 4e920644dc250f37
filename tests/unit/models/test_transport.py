"""What comes back from a reading process: numbers as they were, and nothing that could run."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
from multiprocessing import reduction
from typing import Any

import numpy as np
import pytest

from fedcac.models.streams import _failure_of
from fedcac.models.transport import Reading, receive, send


@pytest.mark.parametrize(
    "arrays",
    [
        {"hu": np.arange(24, dtype=np.float32).reshape(2, 3, 4)},
        {"a": np.arange(6, dtype=np.int16)[::2], "b": np.eye(3, dtype=np.uint8).T},
        {"empty": np.zeros((0, 4), np.float64)},
        {},
    ],
)
def test_arrays_and_facts_arrive_as_they_were(arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    ours, theirs = multiprocessing.Pipe(duplex=True)
    send(theirs, Reading(arrays, {"spacing_mm": [3.0, 0.1]}), None)
    reading, note = receive(ours)
    assert note is None
    assert reading is not None
    assert reading.facts == {"spacing_mm": [3.0, 0.1]}
    assert set(reading.arrays) == set(arrays)
    for name, array in arrays.items():
        assert reading.arrays[name].dtype == array.dtype
        assert np.array_equal(reading.arrays[name], array)


def head(**changes: Any) -> bytes:
    sound = {"note": None, "facts": {}, "arrays": [["hu", "float32", [4]]]}
    return json.dumps({**sound, **changes}).encode()


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.abort, ()


@pytest.mark.parametrize(
    "message",
    [
        pickle.dumps(Bomb()),
        b"[]",
        head(arrays=[["hu", "object", [4]]]),
        head(arrays=[["hu", "float32", [-4]]]),
        head(arrays=[["hu", "float32", [True]]]),
        head(arrays=[["hu", "float32"]]),
        head(arrays=[[1, "float32", [4]]]),
        head(arrays=[], facts=[1]),
        head(hook="x"),
    ],
)
def test_other_messages_are_refused(message: bytes) -> None:
    ours, theirs = multiprocessing.Pipe(duplex=True)
    theirs.send_bytes(message)
    with pytest.raises(ValueError, match=r"."):
        receive(ours)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no anonymous memory files here")
@pytest.mark.parametrize("n_bytes", [0, 15, 17, 1 << 16])
def test_memory_of_another_size_is_refused(n_bytes: int) -> None:
    ours, theirs = multiprocessing.Pipe(duplex=True)
    theirs.send_bytes(head())
    file = os.memfd_create("other", os.MFD_ALLOW_SEALING)
    os.truncate(file, n_bytes)
    reduction.send_handle(theirs, file, 0)
    with pytest.raises(ValueError, match="another size"):
        receive(ours)
    # It was sealed before it was measured: the sender cannot cut it afterwards.
    if n_bytes:
        with pytest.raises(PermissionError):
            os.truncate(file, 0)
    os.close(file)


def test_an_end_in_the_middle_is_an_end() -> None:
    ours, theirs = multiprocessing.Pipe(duplex=True)
    theirs.send_bytes(head())
    theirs.close()
    with pytest.raises((EOFError, OSError)):
        receive(ours)


def test_a_failure_passes_on_classes_and_codes_alone() -> None:
    assert _failure_of(["KeyError", "dicom.no_dicom"]).code == "dicom.no_dicom"
    odd = _failure_of(["KeyError: ZZCANARY^JOHN", "ZZCANARY^JOHN"])
    assert (odd.kind, odd.error, odd.code) == ("raised", "Exception", None)
