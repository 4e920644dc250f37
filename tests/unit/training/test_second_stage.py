"""Fitting the second stage: folds never split a patient, verdicts are out of fold and seeded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcac.errors import UsageError
from fedcac.models.second_stage import RISK_CATEGORIES, SecondStage
from fedcac.training.second_stage import (
    SecondStageFit,
    SecondStageRecipe,
    SecondStageTarget,
    agreement_of,
    fit_second_stage,
    patient_folds,
)

RECIPE = SecondStageRecipe(n_folds=4, n_rounds=25, learning_rate=0.2)
BOTH = pytest.mark.parametrize("target", list(SecondStageTarget))


def exams(n_exams: int = 120) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Return features whose first half under-reads the score by a known power; two per patient."""
    rng = np.random.default_rng(12)
    scores = np.where(rng.random(n_exams) < 0.25, 0.0, rng.lognormal(np.log(90), 1.8, n_exams))
    features = rng.gamma(1.0, 20.0, (n_exams, 20))
    features[:, 0] = scores**0.6 * rng.lognormal(0, 0.1, n_exams)
    features[:, 2] = features[:, 0] * rng.uniform(150, 400, n_exams)
    return features, scores, [f"p{number // 2}" for number in range(n_exams)]


def fit(target: SecondStageTarget, seed: int = 1) -> SecondStageFit:
    features, scores, patients = exams()
    return fit_second_stage(
        features,
        scores,
        patients,
        slice_increment_mm=5.0,
        target=target,
        recipe=RECIPE,
        seed=seed,
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_folds=st.integers(2, 6),
    exams_each=st.lists(st.integers(1, 4), min_size=6, max_size=40),
)
def test_no_patient_is_in_two_folds_and_folds_are_even(
    seed: int, n_folds: int, exams_each: list[int]
) -> None:
    patients = [f"p{number}" for number, count in enumerate(exams_each) for _ in range(count)]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(patients))
    patients = [patients[index] for index in order]
    scores = rng.choice([0.0, 5.0, 50.0, 900.0], len(patients))
    folds = patient_folds(patients, scores, n_folds, rng)
    of_patient = {
        name: {int(fold) for fold, other in zip(folds, patients, strict=True) if other == name}
        for name in patients
    }
    assert all(len(found) == 1 for found in of_patient.values())
    counts = np.bincount([found.pop() for found in of_patient.values()], minlength=n_folds)
    assert counts.size == n_folds
    assert counts.max() - counts.min() <= 1


def test_every_fold_spans_the_categories() -> None:
    _, scores, _ = exams(200)
    folds = patient_folds(
        [str(number) for number in range(200)], scores, 5, np.random.default_rng(3)
    )
    categories = RISK_CATEGORIES.categorise(scores)
    for category in range(5):
        per_fold = np.bincount(folds[categories == category], minlength=5)
        assert per_fold.max() - per_fold.min() <= 2


def test_fewer_patients_than_folds_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        patient_folds(["a", "a", "b"], np.zeros(3), 3, np.random.default_rng(0))
    assert caught.value.code == "usage.too_few_patients"
    with pytest.raises(UsageError):
        patient_folds(["a", "b"], np.zeros(2), 1, np.random.default_rng(0))


@BOTH
def test_a_fit_repeats_itself_and_its_bytes_are_an_acceptable_model(
    target: SecondStageTarget,
) -> None:
    first, again = fit(target), fit(target)
    assert first.model_json == again.model_json
    np.testing.assert_array_equal(first.categories, again.categories)
    np.testing.assert_array_equal(first.folds, again.folds)
    other = fit(target, seed=2)
    assert other.model_json != first.model_json
    assert not np.array_equal(other.folds, first.folds)
    stage = SecondStage.from_bytes(first.model_json)
    assert stage.is_classifier is (target is SecondStageTarget.CATEGORY)
    assert stage.slice_increment_mm == 5.0


@BOTH
def test_a_fold_is_judged_without_having_been_seen(target: SecondStageTarget) -> None:
    """The held-out exams' own reference scores must not reach their verdicts."""
    features, scores, patients = exams()
    honest = fit(target)
    is_out = honest.folds == 0
    shuffled = scores.copy()
    # Within the fold alone, and in one place of the order: the folds stay what they were.
    shuffled[is_out] = shuffled[is_out] * 1.0001
    altered = fit_second_stage(
        features, shuffled, patients, slice_increment_mm=5.0, target=target, recipe=RECIPE
    )
    np.testing.assert_array_equal(altered.folds, honest.folds)
    np.testing.assert_array_equal(altered.categories[is_out], honest.categories[is_out])
    if honest.scores is not None and altered.scores is not None:
        np.testing.assert_array_equal(altered.scores[is_out], honest.scores[is_out])
        assert not np.array_equal(altered.scores[~is_out], honest.scores[~is_out])


@BOTH
def test_a_patient_that_is_recognised_gains_nothing(target: SecondStageTarget) -> None:
    """Four like exams per patient, scores at random: only a leak could predict them."""
    rng = np.random.default_rng(6)
    n_patients = 40
    features = np.repeat(rng.gamma(1.0, 50.0, (n_patients, 20)), 4, axis=0)
    scores = np.repeat(rng.choice([0.0, 5.0, 50.0, 200.0, 900.0], n_patients), 4)
    by_patient = np.repeat([f"p{number}" for number in range(n_patients)], 4).tolist()
    as_strangers = [str(number) for number in range(4 * n_patients)]
    recipe = replace(RECIPE, n_rounds=40)
    honest, leaking = (
        fit_second_stage(
            features, scores, patients, slice_increment_mm=5.0, target=target, recipe=recipe
        ).agreement.kappa
        for patients in (by_patient, as_strangers)
    )
    assert honest is not None
    assert leaking is not None
    assert leaking.estimate > 0.8
    assert abs(honest.estimate) < 0.25


@BOTH
def test_trees_learn_what_the_features_under_read(target: SecondStageTarget) -> None:
    features, scores, _ = exams()
    naive = agreement_of(scores, RISK_CATEGORIES.categorise(features[:, 0]), features[:, 0])
    fitted = fit(target).agreement
    assert naive.kappa is not None
    assert fitted.kappa is not None
    assert fitted.kappa.estimate > naive.kappa.estimate + 0.1
    assert fitted.n_exams == 120
    if target is SecondStageTarget.CATEGORY:
        assert fitted.median_absolute_error is None
    else:
        assert fitted.median_absolute_error is not None
        assert naive.median_absolute_error is not None
        assert fitted.median_absolute_error < 0.7 * naive.median_absolute_error


def test_agreement_by_hand() -> None:
    reference = np.array([0.0, 5.0, 50.0, 200.0])
    exact = agreement_of(reference, np.array([0, 1, 2, 3]), reference + np.array([1, 3, 2, 100]))
    assert exact.kappa is not None
    assert exact.kappa.estimate == 1.0
    assert exact.median_absolute_error == 2.5
    # One step off of four: observed weight 1 - 1/16; by chance 1 - 18/64.
    off = agreement_of(reference, np.array([0, 1, 2, 2]), None)
    assert off.kappa is not None
    observed, chance = 1 - 1 / 16, 1 - (6 + 4 + 2 * 4) / 64
    assert off.kappa.estimate == pytest.approx((observed - chance) / (1 - chance))


def test_what_cannot_be_fitted_is_refused() -> None:
    features, scores, patients = exams(12)
    arguments = {"slice_increment_mm": 5.0, "recipe": RECIPE}
    with pytest.raises(ValueError, match="20"):
        fit_second_stage(features[:, :19], scores, patients, **arguments)
    with pytest.raises(ValueError, match="one row per exam"):
        fit_second_stage(features, scores[:-1], patients, **arguments)
    with pytest.raises(ValueError, match="at least 0"):
        fit_second_stage(features, scores - 1, patients, **arguments)
    features[0, 0] = np.inf
    with pytest.raises(ValueError, match="finite"):
        fit_second_stage(features, scores, patients, **arguments)
