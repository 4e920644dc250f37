"""The second stage of Eng et al. 2021: from a non-gated exam's mask to its gated score.

npj Digital Medicine 4:88, Methods, 'Algorithm': on non-gated exams the first stage's segmentation
is summed up by 20 numbers (`fedcac.models.second_stage_features`), which gradient-boosted trees
turn into the risk category of the paired gated exam.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import xgboost
from numpy.typing import NDArray

from fedcac.errors import PackageError
from fedcac.models.second_stage_document import N_CATEGORIES, BoosterDocument, read_booster
from fedcac.models.second_stage_features import FEATURE_NAMES
from fedcac.protocol import CategoryScheme

__all__ = ["INCREMENT_TOLERANCE", "RISK_CATEGORIES", "SecondStage", "Verdicts"]

RISK_CATEGORIES = CategoryScheme(
    cut_offs=(1.0, 10.0, 100.0, 400.0), labels=("0", "1-10", "11-100", "101-400", ">400")
)
"""The paper's buckets I-V: 0, 1-10, 11-100, 101-400, over 400."""

INCREMENT_TOLERANCE = 0.1
"""Relative difference from the fitted slice increment up to which an exam is judged.

Areas and peaks of a slice depend on its thickness through partial volume, so trees fitted on the
paper's 5 mm slices know nothing of 1 mm ones; 10 % admits 4.5 to 5.5 mm.
"""


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What a second stage says of n exams.

    Attributes
    ----------
    categories
        int64 (n,): index of the risk category, 0 to 4 in the order of `RISK_CATEGORIES`.
    probabilities
        float64 (n, 5), rows summing to 1; None from a regression.
    scores
        float64 (n,): calibrated Agatston scores, at least 0; None from a classifier, which knows
        no score within a category.
    """

    categories: NDArray[np.int64]
    probabilities: NDArray[np.float64] | None
    scores: NDArray[np.float64] | None


class SecondStage:
    """Checked boosted trees. Make one with `from_bytes`; the same input gives the same output.

    Notes
    -----
    The paper's trees classify 'entire exams into CVD risk buckets I-V': objective
    `multi:softprob`, whose most probable category (the lower of equals) is the verdict. They give
    no score, so bias, correlation and limits of agreement have no second-stage value in the paper.
    Where a study needs a calibrated score, the same 20 features and `reg:absoluteerror` predict
    the median of log(1 + Agatston score of the gated exam), hence the score's median: many exams
    without a lesion share 20 zeros, and the mean of their logarithms would call all of them 1-10.
    This is an addition of this project, not of the paper. Other ambiguities: neither the size of
    the trees nor the learning rate nor a search for them is stated, nor how a bucket is chosen from
    its probabilities.
    """

    def __init__(self, document: BoosterDocument) -> None:
        self._document = document
        self._booster = xgboost.Booster(params={"nthread": 1})
        try:
            self._booster.load_model(bytearray(document.to_bytes()))
        except xgboost.core.XGBoostError as error:
            # Its message can quote the file.
            raise PackageError(
                "XGBoost does not load the second stage.",
                code="second_stage_malformed",
                cure="Ask whoever made the package for trees fitted with this release.",
            ) from error
        self._booster.set_param({"nthread": 1, "device": "cpu"})

    @classmethod
    def from_bytes(cls, payload: bytes) -> Self:
        """Return the second stage of an XGBoost JSON file.

        Raises
        ------
        PackageError
            See `fedcac.models.second_stage_document.read_booster`.
        """
        return cls(read_booster(payload))

    @property
    def is_classifier(self) -> bool:
        """Whether it gives categories (the paper's target) rather than scores."""
        return self._document.is_classifier

    @property
    def slice_increment_mm(self) -> float:
        """The slice increment of the exams it was fitted on, in mm."""
        return self._document.slice_increment_mm

    def predict(
        self, features: NDArray[np.float64], slice_increments_mm: NDArray[np.float64]
    ) -> Verdicts:
        """Return the verdicts on exams.

        Parameters
        ----------
        features
            (n, 20), rows from `summarise_exam`.
        slice_increments_mm
            (n,): the exams' slice increments in mm.

        Raises
        ------
        ValueError
            If shapes differ or a feature is not finite.
        PackageError
            `second_stage_increment` if an increment differs from the fitted one by more than
            `INCREMENT_TOLERANCE`.
        """
        if features.shape != (len(slice_increments_mm), len(FEATURE_NAMES)):
            raise ValueError(f"features must be (n, {len(FEATURE_NAMES)}), one row per increment")
        if not np.all(np.isfinite(features)):
            raise ValueError("a feature is not finite")
        self._check_increments(np.asarray(slice_increments_mm, dtype=np.float64))
        if not len(features):
            return self._verdicts(np.zeros((0, N_CATEGORIES if self.is_classifier else 1)))
        matrix = xgboost.DMatrix(features, feature_names=list(FEATURE_NAMES), nthread=1)
        return self._verdicts(np.asarray(self._booster.predict(matrix, strict_shape=True)))

    def _verdicts(self, output: NDArray[np.floating[Any]]) -> Verdicts:
        values = output.astype(np.float64)
        if self.is_classifier:
            return Verdicts(values.argmax(axis=1).astype(np.int64), values, None)
        scores = np.maximum(np.expm1(values[:, 0]), 0.0)
        return Verdicts(RISK_CATEGORIES.categorise(scores), None, scores)

    def _check_increments(self, slice_increments_mm: NDArray[np.float64]) -> None:
        fitted = self.slice_increment_mm
        is_known = np.abs(slice_increments_mm - fitted) <= INCREMENT_TOLERANCE * fitted * (1 + 1e-9)
        if not np.all(is_known):
            raise PackageError(
                f"The second stage was fitted on slices {fitted:g} mm apart; an exam has others.",
                code="second_stage_increment",
                cure="Reconstruct the exams at the fitted increment, or leave the second stage out "
                "of the protocol.",
            )
