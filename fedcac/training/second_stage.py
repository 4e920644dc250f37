"""Fits the second stage of Eng et al. 2021 with predictions out of fold.

npj Digital Medicine 4:88, Methods, 'Algorithm': trees are 'trained and cross-validated using the
same dataset splits as the CNN' (split by patient, stratified), with scores from paired gated CT as
reference. Features of exams that the first stage was trained on are better than a new exam's, so
the caller gives exams that it has not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from fedcac.errors import UsageError
from fedcac.models.second_stage import RISK_CATEGORIES, SecondStage
from fedcac.models.second_stage_features import FEATURE_NAMES
from fedcac.statistics.kappa import Kappa
from fedcac.training.judging import category_kappa

__all__ = [
    "Agreement",
    "SecondStageFit",
    "SecondStageRecipe",
    "SecondStageTarget",
    "agreement_of",
    "fit_second_stage",
    "patient_folds",
]


class SecondStageTarget(StrEnum):
    """What the trees predict: the paper's risk category, or the median of log(1 + score)."""

    CATEGORY = "category"
    LOG_SCORE = "log_score"


@dataclass(frozen=True)
class SecondStageRecipe:
    """How trees are fitted. The paper names no value and no search; these are small trees.

    `n_rounds` boosting rounds of trees of depth `maximum_depth`; `least_weight` is XGBoost's
    `min_child_weight`; `row_share` the share of exams each round draws.
    """

    n_folds: int = 5
    n_rounds: int = 60
    learning_rate: float = 0.1
    maximum_depth: int = 3
    least_weight: float = 1.0
    row_share: float = 0.8


@dataclass(frozen=True)
class Agreement:
    """Agreement with the gated reference over `n_exams`.

    `kappa` is linear over the five risk categories, None where it does not exist;
    `median_absolute_error` is in Agatston units, None where there are no scores.
    """

    n_exams: int
    kappa: Kappa | None
    median_absolute_error: float | None


@dataclass(frozen=True, eq=False)
class SecondStageFit:
    """A second stage fitted on all exams, and what it says of each exam when fitted without it.

    Attributes
    ----------
    model_json
        The content of `second_stage.json`, accepted by `SecondStage.from_bytes`.
    folds
        int64 (n,): the fold in which each exam was held out.
    categories, scores
        (n,): out-of-fold verdicts; `scores` is None for the target `CATEGORY`.
    agreement
        Of the out-of-fold verdicts with the reference.
    """

    model_json: bytes
    folds: NDArray[np.int64]
    categories: NDArray[np.int64]
    scores: NDArray[np.float64] | None
    agreement: Agreement


def patient_folds(
    patients: Sequence[str],
    reference_scores: NDArray[np.float64],
    n_folds: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return the fold of each exam, shape (n,); all exams of a patient are in one fold.

    Patients, in the order of their largest reference score (equals in random order), are dealt to
    the folds in random order, `n_folds` at a time: every fold spans the risk categories.

    Raises
    ------
    UsageError
        `too_few_patients` if there are fewer patients than folds, or fewer than two folds.
    """
    names, exam_patient = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)
    if n_folds < 2 or names.size < n_folds:
        raise UsageError(
            f"{names.size} patients cannot make {n_folds} folds.",
            code="too_few_patients",
            cure="Give more patients, or at least two and at most as many folds as patients.",
        )
    largest = np.full(names.size, -np.inf)
    np.maximum.at(largest, exam_patient, reference_scores)
    order = np.lexsort((rng.permutation(names.size), largest))
    fold = np.empty(names.size, dtype=np.int64)
    for start in range(0, names.size, n_folds):
        dealt = order[start : start + n_folds]
        fold[dealt] = rng.permutation(n_folds)[: dealt.size]
    return np.asarray(fold[exam_patient])


def agreement_of(
    reference_scores: NDArray[np.float64],
    categories: NDArray[np.int64],
    scores: NDArray[np.float64] | None,
) -> Agreement:
    """Return the agreement of verdicts, shapes (n,), with reference scores, shape (n,)."""
    reference = RISK_CATEGORIES.categorise(reference_scores)
    kappa = category_kappa(reference, categories, RISK_CATEGORIES.n_categories)
    error = None if scores is None else float(np.median(np.abs(scores - reference_scores)))
    return Agreement(len(reference_scores), kappa, error)


def fit_second_stage(
    features: NDArray[np.float64],
    reference_scores: NDArray[np.float64],
    patients: Sequence[str],
    *,
    slice_increment_mm: float,
    target: SecondStageTarget = SecondStageTarget.CATEGORY,
    recipe: SecondStageRecipe | None = None,
    seed: int = 1,
) -> SecondStageFit:
    """Fit on all exams, and once per fold without it. The same arguments give the same bytes.

    Parameters
    ----------
    features
        (n, 20), rows from `summarise_exam` of non-gated exams.
    reference_scores
        (n,): Agatston scores of the paired gated exams, at least 0.
    patients
        n names, equal for exams of one patient. They decide the folds and are not kept.
    slice_increment_mm
        Slice increment of the exams in mm, written into the model.

    Raises
    ------
    UsageError
        `too_few_patients`, see `patient_folds`.
    ValueError
        If shapes differ, or a feature or score is not finite, or a score is negative.
    """
    recipe = SecondStageRecipe() if recipe is None else recipe
    n_exams = len(patients)
    if features.shape != (n_exams, len(FEATURE_NAMES)) or reference_scores.shape != (n_exams,):
        raise ValueError(f"features must be (n, {len(FEATURE_NAMES)}), one row per exam")
    if not np.all(np.isfinite(features)):
        raise ValueError("a feature is not finite")
    categories = RISK_CATEGORIES.categorise(reference_scores)
    labels = categories if target is SecondStageTarget.CATEGORY else np.log1p(reference_scores)
    folds = patient_folds(
        patients, reference_scores, recipe.n_folds, np.random.default_rng((seed, 0))
    )
    increments = np.full(n_exams, slice_increment_mm)
    found = np.empty(n_exams, dtype=np.int64)
    scores = np.empty(n_exams) if target is SecondStageTarget.LOG_SCORE else None
    for fold in range(recipe.n_folds):
        is_out = folds == fold
        model = _fit(features[~is_out], labels[~is_out], target, recipe, slice_increment_mm, seed)
        verdicts = SecondStage.from_bytes(model).predict(features[is_out], increments[is_out])
        found[is_out] = verdicts.categories
        if scores is not None and verdicts.scores is not None:
            scores[is_out] = verdicts.scores
    return SecondStageFit(
        model_json=_fit(features, labels, target, recipe, slice_increment_mm, seed),
        folds=folds,
        categories=found,
        scores=scores,
        agreement=agreement_of(reference_scores, found, scores),
    )


def _fit(
    features: NDArray[np.float64],
    labels: NDArray[Any],
    target: SecondStageTarget,
    recipe: SecondStageRecipe,
    slice_increment_mm: float,
    seed: int,
) -> bytes:
    objective: dict[str, object] = {"objective": "reg:absoluteerror"}
    if target is SecondStageTarget.CATEGORY:
        n_categories = RISK_CATEGORIES.n_categories
        objective = {"objective": "multi:softprob", "num_class": n_categories}
    booster = xgboost.train(
        {
            **objective,
            "eta": recipe.learning_rate,
            "max_depth": recipe.maximum_depth,
            "min_child_weight": recipe.least_weight,
            "subsample": recipe.row_share,
            # One thread: sums are always taken in one order, so the bytes repeat.
            "tree_method": "hist",
            "nthread": 1,
            "seed": seed,
            "verbosity": 0,
        },
        xgboost.DMatrix(features, label=labels, feature_names=list(FEATURE_NAMES), nthread=1),
        num_boost_round=recipe.n_rounds,
    )
    booster.set_attr(slice_increment_mm=f"{slice_increment_mm:.4f}".rstrip("0").rstrip("."))
    return bytes(booster.save_raw("json"))
