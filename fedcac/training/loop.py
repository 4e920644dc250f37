"""The training loop that every family's recipe shares.

A recipe bound to its network and slices is a `Course`; the loop steps, keeps curves, and writes a
checkpoint after every epoch. A run that was stopped and resumed on a CPU ends with the weights of a
run that was not, bit for bit.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from fedcac.errors import IntegrityError, UsageError
from fedcac.training.checkpoint import Checkpoint, read_checkpoint, write_atomically

__all__ = [
    "CURVES_FILE",
    "Batch",
    "Course",
    "EpochReport",
    "ParameterGroup",
    "Row",
    "Run",
    "cosine_with_warm_up",
    "curves_csv",
    "train",
]

CURVES_FILE = "curves.csv"

Batch = tuple[torch.Tensor, ...]
Row = dict[str, float | int | str | None]
"""One epoch of the curves; None where a figure does not exist."""


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """Parameters that share a rate: `learning_rate` x `factor(step)`, steps counted from 0.

    `weight_decay` is L2 regularisation, added to the gradient.
    """

    parameters: Sequence[nn.Parameter]
    learning_rate: float
    weight_decay: float = 0.0
    factor: Callable[[int], float] = field(default=lambda _: 1.0)


@dataclass(frozen=True)
class EpochReport:
    """What a course says at the end of an epoch: a remark for a person, columns for the curves."""

    remark: str = ""
    columns: Mapping[str, float | int | str | None] = field(default_factory=dict)


class Course(Protocol):
    """A recipe bound to its network and its training data.

    All chance comes from the generator that is handed in or from torch's own; what else changes
    from epoch to epoch is in `state`.
    """

    @property
    def network(self) -> nn.Module:
        """The network that is trained, on its device."""

    n_epochs: int
    gradient_norm: float | None
    """Gradients of a larger norm are scaled down to it; None leaves them."""

    def groups(self) -> Sequence[ParameterGroup]:
        """Return the parameters that Adam trains."""

    def batches(self, epoch: int, rng: np.random.Generator) -> Iterable[Batch]:
        """Return the batches of an epoch, tensors on the CPU."""

    def loss(self, epoch: int, batch: Batch) -> torch.Tensor:
        """Return the scalar loss of a batch on the network's device."""

    def end_epoch(self, epoch: int) -> EpochReport:
        """Look back on an epoch; the network may be left in any mode."""

    def state(self) -> dict[str, Any]:
        """Return what changes between epochs, JSON-like."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a state that `state` returned."""


@dataclass(frozen=True)
class Run:
    """Where a run is kept and what it is.

    `identity` (JSON-like) is what must be equal for a checkpoint to be taken up: family, data,
    seed, recipe.
    """

    folder: Path
    identity: Mapping[str, Any]
    is_resumed: bool = False


def train(
    course: Course,
    rng: np.random.Generator,
    *,
    tell: Callable[[str], None],
    run: Run | None = None,
    judge: Callable[[int], Mapping[str, float | int | str | None]] | None = None,
) -> list[Row]:
    """Train a course's network in place, with Adam and no early stop; return the curves.

    Arithmetic is float32, and bfloat16 by autocast where the network lies on a CUDA device. The
    network is left in evaluation mode.

    Parameters
    ----------
    course
        Recipe, network and data.
    rng
        The course's source of chance.
    tell
        Receives a line per epoch.
    run
        None keeps nothing on disk. Otherwise a checkpoint and `curves.csv` are written into its
        folder after every epoch, and a resumed run goes on after the last one.
    judge
        Given the epoch, returns held-out figures for the curves. It may leave the network in any
        mode and draws no chance.

    Raises
    ------
    UsageError
        `folder_in_use` if the folder has a checkpoint and the run is not resumed, `other_run` if
        the checkpoint is of another run, `training_diverged` if a loss is not finite.
    IntegrityError
        `bad_checkpoint` if the checkpoint is damaged.
    """
    groups = list(course.groups())
    optimiser = torch.optim.Adam(
        [{"params": list(g.parameters), "weight_decay": g.weight_decay} for g in groups],
        lr=0.0,
    )
    progress = _Progress(course, groups, optimiser, rng)
    if run is not None:
        _take_up(progress, run)
    for epoch in range(len(progress.rows), course.n_epochs):
        loss = progress.run_epoch(epoch)
        report = course.end_epoch(epoch)
        row: Row = {"epoch": epoch + 1, "step": progress.step, "loss": loss, **report.columns}
        if judge is not None:
            row.update(judge(epoch))
        progress.rows.append(row)
        remark = f", {report.remark}" if report.remark else ""
        tell(f"epoch {epoch + 1}/{course.n_epochs}: loss {loss:.4f}{remark}")
        if run is not None:
            progress.checkpoint(run.identity).write(run.folder)
            write_atomically(run.folder / CURVES_FILE, curves_csv(progress.rows).encode())
    course.network.eval()
    return progress.rows


class _Progress:
    """A course under way."""

    def __init__(
        self,
        course: Course,
        groups: Sequence[ParameterGroup],
        optimiser: torch.optim.Adam,
        rng: np.random.Generator,
    ) -> None:
        self.course, self.groups, self.optimiser, self.rng = course, groups, optimiser, rng
        self.step = 0
        self.rows: list[Row] = []

    def run_epoch(self, epoch: int) -> float:
        """Step through an epoch and return its mean loss."""
        course = self.course
        device = next(course.network.parameters()).device
        course.network.train()
        losses = []
        for batch in course.batches(epoch, self.rng):
            for group, settings in zip(self.groups, self.optimiser.param_groups, strict=True):
                settings["lr"] = group.learning_rate * group.factor(self.step)
            with _autocast(device):
                loss = course.loss(epoch, tuple(part.to(device) for part in batch))
            value = float(loss.detach())
            if not math.isfinite(value):
                raise UsageError(
                    f"The loss of epoch {epoch + 1} is not a finite number.",
                    code="training_diverged",
                    cure="Lower the learning rate, or look at the images and their annotation.",
                )
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if course.gradient_norm is not None:
                nn.utils.clip_grad_norm_(course.network.parameters(), course.gradient_norm)
            self.optimiser.step()
            self.step += 1
            losses.append(value)
        return float(np.mean(losses))

    def checkpoint(self, identity: Mapping[str, Any]) -> Checkpoint:
        """Return the state at the end of an epoch."""
        tensors = {f"network.{k}": v for k, v in self.course.network.state_dict().items()}
        stored = self.optimiser.state_dict()
        for number, parts in stored["state"].items():
            tensors |= {f"optimiser.{number}.{name}": value for name, value in parts.items()}
        tensors["torch_cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["torch_cuda"] = torch.cuda.get_rng_state()
        return Checkpoint(
            tensors,
            {
                "identity": identity,
                "step": self.step,
                "rows": self.rows,
                "numpy": self.rng.bit_generator.state,
                "course": self.course.state(),
            },
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to the state of a checkpoint."""
        tensors, document = checkpoint.tensors, checkpoint.document
        weights = _named(tensors, "network.")
        self.course.network.load_state_dict(weights, strict=True)
        stored = self.optimiser.state_dict()
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in _named(tensors, "optimiser.").items():
            number, part = name.split(".", 1)
            moments.setdefault(int(number), {})[part] = tensor
        self.optimiser.load_state_dict({**stored, "state": moments})
        torch.set_rng_state(tensors["torch_cpu"])
        if "torch_cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["torch_cuda"])
        self.rng.bit_generator.state = document["numpy"]
        self.course.restore(document["course"])
        self.step, self.rows = int(document["step"]), list(document["rows"])


def _take_up(progress: _Progress, run: Run) -> None:
    checkpoint = read_checkpoint(run.folder)
    if checkpoint is None:
        return
    if not run.is_resumed:
        raise UsageError(
            "The folder holds a training run.",
            code="folder_in_use",
            cure="Resume it, or name another folder.",
        )
    # Through JSON, as the stored one went: tuples are lists there.
    if checkpoint.document.get("identity") != json.loads(json.dumps(run.identity)):
        raise UsageError(
            "The checkpoint in the folder is of another run.",
            code="other_run",
            cure="Resume with the family, data, seed and settings it began with.",
        )
    try:
        progress.restore(checkpoint)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise IntegrityError(
            "The checkpoint does not fit the network or the recipe.",
            code="bad_checkpoint",
            cure="Delete the folder and train from the start.",
        ) from error


def cosine_with_warm_up(warm_up: int, total: int, delay: int = 0) -> Callable[[int], float]:
    """Return the factor of a rate: 0 for `delay` steps, linear to 1, then a cosine to 0.

    `total` steps count from the end of the delay and include the `warm_up` steps.
    """

    def factor(step: int) -> float:
        step -= delay
        if step < 0:
            return 0.0
        if step < warm_up:
            return (step + 1) / warm_up
        share = (step - warm_up) / max(1, total - warm_up)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

    return factor


def curves_csv(rows: Sequence[Row]) -> str:
    """Return curves as CSV: one row an epoch, columns of the first row first, four digits."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: float | str | None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _named(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _autocast(device: torch.device) -> AbstractContextManager[Any]:
    if device.type != "cuda":
        return nullcontext()
    return torch.autocast("cuda", dtype=torch.bfloat16)
