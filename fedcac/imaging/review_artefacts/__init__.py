"""Local review artefacts: DICOM SEG, DICOM SR and an overlay page of one scored exam.

They are for the site's own physicians and never leave: nothing here is a registered aggregate.
"""

from __future__ import annotations

from fedcac.imaging.review_artefacts.content import (
    RESEARCH_USE,
    ModelIdentity,
    ReviewedLesion,
    ReviewedScore,
)
from fedcac.imaging.review_artefacts.writing import (
    OVERLAY_FILE,
    REPORT_FILE,
    SEGMENTATION_FILE,
    write_review_artefacts,
)

__all__ = [
    "OVERLAY_FILE",
    "REPORT_FILE",
    "RESEARCH_USE",
    "SEGMENTATION_FILE",
    "ModelIdentity",
    "ReviewedLesion",
    "ReviewedScore",
    "write_review_artefacts",
]
