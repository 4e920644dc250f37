"""`fedcac score` of a radiograph, from generated CR and DX and from a real CR."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from radiograph_package import write_radiograph_package

from fedcac.cli import main
from fedcac.phantom.radiograph_cohort import RadiographLabel, write_radiograph
from fedcac.phantom.radiographs import draw_radiograph


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    write_radiograph_package(folder)
    return folder


def score(
    capsys: pytest.CaptureFixture[str], path: Path, package: Path, *more: str
) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["score", str(path), "--model", str(package), "--format", "json", *more])
    return code, json.loads(capsys.readouterr().out)


def written(folder: Path, **label: Any) -> Path:
    rng = np.random.default_rng(3)
    told = RadiographLabel("SECRET-P1", date(2024, 1, 1), "2.25.51", **label)
    write_radiograph(folder / "a.dcm", draw_radiograph(rng, 300.0), told, rng)
    return folder


def test_probabilities_and_category_are_told(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, envelope = score(capsys, written(tmp_path), package)
    told = envelope["data"]
    assert code == 0
    assert sorted(told["probabilities"]) == ["0", "100", "400"]
    n_passed = sum(value >= 0.5 for value in told["probabilities"].values())
    assert told["native_category"] == ("0", "1-99", "100-399", ">=400")[n_passed]
    assert main(["score", str(tmp_path), "--model", str(package)]) == 0
    text = capsys.readouterr().out
    assert f"> 0: {told['probabilities']['0']:.3f}" in text
    assert "not for clinical use" in text
    assert "SECRET" not in text


def test_what_cannot_be_answered_ends_with_its_code(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(written(tmp_path / "l", view="LL")), "--model", str(package)]) != 0
    assert "dicom.wrong_view" in capsys.readouterr().err
    arguments = ["--model", str(package), "--artefacts", str(tmp_path / "out")]
    assert main(["score", str(written(tmp_path / "pa")), *arguments]) == 2
    assert "usage.no_artefacts" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_real_radiograph(
    package: Path, real_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, envelope = score(capsys, real_data / "cxr" / "RG1_J2KI_chest_CR.dcm", package)
    assert code == 0
    assert all(0 <= p <= 1 for p in envelope["data"]["probabilities"].values())
