"""`python -m fedcac.training`: trains a family by its paper's text and packages what came out.

DIR receives `weights.safetensors`, `curves.csv`, `package/` with its model card, and the
checkpoint from which `--resume` goes on. Nothing that this makes is for clinical use.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedcac.console import Outcome, add_format, progress, run_command, say
from fedcac.errors import UsageError
from fedcac.models.devices import choose_device
from fedcac.models.manifest import WEIGHTS_FILE
from fedcac.models.radiograph_input import RadiographInput
from fedcac.phantom.grid import GATED, NON_GATED, Grid
from fedcac.training.checkpoint import write_atomically
from fedcac.training.exams import ExamStack, TrainingExam, split_by_patient, stack_exams
from fedcac.training.generated import generate_exam, generate_radiograph
from fedcac.training.loop import Run, train
from fedcac.training.packaging import write_package
from fedcac.training.plans import Plan, Radiographs, Settings, Width, plan_radiographs, plan_volumes

__all__ = ["main"]

_TRAINING_STREAM, _HELD_OUT_STREAM = 1, 2
_PATIENTS = {Width.REDUCED: 60, Width.FULL: 400}
_HELD_OUT_SHARE = 0.2
_NOT_CLINICAL = (
    "Research software. Not validated on patients outside its data. Not for clinical use."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train, measure, write; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fedcac.training", description=__doc__)
    parser.add_argument("--family", required=True, choices=("eng2021", "miller2023", "hong2025"))
    parser.add_argument("--data", required=True, help="generated, or coca:PATH")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--width", type=Width, choices=tuple(Width), default=Width.REDUCED)
    parser.add_argument("--resume", action="store_true", help="go on after the last epoch")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--patients", type=int, help="generated training patients")
    parser.add_argument("--epochs", type=int, help="epochs (miller2023: of the calcium network)")
    parser.add_argument(
        "--cross-entropy",
        type=float,
        help="eng2021: weight of a cross-entropy beside the Dice loss (full width: 0, the text)",
    )
    parser.add_argument(
        "--background-per-calcium",
        type=float,
        help="miller2023: background voxels in the loss per voxel of calcium (0: all)",
    )
    parser.add_argument("--encoder", type=Path, help="eng2021: pretrained encoder, safetensors")
    parser.add_argument("--heart", type=Path, help="miller2023: package whose heart is taken over")
    add_format(parser, _run)
    return run_command(parser, argv)


def _run(arguments: argparse.Namespace) -> Outcome:
    _check(arguments)
    torch.manual_seed(arguments.seed)
    rng = np.random.default_rng((arguments.seed, 0))
    plan, held_out = _plan(arguments, rng)
    out: Path = arguments.out
    run = Run(out, _identity(arguments, plan), is_resumed=arguments.resume)
    rows = train(plan.course, rng, tell=say, run=run, judge=plan.judge)
    package = write_package(
        out / "package",
        plan,
        held_out,
        family=arguments.family,
        name=_name(arguments),
        texts=_texts(arguments),
        licence=_licence(arguments.data),
    )
    write_atomically(out / WEIGHTS_FILE, package.weights_file)
    card = [m.model_dump(mode="json") for m in package.manifest.card.measurements]
    lines = [f"{m['name']}: {m['value']:.3f} ({m['n_exams']} exams)" for m in card]
    data = {"package": package.digest, "epochs": len(rows), "measurements": card}
    return Outcome("\n".join([f"{len(rows)} epochs; package {package.digest}", *lines]), data)


def _check(arguments: argparse.Namespace) -> None:
    is_coca = arguments.data.startswith("coca:")
    if not is_coca and arguments.data != "generated":
        raise UsageError(
            "--data is neither 'generated' nor 'coca:PATH'.",
            code="unknown_data",
            cure="Name one of them.",
        )
    if is_coca and arguments.family == "hong2025":
        raise UsageError(
            "COCA holds no radiographs.",
            code="no_radiographs",
            cure="Train hong2025 on generated data.",
        )
    counts = (arguments.patients, arguments.epochs)
    weights = (arguments.cross_entropy, arguments.background_per_calcium)
    if any(count is not None and count < 1 for count in counts) or any(
        weight is not None and not 0 <= weight < math.inf for weight in weights
    ):
        raise UsageError(
            "A count or a weight is out of its range.",
            code="bad_count",
            cure="Give counts of at least 1 and weights of at least 0.",
        )


def _plan(
    arguments: argparse.Namespace, rng: np.random.Generator
) -> tuple[Plan, ExamStack | Radiographs]:
    settings = Settings(
        family=arguments.family,
        width=arguments.width,
        device=choose_device(arguments.device),
        epochs=arguments.epochs,
        entropy_weight=arguments.cross_entropy,
        background_per_calcium=arguments.background_per_calcium,
        encoder=arguments.encoder,
        heart=arguments.heart,
    )
    if settings.family == "hong2025":
        training, held_out = (
            _radiographs(arguments, stream) for stream in (_TRAINING_STREAM, _HELD_OUT_STREAM)
        )
        return plan_radiographs(settings, training, held_out), held_out
    if arguments.data == "generated":
        stacks = [
            stack_exams(_generated(arguments, stream))
            for stream in (_TRAINING_STREAM, _HELD_OUT_STREAM)
        ]
    else:
        stacks = _coca(arguments)
    return plan_volumes(settings, stacks[0], stacks[1], rng), stacks[1]


def _count(arguments: argparse.Namespace, stream: int) -> int:
    n_patients = arguments.patients or _PATIENTS[arguments.width]
    return int(n_patients) if stream == _TRAINING_STREAM else max(2, n_patients // 2)


def _grid(arguments: argparse.Namespace) -> Grid:
    """Gated for Eng and Hong; without gating, as attenuation-correction CT, for Miller."""
    grid = NON_GATED if arguments.family == "miller2023" else GATED
    if arguments.width is Width.FULL:
        return grid
    # Half the matrix over the same field: a quarter of the work.
    return Grid(
        grid.n_slices,
        grid.matrix // 2,
        grid.pixel_mm * 2,
        grid.increment_mm,
        psf_sigma_mm=grid.psf_sigma_mm,
        noise_hu=grid.noise_hu,
    )


def _generated(arguments: argparse.Namespace, stream: int) -> Iterator[TrainingExam]:
    n_patients, grid = _count(arguments, stream), _grid(arguments)
    with progress("Generating", n_patients) as advance:
        for number in range(n_patients):
            rng = np.random.default_rng((arguments.seed, stream, number))
            yield generate_exam(rng, grid, is_moving=arguments.family == "miller2023")
            advance()


def _radiographs(arguments: argparse.Namespace, stream: int) -> Radiographs:
    n_patients, grid = _count(arguments, stream), _grid(arguments)
    size = 512 if arguments.width is Width.FULL else 64
    reader = RadiographInput(rows=size, columns=size)
    images, scores = [], []
    with progress("Generating", n_patients) as advance:
        for number in range(n_patients):
            rng = np.random.default_rng((arguments.seed, stream, number))
            image, score = generate_radiograph(rng, grid)
            images.append(reader.prepare(image)[0, 0].numpy())
            scores.append(score)
            advance()
    return Radiographs(np.stack(images), np.array(scores))


def _coca(arguments: argparse.Namespace) -> list[ExamStack]:
    from fedcac.training.coca import GatedExams

    gated = GatedExams.of(Path(arguments.data.removeprefix("coca:")))
    split = split_by_patient(
        gated.patients, _HELD_OUT_SHARE, np.random.default_rng((arguments.seed, 1))
    )
    folders = (arguments.out / "slices" / "training", arguments.out / "slices" / "held_out")
    stacks = [
        stack_exams(gated.exams(patients), folder)
        for patients, folder in zip(split, folders, strict=True)
    ]
    gated.write_problems(arguments.out / "problems.csv")
    say(f"{len(gated.problems)} problems of COCA's patients are listed in problems.csv")
    return stacks


def _identity(arguments: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    return {
        "family": arguments.family,
        "data": arguments.data.partition(":")[0],
        "seed": arguments.seed,
        "width": arguments.width.value,
        "patients": arguments.patients,
        "recipe": dict(plan.recipe),
        "architecture": dict(plan.architecture),
    }


def _name(arguments: argparse.Namespace) -> str:
    return f"{arguments.family}-{arguments.data.partition(':')[0]}-{arguments.width.value}"


def _texts(arguments: argparse.Namespace) -> dict[str, str]:
    if arguments.data == "generated":
        n_patients = _count(arguments, _TRAINING_STREAM)
        return {
            "intended_use": "Demonstration of the software only. Trained on generated data; not "
            "validated on patients' calcium. Not for clinical use.",
            "training_data": f"{n_patients} generated patients: synthetic thoraces with plaques "
            f"of known mass; seed {arguments.seed}.",
            "limitations": "Accuracy on patients is unknown. Held-out patients come from the same "
            "generator as the training patients. A network after the paper's text, not its model.",
        }
    return {
        "intended_use": _NOT_CLINICAL,
        "training_data": "Gated exams of COCA (Stanford AIMI, Coronary Calcium and chest CTs), "
        f"under its research licence; split by patient, seed {arguments.seed}.",
        "limitations": "Trained and measured at one institution, on gated exams. A network after "
        "the paper's text, not its model.",
    }


def _licence(data: str) -> str:
    if data == "generated":
        return "Apache-2.0"
    return "For research under the terms of COCA's licence; not to be redistributed."


if __name__ == "__main__":
    sys.exit(main())
