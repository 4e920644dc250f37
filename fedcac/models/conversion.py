"""Published PyTorch checkpoints as named tensors for a network of the registry.

A checkpoint is read once, by whoever makes a package, never at a site, and by
`fedcac.models.checkpoint_reader`, which runs nothing of it. Every tensor is checked against the
architecture before it is believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from fedcac.canonical import Digest
from fedcac.errors import PackageError
from fedcac.models.checkpoint_reader import StoredTensor, bad_checkpoint, open_checkpoint

__all__ = ["AI_CAC_LAYOUT", "CheckpointLayout", "Conversion", "convert_checkpoint"]

_CHUNK = 1 << 20


@dataclass(frozen=True)
class CheckpointLayout:
    """Where a checkpoint keeps its weights, and what they are called.

    Parameters
    ----------
    state_key
        Entry of the top-level mapping that holds the weights; None if it is the weights.
    prefix
        Begins every name, or none: `nn.DataParallel` puts `module.` before each.
    target_prefix
        Begins every name in the registry's network.
    derived
        Last words of names of tensors that follow from the architecture, such as an attention
        window's table of indices: they must be equal to the architecture's own.
    """

    state_key: str | None = None
    prefix: str = ""
    target_prefix: str = ""
    derived: tuple[str, ...] = ()


AI_CAC_LAYOUT = CheckpointLayout(
    state_key="model_state_dict",
    prefix="module.",
    target_prefix="network.",
    derived=("relative_position_index",),
)
"""AI-CAC's `va_non_gated_ai_cac_model.pth`: epoch, model_state_dict, optimizer_state_dict, written
from `nn.DataParallel(SwinUNETR(...))`; for `fedcac.models.swinunetr.SwinUNETRNetwork`."""


@dataclass(frozen=True, eq=False)
class Conversion:
    """Weights that load strictly into the network they were converted for.

    `tensors` are contiguous, on the CPU, in the network's order and of its shapes and types;
    `dropped` names what else the checkpoint held; `source` is the digest of the checkpoint.
    """

    tensors: Mapping[str, torch.Tensor]
    dropped: tuple[str, ...]
    source: Digest

    def to_bytes(self) -> bytes:
        """Return the weights as a safetensors file."""
        return save(dict(self.tensors))


def convert_checkpoint(path: Path, network: nn.Module, layout: CheckpointLayout) -> Conversion:
    """Return the checkpoint's weights under the names of `network`, which is not changed.

    Raises
    ------
    PackageError
        `too_large`; `bad_checkpoint` if the file is no such archive, holds anything but tensors
        and plain values, or lacks the layout's entry; `wrong_tensors` if a tensor is missing,
        unknown, or of another shape or type than the network's, or if a derived one
        differs; `not_finite` if a weight is infinite or not a number.
    """
    expected = network.state_dict()
    with open_checkpoint(path) as checkpoint:
        state, dropped = _state(checkpoint.content, layout)
        found = _renamed(state, layout)
        _check_names(found, expected)
        tensors = {}
        for name, wanted in expected.items():
            # Shape before values: a view may claim more elements than memory holds.
            _check_description(name, found[name], wanted)
            tensors[name] = checkpoint.tensor(found[name])
            _check_values(name, tensors[name], wanted, layout)
    return Conversion(tensors, tuple(dropped), _digest(path))


def _state(content: Any, layout: CheckpointLayout) -> tuple[Mapping[str, Any], list[str]]:
    if not isinstance(content, Mapping):
        raise bad_checkpoint("it is not a mapping")
    if layout.state_key is None:
        return content, []
    if not isinstance(content.get(layout.state_key), Mapping):
        raise bad_checkpoint(f"it has no mapping '{layout.state_key}'")
    return content[layout.state_key], sorted(str(key) for key in content if key != layout.state_key)


def _renamed(state: Mapping[str, Any], layout: CheckpointLayout) -> dict[str, StoredTensor]:
    if not state or not all(
        isinstance(name, str) and isinstance(value, StoredTensor) for name, value in state.items()
    ):
        raise bad_checkpoint("its weights are not a mapping of names to tensors")
    has_prefix = {name.startswith(layout.prefix) for name in state}
    if len(has_prefix) > 1:
        raise _wrong(f"only some names begin with '{layout.prefix}'")
    skip = len(layout.prefix) if True in has_prefix else 0
    return {layout.target_prefix + name[skip:]: value for name, value in state.items()}


def _check_names(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    unknown, missing = sorted(set(found) - set(expected)), sorted(set(expected) - set(found))
    if unknown or missing:
        raise _wrong(f"{_some('unknown', unknown)}; {_some('missing', missing)}")


def _some(word: str, names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {word}{': ' if names else ''}{shown}"


def _check_description(name: str, found: StoredTensor, expected: torch.Tensor) -> None:
    if found.shape != tuple(expected.shape) or found.dtype != expected.dtype:
        raise _wrong(
            f"'{name}' is {found.shape} {found.dtype}, not {tuple(expected.shape)} {expected.dtype}"
        )


def _check_values(
    name: str, found: torch.Tensor, expected: torch.Tensor, layout: CheckpointLayout
) -> None:
    is_derived = name.rpartition(".")[2] in layout.derived
    if is_derived and not torch.equal(found, expected.cpu()):
        raise _wrong(f"'{name}' does not follow from the architecture")
    if found.is_floating_point() and not bool(torch.isfinite(found).all()):
        raise PackageError(
            f"The weights '{name}' are not all finite numbers.",
            code="not_finite",
            cure="The checkpoint is damaged or its training diverged; do not use it.",
        )


def _digest(path: Path) -> Digest:
    digest = sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return Digest(f"sha256:{digest.hexdigest()}")


def _wrong(reason: str) -> PackageError:
    return PackageError(
        f"The checkpoint is not of this architecture: {reason}.",
        code="wrong_tensors",
        cure="Name the architecture and its parameters that the checkpoint was trained with.",
    )
