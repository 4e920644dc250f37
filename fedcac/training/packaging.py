"""From a trained plan to a model package whose card says what was measured on held-out patients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcac.models import InferenceEngine, ModelPackage
from fedcac.models.assembly import assemble_package
from fedcac.statistics.kappa import Kappa
from fedcac.training.card import CARD_FILE, render_card
from fedcac.training.checkpoint import write_atomically
from fedcac.training.exams import ExamStack, TrainingExam
from fedcac.training.hong2025 import threshold_labels
from fedcac.training.judging import judge_masks, judge_probabilities
from fedcac.training.plans import Plan, Radiographs
from fedcac.training.recipe import CALCIUM_THRESHOLD

__all__ = ["write_package"]

_Z95 = 1.959964
_KAPPA = "linear kappa of risk categories"


def write_package(
    folder: Path,
    plan: Plan,
    held_out: ExamStack | Radiographs,
    *,
    family: str,
    name: str,
    texts: Mapping[str, str],
    licence: str,
) -> ModelPackage:
    """Write the package of a plan's network, measured on held-out patients, with its card.

    The network moves to the CPU. Measured is what a site would run: the finished package in the
    inference engine. Intervals are normal ones.

    Parameters
    ----------
    folder
        Made if it does not exist.
    plan
        Trained.
    held_out
        What the plan was made with.
    family, name
        The family, and the package's name.
    texts
        `intended_use`, `training_data` and `limitations` of the card.
    licence
        Of the weights.

    Raises
    ------
    PackageError
        If the parts do not make a package.
    """

    def assembled(measurements: list[dict[str, Any]]) -> ModelPackage:
        return assemble_package(
            folder,
            document={
                "name": name,
                "version": "1.0.0",
                "family": family,
                "architecture": dict(plan.architecture),
                "input": plan.input.model_dump(mode="json"),
                "calcium_threshold": CALCIUM_THRESHOLD,
                "golden_tolerance": 0.01,
                "licence": licence,
                "card": {**texts, "is_demonstration": True, "measurements": measurements},
            },
            weights=plan.network.cpu(),
            golden_inputs=plan.golden_inputs,
        )

    # The engine runs packages, so there is one before anything was measured.
    engine = InferenceEngine(assembled([]), device="cpu")
    try:
        measurements = _measured(engine, held_out)
    finally:
        engine.close()
    package = assembled(measurements)
    write_atomically(folder / CARD_FILE, render_card(package.manifest).encode())
    return package


def _measured(engine: InferenceEngine, held_out: ExamStack | Radiographs) -> list[dict[str, Any]]:
    if isinstance(held_out, Radiographs):
        return _measured_thresholds(engine, held_out)

    def mask_of(exam: TrainingExam) -> NDArray[np.uint8]:
        return engine.predict(exam.hu, exam.spacing_mm).vessel_map

    found = judge_masks(held_out.exams, mask_of)
    rows = [_kappa_row(found.kappa, found.n_exams)]
    if found.dice is not None:
        name = "Dice of coronary calcium over all voxels"
        rows.append({"name": name, "value": round(found.dice, 4), "n_exams": found.n_exams})
    return [row for row in rows if row]


def _measured_thresholds(engine: InferenceEngine, held_out: Radiographs) -> list[dict[str, Any]]:
    probabilities = engine.classify({"image": held_out.images})["positive"]
    found = judge_probabilities(probabilities, threshold_labels(held_out.scores) > 0)
    rows = [_kappa_row(found.kappa, found.n_exams)]
    for cut, auc in zip(("> 0", ">= 100", ">= 400"), found.aucs, strict=True):
        if auc is not None:
            name = f"AUC of a calcium score {cut}"
            rows.append(_row(name, auc.estimate, auc.se, found.n_exams))
    return [row for row in rows if row]


def _kappa_row(kappa: Kappa | None, n_exams: int) -> dict[str, Any]:
    return {} if kappa is None else _row(_KAPPA, kappa.estimate, kappa.se, n_exams)


def _row(name: str, value: float, se: float | None, n_exams: int) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "value": round(value, 4), "n_exams": n_exams}
    if se is not None and math.isfinite(se) and se > 0:
        row["ci_low"] = round(max(-1.0, value - _Z95 * se), 4)
        row["ci_high"] = round(min(1.0, value + _Z95 * se), 4)
    return row
