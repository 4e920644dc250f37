"""A package's second stage at work: one exam's mask in, the model's own score out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedcac.errors import PackageError

if TYPE_CHECKING:
    from fedcac.models.second_stage import Verdicts

__all__ = ["SecondStageJudge"]


class SecondStageJudge:
    """Judges masks with checked boosted trees.

    Raises
    ------
    PackageError
        `second_stage_...` if the file is not acceptable.
    """

    def __init__(self, payload: bytes) -> None:
        # XGBoost is needed by the packages that bring a second stage, and by no other.
        from fedcac.models.second_stage import SecondStage

        self._stage = SecondStage.from_bytes(payload)

    def native_score(
        self,
        hu: NDArray[np.float32],
        vessel_map: NDArray[np.uint8],
        spacing_mm: tuple[float, float, float],
    ) -> float | None:
        """Return the calibrated Agatston score of an exam.

        None where the trees give a category instead of a score, or where they were fitted on
        another slice increment and have no say.
        """
        verdicts = self._verdicts(hu, vessel_map, spacing_mm)
        if verdicts is None or verdicts.scores is None:
            return None
        return float(verdicts.scores[0])

    def category(
        self,
        hu: NDArray[np.float32],
        vessel_map: NDArray[np.uint8],
        spacing_mm: tuple[float, float, float],
    ) -> int | None:
        """Return the index of the risk category, 0 to 4; None as for `native_score`'s increment."""
        verdicts = self._verdicts(hu, vessel_map, spacing_mm)
        return None if verdicts is None else int(verdicts.categories[0])

    def _verdicts(
        self,
        hu: NDArray[np.float32],
        vessel_map: NDArray[np.uint8],
        spacing_mm: tuple[float, float, float],
    ) -> Verdicts | None:
        from fedcac.models.second_stage_features import summarise_exam

        # Which vessel it is makes no feature, and a label for an unknown one is not expected there.
        features = summarise_exam(hu, (vessel_map > 0).astype(np.uint8), spacing_mm)
        try:
            return self._stage.predict(features[None], np.array([spacing_mm[0]]))
        except PackageError as error:
            if error.code != "package.second_stage_increment":
                raise
            return None
