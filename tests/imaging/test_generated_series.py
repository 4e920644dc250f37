"""Generated series with exactly one fault each, and orientations that real data lacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from fedcac.errors import DicomError
from fedcac.imaging import load_volume, read_series, reason_of
from fedcac.protocol import ImageCriteria

N, ROWS, COLUMNS = 16, 6, 5
CRITERIA = ImageCriteria()


def make_slice(number: int) -> Dataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{number + 1}"
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"1.2.3.{number + 1}"
    dataset.SeriesInstanceUID = "1.2.4"
    dataset.StudyInstanceUID = "1.2.5"
    dataset.FrameOfReferenceUID = "1.2.6"
    dataset.Modality = "CT"
    dataset.PatientID = "SECRET-ID"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImagePositionPatient = [-10.0, -20.0, 2.5 * number]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [0.5, 0.7]
    dataset.SliceThickness = 3
    dataset.KVP = 120
    dataset.ConvolutionKernel = "I30f"
    dataset.ContrastBolusAgent = ""
    dataset.RescaleIntercept, dataset.RescaleSlope = -1024, 1
    dataset.Rows, dataset.Columns = ROWS, COLUMNS
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation, dataset.SamplesPerPixel = 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = stored(number).tobytes()
    return dataset


def stored(number: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    return np.random.default_rng(number).integers(0, 4096, (ROWS, COLUMNS), dtype=np.uint16)


def write(folder: Path, slices: list[Dataset]) -> Path:
    for number, dataset in enumerate(slices):
        dataset.save_as(folder / f"{number:02d}.dcm", enforce_file_format=True)
    return folder


def series(
    change: Callable[[Dataset, int], object] = lambda dataset, number: None,
) -> list[Dataset]:
    slices = [make_slice(number) for number in range(N)]
    for number, dataset in enumerate(slices):
        change(dataset, number)
    return slices


def put(**values: object) -> Callable[[Dataset, int], object]:
    return lambda dataset, number: [setattr(dataset, key, value) for key, value in values.items()]


def drop(keyword: str) -> Callable[[Dataset, int], object]:
    return lambda dataset, number: delattr(dataset, keyword)


def at(index: int, change: Callable[[Dataset, int], object]) -> Callable[[Dataset, int], object]:
    return lambda dataset, number: change(dataset, number) if number == index else None


def move(x: float, y: float, z: float) -> Callable[[Dataset, int], object]:
    return put(ImagePositionPatient=[x, y, z])


def sheared(dataset: Dataset, number: int) -> None:
    dataset.ImagePositionPatient = [-10.0, -20.0 + 0.5 * number, 2.5 * number]


COSINE, SINE = float(np.cos(np.radians(10))), float(np.sin(np.radians(10)))
FAULTS: dict[str, tuple[str, Callable[[Dataset, int], object]]] = {
    "localizer": ("localizer", put(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])),
    "derived": ("derived_image", put(ImageType=["DERIVED", "SECONDARY", "AXIAL"])),
    "mpr": ("derived_image", put(ImageType=["ORIGINAL", "PRIMARY", "AXIAL", "CSA MPR"])),
    "one derived": ("derived_image", at(3, put(ImageType=["DERIVED", "PRIMARY", "AXIAL"]))),
    "mr": ("wrong_modality", put(Modality="MR")),
    "capture": ("wrong_modality", put(SOPClassUID=SecondaryCaptureImageStorage)),
    "contrast": ("contrast_enhanced", put(ContrastBolusAgent="Omnipaque")),
    "bone kernel": ("sharp_kernel", put(ConvolutionKernel="BONE")),
    "sharp siemens": ("sharp_kernel", put(ConvolutionKernel=["I70f", "3"])),
    "sagittal": ("not_axial", put(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])),
    "rotated": ("not_axial", put(ImageOrientationPatient=[COSINE, SINE, 0, -SINE, COSINE, 0])),
    "tilt": ("gantry_tilt", put(ImageOrientationPatient=[1, 0, 0, 0, COSINE, -SINE])),
    "shear": ("gantry_tilt", sheared),
    "thick": ("slice_too_thick", put(SliceThickness=8)),
    "no position": ("missing_geometry", at(2, drop("ImagePositionPatient"))),
    "no spacing": ("missing_geometry", at(2, drop("PixelSpacing"))),
    "zero spacing": ("missing_geometry", put(PixelSpacing=[0, 0.5])),
    "other spacing": ("inconsistent_geometry", at(2, put(PixelSpacing=[0.6, 0.7]))),
    "other frame": ("inconsistent_geometry", at(2, put(FrameOfReferenceUID="1.2.7"))),
    "other orientation": (
        "inconsistent_geometry",
        at(2, put(ImageOrientationPatient=[-1, 0, 0, 0, -1, 0])),
    ),
    "not orthonormal": ("inconsistent_geometry", put(ImageOrientationPatient=[1, 0, 0, 0, 2, 0])),
    "irregular": ("irregular_spacing", at(4, move(-10, -20, 10.4))),
    "gap": ("missing_slice", at(15, move(-10, -20, 40.0))),
    "same place": ("duplicate_position", at(4, move(-10, -20, 7.5))),
    "other series": ("mixed_series", at(4, put(SeriesInstanceUID="1.2.9"))),
    "activity": ("not_hounsfield", put(RescaleType="US")),
    "no rescale": ("not_hounsfield", at(1, drop("RescaleSlope"))),
    "no pixels": ("corrupt_pixels", at(1, drop("PixelData"))),
    "short pixels": ("truncated_dicom", at(1, put(PixelData=b"\0" * 20))),
}


@pytest.mark.parametrize(("code", "change"), FAULTS.values(), ids=FAULTS.keys())
def test_one_fault_has_one_code(
    tmp_path: Path, code: str, change: Callable[[Dataset, int], object]
) -> None:
    with pytest.raises(DicomError) as caught:
        load_volume(write(tmp_path, series(change)), CRITERIA)
    assert reason_of(caught.value).value == code
    assert caught.value.cure
    for secret in ("SECRET-ID", "1.2.4", str(tmp_path)):
        assert secret not in str(caught.value)


def expected_hu() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.stack([stored(n).astype(np.float32) - 1024 for n in reversed(range(N))])


def test_a_sound_series_is_its_pixels_from_the_top(tmp_path: Path) -> None:
    volume = load_volume(write(tmp_path, series()), CRITERIA)
    assert np.array_equal(volume.hu, expected_hu())
    assert volume.spacing_mm == (2.5, 0.5, 0.7)
    assert volume.origin_lps_mm == (-10.0, -20.0, 37.5)
    assert volume.slice_thickness_mm == 3.0


@pytest.mark.parametrize(
    "change",
    [
        drop("ImageType"),
        drop("ConvolutionKernel"),
        drop("ContrastBolusAgent"),
        drop("FrameOfReferenceUID"),
        put(RescaleType="HU"),
        put(PhotometricInterpretation="MONOCHROME1"),
        put(ConvolutionKernel=["I30f", "3"]),
    ],
)
def test_optional_attributes_may_be_absent_or_odd(
    tmp_path: Path, change: Callable[[Dataset, int], object]
) -> None:
    assert np.array_equal(load_volume(write(tmp_path, series(change)), CRITERIA).hu, expected_hu())


def test_absent_thickness_falls_back_to_the_increment(tmp_path: Path) -> None:
    volume = load_volume(write(tmp_path, series(drop("SliceThickness"))), CRITERIA)
    assert volume.slice_thickness_mm == 2.5


def test_each_slice_has_its_own_slope_and_intercept(tmp_path: Path) -> None:
    def rescale(dataset: Dataset, number: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = 1 + number / 4, -1000 + number

    volume = load_volume(write(tmp_path, series(rescale)), CRITERIA)
    expected = [stored(n) * np.float32(1 + n / 4) - 1000 + n for n in reversed(range(N))]
    assert np.allclose(volume.hu, np.maximum(np.stack(expected), -1024), atol=1e-3)


def test_prone_images_are_turned(tmp_path: Path) -> None:
    def turn(dataset: Dataset, number: int) -> None:
        dataset.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]
        dataset.ImagePositionPatient = [10.0, 20.0, 2.5 * number]

    volume = load_volume(write(tmp_path, series(turn)), CRITERIA)
    assert np.array_equal(volume.hu, expected_hu()[:, ::-1, ::-1])
    assert volume.origin_lps_mm == pytest.approx(
        (10 - (COLUMNS - 1) * 0.7, 20 - (ROWS - 1) * 0.5, 37.5)
    )


def test_exact_duplicates_are_dropped(tmp_path: Path) -> None:
    slices = series()
    copy = make_slice(4)
    copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = "1.2.3.99"
    folder = write(tmp_path, [*slices, copy])
    assert read_series(folder, CRITERIA).n_duplicates == 1
    assert np.array_equal(load_volume(folder, CRITERIA).hu, expected_hu())


def test_too_few_slices_counts_positions(tmp_path: Path) -> None:
    slices = series()[:8]
    folder = write(tmp_path, [*slices, *series()[:8]])
    with pytest.raises(DicomError, match="too_few_slices"):
        read_series(folder, CRITERIA)


def test_criteria_allow_contrast_and_sharp_kernels(tmp_path: Path) -> None:
    change = put(ContrastBolusAgent="Omnipaque", ConvolutionKernel="BONE")
    criteria = ImageCriteria(allow_contrast=True, allow_sharp_kernel=True)
    volume = load_volume(write(tmp_path, series(change)), criteria)
    assert np.array_equal(volume.hu, expected_hu())


def test_an_unreadable_file_is_never_dropped_silently(tmp_path: Path) -> None:
    write(tmp_path, series())
    (tmp_path / "zz.dcm").write_bytes(b"")
    with pytest.raises(DicomError, match="unreadable_dicom"):
        load_volume(tmp_path, CRITERIA)


def test_empty_folder_has_no_dicom(tmp_path: Path) -> None:
    with pytest.raises(DicomError, match="no_dicom"):
        load_volume(tmp_path, CRITERIA)
