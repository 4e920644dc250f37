"""What a family of networks is to the rest: its input, its outputs and how they are computed.

A family turns a network and a block of Hounsfield units into probabilities; the inference engine
cuts volumes into such blocks and knows nothing of any architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import torch
from torch import nn

from fedcac.models.manifest import WEIGHTS_FILE, InputSpec
from fedcac.models.radiograph_input import RadiographInput

__all__ = ["Family", "InputKind", "Outputs", "scaled"]

Outputs = Mapping[str, torch.Tensor]
"""Probabilities by name, float32, on the network's device."""


class InputKind(StrEnum):
    """What one block of input is.

    slices: (B, H, W), every slice on its own. windows: (B, 2 x halo + 1, H, W), every slice with
    its neighbours, of which the middle one is answered. radiograph: (B, H, W), an exam each.
    """

    SLICES = "slices"
    WINDOWS = "windows"
    RADIOGRAPH = "radiograph"


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of networks with the parameters of one architecture.

    Attributes
    ----------
    name
        The word in a manifest.
    build
        Makes a network with fresh weights. A network that is a file of its own (`weights_file` is
        no safetensors) is made from that file's bytes; the others do not look at the argument.
    infer
        `(network, inputs, spec) -> outputs`: probabilities for a block of the golden case's inputs.
        A segmenting family answers `calcium` (B, H, W), and `vessels` (B, 4, H, W) where it tells
        vessels; a classifier `positive` (B, 3): score above 0, at least 100, at least 400. No entry
        of a batch may depend on another.
    inputs, outputs
        Names of the golden case's tensors, with what they are.
    halo
        Neighbours on each side that a slice's answer depends on; beyond the ends of a volume its
        first and last slice are repeated.
    divisor, smallest
        Rows and columns are multiples of `divisor`, and at least `smallest`, in pixels.
    is_cropping
        Whether the middle of a slice may be answered alone; not where the network normalises over
        whole slices or attends to them, so that its package may not name a field of view.
    radiograph
        How a radiograph becomes input; None of a family that reads volumes.
    thresholds
        Calcium scores that a classifier tells apart, in the order of its channels: above 0, at
        least each of the others. Empty for a segmenting family.
    """

    name: str
    build: Callable[[bytes], nn.Module]
    infer: Callable[[nn.Module, Mapping[str, torch.Tensor], InputSpec], Outputs]
    input_kind: InputKind
    outputs: Mapping[str, str]
    inputs: Mapping[str, str] = field(default_factory=lambda: {"hu": "Hounsfield units"})
    halo: int = 0
    divisor: int = 32
    smallest: int = 32
    is_cropping: bool = True
    weights_file: Literal["weights.safetensors", "model.onnx"] = WEIGHTS_FILE
    radiograph: RadiographInput | None = None
    thresholds: tuple[int, ...] = ()

    @property
    def is_segmenting(self) -> bool:
        """Whether the family gives a mask rather than one answer per exam."""
        return self.input_kind is not InputKind.RADIOGRAPH


def scaled(values: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Return network input of the same shape: (clip(values) - centre) / scale."""
    return (values.clamp(*spec.clip_hu) - spec.centre_hu) / spec.scale_hu
