"""Model packages: manifest, weights and golden case, verified before a single exam is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import nn

from fedcac.canonical import Digest
from fedcac.errors import PackageError
from fedcac.models.family import Family, InputKind
from fedcac.models.manifest import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    PAYLOAD_TYPE,
    SECOND_STAGE_FILE,
    WEIGHTS_FILE,
    PackageManifest,
)
from fedcac.models.package_files import (
    check_digests,
    demonstration_package_folder,
    parse_manifest,
    read_folder,
)
from fedcac.models.registry import build_network, family_of
from fedcac.models.second_stage_judge import SecondStageJudge
from fedcac.signing import SigningKey, TrustedKeys, open_envelope, seal

__all__ = [
    "ModelPackage",
    "demonstration_package",
    "open_package",
    "read_tensors",
    "seal_package",
]


@dataclass(frozen=True, eq=False)
class ModelPackage:
    """A package whose files agree with its manifest. Make one with a named constructor.

    `manifest_file` is the manifest as stored: canonical JSON, or a signed envelope around it.
    `weights_file` holds safetensors, or the graph of a package of the family `onnx`.
    """

    manifest: PackageManifest
    manifest_file: bytes
    weights_file: bytes
    golden_file: bytes
    second_stage_file: bytes | None = None

    @property
    def digest(self) -> Digest:
        """The digest that identifies the package."""
        return self.manifest.digest()

    @cached_property
    def family(self) -> Family:
        """The package's family, with the parameters of its architecture."""
        return family_of(self.manifest.family, self.manifest.architecture)

    def files(self) -> dict[str, bytes]:
        """Return the files by name, as they travel."""
        files = {
            MANIFEST_FILE: self.manifest_file,
            self.family.weights_file: self.weights_file,
            GOLDEN_FILE: self.golden_file,
        }
        if self.second_stage_file is not None:
            files[SECOND_STAGE_FILE] = self.second_stage_file
        return files

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read an unsigned package folder and check everything but a signature.

        Files with names that no package has (a model card, say) are not looked at.
        """
        manifest_file, files = read_folder(folder)
        return cls._checked(files, manifest_file, manifest_file)

    @classmethod
    def _checked(
        cls, files: Mapping[str, bytes], manifest_file: bytes, manifest_bytes: bytes
    ) -> Self:
        """Check `files`, all but the manifest, against the manifest's bytes."""
        manifest = parse_manifest(manifest_bytes)
        weights_name = family_of(manifest.family, manifest.architecture).weights_file
        _check_names(manifest, set(files), weights_name)
        check_digests(manifest, files)
        package = cls(
            manifest=manifest,
            manifest_file=manifest_file,
            weights_file=files[weights_name],
            golden_file=files[GOLDEN_FILE],
            second_stage_file=files.get(SECOND_STAGE_FILE),
        )
        _check_use(package)
        package.second_stage()
        package.check_golden(package.network())
        return package

    def network(self) -> nn.Module:
        """Return a new network with the package's weights, in evaluation mode, on the CPU.

        Raises
        ------
        PackageError
            If names, shapes or types of tensors differ from the manifest or the architecture, or
            an ONNX graph is refused.
        """
        network = build_network(self.manifest.family, self.manifest.architecture, self.weights_file)
        tensors: dict[str, torch.Tensor] = {}
        if self.family.weights_file == WEIGHTS_FILE:
            tensors = read_tensors(self.weights_file, WEIGHTS_FILE)
        _check_tensors(self.manifest, tensors, network.state_dict())
        network.load_state_dict(tensors, strict=True)
        return network.eval()

    def second_stage(self) -> SecondStageJudge | None:
        """Return the second stage, None where the package has none.

        Raises
        ------
        PackageError
            If its file is not what this release accepts (`package.second_stage_...`).
        """
        if self.second_stage_file is None:
            return None
        return SecondStageJudge(self.second_stage_file)

    def outputs(
        self, network: nn.Module, inputs: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Return the family's probabilities for a block of input on the network's device."""
        return dict(self.family.infer(network, inputs, self.manifest.input))

    def probabilities(
        self, network: nn.Module, hu: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (calcium, vessel) probabilities of slices by a family that tells vessels.

        `hu` is (B, H, W) float32 with H and W multiples of the family's divisor, on the network's
        device; the results are (B, H, W) and (B, 4, H, W).
        """
        found = self.outputs(network, {"hu": hu})
        return found["calcium"], found["vessels"]

    def check_golden(self, network: nn.Module) -> None:
        """Compare a network's answers with the golden case, on the device that the network is on.

        Raises
        ------
        PackageError
            `bad_golden_case` if the case is incomplete or its inputs are of a size that the
            network does not read, `golden_mismatch` if an answer is outside the manifest's
            tolerance.
        """
        golden = _golden(self)
        device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
        with torch.inference_mode():
            inputs = {name: golden[name].to(device) for name in self.family.inputs}
            try:
                found = self.outputs(network, inputs)
            except torch.cuda.OutOfMemoryError:
                raise
            except (ValueError, RuntimeError) as error:
                raise _bad_golden("The network does not read the golden case's inputs.") from error
        for name in self.family.outputs:
            expected, output = golden[name], found[name].float().cpu()
            # Written so that a value that is no number disagrees.
            if expected.shape != output.shape or not (
                float((expected - output).abs().max()) <= self.manifest.golden_tolerance
            ):
                raise PackageError(
                    "The network does not reproduce the package's golden case.",
                    code="golden_mismatch",
                    cure="Weights, architecture and release do not belong together; do not use it.",
                )


def open_package(files: Mapping[str, bytes], keys: TrustedKeys) -> ModelPackage:
    """Return the verified package of files that arrived from a lead.

    Raises
    ------
    SignatureError
        If the manifest is not signed by a trusted key.
    PackageError
        If a file is missing or surplus, or digests, tensors, shapes or the golden output differ.
    """
    if MANIFEST_FILE not in files:
        raise PackageError(
            f"The package has no {MANIFEST_FILE}.",
            code="missing_file",
            cure="Ask the lead to send the package again.",
        )
    payloads = {name: payload for name, payload in files.items() if name != MANIFEST_FILE}
    manifest_bytes, _ = open_envelope(files[MANIFEST_FILE], PAYLOAD_TYPE, keys)
    return ModelPackage._checked(payloads, files[MANIFEST_FILE], manifest_bytes)


def seal_package(folder: Path, key: SigningKey) -> ModelPackage:
    """Check a package folder and return it with its manifest in a signed envelope."""
    package = ModelPackage.from_folder(folder)
    envelope = seal(package.manifest.to_bytes(), PAYLOAD_TYPE, key)
    return replace(package, manifest_file=envelope)


def demonstration_package() -> ModelPackage:
    """Return the demonstration package. It is trained on generated data: not for clinical use."""
    return ModelPackage.from_folder(demonstration_package_folder())


def _check_names(manifest: PackageManifest, names: set[str], weights_name: str) -> None:
    required = {weights_name, GOLDEN_FILE}
    named = {str(name) for name in manifest.files}
    missing = (required | named) - names
    surplus = names - (required | {SECOND_STAGE_FILE}) | (names - named)
    if missing or surplus:
        raise PackageError(
            f"The package's files are not those its manifest names: {_listed('missing', missing)}"
            f"{_listed('surplus', surplus)}a package of family '{manifest.family}' has "
            f"{MANIFEST_FILE}, {weights_name}, {GOLDEN_FILE} and may have {SECOND_STAGE_FILE}.",
            code="missing_file" if missing else "surplus_file",
            cure="Ask whoever made the package to send it again.",
        )


def _listed(word: str, names: set[str]) -> str:
    return f"{word} {', '.join(sorted(names))}; " if names else ""


def _check_use(package: ModelPackage) -> None:
    """Refuse what a family cannot mean, whatever the signature says."""
    family, manifest = package.family, package.manifest
    if manifest.input.field_of_view_mm is not None and not family.is_cropping:
        raise PackageError(
            f"Family '{family.name}' answers for whole slices, and the manifest names a field of "
            "view.",
            code="bad_manifest",
            cure="Leave out input.field_of_view_mm.",
        )
    if package.second_stage_file is not None and not family.is_segmenting:
        raise PackageError(
            "A second stage judges a mask, and this package makes none.",
            code="bad_manifest",
            cure=f"Leave out {SECOND_STAGE_FILE}.",
        )


def read_tensors(payload: bytes, name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a file called `name`; PackageError `bad_tensors` if no safetensors."""
    try:
        return load_tensors(payload)
    except (SafetensorError, ValueError, KeyError) as error:
        raise PackageError(
            f"{name} is not a safetensors file.",
            code="bad_tensors",
            cure="Tensors are accepted as safetensors only; never as a pickle.",
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


def _golden(package: ModelPackage) -> dict[str, torch.Tensor]:
    tensors = read_tensors(package.golden_file, GOLDEN_FILE)
    family = package.family
    if set(tensors) != {*family.inputs, *family.outputs} or any(
        tensor.dtype != torch.float32 or tensor.ndim == 0 or tensor.numel() == 0
        for tensor in tensors.values()
    ):
        names = ", ".join([*family.inputs, *family.outputs])
        raise _bad_golden(
            f"The golden case of family '{family.name}' holds float32 tensors named {names}."
        )
    expected_rank = 4 if family.input_kind is InputKind.WINDOWS else 3
    if tensors[next(iter(family.inputs))].ndim != expected_rank:
        raise _bad_golden("The golden case's input has another rank.")
    return tensors


def _bad_golden(message: str) -> PackageError:
    return PackageError(
        message,
        code="bad_golden_case",
        cure="Ask whoever made the package for a complete one.",
    )
