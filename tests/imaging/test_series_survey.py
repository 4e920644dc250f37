"""`fedcac-site cohort series`: every candidate of a study with its evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imaging.generated import make_series, write_series

from site_agent.__main__ import main


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A study of four series: routine chest, gated, a scout and one for attenuation correction."""
    kinds: dict[str, dict[str, Any]] = {
        "chest": {
            "SeriesDescription": "Chest routine",
            "ScanOptions": "HELIX",
            "SliceThickness": 5,
        },
        "gated": {"SeriesDescription": "CaSc 3.0", "TriggerTime": 640},
        "ctac": {"SeriesDescription": "CTAC", "XRayTubeCurrent": 20},
        "scout": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    }
    uids, study_uid = {}, "2.25.77"
    for number, (kind, values) in enumerate(kinds.items()):
        slices = make_series(np.random.default_rng(number))
        for dataset in slices:
            dataset.StudyInstanceUID = study_uid
            for keyword, value in values.items():
                setattr(dataset, keyword, value)
        uids[kind] = str(slices[0].SeriesInstanceUID)
        write_series(tmp_path / "study" / kind, slices)
    return tmp_path / "study", uids


def survey(
    protocol: str, path: Path, capsys: pytest.CaptureFixture[str], expect: int = 0
) -> dict[str, Any]:
    code = main(["cohort", "series", protocol, str(path), "--format", "json"])
    assert code == expect
    data: dict[str, Any] = json.loads(capsys.readouterr().out)["data"]
    return data


@pytest.mark.parametrize(
    ("protocol", "kind", "rejected"),
    [
        ("eng2021-gated", "gated", {"chest", "ctac"}),
        ("eng2021-nongated", "chest", {"gated", "ctac"}),
        ("miller2023-ctac", "ctac", {"gated"}),
    ],
)
def test_each_protocol_reads_its_kind_and_says_why(
    study: tuple[Path, dict[str, str]],
    protocol: str,
    kind: str,
    rejected: set[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, uids = study
    found = survey(protocol, path, capsys)
    assert found["chosen"] == uids[kind]
    series = {one["series_uid"]: one for one in found["series"]}
    wrong = {k for k, uid in uids.items() if series[uid]["rejection"] == "wrong_acquisition"}
    assert wrong == rejected
    assert series[uids["scout"]]["rejection"] == "localizer"
    assert series[uids["gated"]]["acquisition"] == "gated"
    assert series[uids["ctac"]]["acquisition"] == "attenuation_correction"
    reasons = {item["attribute"]: item["points"] for item in series[uids["gated"]]["evidence"]}
    assert reasons["TriggerTime"] == 5
    assert reasons["SeriesDescription"] == 3
    assert main(["cohort", "series", protocol, str(path)]) == 0
    text = capsys.readouterr().out
    assert f"{uids[kind]}: chosen" in text
    assert "TriggerTime +5" in text


def test_a_study_without_an_eligible_series_lists_them_and_fails(
    study: tuple[Path, dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    path, uids = study
    for kind in ("gated", "scout", "ctac"):
        for file in (path / kind).iterdir():
            file.unlink()
    assert main(["cohort", "series", "eng2021-nongated", str(path)]) == 0
    capsys.readouterr()
    for number, file in enumerate((path / "chest").iterdir()):
        if number > 3:
            file.unlink()
    problem = survey("eng2021-nongated", path, capsys, expect=6)
    assert problem["code"] in ("dicom.too_few_slices", "dicom.missing_slice")
    assert uids["chest"] in problem["message"]
