"""`fedcac agatston`: the same score from a NumPy map and from a DICOM SEG."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.coding import Code

from fedcac.cli import main
from fedcac.imaging import VESSEL_CODES
from fedcac.phantom import generate_pair
from fedcac.phantom.dicom import ExamLabel, write_series
from fedcac.vocabulary import Vessel

CODES = {vessel: code for code, vessel in VESSEL_CODES.items()}


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    pair = generate_pair(np.random.default_rng(8), 600.0)
    folder = tmp_path_factory.mktemp("exam") / "series"
    rng = np.random.default_rng(1)
    write_series(folder, pair.gated, ExamLabel("P1", date(2020, 1, 1), True), rng)
    return folder, pair


def write_seg(series: Path, vessel_map: np.ndarray[Any, Any], path: Path, codes: Any) -> Path:
    sources = [pydicom.dcmread(file) for file in series.iterdir()]
    sources.sort(key=lambda d: -float(d.ImagePositionPatient[2]))
    present = [v for n, v in enumerate(Vessel, 1) if (vessel_map == n).any()]
    masks = np.stack([vessel_map == list(Vessel).index(v) + 1 for v in present], axis=-1)
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=vessel.value,
            segmented_property_category=Code("49755003", "SCT", "Morphologic abnormality"),
            segmented_property_type=Code("36222008", "SCT", "Calcification"),
            anatomic_regions=[Code(codes[vessel], "SCT", vessel.value)],
            algorithm_type="MANUAL",
        )
        for number, vessel in enumerate(present, 1)
    ]
    seg = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=masks.astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=descriptions,
        series_instance_uid=hd.UID(),
        series_number=9,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
    )
    seg.save_as(path)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str, expect: int = 0) -> dict[str, Any]:
    assert main(["agatston", *arguments, "--format", "json"]) == expect
    data: dict[str, Any] = json.loads(capsys.readouterr().out)["data"]
    return data


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_numpy_map_and_dicom_seg_give_the_same_score(
    exam: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series, pair = exam
    np.save(tmp_path / "map.npy", pair.gated.vessel_map)
    seg = write_seg(series, pair.gated.vessel_map, tmp_path / "seg.dcm", CODES)
    from_map = run(capsys, str(series), "--mask", str(tmp_path / "map.npy"))
    from_seg = run(capsys, str(series), "--mask", str(seg))
    assert from_map["agatston"] == pytest.approx(pair.reference_score)
    assert from_seg == from_map
    eng = run(capsys, str(series), "--mask", str(seg), "--profile", "eng2021")
    assert eng["agatston"] != from_seg["agatston"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_masks_that_cannot_be_used(
    exam: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series, pair = exam
    np.save(tmp_path / "small.npy", pair.gated.vessel_map[1:])
    (tmp_path / "text.npy").write_text("no array", encoding="utf-8")
    (tmp_path / "text.dcm").write_text("no DICOM", encoding="utf-8")
    wrong = dict.fromkeys(CODES, "80891009")
    write_seg(series, pair.gated.vessel_map, tmp_path / "heart.dcm", wrong)
    for name in ("small.npy", "text.npy", "text.dcm", "heart.dcm"):
        problem = run(capsys, str(series), "--mask", str(tmp_path / name), expect=2)
        assert problem["code"] == "usage.bad_mask", name
    np.save(tmp_path / "map.npy", pair.gated.vessel_map)
    problem = run(
        capsys, str(series), "--mask", str(tmp_path / "map.npy"), "--profile", "x", expect=2
    )
    assert problem["code"] == "usage.unknown_profile"
