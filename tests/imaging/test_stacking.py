"""Slices stacked here are what highdicom makes of them, bit by bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from fedcac.errors import DicomError
from fedcac.imaging import PADDING_HU, Series, build_volume, load_volume, read_series, reason_of
from fedcac.imaging.frames import frames_of
from fedcac.imaging.stacking import is_plain
from fedcac.phantom import chest_ct_folder
from fedcac.protocol import ImageCriteria
from fedcac.vocabulary import ExclusionReason

ROWS, COLUMNS = 5, 4

# Axial: head or feet first, supine, prone or on a side, and rows along either axis.
ORIENTATIONS = [
    [1, 0, 0, 0, 1, 0],
    [-1, 0, 0, 0, -1, 0],
    [-1, 0, 0, 0, 1, 0],
    [1, 0, 0, 0, -1, 0],
    [0, 1, 0, -1, 0, 0],
    [0, -1, 0, -1, 0, 0],
]


def ct_slice(
    number: int,
    pixels: NDArray[Any],
    *,
    bits_stored: int | None = None,
    orientation: list[int] = ORIENTATIONS[0],
    rescale: tuple[str, str] = ("1", "-1024"),
    transfer_syntax: str = ExplicitVRLittleEndian,
) -> Dataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = transfer_syntax
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{number + 1}"
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"1.2.3.{number + 1}"
    dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = "1.2.4", "1.2.6"
    dataset.Modality = "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImagePositionPatient = [-10.25, -20.5, round(-31.3 + 0.7 * number, 3)]
    dataset.ImageOrientationPatient = orientation
    dataset.PixelSpacing = [0.5, 0.625]
    dataset.SliceThickness = 3
    dataset.RescaleSlope, dataset.RescaleIntercept = rescale
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = 8 * pixels.itemsize
    dataset.BitsStored = bits_stored or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    order = ">" if transfer_syntax == ExplicitVRBigEndian else "<"
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.set_original_encoding(False, order == "<")
    return dataset


def series_of(datasets: list[Dataset]) -> Series:
    ordered = sorted(datasets, key=lambda dataset: dataset.ImagePositionPatient[2])
    return Series(
        datasets=tuple(ordered),
        frames=tuple(frame for dataset in ordered for frame in frames_of(dataset)),
    )


def by_highdicom(datasets: list[Dataset]) -> hd.Volume:
    return hd.get_volume_from_series(
        datasets, dtype=np.float32, apply_presentation_lut=False
    ).to_patient_orientation("FPL")


def agrees_with_highdicom(datasets: list[Dataset]) -> None:
    series = series_of(datasets)
    assert is_plain(series)
    expected = by_highdicom(datasets)
    with pytest.MonkeyPatch.context() as patch:
        # Random pixels are no CT numbers.
        for module in ("loading", "stacking"):
            patch.setattr(f"fedcac.imaging.{module}.HIGHEST_HU", np.inf)
        volume = build_volume(series)
    clipped = np.maximum(expected.array, np.float32(PADDING_HU))
    assert volume.hu.tobytes() == clipped.tobytes()
    assert volume.hu.shape == clipped.shape
    assert volume.hu.flags.c_contiguous
    assert volume.origin_lps_mm == tuple(expected.position)
    assert volume.spacing_mm == tuple(round(value, 6) for value in expected.spacing)


DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4"]
SLOPES = ["1", "0.5", "1.00000001", "0.1", "2.4420024", "3e-5"]
INTERCEPTS = ["-1024", "0", "-0", "-1000.3", "1e-3", "32768"]


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(DTYPES),
    spare_bits=st.sampled_from([0, 1, 4]),
    orientation=st.sampled_from(ORIENTATIONS),
    slopes=st.lists(st.sampled_from(SLOPES), min_size=1, max_size=3),
    intercepts=st.lists(st.sampled_from(INTERCEPTS), min_size=1, max_size=3),
    transfer_syntax=st.sampled_from([ExplicitVRLittleEndian, ExplicitVRBigEndian]),
    n_slices=st.integers(2, 7),
)
def test_every_kind_of_pixel_and_orientation(
    seed: int,
    dtype: str,
    spare_bits: int,
    orientation: list[int],
    slopes: list[str],
    intercepts: list[str],
    transfer_syntax: str,
    n_slices: int,
) -> None:
    rng = np.random.default_rng(seed)
    whole = np.iinfo(np.dtype(dtype))
    low, high = whole.min >> spare_bits, whole.max >> spare_bits
    datasets = [
        ct_slice(
            number,
            rng.integers(low, high, (ROWS, COLUMNS), dtype=dtype, endpoint=True),
            bits_stored=whole.bits - spare_bits,
            orientation=orientation,
            rescale=(slopes[number % len(slopes)], intercepts[number % len(intercepts)]),
            transfer_syntax=transfer_syntax,
        )
        for number in rng.permutation(n_slices)
    ]
    agrees_with_highdicom(datasets)


@pytest.mark.parametrize("transfer_syntax", [JPEGLSLossless, RLELossless])
def test_compressed_slices(transfer_syntax: str) -> None:
    datasets = []
    for number in range(4):
        pixels = np.random.default_rng(number).integers(-900, 900, (16, 16), dtype=np.int16)
        dataset = ct_slice(number, pixels, rescale=("1", "0"))
        dataset.compress(transfer_syntax, generate_instance_uid=False)
        datasets.append(dataset)
    agrees_with_highdicom(datasets)


def test_a_codec_that_fails_leaves_the_slice_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = chest_ct_folder()
    expected = load_volume(folder, ImageCriteria()).hu
    monkeypatch.setattr("fedcac.imaging.pixels._FASTER_DECODERS", {JPEGLSLossless: "no such codec"})
    assert load_volume(folder, ImageCriteria()).hu.tobytes() == expected.tobytes()


def test_the_real_series_is_what_its_codecs_and_highdicom_say() -> None:
    series = read_series(chest_ct_folder(), ImageCriteria())
    assert is_plain(series)
    datasets = [pydicom.dcmread(path) for path in sorted(chest_ct_folder().glob("*"))]
    expected = by_highdicom(datasets)
    volume = build_volume(series)
    assert volume.hu.tobytes() == np.maximum(expected.array, np.float32(PADDING_HU)).tobytes()
    assert volume.origin_lps_mm == tuple(expected.position)


def slices() -> list[Dataset]:
    rng = np.random.default_rng(2)
    return [
        ct_slice(number, rng.integers(0, 4096, (ROWS, COLUMNS), dtype=np.uint16))
        for number in range(3)
    ]


def test_a_modality_look_up_table_is_highdicoms() -> None:
    datasets = slices()
    for dataset in datasets:
        table = Dataset()
        table.LUTDescriptor = [4096, 0, 16]
        table.LUTData = list(range(4096))
        table.ModalityLUTType = "HU"
        table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
        dataset.ModalityLUTSequence = DicomSequence([table])
    series = series_of(datasets)
    assert not is_plain(series)
    assert np.array_equal(build_volume(series).hu, by_highdicom(datasets).array)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("PhotometricInterpretation", "PALETTE COLOR"), ("BitsAllocated", 12)],
)
def test_what_highdicom_refuses_stays_refused(keyword: str, value: object) -> None:
    datasets = slices()
    setattr(datasets[1], keyword, value)
    series = series_of(datasets)
    assert not is_plain(series)
    with pytest.raises(DicomError) as caught:
        build_volume(series)
    assert reason_of(caught.value) is ExclusionReason.CORRUPT_PIXELS


def test_unequal_orientations_within_the_tolerance_are_highdicoms() -> None:
    datasets = slices()
    datasets[1].ImageOrientationPatient = [1, 0.0004, 0, 0, 1, 0]
    series = series_of(datasets)
    assert not is_plain(series)
    assert build_volume(series).hu.shape == (3, ROWS, COLUMNS)


def test_an_overflowing_slope_is_coded() -> None:
    series = series_of(slices())
    frames = tuple(replace(frame, rescale=(1e39, 0.0)) for frame in series.frames)
    with pytest.raises(DicomError) as caught:
        build_volume(replace(series, frames=frames))
    assert reason_of(caught.value) is ExclusionReason.CORRUPT_PIXELS


def test_an_irregular_stack_is_coded() -> None:
    datasets = slices()
    datasets[2].ImagePositionPatient = [-10.25, -20.5, 40.0]
    with pytest.raises(DicomError) as caught:
        build_volume(series_of(datasets))
    assert reason_of(caught.value) is ExclusionReason.CORRUPT_PIXELS


def test_file_order_changes_no_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    datasets = [
        ct_slice(number, rng.integers(0, 4096, (ROWS, COLUMNS), dtype=np.uint16))
        for number in range(16)
    ]
    stacks = []
    for order in (range(16), rng.permutation(16)):
        folder = tmp_path / str(len(stacks))
        folder.mkdir()
        for name, number in enumerate(order):
            datasets[number].save_as(folder / f"{name:02d}.dcm", enforce_file_format=True)
        stacks.append(load_volume(folder, ImageCriteria()).hu.tobytes())
    assert stacks[0] == stacks[1]
