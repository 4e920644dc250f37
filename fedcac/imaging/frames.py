"""The header of every frame, alike for single-frame CT and (legacy converted) enhanced CT."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedcac.imaging.coding import exclusion
from fedcac.vocabulary import ExclusionReason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Frame", "frames_of", "header_value"]

Floats = tuple[float, ...]


@dataclass(frozen=True)
class Frame:
    """What eligibility and geometry need to know of one frame.

    Attributes
    ----------
    orientation
        ImageOrientationPatient: six direction cosines, the row direction first.
    position_lps_mm
        ImagePositionPatient: centre of the first voxel, LPS millimetres.
    pixel_spacing_mm
        (row spacing, column spacing).
    thickness_mm, kvp, increment_mm
        SliceThickness, KVP and SpacingBetweenSlices; None where absent.
    image_type
        ImageType or FrameType in upper case; empty where absent.
    kernel
        First value of ConvolutionKernel; empty where absent.
    rescale
        (slope, intercept); None where absent.
    rescale_type
        RescaleType in upper case; empty where absent.
    """

    orientation: Floats
    position_lps_mm: Floats
    pixel_spacing_mm: Floats
    thickness_mm: float | None
    kvp: float | None
    increment_mm: float | None
    image_type: tuple[str, ...]
    kernel: str
    rescale: tuple[float, float] | None
    rescale_type: str


def header_value(dataset: Dataset, keyword: str, frame: int = 0) -> Any:
    """Return an attribute of a frame, wherever an enhanced object keeps it; None where absent.

    The frame's own functional groups come first, then the shared ones (PS3.3 C.7.6.16), then the
    data set itself.
    """
    return _first_value(_places(dataset, frame), keyword)


def _first_value(places: Iterable[Dataset], keyword: str) -> Any:
    for place in places:
        element = place.get(keyword)
        if element is not None and element != "":
            return element
    return None


def _places(dataset: Dataset, frame: int) -> Iterator[Dataset]:
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    shared = dataset.get("SharedFunctionalGroupsSequence") or ()
    for groups in (*per_frame[frame : frame + 1], *shared[:1]):
        for element in groups:
            if element.VR == "SQ" and element.value:
                yield element.value[0]
    yield dataset


def frames_of(dataset: Dataset) -> tuple[Frame, ...]:
    """Return the frames of one instance, in stored order.

    Raises
    ------
    DicomError
        `missing_geometry` if a frame lacks position, orientation or pixel spacing.
    """
    n_frames = int(dataset.get("NumberOfFrames") or 1)
    n_described = len(dataset.get("PerFrameFunctionalGroupsSequence") or ()) or 1
    if n_frames != n_described:
        raise exclusion(
            ExclusionReason.MISSING_GEOMETRY,
            f"{n_frames} frames are stored, but {n_described} are described.",
        )
    return tuple(_frame(dataset, number) for number in range(n_frames))


def _frame(dataset: Dataset, number: int) -> Frame:
    # Walking the functional groups costs more than reading them: once for all attributes.
    places = tuple(_places(dataset, number))

    def value(keyword: str) -> Any:
        return _first_value(places, keyword)

    slope, intercept = value("RescaleSlope"), value("RescaleIntercept")
    return Frame(
        orientation=_floats(value("ImageOrientationPatient"), 6, "ImageOrientationPatient"),
        position_lps_mm=_floats(value("ImagePositionPatient"), 3, "ImagePositionPatient"),
        pixel_spacing_mm=_floats(value("PixelSpacing"), 2, "PixelSpacing"),
        thickness_mm=_positive(value("SliceThickness")),
        kvp=_positive(value("KVP")),
        increment_mm=_positive(value("SpacingBetweenSlices")),
        image_type=_words(value("FrameType") or value("ImageType")),
        kernel=(_words(value("ConvolutionKernel"), upper=False) or ("",))[0],
        rescale=None if slope is None or intercept is None else (float(slope), float(intercept)),
        rescale_type=(_words(value("RescaleType")) or ("",))[0],
    )


def _floats(value: Any, length: int, keyword: str) -> Floats:
    if value is None or len(value) != length:
        raise exclusion(
            ExclusionReason.MISSING_GEOMETRY, f"{keyword} is absent or has not {length} values."
        )
    return tuple(float(item) for item in value)


def _positive(value: Any) -> float | None:
    # Some vendors write 0 for 'unknown', and SpacingBetweenSlices may be negative by PS3.3.
    number = None if value is None else abs(float(value))
    return number or None


def _words(value: Any, *, upper: bool = True) -> tuple[str, ...]:
    if value is None:
        return ()
    items = (value,) if isinstance(value, str) else tuple(value)
    words = tuple(str(item).strip() for item in items)
    return tuple(word.upper() for word in words) if upper else words
