"""Making a package: the manifest's digests, tensor list and golden case from a trained network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import nn

from fedcac.canonical import canonical_bytes, sha256_hex
from fedcac.models.manifest import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    SECOND_STAGE_FILE,
    PackageManifest,
)
from fedcac.models.package import ModelPackage, parse_manifest
from fedcac.models.registry import build_network, family_of

__all__ = ["assemble_package"]


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
