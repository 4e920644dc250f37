"""What a header claims of its pixels is checked: bits, sign, padding, rows, memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imaging.corruptions import CORRUPTIONS
from imaging.generated import body_hu, make_series, write_series
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from fedcac.errors import DicomError
from fedcac.imaging import load_volume, reason_of
from fedcac.imaging.files import read_dataset
from fedcac.imaging.pixels import TRANSFER_SYNTAXES, check_pixel_data, stored_values
from fedcac.protocol import ImageCriteria

CRITERIA = ImageCriteria()


def series(stored: NDArray[Any], **values: Any) -> list[Dataset]:
    """A series with these stored values, 12 bits unsigned unless said otherwise."""
    slices = make_series(np.random.default_rng(3))
    header = {
        "PixelRepresentation": 0,
        "BitsStored": 12,
        "HighBit": 11,
        "RescaleIntercept": -1024,
        "Rows": stored.shape[1],
        "Columns": stored.shape[2],
        **values,
    }
    for dataset, plane in zip(slices, stored, strict=True):
        for keyword, value in header.items():
            setattr(dataset, keyword, value)
        dataset.PixelData = plane.tobytes()
    return slices


def stored_12_bits() -> NDArray[np.uint16]:
    hu = np.tile(body_hu(np.random.default_rng(3)), (1, 2, 2))
    return (hu + 1024).astype(np.uint16)


def code_of(folder: Path, slices: list[Dataset]) -> str:
    with pytest.raises(DicomError) as caught:
        load_volume(write_series(folder, slices), CRITERIA)
    return reason_of(caught.value).value


@pytest.mark.parametrize("declared", [63536, -2000])
@pytest.mark.parametrize("n_bits", [12, 16])
def test_declared_padding_beyond_the_scale_is_air(
    tmp_path: Path, n_bits: int, declared: int
) -> None:
    """-2000 stored in words that the header calls unsigned: old scanners outside the circle."""
    stored = stored_12_bits()
    expected = stored.astype(np.float32) - 1024
    stored[:, :3], expected[:, :3] = 63536, -1024
    slices = series(stored, BitsStored=n_bits, HighBit=n_bits - 1)
    for dataset in slices:
        dataset.add_new("PixelPaddingValue", "SS" if declared < 0 else "US", declared)
    volume = load_volume(write_series(tmp_path, slices), CRITERIA)
    assert np.array_equal(volume.hu, expected[::-1])


@pytest.mark.parametrize(("n_bits", "code"), [(12, "corrupt_pixels"), (16, "not_hounsfield")])
def test_the_same_without_a_declaration_is_coded(tmp_path: Path, n_bits: int, code: str) -> None:
    stored = stored_12_bits()
    stored[:, :3] = 63536
    assert code_of(tmp_path, series(stored, BitsStored=n_bits, HighBit=n_bits - 1)) == code


def test_signed_values_without_sign_extension_are_coded(tmp_path: Path) -> None:
    """Whether 0x0FFF means -1 or 4095 cannot be known."""
    stored = stored_12_bits()
    stored[4, 5, 5] = 0x0FFF
    assert code_of(tmp_path, series(stored, PixelRepresentation=1)) == "corrupt_pixels"


def test_an_overlay_in_the_unused_bits_is_dropped(tmp_path: Path) -> None:
    stored = stored_12_bits()
    expected = stored.astype(np.float32) - 1024
    stored[:, 2:6] |= 0x1000
    slices = series(stored)
    assert code_of(tmp_path / "undeclared", slices) == "corrupt_pixels"
    for dataset in slices:
        dataset.add_new((0x6000, 0x0100), "US", 16)
        dataset.add_new((0x6000, 0x0102), "US", 12)
    volume = load_volume(write_series(tmp_path / "declared", slices), CRITERIA)
    assert np.array_equal(volume.hu, expected[::-1])


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, RLELossless])
@pytest.mark.parametrize("is_signed", [False, True])
def test_compression_changes_no_value(tmp_path: Path, syntax: str, is_signed: bool) -> None:
    stored = stored_12_bits()
    expected = stored.astype(np.float32) - 1024
    if is_signed:
        slices = series(
            (stored.astype(np.int16) - 1024),
            PixelRepresentation=1,
            BitsStored=13,
            HighBit=12,
            RescaleIntercept=0,
        )
    else:
        slices = series(stored)
    for dataset in slices:
        dataset.compress(syntax, generate_instance_uid=False)
    volume = load_volume(write_series(tmp_path, slices), CRITERIA)
    assert np.array_equal(volume.hu, expected[::-1])


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, RLELossless])
@pytest.mark.parametrize("factor", [0.5, 2])
def test_a_codestream_of_another_size_is_coded(tmp_path: Path, syntax: str, factor: float) -> None:
    slices = series(stored_12_bits())
    for dataset in slices:
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.Rows = int(dataset.Rows * factor)
    assert code_of(tmp_path, slices) == "corrupt_pixels"


@pytest.mark.parametrize("name", ["deflate_bomb", "huge_claimed_size"])
def test_a_bomb_is_refused_before_it_takes_memory(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(1)
    folder = write_series(tmp_path / "s", make_series(rng))
    CORRUPTIONS[name].damage(folder, rng)
    tracemalloc.start()
    try:
        with pytest.raises(DicomError, match="too_large"):
            load_volume(folder, CRITERIA)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20


def test_every_real_transfer_syntax_keeps_within_its_bits(real_data: Path) -> None:
    """The checks of bits, rows and codestreams refuse none of the sound real files."""
    n_read = 0
    for path in sorted((real_data / "transfer_syntax").glob("*.dcm")):
        dataset = read_dataset(path)
        assert dataset is not None
        if dataset.file_meta.TransferSyntaxUID not in TRANSFER_SYNTAXES:
            continue
        check_pixel_data(dataset)
        values = stored_values(dataset)
        assert values.shape == (dataset.Rows, dataset.Columns)
        n_read += 1
    assert n_read >= 11
