"""Packs a site's courier into one file that needs Flower installed and nothing of this project.

The file holds the courier's folder, the mailbox, the wire format and the error classes, some
1,700 lines that a hospital can read, and no statistics, no agent, no signing key. The coordinator
puts it into kits, a site can make it itself: the same sources give the same bytes.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import fedcac

__all__ = ["PACKED_FILES", "packed_courier"]

PACKED_FILES = (
    "fedcac/errors.py",
    "fedcac/exchange/chunks.py",
    "fedcac/exchange/couriering.py",
    "fedcac/exchange/expiry.py",
    "fedcac/exchange/mailbox.py",
    "site_agent/flower_courier/__init__.py",
    "site_agent/flower_courier/__main__.py",
    "site_agent/flower_courier/adapter.py",
    "site_agent/flower_courier/carrying.py",
    "site_agent/flower_courier/line.py",
    "site_agent/flower_courier/settings.py",
    "site_agent/flower_courier/supernode.py",
)
_EMPTY = ("fedcac/__init__.py", "fedcac/exchange/__init__.py", "site_agent/__init__.py")
_MAIN = "import sys\nfrom site_agent.flower_courier.__main__ import main\nsys.exit(main())\n"
_MOMENT = (2020, 1, 1, 0, 0, 0)


def packed_courier() -> bytes:
    """Return the packed courier's bytes."""
    # Both packages stand in one wheel; the site's is read here and never imported.
    root = Path(fedcac.__file__).parents[1]
    contents = {name: (root / name).read_text(encoding="utf-8") for name in PACKED_FILES}
    contents.update(dict.fromkeys(_EMPTY, ""))
    contents["__main__.py"] = _MAIN
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name, _MOMENT)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, contents[name].encode("utf-8"))
    return stream.getvalue()
