"""`python -m benchmarks.inference_engine`: exams to scores on the CPU, against slice by slice.

The other side is what one writes first: a loop of pydicom over the files, the same network slice
by slice in float32, eager, with torch's own threads, and the same scorer. It even knows the field
of view, so both do the same arithmetic; both must give the same scores, or there is no benchmark.
A second table takes the engine's measures one by one over the same slices.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.side_by_side import OURS, Case, Spread, record, time_in_turn, write_tables
from fedcac.imaging import load_volume
from fedcac.models import InferenceEngine, ModelPackage, demonstration_package
from fedcac.models.acceleration import fold_batch_norms
from fedcac.models.blocks import VolumeBlocks
from fedcac.models.lanes import Lanes
from fedcac.phantom import chest_ct_folder
from fedcac.protocol import ImageCriteria
from fedcac.scoring import profile_named, score_volume
from site_agent.exams.exam_pipeline import ExamScore, package_pipeline

__all__ = ["NAME", "engine_cases", "engine_ratios"]

NAME = "inference_engine_speed_relative_to_slice_by_slice"

_N_EXAMS = 3
_N_ROUNDS = 5
_N_SLICES = 16
_PROFILE = profile_named("agatston1990")


def _field_of_view(package: ModelPackage, hu: NDArray[np.float32], pixel_mm: float) -> VolumeBlocks:
    spacing_mm = (5.0, pixel_mm, pixel_mm)
    field_mm = package.manifest.input.field_of_view_mm
    return VolumeBlocks.of(hu, spacing_mm, package.family, field_mm)


def _plain_volume(folder: Path) -> tuple[NDArray[np.float32], tuple[float, float, float]]:
    datasets = [pydicom.dcmread(path) for path in folder.iterdir()]
    datasets.sort(key=lambda dataset: -float(dataset.ImagePositionPatient[2]))
    hu = np.stack(
        [
            dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
            for dataset in datasets
        ]
    ).astype(np.float32)
    first, second = (float(dataset.ImagePositionPatient[2]) for dataset in datasets[:2])
    row_mm, column_mm = (float(value) for value in datasets[0].PixelSpacing)
    return np.maximum(hu, -1024.0), (first - second, row_mm, column_mm)


def _plain_score(package: ModelPackage, network: nn.Module, folder: Path) -> float:
    hu, spacing_mm = _plain_volume(folder)
    blocks = _field_of_view(package, hu, spacing_mm[1])
    mask = np.zeros(hu.shape, dtype=np.uint8)
    threshold = package.manifest.calcium_threshold
    for index in range(hu.shape[0]):
        image = torch.from_numpy(np.ascontiguousarray(blocks.hu[index : index + 1]))
        with torch.inference_mode():
            calcium, vessels = package.probabilities(network, image)
        is_calcium = (calcium > threshold) & (image >= 130)
        label = (vessels.argmax(dim=1) + 1) * is_calcium
        mask[index, blocks.rows, blocks.columns] = label[0].numpy()
    return score_volume(hu, mask, spacing_mm, _PROFILE).total


def _exams_case(package: ModelPackage) -> Case:
    """Time `_N_EXAMS` exams, from DICOM to score."""
    folder = chest_ct_folder()
    network = package.network()
    engine = InferenceEngine(package, device="cpu")
    pipeline = package_pipeline(package, engine, ImageCriteria(), _PROFILE)

    def ours() -> list[float]:
        exams = iter([(number, folder) for number in range(_N_EXAMS)])
        scores: list[float] = []

        def deliver(_: int, outcome: object, __: float) -> None:
            if not isinstance(outcome, ExamScore):
                raise RuntimeError("an exam has no score")
            scores.append(outcome.total)

        pipeline.run(lambda: next(exams, None), deliver)
        return scores

    def plain() -> list[float]:
        return [_plain_score(package, network, folder) for _ in range(_N_EXAMS)]

    if not np.allclose(ours(), plain(), rtol=1e-6):
        raise RuntimeError("the two give different scores: there is nothing to compare")
    case = time_in_turn(
        f"{_N_EXAMS} exams of 64 slices, DICOM to score",
        {OURS: lambda: ours, "slice by slice": lambda: plain},
        n_rounds=_N_ROUNDS,
    )
    engine.close()
    return case


def _measures_case(package: ModelPackage) -> Case:
    """Time the network alone over `_N_SLICES` slices, the engine's measures added one by one."""
    volume = load_volume(chest_ct_folder(), ImageCriteria())
    blocks = _field_of_view(package, volume.hu, volume.spacing_mm[1])
    indices = np.arange(20, 20 + _N_SLICES)
    slices = torch.from_numpy(blocks.block(indices))
    plain, last = package.network(), copy.deepcopy(package.network())
    last = last.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    folded = fold_batch_norms(package.network())
    folded = folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    lanes = Lanes()

    def run(network: nn.Module, part: torch.Tensor) -> None:
        with torch.inference_mode():
            package.probabilities(network, part)

    def in_turn(network: nn.Module, size: int) -> None:
        for part in slices.split(size):
            run(network, part)

    def side_by_side(dtype: torch.dtype | None) -> None:
        def one(part: torch.Tensor) -> None:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is not None):
                run(folded, part)

        lanes.map(one, slices.split(4))

    contenders: dict[str, Callable[[], None]] = {
        "slice by slice": partial(in_turn, plain, 1),
        "batches of 4": partial(in_turn, plain, 4),
        "+ channels last": partial(in_turn, last, 4),
        "+ batch norms folded": partial(in_turn, folded, 4),
        OURS: partial(side_by_side, None),
        "fedcac in bfloat16": partial(side_by_side, torch.bfloat16),
    }
    case = time_in_turn(
        f"network alone, {_N_SLICES} slices of {slices.shape[1]} x {slices.shape[2]}",
        {name: partial(_itself, work) for name, work in contenders.items()},
        n_rounds=_N_ROUNDS,
    )
    lanes.close()
    return case


def _itself(work: Callable[[], None]) -> Callable[[], None]:
    return work


def engine_cases() -> tuple[Case, ...]:
    """Run the benchmark and write its tables."""
    package = demonstration_package()
    cases = (_exams_case(package), _measures_case(package))
    notes = (
        f"{_N_ROUNDS} rounds, contenders in turn within each; torch with "
        f"{torch.get_num_threads()} threads. The package is the demonstration package (reduced "
        "SE-ResNeXt encoder, 1.1 million parameters) on the chest CT that ships with it, every "
        "slice of which holds bone and so is computed. Both sides know the field of view of 220 mm "
        "and give the same scores. The engine reads in one worker process, runs one core per "
        "thread, and scores beside; its start, once per queue, is not counted. The row in bfloat16 "
        "is what a package with precision `reduced` may get; the demonstration package allows "
        "float32 only. No GPU was at hand: the CUDA paths have not been run."
    )
    write_tables(
        "inference_engine",
        "Exams to scores on the CPU against slice by slice",
        cases,
        ("fedcac", "torch", "monai", "numpy", "pydicom"),
        notes,
    )
    return cases


def engine_ratios() -> dict[str, Spread]:
    """Return the ratio that `benchmarks` records; more than 1 says that the engine is faster."""
    return {NAME: engine_cases()[0].ratios_to("slice by slice")}


def recorded() -> dict[str, dict[str, Spread]]:
    """Run this benchmark and return what `benchmarks` records."""
    return {"ratios": engine_ratios()}


if __name__ == "__main__":
    record("ratios", engine_ratios())
