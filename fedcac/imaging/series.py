"""One eligible CT series from a folder of DICOM: hard rejects, each with its exclusion reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydicom.uid import (
    JPEG2000,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
)

from fedcac.imaging.coding import coded, exclusion
from fedcac.imaging.files import find_instances, read_dataset
from fedcac.imaging.frames import Frame, frames_of, header_value
from fedcac.imaging.geometry import (
    COINCIDENT_MM,
    check_orientation,
    check_spacing,
    slice_positions_mm,
)
from fedcac.imaging.kernels import is_sharp_kernel
from fedcac.protocol import ImageCriteria
from fedcac.vocabulary import ExclusionReason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Series", "read_series"]

_CT_CLASSES = frozenset(
    {CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}
)

# What the required codecs decode bit by bit as other toolkits do. Baseline and extended JPEG
# (.50, .51, .53, .55) hold 8 bits, or 12 bits that no permissively licensed codec decodes.
_TRANSFER_SYNTAXES = frozenset(
    {
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        JPEGLossless,
        JPEGLosslessSV1,
        JPEGLSLossless,
        JPEGLSNearLossless,
        JPEG2000Lossless,
        JPEG2000,
        RLELossless,
    }
)

# Values of ImageType that name a reformation or projection even where value 1 says ORIGINAL.
_REFORMATIONS = ("MPR", "MIP", "MINIP", "REFORMATTED", "PROJECTION IMAGE", "VOLUME RENDER")


@dataclass(frozen=True, eq=False)
class Series:
    """The instances of one eligible series, sorted from inferior to superior.

    Attributes
    ----------
    datasets
        One data set per slice, or a single multi-frame one. They hold identifiers: hidden from
        repr.
    frames
        The frames' headers: one per data set, or those of the multi-frame data set in stored
        order.
    n_ignored
        Files of the folder that are not DICOM instances.
    n_duplicates
        Instances dropped because another has the same position and pixels.
    """

    datasets: tuple[Dataset, ...] = field(repr=False)
    frames: tuple[Frame, ...] = field(repr=False)
    n_ignored: int = 0
    n_duplicates: int = 0

    @property
    def is_multi_frame(self) -> bool:
        """Say whether the series is one enhanced (multi-frame) instance."""
        return "PerFrameFunctionalGroupsSequence" in self.datasets[0]


def read_series(path: Path, criteria: ImageCriteria) -> Series:
    """Return the one eligible series at a folder or file.

    Neither names nor order of the files matter. Folders are searched recursively; files that are
    not DICOM are ignored and counted.

    Raises
    ------
    DicomError
        Its code is the ExclusionReason: the first that applies of the order file, series,
        modality, transfer syntax, image type, contrast, kernel, units, orientation, thickness,
        number of slices, spacing.
    """
    with coded(ExclusionReason.UNREADABLE_DICOM, "The series cannot be interpreted"):
        paths, n_ignored = find_instances(path)
        read = [read_dataset(file) for file in paths]
        datasets = [dataset for dataset in read if dataset is not None]
        if not datasets:
            raise exclusion(ExclusionReason.NO_DICOM, "There is only a media directory here.")
        _check_identity(datasets)
        for dataset in datasets:
            _check_instance(dataset)
        described = [frames_of(dataset) for dataset in datasets]
        _check_content(datasets, [frame for frames in described for frame in frames], criteria)
        series = _stack(datasets, described, n_ignored + len(read) - len(datasets))
        _check_extent(series.frames, criteria)
        return series


def _check_identity(datasets: Sequence[Dataset]) -> None:
    if len({str(dataset.SeriesInstanceUID) for dataset in datasets}) > 1:
        raise exclusion(ExclusionReason.MIXED_SERIES, "The files belong to more than one series.")
    first = datasets[0]
    for keyword in ("Rows", "Columns", "FrameOfReferenceUID"):
        values = {dataset.get(keyword) for dataset in datasets}
        if len(values) > 1:
            raise exclusion(
                ExclusionReason.INCONSISTENT_GEOMETRY, f"The instances differ in {keyword}."
            )
    is_enhanced = "PerFrameFunctionalGroupsSequence" in first
    if is_enhanced and len(datasets) > 1:
        raise exclusion(
            ExclusionReason.INCONSISTENT_GEOMETRY,
            "The series consists of several multi-frame instances.",
        )


def _check_instance(dataset: Dataset) -> None:
    if dataset.get("Modality") != "CT" or dataset.SOPClassUID not in _CT_CLASSES:
        raise exclusion(ExclusionReason.WRONG_MODALITY, "An instance is not a CT image.")
    if dataset.file_meta.get("TransferSyntaxUID") not in _TRANSFER_SYNTAXES:
        raise exclusion(
            ExclusionReason.UNSUPPORTED_TRANSFER_SYNTAX,
            "The pixels are stored in a transfer syntax that is not decoded here.",
        )
    _check_pixel_data(dataset)
    if not dataset.get("FrameOfReferenceUID"):
        # De-identifiers drop it although it is type 1. A series has one frame of reference unless
        # it says otherwise, and highdicom only compares the value.
        dataset.FrameOfReferenceUID = dataset.SeriesInstanceUID


def _check_pixel_data(dataset: Dataset) -> None:
    if not dataset.get("PixelData"):
        raise exclusion(ExclusionReason.CORRUPT_PIXELS, "An instance holds no pixel data.")
    if dataset.get("SamplesPerPixel") != 1:
        raise exclusion(ExclusionReason.NOT_HOUNSFIELD, "An instance is not a grey-scale image.")
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    n_pixels = dataset.Rows * dataset.Columns * int(dataset.get("NumberOfFrames") or 1)
    if len(dataset.PixelData) < n_pixels * dataset.BitsAllocated // 8:
        raise exclusion(ExclusionReason.TRUNCATED_DICOM, "A file ends inside its pixel data.")


def _check_content(
    datasets: Sequence[Dataset], frames: Sequence[Frame], criteria: ImageCriteria
) -> None:
    for frame in frames:
        _check_image_type(frame.image_type)
    if not criteria.allow_contrast and any(_has_contrast(dataset) for dataset in datasets):
        raise exclusion(ExclusionReason.CONTRAST_ENHANCED, "The header names a contrast agent.")
    if not criteria.allow_sharp_kernel and any(is_sharp_kernel(f.kernel) for f in frames):
        raise exclusion(ExclusionReason.SHARP_KERNEL, "The reconstruction kernel is sharp.")
    for frame in frames:
        _check_units(frame)


def _check_image_type(image_type: tuple[str, ...]) -> None:
    if "LOCALIZER" in image_type:
        raise exclusion(ExclusionReason.LOCALIZER, "An instance is a localizer.")
    is_reformed = any(word in value for value in image_type for word in _REFORMATIONS)
    if is_reformed or image_type[:1] not in ((), ("ORIGINAL",)):
        raise exclusion(
            ExclusionReason.DERIVED_IMAGE, "The images are derived, not the original slices."
        )


def _has_contrast(dataset: Dataset) -> bool:
    # Scanners often write an empty ContrastBolusAgent: that is not contrast.
    agent = header_value(dataset, "ContrastBolusAgent")
    return bool(agent is not None and str(agent).strip()) or bool(
        header_value(dataset, "ContrastBolusAgentSequence")
    )


def _check_units(frame: Frame) -> None:
    if frame.rescale is None:
        raise exclusion(ExclusionReason.NOT_HOUNSFIELD, "There is no rescale slope or intercept.")
    if frame.rescale_type not in ("", "HU"):
        raise exclusion(ExclusionReason.NOT_HOUNSFIELD, "RescaleType is not HU.")
    if not np.isfinite(frame.rescale).all() or frame.rescale[0] <= 0:
        raise exclusion(ExclusionReason.NOT_HOUNSFIELD, "The rescale slope is not positive.")


def _stack(
    datasets: Sequence[Dataset], described: Sequence[tuple[Frame, ...]], n_ignored: int
) -> Series:
    """Sort single-frame instances along z and drop exact duplicates."""
    frames = tuple(frame for part in described for frame in part)
    check_orientation(frames)
    if len(datasets) == 1:
        return Series(datasets=tuple(datasets), frames=frames, n_ignored=n_ignored)
    positions = slice_positions_mm(frames)
    uids = [str(dataset.get("SOPInstanceUID", "")) for dataset in datasets]
    order = sorted(range(len(datasets)), key=lambda index: (positions[index], uids[index]))
    kept = order[:1]
    for index in order[1:]:
        if positions[index] - positions[kept[-1]] > COINCIDENT_MM:
            kept.append(index)
        elif not _is_same_image(
            datasets[kept[-1]], datasets[index], frames[kept[-1]], frames[index]
        ):
            raise exclusion(
                ExclusionReason.DUPLICATE_POSITION,
                "Two instances with different pixels have the same position.",
            )
    return Series(
        datasets=tuple(datasets[index] for index in kept),
        frames=tuple(frames[index] for index in kept),
        n_ignored=n_ignored,
        n_duplicates=len(order) - len(kept),
    )


def _is_same_image(one: Dataset, other: Dataset, frame: Frame, other_frame: Frame) -> bool:
    if frame.rescale != other_frame.rescale:
        return False
    # Compared decoded: the same slice may have been sent in two transfer syntaxes.
    with coded(ExclusionReason.CORRUPT_PIXELS, "The pixels cannot be decoded"):
        return bool(np.array_equal(one.pixel_array, other.pixel_array))


def _check_extent(frames: Sequence[Frame], criteria: ImageCriteria) -> None:
    thickness = max((frame.thickness_mm or 0.0 for frame in frames), default=0.0)
    positions = slice_positions_mm(frames)
    if not thickness and len(frames) > 1:
        thickness = float(np.median(np.diff(np.sort(positions))))
    if thickness > criteria.max_slice_thickness_mm:
        raise exclusion(
            ExclusionReason.SLICE_TOO_THICK,
            f"Slices are {thickness:g} mm thick; at most {criteria.max_slice_thickness_mm:g}.",
        )
    if len(frames) < criteria.min_slices:
        raise exclusion(
            ExclusionReason.TOO_FEW_SLICES,
            f"There are {len(frames)} slices; the protocol asks for {criteria.min_slices}.",
        )
    check_spacing(positions)
