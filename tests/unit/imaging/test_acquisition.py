"""Gated, non-gated, attenuation correction: the verdict, its reasons and what contradicts it."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.dataset import Dataset

from fedcac.errors import DicomError
from fedcac.imaging.acquisition import Acquisition, check_acquisition, judge
from fedcac.imaging.frames import Frame, frames_of

BASE = {
    "ImagePositionPatient": [0, 0, 0],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": [0.7, 0.7],
    "Rows": 512,
    "Columns": 512,
}
GATED, NON_GATED, CTAC = (
    Acquisition.GATED,
    Acquisition.NON_GATED,
    Acquisition.ATTENUATION_CORRECTION,
)


def header(**values: Any) -> tuple[Dataset, Frame]:
    dataset = Dataset()
    for keyword, value in {**BASE, **values}.items():
        setattr(dataset, keyword, value)
    return dataset, frames_of(dataset)[0]


CASES: dict[str, tuple[Acquisition | None, dict[str, Any]]] = {
    # GE as in real headers: no cardiac attribute at all.
    "ge smartscore": (
        GATED,
        {
            "SeriesDescription": "SmartScore - Gated 0.5 sec",
            "ScanOptions": "CINE MODE",
            "ReconstructionDiameter": 250,
            "SliceThickness": 2.5,
        },
    ),
    "siemens sequence": (
        GATED,
        {
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SEQ"],
            "ConvolutionKernel": ["I30f", "3"],
            "ReconstructionDiameter": 199,
            "SliceThickness": 3,
        },
    ),
    "siemens spiral chest": (
        NON_GATED,
        {
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"],
            "ConvolutionKernel": ["I30f", "3"],
            "ReconstructionDiameter": 360,
            "SliceThickness": 3,
            "BodyPartExamined": "CHEST",
        },
    ),
    "enhanced technique": (GATED, {"CardiacSynchronizationTechnique": "PROSPECTIVE"}),
    "technique none": (NON_GATED, {"CardiacSynchronizationTechnique": "NONE"}),
    "trigger time": (GATED, {"TriggerTime": 640, "HeartRate": 61}),
    "r-r interval": (GATED, {"CardiacRRIntervalSpecified": 980}),
    "unmeasured beat": (None, {"HeartRate": 0, "TriggerTime": 0, "PixelSpacing": [0.55, 0.55]}),
    "declared non-gated": (
        NON_GATED,
        {"SeriesDescription": "Chest non gated", "ReconstructionDiameter": 360},
    ),
    "german": (
        GATED,
        {"SeriesDescription": "Kalkscore EKG-getriggert 3mm", "ReconstructionDiameter": 180},
    ),
    "nothing said": (None, {"PixelSpacing": [0.55, 0.55]}),
    "ctac by its name": (CTAC, {"SeriesDescription": "CTAC 5.0", "ReconstructionDiameter": 500}),
    "ctac by its scanner": (
        CTAC,
        {"ManufacturerModelName": "Symbia T6", "XRayTubeCurrent": 20, "SliceThickness": 5},
    ),
    # Miller 2023, supplement: helical, not gated, 5 mm, 120 kVp, 20 mA.
    "ge spect/ct": (
        CTAC,
        {
            "ManufacturerModelName": "Discovery NM/CT 670",
            "SeriesDescription": "Low Dose CT Heart",
            "ProtocolName": "Myocardial perfusion gated SPECT",
            "BodyPartExamined": "HEART",
            "ScanOptions": "HELICAL MODE",
            "XRayTubeCurrent": 20,
            "SliceThickness": 5,
        },
    ),
    "siemens spect/ct by its kernel": (
        CTAC,
        {
            "ManufacturerModelName": "Symbia Intevo 16",
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"],
            "ConvolutionKernel": "B08s",
            "SliceThickness": 5,
        },
    ),
    "philips spect/ct": (
        CTAC,
        {"ManufacturerModelName": "BrightView XCT", "SeriesDescription": "ATTN CORR CT"},
    ),
    "siemens pet/ct": (
        CTAC,
        {
            "ManufacturerModelName": "Biograph64_Vision 600",
            "SeriesDescription": "AC CT Herz 3.0 HD FoV",
            "ConvolutionKernel": "B19f PET",
            "ReconstructionDiameter": 780,
            "XRayTubeCurrent": 210,
        },
    ),
    "calcium scan of a hybrid scanner": (
        GATED,
        {
            "ManufacturerModelName": "Biograph 64",
            "SeriesDescription": "CaScSeq 3.0",
            "ConvolutionKernel": "B35f",
            "ReconstructionDiameter": 200,
            "SliceThickness": 3,
            "Exposure": 28,
        },
    ),
    "diagnostic ct in the study of a pet": (
        NON_GATED,
        {
            "ManufacturerModelName": "Discovery 690",
            "ModalitiesInStudy": ["CT", "PT"],
            "XRayTubeCurrent": 240,
            "ReconstructionDiameter": 380,
            "BodyPartExamined": "CHEST",
        },
    ),
    "diagnostic ct of a hybrid scanner": (
        NON_GATED,
        {
            "ManufacturerModelName": "Biograph 64",
            "XRayTubeCurrent": 210,
            "Exposure": 90,
            "ReconstructionDiameter": 380,
            "BodyPartExamined": "CHEST",
        },
    ),
}


@pytest.mark.parametrize(("kind", "values"), CASES.values(), ids=CASES.keys())
def test_verdict(kind: Acquisition | None, values: dict[str, Any]) -> None:
    verdict = judge(*header(**values))
    assert verdict.acquisition is kind
    assert all(evidence.points for evidence in verdict.evidence)


def test_every_reason_is_kept_with_its_points() -> None:
    verdict = judge(*header(**CASES["ge smartscore"][1]))
    found = {item.attribute: item.points for item in verdict.evidence if item.kind is GATED}
    assert found == {
        "ScanOptions": 2,
        "ReconstructionDiameter": 1,
        "SliceThickness": 1,
        "SeriesDescription": 3,
    }
    assert verdict.points(GATED) == 7


@pytest.mark.parametrize(
    ("wanted", "case", "is_refused"),
    [
        ("any", "ge smartscore", False),
        ("gated", "ge smartscore", False),
        ("gated", "nothing said", False),
        ("gated", "siemens spiral chest", True),
        ("gated", "ctac by its name", True),
        ("non_gated", "ge smartscore", True),
        ("non_gated", "siemens spiral chest", False),
        ("non_gated", "ctac by its scanner", True),
        ("attenuation_correction", "ctac by its name", False),
        ("attenuation_correction", "ge spect/ct", False),
        ("attenuation_correction", "calcium scan of a hybrid scanner", True),
        ("non_gated", "diagnostic ct in the study of a pet", False),
        ("attenuation_correction", "siemens spiral chest", False),
        ("attenuation_correction", "trigger time", True),
    ],
)
def test_only_a_clear_contradiction_excludes(wanted: str, case: str, is_refused: bool) -> None:
    dataset, frame = header(**CASES[case][1])
    if is_refused:
        with pytest.raises(DicomError, match="wrong_acquisition"):
            check_acquisition(dataset, frame, wanted)
    else:
        check_acquisition(dataset, frame, wanted)
