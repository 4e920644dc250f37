"""A DICOM SEG of coronary calcium as a vessel map on the volume it was drawn on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray

from fedcac.errors import UsageError
from fedcac.imaging.coding import silent
from fedcac.imaging.label_meanings import LabelMeanings
from fedcac.imaging.volume import ORIENTATION, Volume
from fedcac.vocabulary import VESSEL_LABELS, VESSEL_UNKNOWN, Vessel

__all__ = ["CORONARY_CODES", "VESSEL_CODES", "read_vessel_map"]

# SNOMED CT codes of the coronary arteries (PS3.16 CID 3015).
VESSEL_CODES = {
    "3227004": Vessel.LM,
    "59438005": Vessel.LAD,
    "57396003": Vessel.LCX,
    "13647002": Vessel.RCA,
}

# SNOMED CT codes of coronary calcium of no told vessel: the coronary artery as such (PS3.16 CID
# 3015), and calcification of it (a disorder, which names its own site).
CORONARY_CODES = frozenset({"41801008", "445512009"})
_TOLERANCE_MM = 0.1


def read_vessel_map(
    path: Path, volume: Volume, meanings: LabelMeanings | None = None
) -> NDArray[np.uint8]:
    """Return the vessel map, uint8 of the volume's shape, of a binary DICOM SEG.

    Each segment's property type or anatomic region must be one of `VESSEL_CODES`, or one of
    `CORONARY_CODES`: then its calcium counts without a vessel (5, `VESSEL_UNKNOWN`), where no
    segment of a vessel marks the same voxel. `meanings` of segment numbers, where they are stated,
    stand in place of the codes. The SEG must lie on the volume's own grid; it is placed by its
    position, never by frame order.

    Raises
    ------
    UsageError
        If the file is no SEG, a segment is of no known vessel, or its grid is another.
    CohortError
        `unknown_label` for a segment of no stated meaning.
    """
    try:
        with silent():
            segmentation = hd.seg.segread(path)
            mask = segmentation.get_volume(combine_segments=False, rescale_fractional=False)
            mask = mask.to_patient_orientation(ORIENTATION)
            numbers = [int(number) for number in segmentation.segment_numbers]
            codes = [_codes_of(segmentation.get_segment_description(n)) for n in numbers]
    except Exception as error:
        raise UsageError(
            f"{path.name} cannot be read as a DICOM segmentation on a regular grid.",
            code="bad_mask",
            cure="Export the segmentation as DICOM SEG on the axial series.",
        ) from error
    labels = [
        _label_of(found) if meanings is None else meanings.value_of(number)
        for number, found in zip(numbers, codes, strict=True)
    ]
    vessel_map = np.zeros(volume.hu.shape, dtype=np.uint8)
    region = vessel_map[_place_of(mask, volume)]
    # Vessels last: what a segment of all coronary calcium marks too keeps its vessel.
    coronary = [channel for channel, label in enumerate(labels) if label]
    for channel in sorted(coronary, key=lambda channel: labels[channel] != VESSEL_UNKNOWN):
        region[mask.array[..., channel] > 0] = labels[channel]
    return vessel_map


def _place_of(mask: Any, volume: Volume) -> tuple[slice, ...]:
    """Return which voxels of a volume a mask in the same orientation covers."""
    spacing_mm = np.array(volume.spacing_mm)
    x, y, z = np.array(mask.position) - np.array(volume.origin_lps_mm)
    # Slices run towards the feet, against z.
    offset_mm = np.array([-z, y, x])
    start = np.rint(offset_mm / spacing_mm).astype(np.int64)
    stop = start + np.array(mask.shape[:3])
    gaps_mm = (start * spacing_mm - offset_mm, np.array(mask.spacing) - spacing_mm)
    is_on_grid = np.abs(gaps_mm).max() <= _TOLERANCE_MM
    if not is_on_grid or (start < 0).any() or (stop > np.array(volume.hu.shape)).any():
        raise UsageError(
            "The segmentation does not lie on the series' grid.",
            code="bad_mask",
            cure="Export it on the series that is scored.",
        )
    return tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))


def _codes_of(description: Any) -> list[str]:
    regions = description.primary_anatomic_structures or description.anatomic_regions or ()
    return [str(description.segmented_property_type.value), *(str(one.value) for one in regions)]


def _label_of(codes: list[str]) -> int:
    for code in codes:
        if code in VESSEL_CODES:
            return VESSEL_LABELS[VESSEL_CODES[code]]
    if CORONARY_CODES.intersection(codes):
        return VESSEL_UNKNOWN
    raise UsageError(
        "A segment of the mask is of no known coronary vessel.",
        code="bad_mask",
        cure="Code each segment's anatomy as one of SCT "
        + ", ".join(f"{code} ({vessel.value})" for code, vessel in VESSEL_CODES.items())
        + ", or 41801008 (coronary artery) where the vessel is not told.",
    )
