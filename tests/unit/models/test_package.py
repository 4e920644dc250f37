"""Model packages with exactly one fault each, and the package that ships."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from fedcac.canonical import sha256_hex
from fedcac.errors import FedcacError, PackageError
from fedcac.models import (
    ModelPackage,
    demonstration_package,
    demonstration_package_folder,
    open_package,
    seal_package,
)
from fedcac.signing import SigningKey, trusted


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "manifest.json"
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Write a file and let the manifest name its digest, so that only its content is at fault."""
    (folder / name).write_bytes(content)
    edit_manifest(folder, lambda d: d["files"].update({name: sha256_hex(content)}))


def with_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load((folder / "weights.safetensors").read_bytes())
    change(tensors)
    replace_file(folder, "weights.safetensors", save(tensors))


def flip_byte(folder: Path) -> None:
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def rename_tensor(tensors: dict[str, torch.Tensor]) -> None:
    tensors["other.bias"] = tensors.pop("heads.bias")


def change_weights(tensors: dict[str, torch.Tensor]) -> None:
    tensors["heads.bias"] = tensors["heads.bias"] + 0.5


def change_golden(folder: Path) -> None:
    golden = load((folder / "golden.safetensors").read_bytes())
    golden["calcium"] = golden["calcium"] + 0.01
    replace_file(folder, "golden.safetensors", save(golden))


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "altered weights": (flip_byte, "wrong_digest"),
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), "missing_file"),
    "missing tensor": (lambda f: with_tensors(f, lambda t: t.pop("heads.bias")), "wrong_tensors"),
    "extra tensor": (
        lambda f: with_tensors(f, lambda t: t.update(extra=torch.zeros(1))),
        "wrong_tensors",
    ),
    "renamed tensor": (lambda f: with_tensors(f, rename_tensor), "wrong_tensors"),
    "wrong shape": (
        lambda f: with_tensors(f, lambda t: t.update({"heads.bias": torch.zeros(6)})),
        "wrong_tensors",
    ),
    "other weights": (lambda f: with_tensors(f, change_weights), "golden_mismatch"),
    "other golden output": (change_golden, "golden_mismatch"),
    "pickle": (
        lambda f: replace_file(f, "weights.safetensors", pickle.dumps({"a": 1})),
        "bad_tensors",
    ),
    "unknown key": (lambda f: edit_manifest(f, lambda d: d.update(hook="x")), "bad_manifest"),
    "path as a file": (
        lambda f: edit_manifest(f, lambda d: d["files"].update({"../x": "sha256:" + "0" * 64})),
        "bad_manifest",
    ),
    "unknown family": (
        lambda f: edit_manifest(f, lambda d: d.update(family="resnet")),
        "unknown_family",
    ),
    "bad architecture": (
        lambda f: edit_manifest(f, lambda d: d["architecture"].update(planes=[4])),
        "bad_architecture",
    ),
    "architecture of another size": (
        lambda f: edit_manifest(f, lambda d: d["architecture"].update(decoder=[4, 4, 4, 8])),
        "wrong_tensors",
    ),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_one_fault_is_refused_with_its_code(folder: Path, fault: str) -> None:
    ModelPackage.from_folder(folder)
    change, code = FAULTS[fault]
    change(folder)
    with pytest.raises(PackageError) as caught:
        ModelPackage.from_folder(folder)
    assert caught.value.code == f"package.{code}"


def test_signed_package_round_trip(folder: Path) -> None:
    key = SigningKey.generate()
    sealed = seal_package(folder, key)
    opened = open_package(sealed.files(), trusted([key.public]))
    assert opened.digest == sealed.digest == ModelPackage.from_folder(folder).digest


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda files, folder: files.update(extra=b"x"), "package.surplus_file"),
        (lambda files, folder: files.pop("golden.safetensors"), "package.missing_file"),
        (
            lambda files, folder: files.update(
                {"manifest.json": (folder / "manifest.json").read_bytes()}
            ),
            "signature.malformed_envelope",
        ),
        (
            lambda files, folder: files.update(
                {"manifest.json": seal_package(folder, SigningKey.generate()).manifest_file}
            ),
            "signature.untrusted_key",
        ),
        (
            lambda files, folder: files.update({"weights.safetensors": b"x"}),
            "package.wrong_digest",
        ),
    ],
)
def test_packages_that_arrive_with_one_fault(
    folder: Path, change: Callable[[dict[str, bytes], Path], None], code: str
) -> None:
    key = SigningKey.generate()
    files = seal_package(folder, key).files()
    change(files, folder)
    with pytest.raises(FedcacError) as caught:
        open_package(files, trusted([key.public]))
    assert caught.value.code == code


def test_the_demonstration_package_says_what_it_is_and_meets_its_figures() -> None:
    package = demonstration_package()
    card = package.manifest.card
    assert card.is_demonstration
    assert "Not for clinical use" in card.intended_use
    assert "not for clinical use" in (
        (demonstration_package_folder() / "MODEL_CARD.md").read_text(encoding="utf-8").lower()
    )
    kappas = {m.name.split(",")[1].split()[0]: m for m in card.measurements}
    assert kappas["gated"].value >= 0.70
    assert kappas["non-gated"].value >= 0.55
    assert min(m.n_exams for m in kappas.values()) >= 100
    assert len(package.weights_file) <= 8_000_000
