"""The losses of the ConvLSTM cascade against numbers worked out by hand and against MONAI."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from monai.losses.focal_loss import FocalLoss

from fedcac.training.miller2023 import NOT_ANNOTATED, MillerRecipe, epoch_slices, focal_loss

# Two voxels in a row; the logits are logarithms, so each softmax is read off.
TWO_CLASSES = torch.tensor([[[[math.log(1.0), math.log(1.0)]], [[math.log(3.0), math.log(1.0)]]]])
"""Probabilities of classes 0 and 1: (1/4, 3/4) in the first voxel, (1/2, 1/2) in the second."""

THREE_CLASSES = torch.tensor(
    [[[[math.log(8.0), 0.0]], [[math.log(1.0), math.log(2.0)]], [[math.log(1.0), 0.0]]]]
)
"""Probabilities: (8/10, 1/10, 1/10) in the first voxel, (1/4, 1/2, 1/4) in the second."""


def maps(*values: int) -> torch.Tensor:
    return torch.tensor([[list(values)]], dtype=torch.uint8)


@pytest.mark.parametrize(
    ("gamma", "target", "expected"),
    [
        # -(log 0.75 + log 0.5) / 2
        (0.0, (1, 0), 0.490415),
        # (0.25 * 0.287682 + 0.5 * 0.693147) / 2
        (1.0, (1, 1), 0.209247),
        # (0.0625 * 0.287682 + 0.25 * 0.693147) / 2
        (2.0, (1, 0), 0.095633),
        # 0.5625 * 1.386294, the second voxel left out
        (2.0, (0, NOT_ANNOTATED), 0.779791),
        (2.0, (NOT_ANNOTATED, NOT_ANNOTATED), 0.0),
    ],
)
def test_focal_loss_by_hand(gamma: float, target: tuple[int, int], expected: float) -> None:
    loss = focal_loss(TWO_CLASSES, maps(*target), gamma)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("gamma", "target", "expected"),
    [
        # (0.2^2 * 0.223144 + 0.75^2 * 1.386294) / 2 = (0.008926 + 0.779791) / 2
        (2.0, (0, 2), 0.394358),
        # (0.9 * 2.302585 + 0.5 * 0.693147) / 2
        (1.0, (1, 1), 1.209450),
    ],
)
def test_focal_loss_of_three_classes_by_hand(
    gamma: float, target: tuple[int, int], expected: float
) -> None:
    loss = focal_loss(THREE_CLASSES, maps(*target), gamma)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_an_exam_without_a_reading_of_the_heart_moves_nothing() -> None:
    heart = TWO_CLASSES.clone().requires_grad_()
    focal_loss(heart, maps(NOT_ANNOTATED, NOT_ANNOTATED), 0.0).backward()
    assert heart.grad is not None
    assert not heart.grad.any()


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
def test_focal_loss_agrees_with_monai(gamma: float) -> None:
    torch.manual_seed(1)
    logits = 3 * torch.randn(2, 3, 6, 5)
    target = torch.randint(0, 3, (2, 6, 5))
    # MONAI averages over classes too, of which all but the voxel's own add nothing.
    oracle = 3 * FocalLoss(gamma=gamma, use_softmax=True, to_onehot_y=True)(logits, target[:, None])
    torch.testing.assert_close(focal_loss(logits, target, gamma), oracle)
    if gamma == 0:
        entropy = torch.nn.functional.cross_entropy(logits, target)
        torch.testing.assert_close(focal_loss(logits, target, gamma), entropy)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_certain_voxels_have_finite_gradients(gamma: float) -> None:
    logits = torch.tensor([[[[200.0, -200.0]], [[-200.0, 200.0]]]], requires_grad=True)
    loss = focal_loss(logits, maps(0, 0), gamma)
    loss.backward()
    assert loss.item() == pytest.approx(200.0)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 0, 0, 0] == 0
    assert logits.grad[0, 0, 0, 1] == pytest.approx(-0.5)


def test_easy_voxels_count_less_with_focus() -> None:
    easy, hard = maps(0, NOT_ANNOTATED), maps(NOT_ANNOTATED, 2)
    ratios = [
        float(focal_loss(THREE_CLASSES, easy, gamma) / focal_loss(THREE_CLASSES, hard, gamma))
        for gamma in (0.0, 1.0, 2.0)
    ]
    assert ratios[0] > ratios[1] > ratios[2]
    # (0.2 / 0.75)^2 of the ratio without focus.
    assert ratios[2] == pytest.approx(ratios[0] * (0.2 / 0.75) ** 2, rel=1e-5)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="target"):
        focal_loss(TWO_CLASSES, maps(1, 0, 1), 2.0)
    with pytest.raises(ValueError, match="logits"):
        focal_loss(TWO_CLASSES[0], maps(1, 0)[0], 2.0)
    with pytest.raises(ValueError, match="gamma"):
        focal_loss(TWO_CLASSES, maps(1, 0), 0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch": 0},
        {"learning_rate": 0.0},
        {"weight_decay": -1e-4},
        {"empty_per_positive": -1.0},
        {"empty_per_positive": math.inf},
        {"calcium_gamma": 0.5},
        {"heart_gamma": -1.0},
        {"calcium_gamma": math.nan},
    ],
)
def test_a_recipe_refuses_what_cannot_be_trained(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        MillerRecipe(**({"epochs": 1, "batch": 1} | wrong))


def test_an_epoch_holds_all_calcium_and_a_subset_of_the_rest() -> None:
    has_calcium = np.zeros(50, dtype=np.bool_)
    has_calcium[[3, 11, 12, 40]] = True
    recipe = MillerRecipe(1, 1, empty_per_positive=2.5)
    epochs = [epoch_slices(has_calcium, recipe, np.random.default_rng(seed)) for seed in range(30)]
    for chosen in epochs:
        assert len(set(chosen.tolist())) == chosen.size == 14
        assert set(np.flatnonzero(has_calcium)) <= set(chosen.tolist())
    assert set(np.concatenate(epochs).tolist()) == set(range(50))
    again = epoch_slices(has_calcium, recipe, np.random.default_rng(7))
    assert again.tolist() == epochs[7].tolist() != epochs[8].tolist()


def test_an_epoch_of_few_empty_slices_takes_them_all() -> None:
    has_calcium = np.array([True, True, True, False])
    rng = np.random.default_rng(1)
    assert sorted(epoch_slices(has_calcium, MillerRecipe(1, 1), rng).tolist()) == [0, 1, 2, 3]
    without = MillerRecipe(1, 1, empty_per_positive=0.0)
    assert sorted(epoch_slices(has_calcium, without, rng).tolist()) == [0, 1, 2]
    with pytest.raises(ValueError, match="slices with calcium"):
        epoch_slices(np.zeros(4, dtype=np.bool_), without, rng)
