"""Writes a site's courier as one file; see `fedcac.joining.courier_file` for what is in it."""

from __future__ import annotations

from pathlib import Path

from fedcac.canonical import Digest, sha256_hex
from fedcac.joining.courier_file import PACKED_FILES, packed_courier

__all__ = ["PACKED_FILES", "pack_courier"]


def pack_courier(path: Path) -> Digest:
    """Write the packed courier; the same sources give the same bytes. Return its SHA-256."""
    payload = packed_courier()
    path.write_bytes(payload)
    return sha256_hex(payload)
