"""The training recipe of Eng et al. 2021 (Methods, 'CNN architecture'), without pretraining.

Dice loss on the calcium head, cross-entropy for the vessel on calcium pixels, Adam at 1e-3 with
linear warm-up and cosine annealing, L2 of 1e-4; training begins with slices that hold calcium, and
after every epoch slices without calcium that are misclassified join it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedcac.models import PackageManifest

__all__ = ["Recipe", "SlicePool", "segmentation_loss", "train_network"]


@dataclass(frozen=True)
class Recipe:
    """Numbers of a training run. The paper trains 300k iterations of 64 slices."""

    epochs: int
    iterations_per_epoch: int
    batch: int
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warm_up: int = 200
    negative_share: float = 0.35


@dataclass(frozen=True, eq=False)
class SlicePool:
    """Training slices: HU as int16 and vessel maps as uint8, both of shape (n, H, W)."""

    hu: NDArray[np.int16]
    vessel_map: NDArray[np.uint8]

    @property
    def is_positive(self) -> NDArray[np.bool_]:
        """Which slices hold coronary calcium; shape (n,)."""
        positive: NDArray[np.bool_] = np.any(self.vessel_map, axis=(1, 2))
        return positive


def segmentation_loss(logits: torch.Tensor, vessel_map: torch.Tensor) -> torch.Tensor:
    """Return Dice loss of the calcium head plus cross-entropy of the vessel on calcium pixels.

    `logits` is (B, 5, H, W), `vessel_map` (B, H, W) with 0 to 4. The Dice term is taken over the
    whole batch, so that slices without calcium count through their false positives; a binary
    cross-entropy term gives it a gradient while no pixel is predicted yet.
    """
    truth = (vessel_map > 0).float()
    probability = torch.sigmoid(logits[:, 0])
    overlap = 2 * (probability * truth).sum() + 1.0
    dice = 1 - overlap / (probability.sum() + truth.sum() + 1.0)
    weight = 1.0 + 20.0 * truth
    bce = nn.functional.binary_cross_entropy_with_logits(logits[:, 0], truth, weight)
    is_calcium = vessel_map > 0
    if not bool(is_calcium.any()):
        return dice + bce
    vessels = logits[:, 1:].permute(0, 2, 3, 1)[is_calcium]
    return dice + bce + nn.functional.cross_entropy(vessels, vessel_map[is_calcium].long() - 1)


def train_network(
    network: nn.Module,
    manifest: PackageManifest,
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
    if pool.is_positive.all() or not pool.is_positive.any():
        raise ValueError("a pool needs slices with coronary calcium and slices without")
    device = next(network.parameters()).device
    optimiser = torch.optim.Adam(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    total = recipe.epochs * recipe.iterations_per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: _learning_rate_factor(step, recipe.warm_up, total)
    )
    positive = np.flatnonzero(pool.is_positive)
    # Bone and noise first seen as negatives: a tenth of them, then those that are misclassified.
    all_negative = np.flatnonzero(~pool.is_positive)
    negative = rng.choice(all_negative, max(1, all_negative.size // 10), replace=False)
    for epoch in range(recipe.epochs):
        network.train()
        losses = []
        for _ in range(recipe.iterations_per_epoch):
            hu, vessel_map = _draw_batch(rng, pool, positive, negative, recipe)
            logits = network(_scaled(manifest, torch.from_numpy(hu).to(device)))
            loss = segmentation_loss(logits, torch.from_numpy(vessel_map).to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
        found = _misclassified(network, manifest, pool, all_negative, recipe.batch)
        negative = np.union1d(negative, found)
        tell(
            f"epoch {epoch + 1}/{recipe.epochs}: loss {np.mean(losses):.4f}, "
            f"{found.size} of {all_negative.size} empty slices misclassified"
        )
    network.eval()


def _learning_rate_factor(step: int, warm_up: int, total: int) -> float:
    if step < warm_up:
        return (step + 1) / warm_up
    share = (step - warm_up) / max(1, total - warm_up)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def _scaled(manifest: PackageManifest, hu: torch.Tensor) -> torch.Tensor:
    spec = manifest.input
    return ((hu.clamp(*spec.clip_hu) - spec.centre_hu) / spec.scale_hu)[:, None]


def _draw_batch(
    rng: np.random.Generator,
    pool: SlicePool,
    positive: NDArray[np.int64],
    negative: NDArray[np.int64],
    recipe: Recipe,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    n_negative = int(rng.binomial(recipe.batch, recipe.negative_share))
    chosen = np.concatenate(
        [rng.choice(positive, recipe.batch - n_negative), rng.choice(negative, n_negative)]
    )
    hu = pool.hu[chosen].astype(np.float32)
    hu += rng.normal(0, 6.0, (recipe.batch, 1, 1)).astype(np.float32)
    # A shift of the whole image: the network must not learn where the heart lies to the pixel.
    shift = tuple(int(step) for step in rng.integers(-12, 13, 2))
    return np.roll(hu, shift, axis=(1, 2)), np.roll(pool.vessel_map[chosen], shift, axis=(1, 2))


def _misclassified(
    network: nn.Module,
    manifest: PackageManifest,
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
            calcium = torch.sigmoid(network(_scaled(manifest, hu))[:, 0])
            is_wrong = ((calcium > manifest.calcium_threshold) & (hu >= 130)).flatten(1).any(1)
            found.append(chosen[is_wrong.cpu().numpy()])
    return np.concatenate(found)
