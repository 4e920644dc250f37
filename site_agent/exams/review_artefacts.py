"""What the site's own physicians review of a scored exam. Nothing here ever leaves the site.

Artefacts are a by-product: whatever goes wrong with them, the exam keeps its score, and a log
learns a code or a class, because the text of an error may quote a header or a path.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from fedcac.errors import FedcacError
from fedcac.imaging.review_artefacts import (
    ModelIdentity,
    ReviewedLesion,
    ReviewedScore,
    write_review_artefacts,
)
from fedcac.imaging.series import read_series
from site_agent.exams.exam_pipeline import score_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedcac.imaging import Volume
    from fedcac.models import ModelPackage, Prediction
    from fedcac.protocol import ImageCriteria
    from fedcac.protocol.categories import CategoryScheme
    from fedcac.scoring import CalciumScore, ScoringProfile
    from fedcac.vocabulary import Vessel
    from site_agent.exams.exam_pipeline import ExamScore
    from site_agent.exams.scoring_queue import IndexExam
    from site_agent.settings import SiteFolder, SiteSettings

__all__ = [
    "ArtefactKinds",
    "ArtefactPlan",
    "ArtefactWriter",
    "model_identity",
    "plan_at",
    "reviewed_score",
]

_LOG = logging.getLogger(__name__)

ArtefactKinds = Literal["overlay", "all"]


def model_identity(package: ModelPackage) -> ModelIdentity:
    """Return what artefacts say of a package."""
    manifest = package.manifest
    return ModelIdentity(
        manifest.name, manifest.version, package.digest, manifest.card.is_demonstration
    )


def reviewed_score(
    score: CalciumScore,
    vessels: Mapping[Vessel, float],
    profile: str,
    *,
    native_score: float | None = None,
    categories: CategoryScheme | None = None,
) -> ReviewedScore:
    """Return a score as artefacts show it.

    `vessels` is empty where the model tells none: then no lesion has a vessel either, whatever the
    scorer called it.
    """
    category = None
    if categories is not None:
        category = categories.labels[int(categories.categorise(np.array([score.total]))[0])]
    return ReviewedScore(
        total=score.total,
        vessels=dict(vessels),
        volume_mm3=score.volume_mm3,
        mass_mg=score.mass_mg,
        lesions=tuple(
            ReviewedLesion(
                slice_index=lesion.slice_index,
                vessel=lesion.vessel if vessels else None,
                area_mm2=lesion.area_mm2,
                peak_hu=lesion.peak_hu,
                factor=lesion.factor,
                score=lesion.score,
            )
            for lesion in score.lesions
        ),
        profile=profile,
        category=category,
        native_score=native_score,
    )


@dataclass(frozen=True)
class ArtefactPlan:
    """Where a site wants artefacts, and which: `overlay`, or `all` for DICOM SEG and SR too."""

    folder: Path
    kinds: ArtefactKinds


def plan_at(folder: SiteFolder, settings: SiteSettings) -> ArtefactPlan | None:
    """Return what a site's settings ask for, None where they ask for nothing."""
    if settings.artefacts == "none":
        return None
    return ArtefactPlan(folder.artefacts_path, settings.artefacts)


@dataclass(frozen=True)
class ArtefactWriter:
    """Writes the artefacts of every exam that is scored, each into its pseudonym's folder.

    Another package or scoring profile writes beside, so that its artefacts replace no others.

    Attributes
    ----------
    plan
        Its folder is `SiteFolder.artefacts_path`, outside the spool.
    profile
        The scoring profile in force.
    criteria
        The protocol's, by which a series is read again for its headers.
    categories
        The protocol's risk categories.
    """

    plan: ArtefactPlan
    model: ModelIdentity
    profile: ScoringProfile
    criteria: ImageCriteria
    categories: CategoryScheme | None = None

    @property
    def folder(self) -> Path:
        """Where this package's and profile's exams lie."""
        digest = self.model.digest.removeprefix("sha256:")[:8]
        name = f"{self.model.name}-{self.model.version}-{digest}-{self.profile.name}"
        return self.plan.folder / name

    def review(
        self, exam: IndexExam, volume: Volume, prediction: Prediction, score: ExamScore
    ) -> None:
        """Write one exam's artefacts, or say in the log that it failed; never raise."""
        try:
            self._write(exam, volume, prediction.vessel_map, score.native_score)
        except FedcacError as error:
            _LOG.warning("the review artefacts of an exam were not written: %s", error.code)
        except Exception as error:
            _LOG.warning(
                "the review artefacts of an exam were not written: %s", type(error).__name__
            )

    def _write(
        self,
        exam: IndexExam,
        volume: Volume,
        vessel_map: NDArray[np.uint8],
        native_score: float | None,
    ) -> None:
        # Scored again, because what the site stores of an exam has no lesions.
        scored = score_mask(volume, vessel_map, self.profile)
        write_review_artefacts(
            self.folder / exam.exam_key,
            read_series(exam.series, self.criteria),
            volume,
            vessel_map,
            reviewed_score(
                scored.score,
                scored.score.vessels,
                self.profile.name,
                native_score=native_score,
                categories=self.categories,
            ),
            self.model,
            pseudonym=exam.exam_key,
            kinds=self.plan.kinds,
        )
