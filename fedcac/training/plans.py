"""What each family trains: architecture, input, recipe, held-out figures and golden case.

`reduced` is for a few minutes on a CPU; `full` is the paper's width and, where the paper gives
numbers, its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedcac.errors import UsageError
from fedcac.models import ModelPackage, build_network, family_of
from fedcac.models.family import scaled
from fedcac.models.manifest import InputSpec
from fedcac.models.miller2023 import HEART_THRESHOLD, MillerNetwork
from fedcac.phantom.grid import Grid
from fedcac.training.exams import ExamStack, TrainingExam, stack_exams
from fedcac.training.generated import generate_exam
from fedcac.training.hong2025 import HongCourse, HongRecipe, threshold_labels
from fedcac.training.judging import heart_dice, judge_masks, judge_probabilities, segment
from fedcac.training.loop import Course
from fedcac.training.miller2023 import MillerRecipe
from fedcac.training.miller2023_course import MillerCourse
from fedcac.training.recipe import (
    CALCIUM_THRESHOLD,
    EngCourse,
    Recipe,
    SlicePool,
    load_pretrained_encoder,
)

__all__ = ["Plan", "Radiographs", "Settings", "Width", "plan_radiographs", "plan_volumes"]

_BACKGROUND_PER_CALCIUM = 50.0


class Width(StrEnum):
    """Width of the network, and with it the length of the run."""

    REDUCED = "reduced"
    FULL = "full"


@dataclass(frozen=True)
class Settings:
    """What a run is asked for.

    `epochs`, `entropy_weight` (Eng's, see `Recipe`) and `background_per_calcium` (Miller's, see
    `MillerCourse`; 0 for all) None leave the plan's; `encoder` are pretrained weights for Eng's
    encoder; `heart` is a package whose heart network is taken over and not trained.
    """

    family: str
    width: Width
    device: torch.device
    epochs: int | None = None
    entropy_weight: float | None = None
    background_per_calcium: float | None = None
    encoder: Path | None = None
    heart: Path | None = None


@dataclass(frozen=True, eq=False)
class Radiographs:
    """Prepared radiographs (n, R, C), float32, and the calcium scores (n,) of their patients."""

    images: NDArray[np.float32]
    scores: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Plan:
    """A course with what a package of its network needs.

    `recipe` is JSON-like, for the run's identity; `judge` gives an epoch's held-out figures;
    `architecture`, `input` and `golden_inputs` go into the package.
    """

    course: Course
    network: nn.Module
    recipe: Mapping[str, Any]
    judge: Callable[[int], Mapping[str, float | int | str | None]]
    architecture: Mapping[str, Any]
    input: InputSpec
    golden_inputs: Mapping[str, torch.Tensor]


_ARCHITECTURES: dict[tuple[str, Width], dict[str, Any]] = {
    ("eng2021", Width.REDUCED): {
        "planes": [16, 32, 48, 64],
        "blocks": [2, 2, 3, 2],
        "groups": 4,
        "base_width": 32,
        "decoder": [64, 48, 32, 24],
    },
    ("miller2023", Width.REDUCED): {"init_features": 16, "growth_rate": 12, "blocks": [6, 8]},
    ("hong2025", Width.REDUCED): {
        "init_features": 16,
        "growth_rate": 8,
        "block_config": [2, 4, 4, 2],
    },
}
# The text's 305,000 iterations in small. A run of minutes cannot learn by Dice alone, nor find the
# calcium again among all slices without, which join after the first epoch.
_REDUCED_ENG: dict[str, Any] = {
    "epochs": 8,
    "iterations_per_epoch": 100,
    "batch": 8,
    "warm_up": 100,
    "anneal": None,
    "negative_share": 0.35,
    "entropy_weight": 1.0,
}
# Eng's range and centre are the text's, the rest ours; Miller's and Hong's texts are silent.
_INPUTS = {
    "eng2021": InputSpec(clip_hu=(-800.0, 1200.0), centre_hu=200.0, scale_hu=1000.0),
    "miller2023": InputSpec(clip_hu=(-800.0, 1200.0), centre_hu=200.0, scale_hu=1000.0),
    "hong2025": InputSpec(clip_hu=(0.0, 1.0), centre_hu=0.5, scale_hu=0.5),
}


def plan_volumes(
    settings: Settings, training: ExamStack, held_out: ExamStack, rng: np.random.Generator
) -> Plan:
    """Return the plan of a segmenting family on annotated exams.

    Raises
    ------
    UsageError
        `no_heart_annotation` if a heart network is to be trained and no exam has the heart drawn;
        `too_little_calcium` if the training exams do not hold slices with calcium and without.
    PackageError
        If `encoder` or `heart` does not fit.
    """
    make = {"eng2021": _plan_eng, "miller2023": _plan_miller}[settings.family]
    has_calcium = [bool(part.any()) for part in training.vessel_map]
    if all(has_calcium) or not any(has_calcium):
        raise UsageError(
            "The training exams do not hold both slices with coronary calcium and slices without.",
            code="too_little_calcium",
            cure="Give more exams.",
        )
    return make(settings, training, held_out, rng)


def _plan_eng(
    settings: Settings, training: ExamStack, held_out: ExamStack, rng: np.random.Generator
) -> Plan:
    architecture, spec = _architecture(settings), _INPUTS["eng2021"]
    network = build_network("eng2021", architecture)
    pretrained: frozenset[str] = frozenset()
    if settings.encoder is not None:
        pretrained = load_pretrained_encoder(network, settings.encoder)
    network = network.to(settings.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    pool = SlicePool(training.hu, training.vessel_map)
    recipe = Recipe.of_the_text(int(pool.is_positive.sum()), is_pretrained=bool(pretrained))
    if settings.width is Width.REDUCED:
        recipe = replace(recipe, **_REDUCED_ENG, pretrained_delay=200 if pretrained else 0)
    recipe = replace(recipe, epochs=settings.epochs or recipe.epochs)
    if settings.entropy_weight is not None:
        recipe = replace(recipe, entropy_weight=settings.entropy_weight)
    family = family_of("eng2021", architecture)

    def mask_of(exam: TrainingExam) -> NDArray[np.uint8]:
        return segment(network, family, spec, CALCIUM_THRESHOLD, exam)

    return Plan(
        course=EngCourse(network, spec, pool, recipe, rng, pretrained),
        network=network,
        recipe=vars(recipe),
        judge=lambda _: judge_masks(held_out.exams, mask_of).columns(),
        architecture=architecture,
        input=spec,
        golden_inputs={"hu": _golden_hu(0)[:, 0].contiguous()},
    )


def _plan_miller(
    settings: Settings, training: ExamStack, held_out: ExamStack, rng: np.random.Generator
) -> Plan:
    architecture, spec = _architecture(settings), _INPUTS["miller2023"]
    network = cast("MillerNetwork", build_network("miller2023", architecture))
    recipe, heart_epochs = MillerRecipe(epochs=50, batch=8), 10
    if settings.width is Width.REDUCED:
        recipe, heart_epochs = MillerRecipe(epochs=6, batch=4), 1
    recipe = replace(recipe, epochs=settings.epochs or recipe.epochs)
    background = settings.background_per_calcium
    background = _BACKGROUND_PER_CALCIUM if background is None else background or None
    if settings.heart is not None:
        _take_heart(network, settings.heart)
        heart_epochs = 0
    elif training.exams[0].heart_map is None:
        raise UsageError(
            "The heart's network cannot be trained: these exams do not have the heart drawn.",
            code="no_heart_annotation",
            cure="Name a package with --heart whose heart network is taken over.",
        )
    network = network.to(settings.device)
    family = family_of("miller2023", architecture)

    def mask_of(exam: TrainingExam) -> NDArray[np.uint8]:
        return segment(network, family, spec, CALCIUM_THRESHOLD, exam)

    def judge(epoch: int) -> Mapping[str, float | int | str | None]:
        if epoch >= heart_epochs:
            return {"heart_dice": None, **judge_masks(held_out.exams, mask_of).columns()}
        dice = heart_dice(held_out.exams, lambda exam: _heart_of(network, spec, exam))
        blank = {"dice": None, "kappa_linear": None, "n_held_out": len(held_out.exams)}
        return {"heart_dice": dice, **blank}

    return Plan(
        course=MillerCourse(network, spec, training, recipe, heart_epochs, background),
        network=network,
        recipe={
            **vars(recipe),
            "heart_epochs": heart_epochs,
            "background_per_calcium": background,
        },
        judge=judge,
        architecture=architecture,
        input=spec,
        golden_inputs={"hu": _golden_hu(network.window // 2)},
    )


def plan_radiographs(settings: Settings, training: Radiographs, held_out: Radiographs) -> Plan:
    """Return the plan of the radiograph family.

    Raises
    ------
    UsageError
        `too_little_calcium` if the patients do not include some with calcium and some without.
    """
    spec, (rows, columns) = _INPUTS["hong2025"], training.images.shape[1:]
    architecture = {**_architecture(settings), "image": {"rows": rows, "columns": columns}}
    network = build_network("hong2025", architecture).to(settings.device)
    recipe = HongRecipe(epochs=40, batch=16)
    if settings.width is Width.REDUCED:
        recipe = HongRecipe(epochs=8, batch=8, learning_rate=1e-3)
    recipe = replace(recipe, epochs=settings.epochs or recipe.epochs)
    if not 0 < int((training.scores > 0).sum()) < training.scores.size:
        raise UsageError(
            "The training patients do not include some with calcium and some without.",
            code="too_little_calcium",
            cure="Give more patients.",
        )
    family = family_of("hong2025", architecture)

    def judge(_: int) -> Mapping[str, float | int | str | None]:
        network.eval()
        images = torch.from_numpy(held_out.images)
        with torch.inference_mode():
            parts = [
                family.infer(network, {"image": part.to(settings.device)}, spec)["positive"].cpu()
                for part in torch.tensor_split(images, max(1, len(images) // 16))
            ]
        labels = threshold_labels(held_out.scores) > 0
        return judge_probabilities(torch.cat(parts).numpy(), labels).columns()

    return Plan(
        course=HongCourse(network, spec, training.images, training.scores, recipe),
        network=network,
        recipe=vars(recipe),
        judge=judge,
        architecture=architecture,
        input=spec,
        golden_inputs={"image": torch.from_numpy(training.images[:2].copy())},
    )


def _architecture(settings: Settings) -> dict[str, Any]:
    return _ARCHITECTURES.get((settings.family, settings.width), {})


def _heart_of(network: MillerNetwork, spec: InputSpec, exam: TrainingExam) -> NDArray[np.bool_]:
    network.eval()
    device = next(network.parameters()).device
    half, n_slices = network.window // 2, exam.hu.shape[0]
    steps = np.arange(-half, half + 1)
    found = []
    with torch.inference_mode():
        for start in range(0, n_slices, 8):
            middle = np.arange(start, min(n_slices, start + 8))
            windows = exam.hu[np.clip(middle[:, None] + steps, 0, n_slices - 1)]
            rows, columns = windows.shape[2:]
            padding = (0, -columns % network.stride, 0, -rows % network.stride)
            block = nn.functional.pad(torch.from_numpy(windows), padding, value=-1000.0)
            logits = network.heart(scaled(block.to(device), spec)).float()
            is_heart = logits.softmax(dim=1)[:, 1] > HEART_THRESHOLD
            found.append(is_heart[:, :rows, :columns].cpu().numpy())
    return np.concatenate(found)


def _take_heart(network: MillerNetwork, folder: Path) -> None:
    package = ModelPackage.from_folder(folder)
    given = package.network()
    if not isinstance(given, MillerNetwork):
        raise _other_heart()
    try:
        network.heart.load_state_dict(given.heart.state_dict(), strict=True)
    except RuntimeError as error:
        raise _other_heart() from error


def _other_heart() -> UsageError:
    return UsageError(
        "The package's heart network is not one of this width.",
        code="other_heart",
        cure="Name a miller2023 package of the same width.",
    )


def _golden_hu(halo: int) -> torch.Tensor:
    """Return two windows (2, 2 x halo + 1, 64, 64) of a generated exam, float32.

    Never of the training data: a package travels, and with it its golden case.
    """
    grid = Grid(16, 128, 1.5625, 5.0, psf_sigma_mm=0.7, noise_hu=16.0)
    stack = stack_exams([generate_exam(np.random.default_rng(6), grid, is_moving=False)])
    amounts = np.count_nonzero(stack.vessel_map, axis=(1, 2))
    windows = stack.windows(np.sort(np.argsort(amounts)[-2:]), halo)
    return torch.from_numpy(np.ascontiguousarray(windows[..., 32:96, 32:96]))
