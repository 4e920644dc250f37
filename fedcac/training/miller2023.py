"""The training recipe of Miller et al. 2023 (Supplement, 'Model architecture').

The text gives three things: supervised training of each network on readers' annotations, the heart
on a subset of the exams; focal loss (Lin et al. 2020) on calcium; and subset sampling of the
majority class. It gives no focusing parameter, optimiser, learning rate, schedule, number of
epochs, batch size or augmentation: what of these stands here is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

__all__ = ["NOT_ANNOTATED", "MillerRecipe", "epoch_slices", "focal_loss"]

NOT_ANNOTATED = 255
"""Value of voxels without a reference: they count in no loss."""


@dataclass(frozen=True)
class MillerRecipe:
    """Numbers of a training run.

    Parameters
    ----------
    epochs, batch, learning_rate, weight_decay
        Of Adam, at a constant rate. Ours: the text is silent.
    calcium_gamma
        Focusing parameter of the focal loss on calcium. The text names the loss alone; 2 is what
        Lin et al. found best. No class weight, which the text does not mention.
    heart_gamma
        The same for the heart. 0, plain cross-entropy: the text names the focal loss against the
        imbalance between calcium and background, which a silhouette does not have.
    empty_per_positive
        Slices without calcium drawn for every slice with calcium; ours.

    Raises
    ------
    ValueError
        If a number is not positive where it must be, or a gamma lies outside {0} and [1, inf):
        between 0 and 1 the gradient is not finite where a probability reaches one.
    """

    epochs: int
    batch: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    calcium_gamma: float = 2.0
    heart_gamma: float = 0.0
    empty_per_positive: float = 1.0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch) < 1 or self.learning_rate <= 0:
            raise ValueError("epochs, batch and learning_rate must be positive")
        if self.weight_decay < 0 or not 0 <= self.empty_per_positive < math.inf:
            raise ValueError("weight_decay and empty_per_positive must not be negative")
        _check_gamma(self.calcium_gamma)
        _check_gamma(self.heart_gamma)


def focal_loss(logits: torch.Tensor, target: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return the mean of -(1 - p)^gamma log p over annotated voxels (Lin et al. 2020, equation 4).

    p is the softmax probability of the voxel's own class. With gamma = 0 this is cross-entropy.

    Parameters
    ----------
    logits
        Shape (B, C, H, W).
    target
        Shape (B, H, W), integers from 0 to C - 1, or `NOT_ANNOTATED`.
    gamma
        Focusing parameter, 0 or at least 1.

    Returns
    -------
    Scalar; zero, with a zero gradient, if no voxel is annotated.

    Raises
    ------
    ValueError
        If shapes do not fit or gamma is out of its range.
    """
    _check_gamma(gamma)
    if logits.ndim != 4 or target.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError("logits must be (B, C, H, W) and target (B, H, W)")
    is_annotated = target != NOT_ANNOTATED
    index = torch.where(is_annotated, target, 0).long()[:, None]
    log_p = nn.functional.log_softmax(logits, dim=1).gather(1, index)[:, 0]
    # 1 - p by expm1: near p = 1 the difference itself would be rounding error.
    per_voxel = -((-torch.expm1(log_p)) ** gamma) * log_p if gamma else -log_p
    return (per_voxel * is_annotated).sum() / is_annotated.sum().clamp(min=1)


def epoch_slices(
    has_calcium: NDArray[np.bool_], recipe: MillerRecipe, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the slices of one epoch in random order: all with calcium, a subset of the others.

    The text subsamples 'the majority class' and does not say whether voxels or slices are meant.
    Read here as slices, anew in every epoch; a `MillerCourse` can subsample voxels beside it.

    Parameters
    ----------
    has_calcium
        Shape (n,): whether a slice of interest holds annotated calcium of either kind.
    recipe
        Gives `empty_per_positive`; no more slices are drawn than there are.
    rng
        The only source of chance.

    Raises
    ------
    ValueError
        If no slice holds calcium.
    """
    positive, empty = np.flatnonzero(has_calcium), np.flatnonzero(~has_calcium)
    if positive.size == 0:
        raise ValueError("an epoch needs slices with calcium")
    n_empty = min(empty.size, round(positive.size * recipe.empty_per_positive))
    drawn = rng.choice(empty, n_empty, replace=False)
    return rng.permutation(np.concatenate([positive, drawn]))


def _check_gamma(gamma: float) -> None:
    if gamma != 0 and not 1 <= gamma < math.inf:
        raise ValueError("gamma must be 0 or at least 1")
