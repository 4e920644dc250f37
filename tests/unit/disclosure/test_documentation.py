from __future__ import annotations

from pathlib import Path

import pytest

from fedcac.disclosure import load_policy

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "disclosure.md"


def _rows() -> dict[str, tuple[str, str]]:
    rows = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].startswith("`"):
            rows[cells[0].strip("`")] = (cells[1], cells[2])
    return rows


@pytest.mark.parametrize(("column", "profile"), [(0, "research"), (1, "cms")])
def test_every_key_is_documented_with_its_shipped_value(column: int, profile: str) -> None:
    document = load_policy(profile).model_dump()
    document.pop("profile")
    keys = {f"cox.{name}": value for name, value in document.pop("cox").items()} | document
    documented = {key: values[column] for key, values in _rows().items()}
    assert documented == {key: str(value).replace("True", "true") for key, value in keys.items()}
