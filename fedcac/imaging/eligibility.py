"""Hard rejects that need no geometry: what one instance or one series must be to be scored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from fedcac.imaging.coding import exclusion
from fedcac.imaging.frames import Frame, header_value
from fedcac.imaging.kernels import is_sharp_kernel
from fedcac.protocol import ImageCriteria
from fedcac.vocabulary import ExclusionReason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = [
    "check_content",
    "check_identity",
    "check_modality",
    "has_contrast",
    "is_grey",
    "names_agent",
]

_CT_CLASSES = frozenset(
    {CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}
)

# Values of ImageType that name a reformation or projection even where value 1 says ORIGINAL; as
# words, because LOSSY COMPRESSED contains one of them.
_REFORMATION = re.compile(
    r"(?<![A-Z])(3D)?(MPR|MIP|MINIP)(?![A-Z])|REFORMATTED|PROJECTION IMAGE|VOLUME RENDER"
)

# What is written into ContrastBolusAgent to say that there was none. The whole value must say so:
# 'no oral contrast' names nothing of what was injected.
_NO_AGENT = re.compile(
    r"(none|nil|null|no|n|n/?a|0|-+|\.|unenhanced|nativ\w*|plain)"
    r"|(no|non|not?|w/?o|without|ohne|sans|sin|senza|sem|zonder|utan|uden)[ -]?"
    r"(iv )?(contrast\w*|kontrast\w*|km|mdc|pdc|injection|agent|media|given|used|administered)?",
    re.IGNORECASE,
)


def check_identity(datasets: Sequence[Dataset]) -> None:
    """Check that the instances are one series on one grid of rows and columns.

    Raises
    ------
    DicomError
        `mixed_series` or `inconsistent_geometry`.
    """
    for keyword in ("SeriesInstanceUID", "StudyInstanceUID", "PatientID"):
        if len({str(dataset.get(keyword, "")) for dataset in datasets}) > 1:
            raise exclusion(
                ExclusionReason.MIXED_SERIES,
                "The files belong to more than one series, study or patient.",
            )
    for keyword in ("Rows", "Columns", "FrameOfReferenceUID"):
        values = {dataset.get(keyword) for dataset in datasets}
        if len(values) > 1:
            raise exclusion(
                ExclusionReason.INCONSISTENT_GEOMETRY, f"The instances differ in {keyword}."
            )
    is_enhanced = "PerFrameFunctionalGroupsSequence" in datasets[0]
    if is_enhanced and len(datasets) > 1:
        raise exclusion(
            ExclusionReason.INCONSISTENT_GEOMETRY,
            "The series consists of several multi-frame instances.",
        )


def check_modality(dataset: Dataset) -> None:
    """Check that an instance is a CT image.

    Raises
    ------
    DicomError
        `wrong_modality`.
    """
    if dataset.get("Modality") != "CT" or dataset.SOPClassUID not in _CT_CLASSES:
        raise exclusion(ExclusionReason.WRONG_MODALITY, "An instance is not a CT image.")


def check_content(
    datasets: Sequence[Dataset], frames: Sequence[Frame], criteria: ImageCriteria
) -> None:
    """Check colours, image type, contrast, kernel and units.

    Raises
    ------
    DicomError
        `localizer`, `derived_image`, `contrast_enhanced`, `sharp_kernel` or `not_hounsfield`.
    """
    if not all(map(is_grey, datasets)):
        raise exclusion(ExclusionReason.NOT_HOUNSFIELD, "An instance is not a grey-scale image.")
    for frame in frames:
        _check_image_type(frame.image_type)
    if not criteria.allow_contrast and any(has_contrast(dataset) for dataset in datasets):
        raise exclusion(ExclusionReason.CONTRAST_ENHANCED, "The header names a contrast agent.")
    if not criteria.allow_sharp_kernel and any(is_sharp_kernel(f.kernel) for f in frames):
        raise exclusion(ExclusionReason.SHARP_KERNEL, "The reconstruction kernel is sharp.")
    for frame in frames:
        _check_units(frame)


def _check_image_type(image_type: tuple[str, ...]) -> None:
    if "LOCALIZER" in image_type:
        raise exclusion(ExclusionReason.LOCALIZER, "An instance is a localizer.")
    is_reformed = any(_REFORMATION.search(value) for value in image_type)
    if is_reformed or image_type[:1] not in ((), ("ORIGINAL",)):
        raise exclusion(
            ExclusionReason.DERIVED_IMAGE, "The images are derived, not the original slices."
        )


def is_grey(dataset: Dataset) -> bool:
    """Say whether an instance has one grey sample per pixel (PS3.3 C.7.6.3.1.2)."""
    photometric = dataset.get("PhotometricInterpretation")
    return dataset.get("SamplesPerPixel") == 1 and photometric in ("MONOCHROME1", "MONOCHROME2")


def has_contrast(dataset: Dataset) -> bool:
    """Say whether the header names a contrast agent; an empty attribute is not contrast.

    Nor is one that says NONE or the like, as some consoles fill it in.
    """
    agent = str(header_value(dataset, "ContrastBolusAgent") or "")
    return names_agent(agent) or bool(header_value(dataset, "ContrastBolusAgentSequence"))


def names_agent(agent: str) -> bool:
    """Say whether a ContrastBolusAgent (0018,0010) names an agent, and not that there was none."""
    return bool(agent.strip()) and _NO_AGENT.fullmatch(agent.strip()) is None


def _check_units(frame: Frame) -> None:
    if frame.rescale is None:
        raise exclusion(ExclusionReason.NOT_HOUNSFIELD, "There is no rescale slope or intercept.")
    if frame.rescale_type not in ("", "HU"):
        raise exclusion(ExclusionReason.NOT_HOUNSFIELD, "RescaleType is not HU.")
    if not np.isfinite(frame.rescale).all() or frame.rescale[0] <= 0:
        raise exclusion(ExclusionReason.NOT_HOUNSFIELD, "The rescale slope is not positive.")
