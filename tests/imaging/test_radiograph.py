"""Radiographs as a reader sees them: windows, tables, inversion, aspect, orientation, rejects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
)

from fedcac.errors import DicomError
from fedcac.imaging import Radiograph, load_radiograph, reason_of
from fedcac.imaging.display import presented
from fedcac.protocol import ImageCriteria

CRITERIA = ImageCriteria(min_slices=1)
CHOOSE = ImageCriteria(min_slices=1, choose_series=True)
N_BITS = 12


def pixels(shape: tuple[int, int] = (9, 12), n_bits: int = N_BITS) -> NDArray[np.uint16]:
    return np.random.default_rng(3).integers(0, 2**n_bits, shape, dtype=np.uint16)


def radiograph(stored: NDArray[Any] | None = None, n_bits: int = N_BITS, **values: Any) -> Dataset:
    stored = pixels(n_bits=n_bits) if stored is None else stored
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = "2.25.1111111", "2.25.2222222"
    dataset.StudyInstanceUID, dataset.PatientID = "2.25.3333333", "SECRET-ID"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = 8 * stored.itemsize
    dataset.BitsStored, dataset.HighBit = n_bits, n_bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.ImagerPixelSpacing = [0.2, 0.2]
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    for keyword, value in values.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    return dataset


def save(folder: Path, *datasets: Dataset) -> Path:
    for number, dataset in enumerate(datasets):
        if "SOPInstanceUID" in dataset:
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def read(folder: Path, *datasets: Dataset, criteria: ImageCriteria = CRITERIA) -> Radiograph:
    return load_radiograph(save(folder, *datasets), criteria)


def table(first: int, entries: list[int], n_bits: int) -> Sequence:
    lut = Dataset()
    lut.add_new("LUTDescriptor", "US", [len(entries), first, n_bits])
    lut.add_new("LUTData", "US", entries)
    return Sequence([lut])


# Oracle: pydicom's own VOI LUT, scaled to 0..1 by the output range that it uses.


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize(("center", "width"), [(2048, 1000), (100, 50), (3000.5, 4096), (900, 2)])
def test_windows_are_those_of_the_standard(
    tmp_path: Path, function: str | None, center: float, width: float
) -> None:
    dataset = radiograph(WindowCenter=center, WindowWidth=width)
    if function:
        dataset.VOILUTFunction = function
    with np.errstate(over="ignore"):
        expected = apply_voi_lut(pixels(), dataset) / (2**N_BITS - 1)
    assert np.allclose(read(tmp_path, dataset).intensity, expected, atol=1e-6)


def test_a_table_comes_before_a_window(tmp_path: Path) -> None:
    entries = (np.linspace(0, 1, 1000) ** 2 * 1023).astype(int).tolist()
    dataset = radiograph(WindowCenter=10, WindowWidth=20, VOILUTSequence=table(1500, entries, 10))
    expected = apply_voi_lut(pixels(), dataset) / 1023
    assert np.allclose(read(tmp_path, dataset).intensity, expected, atol=1e-6)


def test_the_first_of_several_windows_is_used(tmp_path: Path) -> None:
    several = radiograph(WindowCenter=[2000, 50], WindowWidth=[800, 10])
    one = radiograph(WindowCenter=2000, WindowWidth=800)
    stored = pixels()
    assert np.array_equal(presented(several, stored), presented(one, stored))


@pytest.mark.parametrize("n_bits", [8, 10, 14, 16])
def test_bit_depths_without_a_window_fill_the_range(tmp_path: Path, n_bits: int) -> None:
    stored = pixels(n_bits=n_bits)
    if n_bits == 8:
        stored = stored.astype(np.uint8)
    intensity = read(tmp_path, radiograph(stored, n_bits)).intensity
    whole = stored.astype(float)
    expected = (whole - whole.min()) / np.ptp(whole)
    assert np.allclose(intensity, expected, atol=1e-6)
    assert (intensity.min(), intensity.max()) == (0, 1)


def test_signed_pixels_and_rescale(tmp_path: Path) -> None:
    stored = pixels().astype(np.int16) - 1000
    dataset = radiograph(
        stored, 16, RescaleSlope=2, RescaleIntercept=500, WindowCenter=1000, WindowWidth=3000
    )
    expected = apply_voi_lut(stored * 2.0 + 500, dataset)
    # pydicom's output range is that of the stored values after the rescale.
    scaled = (expected - (500 - 2 * 2**15)) / (2 * (2**16 - 1))
    assert np.allclose(read(tmp_path, dataset).intensity, scaled, atol=1e-4)


def test_padding_does_not_stretch_the_range(tmp_path: Path) -> None:
    stored = np.clip(pixels(), 1000, 2000).astype(np.uint16)
    stored[0] = 0
    intensity = read(tmp_path, radiograph(stored, PixelPaddingValue=0)).intensity
    assert np.allclose(intensity[1:], (stored[1:] - 1000.0) / 1000)
    assert not intensity[0].any()


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    plain, inverted = tmp_path / "plain", tmp_path / "inverted"
    plain.mkdir()
    inverted.mkdir()
    window = {"WindowCenter": 2048, "WindowWidth": 3000}
    one = read(plain, radiograph(**window))
    other = read(inverted, radiograph(PhotometricInterpretation="MONOCHROME1", **window))
    assert np.allclose(one.intensity + other.intensity, 1)


@pytest.mark.parametrize(
    ("values", "shape", "spacing"),
    [
        ({"ImagerPixelSpacing": [0.4, 0.2]}, (18, 12), 0.2),
        ({"ImagerPixelSpacing": [0.2, 0.4]}, (9, 24), 0.2),
        ({"PixelSpacing": [0.3, 0.1]}, (27, 12), 0.1),
        ({"ImagerPixelSpacing": None, "PixelAspectRatio": [2, 1]}, (18, 12), None),
        ({"ImagerPixelSpacing": [0, 0]}, (9, 12), None),
        ({"ImagerPixelSpacing": None}, (9, 12), None),
        ({"ImagerPixelSpacing": [0.2, 0.2001]}, (9, 12), 0.2),
    ],
)
def test_pixels_come_out_square(
    tmp_path: Path, values: dict[str, Any], shape: tuple[int, int], spacing: float | None
) -> None:
    found = read(tmp_path, radiograph(**values))
    assert found.intensity.shape == shape
    assert found.pixel_spacing_mm == spacing
    assert found.intensity.flags.c_contiguous


def test_every_stored_orientation_is_turned_upright(tmp_path: Path) -> None:
    upright = pixels()
    turned = {
        ("L", "F"): upright,
        ("R", "F"): upright[:, ::-1],
        ("L", "H"): upright[::-1],
        ("RH", "H"): upright[::-1, ::-1],
        ("F", "L"): upright.T,
        ("H", "L"): upright[::-1].T,
        ("F", "R"): upright[:, ::-1].T,
        ("A", "F"): upright,
    }
    for number, (orientation, stored) in enumerate(turned.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        dataset = radiograph(np.ascontiguousarray(stored), PatientOrientation=list(orientation))
        expected = (upright - float(upright.min())) / np.ptp(upright)
        assert np.allclose(read(folder, dataset).intensity, expected, atol=1e-6), orientation


def test_a_compressed_radiograph_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    compressed = radiograph()
    compressed.compress(JPEGLSLossless, generate_instance_uid=False)
    plain = read(tmp_path / "a", radiograph())
    assert np.array_equal(read(tmp_path / "b", compressed).intensity, plain.intensity)


REJECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ct": ("wrong_modality", {"SOPClassUID": CTImageStorage}),
    "colour": ("wrong_modality", {"PhotometricInterpretation": "RGB"}),
    "raw": ("not_for_presentation", {"SOPClassUID": DigitalXRayImageStorageForProcessing}),
    "raw by intent": ("not_for_presentation", {"PresentationIntentType": "FOR PROCESSING"}),
    "subtracted": ("derived_image", {"ImageType": ["DERIVED", "SECONDARY", "BONE"]}),
    "hand": ("wrong_body_part", {"BodyPartExamined": "HAND"}),
    "lateral": ("wrong_view", {"ViewPosition": "LL"}),
    "lateral by its name": (
        "wrong_view",
        {"ViewPosition": "", "SeriesDescription": "Thorax seitlich"},
    ),
    "short": ("truncated_dicom", {"PixelData": b"\0" * 20}),
    "more rows": ("truncated_dicom", {"Rows": 10}),
    "fewer rows": ("corrupt_pixels", {"Rows": 4}),
    "no pixels": ("corrupt_pixels", {"PixelData": None}),
    "no window": ("corrupt_pixels", {"WindowCenter": 10, "WindowWidth": 0}),
    "odd function": (
        "corrupt_pixels",
        {"WindowCenter": 10, "WindowWidth": 9, "VOILUTFunction": "CUBIC"},
    ),
    "short table": ("corrupt_pixels", {"VOILUTSequence": table(0, [], 8)}),
    "blank": ("corrupt_pixels", {"PixelData": bytes(2 * 9 * 12)}),
    "bits": ("corrupt_pixels", {"BitsStored": 8, "HighBit": 7}),
    "bomb": ("too_large", {"Rows": 65535, "Columns": 65535}),
    "no aspect": ("missing_geometry", {"ImagerPixelSpacing": None, "PixelAspectRatio": [0, 1]}),
    "frames": ("wrong_modality", {"NumberOfFrames": 2, "Rows": 4, "PixelData": bytes(192)}),
    "syntax": ("unsupported_transfer_syntax", {}),
}


@pytest.mark.parametrize(("code", "values"), REJECTS.values(), ids=REJECTS.keys())
def test_what_is_no_frontal_chest_radiograph_is_coded(
    tmp_path: Path, code: str, values: dict[str, Any]
) -> None:
    dataset = radiograph(**values)
    save(tmp_path, dataset)
    if code == "unsupported_transfer_syntax":
        path = tmp_path / "0.dcm"
        old = ExplicitVRLittleEndian.encode()
        path.write_bytes(path.read_bytes().replace(old, b"1.2.840.10008.1.9.9"[: len(old)]))
    with pytest.raises(DicomError) as caught:
        load_radiograph(tmp_path, CRITERIA)
    assert reason_of(caught.value).value == code
    assert "SECRET" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_of_several_the_frontal_one_is_chosen_if_that_is_allowed(tmp_path: Path) -> None:
    lateral = radiograph(ViewPosition="LL", SOPInstanceUID="2.25.1000001")
    supine = radiograph(ViewPosition="AP", SOPInstanceUID="2.25.1000002")
    frontal = radiograph(ViewPosition="PA", SOPInstanceUID="2.25.1000003")
    save(tmp_path, lateral, supine, frontal)
    with pytest.raises(DicomError, match="mixed_series"):
        load_radiograph(tmp_path, CRITERIA)
    assert load_radiograph(tmp_path, CHOOSE).view == "PA"
    (tmp_path / "2.dcm").unlink()
    assert load_radiograph(tmp_path, CHOOSE).view == "AP"
    (tmp_path / "1.dcm").unlink()
    with pytest.raises(DicomError, match="wrong_view"):
        load_radiograph(tmp_path, CHOOSE)


def test_images_of_two_patients_are_never_a_choice(tmp_path: Path) -> None:
    other = radiograph(PatientID="OTHER", SOPInstanceUID="2.25.1000009")
    with pytest.raises(DicomError, match="mixed_series"):
        read(tmp_path, radiograph(), other, criteria=CHOOSE)


def test_a_path_names_one_of_several_series(tmp_path: Path) -> None:
    supine = radiograph(
        ViewPosition="AP", SeriesInstanceUID="2.25.4444444", SOPInstanceUID="2.25.1000009"
    )
    save(tmp_path, radiograph(), supine)
    assert load_radiograph(tmp_path / "2.25.4444444", CRITERIA).view == "AP"
    with pytest.raises(DicomError, match="series_not_found"):
        load_radiograph(tmp_path / "2.25.5555555", CRITERIA)


def test_the_real_radiograph(real_data: Path) -> None:
    """Monochrome 1, 15 of 16 bits, JPEG 2000, one window, spacing of zero."""
    found = load_radiograph(real_data / "cxr", CRITERIA)
    assert found.intensity.shape == (1955, 1841)
    assert (found.view, found.pixel_spacing_mm) == ("PA", None)
    dataset = pydicom.dcmread(next((real_data / "cxr").iterdir()))
    assert dataset.SOPClassUID == ComputedRadiographyImageStorage
    expected = 1 - apply_voi_lut(dataset.pixel_array, dataset) / (2**15 - 1)
    assert np.allclose(found.intensity, expected, atol=1e-6)
    # Lungs are dark and the mediastinum between them is bright.
    middle, lung = found.intensity[900:1000, 880:920], found.intensity[500:600, 1100:1250]
    assert middle.mean() > lung.mean() + 0.2
