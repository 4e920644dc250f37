"""Model packages, the registry of architectures and the inference engine.

Names are loaded at first use: a coordinator reads manifests and has no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedcac.models.family import Family, InputKind
    from fedcac.models.inference import InferenceEngine, Prediction
    from fedcac.models.manifest import ModelCard, PackageManifest
    from fedcac.models.package import (
        ModelPackage,
        demonstration_package,
        open_package,
        seal_package,
    )
    from fedcac.models.package_files import (
        SealedPackage,
        demonstration_package_folder,
        seal_files,
    )
    from fedcac.models.registry import build_network, families, family_of

__all__ = [
    "Family",
    "InferenceEngine",
    "InputKind",
    "ModelCard",
    "ModelPackage",
    "PackageManifest",
    "Prediction",
    "SealedPackage",
    "build_network",
    "demonstration_package",
    "demonstration_package_folder",
    "families",
    "family_of",
    "open_package",
    "seal_files",
    "seal_package",
]

_MODULES = {
    "family": ("Family", "InputKind"),
    "inference": ("InferenceEngine", "Prediction"),
    "manifest": ("ModelCard", "PackageManifest"),
    "package": (
        "ModelPackage",
        "demonstration_package",
        "open_package",
        "seal_package",
    ),
    "package_files": ("SealedPackage", "demonstration_package_folder", "seal_files"),
    "registry": ("build_network", "families", "family_of"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"fedcac.models.{module}"), name)
    raise AttributeError(f"module 'fedcac.models' has no attribute '{name}'")
