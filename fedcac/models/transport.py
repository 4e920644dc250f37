"""What a reading process hands back: arrays in anonymous memory, and facts as JSON.

The process that reads works on files of unknown origin. Whatever took it over must not take over
the process that holds the site's keys, so nothing that could run comes back: no pickle, numbers
of a declared type and shape only, in memory that cannot shrink under the reader.
"""

from __future__ import annotations

import fcntl
import json
import math
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

__all__ = ["Reading", "receive", "send"]

_HAS_MEMORY_FILES = hasattr(os, "memfd_create")
_DTYPES = frozenset({"float32", "float64", "int16", "int32", "uint8", "uint16"})
_LONGEST_HEAD = 1 << 20


@dataclass(frozen=True, eq=False)
class Reading:
    """What was read of one item: arrays of numbers by name, and JSON beside them."""

    arrays: Mapping[str, NDArray[Any]]
    facts: Mapping[str, JsonValue] = field(default_factory=dict)


def send(connection: Connection, reading: Reading | None, note: JsonValue) -> None:
    """Send a reading, or None, and a small note beside it."""
    given = {} if reading is None else reading.arrays
    arrays = {name: np.ascontiguousarray(array) for name, array in given.items()}
    head = {
        "note": note,
        "facts": None if reading is None else dict(reading.facts),
        "arrays": [[name, array.dtype.name, array.shape] for name, array in arrays.items()],
    }
    connection.send_bytes(json.dumps(head).encode())
    parts = [array.data.cast("B") for array in arrays.values() if array.size]
    if not parts:
        return
    if not _HAS_MEMORY_FILES:
        connection.send_bytes(b"".join(parts))
        return
    file = os.memfd_create("fedcac-volume", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        for part in parts:
            _write(file, part)
        reduction.send_handle(connection, file, 0)
    finally:
        os.close(file)


def receive(connection: Connection) -> tuple[Reading | None, Any]:
    """Return what `send` was given; arrays lie in the sender's memory file and may be written.

    Raises
    ------
    EOFError, OSError
        If the sender ended before everything was sent.
    ValueError
        If what came is not what `send` sends.
    """
    head = json.loads(connection.recv_bytes(_LONGEST_HEAD))
    if not isinstance(head, dict) or set(head) != {"note", "facts", "arrays"}:
        raise ValueError("the head has other parts")
    specs = [_checked_spec(spec) for spec in head["arrays"]]
    total = sum(dtype.itemsize * math.prod(shape) for _, dtype, shape in specs)
    memory = _memory(connection, total) if total else memoryview(bytearray())
    arrays, start = {}, 0
    for name, dtype, shape in specs:
        count = math.prod(shape)
        arrays[name] = np.frombuffer(memory, dtype, count, start).reshape(shape)
        start += count * dtype.itemsize
    facts = head["facts"]
    if facts is None:
        return None, head["note"]
    if not isinstance(facts, dict):
        raise ValueError("the facts are not a mapping")
    return Reading(arrays, facts), head["note"]


def _checked_spec(spec: Any) -> tuple[str, np.dtype[Any], tuple[int, ...]]:
    name, dtype, shape = spec
    is_shape = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    if not isinstance(name, str) or dtype not in _DTYPES or not is_shape:
        raise ValueError("an array is not of numbers")
    return name, np.dtype(dtype), tuple(shape)


def _memory(connection: Connection, total: int) -> memoryview:
    if not _HAS_MEMORY_FILES:
        return memoryview(bytearray(connection.recv_bytes(total)))
    try:
        file = reduction.recv_handle(connection)
    except RuntimeError as error:
        raise EOFError("the memory file did not arrive") from error
    try:
        # A file that became shorter while it is read would end this process.
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        if os.fstat(file).st_size != total:
            raise ValueError("the memory file has another size than declared")
        return memoryview(mmap.mmap(file, total))
    finally:
        os.close(file)


def _write(file: int, view: memoryview) -> None:
    while view.nbytes:
        view = view[os.write(file, view) :]
