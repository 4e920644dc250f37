"""Ways to damage bytes, trees, tables, archives and DICOM files, each drawn from a `Random`."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import random
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import yaml

__all__ = [
    "damage_archive",
    "damage_bytes",
    "damage_cells",
    "damage_dicom",
    "damage_json",
    "damage_lines",
    "damage_numbers",
    "damage_safetensors",
    "damage_text",
    "damage_yaml",
    "packed",
    "within",
]

_SIZES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


class Raw(str):
    """Text that stands in a document as it is, whether or not it means anything there."""


class Pairs(list[tuple[str, Any]]):
    """An object whose keys may repeat."""


DEEP = 3000

_SCALARS: tuple[Any, ...] = (
    None,
    True,
    False,
    "",
    0,
    -1,
    1,
    0.5,
    -0.0,
    1e308,
    5e-324,
    2**31,
    2**63,
    -(2**63) - 1,
    2**64,
    10**400,
    Raw("NaN"),
    Raw("-Infinity"),
    Raw("1e999"),
    Raw("-1e999"),
    Raw("9" * 5000),
    Raw('"\\ud800"'),
    Raw("[" * DEEP + "]" * DEEP),
    Raw('{"a":' * DEEP + "1" + "}" * DEEP),
    [],
    {},
    [[]],
    {"": ""},
    "\x00",
    "\x7f\x1b[2J",
    "\u202e\u0661\u0662\u0663",
    "é" * 300,
    "A" * 100_000,
    "9" * 5000,
    "../../etc/passwd",
    "a/b",
    "2020-01-01T00:00:00",
    "2020-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "1e999",
    "nan",
    "=1+1",
    "sha256:" + "0" * 64,
    "0" * 64,
    "AAAA",
    "é===",
)
_WORDS = (
    "",
    " ",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "1e999",
    "1e-999",
    "-0",
    "-1",
    "1_0",
    "0x10",
    "1,5",
    "1:30",
    "1" * 400,
    "9" * 5000,
    "\u0661",
    "\u00b2",
    "\x00",
    "\ufeff",
    "\u2028",
    "é" * 200,
    "A" * 140_000,
    '"',
    "'",
    "\\",
    "../..",
    "/" * 5000,
    "a" * 300,
    "=cmd|' /C calc'!A0",
    "19990230",
    "2020-02-30",
    "00010101",
    "99991231",
    "true",
    "None",
)
_YAML_WORDS = (
    "&a [*a]",
    "*nobody",
    "!!timestamp x",
    "!!int ''",
    "!!float ''",
    "!!binary '?'",
    "!!python/object/apply:os.getcwd []",
    "!!set {a, b}",
    "!!omap [a: 1]",
    '"\\UFFFFFFFF"',
    '"\\ud800"',
    "2020-99-99",
    "2020-01-01",
    "1:99:99",
    "0b",
    "0x",
    "._",
    ".nan",
    ".inf",
    "9" * 5000,
    "{? [1] : 2}",
    "{? {a: 1} : 2}",
    "{<<: 1}",
    "{1: 2}",
    "{~: 2}",
    "=",
    "[" * DEEP,
    "{a: " * DEEP,
    "|\n  text",
    "- - - -",
    "%YAML 9.9",
    "\t",
    "\x00",
    "\x85",
)


def damage_bytes(rng: random.Random, payload: bytes, seeds: Sequence[bytes]) -> bytes:
    """Flip, cut, insert, repeat or splice bytes, or put a huge number in."""
    damaged = bytearray(payload) or bytearray(b"\0")
    at = rng.randrange(len(damaged))
    length = min(int(math.exp(rng.uniform(0, math.log(len(damaged) + 1)))), 4096)
    kind = rng.randrange(9)
    if kind == 0:
        damaged[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        damaged[at] = rng.randrange(256)
    elif kind == 2:
        del damaged[at : at + length]
    elif kind == 3:
        damaged[at:at] = rng.randbytes(length)
    elif kind == 4:
        damaged[at:at] = damaged[at : at + length] * rng.choice((1, 2, 50))
    elif kind == 5:
        del damaged[at:]
    elif kind == 6:
        other = rng.choice(seeds)
        cut = rng.randrange(len(other) + 1)
        damaged[at:] = other[cut:]
    elif kind == 7:
        width = rng.choice((2, 4, 8))
        order = rng.choice(("little", "big"))
        number = rng.choice(_SIZES) % (1 << 8 * width)
        damaged[at : at + width] = number.to_bytes(width, order)
    else:
        for _ in range(rng.randrange(2, 12)):
            damaged[rng.randrange(len(damaged))] = rng.choice(b'0123456789-.eE,:[]{}"a \0\xff\n')
    return bytes(damaged)


def damage_text(rng: random.Random, payload: bytes, seeds: Sequence[bytes]) -> bytes:
    """Put an odd word in the place of a word or a number."""
    text = payload.decode("utf-8", "surrogateescape")
    found = list(re.finditer(r"[\w.+-]+", text))
    if not found:
        return damage_bytes(rng, payload, seeds)
    match = rng.choice(found)
    text = text[: match.start()] + rng.choice(_WORDS) + text[match.end() :]
    return text.encode("utf-8", "surrogateescape")


def damage_numbers(rng: random.Random, payload: bytes, seeds: Sequence[bytes]) -> bytes:
    """Put an odd number in the place of a number."""
    text = payload.decode("utf-8", "surrogateescape")
    found = list(re.finditer(r"-?\d+(\.\d+)?", text))
    if not found:
        return damage_bytes(rng, payload, seeds)
    match = rng.choice(found)
    word = rng.choice(("0", "-1", "1e999", "NaN", "9" * 5000, "9" * 400, str(2**63), "1e308", "-0"))
    return (text[: match.start()] + word + text[match.end() :]).encode("utf-8", "surrogateescape")


def damage_lines(rng: random.Random, payload: bytes, seeds: Sequence[bytes]) -> bytes:
    """Drop, repeat, swap or empty lines, or change how they end."""
    lines = payload.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(6)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, lines[other])
    elif kind == 2:
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == 3:
        lines[at] = b""
    elif kind == 4:
        return payload.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"\x0b", b"\x1c")))
    else:
        lines[at] = rng.choice((b"null", b"[]", b"{}", b"1", b'""', b"\xff", b"\x00"))
    return b"\n".join(lines)


# trees


def damage_json(rng: random.Random, payload: bytes, seeds: Sequence[bytes]) -> bytes:
    """Damage one to three nodes of a JSON document; bytes, where there is none any more."""
    try:
        return _damaged_tree(rng, json.loads(payload, object_pairs_hook=Pairs))
    except (ValueError, RecursionError):
        # No JSON, or nested already deeper than it can be written.
        return damage_bytes(rng, payload, seeds)


def damage_yaml(rng: random.Random, payload: bytes, seeds: Sequence[bytes]) -> bytes:
    """Damage nodes of a YAML document, or put what only YAML has in the place of a value."""
    if rng.random() < 0.5:
        text = payload.decode("utf-8", "surrogateescape")
        found = list(re.finditer(r"(?<=: )[^\n]+|(?<=- )[^\n]+", text))
        if found:
            match = rng.choice(found)
            text = text[: match.start()] + rng.choice(_YAML_WORDS) + text[match.end() :]
        return text.encode("utf-8", "surrogateescape")
    try:
        document = yaml.safe_load(payload)
        tree = json.loads(json.dumps(document, default=str), object_pairs_hook=Pairs)
        return _damaged_tree(rng, tree)
    except Exception:
        return damage_text(rng, payload, seeds)


def _damaged_tree(rng: random.Random, tree: Any) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            break
        _damage_node(rng, *rng.choice(places), [_at(*place) for place in places])
    if rng.random() < 0.02:
        tree = _scalar(rng)
    return _written(tree).encode("utf-8", "surrogatepass")


def _scalar(rng: random.Random) -> Any:
    # A copy: some are lists, which a later step damages in turn.
    return copy.deepcopy(rng.choice(_SCALARS))


def _places(tree: Any) -> Iterator[tuple[Any, int]]:
    """Yield every (container, index)."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            for index in range(len(node)):
                yield node, index
                waiting.append(_at(node, index))


def _at(node: Any, index: int) -> Any:
    return node[index][1] if isinstance(node, Pairs) else node[index]


def _damage_node(rng: random.Random, node: Any, index: int, values: list[Any]) -> None:
    kind = rng.randrange(10)
    if kind < 5:
        _put(node, index, _scalar(rng))
    elif kind == 5:
        del node[index]
    elif kind == 6:
        node.insert(rng.randrange(len(node) + 1), node[index])
    elif kind == 7:
        # A node of another place; a copy, so that no node holds itself.
        _put(
            node,
            index,
            json.loads(_written(rng.choice(values)) or "0", object_pairs_hook=Pairs)
            if _is_plain(values)
            else 0,
        )
    elif kind == 8 and isinstance(node, Pairs):
        name = rng.choice(("", "x", node[index][0] + "_", node[index][0].upper(), "__proto__"))
        node[index] = (name, node[index][1])
    else:
        value = _at(node, index)
        if isinstance(value, list) and value:
            value[:] = value * rng.choice((2, 20)) if len(value) < 200 else value[:1]
        else:
            _put(node, index, _scalar(rng))


def _is_plain(values: list[Any]) -> bool:
    return not any(isinstance(value, Raw) for value in values)


def _put(node: Any, index: int, value: Any) -> None:
    node[index] = (node[index][0], value) if isinstance(node, Pairs) else value


def _written(tree: Any) -> str:
    if isinstance(tree, Raw):
        return str(tree)
    if isinstance(tree, Pairs):
        inner = ",".join(f"{json.dumps(key)}:{_written(value)}" for key, value in tree)
        return f"{{{inner}}}"
    if isinstance(tree, list):
        return f"[{','.join(map(_written, tree))}]"
    return json.dumps(tree)


# tables


def damage_cells(rng: random.Random, payload: bytes, seeds: Sequence[bytes]) -> bytes:
    """Damage cells, columns or rows of a CSV file."""
    try:
        rows = list(csv.reader(io.StringIO(payload.decode("utf-8", "replace"), newline="")))
    except csv.Error:
        rows = []
    if not rows or not rows[0]:
        return damage_bytes(rng, payload, seeds)
    row = rows[0] if rng.random() < 0.2 else rng.choice(rows)
    kind = rng.randrange(7)
    if kind < 3 and row:
        row[rng.randrange(len(row))] = rng.choice(_WORDS)
    elif kind == 3:
        row.insert(rng.randrange(len(row) + 1), rng.choice(_WORDS))
    elif kind == 4 and row:
        del row[rng.randrange(len(row))]
    elif kind == 5:
        rows.append(list(row))
    else:
        column = rng.randrange(len(rows[0]))
        for one in rows:
            if column < len(one):
                one.append(one[column])
    text = io.StringIO()
    delimiter = rng.choice((",",) * 8 + (";", "\t"))
    csv.writer(text, delimiter=delimiter, lineterminator=rng.choice(("\n", "\r\n"))).writerows(
        [[cell.replace("\0", "") for cell in one] for one in rows]
    )
    return text.getvalue().encode("utf-8")


# archives


def damage_archive(rng: random.Random, payload: bytes, seeds: Sequence[bytes]) -> bytes:
    """Rename, repeat, drop, pack or mark members of a ZIP file, or damage its bytes."""
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    except Exception:
        return damage_bytes(rng, payload, seeds)
    if not members or rng.random() < 0.25:
        return damage_bytes(rng, payload, seeds)
    at = rng.randrange(len(members))
    name, content = members[at]
    packing = zipfile.ZIP_STORED
    kind = rng.randrange(7)
    if kind == 0:
        odd = ("../x", "/x", "a/b/c", "", "\\x", "é", "x" * 400, "startup/..", "startup/", "a\0b")
        members[at] = (rng.choice(odd), content)
    elif kind == 1:
        members.append((name, rng.choice((content, b"", b"x"))))
    elif kind == 2:
        del members[at]
    elif kind == 3:
        packing = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    elif kind == 4:
        members[at] = (name, damage_bytes(rng, content, [content]))
    elif kind == 5:
        members += [(f"m{number}", b"") for number in range(200)]
    written = bytearray(packed(members, packing))
    if kind == 6:
        # A field of a header in the central folder: version, flags, method, sizes, offset.
        heads = [found.start() for found in re.finditer(rb"PK\x01\x02", bytes(written))]
        field = rng.choice((4, 6, 8, 10, 20, 24, 28, 30, 42))
        start = rng.choice(heads) + field
        written[start : start + 2] = rng.choice(
            (b"\x01\x00", b"\x63\x00", b"\xff\xff", b"\x09\x00")
        )
    return bytes(written)


def packed(members: Sequence[tuple[str, bytes]], packing: int) -> bytes:
    """Return a ZIP file of members, repeated names included; the same bytes every time."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as archive:
        for name, content in members:
            entry = zipfile.ZipInfo("x", (2020, 1, 1, 0, 0, 0))
            entry.filename = name
            entry.compress_type = packing
            if name not in archive.namelist():
                archive.writestr(entry, content)
            else:
                archive.NameToInfo.pop(name)
                archive.writestr(entry, content)
    return stream.getvalue()


# DICOM: explicit VR, little endian


_LONG = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT"})
_VALUES = (
    *(word.encode("utf-8") for word in _WORDS if len(word) < 6000),
    b"1\\2\\3",
    b"\\\\\\",
    b"1e308\\1e308\\1e308\\1e308\\1e308\\1e308",
    b"\xff\xff",
    b"\0\0",
    b"\0\0\xc0\x7f",
    b"\xff" * 8,
    b"1.2.840.10008.1.2.4.999",
)


def _elements(payload: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (offset, offset of the value, length) of every element, nested ones after their own."""
    at = start
    while at + 8 <= end:
        group, _ = struct.unpack_from("<HH", payload, at)
        kind = payload[at + 4 : at + 6]
        if group == 0xFFFE:
            head, length = 8, struct.unpack_from("<I", payload, at + 4)[0]
        elif kind in _LONG and at + 12 <= end:
            head, length = 12, struct.unpack_from("<I", payload, at + 8)[0]
        else:
            head, length = 8, struct.unpack_from("<H", payload, at + 6)[0]
        if length == 0xFFFFFFFF:
            length = 0
        yield at, at + head, min(length, end - at - head)
        if (kind == b"SQ" or group == 0xFFFE) and length:
            yield from _elements(payload, at + head, min(at + head + length, end))
        at += head + length


def damage_dicom(rng: random.Random, payload: bytes, seeds: Sequence[bytes]) -> bytes:
    """Damage one element: its value, length, type or tag; drop it, repeat it, or take another's."""
    elements = list(_elements(payload, 132, len(payload)))
    if not elements:
        return damage_bytes(rng, payload, seeds)
    at, value, length = rng.choice(elements)
    whole, head = payload[at : value + length], payload[at:value]
    kind = rng.randrange(9)
    if kind < 4:
        new = rng.choice(_VALUES)
        new += b" " * (len(new) % 2)
        whole = _with_length(head, len(new)) + new
    elif kind == 4:
        whole = _with_length(head, rng.choice((*_SIZES, length + 2, max(length - 2, 0))))
        whole += payload[value : value + length]
    elif kind == 5:
        odd = rng.choice((b"SQ", b"UN", b"US", b"FD", b"DS", b"IS", b"OB", b"UI", b"??", b"AT"))
        whole = head[:4] + odd + whole[6:]
    elif kind == 6:
        whole = b""
    elif kind == 7:
        whole = whole * 2
    else:
        other, start, size = rng.choice(elements)
        whole = head[:4] + payload[other + 4 : start + size]
    return payload[:at] + whole + payload[value + length :]


def _with_length(head: bytes, length: int) -> bytes:
    if len(head) == 12 or head[:2] == b"\xfe\xff":
        return head[:-4] + struct.pack("<I", length & 0xFFFFFFFF)
    return head[:-2] + struct.pack("<H", length & 0xFFFF)


# safetensors: the length of a JSON head in 8 bytes, the head, the numbers


def damage_safetensors(rng: random.Random, payload: bytes, seeds: Sequence[bytes]) -> bytes:
    """Damage the head as JSON, its told length, or the numbers."""
    if len(payload) < 8 or rng.random() < 0.2:
        return damage_bytes(rng, payload, seeds)
    length = int.from_bytes(payload[:8], "little")
    if rng.random() < 0.15:
        told = rng.choice((*_SIZES, 2**63, 2**64 - 1))
        return told.to_bytes(8, "little") + payload[8:]
    head = damage_json(rng, payload[8 : 8 + length], [payload[8 : 8 + length]])
    return len(head).to_bytes(8, "little") + head + payload[8 + length :]


def within(
    start: int, end: int, mutate: Callable[[random.Random, bytes, Sequence[bytes]], bytes]
) -> Callable[[random.Random, bytes, Sequence[bytes]], bytes]:
    """Return a way to damage only the bytes from `start` to `end`."""

    def damage(rng: random.Random, payload: bytes, seeds: Sequence[bytes]) -> bytes:
        part = mutate(rng, payload[start:end], [seed[start:end] for seed in seeds])
        return payload[:start] + part + payload[end:]

    return damage
