"""`fedcac agatston`: the same score from a NumPy map and from a DICOM SEG."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
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
CORONARY = "41801008"


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    pair = generate_pair(np.random.default_rng(8), 600.0)
    folder = tmp_path_factory.mktemp("exam") / "series"
    rng = np.random.default_rng(1)
    write_series(folder, pair.gated, ExamLabel("P1", date(2020, 1, 1), True), rng)
    return folder, pair


def write_seg(
    series: Path,
    vessel_map: np.ndarray[Any, Any],
    path: Path,
    codes: Any,
    *,
    whole_code: str | None = None,
) -> Path:
    """Write a segment per vessel, and one of all calcium after them if it has a code."""
    sources = [pydicom.dcmread(file) for file in series.iterdir()]
    sources.sort(key=lambda d: -float(d.ImagePositionPatient[2]))
    present = [v for n, v in enumerate(Vessel, 1) if (vessel_map == n).any()]
    named = [(vessel.value, codes[vessel]) for vessel in present]
    layers = [vessel_map == list(Vessel).index(v) + 1 for v in present]
    if whole_code is not None:
        named.append(("all", whole_code))
        layers.append(vessel_map > 0)
    masks = np.stack(layers, axis=-1)
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=Code("49755003", "SCT", "Morphologic abnormality"),
            segmented_property_type=Code("36222008", "SCT", "Calcification"),
            anatomic_regions=[Code(code, "SCT", name)],
            algorithm_type="MANUAL",
        )
        for number, (name, code) in enumerate(named, 1)
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
def test_calcium_of_no_told_vessel_scores_in_total_and_the_output_says_so(
    exam: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series, pair = exam
    coronary = dict.fromkeys(CODES, CORONARY)
    seg = write_seg(series, pair.gated.vessel_map, tmp_path / "seg.dcm", coronary)
    one = {**CODES, Vessel.LAD: CORONARY}
    partly = write_seg(series, pair.gated.vessel_map, tmp_path / "partly.dcm", one)
    np.save(tmp_path / "map.npy", (pair.gated.vessel_map > 0).astype(np.uint8) * 5)
    told = np.copy(pair.gated.vessel_map)
    np.save(tmp_path / "told.npy", told)
    expected = run(capsys, str(series), "--mask", str(tmp_path / "told.npy"))
    assert expected["is_vessel_told"] is True
    for path in (seg, partly, tmp_path / "map.npy"):
        found = run(capsys, str(series), "--mask", str(path))
        assert found["agatston"] == pytest.approx(expected["agatston"], rel=1e-12)
        assert (found["is_vessel_told"], found["vessels"]) == (False, {})
        assert found["n_lesions"] == expected["n_lesions"]
    both = write_seg(
        series, pair.gated.vessel_map, tmp_path / "both.dcm", CODES, whole_code=CORONARY
    )
    assert run(capsys, str(series), "--mask", str(both)) == expected
    # What the codes do not tell, whoever gives the mask may state.
    heart = dict.fromkeys(CODES, "80891009")
    vague = write_seg(series, pair.gated.vessel_map, tmp_path / "heart.dcm", heart)
    present = [n for n in range(1, 5) if (pair.gated.vessel_map == n).any()]
    stated = " ".join(
        f"{number}={list(Vessel)[label - 1].value}" for number, label in enumerate(present, 1)
    )
    assert run(capsys, str(series), "--mask", str(vague), "--labels", stated) == expected
    first = run(capsys, str(series), "--mask", str(vague), "--labels", "1=lad", expect=6)
    assert first["code"] == "cohort.unknown_label"
    everything = run(capsys, str(series), "--mask", str(vague), "--labels", "calcium")
    assert everything["is_vessel_told"] is False
    assert everything["agatston"] == pytest.approx(expected["agatston"], rel=1e-12)
    assert main(["agatston", str(series), "--mask", str(seg)]) == 0
    assert "does not tell the vessel" in capsys.readouterr().out


def test_nifti_label_map_gives_the_same_score(
    exam: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series, pair = exam
    increment, row_mm, column_mm = pair.gated.spacing_mm
    rows, columns = pair.gated.hu.shape[1:]
    affine = np.diag([-column_mm, -row_mm, -increment, 1])
    affine[:2, 3] = (columns - 1) / 2 * column_mm, (rows - 1) / 2 * row_mm
    nib.save(
        nib.Nifti1Image(pair.gated.vessel_map.transpose(2, 1, 0), affine), tmp_path / "map.nii.gz"
    )
    np.save(tmp_path / "map.npy", pair.gated.vessel_map)
    arguments = (str(series), "--mask", str(tmp_path / "map.nii.gz"))
    expected = run(capsys, str(series), "--mask", str(tmp_path / "map.npy"))
    assert run(capsys, *arguments, "--labels", "1=lm 2=lad 3=lcx 4=rca") == expected
    untold = run(capsys, *arguments, "--labels", "calcium")
    assert untold["agatston"] == pytest.approx(expected["agatston"], rel=1e-12)
    assert untold["is_vessel_told"] is False
    assert run(capsys, *arguments, expect=6)["code"] == "cohort.unstated_labels"
    for wrong in (arguments, (str(series), "--mask", str(tmp_path / "map.npy"))):
        problem = run(capsys, *wrong, "--labels", "1=liver", expect=2)
        assert problem["code"] == "usage.bad_labels"


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
    np.save(tmp_path / "float.npy", pair.gated.vessel_map * 0.4)
    for name in ("small.npy", "text.npy", "float.npy", "text.dcm", "heart.dcm"):
        problem = run(capsys, str(series), "--mask", str(tmp_path / name), expect=2)
        assert problem["code"] == "usage.bad_mask", name
    np.save(tmp_path / "map.npy", pair.gated.vessel_map)
    problem = run(
        capsys, str(series), "--mask", str(tmp_path / "map.npy"), "--profile", "x", expect=2
    )
    assert problem["code"] == "usage.unknown_profile"
