"""Packs a site's courier into one file that needs Flower installed and nothing of this project.

The file holds the courier's folder, the mailbox, the wire format and the error classes, some
1,400 lines that a hospital can read, and no statistics, no agent, no signing key.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import fedcac
import site_agent
from fedcac.canonical import Digest, sha256_hex

__all__ = ["PACKED_FILES", "pack_courier"]

PACKED_FILES = (
    "fedcac/errors.py",
    "fedcac/exchange/chunks.py",
    "fedcac/exchange/couriering.py",
    "fedcac/exchange/mailbox.py",
    "site_agent/flower_courier/__init__.py",
    "site_agent/flower_courier/__main__.py",
    "site_agent/flower_courier/adapter.py",
    "site_agent/flower_courier/carrying.py",
    "site_agent/flower_courier/settings.py",
    "site_agent/flower_courier/supernode.py",
)
_EMPTY = ("fedcac/__init__.py", "fedcac/exchange/__init__.py", "site_agent/__init__.py")
_MAIN = "import sys\nfrom site_agent.flower_courier.__main__ import main\nsys.exit(main())\n"
_MOMENT = (2020, 1, 1, 0, 0, 0)


def pack_courier(path: Path) -> Digest:
    """Write the packed courier; the same sources give the same bytes. Return its SHA-256."""
    roots = {
        "fedcac": Path(fedcac.__file__).parents[1],
        "site_agent": Path(site_agent.__file__).parents[1],
    }
    contents = {name: (roots[name.split("/")[0]] / name).read_text() for name in PACKED_FILES}
    contents.update(dict.fromkeys(_EMPTY, ""))
    contents["__main__.py"] = _MAIN
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name, _MOMENT)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, contents[name].encode("utf-8"))
    return sha256_hex(path.read_bytes())
