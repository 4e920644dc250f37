"""Making a package: the manifest's digests, tensor list and golden case from a trained network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from fedcac.canonical import canonical_bytes, sha256_hex
from fedcac.errors import PackageError, UsageError
from fedcac.models.family import Family
from fedcac.models.manifest import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    SECOND_STAGE_FILE,
    WEIGHTS_FILE,
    PackageManifest,
)
from fedcac.models.package import ModelPackage
from fedcac.models.package_files import parse_manifest
from fedcac.models.registry import build_network, family_of

__all__ = ["assemble_package", "golden_noise", "read_weights"]

_GOLDEN_SIZE = 128


def read_weights(
    family: Family, architecture: Mapping[str, Any], payload: bytes
) -> nn.Module | bytes:
    """Return a network with the tensors of a safetensors file, or the bytes of a graph as given.

    Raises
    ------
    PackageError
        If the tensors do not fit the architecture (`wrong_tensors`).
    """
    if family.weights_file != WEIGHTS_FILE:
        return payload
    network = build_network(family.name, architecture)
    try:
        network.load_state_dict(load_tensors(payload), strict=True)
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise PackageError(
            f"The weights do not fit the architecture of family '{family.name}'.",
            code="wrong_tensors",
            cure="Compare names and shapes; `fedcac model convert` reads published layouts.",
        ) from error
    return network


def golden_noise(family: Family, clip_hu: Sequence[float]) -> dict[str, torch.Tensor]:
    """Return reproducible golden inputs: what the numbers are does not matter to a comparison.

    Raises
    ------
    UsageError
        If the family takes more than Hounsfield units, or a graph of unknown size
        (`no_golden_inputs`).
    """
    if set(family.inputs) != {"hu"} or family.weights_file != WEIGHTS_FILE:
        raise UsageError(
            "This family's golden inputs cannot be made up.",
            code="no_golden_inputs",
            cure=f"Give --golden with the tensors {', '.join(sorted(family.inputs))}.",
        )
    size = -(-max(_GOLDEN_SIZE, family.smallest) // family.divisor) * family.divisor
    low, high = float(clip_hu[0]), float(clip_hu[1])
    depth = (2 * family.halo + 1,) if family.halo else ()
    generator = torch.Generator().manual_seed(1)
    return {"hu": low + (high - low) * torch.rand((2, *depth, size, size), generator=generator)}


def assemble_package(
    folder: Path,
    *,
    document: Mapping[str, Any],
    weights: nn.Module | bytes,
    golden_inputs: Mapping[str, torch.Tensor],
    second_stage: bytes | None = None,
) -> ModelPackage:
    """Write a package of schema version 2 into a folder and return it, checked.

    Parameters
    ----------
    folder
        Made if it does not exist.
    document
        The manifest without `schema_version`, `files` and `tensors`.
    weights
        The trained network, on the CPU, or the bytes of an ONNX graph.
    golden_inputs
        The family's golden inputs, float32; their outputs are computed here.
    second_stage
        XGBoost's JSON, if the package has a second stage.

    Raises
    ------
    PackageError
        If the parts do not make a package.
    """
    tensors: dict[str, torch.Tensor]
    family = family_of(str(document["family"]), document["architecture"])
    if isinstance(weights, bytes):
        network = build_network(family.name, document["architecture"], weights)
        payload, tensors = weights, {}
    else:
        tensors = {name: tensor.contiguous() for name, tensor in weights.state_dict().items()}
        network, payload = weights, save_tensors(tensors)
    files: dict[str, bytes] = {family.weights_file: payload}
    if second_stage is not None:
        files[SECOND_STAGE_FILE] = second_stage
    draft = _manifest(document, files, tensors)
    golden = _golden(ModelPackage(draft, b"", payload, b""), network.eval(), golden_inputs)
    files[GOLDEN_FILE] = save_tensors(golden)
    files[MANIFEST_FILE] = _manifest(document, files, tensors).to_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return ModelPackage.from_folder(folder)


def _manifest(
    document: Mapping[str, Any], files: Mapping[str, bytes], tensors: Mapping[str, torch.Tensor]
) -> PackageManifest:
    parts = {
        **document,
        "schema_version": 2,
        "files": {name: sha256_hex(content) for name, content in files.items()},
        "tensors": {
            name: {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
            for name, tensor in tensors.items()
        },
    }
    return parse_manifest(canonical_bytes(parts))


def _golden(
    package: ModelPackage, network: nn.Module, inputs: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        outputs = package.outputs(network, inputs)
    return {
        name: tensor.detach().clone().contiguous() for name, tensor in {**inputs, **outputs}.items()
    }
