"""The series that an artefact refers to: its instances, and a vessel map on its own frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

if TYPE_CHECKING:
    from fedcac.imaging.series import Series
    from fedcac.imaging.volume import Volume

__all__ = ["anonymous_instances", "give_identity", "labels_on_frames"]

# Who the patient is and which study it is (PS3.3 C.7.1.1, C.7.2.1), type 2 or optional.
_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
)
_OPTIONAL = (
    "SpecificCharacterSet",
    "IssuerOfPatientID",
    "OtherPatientIDs",
    "PatientAge",
    "StudyDescription",
)
_HIDDEN = frozenset(
    tag_for_keyword(keyword) for keyword in (*_TYPE_2, *_OPTIONAL, "PositionReferenceIndicator")
)
_POSITION_TOLERANCE = 0.05  # of the slice increment
_CORNER_TOLERANCE_MM = 0.01


def anonymous_instances(series: Series) -> list[Dataset]:
    """Return the series' instances without the patient: what an object is built from.

    highdicom warns about unusual names by quoting them, on a stream that may be a log. So it never
    sees them; `give_identity` puts them into what it built. The series' own data sets are not
    changed, and pixel data are shared, not copied.
    """
    instances = []
    for dataset in series.datasets:
        instance = Dataset()
        instance.update({tag: dataset.get_item(tag) for tag in set(dataset.keys()) - _HIDDEN})
        instance.file_meta = dataset.file_meta
        for keyword in (*_TYPE_2, "PositionReferenceIndicator"):
            setattr(instance, keyword, "")
        instances.append(instance)
    return instances


def give_identity(target: Dataset, series: Series) -> None:
    """Put the patient and study of a series into an object built from it, byte by byte.

    Only the bytes are certain to be what the hospital knows the patient by: they keep their
    character set, and odd values stay as they are. What de-identification dropped stays empty.
    """
    source = series.datasets[0]
    for keyword in (*_TYPE_2, *_OPTIONAL):
        if keyword in source:
            tag = tag_for_keyword(keyword)
            target[tag] = source.get_item(tag)


def labels_on_frames(
    series: Series, volume: Volume, vessel_map: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return a vessel map turned onto the series' own frames: (frames, rows, columns), as stored.

    Raises
    ------
    ValueError
        If the map has another shape than the volume, or the volume is not of this series.
    """
    if vessel_map.shape != volume.hu.shape:
        raise ValueError(f"vessel_map {vessel_map.shape} and volume {volume.hu.shape} differ")
    first = series.frames[0]
    right, down = (np.array(first.orientation[part]) for part in (slice(3), slice(3, 6)))
    normal = np.cross(right, down)
    along = np.array([np.dot(frame.position_lps_mm, normal) for frame in series.frames])
    order = np.argsort(along)
    rows, columns = int(series.datasets[0].Rows), int(series.datasets[0].Columns)
    increment_mm = volume.spacing_mm[0]
    steps = (along[order] - along[order[0]]) / increment_mm
    if np.abs(steps - np.arange(len(order))).max() > _POSITION_TOLERANCE:
        raise ValueError("the volume's slices are not those of the series")
    directions = np.stack([normal, down, right], axis=1)
    turned = _as_grid(volume, vessel_map).to_patient_orientation(
        hd.spatial.get_closest_patient_orientation(directions)
    )
    corner = series.frames[int(order[0])].position_lps_mm
    if turned.spatial_shape != (len(order), rows, columns) or not np.allclose(
        turned.position, corner, atol=_CORNER_TOLERANCE_MM
    ):
        raise ValueError("the volume does not lie where the series does")
    labels = np.empty((len(order), rows, columns), dtype=np.uint8)
    labels[order] = turned.array
    return labels


def _as_grid(volume: Volume, vessel_map: NDArray[np.uint8]) -> hd.Volume:
    # A `Volume` runs towards feet, posterior and left; its slices are stacked along -z.
    increment, row_mm, column_mm = volume.spacing_mm
    x, y, z = volume.origin_lps_mm
    affine = np.array(
        [[0, 0, column_mm, x], [0, row_mm, 0, y], [-increment, 0, 0, z], [0, 0, 0, 1]],
        dtype=np.float64,
    )
    return hd.Volume(vessel_map, affine, coordinate_system="PATIENT")
