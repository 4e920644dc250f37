"""A tiny package of the Eng family, made in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from tiny_packages import TINY_ENG, tiny_manifest

from fedcac.canonical import canonical_bytes, sha256_hex
from fedcac.models import ModelPackage, build_network
from fedcac.models.manifest import PackageManifest


def manifest_document(tensors: dict[str, torch.Tensor], files: dict[str, str]) -> dict[str, Any]:
    return tiny_manifest(
        schema_version=1,
        name="tiny-test",
        files=files,
        tensors={
            name: {"shape": list(t.shape), "dtype": str(t.dtype).removeprefix("torch.")}
            for name, t in tensors.items()
        },
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that holds a sound, unsigned package."""
    torch.manual_seed(3)
    network = build_network("eng2021", TINY_ENG).eval()
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    hu = torch.from_numpy(np.random.default_rng(2).normal(60, 150, (2, 64, 64)).astype(np.float32))
    draft = PackageManifest.model_validate_json(canonical_bytes(manifest_document(tensors, {})))
    with torch.inference_mode():
        calcium, vessels = ModelPackage(draft, b"", b"", b"").probabilities(network, hu)
    weights = save(tensors)
    golden = save({"hu": hu, "calcium": calcium.contiguous(), "vessels": vessels.contiguous()})
    files = {
        "weights.safetensors": sha256_hex(weights),
        "golden.safetensors": sha256_hex(golden),
    }
    made = tmp_path / "package"
    made.mkdir()
    (made / "weights.safetensors").write_bytes(weights)
    (made / "golden.safetensors").write_bytes(golden)
    (made / "manifest.json").write_bytes(canonical_bytes(manifest_document(tensors, files)))
    return made
