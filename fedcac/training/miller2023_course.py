"""The recipe of Miller et al. 2023 bound to a network and its slices: heart first, then calcium."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedcac.models.family import scaled
from fedcac.models.manifest import InputSpec
from fedcac.models.miller2023 import MillerNetwork
from fedcac.training.exams import ExamStack
from fedcac.training.loop import Batch, EpochReport, ParameterGroup
from fedcac.training.miller2023 import NOT_ANNOTATED, MillerRecipe, epoch_slices, focal_loss

__all__ = ["MillerCourse"]


class MillerCourse:
    """A course of `fedcac.training.loop`.

    The first `heart_epochs` train the heart's network alone, on the slices of exams whose heart
    was drawn ('a subset of training data', Methods); the following `recipe.epochs` train the
    calcium network alone, on all slices with calcium and a subset of the others, drawn anew in
    every epoch. The networks share no parameter, so their order changes neither; heart first,
    because the calcium's held-out figures need its mask.

    Parameters
    ----------
    network
        On the device to train on.
    spec
        How HU are scaled.
    stack
        Training slices.
    recipe
        The numbers, `epochs` those of the calcium network.
    heart_epochs
        0 keeps the heart's network as it is.
    background_per_calcium
        Background voxels that count in the calcium's loss for every voxel of calcium in a batch,
        drawn anew each time; None lets all count. The text subsamples the majority class 'to
        counter the large class imbalance between CAC and background' and does not say of what:
        `epoch_slices` reads slices, this voxels, and both may be meant. The number is ours.

    Raises
    ------
    ValueError
        If there is no slice with calcium, the heart is to be trained and none was drawn, or
        `background_per_calcium` is not positive.
    """

    gradient_norm: float | None = None

    def __init__(
        self,
        network: MillerNetwork,
        spec: InputSpec,
        stack: ExamStack,
        recipe: MillerRecipe,
        heart_epochs: int,
        background_per_calcium: float | None = None,
    ) -> None:
        if background_per_calcium is not None and not background_per_calcium > 0:
            raise ValueError("background_per_calcium must be positive")
        self._background = background_per_calcium
        self.network, self.n_epochs = network, heart_epochs + recipe.epochs
        self.heart_epochs = heart_epochs
        self._spec, self._stack, self._recipe = spec, stack, recipe
        self._has_calcium = np.array([bool(part.any()) for part in stack.calcium_map])
        is_drawn = [bool((part != NOT_ANNOTATED).any()) for part in stack.heart_map]
        self._drawn = np.flatnonzero(is_drawn)
        if not self._has_calcium.any():
            raise ValueError("the exams need slices with calcium")
        if heart_epochs and not self._drawn.size:
            raise ValueError("the heart cannot be trained: no exam has it drawn")

    def groups(self) -> Sequence[ParameterGroup]:
        """Return all parameters, at a constant rate; those without a gradient stay."""
        recipe = self._recipe
        parameters = list(self.network.parameters())
        return [ParameterGroup(parameters, recipe.learning_rate, recipe.weight_decay)]

    def batches(self, epoch: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Return windows of slices, and the map of the network that this epoch trains."""
        if epoch < self.heart_epochs:
            chosen, maps = rng.permutation(self._drawn), self._stack.heart_map
        else:
            chosen = epoch_slices(self._has_calcium, self._recipe, rng)
            maps = self._stack.calcium_map
        for start in range(0, chosen.size, self._recipe.batch):
            indices = chosen[start : start + self._recipe.batch]
            windows = self._stack.windows(indices, self.network.window // 2)
            target = np.array(maps[indices])
            if epoch >= self.heart_epochs and self._background is not None:
                _subsample_background(target, self._background, rng)
            yield torch.from_numpy(windows), torch.from_numpy(target)

    def loss(self, epoch: int, batch: Batch) -> torch.Tensor:
        """Return the focal loss of the network that this epoch trains."""
        windows, target = batch
        windows = scaled(windows, self._spec)
        if epoch < self.heart_epochs:
            return focal_loss(self.network.heart(windows), target, self._recipe.heart_gamma)
        return focal_loss(self.network.calcium(windows), target, self._recipe.calcium_gamma)

    def end_epoch(self, epoch: int) -> EpochReport:
        """Say which network the epoch trained."""
        phase = "heart" if epoch < self.heart_epochs else "calcium"
        return EpochReport(phase, {"phase": phase})

    def state(self) -> dict[str, Any]:
        """Return nothing: epochs differ by their number alone."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up nothing."""


def _subsample_background(
    target: NDArray[np.uint8], per_calcium: float, rng: np.random.Generator
) -> None:
    """Let a random part of the background count, in place; as of one voxel where there is none."""
    is_background = target == 0
    n_background = int(np.count_nonzero(is_background))
    n_calcium = target.size - n_background - int(np.count_nonzero(target == NOT_ANNOTATED))
    share = per_calcium * max(n_calcium, 1) / max(n_background, 1)
    is_left_out = is_background & (rng.random(target.shape) >= share)
    target[is_left_out] = NOT_ANNOTATED
