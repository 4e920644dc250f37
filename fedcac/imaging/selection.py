"""Which series of a study is read: hard rejects first, then preference, every reason kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fedcac.errors import DicomError
from fedcac.imaging.acquisition import AcquisitionVerdict, judge
from fedcac.imaging.coding import coded, exclusion, reason_of, told_reason
from fedcac.imaging.files import find_instances, read_dataset
from fedcac.imaging.frames import Frame, frames_of, header_value
from fedcac.imaging.instances import check_headers
from fedcac.imaging.kernels import is_sharp_kernel
from fedcac.imaging.words import Topic, topics_of
from fedcac.protocol import ImageCriteria
from fedcac.vocabulary import ExclusionReason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Candidate", "Selection", "select_series", "survey_series"]

# What a description says and ImageType does not always: checked where there is a choice.
_DESCRIBED_REJECTS = {
    Topic.SCOUT: ExclusionReason.LOCALIZER,
    Topic.REFORMATION: ExclusionReason.DERIVED_IMAGE,
    Topic.DOSE_REPORT: ExclusionReason.DERIVED_IMAGE,
}

_Preference = tuple[int, bool, int, float, int, int, str]


@dataclass(frozen=True)
class Candidate:
    """One series of a study as its headers describe it. repr shows no identifier or path.

    Attributes
    ----------
    series_uid, paths
        SeriesInstanceUID and the files of the series.
    rejection
        Why it cannot be read under the criteria; None if the headers speak for it.
    verdict
        How it was acquired, with the evidence; None where it was rejected for another reason.
    preference
        Sort key among those not rejected: the smallest is taken. (acquisition left open, sharp
        kernel, rank among the preferred kernels, distance to the preferred thickness in mm,
        number of slices negated, SeriesNumber, UID).
    n_slices, thickness_mm, kernel
        For the record of the choice.
    """

    series_uid: str = field(repr=False)
    paths: tuple[Path, ...] = field(repr=False)
    rejection: ExclusionReason | None
    verdict: AcquisitionVerdict | None = None
    preference: _Preference | None = field(default=None, repr=False)
    n_slices: int = 0
    thickness_mm: float | None = None
    kernel: str = ""


@dataclass(frozen=True)
class Selection:
    """The series chosen, and every candidate with its reasons; `n_ignored` files are not DICOM."""

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    n_ignored: int


def survey_series(path: Path, criteria: ImageCriteria) -> tuple[tuple[Candidate, ...], int]:
    """Return every series at a folder, by its headers, and how many files are not DICOM.

    Raises
    ------
    DicomError
        `no_such_path`, `no_dicom`, `unreadable_dicom`, `truncated_dicom` or `too_large`: of a
        file that cannot be read nobody knows to which series it belongs. `mixed_series` if the
        files are of more than one study or patient.
    """
    with coded(ExclusionReason.UNREADABLE_DICOM, "The study cannot be interpreted"):
        paths, n_ignored = find_instances(path)
        groups: dict[str, list[tuple[Path, Dataset]]] = {}
        for file in paths:
            dataset = read_dataset(file, stop_before_pixels=True)
            if dataset is None:
                n_ignored += 1
            else:
                groups.setdefault(str(dataset.SeriesInstanceUID), []).append((file, dataset))
        if not groups:
            raise exclusion(ExclusionReason.NO_DICOM, "There is only a media directory here.")
        _check_one_study([dataset for group in groups.values() for _, dataset in group])
        return tuple(_candidate(uid, groups[uid], criteria) for uid in sorted(groups)), n_ignored


def _check_one_study(datasets: Sequence[Dataset]) -> None:
    for keyword in ("StudyInstanceUID", "PatientID"):
        if len({str(dataset.get(keyword, "")) for dataset in datasets}) > 1:
            raise exclusion(
                ExclusionReason.MIXED_SERIES, "The files belong to more than one study or patient."
            )


def _candidate(
    series_uid: str, instances: Sequence[tuple[Path, Dataset]], criteria: ImageCriteria
) -> Candidate:
    # By identifier, not by file name, so that renaming changes nothing.
    ordered = sorted(instances, key=lambda pair: str(pair[1].get("SOPInstanceUID", "")))
    paths = tuple(path for path, _ in ordered)
    datasets = [dataset for _, dataset in ordered]
    try:
        with coded(ExclusionReason.UNREADABLE_DICOM, "The series cannot be interpreted"):
            frames = check_headers(datasets, criteria)
            _check_descriptions(datasets[0], criteria)
            verdict = judge(datasets[0], frames[0])
            preference = _preference(datasets[0], frames, verdict, criteria)
    except DicomError as error:
        reason = reason_of(error)
        is_judged = reason is ExclusionReason.WRONG_ACQUISITION
        return Candidate(series_uid, paths, reason, _verdict(datasets[0]) if is_judged else None)
    return Candidate(
        series_uid,
        paths,
        None,
        verdict,
        preference,
        n_slices=len(frames),
        thickness_mm=frames[0].thickness_mm,
        kernel=frames[0].kernel,
    )


def _verdict(dataset: Dataset) -> AcquisitionVerdict:
    return judge(dataset, frames_of(dataset)[0])


def _check_descriptions(dataset: Dataset, criteria: ImageCriteria) -> None:
    topics = topics_of(str(dataset.get("SeriesDescription", "")))
    for topic, reason in _DESCRIBED_REJECTS.items():
        if topic in topics:
            raise exclusion(reason, f"The series is described as a {topic}.")
    if Topic.CONTRAST in topics and not criteria.allow_contrast:
        raise exclusion(ExclusionReason.CONTRAST_ENHANCED, "The description names contrast.")


def _preference(
    dataset: Dataset,
    frames: Sequence[Frame],
    verdict: AcquisitionVerdict,
    criteria: ImageCriteria,
) -> _Preference:
    kernel = frames[0].kernel
    preferred = [name.casefold() for name in criteria.preferred_kernels]
    rank = preferred.index(kernel.casefold()) if kernel.casefold() in preferred else len(preferred)
    is_asked_for = criteria.acquisition in ("any", verdict.acquisition)
    thickness = frames[0].thickness_mm or criteria.max_slice_thickness_mm
    return (
        int(not is_asked_for),
        is_sharp_kernel(kernel),
        rank,
        round(abs(thickness - criteria.preferred_thickness_mm), 3),
        -len(frames),
        int(header_value(dataset, "SeriesNumber") or 0),
        str(dataset.SeriesInstanceUID),
    )


def select_series(path: Path, criteria: ImageCriteria, series_uid: str | None = None) -> Selection:
    """Choose the series of a study that the criteria prefer, or the one that is named.

    A `series_uid`, as the path of a manifest may state it, overrides preference and descriptions,
    and nothing else: the named series is read under the same criteria as one in its own folder.

    Raises
    ------
    DicomError
        `series_not_found` if the named series is not there; `told_reason` of the candidates if
        none is eligible; and as `survey_series`.
    """
    candidates, n_ignored = survey_series(path, criteria)
    if series_uid is not None:
        named = [one for one in candidates if one.series_uid == series_uid]
        if not named:
            raise exclusion(ExclusionReason.SERIES_NOT_FOUND, "The series named is not here.")
        return Selection(named[0], candidates, n_ignored)
    eligible = [one for one in candidates if one.preference is not None]
    if not eligible:
        reasons = [one.rejection for one in candidates if one.rejection is not None]
        raise exclusion(told_reason(reasons), f"None of {len(candidates)} series here is eligible.")
    return Selection(min(eligible, key=_preferred_first), candidates, n_ignored)


def _preferred_first(candidate: Candidate) -> _Preference:
    if candidate.preference is None:
        raise ValueError("a rejected series has no preference")
    return candidate.preference
