"""PyTorch checkpoints read as data: no pickle is run, and torch's own loader is not called.

`torch.save` writes a zip archive of raw tensor bytes and one pickle that says how they make up
mappings, lists and tensors. A pickle is a program. Here its instructions are listed by
`pickletools`, which runs none, and only the few that describe plain values are followed; the four
names that describe tensors are recognised as words, and nothing is imported or called for them.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from fedcac.errors import PackageError

__all__ = ["Checkpoint", "StoredTensor", "bad_checkpoint", "open_checkpoint"]

MAXIMUM_BYTES = 4 * 1024**3
"""Largest checkpoint: 100 million weights with two optimiser moments of each are 1.2 GB."""

MAXIMUM_STRUCTURE_BYTES = 64 * 1024**2
"""Largest description of the structure, without the tensors' bytes."""

# RuntimeError: encrypted, or a feature of zip that is not known here.
_UNREADABLE = (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError)

_STRUCTURE = "data.pkl"
_BYTE_ORDER = "byteorder"
_STORAGES = MappingProxyType(
    {
        "torch DoubleStorage": torch.float64,
        "torch FloatStorage": torch.float32,
        "torch HalfStorage": torch.float16,
        "torch BFloat16Storage": torch.bfloat16,
        "torch LongStorage": torch.int64,
        "torch IntStorage": torch.int32,
        "torch ShortStorage": torch.int16,
        "torch CharStorage": torch.int8,
        "torch ByteStorage": torch.uint8,
        "torch BoolStorage": torch.bool,
    }
)
_ORDERED = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"


@dataclass(frozen=True)
class _Word:
    """A name that the structure mentions; never what it names."""

    text: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype
    n_elements: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as the checkpoint describes it; its values are not read yet.

    `offset` and `strides` count elements of the storage named `key`.
    """

    key: str
    dtype: torch.dtype
    n_elements: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Checkpoint:
    """An open checkpoint: `content` holds plain values and `StoredTensor`s."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, content: Any) -> None:
        self._archive = archive
        self._folder = folder
        self.content = content

    def tensor(self, stored: StoredTensor) -> torch.Tensor:
        """Return a contiguous copy of a tensor, on the CPU.

        Look at its shape before: memory is taken for every element that it claims.

        Raises
        ------
        PackageError
            `bad_checkpoint` if its bytes are absent, damaged, or fewer than it claims.
        """
        try:
            content = self._archive.read(f"{self._folder}data/{stored.key}")
        except (KeyError, *_UNREADABLE) as error:
            raise bad_checkpoint("the bytes of a tensor are absent or damaged") from error
        last = stored.offset + sum(
            (size - 1) * stride for size, stride in zip(stored.shape, stored.strides, strict=True)
        )
        is_whole = len(content) == stored.n_elements * stored.dtype.itemsize
        is_empty = 0 in stored.shape
        if not is_whole or (last >= stored.n_elements and not is_empty):
            raise bad_checkpoint("it holds fewer bytes than the tensors that it claims")
        if is_empty:
            return torch.empty(stored.shape, dtype=stored.dtype)
        # Bytes are read-only, which torch warns of.
        flat = torch.frombuffer(bytearray(content), dtype=stored.dtype)
        return flat.as_strided(stored.shape, stored.strides, stored.offset).clone(
            memory_format=torch.contiguous_format
        )


@contextmanager
def open_checkpoint(path: Path) -> Iterator[Checkpoint]:
    """Open a `.pt` or `.pth` file that torch 1.6 or later wrote.

    Raises
    ------
    PackageError
        `too_large`, or `bad_checkpoint` if the file is no such archive, is compressed or of
        another byte order, or its structure has anything but tensors and plain values.
    """
    if not path.is_file():
        raise bad_checkpoint("there is no such file", cure="Give the path of a .pt or .pth file.")
    if path.stat().st_size > MAXIMUM_BYTES:
        raise PackageError(
            f"The checkpoint is larger than {MAXIMUM_BYTES} bytes.",
            code="too_large",
            cure="Convert a checkpoint without the state of its optimiser.",
        )
    try:
        archive = zipfile.ZipFile(path)
    except _UNREADABLE as error:
        raise bad_checkpoint("it is not the zip archive that torch writes") from error
    with archive:
        folder = _folder(archive.infolist())
        yield Checkpoint(archive, folder, _structure(archive, folder))


def bad_checkpoint(
    reason: str, cure: str = "Ask for the checkpoint again, as torch.save wrote it."
) -> PackageError:
    """Return the error that says why a checkpoint cannot be read."""
    return PackageError(
        f"The checkpoint cannot be read: {reason}.", code="bad_checkpoint", cure=cure
    )


def _folder(entries: list[zipfile.ZipInfo]) -> str:
    """Return what every entry's name begins with, having read the archive's directory alone."""
    # torch stores and never deflates; a deflated entry could unfold to any size.
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise bad_checkpoint("an entry is compressed")
    if sum(entry.file_size for entry in entries) > MAXIMUM_BYTES:
        raise bad_checkpoint("its entries claim more bytes than a checkpoint can have")
    structures = [entry for entry in entries if entry.filename.split("/")[1:] == [_STRUCTURE]]
    if len(structures) != 1 or structures[0].file_size > MAXIMUM_STRUCTURE_BYTES:
        raise bad_checkpoint("it does not have one structure of an acceptable size")
    return structures[0].filename.removesuffix(_STRUCTURE)


def _structure(archive: zipfile.ZipFile, folder: str) -> Any:
    try:
        program = archive.read(folder + _STRUCTURE)
        has_order = folder + _BYTE_ORDER in archive.namelist()
        order = archive.read(folder + _BYTE_ORDER) if has_order else b"little"
    except _UNREADABLE as error:
        raise bad_checkpoint("its structure is damaged") from error
    if order != b"little":
        raise bad_checkpoint("its numbers are not in little-endian order")
    try:
        return _Reader().follow(program)
    # All that a malformed sequence of instructions can do to lists and mappings.
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise bad_checkpoint("it holds something other than tensors and plain values") from error


class _Reader:
    """Follows the instructions that describe plain values, and raises ValueError at any other."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def follow(self, program: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(program):
            name = opcode.name
            if name == "STOP":
                (value,) = self._stack
                if self._marks:
                    raise ValueError("a list or mapping does not end")
                return value
            if name in _LITERALS:
                self._stack.append(argument)
            elif name in _FRESH:
                self._stack.append(_FRESH[name]())
            elif name in _STEPS:
                _STEPS[name](self, argument)
            elif name not in ("PROTO", "FRAME"):
                raise ValueError(f"the instruction {name} is not followed")
        raise ValueError("the structure does not end")

    def mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def since_mark(self) -> list[Any]:
        start = self._marks.pop()
        taken = self._stack[start:]
        del self._stack[start:]
        return taken

    def make_tuple(self, _: Any) -> None:
        self._stack.append(tuple(self.since_mark()))

    def make_short_tuple(self, n: int) -> None:
        taken = tuple(self._stack[-n:])
        if len(taken) != n:
            raise ValueError("too few values")
        del self._stack[-n:]
        self._stack.append(taken)

    def put(self, number: int) -> None:
        self._memo[number] = self._stack[-1]

    def get(self, number: int) -> None:
        self._stack.append(self._memo[number])

    def extend(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise ValueError("no list to append to")
        self._stack[-1].extend(values)

    def set_items(self, values: list[Any]) -> None:
        target = self._stack[-1]
        for key, value in zip(values[::2], values[1::2], strict=True):
            # Nothing whose hash would have to be computed through a nest without end.
            if not isinstance(target, dict) or not isinstance(key, str | int):
                raise ValueError("no mapping, or not a plain key")
            target[key] = value

    def set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self.set_items([key, value])

    def word(self, text: str) -> None:
        self._stack.append(_Word(text))

    def refer(self, _: Any) -> None:
        kind, storage, key, _, n_elements = self._stack.pop()
        is_named = isinstance(storage, _Word) and isinstance(key, str) and key.isdecimal()
        if kind != "storage" or not is_named or not isinstance(n_elements, int):
            raise ValueError("not a reference to a storage")
        self._stack.append(_Storage(key, _STORAGES[storage.text], n_elements))

    def describe(self, _: Any) -> None:
        """A call, in a pickle: three known words are understood, and none is called."""
        values, word = self._stack.pop(), self._stack.pop()
        if word == _Word(_ORDERED) and values == ():
            self._stack.append({})
        elif word == _Word(_TENSOR):
            self._stack.append(_tensor(*values[:4]))
        elif word == _Word(_PARAMETER) and isinstance(values[0], StoredTensor):
            self._stack.append(values[0])
        else:
            raise ValueError("a call of something unknown")

    def annotate(self, _: Any) -> None:
        """Skip an ordered mapping's `_metadata`: versions of torch's modules."""
        self._stack.pop()
        if not isinstance(self._stack[-1], dict):
            raise ValueError("state for something that has none")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> StoredTensor:
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise ValueError("not a tensor")
    numbers = (storage.n_elements, offset, *shape, *strides)
    if not all(isinstance(number, int) and 0 <= number < 1 << 62 for number in numbers):
        raise ValueError("a size that is none")
    return StoredTensor(
        storage.key, storage.dtype, storage.n_elements, offset, tuple(shape), tuple(strides)
    )


_LITERALS = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}
)
_FRESH: Mapping[str, Any] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_STEPS: Mapping[str, Any] = {
    "MARK": _Reader.mark,
    "TUPLE": _Reader.make_tuple,
    "TUPLE1": lambda reader, _: reader.make_short_tuple(1),
    "TUPLE2": lambda reader, _: reader.make_short_tuple(2),
    "TUPLE3": lambda reader, _: reader.make_short_tuple(3),
    "BINPUT": _Reader.put,
    "LONG_BINPUT": _Reader.put,
    "BINGET": _Reader.get,
    "LONG_BINGET": _Reader.get,
    "APPEND": lambda reader, _: reader.extend([reader._stack.pop()]),
    "APPENDS": lambda reader, _: reader.extend(reader.since_mark()),
    "SETITEM": _Reader.set_item,
    "SETITEMS": lambda reader, _: reader.set_items(reader.since_mark()),
    "GLOBAL": _Reader.word,
    "BINPERSID": _Reader.refer,
    "REDUCE": _Reader.describe,
    "BUILD": _Reader.annotate,
}
