"""Reading generated exams for the second stage; with true masks it corrects what is under-read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fedcac.training.second_stage_demonstration as module
from fedcac.models import Prediction
from fedcac.models.second_stage import SecondStage
from fedcac.models.second_stage_features import summarise_exam
from fedcac.training.second_stage_demonstration import main, read_exams

SPACING_MM = (5.0, 1.0, 1.0)


class SeesBright:
    """Calls every voxel from 130 HU on LAD calcium."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def predict(
        self, hu: NDArray[np.float32], spacing_mm: tuple[float, float, float]
    ) -> Prediction:
        return Prediction(vessel_map=((hu >= 130) * 2).astype(np.uint8), seconds=0.0)


def blurred_pair(rng: np.random.Generator, increment_mm: float = 5.0) -> Any:
    """A square lesion of which the non-gated exam shows a part; a score of 0 shows none."""
    score = 0.0 if rng.random() < 0.3 else float(rng.lognormal(np.log(90), 1.5))
    hu = np.zeros((6, 24, 24), dtype=np.float32)
    for index in range(1, 4):
        size = int(min(18, np.sqrt(score) * 0.5))
        hu[index, 2 : 2 + size, 3 : 3 + size] = 200 + min(score, 300)
    exam = SimpleNamespace(hu=hu, spacing_mm=(increment_mm, 1.0, 1.0))
    return SimpleNamespace(non_gated=exam, reference_score=score)


def test_exams_are_read_in_order_with_the_engines_mask() -> None:
    pairs = [blurred_pair(np.random.default_rng(number)) for number in range(6)]
    first = read_exams(SeesBright(), pairs)
    for row, score, reference, pair in zip(
        first.features, first.scores, first.reference_scores, pairs, strict=True
    ):
        hu = pair.non_gated.hu
        np.testing.assert_array_equal(
            row, summarise_exam(hu, (hu >= 130).astype(np.uint8), SPACING_MM)
        )
        assert reference == pair.reference_score
        area = float((hu >= 130).sum())
        factor = 0 if hu.max() < 130 else min(4, int(hu.max() // 100))
        assert score == pytest.approx(area * factor * 5 / 3)
    assert first.slice_increment_mm == 5.0


def test_pairs_of_different_increments_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="increment"):
        read_exams(SeesBright(), [blurred_pair(rng), blurred_pair(rng, 3.0)])
    with pytest.raises(ValueError, match="increment"):
        read_exams(SeesBright(), [])


def test_the_demonstration_writes_trees_that_improve_the_agreement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(module, "InferenceEngine", SeesBright)
    monkeypatch.setattr(module, "demonstration_package", lambda: None)
    monkeypatch.setattr(module, "generate_pair", blurred_pair)
    monkeypatch.setattr(module, "say", said.append)
    assert main(["--out", str(tmp_path / "made"), "--seed", "4", "--exams", "90"]) == 0
    first, category, log_score = said
    assert "90 exams" in first
    kappas = [float(line.split("kappa ")[1].split(" ")[0]) for line in said]
    errors = [float(line.rsplit(" ", 1)[1]) for line in (first, log_score)]
    assert "error" not in category
    assert min(kappas[1:]) > kappas[0]
    assert errors[1] < errors[0]
    stage = SecondStage.from_bytes((tmp_path / "made" / "second_stage.json").read_bytes())
    assert not stage.is_classifier
    assert stage.slice_increment_mm == 5.0
