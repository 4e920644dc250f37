"""Legacy Converted Enhanced CT: one multi-frame object is its single-frame series, to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from imaging.conversion import convert, decompressed
from imaging.generated import make_series, write_series
from pydicom.dataset import Dataset
from pydicom.uid import LegacyConvertedEnhancedCTImageStorage

from fedcac.errors import DicomError
from fedcac.imaging import load_volume, read_series, reason_of
from fedcac.phantom import chest_ct_folder
from fedcac.protocol import ImageCriteria

CRITERIA = ImageCriteria()


def test_the_shipped_series_is_the_same_volume_as_its_legacy_conversion(tmp_path: Path) -> None:
    slices = [decompressed(pydicom.dcmread(p)) for p in sorted(chest_ct_folder().iterdir())]
    path = convert(slices, tmp_path)
    assert pydicom.dcmread(path).SOPClassUID == LegacyConvertedEnhancedCTImageStorage
    assert read_series(path, CRITERIA).is_multi_frame
    single, multi = load_volume(chest_ct_folder(), CRITERIA), load_volume(path, CRITERIA)
    assert multi.hu.tobytes() == single.hu.tobytes()
    assert multi.spacing_mm == single.spacing_mm
    assert multi.origin_lps_mm == single.origin_lps_mm
    assert (multi.slice_thickness_mm, multi.kvp) == (single.slice_thickness_mm, single.kvp)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_frames_keep_their_own_rescale_in_any_order(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    slices = make_series(rng)
    for number, dataset in enumerate(slices):
        dataset.RescaleIntercept = -1000 - number
    expected = load_volume(write_series(tmp_path / "single", slices), CRITERIA)
    shuffled = [slices[n] for n in rng.permutation(len(slices))]
    found = load_volume(convert(shuffled, tmp_path), CRITERIA)
    assert found.hu.tobytes() == expected.hu.tobytes()
    assert found.origin_lps_mm == expected.origin_lps_mm


def test_faults_of_a_multi_frame_object_are_coded(tmp_path: Path) -> None:
    def outcome(name: str, change: object) -> str:
        whole = pydicom.dcmread(path)
        change(whole)  # type: ignore[operator]
        whole.save_as(tmp_path / "changed.dcm")
        with pytest.raises(DicomError) as caught:
            load_volume(tmp_path / "changed.dcm", CRITERIA)
        return reason_of(caught.value).value

    path = convert(make_series(np.random.default_rng(4)), tmp_path)

    def position(whole: Dataset, frame: int) -> Dataset:
        return whole.PerFrameFunctionalGroupsSequence[frame].PlanePositionSequence[0]

    def gap(whole: Dataset) -> None:
        x, y, z = position(whole, 0).ImagePositionPatient
        top = position(whole, int(whole.NumberOfFrames) - 1).ImagePositionPatient[2]
        position(whole, 0).ImagePositionPatient = [x, y, 2 * z - top - 3]

    def coincide(whole: Dataset) -> None:
        position(whole, 3).ImagePositionPatient = position(whole, 4).ImagePositionPatient

    def lose_position(whole: Dataset) -> None:
        del whole.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence

    def lose_frame(whole: Dataset) -> None:
        del whole.PerFrameFunctionalGroupsSequence[3]

    def cut(whole: Dataset) -> None:
        whole.PixelData = whole.PixelData[:-100]

    faults = {
        "missing_slice": gap,
        "duplicate_position": coincide,
        "missing_geometry": lose_position,
        "truncated_dicom": cut,
    }
    assert {code: outcome(code, change) for code, change in faults.items()} == {
        code: code for code in faults
    }
    assert outcome("frames", lose_frame) == "missing_geometry"


def two_phases(folder: Path) -> tuple[Path, dict[float, list[Dataset]]]:
    """One multi-frame object with the frames of two cardiac phases, alternating."""
    rng = np.random.default_rng(8)
    early, late = make_series(rng), make_series(rng)
    for one, other in zip(early, late, strict=True):
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            setattr(other, keyword, one[keyword].value)
        for keyword in ("PixelRepresentation", "BitsStored", "HighBit", "RescaleIntercept"):
            setattr(other, keyword, one[keyword].value)
        other.PixelData = np.roll(one.pixel_array, 2, axis=0).tobytes()
    path = convert([dataset for pair in zip(early, late, strict=True) for dataset in pair], folder)
    whole = pydicom.dcmread(path)
    originals = {dataset.SOPInstanceUID: 40.0 for dataset in early}
    for groups in whole.PerFrameFunctionalGroupsSequence:
        source = groups.ConversionSourceAttributesSequence[0].ReferencedSOPInstanceUID
        phase = Dataset()
        phase.NominalPercentageOfCardiacPhase = originals.get(source, 75.0)
        groups.CardiacSynchronizationSequence = [phase]
    whole.save_as(path)
    return path, {40.0: early, 75.0: late}


@pytest.mark.parametrize("percent", [40.0, 75.0])
def test_one_phase_of_a_multi_frame_object_is_read(tmp_path: Path, percent: float) -> None:
    path, phases = two_phases(tmp_path)
    with pytest.raises(DicomError, match="several_phases"):
        load_volume(path, CRITERIA)
    criteria = ImageCriteria(preferred_phase_percent=percent)
    series = read_series(path, criteria)
    assert (len(series.frames), series.n_other_phases) == (16, 16)
    expected = load_volume(write_series(tmp_path / "single", phases[percent]), CRITERIA)
    found = load_volume(path, criteria)
    assert found.hu.tobytes() == expected.hu.tobytes()
    assert (found.origin_lps_mm, found.spacing_mm) == (expected.origin_lps_mm, expected.spacing_mm)


def test_bits_beyond_those_declared_are_coded_in_frames_too(tmp_path: Path) -> None:
    whole = pydicom.dcmread(convert(make_series(np.random.default_rng(4)), tmp_path))
    whole.BitsStored, whole.HighBit = 9, 8
    whole.save_as(tmp_path / "lie.dcm")
    with pytest.raises(DicomError) as caught:
        load_volume(tmp_path / "lie.dcm", CRITERIA)
    assert reason_of(caught.value).value == "corrupt_pixels"
