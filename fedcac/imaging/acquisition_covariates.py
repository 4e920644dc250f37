"""Scanner, slice thickness, kernel, voltage, contrast and gating of a series, as covariates.

Read from headers alone. Nothing here identifies a patient, and nothing of it leaves a site but in
an aggregate that passed the gate, as with any covariate.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedcac.imaging.acquisition import Acquisition, judge
from fedcac.imaging.coding import coded
from fedcac.imaging.eligibility import has_contrast
from fedcac.imaging.files import find_instances, locate_series, read_datasets
from fedcac.imaging.frames import Frame, frames_of, header_value
from fedcac.imaging.kernels import is_sharp_kernel
from fedcac.imaging.selection import select_series
from fedcac.imaging.words import Topic, topics_of
from fedcac.protocol.header_covariates import OTHER
from fedcac.vocabulary import ExclusionReason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from fedcac.protocol import Covariate, ImageCriteria

__all__ = ["AcquisitionFacts", "covariate_value", "normalised_vendor", "read_acquisition"]

# What makers have written into Manufacturer (0008,0070), by the name they trade under now: Toshiba
# became Canon, Hitachi's scanners Fujifilm's, Marconi's and Picker's Philips's.
_VENDORS = {
    "GE": r"^ge\b|general electric|gehc|\bge ?(medical|healthcare)",
    "Siemens": r"siemens",
    "Philips": r"philips|marconi|picker|\badac\b",
    "Canon": r"canon|toshiba",
    "Fujifilm": r"fuji|hitachi",
    "United Imaging": r"united[ _-]*imaging|\buih\b",
    "Neusoft": r"neusoft|^nms\b",
    "Samsung": r"samsung|neurologica",
    "Shimadzu": r"shimadzu",
    "Agfa": r"agfa",
    "Carestream": r"carestream|kodak",
    "Konica Minolta": r"konica|minolta",
}
_COMPILED = {name: re.compile(pattern) for name, pattern in _VENDORS.items()}


@dataclass(frozen=True)
class AcquisitionFacts:
    """What the header of one series says of its acquisition; None where it does not say.

    Attributes
    ----------
    scanner_manufacturer
        One of `fedcac.protocol.header_covariates.VENDORS`, or `other`.
    slice_thickness_mm
        The largest of the series' slices, mm.
    kernel_class
        `soft` or `sharp` (`is_sharp_kernel`).
    tube_voltage_kv
        kV, if it is one and the same along the series.
    contrast_enhanced
        Whether a contrast agent is recorded or described (PS3.3 C.7.6.4: absent where none was
        given).
    ecg_gated
        The verdict of `judge`; a series for attenuation correction is not gated.
    """

    scanner_manufacturer: str | None
    slice_thickness_mm: float | None
    kernel_class: str | None
    tube_voltage_kv: float | None
    contrast_enhanced: bool
    ecg_gated: bool | None


def normalised_vendor(manufacturer: str) -> str | None:
    """Return one name for all spellings of a vendor, `other` for any else, None where blank."""
    plain = " ".join(manufacturer.casefold().split())
    if not plain:
        return None
    return next((name for name, words in _COMPILED.items() if words.search(plain)), OTHER)


def read_acquisition(path: Path, criteria: ImageCriteria) -> AcquisitionFacts:
    """Read the headers of the series that the criteria choose at a path, without pixels.

    Raises
    ------
    DicomError
        As `select_series`, where there is a choice; `no_such_path`, `no_dicom`,
        `unreadable_dicom`, `missing_geometry`.
    """
    with coded(ExclusionReason.UNREADABLE_DICOM, "The header cannot be interpreted"):
        folder, series_uid = locate_series(path)
        if series_uid is not None or criteria.choose_series:
            paths: Sequence[Path] = select_series(folder, criteria, series_uid).chosen.paths
        else:
            paths, _ = find_instances(path)
        datasets = read_datasets(paths, stop_before_pixels=True)
        # By identifier, not by file name, so that renaming changes nothing.
        datasets.sort(key=lambda dataset: str(dataset.get("SOPInstanceUID", "")))
        return _facts(datasets)


def covariate_value(covariate: Covariate, facts: AcquisitionFacts) -> float:
    """Return a covariate's value as exam records code it; NaN where the header does not tell it.

    A level is coded by its place among the declared ones; a manufacturer that is none of them by
    that of `other`. A number outside the declared range is no value, as in a table.
    """
    value = getattr(facts, covariate.name)
    if value is None:
        return math.nan
    if covariate.type == "categorical":
        levels = [level.casefold() for level in covariate.levels]
        for level in (value, *([OTHER] if covariate.name == "scanner_manufacturer" else [])):
            if level.casefold() in levels:
                return float(levels.index(level.casefold()))
        return math.nan
    number = float(value)
    low = -math.inf if covariate.minimum is None else covariate.minimum
    high = math.inf if covariate.maximum is None else covariate.maximum
    return number if low <= number <= high else math.nan


def _facts(datasets: Sequence[Dataset]) -> AcquisitionFacts:
    first = datasets[0]
    # A radiograph has no slices, planes or kernel.
    frames = [f for d in datasets for f in frames_of(d)] if first.get("Modality") == "CT" else []
    described = topics_of(str(first.get("SeriesDescription", "")))
    thickness = max((frame.thickness_mm or 0.0 for frame in frames), default=0.0)
    voltages = {_voltage(dataset) for dataset in datasets} | {frame.kvp for frame in frames}
    return AcquisitionFacts(
        scanner_manufacturer=normalised_vendor(str(header_value(first, "Manufacturer") or "")),
        slice_thickness_mm=thickness or None,
        kernel_class=_kernel_class(frames),
        tube_voltage_kv=voltages.pop() if len(voltages) == 1 else None,
        contrast_enhanced=any(map(has_contrast, datasets)) or Topic.CONTRAST in described,
        ecg_gated=_is_gated(first, frames),
    )


def _voltage(dataset: Dataset) -> float | None:
    value = header_value(dataset, "KVP")
    return None if value is None else float(value) or None


def _kernel_class(frames: Sequence[Frame]) -> str | None:
    classes = {("sharp" if is_sharp_kernel(f.kernel) else "soft") for f in frames if f.kernel}
    return classes.pop() if len(classes) == 1 else None


def _is_gated(dataset: Dataset, frames: Sequence[Frame]) -> bool | None:
    verdict = judge(dataset, frames[0]).acquisition if frames else None
    return None if verdict is None else verdict is Acquisition.GATED
