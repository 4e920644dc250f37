"""The training recipe: it learns, it takes up misclassified negatives, it repeats itself."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fedcac.training.recipe as module
from fedcac.models.eng2021 import EngNetwork
from fedcac.models.manifest import InputSpec
from fedcac.training.recipe import Recipe, SlicePool, segmentation_loss, train_network

SPEC = InputSpec(clip_hu=(-200.0, 800.0), centre_hu=300.0, scale_hu=500.0)


def easy_pool(n_positive: int = 12, n_negative: int = 20) -> SlicePool:
    """Slices of 64 x 64: a bright square is calcium; empty slices are soft tissue."""
    rng = np.random.default_rng(5)
    n = n_positive + n_negative
    hu = rng.normal(40, 5, (n, 64, 64)).astype(np.int16)
    vessel_map = np.zeros((n, 64, 64), dtype=np.uint8)
    for index in range(n_positive):
        row, column = rng.integers(16, 40, 2)
        hu[index, row : row + 10, column : column + 10] = 700
        vessel_map[index, row : row + 10, column : column + 10] = 1 + index % 4
    return SlicePool(hu, vessel_map)


def small_network() -> EngNetwork:
    torch.manual_seed(3)
    return EngNetwork((8, 8, 8, 8), (1, 1, 1, 1), 1, 16, (8, 8, 8, 8))


def train(
    seed: int, epochs: int = 4, iterations: int = 40
) -> tuple[list[float], dict[str, torch.Tensor]]:
    network, lines = small_network(), list[str]()
    recipe = Recipe(epochs, iterations, 6, learning_rate=1e-2, warm_up=5)
    train_network(network, SPEC, easy_pool(), recipe, np.random.default_rng(seed), lines.append)
    assert not network.training
    losses = [float(re.findall(r"loss ([0-9.]+)", line)[0]) for line in lines]
    return losses, network.state_dict()


def test_training_lowers_the_loss_and_repeats_itself() -> None:
    losses, _ = train(1)
    assert len(losses) == 4
    assert losses[-1] < 0.8 * losses[0]
    first, same = train(1, 1, 5)
    again, weights = train(1, 1, 5)
    assert again == first
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert train(2, 1, 5)[0] != first


def test_the_loss_prefers_the_truth() -> None:
    truth = torch.from_numpy(easy_pool().vessel_map[:4])
    right = torch.full((4, 5, 64, 64), -8.0)
    right[:, 0][truth > 0] = 8.0
    for vessel in range(1, 5):
        right[:, vessel][truth == vessel] = 8.0
    assert segmentation_loss(right, truth) < 0.05
    wrong_vessel = right[:, [0, 2, 3, 4, 1]]
    assert segmentation_loss(wrong_vessel, truth) > 10
    assert segmentation_loss(-right, truth) > 10
    assert torch.isfinite(segmentation_loss(right, torch.zeros_like(truth)))


class SeesBright(nn.Module):
    """Calls every bright pixel calcium, whatever its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (40 * images + 12 + 0 * self.weight).expand(-1, 5, -1, -1)


def test_misclassified_negatives_join(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = easy_pool(4, 30)
    bones = np.array([7, 19, 31])
    pool.hu[bones, 5:9, 5:9] = 600
    seen: list[set[int]] = []
    draw = module._draw_batch

    def watch(rng: Any, pool: Any, positive: Any, negative: Any, recipe: Any) -> Any:
        seen.append({int(index) for index in negative})
        return draw(rng, pool, positive, negative, recipe)

    monkeypatch.setattr(module, "_draw_batch", watch)
    lines: list[str] = []
    train_network(SeesBright(), SPEC, pool, Recipe(2, 1, 4), np.random.default_rng(0), lines.append)
    assert len(seen[0]) == 3
    assert seen[1] == seen[0] | set(bones.tolist())
    assert seen[1] > seen[0]
    assert "3 of 30 empty slices misclassified" in lines[0]
