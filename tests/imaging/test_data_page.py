"""docs/reference/dicom-data.md says what becomes of every real series and file, and is current."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from fedcac.vocabulary import ExclusionReason

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dicom_data", DOCS / "dicom_data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_real_series_and_file_ends_as_the_page_says(
    real_data: Path, generator: ModuleType
) -> None:
    made, committed = generator.page(real_data), generator.PAGE.read_text(encoding="utf-8")
    assert made == committed, "run `python docs/dicom_data.py FOLDER`"


def test_the_page_names_only_documented_codes_and_no_identifier(generator: ModuleType) -> None:
    text = generator.PAGE.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    cells = [cell.strip() for row in rows for cell in row.strip("|").split("|")[1:3]]
    codes = {cell.strip("`") for cell in cells if re.fullmatch(r"`[a-z_]+`", cell)}
    assert codes
    assert codes <= {reason.value for reason in ExclusionReason}
    # Each outcome is a volume with its digest, a radiograph with its digest, a code or `=`.
    outcomes = [row.split("|")[2].strip() for row in rows if "doi:" not in row and "MIT" not in row]
    assert len(outcomes) > 40
    assert all(re.search(r"`([0-9a-f]{16}|[a-z_]+)`$", outcome) for outcome in outcomes)
