"""The training recipe of Eng et al. 2021 (npj Digital Medicine 4:88, Methods, 'CNN architecture').

Dice loss on the calcium head, cross-entropy for the vessel on calcium pixels, Adam at 1e-3 (1e-4
for pretrained weights) with linear warm-up and cosine annealing, L2 of 1e-4; training begins with
slices that hold calcium, and after every epoch slices without calcium that are misclassified join
it. `Recipe.of_the_text` has the paper's numbers; a bare `Recipe` is a short run that deviates
where a field says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from fedcac.errors import PackageError
from fedcac.models.blocks import THRESHOLD_HU
from fedcac.models.family import scaled
from fedcac.models.manifest import InputSpec
from fedcac.training.loop import (
    Batch,
    EpochReport,
    ParameterGroup,
    cosine_with_warm_up,
    train,
)

__all__ = [
    "CALCIUM_THRESHOLD",
    "EngCourse",
    "Recipe",
    "SlicePool",
    "load_pretrained_encoder",
    "segmentation_loss",
    "train_network",
]

CALCIUM_THRESHOLD = 0.5
"""A voxel counts as found above this probability."""

_ENCODER = ("stem.", "stages.")
_FIRST_CONVOLUTION = "stem.0.weight"


@dataclass(frozen=True)
class Recipe:
    """Numbers of a training run.

    Parameters
    ----------
    epochs, iterations_per_epoch, batch
        The text trains about 300k iterations of 64 slices and does not say how long an epoch is.
    learning_rate, pretrained_rate, weight_decay
        Of Adam: for fresh weights, for pretrained ones, and L2 for all. The text's values.
    warm_up, anneal
        Iterations of linear warm-up and of cosine annealing after it (the text: 5,000 and
        300,000). None anneals until the run ends.
    pretrained_delay
        Iterations by which the pretrained weights' schedule starts later (the text: 10,000); until
        then they do not move.
    negative_share
        Expected share of slices without calcium in a batch; None draws from the training set as
        it is, which is the text.
    first_negatives
        Share of the slices without calcium that are in the training set from the first epoch on.
        0 in the text; a tenth saves a short run its first epochs.
    entropy_weight
        Weight of a binary cross-entropy beside the Dice loss, which pulls a fresh network out of
        predicting nothing within a short run. 0 in the text.
    is_augmented
        Whether slices are shifted by up to 12 pixels and 6 HU. Not in the text.
    """

    epochs: int
    iterations_per_epoch: int
    batch: int
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warm_up: int = 200
    negative_share: float | None = 0.35
    pretrained_rate: float = 1e-4
    pretrained_delay: int = 0
    anneal: int | None = None
    first_negatives: float = 0.1
    entropy_weight: float = 1.0
    is_augmented: bool = True

    @classmethod
    def of_the_text(cls, n_slices: int, *, is_pretrained: bool) -> Self:
        """Return the paper's numbers for a training set of so many slices with calcium.

        An epoch is one look at as many slices as hold calcium at the start; ours.
        """
        warm_up, anneal, delay, batch = 5_000, 300_000, 10_000, 64
        iterations = max(1, n_slices // batch)
        total = warm_up + anneal + (delay if is_pretrained else 0)
        return cls(
            epochs=math.ceil(total / iterations),
            iterations_per_epoch=iterations,
            batch=batch,
            warm_up=warm_up,
            anneal=anneal,
            pretrained_delay=delay,
            negative_share=None,
            first_negatives=0.0,
            entropy_weight=0.0,
            is_augmented=False,
        )


@dataclass(frozen=True, eq=False)
class SlicePool:
    """Training slices: HU as int16 and vessel maps as uint8, both of shape (n, H, W)."""

    hu: NDArray[np.int16]
    vessel_map: NDArray[np.uint8]

    @property
    def is_positive(self) -> NDArray[np.bool_]:
        """Which slices hold coronary calcium; shape (n,)."""
        return np.array([bool(part.any()) for part in self.vessel_map], dtype=np.bool_)


def segmentation_loss(
    logits: torch.Tensor, vessel_map: torch.Tensor, entropy_weight: float = 1.0
) -> torch.Tensor:
    """Return Dice loss of the calcium head plus cross-entropy of the vessel on calcium pixels.

    `logits` is (B, 5, H, W), `vessel_map` (B, H, W) with 0 to 4. The Dice term is taken over the
    whole batch, so that slices without calcium count through their false positives; a binary
    cross-entropy term of weight `entropy_weight` gives it a gradient while no pixel is predicted
    yet.
    """
    truth = (vessel_map > 0).float()
    probability = torch.sigmoid(logits[:, 0].float())
    overlap = 2 * (probability * truth).sum() + 1.0
    loss = 1 - overlap / (probability.sum() + truth.sum() + 1.0)
    if entropy_weight:
        weight = 1.0 + 20.0 * truth
        loss = loss + entropy_weight * nn.functional.binary_cross_entropy_with_logits(
            logits[:, 0], truth, weight
        )
    is_calcium = vessel_map > 0
    if not bool(is_calcium.any()):
        return loss
    vessels = logits[:, 1:].permute(0, 2, 3, 1)[is_calcium]
    return loss + nn.functional.cross_entropy(vessels, vessel_map[is_calcium].long() - 1)


class EngCourse:
    """The recipe bound to a network and its slices; a course of `fedcac.training.loop`.

    Parameters
    ----------
    network
        On the device to train on.
    spec
        How HU are scaled.
    pool
        Every training slice, with and without calcium.
    recipe
        The numbers.
    rng
        Draws the slices without calcium of the first epoch.
    pretrained
        Names of parameters that `load_pretrained_encoder` set.

    Raises
    ------
    ValueError
        If the pool does not hold both slices with coronary calcium and slices without.
    """

    gradient_norm: float | None = None

    def __init__(
        self,
        network: nn.Module,
        spec: InputSpec,
        pool: SlicePool,
        recipe: Recipe,
        rng: np.random.Generator,
        pretrained: frozenset[str] = frozenset(),
    ) -> None:
        is_positive = pool.is_positive
        if is_positive.all() or not is_positive.any():
            raise ValueError("a pool needs slices with coronary calcium and slices without")
        self.network, self.n_epochs = network, recipe.epochs
        self._spec, self._pool, self._recipe = spec, pool, recipe
        self._pretrained = pretrained
        self._positive, self._empty = np.flatnonzero(is_positive), np.flatnonzero(~is_positive)
        n_first = 0
        if recipe.first_negatives:
            n_first = max(1, int(self._empty.size * recipe.first_negatives))
        self._negative = rng.choice(self._empty, n_first, replace=False)

    def groups(self) -> Sequence[ParameterGroup]:
        """Return the fresh parameters and, with their own rate and schedule, the pretrained."""
        recipe = self._recipe
        total = recipe.epochs * recipe.iterations_per_epoch
        if recipe.anneal is not None:
            total = recipe.warm_up + recipe.anneal
        parts: dict[bool, list[nn.Parameter]] = {False: [], True: []}
        for name, parameter in self.network.named_parameters():
            parts[name in self._pretrained].append(parameter)
        groups = []
        for is_pretrained, parameters in parts.items():
            if parameters:
                rate = recipe.pretrained_rate if is_pretrained else recipe.learning_rate
                delay = recipe.pretrained_delay if is_pretrained else 0
                factor = cosine_with_warm_up(recipe.warm_up, total, delay)
                groups.append(ParameterGroup(parameters, rate, recipe.weight_decay, factor))
        return groups

    def batches(self, epoch: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Return random batches of slices and their vessel maps."""
        recipe = self._recipe
        for _ in range(recipe.iterations_per_epoch):
            hu, vessel_map = _draw_batch(rng, self._pool, self._positive, self._negative, recipe)
            yield torch.from_numpy(hu), torch.from_numpy(vessel_map)

    def loss(self, epoch: int, batch: Batch) -> torch.Tensor:
        """Return `segmentation_loss` of (HU, vessel map)."""
        hu, vessel_map = batch
        logits = self.network(scaled(hu, self._spec)[:, None])
        return segmentation_loss(logits, vessel_map, self._recipe.entropy_weight)

    def end_epoch(self, epoch: int) -> EpochReport:
        """Let slices without calcium that are misclassified join the training set."""
        found = _misclassified(
            self.network, self._spec, self._pool, self._empty, self._recipe.batch
        )
        self._negative = np.union1d(self._negative, found)
        return EpochReport(
            f"{found.size} of {self._empty.size} empty slices misclassified",
            {"misclassified": int(found.size), "empty_in_training": int(self._negative.size)},
        )

    def state(self) -> dict[str, Any]:
        """Return the slices without calcium that have joined."""
        return {"negative": [int(index) for index in self._negative]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the slices that had joined."""
        self._negative = np.array(state["negative"], dtype=np.int64)


def train_network(
    network: nn.Module,
    spec: InputSpec,
    pool: SlicePool,
    recipe: Recipe,
    rng: np.random.Generator,
    tell: Callable[[str], None],
) -> None:
    """Train a network in place on a pool of slices, on the CPU or wherever it lies.

    Raises
    ------
    ValueError
        If the pool does not hold both slices with coronary calcium and slices without.
    """
    train(EngCourse(network, spec, pool, recipe, rng), rng, tell=tell)


def load_pretrained_encoder(network: nn.Module, path: Path) -> frozenset[str]:
    """Put an encoder's weights into a network of the family; return its parameters' names.

    The text pretrains the encoder on ImageNet; no such weights come with this release. The file is
    safetensors with every tensor of `stem` and `stages` under the network's own names. A first
    convolution of three colour channels is summed over them: a grey slice shown in all three.

    Raises
    ------
    PackageError
        `bad_tensors` if the file is no safetensors file, `wrong_tensors` if a name or shape is
        missing, surplus or different.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise PackageError(
            "The encoder's weights cannot be read as safetensors.",
            code="bad_tensors",
            cure="Convert them first; a pickle is never read.",
        ) from error
    state = network.state_dict()
    own = {name: tensor for name, tensor in state.items() if name.startswith(_ENCODER)}
    first = tensors.get(_FIRST_CONVOLUTION)
    if first is not None and first.ndim == 4 and first.shape[1] == 3:
        tensors[_FIRST_CONVOLUTION] = first.sum(dim=1, keepdim=True)
    if {k: t.shape for k, t in tensors.items()} != {k: t.shape for k, t in own.items()}:
        raise PackageError(
            "The encoder's tensors are not those of the network.",
            code="wrong_tensors",
            cure="Give weights of the same width and depth, under the network's names.",
        )
    network.load_state_dict({**state, **tensors}, strict=True)
    return frozenset(name for name, _ in network.named_parameters() if name in own)


def _draw_batch(
    rng: np.random.Generator,
    pool: SlicePool,
    positive: NDArray[np.int64],
    negative: NDArray[np.int64],
    recipe: Recipe,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    share = recipe.negative_share
    if share is None:
        share = negative.size / (positive.size + negative.size)
    n_negative = int(rng.binomial(recipe.batch, share)) if negative.size else 0
    chosen = rng.choice(positive, recipe.batch - n_negative)
    if n_negative:
        chosen = np.concatenate([chosen, rng.choice(negative, n_negative)])
    hu, vessel_map = pool.hu[chosen].astype(np.float32), pool.vessel_map[chosen]
    if not recipe.is_augmented:
        return hu, vessel_map
    hu += rng.normal(0, 6.0, (recipe.batch, 1, 1)).astype(np.float32)
    # A shift of the whole image: the network must not learn where the heart lies to the pixel.
    shift = tuple(int(step) for step in rng.integers(-12, 13, 2))
    return np.roll(hu, shift, axis=(1, 2)), np.roll(vessel_map, shift, axis=(1, 2))


def _misclassified(
    network: nn.Module,
    spec: InputSpec,
    pool: SlicePool,
    indices: NDArray[np.int64],
    batch: int,
) -> NDArray[np.int64]:
    network.eval()
    device = next(network.parameters()).device
    found = []
    with torch.inference_mode():
        for start in range(0, indices.size, 2 * batch):
            chosen = indices[start : start + 2 * batch]
            hu = torch.from_numpy(pool.hu[chosen].astype(np.float32)).to(device)
            calcium = torch.sigmoid(network(scaled(hu, spec)[:, None])[:, 0])
            is_wrong = ((calcium > CALCIUM_THRESHOLD) & (hu >= THRESHOLD_HU)).flatten(1).any(1)
            found.append(chosen[is_wrong.cpu().numpy()])
    return np.concatenate(found)
