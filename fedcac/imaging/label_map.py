"""A NIfTI label map of coronary calcium as a vessel map on the volume it was drawn on.

NIfTI-1.1 and NIfTI-2 (nifti.nimh.nih.gov): coordinates run to the right, anterior and superior
(RAS), DICOM's to the left, posterior and superior (LPS, PS3.3 C.7.6.2.1.1). The file names neither
patient nor series: the grid is all that ties it to one, so it must be the series' own, to the
voxel. Axes may be stored in another order or direction; nothing is resampled.
"""

from __future__ import annotations

import logging
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.openers import ImageOpener
from numpy.typing import NDArray

from fedcac.errors import CohortError
from fedcac.imaging.coding import silent
from fedcac.imaging.geometry import TILT_TOLERANCE
from fedcac.imaging.label_meanings import LabelMeanings, vessel_map_of
from fedcac.imaging.volume import Volume

__all__ = ["is_label_map", "read_label_map"]

# It writes what it mends in a header to standard error; here nothing is mended unseen.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)

_SUFFIXES = (".nii", ".nii.gz")
# Corners of the two grids may lie apart so far; NIfTI stores them in single precision.
_TOLERANCE_MM = 0.1
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# qform_code and sform_code: 1 scanner, 2 aligned to another image of the patient; 3 and more are
# atlases, which no exam is in.
_PATIENT_CODES = (1, 2)
_UNITS = ("mm", "unknown")
_HEADER_BYTES_2 = 540
# Extensions stand before the voxels and are read whole, whatever they claim.
_MOST_EXTENSION_BYTES = 16 * 1024**2
# Beyond every label; no float above is converted to an integer that it is not.
_HIGHEST = 2**31

Affine = NDArray[np.float64]


def is_label_map(path: Path) -> bool:
    """Say whether a path is called as a NIfTI file is: .nii or .nii.gz, in any case."""
    return path.name.lower().endswith(_SUFFIXES)


def read_label_map(path: Path, volume: Volume, meanings: LabelMeanings | None) -> NDArray[np.uint8]:
    """Return the vessel map, uint8 of the volume's shape, of a NIfTI label map.

    Values are those of a vessel map: 1 to 4 for LM, LAD, LCX, RCA, 5 for calcium of no told vessel.
    Axes that are flipped or permuted are put in the volume's order.

    Raises
    ------
    CohortError
        `bad_annotation` if it cannot be read, is not 3-D, holds values that are no labels (not
        whole, negative), or does not say where it lies: no orientation, qform and sform that
        contradict each other, oblique or sheared axes, units other than mm. `other_series` if it
        is on another grid than the volume. `unstated_labels`, `unknown_label`.
    """
    try:
        return _read(path, volume, meanings)
    except CohortError:
        raise
    except Exception as error:
        # What a damaged file makes nibabel or a decompressor raise has no common class.
        raise _bad("cannot be read as NIfTI") from error


def _read(path: Path, volume: Volume, meanings: LabelMeanings | None) -> NDArray[np.uint8]:
    # A damaged header makes arithmetic warn; what it comes to is checked.
    with silent():
        image = _open(path)
        shape, affine = _shape_of(image), _RAS_TO_LPS @ _affine_of(image)
        axes = _axes_of(affine)
        # The grid first: it needs the header alone, so another grid's voxels are never unpacked.
        flips = _flips(affine, axes)
        _check_grid(affine, shape, axes, flips, volume)
        labels = _labels_of(image, shape)
    steps = tuple(slice(None, None, -1 if is_flipped else 1) for is_flipped in flips)
    vessel_map = vessel_map_of(labels, meanings)
    return np.ascontiguousarray(vessel_map.transpose(axes)[steps])


def _open(path: Path) -> Any:
    with ImageOpener(path) as stream:
        start = stream.read(4)
        sizes = int.from_bytes(start, "little"), int.from_bytes(start, "big")
        kind = nib.Nifti2Image if _HEADER_BYTES_2 in sizes else nib.Nifti1Image
        stream.seek(0)
        header = kind.header_class.from_fileobj(stream, check=False)
    if not 0 <= float(header["vox_offset"]) <= _MOST_EXTENSION_BYTES:
        raise _bad("has extensions larger than any label map's")
    # Not mapped into memory: the file may be replaced while it is read.
    return kind.from_filename(path, mmap=False)


def _shape_of(image: Any) -> tuple[int, int, int]:
    shape = tuple(int(side) for side in image.shape)
    if len(shape) < 3 or set(shape[3:]) - {1} or min(shape) < 1:
        raise _bad("is not three-dimensional")
    return shape[0], shape[1], shape[2]


def _affine_of(image: Any) -> Affine:
    """Return the affine from voxels to RAS millimetres that the header states."""
    if image.header.get_xyzt_units()[0] not in _UNITS:
        raise _bad("is not in millimetres")
    qform, sform = image.get_qform(coded=True), image.get_sform(coded=True)
    forms = [(affine, int(code)) for affine, code in (sform, qform) if affine is not None]
    if not forms:
        raise _bad("does not say where it lies: neither qform nor sform is set")
    if any(code not in _PATIENT_CODES for _, code in forms):
        raise _bad("lies in the space of an atlas")
    corners = _corners(image.shape[:3])
    places = [affine @ corners for affine, _ in forms]
    if not all(np.isfinite(place).all() for place in places):
        raise _bad("has an affine that is not finite")
    if np.abs(places[0] - places[-1]).max() > _TOLERANCE_MM:
        raise _bad("lies in one place by its qform and in another by its sform")
    return np.asarray(forms[0][0], dtype=np.float64)


def _corners(shape: tuple[int, ...]) -> Affine:
    """Return the homogeneous indices of the eight corner voxels, shape (4, 8)."""
    indices = [(*corner, 1) for corner in product(*((0, side - 1) for side in shape))]
    return np.array(indices, dtype=np.float64).T


def _axes_of(affine: Affine) -> tuple[int, int, int]:
    """Return which stored axis runs along z, y and x."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if lengths.min() <= 0:
        raise _bad("has an axis without a length")
    cosines = np.abs(affine[:3, :3] / lengths)
    directions = cosines.argmax(axis=0).tolist()
    if 1 - cosines.max(axis=0).min() > TILT_TOLERANCE or sorted(directions) != [0, 1, 2]:
        raise _bad("has oblique or sheared axes, and is not resampled")
    return directions.index(2), directions.index(1), directions.index(0)


def _flips(affine: Affine, axes: tuple[int, int, int]) -> tuple[bool, bool, bool]:
    # A volume runs to the feet, to posterior and to the left: against z, along y and x in LPS.
    along_z, along_y, along_x = (
        bool(affine[world, axis] > 0) for world, axis in zip((2, 1, 0), axes, strict=True)
    )
    return along_z, not along_y, not along_x


def _check_grid(
    affine: Affine,
    shape: tuple[int, int, int],
    axes: tuple[int, int, int],
    flips: tuple[bool, bool, bool],
    volume: Volume,
) -> None:
    """Check that the label map has the volume's voxels: their number and the eight corners."""
    if tuple(shape[axis] for axis in axes) != volume.hu.shape:
        raise _other_series("has another number of voxels than the series")
    corners = _corners(volume.hu.shape)
    origin, spacing = np.array(volume.origin_lps_mm), np.array(volume.spacing_mm)
    expected = origin[:, None] + (corners[:3] * (spacing * (-1, 1, 1))[:, None])[::-1]
    stored = np.ones_like(corners)
    for number, (axis, is_flipped) in enumerate(zip(axes, flips, strict=True)):
        stored[axis] = shape[axis] - 1 - corners[number] if is_flipped else corners[number]
    if np.abs((affine @ stored)[:3] - expected).max() > _TOLERANCE_MM:
        raise _other_series("does not lie on the series' grid")


def _labels_of(image: Any, shape: tuple[int, int, int]) -> NDArray[np.integer]:
    if image.header.get_data_dtype().kind not in "iuf":
        raise _bad("holds colours or complex numbers instead of labels")
    # Slope and intercept are applied: a label is the value that they give.
    values = np.asanyarray(image.dataobj).reshape(shape)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or (values != np.rint(values)).any():
            raise _bad("holds values that are not whole numbers: probabilities, or resampled")
        values = np.clip(values, -1, _HIGHEST).astype(np.int64)
    if values.min() < 0:
        raise _bad("holds negative values")
    labels: NDArray[np.integer] = values
    return labels


def _bad(what: str) -> CohortError:
    return CohortError(
        f"The label map {what}.",
        code="bad_annotation",
        cure="Export the labels again as NIfTI with whole numbers on the grid of the axial series, "
        "or as DICOM SEG.",
    )


def _other_series(what: str) -> CohortError:
    return CohortError(
        f"The label map {what}.",
        code="other_series",
        cure="Name the series in the manifest on which the labels were drawn; nothing is "
        "resampled.",
    )
