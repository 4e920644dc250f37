"""Model packages, the registry of architectures and the inference engine."""

from __future__ import annotations

from fedcac.models.inference import InferenceEngine, Prediction
from fedcac.models.manifest import ModelCard, PackageManifest
from fedcac.models.package import (
    ModelPackage,
    demonstration_package,
    demonstration_package_folder,
    open_package,
    seal_package,
)
from fedcac.models.registry import build_network, families

__all__ = [
    "InferenceEngine",
    "ModelCard",
    "ModelPackage",
    "PackageManifest",
    "Prediction",
    "build_network",
    "demonstration_package",
    "demonstration_package_folder",
    "families",
    "open_package",
    "seal_package",
]
