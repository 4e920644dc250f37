"""One eligible CT series from its files: hard rejects, each with its exclusion reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedcac.imaging.acquisition import check_acquisition
from fedcac.imaging.coding import coded, exclusion
from fedcac.imaging.eligibility import check_content, check_identity, check_modality
from fedcac.imaging.files import MOST_BYTES, read_datasets
from fedcac.imaging.frames import Frame, frames_of
from fedcac.imaging.geometry import (
    COINCIDENT_MM,
    check_orientation,
    check_spacing,
    slice_positions_mm,
)
from fedcac.imaging.phases import Place, choose_phase
from fedcac.imaging.pixels import check_pixel_data, check_size, stored_values
from fedcac.protocol import ImageCriteria
from fedcac.vocabulary import ExclusionReason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Series", "check_headers", "read_instances"]


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
    frame_numbers
        Which frames of the multi-frame data set `frames` are, if not all.
    n_ignored
        Files of the folder that are not DICOM instances.
    n_duplicates
        Instances dropped because another has the same position and pixels.
    n_other_phases
        Frames left aside because they are of another phase or acquisition (`choose_phase`).
    """

    datasets: tuple[Dataset, ...] = field(repr=False)
    frames: tuple[Frame, ...] = field(repr=False)
    frame_numbers: tuple[int, ...] | None = None
    n_ignored: int = 0
    n_duplicates: int = 0
    n_other_phases: int = 0

    @property
    def is_multi_frame(self) -> bool:
        """Say whether the series is one enhanced (multi-frame) instance."""
        return "PerFrameFunctionalGroupsSequence" in self.datasets[0]


def read_instances(paths: Sequence[Path], criteria: ImageCriteria, *, n_ignored: int = 0) -> Series:
    """Return the one eligible series that the files hold, in whatever order they are.

    Raises
    ------
    DicomError
        Its code is the ExclusionReason: the first that applies of the order file, series,
        modality, size, transfer syntax, image type, contrast, kernel, units, acquisition,
        orientation, phases, thickness, number of slices, spacing.
    """
    with coded(ExclusionReason.UNREADABLE_DICOM, "The series cannot be interpreted"):
        if sum(path.stat().st_size for path in paths) > MOST_BYTES:
            raise exclusion(ExclusionReason.TOO_LARGE, "The files are larger than an exam can be.")
        datasets = read_datasets(paths)
        check_identity(datasets)
        for dataset in datasets:
            check_modality(dataset)
        check_size(datasets)
        for dataset in datasets:
            check_pixel_data(dataset)
        described = _described(datasets, criteria)
        series = _stack(datasets, described, n_ignored + len(paths) - len(datasets), criteria)
        _check_extent(series.frames, criteria)
        return series


def check_headers(datasets: Sequence[Dataset], criteria: ImageCriteria) -> tuple[Frame, ...]:
    """Check the headers of one series, read without pixels; return its frames.

    Raises
    ------
    DicomError
        As `read_series`, but for what only the pixels tell: a series that passes may still fail.
    """
    check_identity(datasets)
    for dataset in datasets:
        check_modality(dataset)
    check_size(datasets)
    described = _described(datasets, criteria)
    frames = tuple(frame for part in described for frame in part)
    check_orientation(frames)
    positions = slice_positions_mm(frames)
    chosen = choose_phase(_places(described, datasets), positions, criteria.preferred_phase_percent)
    kept = sorted(chosen, key=lambda index: float(positions[index]))
    if len(datasets) > 1:
        # Copies of a slice cannot be told from other slices there without their pixels.
        kept = _apart(kept, positions)
    frames = tuple(frames[index] for index in kept)
    _check_extent(frames, criteria)
    return frames


def _apart(ordered: Sequence[int], positions_mm: NDArray[np.float64]) -> list[int]:
    kept = list(ordered[:1])
    for index in ordered[1:]:
        if positions_mm[index] - positions_mm[kept[-1]] > COINCIDENT_MM:
            kept.append(index)
    return kept


def _places(
    described: Sequence[tuple[Frame, ...]], datasets: Sequence[Dataset]
) -> tuple[Place, ...]:
    return tuple(
        (dataset, number)
        for dataset, frames in zip(datasets, described, strict=True)
        for number in range(len(frames))
    )


def _described(
    datasets: Sequence[Dataset], criteria: ImageCriteria
) -> tuple[tuple[Frame, ...], ...]:
    for dataset in datasets:
        if not dataset.get("FrameOfReferenceUID"):
            # De-identifiers drop it although it is type 1. A series has one frame of reference
            # unless it says otherwise, and highdicom only compares the value.
            dataset.FrameOfReferenceUID = dataset.SeriesInstanceUID
    described = tuple(frames_of(dataset) for dataset in datasets)
    frames = [frame for part in described for frame in part]
    check_content(datasets, frames, criteria)
    # By identifier, not by file name, so that renaming changes nothing.
    first = min(range(len(datasets)), key=lambda n: str(datasets[n].get("SOPInstanceUID", "")))
    check_acquisition(datasets[first], described[first][0], criteria.acquisition)
    return described


def _stack(
    datasets: Sequence[Dataset],
    described: Sequence[tuple[Frame, ...]],
    n_ignored: int,
    criteria: ImageCriteria,
) -> Series:
    """Sort the single-frame instances of one phase along z and drop exact duplicates."""
    frames = tuple(frame for part in described for frame in part)
    check_orientation(frames)
    positions = slice_positions_mm(frames)
    chosen = choose_phase(_places(described, datasets), positions, criteria.preferred_phase_percent)
    if len(datasets) == 1:
        return Series(
            datasets=tuple(datasets),
            frames=tuple(frames[index] for index in chosen),
            frame_numbers=tuple(chosen) if len(chosen) < len(frames) else None,
            n_ignored=n_ignored,
            n_other_phases=len(frames) - len(chosen),
        )
    uids = [str(dataset.get("SOPInstanceUID", "")) for dataset in datasets]
    order = sorted(chosen, key=lambda index: (float(positions[index]), uids[index]))
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
    named = [uids[index] for index in kept if uids[index]]
    if len(set(named)) < len(named):
        raise exclusion(
            ExclusionReason.DUPLICATE_INSTANCE, "Two different images share an instance UID."
        )
    return Series(
        datasets=tuple(datasets[index] for index in kept),
        frames=tuple(frames[index] for index in kept),
        n_ignored=n_ignored,
        n_duplicates=len(order) - len(kept),
        n_other_phases=len(datasets) - len(order),
    )


def _is_same_image(one: Dataset, other: Dataset, frame: Frame, other_frame: Frame) -> bool:
    if frame.rescale != other_frame.rescale:
        return False
    # Compared decoded: the same slice may have been sent in two transfer syntaxes.
    with coded(ExclusionReason.CORRUPT_PIXELS, "The pixels cannot be decoded"):
        return bool(np.array_equal(stored_values(one), stored_values(other)))


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
