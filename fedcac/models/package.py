"""Model packages: manifest, weights and golden case, verified before a single exam is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import nn

from fedcac.canonical import Digest, sha256_hex
from fedcac.errors import PackageError
from fedcac.models.manifest import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    PAYLOAD_TYPE,
    WEIGHTS_FILE,
    PackageManifest,
)
from fedcac.models.registry import build_network
from fedcac.signing import SigningKey, TrustedKeys, open_envelope, seal

__all__ = [
    "ModelPackage",
    "demonstration_package",
    "demonstration_package_folder",
    "open_package",
    "seal_package",
]

_FILES = (MANIFEST_FILE, WEIGHTS_FILE, GOLDEN_FILE)
_MAXIMUM_BYTES = 2 * 1024**3


@dataclass(frozen=True, eq=False)
class ModelPackage:
    """A package whose files agree with its manifest. Make one with a named constructor.

    `manifest_file` is the manifest as stored: canonical JSON, or a signed envelope around it.
    """

    manifest: PackageManifest
    manifest_file: bytes
    weights_file: bytes
    golden_file: bytes

    @property
    def digest(self) -> Digest:
        """The digest that identifies the package."""
        return self.manifest.digest()

    def files(self) -> dict[str, bytes]:
        """Return the files by name, as they travel."""
        return dict(
            zip(_FILES, (self.manifest_file, self.weights_file, self.golden_file), strict=True)
        )

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read an unsigned package folder and check everything but a signature."""
        files: dict[str, bytes] = {}
        for name in _FILES:
            path = folder / name
            if not path.is_file():
                raise PackageError(
                    f"{folder} has no {name}.",
                    code="missing_file",
                    cure="Give the folder of a model package.",
                )
            files[name] = path.read_bytes()
        return cls._checked(files, files[MANIFEST_FILE])

    @classmethod
    def _checked(cls, files: Mapping[str, bytes], manifest_bytes: bytes) -> Self:
        package = cls(
            manifest=_parse_manifest(manifest_bytes),
            manifest_file=files[MANIFEST_FILE],
            weights_file=files[WEIGHTS_FILE],
            golden_file=files[GOLDEN_FILE],
        )
        _check_digests(package)
        _check_golden(package)
        return package

    def network(self) -> nn.Module:
        """Return a new network with the package's weights, in evaluation mode, on the CPU.

        Raises
        ------
        PackageError
            If names, shapes or types of tensors differ from the manifest or the architecture.
        """
        network = build_network(self.manifest.family, self.manifest.architecture)
        tensors = _read_tensors(self.weights_file, WEIGHTS_FILE)
        _check_tensors(self.manifest, tensors, network.state_dict())
        network.load_state_dict(tensors, strict=True)
        return network.eval()

    def probabilities(
        self, network: nn.Module, hu: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (calcium, vessel) probabilities of slices.

        `hu` is (B, H, W) float32 with H and W multiples of 32, on the network's device; the
        results are (B, H, W) and (B, 4, H, W).
        """
        spec = self.manifest.input
        scaled = (hu.clamp(*spec.clip_hu) - spec.centre_hu) / spec.scale_hu
        logits = network(scaled[:, None]).float()
        return torch.sigmoid(logits[:, 0]), torch.softmax(logits[:, 1:], dim=1)


def open_package(files: Mapping[str, bytes], keys: TrustedKeys) -> ModelPackage:
    """Return the verified package of files that arrived from a lead.

    Raises
    ------
    SignatureError
        If the manifest is not signed by a trusted key.
    PackageError
        If a file is missing or surplus, or digests, tensors, shapes or the golden output differ.
    """
    missing = sorted(set(_FILES) - set(files))
    surplus = sorted(set(files) - set(_FILES))
    if missing or surplus:
        raise PackageError(
            f"A package has exactly {', '.join(_FILES)}.",
            code="missing_file" if missing else "surplus_file",
            cure="Ask the lead to send the package again.",
        )
    manifest_bytes, _ = open_envelope(files[MANIFEST_FILE], PAYLOAD_TYPE, keys)
    return ModelPackage._checked(files, manifest_bytes)


def seal_package(folder: Path, key: SigningKey) -> ModelPackage:
    """Check a package folder and return it with its manifest in a signed envelope."""
    package = ModelPackage.from_folder(folder)
    envelope = seal(package.manifest.to_bytes(), PAYLOAD_TYPE, key)
    return ModelPackage(package.manifest, envelope, package.weights_file, package.golden_file)


def demonstration_package_folder() -> Path:
    """Return the folder of the demonstration package that ships with this release."""
    return Path(__file__).parent / "packages" / "eng2021-demo"


def demonstration_package() -> ModelPackage:
    """Return the demonstration package. It is trained on generated data: not for clinical use."""
    return ModelPackage.from_folder(demonstration_package_folder())


def _parse_manifest(manifest_bytes: bytes) -> PackageManifest:
    try:
        return PackageManifest.model_validate_json(manifest_bytes)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise PackageError(
            f"The manifest is not valid: {problems}",
            code="bad_manifest",
            cure="Ask whoever made the package for one of this release's schema.",
        ) from error


def _check_digests(package: ModelPackage) -> None:
    for name, payload in ((WEIGHTS_FILE, package.weights_file), (GOLDEN_FILE, package.golden_file)):
        if len(payload) > _MAXIMUM_BYTES:
            raise PackageError(f"{name} is too large.", code="too_large")
        expected = {str(file): digest for file, digest in package.manifest.files.items()}.get(name)
        if expected != sha256_hex(payload):
            raise PackageError(
                f"{name} is not the file its manifest names.",
                code="wrong_digest",
                cure="The package is damaged or altered; ask for it again.",
            )


def _read_tensors(payload: bytes, name: str) -> dict[str, torch.Tensor]:
    try:
        return load_tensors(payload)
    except (SafetensorError, ValueError, KeyError) as error:
        raise PackageError(
            f"{name} is not a safetensors file.",
            code="bad_tensors",
            cure="Weights are accepted as safetensors only; never as a pickle.",
        ) from error


def _signature(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {
        name: (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in tensors.items()
    }


def _check_tensors(
    manifest: PackageManifest,
    tensors: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
) -> None:
    declared = {name: (spec.shape, str(spec.dtype)) for name, spec in manifest.tensors.items()}
    if _signature(tensors) != declared or _signature(tensors) != _signature(expected):
        raise PackageError(
            "The weights' tensor names, shapes or types differ from the manifest's or from the "
            f"architecture '{manifest.family}'.",
            code="wrong_tensors",
            cure="The package was made for another architecture or release.",
        )


def _golden(package: ModelPackage) -> dict[str, NDArray[Any]]:
    tensors = _read_tensors(package.golden_file, GOLDEN_FILE)
    if set(tensors) != {"hu", "calcium", "vessels"} or tensors["hu"].ndim != 3:
        raise PackageError("The golden case is incomplete.", code="bad_golden_case")
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _check_golden(package: ModelPackage) -> None:
    golden = _golden(package)
    with torch.inference_mode():
        calcium, vessels = package.probabilities(package.network(), torch.from_numpy(golden["hu"]))
    for name, output in (("calcium", calcium), ("vessels", vessels)):
        expected = golden[name]
        is_same_shape = expected.shape == tuple(output.shape)
        if not is_same_shape or (
            float(np.abs(expected - output.numpy()).max()) > package.manifest.golden_tolerance
        ):
            raise PackageError(
                "The network does not reproduce the package's golden case.",
                code="golden_mismatch",
                cure="Weights, architecture and release do not belong together; do not use it.",
            )
