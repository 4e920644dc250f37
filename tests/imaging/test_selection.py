"""Which series of a study is read: real reconstructions side by side, and generated studies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from imaging.generated import make_series, uid, write_series
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from fedcac.errors import DicomError
from fedcac.imaging import (
    Acquisition,
    load_volume,
    pair_manifest,
    read_header,
    read_series,
    reason_of,
    select_series,
)
from fedcac.protocol import ImageCriteria
from fedcac.vocabulary import ExclusionReason

CHOOSE = ImageCriteria(choose_series=True)
STUDY = "2.25.1234567"


def choose(**values: Any) -> ImageCriteria:
    return ImageCriteria(choose_series=True, **values)


def add(folder: Path, name: str, **values: Any) -> str:
    """Write a series of the study with the given attributes into the one folder; return its UID."""
    rng = np.random.default_rng(sum(name.encode()))
    slices = make_series(rng, "P")
    for dataset in slices:
        dataset.StudyInstanceUID = STUDY
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
    write_series(folder / name, slices)
    # All files of the study in one folder, as many archives export them.
    for path in (folder / name).iterdir():
        path.rename(folder / f"{name}-{path.name}")
    (folder / name).rmdir()
    return str(slices[0].SeriesInstanceUID)


def add_object(folder: Path, name: str, sop_class: str, **values: Any) -> None:
    dataset = make_series(np.random.default_rng(1), "P")[0]
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, f"2.25.77.{sum(name.encode())}"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    if sop_class == ComprehensiveSRStorage:
        del dataset.PixelData, dataset.Rows, dataset.Columns
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(folder / f"{name}.dcm", enforce_file_format=True)


def test_the_soft_kernel_of_a_real_acquisition_is_chosen(real_data: Path, tmp_path: Path) -> None:
    for kernel in ("soft", "lung"):
        shutil.copytree(real_data / f"chest_ct/philips_64x5mm_{kernel}", tmp_path / kernel)
    soft = load_volume(real_data / "chest_ct/philips_64x5mm_soft", ImageCriteria())
    for criteria in (CHOOSE, choose(allow_sharp_kernel=True)):
        assert np.array_equal(load_volume(tmp_path, criteria).hu, soft.hu)
    selection = select_series(tmp_path, choose(allow_sharp_kernel=True))
    assert {one.kernel for one in selection.candidates} == {"B", "L"}
    assert all(
        one.verdict is not None and one.verdict.acquisition is Acquisition.NON_GATED
        for one in selection.candidates
    )
    preferred = choose(allow_sharp_kernel=True, preferred_kernels=("L",))
    assert select_series(tmp_path, preferred).chosen.kernel == "B"
    with pytest.raises(DicomError, match="wrong_acquisition"):
        load_volume(tmp_path, choose(acquisition="gated"))


def test_without_leave_to_choose_a_study_is_refused(tmp_path: Path) -> None:
    add(tmp_path, "soft")
    add(tmp_path, "lung", ConvolutionKernel="L")
    with pytest.raises(DicomError, match="mixed_series"):
        load_volume(tmp_path, ImageCriteria())


def test_what_a_hospital_study_holds_is_told_apart(tmp_path: Path) -> None:
    chosen = add(tmp_path, "chest", SeriesDescription="Thorax nativ 3.0 B30f")
    add(tmp_path, "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    add(tmp_path, "topogram", SeriesDescription="Topogram  0.6  T20f")
    add(tmp_path, "mip", SeriesDescription="MIP 10mm")
    add(tmp_path, "derived", ImageType=["DERIVED", "SECONDARY", "AXIAL"])
    add(tmp_path, "late", SeriesDescription="Thorax mit KM 3.0")
    add(tmp_path, "bolus", ContrastBolusAgent="Ultravist 300")
    add(tmp_path, "lung", ConvolutionKernel="B70f")
    add(tmp_path, "thick", SliceThickness=8)
    add_object(tmp_path, "dose", ComprehensiveSRStorage, Modality="SR")
    add_object(tmp_path, "page", SecondaryCaptureImageStorage, SeriesDescription="Dose Report")
    (tmp_path / "README").write_text("Exported by the archive.")
    selection = select_series(tmp_path, CHOOSE)
    assert selection.chosen.series_uid == chosen
    assert selection.n_ignored == 1
    reasons = sorted(str(one.rejection) for one in selection.candidates if one.rejection)
    assert reasons == [
        "contrast_enhanced",
        "contrast_enhanced",
        "derived_image",
        "derived_image",
        "localizer",
        "localizer",
        "sharp_kernel",
        "slice_too_thick",
        "wrong_modality",
        "wrong_modality",
    ]
    assert "SECRET" not in repr(selection)
    assert chosen not in repr(selection)


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        (choose(acquisition="gated"), "gated"),
        (choose(acquisition="non_gated"), "chest"),
        (choose(acquisition="attenuation_correction"), "ctac"),
    ],
    ids=["gated", "non-gated", "attenuation correction"],
)
def test_the_acquisition_that_the_protocol_asks_for(
    tmp_path: Path, criteria: ImageCriteria, expected: str
) -> None:
    uids = {
        "gated": add(
            tmp_path,
            "gated",
            SeriesDescription="CaScSeq 3.0 B35f 70%",
            ReconstructionDiameter=180,
        ),
        "chest": add(
            tmp_path,
            "chest",
            SeriesDescription="Chest 3.0",
            ReconstructionDiameter=360,
            ScanOptions="HELICAL MODE",
        ),
        "ctac": add(
            tmp_path,
            "ctac",
            SeriesDescription="CTAC",
            ReconstructionDiameter=500,
            XRayTubeCurrent=20,
            SliceThickness=5,
        ),
    }
    assert select_series(tmp_path, criteria).chosen.series_uid == uids[expected]


def test_kernel_then_thickness_are_preferred_as_the_protocol_says(tmp_path: Path) -> None:
    uids = {
        (kernel, thickness): add(
            tmp_path, f"{kernel}{thickness}", ConvolutionKernel=kernel, SliceThickness=thickness
        )
        for kernel in ("B30f", "Qr36", "B70f")
        for thickness in (1.5, 3.0, 5.0)
    }
    for criteria, expected in (
        (choose(allow_sharp_kernel=True, preferred_kernels=("qr36",)), ("Qr36", 3.0)),
        (choose(preferred_kernels=("B30f",), preferred_thickness_mm=5.0), ("B30f", 5.0)),
        (choose(preferred_kernels=("B70f", "Qr36"), preferred_thickness_mm=1.0), ("Qr36", 1.5)),
    ):
        assert select_series(tmp_path, criteria).chosen.series_uid == uids[expected]


def test_a_path_that_ends_in_a_series_uid_overrides_the_choice(tmp_path: Path) -> None:
    add(tmp_path, "thin", SliceThickness=3)
    other = add(tmp_path, "thick", SliceThickness=5, SeriesDescription="Thorax mit KM")
    for criteria in (ImageCriteria(), CHOOSE):
        named = read_series(tmp_path / other, criteria)
        assert {str(one.SeriesInstanceUID) for one in named.datasets} == {other}
        assert len(named.frames) == 16
    assert read_header(tmp_path / other).series_uid == other
    for absent in (tmp_path / "1.2.840.99.1", tmp_path / f"{other}1"):
        with pytest.raises(DicomError, match="series_not_found"):
            load_volume(absent, CHOOSE)
        with pytest.raises(DicomError, match="series_not_found"):
            read_header(absent)
    with pytest.raises(DicomError, match="no_such_path"):
        load_volume(tmp_path / "1.2", CHOOSE)


def test_naming_a_series_overrides_nothing_but_the_choice(tmp_path: Path) -> None:
    add(tmp_path, "soft")
    lung = add(tmp_path, "lung", ConvolutionKernel="BONE")
    with pytest.raises(DicomError, match="sharp_kernel"):
        load_volume(tmp_path / lung, CHOOSE)


def test_a_manifest_names_a_study_or_a_series_in_it(tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    add(study, "soft", ConvolutionKernel="B")
    lung = add(study, "lung", ConvolutionKernel="BONE")
    manifest = tmp_path / "manifest.csv"

    def losses(path: str, *, is_study: bool) -> list[str]:
        manifest.write_text(f"path,role\n{path},index\n")
        outcome = pair_manifest(manifest, window_days=None, secret=bytes(16), is_study=is_study)
        assert len(outcome.pairs) + len(outcome.losses) == 1
        return [loss.reason.value for loss in outcome.losses]

    assert losses("study", is_study=False) == ["mixed_series"]
    assert losses("study", is_study=True) == []
    assert losses(f"study/{lung}", is_study=False) == []
    assert losses("study/1.2.840.99.5", is_study=False) == ["series_not_found"]


def test_if_nothing_is_eligible_the_nearest_reason_is_told(tmp_path: Path) -> None:
    add(tmp_path, "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    uid_of_gap = add(tmp_path, "gap")
    next(tmp_path.glob("gap-08*")).unlink()
    with pytest.raises(DicomError) as caught:
        select_series(tmp_path, choose(min_slices=10))
    assert reason_of(caught.value).value == "missing_slice"
    assert uid_of_gap not in str(caught.value)


def _damage_first(folder: Path) -> None:
    next(folder.glob("soft-*")).write_bytes(b"")


def _second_patient(folder: Path) -> None:
    path = next(folder.glob("soft-*"))
    dataset = pydicom.dcmread(path)
    dataset.PatientID = "Q"
    dataset.save_as(path)


def _second_study(folder: Path) -> None:
    path = next(folder.glob("soft-*"))
    dataset = pydicom.dcmread(path)
    dataset.StudyInstanceUID = uid(np.random.default_rng(9))
    dataset.save_as(path)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_damage_first, "unreadable_dicom"),
        (_second_patient, "mixed_series"),
        (_second_study, "mixed_series"),
    ],
)
def test_a_study_with_a_file_that_is_not_its_own_is_coded(
    tmp_path: Path, change: Callable[[Path], None], code: str
) -> None:
    add(tmp_path, "soft")
    add(tmp_path, "lung", ConvolutionKernel="L")
    change(tmp_path)
    with pytest.raises(DicomError) as caught:
        load_volume(tmp_path, CHOOSE)
    assert reason_of(caught.value).value == code


# Phases


def phases(
    folder: Path, *percents: float, keyword: str = "NominalPercentageOfCardiacPhase"
) -> None:
    base = make_series(np.random.default_rng(5), "P")
    for percent in percents:
        for number, dataset in enumerate(base):
            copy = Dataset()
            copy.update(dataset)
            copy.file_meta = dataset.file_meta
            setattr(copy, keyword, percent)
            copy.SOPInstanceUID = f"{dataset.SOPInstanceUID}.{int(percent)}"
            copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
            shift = int(percent) % 7
            copy.PixelData = np.roll(dataset.pixel_array, shift, axis=1).tobytes()
            copy.save_as(folder / f"{number:02d}-{percent:g}.dcm", enforce_file_format=True)


def test_the_preferred_phase_is_read_whole(tmp_path: Path) -> None:
    phases(tmp_path, 40, 65, 75)
    with pytest.raises(DicomError, match="several_phases"):
        load_volume(tmp_path, ImageCriteria())
    for preferred, expected in ((70.0, 65), (72.0, 75), (0.0, 40)):
        series = read_series(tmp_path, ImageCriteria(preferred_phase_percent=preferred))
        found = {float(one.NominalPercentageOfCardiacPhase) for one in series.datasets}
        assert found == {expected}
        assert (len(series.frames), series.n_other_phases) == (16, 32)


@pytest.mark.parametrize(
    "keyword", ["TriggerTime", "TemporalPositionIdentifier", "AcquisitionNumber"]
)
def test_what_has_no_percentage_has_no_rule(tmp_path: Path, keyword: str) -> None:
    phases(tmp_path, 1, 2, keyword=keyword)
    with pytest.raises(DicomError, match="several_phases"):
        load_volume(tmp_path, ImageCriteria(preferred_phase_percent=70))


def test_trigger_time_over_the_interval_is_a_percentage(tmp_path: Path) -> None:
    phases(tmp_path, 400, 700, keyword="TriggerTime")
    for path in tmp_path.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.NominalInterval = 1000
        dataset.save_as(path)
    series = read_series(tmp_path, ImageCriteria(preferred_phase_percent=75))
    assert {float(one.TriggerTime) for one in series.datasets} == {700}


def test_slices_of_a_partial_second_acquisition_are_left_aside(tmp_path: Path) -> None:
    """Bolus monitoring at one level: only the whole stack is a volume."""
    phases(tmp_path, 1, keyword="AcquisitionNumber")
    whole = load_volume(tmp_path, ImageCriteria())
    phases(tmp_path, 2, keyword="AcquisitionNumber")
    for path in tmp_path.glob("*-2.dcm"):
        if not path.name.startswith("07"):
            path.unlink()
    series = read_series(tmp_path, ImageCriteria())
    assert (len(series.frames), series.n_other_phases) == (16, 1)
    assert np.array_equal(load_volume(tmp_path, ImageCriteria()).hu, whole.hu)


def test_trigger_times_that_vary_from_slice_to_slice_are_one_phase(tmp_path: Path) -> None:
    slices = make_series(np.random.default_rng(2), "P")
    for number, dataset in enumerate(slices):
        dataset.TriggerTime = 600 + number
    write_series(tmp_path, slices)
    assert load_volume(tmp_path, ImageCriteria()).hu.shape[0] == 16


def test_names_of_files_change_neither_choice_nor_volume(tmp_path: Path) -> None:
    add(tmp_path, "soft", SliceThickness=5)
    add(tmp_path, "thin", SliceThickness=1.5)
    lung = add(tmp_path, "lung", ConvolutionKernel="L")
    expected = load_volume(tmp_path, CHOOSE)
    order = np.random.default_rng(2).permutation(48)
    for number, path in zip(order, sorted(tmp_path.iterdir()), strict=True):
        path.rename(tmp_path / f"IM{number:04d}")
    found = load_volume(tmp_path, CHOOSE)
    assert found.hu.tobytes() == expected.hu.tobytes()
    assert found.slice_thickness_mm == 1.5
    named = read_series(tmp_path / lung, ImageCriteria(allow_sharp_kernel=True))
    assert {one.ConvolutionKernel for one in named.datasets} == {"L"}


def test_a_reconstruction_with_a_gap_is_passed_over_for_a_whole_one(tmp_path: Path) -> None:
    add(tmp_path, "preferred", SliceThickness=3)
    whole = add(tmp_path, "whole", SliceThickness=5)
    next(tmp_path.glob("preferred-06*")).unlink()
    selection = select_series(tmp_path, choose(min_slices=10))
    assert selection.chosen.series_uid == whole
    assert {one.rejection for one in selection.candidates} == {
        None,
        ExclusionReason.MISSING_SLICE,
    }


def test_a_series_in_its_own_folder_must_not_be_clearly_another_acquisition(
    real_data: Path,
) -> None:
    soft = real_data / "chest_ct/philips_64x5mm_soft"
    for acquisition in ("any", "non_gated", "attenuation_correction"):
        assert load_volume(soft, ImageCriteria(acquisition=acquisition)).hu.shape[0] == 64
    with pytest.raises(DicomError, match="wrong_acquisition"):
        load_volume(soft, ImageCriteria(acquisition="gated"))
    gated = ImageCriteria(min_slices=1, acquisition="non_gated")
    with pytest.raises(DicomError, match="wrong_acquisition"):
        load_volume(real_data / "gated_headers/CT5N_2062", gated)
