"""`fedcac score` on the real chest CT: the same score whatever its files are called or held in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from imaging.conversion import convert, decompressed
from pydicom.uid import LegacyConvertedEnhancedCTImageStorage

from fedcac.cli import main
from fedcac.phantom import chest_ct_folder


def score(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["score", str(folder), "--format", "json"]) == 0
    data: dict[str, Any] = json.loads(capsys.readouterr().out)["data"]
    return data


_ORIGINAL: dict[str, Any] = {}


@pytest.fixture
def original(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The score of the shipped series, made once."""
    if not _ORIGINAL:
        _ORIGINAL.update(score(chest_ct_folder(), capsys))
    return dict(_ORIGINAL)


def test_shuffled_and_renamed_series_scores_identically(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], original: dict[str, Any]
) -> None:
    assert original["n_slices"] == 64
    assert original["is_demonstration"] is True
    files = sorted(chest_ct_folder().iterdir())
    order = np.random.default_rng(5).permutation(len(files))
    for number, position in enumerate(order):
        shutil.copy(files[position], tmp_path / f"x{number:03d}.dcm")
    assert score(tmp_path, capsys) == original


def test_a_legacy_converted_enhanced_copy_scores_identically(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], original: dict[str, Any]
) -> None:
    """Nothing of what is said of the series tells that it came as one multi-frame object."""
    slices = [decompressed(pydicom.dcmread(p)) for p in sorted(chest_ct_folder().iterdir())]
    path = convert(slices, tmp_path)
    copy = pydicom.dcmread(path, stop_before_pixels=True)
    assert copy.SOPClassUID == LegacyConvertedEnhancedCTImageStorage
    assert copy.NumberOfFrames == 64
    assert score(tmp_path, capsys) == original
    assert original["agatston"] > 100


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("truncated", "dicom.truncated_dicom"),
        ("two_series", "dicom.mixed_series"),
        ("missing_slice", "dicom.missing_slice"),
        ("empty", "dicom.no_dicom"),
    ],
)
def test_broken_series_end_with_their_code(
    fault: str, code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if fault != "empty":
        for path in chest_ct_folder().iterdir():
            shutil.copy(path, tmp_path / path.name)
    files = sorted(tmp_path.iterdir())
    if fault == "truncated":
        files[7].write_bytes(files[7].read_bytes()[:-60_000])
    elif fault == "missing_slice":
        files[20].unlink()
    elif fault == "two_series":
        content = files[9].read_bytes()
        uid = b"213534032021332276911485641315"
        assert uid in content
        (tmp_path / "other.dcm").write_bytes(content.replace(uid, uid[:-1] + b"6"))
    assert main(["score", str(tmp_path), "--format", "json"]) == 6
    envelope = json.loads(capsys.readouterr().out)
    assert envelope["status"] == "error"
    assert envelope["data"]["code"] == code
