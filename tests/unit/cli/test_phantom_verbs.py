"""`fedcac phantom`: the folders that it writes are what the other verbs read."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from fedcac.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["phantom", *arguments, "--format", "json"]) == 0
    data: dict[str, Any] = json.loads(capsys.readouterr().out)["data"]
    return data


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_pairs_come_with_their_truth_and_again_from_the_same_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--sites", "1", "--patients", "1", "--hybrid-share", "0", "--seed", "5")
    first, again = tmp_path / "first", tmp_path / "again"
    assert run(capsys, "cohort", *words, "--out", str(first))["sites"] == ["site-1"]
    assert main(["phantom", "cohort", *words, "--out", str(again)]) == 0
    text = capsys.readouterr().out
    assert f"1 pairs for each of site-1 in {again}" in text
    assert "not patients" in text
    (truth,) = (rows_of(path) for path in first.rglob("truth.csv"))
    assert len(truth) == 1
    for path in first.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (again / path.relative_to(first)).read_bytes()
    assert main(["phantom", "cohort", *words, "--out", str(first)]) == 2
    assert "usage.folder_not_empty" in capsys.readouterr().err


def test_radiographs_come_with_a_manifest_of_files_that_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "films"
    made = run(capsys, "radiographs", "--sites", "2", "--patients", "2", "--out", str(out))
    assert made == {"out": str(out), "sites": ["site-1", "site-2"]}
    for name in made["sites"]:
        assert len(rows_of(out / name / "clinical.csv")) == 2
        paths = [out / name / row["path"] for row in rows_of(out / name / "manifest.csv")]
        assert paths
        assert all(path.exists() for path in paths)


@pytest.mark.parametrize(
    ("cohort", "protocol"),
    [
        ("miller2023", "miller2023-ctac"),
        ("eng2021", "eng2021-nongated"),
        ("hong2025", "hong2025-cxr"),
    ],
)
def test_tables_are_written_with_the_command_that_analyses_them(
    cohort: str, protocol: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tables"
    assert main(["phantom", "tables", cohort, "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    tables = sorted(out.glob("*.csv"))
    n_patients = sum(len(rows_of(path)) for path in tables)
    assert lines[0].startswith(f"{n_patients} generated patients of {len(tables)} sites")
    assert lines[1].startswith(f"fedcac analyze {protocol} --site {tables[0].stem}={tables[0]}")
