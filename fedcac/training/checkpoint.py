"""A training run on disk: one safetensors file that holds tensors and, as JSON, everything else.

Network, optimiser and torch's random state are tensors; the numbers of the optimiser, the state of
the other generator, the curves so far and the run's identity are one JSON text in the file's
metadata. One file is one rename: after a kill at any instant the file is the old epoch's or the
new one's, whole. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from fedcac.errors import IntegrityError

__all__ = ["CHECKPOINT_FILE", "Checkpoint", "read_checkpoint", "write_atomically"]

CHECKPOINT_FILE = "checkpoint.safetensors"
_KEY = "state"
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a run at the end of an epoch.

    `tensors` by name; `document` is JSON-like.
    """

    tensors: Mapping[str, torch.Tensor]
    document: Mapping[str, Any]

    def write(self, folder: Path) -> None:
        """Write the checkpoint in the place of the one before."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self._own()}
        text = json.dumps({"format": _FORMAT, **self.document}, allow_nan=False)
        write_atomically(folder / CHECKPOINT_FILE, save(tensors, metadata={_KEY: text}))

    def _own(self) -> list[tuple[str, torch.Tensor]]:
        # safetensors refuses two names for one memory; a copy costs less than finding them.
        return [(name, tensor.clone()) for name, tensor in self.tensors.items()]


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the checkpoint of a folder, None where there is none.

    Raises
    ------
    IntegrityError
        `integrity.bad_checkpoint` if the file is not one that `Checkpoint.write` made.
    """
    path = folder / CHECKPOINT_FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            document = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if document.pop("format") != _FORMAT:
            raise ValueError("another format")
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise IntegrityError(
            f"{CHECKPOINT_FILE} cannot be read as a checkpoint of this release.",
            code="bad_checkpoint",
            cure="Delete the folder and train from the start.",
        ) from error
    return Checkpoint(tensors, document)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by new content, on disk before it has the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.new")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
