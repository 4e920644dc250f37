"""Held-out figures: Dice of the mask and agreement of risk categories, against true maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedcac.models.blocks import THRESHOLD_HU, VolumeBlocks, label_voxels
from fedcac.models.family import Family
from fedcac.models.manifest import InputSpec
from fedcac.models.second_stage import RISK_CATEGORIES
from fedcac.scoring import profile_named, score_volume
from fedcac.statistics.delong import Auc, auc_of_values
from fedcac.statistics.kappa import Kappa, cohen_kappa
from fedcac.training.exams import TrainingExam
from fedcac.vocabulary import KappaWeights

__all__ = [
    "Judgement",
    "ThresholdJudgement",
    "category_kappa",
    "heart_dice",
    "judge_masks",
    "judge_probabilities",
    "segment",
]

Mask = NDArray[np.uint8]
_BATCH = 8


@dataclass(frozen=True)
class Judgement:
    """How masks agree with the true maps of `n_exams`.

    `dice` is over all voxels of all exams taken together, None where neither mask nor truth holds
    one; `kappa` is linear over the risk categories of the Agatston scores, None where it does not
    exist.
    """

    n_exams: int
    dice: float | None
    kappa: Kappa | None

    def columns(self) -> dict[str, Any]:
        """Return the columns of the learning curves."""
        kappa = None if self.kappa is None else self.kappa.estimate
        return {"dice": self.dice, "kappa_linear": kappa, "n_held_out": self.n_exams}


def judge_masks(
    exams: Sequence[TrainingExam], mask_of: Callable[[TrainingExam], Mask]
) -> Judgement:
    """Judge a model's masks, 0 where there is no coronary calcium, against the true maps.

    Voxels under 130 HU count in neither: no score counts them.
    """
    n_both = n_all = 0
    scores: list[tuple[float, float]] = []
    for exam in exams:
        mask = mask_of(exam)
        is_seen = exam.hu >= THRESHOLD_HU
        found, truth = (mask > 0) & is_seen, (exam.vessel_map > 0) & is_seen
        n_both += int(np.count_nonzero(found & truth))
        n_all += int(np.count_nonzero(found)) + int(np.count_nonzero(truth))
        scores.append((_score(exam, truth), _score(exam, found)))
    reference, index = np.array(scores, dtype=np.float64).reshape(-1, 2).T
    return Judgement(
        n_exams=len(exams),
        dice=2 * n_both / n_all if n_all else None,
        kappa=category_kappa(
            RISK_CATEGORIES.categorise(reference),
            RISK_CATEGORIES.categorise(index),
            RISK_CATEGORIES.n_categories,
        ),
    )


def category_kappa(
    reference: NDArray[np.int64], index: NDArray[np.int64], n_categories: int
) -> Kappa | None:
    """Return the linear kappa of two categorisations, shapes (n,), None where it does not exist."""
    matrix = np.zeros((n_categories, n_categories), dtype=np.int64)
    np.add.at(matrix, (reference, index), 1)
    return cohen_kappa(matrix, KappaWeights.LINEAR)


def _score(exam: TrainingExam, is_calcium: NDArray[np.bool_]) -> float:
    # Vessels do not change the total; a family that knows none is scored as one vessel.
    profile = profile_named("agatston1990")
    return score_volume(exam.hu, is_calcium.astype(np.uint8), exam.spacing_mm, profile).total


def segment(
    network: nn.Module, family: Family, spec: InputSpec, threshold: float, exam: TrainingExam
) -> Mask:
    """Return a network's mask as the inference engine would, without a package around it.

    The network is put into evaluation mode.
    """
    network.eval()
    device = next(network.parameters()).device
    blocks = VolumeBlocks.of(exam.hu, exam.spacing_mm, family, spec.field_of_view_mm)
    mask = np.zeros(exam.hu.shape, dtype=np.uint8)
    rows, columns = blocks.hu.shape[1:]
    with torch.inference_mode():
        for start in range(0, blocks.candidates.size, _BATCH):
            chosen = blocks.candidates[start : start + _BATCH]
            block = torch.from_numpy(blocks.block(chosen)).to(device)
            middle = block[:, family.halo] if block.ndim == 4 else block
            labels = label_voxels(
                dict(family.infer(network, {"hu": block}, spec)), middle, threshold
            )
            mask[chosen, blocks.rows, blocks.columns] = labels.cpu().numpy()[:, :rows, :columns]
    return mask


def heart_dice(
    exams: Sequence[TrainingExam], heart_of: Callable[[TrainingExam], NDArray[np.bool_]]
) -> float | None:
    """Return the Dice of the heart over all voxels of the exams whose heart was drawn."""
    n_both = n_all = 0
    for exam in exams:
        if exam.heart_map is not None:
            found, truth = heart_of(exam), exam.heart_map == 1
            n_both += int(np.count_nonzero(found & truth))
            n_all += int(np.count_nonzero(found)) + int(np.count_nonzero(truth))
    return 2 * n_both / n_all if n_all else None


@dataclass(frozen=True)
class ThresholdJudgement:
    """How probabilities of the thresholds 0, 100 and 400 rank `n_exams`.

    `aucs` in the order of the thresholds, None where a class is empty; `kappa` is linear over the
    four categories that the thresholds make, those of an exam being as many as its probabilities of
    at least one half.
    """

    n_exams: int
    aucs: tuple[Auc | None, ...]
    kappa: Kappa | None

    def columns(self) -> dict[str, Any]:
        """Return the columns of the learning curves."""
        estimates = [None if auc is None else auc.estimate for auc in self.aucs]
        return {
            **dict(zip(("auc_0", "auc_100", "auc_400"), estimates, strict=True)),
            "kappa_linear": None if self.kappa is None else self.kappa.estimate,
            "n_held_out": self.n_exams,
        }


def judge_probabilities(
    probabilities: NDArray[np.floating], labels: NDArray[np.bool_]
) -> ThresholdJudgement:
    """Judge probabilities (n, 3) of the three thresholds against labels (n, 3)."""
    values = np.asarray(probabilities, dtype=np.float64)
    aucs = [auc_of_values(values[:, i], labels[:, i]) for i in range(labels.shape[1])]
    index = (values >= 0.5).sum(axis=1)
    kappa = category_kappa(labels.sum(axis=1), index, labels.shape[1] + 1)
    return ThresholdJudgement(len(values), tuple(aucs), kappa)
