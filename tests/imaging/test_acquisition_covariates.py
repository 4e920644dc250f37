"""What headers tell as covariates: one name per vendor, declared levels, missing where unsaid."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imaging.generated import make_series, write_series

from fedcac.errors import DicomError
from fedcac.imaging import load_volume
from fedcac.imaging.acquisition_covariates import (
    AcquisitionFacts,
    covariate_value,
    normalised_vendor,
    read_acquisition,
)
from fedcac.phantom import chest_ct_folder, generate_pair
from fedcac.phantom.dicom import ExamLabel
from fedcac.phantom.dicom import write_series as write_phantom
from fedcac.protocol import Covariate, ImageCriteria
from fedcac.protocol.header_covariates import HEADER_COVARIATES, OTHER, VENDORS

CRITERIA = ImageCriteria(min_slices=1)
FACTS = AcquisitionFacts("GE", 2.5, "soft", 120.0, contrast_enhanced=False, ecg_gated=True)


@pytest.mark.parametrize(
    ("written", "vendor"),
    [
        ("GE MEDICAL SYSTEMS", "GE"),
        ("GE Healthcare", "GE"),
        ("SIEMENS", "Siemens"),
        ("Siemens Healthineers", "Siemens"),
        ("Philips Medical Systems", "Philips"),
        ("Marconi Medical Systems, Inc.", "Philips"),
        ("TOSHIBA", "Canon"),
        ("CANON_MEC", "Canon"),
        ("Hitachi Medical Corporation", "Fujifilm"),
        ("FUJIFILM Corporation", "Fujifilm"),
        ("UIH", "United Imaging"),
        ("Neusoft Medical Systems", "Neusoft"),
        ("Agfa-Gevaert", "Agfa"),
        ("Carestream Health", "Carestream"),
        ("KONICA MINOLTA", "Konica Minolta"),
        ("Imatron", OTHER),
        ("Generic Imaging", OTHER),
        ("  ", None),
        ("", None),
    ],
)
def test_one_name_per_vendor(written: str, vendor: str | None) -> None:
    assert normalised_vendor(written) == vendor
    assert vendor in (*VENDORS, OTHER, None)


def categorical(name: str, *levels: str) -> Covariate:
    return Covariate(name=name, type="categorical", description="said by the header", levels=levels)


def test_values_are_coded_as_declared() -> None:
    vendor = categorical("scanner_manufacturer", "siemens", "ge", "other")
    assert covariate_value(vendor, FACTS) == 1.0
    kernel = categorical("kernel_class", "sharp", "soft")
    assert covariate_value(kernel, FACTS) == 1.0
    philips = categorical("scanner_manufacturer", "Philips", "other")
    assert covariate_value(philips, FACTS) == 1.0
    without_other = categorical("scanner_manufacturer", "Philips", "Siemens")
    assert math.isnan(covariate_value(without_other, FACTS))
    gated = Covariate(name="ecg_gated", type="binary", description="said by the header")
    assert covariate_value(gated, FACTS) == 1.0
    thickness = Covariate(
        name="slice_thickness_mm",
        type="continuous",
        description="said by the header",
        minimum=1,
        maximum=2,
    )
    assert math.isnan(covariate_value(thickness, FACTS))
    silent = AcquisitionFacts(None, None, None, None, contrast_enhanced=False, ecg_gated=None)
    for name, known in HEADER_COVARIATES.items():
        covariate = (
            categorical(name, *known.levels)
            if known.levels
            else Covariate(name=name, type=known.type, description="said by the header")
        )
        assert math.isnan(covariate_value(covariate, silent)) != (name == "contrast_enhanced")


def series(folder: Path, **values: Any) -> Path:
    slices = make_series(np.random.default_rng(1))
    for dataset in slices:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
    return write_series(folder, slices)


def test_a_series_tells_its_acquisition(tmp_path: Path) -> None:
    path = series(
        tmp_path,
        Manufacturer="SIEMENS",
        ConvolutionKernel=["Bl57f", "3"],
        KVP=100,
        SliceThickness=1.5,
        ContrastBolusAgent="Omnipaque",
        TriggerTime=600,
    )
    assert read_acquisition(path, CRITERIA) == AcquisitionFacts(
        "Siemens", 1.5, "sharp", 100.0, contrast_enhanced=True, ecg_gated=True
    )


def test_what_is_absent_or_differs_along_the_series_is_missing(tmp_path: Path) -> None:
    slices = make_series(np.random.default_rng(1))
    for number, dataset in enumerate(slices):
        del dataset.SliceThickness
        dataset.ConvolutionKernel = "B30f" if number else "B70f"
        dataset.KVP = 100 if number else 120
        dataset.ContrastBolusAgent = ""
    facts = read_acquisition(write_series(tmp_path, slices), CRITERIA)
    assert facts == AcquisitionFacts(
        None, None, None, None, contrast_enhanced=False, ecg_gated=None
    )


def test_the_real_chest_ct() -> None:
    facts = read_acquisition(chest_ct_folder(), CRITERIA)
    assert facts.scanner_manufacturer == "Philips"
    assert (facts.slice_thickness_mm, facts.kernel_class) == (5.0, "soft")
    assert facts.tube_voltage_kv == 120.0
    assert facts.ecg_gated is False
    assert facts.contrast_enhanced is False


def test_of_a_study_the_chosen_series_is_read(tmp_path: Path) -> None:
    both = [make_series(np.random.default_rng(1)), make_series(np.random.default_rng(2))]
    for slices, thickness in zip(both, (3.0, 5.0), strict=True):
        for dataset in slices:
            dataset.StudyInstanceUID = both[0][0].StudyInstanceUID
            dataset.SliceThickness = thickness
        write_series(tmp_path / f"{thickness}", slices)
    for preferred in (3.0, 5.0):
        criteria = ImageCriteria(choose_series=True, preferred_thickness_mm=preferred)
        assert read_acquisition(tmp_path, criteria).slice_thickness_mm == preferred
    named = tmp_path / str(both[1][0].SeriesInstanceUID)
    assert read_acquisition(named, CRITERIA).slice_thickness_mm == 5.0


def test_a_radiograph_tells_maker_and_voltage_alone(tmp_path: Path) -> None:
    slices = make_series(np.random.default_rng(1))[:1]
    dataset = slices[0]
    dataset.Modality, dataset.Manufacturer, dataset.KVP = "DX", "Agfa", 125
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, keyword)
    facts = read_acquisition(write_series(tmp_path, slices), CRITERIA)
    assert (facts.scanner_manufacturer, facts.tube_voltage_kv) == ("Agfa", 125.0)
    assert (facts.slice_thickness_mm, facts.kernel_class, facts.ecg_gated) == (None, None, None)


def test_unreadable_headers_have_a_code(tmp_path: Path) -> None:
    with pytest.raises(DicomError, match="no_such_path"):
        read_acquisition(tmp_path / "absent", CRITERIA)
    (tmp_path / "text").write_text("no DICOM", encoding="utf-8")
    with pytest.raises(DicomError, match="no_dicom"):
        read_acquisition(tmp_path, CRITERIA)


@pytest.mark.parametrize("is_gated", [True, False])
def test_generated_exams_tell_how_they_were_acquired(tmp_path: Path, is_gated: bool) -> None:

    rng = np.random.default_rng(4)
    pair = generate_pair(rng, 300.0)
    exam = pair.gated if is_gated else pair.non_gated
    write_phantom(tmp_path / "e", exam, ExamLabel("P", date(2020, 1, 1), is_gated), rng)
    assert read_acquisition(tmp_path / "e", CRITERIA).ecg_gated is is_gated
    wanted, other = ("gated", "non_gated") if is_gated else ("non_gated", "gated")
    load_volume(tmp_path / "e", ImageCriteria(acquisition=wanted))
    with pytest.raises(DicomError, match="wrong_acquisition"):
        load_volume(tmp_path / "e", ImageCriteria(acquisition=other))
