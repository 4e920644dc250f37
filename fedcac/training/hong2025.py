"""A recipe for the radiograph classifiers of Hong et al. 2025.

What was read of the paper is its abstract: three models, one per threshold (0, 100, 400),
evaluated by 10-fold cross-validation. Loss, sampling, optimiser, schedule and augmentation are not
in it; what stands here is ours: binary cross-entropy in which both classes of a threshold weigh
the same, and Adam at a constant rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedcac.models.family import scaled
from fedcac.models.manifest import InputSpec
from fedcac.training.loop import Batch, EpochReport, ParameterGroup

__all__ = ["HongCourse", "HongRecipe", "threshold_labels"]


@dataclass(frozen=True)
class HongRecipe:
    """Numbers of a training run, all of them ours.

    `is_weighted` gives the rarer class of each threshold the weight of the commoner one;
    `majority_per_minority`, if not None, draws in every epoch no more exams without calcium per
    exam with calcium, which is the other way against the imbalance.

    Raises
    ------
    ValueError
        If a number is not positive where it must be.
    """

    epochs: int
    batch: int
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    is_weighted: bool = True
    majority_per_minority: float | None = None

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch) < 1 or self.learning_rate <= 0 or self.weight_decay < 0:
            raise ValueError("epochs, batch and learning_rate must be positive")
        if self.majority_per_minority is not None and self.majority_per_minority <= 0:
            raise ValueError("majority_per_minority must be positive")


def threshold_labels(scores: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return, for scores (n,), the labels (n, 3): above 0, at least 100, at least 400."""
    return np.stack([scores > 0, scores >= 100, scores >= 400], axis=1).astype(np.float32)


class HongCourse:
    """A course of `fedcac.training.loop`.

    The three networks share no parameter, so one step down the sum of their losses is one step of
    each on its own.

    Parameters
    ----------
    network
        On the device to train on.
    spec
        How prepared images are scaled.
    images
        (n, R, C) float32, as `RadiographInput.prepare` makes them.
    scores
        (n,): calcium scores.
    recipe
        The numbers.

    Raises
    ------
    ValueError
        If shapes differ, or the exams do not hold both some with calcium and some without.
    """

    gradient_norm: float | None = None

    def __init__(
        self,
        network: nn.Module,
        spec: InputSpec,
        images: NDArray[np.float32],
        scores: NDArray[np.float64],
        recipe: HongRecipe,
    ) -> None:
        if images.ndim != 3 or scores.shape != images.shape[:1]:
            raise ValueError("images must be (n, rows, columns) and scores (n,)")
        self.network, self.n_epochs = network, recipe.epochs
        self._spec, self._images, self._recipe = spec, images, recipe
        self._labels = threshold_labels(scores)
        n_positive = self._labels.sum(axis=0)
        if not 0 < n_positive[0] < scores.size:
            raise ValueError("exams with calcium and exams without are needed")
        # A threshold that no exam reaches has nothing to weigh.
        self._weight = np.where(n_positive > 0, (scores.size - n_positive) / n_positive.clip(1), 1)

    def groups(self) -> Sequence[ParameterGroup]:
        """Return all parameters, at a constant rate."""
        recipe = self._recipe
        parameters = list(self.network.parameters())
        return [ParameterGroup(parameters, recipe.learning_rate, recipe.weight_decay)]

    def batches(self, epoch: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Return batches of radiographs and their labels."""
        chosen = rng.permutation(self._drawn(rng))
        for start in range(0, chosen.size, self._recipe.batch):
            part = chosen[start : start + self._recipe.batch]
            yield torch.from_numpy(self._images[part]), torch.from_numpy(self._labels[part])

    def _drawn(self, rng: np.random.Generator) -> NDArray[np.int64]:
        share = self._recipe.majority_per_minority
        with_calcium = np.flatnonzero(self._labels[:, 0] == 1)
        without = np.flatnonzero(self._labels[:, 0] == 0)
        if share is None:
            return np.concatenate([with_calcium, without])
        minority, majority = sorted((with_calcium, without), key=len)
        n_drawn = min(majority.size, max(1, round(minority.size * share)))
        return np.concatenate([minority, rng.choice(majority, n_drawn, replace=False)])

    def loss(self, epoch: int, batch: Batch) -> torch.Tensor:
        """Return the sum of the three cross-entropies, each a mean over the batch."""
        images, labels = batch
        logits = self.network(scaled(images, self._spec)[:, None]).float()
        weight = None
        if self._recipe.is_weighted:
            weight = torch.as_tensor(self._weight, dtype=torch.float32, device=logits.device)
        each = nn.functional.binary_cross_entropy_with_logits(
            logits, labels, pos_weight=weight, reduction="none"
        )
        return each.mean(dim=0).sum()

    def end_epoch(self, epoch: int) -> EpochReport:
        """Add nothing."""
        return EpochReport()

    def state(self) -> dict[str, Any]:
        """Return nothing: epochs differ by chance alone."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up nothing."""
