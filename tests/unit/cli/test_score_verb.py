"""`fedcac score` of a radiograph, and what it refuses before anything is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from radiograph_package import write_radiograph_package

from fedcac.cli import main
from fedcac.phantom import chest_ct_folder
from fedcac.phantom.radiograph_cohort import write_radiograph_cohort


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("films")
    package = root / "package"
    write_radiograph_package(package)
    write_radiograph_cohort(root / "cohort", n_sites=1, n_patients=2, seed=3)
    study = sorted((root / "cohort" / "site-1" / "dicom").iterdir())[0]
    return study, package


def problem(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["score", *words, "--format", "json"]) == 2
    data: dict[str, Any] = json.loads(capsys.readouterr().out)["data"]
    return data


def test_a_radiograph_gets_probabilities_and_a_category(
    films: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    study, package = films
    words = ["score", str(study), "--model", str(package), "--device", "cpu"]
    assert main([*words, "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    probabilities = data["probabilities"]
    assert list(probabilities) == ["0", "100", "400"]
    assert all(0 <= value <= 1 for value in probabilities.values())
    assert data["package"] == "tiny-radiograph"
    assert data["is_demonstration"] is True
    assert main(words) == 0
    text = capsys.readouterr().out
    assert text.startswith("Probability of a calcium score > 0: ")
    for name, value in probabilities.items():
        assert f" {name}: {value:.3f}" in text
    assert f"Category {data['native_category']}, package tiny-radiograph" in text
    assert text.endswith("Demonstration model: not for clinical use.\n")


def test_a_package_of_somebodys_own_is_for_research(
    films: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, _ = films
    card = {
        "intended_use": "Research.",
        "is_demonstration": False,
        "training_data": "Drawn radiographs.",
        "limitations": "Drawn.",
        "measurements": [],
    }
    write_radiograph_package(tmp_path / "own", card=card)
    assert main(["score", str(study), "--model", str(tmp_path / "own"), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.endswith("Research use only.\n")


def test_a_radiograph_has_no_artefacts(
    films: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, package = films
    out = tmp_path / "artefacts"
    found = problem(capsys, str(study), "--model", str(package), "--artefacts", str(out))
    assert (found["code"], found["cure"]) == ("usage.no_artefacts", "Leave --artefacts out.")
    assert not out.exists()


def test_a_pseudonym_that_no_page_can_show(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "artefacts"
    words = ("--artefacts", str(out), "--pseudonym", "a/b\n")
    found = problem(capsys, str(chest_ct_folder()), *words)
    assert found["code"] == "usage.bad_pseudonym"
    assert not out.exists()


def test_an_unknown_profile_is_named_before_the_series_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = problem(capsys, str(tmp_path), "--profile", "agatston1890")
    assert found["code"] == "usage.unknown_profile"
