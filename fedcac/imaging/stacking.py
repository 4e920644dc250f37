"""Single-frame slices decoded straight into one stack, without a copy in between.

highdicom builds the same stack, but asks every slice's IOD for its attributes, keeps every frame
twice and copies all of them. Here that is done for plain CT slices; whatever is not plain is
highdicom's (`is_plain`), and so are positions and geometry for all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.uid import CTImageStorage

from fedcac.imaging.coding import exclusion
from fedcac.imaging.geometry import SPACING_TOLERANCE, TILT_TOLERANCE
from fedcac.imaging.pixels import padding_values, stored_values
from fedcac.vocabulary import ExclusionReason

if TYPE_CHECKING:
    from highdicom.volume import Volume as GridVolume
    from pydicom.dataset import Dataset

    from fedcac.imaging.frames import Frame
    from fedcac.imaging.series import Series

__all__ = ["HIGHEST_HU", "PADDING_HU", "clip_padding", "is_plain", "stack_slices"]

PADDING_HU = -1024.0
"""Lower values are padding outside the field of view (-2000 or -3024) and are clipped to it."""


HIGHEST_HU = 32767.0
"""Extended CT scales end near 31 000 HU. Negative values read as unsigned come out above this."""


def is_plain(series: Series) -> bool:
    """Say whether the slices are such that `stack_slices` gives what highdicom gives.

    They are single-frame CT images (PS3.3 A.3) of one orientation, grey, with integer pixels, and
    with a rescale slope and intercept rather than a modality look-up table. Some frames of a
    multi-frame image, which highdicom cannot take out of it, are stacked here too.
    """
    if series.frame_numbers is not None:
        return len({frame.orientation for frame in series.frames}) == 1
    return (
        len(series.frames) == len(series.datasets) > 1
        and len({frame.orientation for frame in series.frames}) == 1
        and all(_is_plain_slice(dataset) for dataset in series.datasets)
    )


def _is_plain_slice(dataset: Dataset) -> bool:
    return (
        dataset.SOPClassUID == CTImageStorage
        and dataset.get("PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2")
        and dataset.get("BitsAllocated") in (8, 16, 32)
        and "PixelRepresentation" in dataset
        and "ModalityLUTSequence" not in dataset
        and "SharedFunctionalGroupsSequence" not in dataset
        and "PerFrameFunctionalGroupsSequence" not in dataset
    )


def stack_slices(series: Series) -> GridVolume:
    """Return a plain series as highdicom's volume in HU, float32, padding clipped.

    The arithmetic is highdicom's, bit by bit: stored value times slope plus intercept, both
    rounded to float32 (PS3.3 C.11.1.1.2).

    Raises
    ------
    DicomError
        `corrupt_pixels` if a value is not finite or needs more bits than are declared.
    ValueError
        If the slices are not a regular stack; a codec's own errors pass through.
    """
    frames = series.frames
    increment, indices = hd.spatial.get_volume_positions(
        [frame.position_lps_mm for frame in frames],
        frames[0].orientation,
        rtol=2 * SPACING_TOLERANCE,
        perpendicular_tol=2 * TILT_TOLERANCE,
    )
    if increment is None or indices is None:
        raise ValueError("the slices are not a regular stack")
    order = np.argsort(indices)
    first, last = frames[order[0]], frames[order[-1]]
    dataset = series.datasets[0]
    hu = np.empty((len(frames), dataset.Rows, dataset.Columns), dtype=np.float32)
    # In memory the uppermost slice comes first, so that turning the volume there is only a view.
    stack = hu[::-1] if last.position_lps_mm[2] > first.position_lps_mm[2] else hu
    whole = None if series.frame_numbers is None else stored_values(dataset)
    for plane, number in zip(stack, order, strict=True):
        if whole is None or series.frame_numbers is None:
            dataset, stored = series.datasets[number], stored_values(series.datasets[number])
        else:
            stored = whole[series.frame_numbers[number]]
        _rescale_into(plane, stored, frames[number])
        _blank_bright_padding(plane, stored, dataset)
    return hd.Volume.from_attributes(
        array=stack,
        image_position=first.position_lps_mm,
        image_orientation=first.orientation,
        pixel_spacing=first.pixel_spacing_mm,
        spacing_between_slices=increment,
        coordinate_system="PATIENT",
    )


def _rescale_into(plane: NDArray[np.float32], stored: NDArray[Any], frame: Frame) -> None:
    if frame.rescale is None:
        raise ValueError("a slice has no rescale slope")
    slope, intercept = (np.float32(value) for value in frame.rescale)
    scaled = stored if slope == 1 else stored * slope
    # The casting lets 32-bit pixels be added in float64 and rounded once, at the end.
    np.add(scaled, intercept, out=plane, casting="same_kind")
    clip_padding(plane)


def _blank_bright_padding(
    plane: NDArray[np.float32], stored: NDArray[Any], dataset: Dataset
) -> None:
    # Padding of -2000 that is stored unsigned comes out beyond any CT number.
    if plane.max() > HIGHEST_HU:
        plane[np.isin(stored, padding_values(dataset))] = PADDING_HU


def clip_padding(hu: NDArray[np.float32]) -> None:
    """Raise what is below `PADDING_HU` to it, in place.

    Raises
    ------
    DicomError
        `corrupt_pixels` if a value is not finite.
    """
    np.maximum(hu, np.float32(PADDING_HU), out=hu)
    # After the clip a value that is not finite is a NaN or +inf, and the maximum is either.
    if not math.isfinite(hu.max()):
        raise exclusion(ExclusionReason.CORRUPT_PIXELS, "A voxel is not a finite number.")
