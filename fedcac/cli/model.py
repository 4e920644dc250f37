"""`fedcac model check | show | sign | convert | pack`: model packages."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedcac.cli.model_making import add_making_verbs
from fedcac.console import Outcome, add_format

if TYPE_CHECKING:
    from fedcac.models import ModelPackage

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Add the verbs."""
    parser = subparsers.add_parser("model", help="check, show, sign or make a model package")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    check = verbs.add_parser("check", help="check digests, tensors, shapes and the golden case")
    check.add_argument("folder", type=Path)
    check.add_argument("--key", type=Path, help="public key file; also checks the signature")
    add_format(check, _check)
    show = verbs.add_parser("show", help="print the model card")
    show.add_argument("folder", type=Path, nargs="?", help="default: the demonstration package")
    add_format(show, _show)
    sign = verbs.add_parser("sign", help="put the manifest into a signed envelope")
    sign.add_argument("folder", type=Path)
    sign.add_argument("--key", type=Path, required=True, help="the lead's private key file")
    sign.add_argument("--out", type=Path, required=True, help="a new folder")
    add_format(sign, _sign)
    add_making_verbs(verbs)


def _check(arguments: argparse.Namespace) -> Outcome:
    from fedcac.joining.key_files import public_key_text
    from fedcac.models import ModelPackage, open_package
    from fedcac.signing import PublicKey, trusted

    if arguments.key is None:
        package = ModelPackage.from_folder(arguments.folder)
        signature = "signature not checked (no --key given)"
    else:
        key = PublicKey.from_text(public_key_text(arguments.key))
        files = {path.name: path.read_bytes() for path in arguments.folder.iterdir()}
        files.pop("MODEL_CARD.md", None)
        package = open_package(files, trusted([key]))
        signature = f"signed by {key.fingerprint}"
    text = (
        f"{package.manifest.name} {package.manifest.version} ({package.manifest.family}) is whole: "
        f"digests, {_payload(package)} and golden case agree; {signature}.\n"
        f"Digest {package.digest}"
    )
    is_signed = arguments.key is not None
    return Outcome(text, {"digest": package.digest, "is_signature_checked": is_signed})


def _payload(package: ModelPackage) -> str:
    n_tensors = len(package.manifest.tensors)
    weights = f"{n_tensors} tensors" if n_tensors else "graph"
    return f"{weights}, second stage" if package.second_stage_file else weights


def _opened(folder: Path | None) -> ModelPackage:
    from fedcac.models import ModelPackage, demonstration_package

    return demonstration_package() if folder is None else ModelPackage.from_folder(folder)


def _show(arguments: argparse.Namespace) -> Outcome:
    package = _opened(arguments.folder)
    manifest, family = package.manifest, package.family
    card = manifest.card
    answers = ", ".join(family.outputs)
    stage = "with a second stage" if package.second_stage_file else "without a second stage"
    lines = [
        f"{manifest.name} {manifest.version}, family {manifest.family}",
        f"Reads {family.input_kind.value}, answers {answers}; {stage}; {manifest.precision}",
        card.intended_use,
        f"Training data: {card.training_data}",
        f"Limitations: {card.limitations}",
    ]
    lines += [f"{m.name}: {m.value:.3f} ({m.n_exams} exams)" for m in card.measurements]
    content = manifest.model_dump(mode="json", exclude={"tensors"})
    return Outcome("\n".join(lines), {**content, "input_kind": family.input_kind.value})


def _sign(arguments: argparse.Namespace) -> Outcome:
    from fedcac.errors import UsageError
    from fedcac.models import seal_package
    from fedcac.signing import SigningKey

    if arguments.out.exists():
        raise UsageError(
            f"{arguments.out} exists.", code="folder_not_empty", cure="Give a new folder."
        )
    package = seal_package(arguments.folder, SigningKey.load(arguments.key))
    arguments.out.mkdir(parents=True)
    for name, payload in package.files().items():
        (arguments.out / name).write_bytes(payload)
    return Outcome(f"Signed package in {arguments.out}, digest {package.digest}")
