"""From a DICOM series to a `Volume` in Hounsfield units, in one canonical orientation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import highdicom as hd
import numpy as np

from fedcac.imaging.coding import coded, exclusion
from fedcac.imaging.frames import Frame
from fedcac.imaging.geometry import SPACING_TOLERANCE, TILT_TOLERANCE
from fedcac.imaging.pixels import stored_values
from fedcac.imaging.series import Series, read_series
from fedcac.imaging.stacking import HIGHEST_HU, PADDING_HU, clip_padding, is_plain, stack_slices
from fedcac.imaging.volume import ORIENTATION, Volume
from fedcac.protocol import ImageCriteria
from fedcac.vocabulary import ExclusionReason

if TYPE_CHECKING:
    from highdicom.volume import Volume as GridVolume

__all__ = ["PADDING_HU", "build_volume", "load_volume"]


def load_volume(path: Path, criteria: ImageCriteria) -> Volume:
    """Read the series at a folder or file as a volume; `read_series` says which of several.

    The result does not depend on the names or the order of the files, bit by bit.

    Raises
    ------
    DicomError
        Its code names the ExclusionReason; no other exception escapes for a bad file.
    """
    return build_volume(read_series(path, criteria))


def build_volume(series: Series) -> Volume:
    """Decode an eligible series: per-slice slope and intercept, padding clipped.

    Raises
    ------
    DicomError
        `corrupt_pixels` if the pixels cannot be decoded, `not_hounsfield` if they come out as
        no CT number can be.
    """
    with coded(ExclusionReason.CORRUPT_PIXELS, "The pixels cannot be decoded into a volume"):
        grid = _decode(series).to_patient_orientation(ORIENTATION)
        # Positions are decimal text: what differs below a nanometre is arithmetic.
        increment, row_mm, column_mm = (round(float(value), 6) for value in grid.spacing)
        x, y, z = (float(value) for value in grid.position)
        if grid.array.max() > HIGHEST_HU:
            raise exclusion(
                ExclusionReason.NOT_HOUNSFIELD,
                "Values are beyond any CT scale: wrong sign or rescale.",
            )
        if len(series.frames) == 1:
            increment = _single_increment_mm(series.frames[0])
        return Volume(
            hu=np.ascontiguousarray(grid.array),
            spacing_mm=(increment, row_mm, column_mm),
            slice_thickness_mm=_thickness_mm(series, increment),
            origin_lps_mm=(x, y, z),
            kvp=_kvp(series),
        )


def _decode(series: Series) -> GridVolume:
    if is_plain(series):
        return stack_slices(series)
    for dataset in series.datasets:
        # highdicom drops bits that are not declared; here that is an error.
        stored_values(dataset)
    grid = _decode_by_highdicom(series)
    # The array is highdicom's own, converted from integers: it is clipped where it lies.
    hu = np.require(grid.array, np.float32, "W")
    clip_padding(hu)
    return grid.with_array(hu)


def _decode_by_highdicom(series: Series) -> GridVolume:
    options = {
        "dtype": np.float32,
        "apply_real_world_transform": False,
        "apply_modality_transform": True,
        "apply_presentation_lut": False,
        "apply_palette_color_lut": False,
        "apply_icc_profile": False,
        # Ours are the checks that name a reason; the wider tolerances here only keep rounding in
        # highdicom's own formulas (mean instead of median) from contradicting them.
        "rtol": 2 * SPACING_TOLERANCE,
        "perpendicular_tol": 2 * TILT_TOLERANCE,
    }
    if series.is_multi_frame:
        image = hd.image.Image.from_dataset(series.datasets[0], copy=False)
        return image.get_volume(**options)
    return hd.get_volume_from_series(series.datasets, orientation_tol=2 * TILT_TOLERANCE, **options)


def _single_increment_mm(frame: Frame) -> float:
    # One slice has no increment: what the header plans stands for it.
    return frame.increment_mm or frame.thickness_mm or 1.0


def _thickness_mm(series: Series, increment_mm: float) -> float:
    return max(frame.thickness_mm or 0.0 for frame in series.frames) or increment_mm


def _kvp(series: Series) -> float | None:
    # A tube voltage that changes along the series is as good as none for a kVp-adapted threshold.
    values = {frame.kvp for frame in series.frames}
    return values.pop() if len(values) == 1 else None
