"""Small inputs that stand for enormous ones, and the code that each ends with."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable

from fuzz import images, joining, journals, messages, plans, tables
from fuzz.engine import PARSERS
from fuzz.images import exam
from fuzz.mutations import packed

__all__ = ["BOMBS"]

_ROOMS = (images, joining, journals, messages, plans, tables)


def _laughs() -> bytes:
    """YAML whose aliases double 40 times."""
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    return "\n".join(lines).encode()


def _zeros(name: str, size: int) -> bytes:
    return packed([(name, bytes(size))], zipfile.ZIP_DEFLATED)


def _deflated() -> bytes:
    """A slice that says it is deflated, and inflates to 3 GiB."""
    whole = exam().paths[4].read_bytes()
    plain, deflated = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"
    start = 144 + int.from_bytes(whole[140:144], "little")
    head = whole[:start].replace(
        b"UI" + struct.pack("<H", len(plain)) + plain,
        b"UI" + struct.pack("<H", len(deflated)) + deflated,
    )
    head = head[:140] + struct.pack("<I", len(head) - 144) + head[144:]
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    # After a full flush nothing refers back: the same bytes mean the same zeros again.
    part = squeeze.compress(bytes(2**24)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return head + part * 192 + squeeze.flush()


def _claimed(element: bytes, value: int) -> Callable[[], bytes]:
    """Return a slice whose rows or columns are so many."""

    def made() -> bytes:
        whole = exam().paths[4].read_bytes()
        at = whole.index(element)
        return whole[: at + 8] + struct.pack("<H", value) + whole[at + 10 :]

    return made


def _large_label_map() -> bytes:
    """A NIfTI header that claims 32767 voxels along every axis."""
    whole = bytearray(PARSERS["label-map"].seeds()[0])
    struct.pack_into("<8h", whole, 40, 3, 32767, 32767, 32767, 1, 1, 1, 1)
    return bytes(whole)


def _blanks() -> bytes:
    """A point with half a million blanks, for expressions that go back and forth."""
    return (
        b'<?xml version="1.0"?><plist version="1.0"><dict><key>Images</key><array><dict>'
        b"<key>ImageIndex</key><integer>1</integer><key>ROIs</key><array><dict><key>Name</key>"
        b"<string>left main</string><key>Point_px</key><array><string>(1"
        + b" " * 500_000
        + b"x</string></array></dict></array></dict></array></dict></plist>"
    )


def _wide() -> bytes:
    """A table of one line with 200,000 columns."""
    return b"patient_id" + b",a" * 200_000 + b"\n" + b"1" + b",1" * 200_000 + b"\n"


BOMBS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "aliases in a protocol": ("protocol", _laughs, "protocol.not_plain"),
    "aliases in settings": ("site-settings", _laughs, "usage.bad_settings"),
    "aliases in a policy": ("policy", _laughs, "policy.missing_key"),
    "64 MiB of blank releases": (
        "releases-archive",
        lambda: _zeros("releases.jsonl", 2**26),
        "integrity.releases_malformed",
    ),
    "a deflated file in a kit": (
        "kit",
        lambda: _zeros("startup/ca.crt", 2**26),
        "signature.malformed_kit",
    ),
    "a deflated slice of 3 GiB": ("ct-slice", _deflated, "dicom.too_large"),
    "a slice of 65535 rows": (
        "ct-slice",
        _claimed(b"\x28\x00\x10\x00US\x02\x00", 65535),
        "dicom.inconsistent_geometry",
    ),
    "a label map of 35 million million voxels": (
        "label-map",
        _large_label_map,
        "cohort.other_series",
    ),
    "blanks in a point": ("regions", _blanks, "cohort.bad_annotation"),
    "200,000 columns": ("clinical-table", _wide, "table.duplicate_column"),
    "JSON nested a million deep": (
        "reply",
        lambda: b'{"answers":' + b"[" * 1_000_000,
        "round.malformed_message",
    ),
    "an envelope nested a million deep": (
        "envelope",
        lambda: b"[" * 1_000_000,
        "signature.malformed_envelope",
    ),
}
