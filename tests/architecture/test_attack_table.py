"""The table of attacks says what the attacks find, and names tests that exist."""

from __future__ import annotations

import csv
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "studies"


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("table_of_attacks", FOLDER / "attacks.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


STUDY = _load()
ROWS = list(csv.DictReader((FOLDER / "attacks.csv").read_text(encoding="utf-8").splitlines()))
PAGE = (FOLDER / "attacks.md").read_text(encoding="utf-8")


def test_the_table_lists_every_attack() -> None:
    assert [row["attack"] for row in ROWS] == [attack.name for attack in STUDY.attacks()]


@pytest.mark.parametrize("attack", STUDY.attacks(), ids=lambda attack: attack.name)
def test_the_table_is_current(attack: Any) -> None:
    (row,) = (row for row in ROWS if row["attack"] == attack.name)
    assert STUDY.row_of(attack) == row, "run `python docs/studies/attacks.py`"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["attack"])
def test_the_named_test_exists(row: dict[str, str]) -> None:
    if row["test"] == STUDY.OPEN:
        # What the gate does not stop has no test that holds it; the page has to say so.
        assert row["attack"] in PAGE.partition("## What remains open")[2]
        return
    name, _, function = row["test"].partition("::")
    # Without a folder, the test is among the attacks.
    path = ROOT / "tests" / name if "/" in name else ROOT / "tests" / "attacks" / name
    text = path.read_text(encoding="utf-8")
    assert re.search(rf"^def {function}\(", text, re.MULTILINE)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["attack"])
def test_the_page_shows_the_table(row: dict[str, str]) -> None:
    (line,) = (line for line in PAGE.splitlines() if line.startswith(f"| {row['attack']} |"))
    assert row["gate_off"] in line
    assert row["gate_on"] in line
