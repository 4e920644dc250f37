"""The bills of materials name every package of an installation, each reached from the product."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def reached(bill: dict[str, Any]) -> set[str]:
    needs = {row["ref"]: row.get("dependsOn", []) for row in bill["dependencies"]}
    found: set[str] = set()
    waiting = ["fedcac"]
    while waiting:
        ref = waiting.pop()
        if ref not in found:
            found.add(ref)
            waiting += needs[ref]
    return found - {"fedcac"}


@pytest.mark.parametrize(
    ("installation", "holds", "lacks"),
    [
        ("core", "numpy", "torch"),
        ("publishing", "pyarrow", "torch"),
        ("site", "torch", "fastapi"),
        ("coordinator", "pyarrow", "torch"),
        ("flower", "flwr", "torch"),
    ],
)
def test_every_package_of_an_installation_is_in_its_bill(
    installation: str, holds: str, lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(DOCS)
    bill = json.loads(importlib.import_module("sbom").bill(installation))
    versions = {part["name"]: part["version"] for part in bill["components"]}
    pinned = importlib.import_module("dependencies").pinned_versions()
    assert versions == {name: pinned[name] for name in versions}
    assert holds in versions
    assert lacks not in versions
    assert reached(bill) == {part["bom-ref"] for part in bill["components"]}
    assert all(part["licenses"] for part in bill["components"])
