"""`fedcac model convert | pack`: from somebody's weights to a package that a site accepts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fedcac.console import Outcome, add_format
from fedcac.errors import DAMAGED_YAML, PackageError, UsageError

__all__ = ["add_making_verbs"]


def add_making_verbs(verbs: Any) -> None:
    """Add the verbs under `fedcac model`."""
    convert = verbs.add_parser(
        "convert", help="read a published checkpoint, run nothing of it, write safetensors"
    )
    convert.add_argument("checkpoint", type=Path)
    convert.add_argument("--layout", choices=("ai-cac",), required=True, help="whose checkpoint")
    convert.add_argument("--out", type=Path, required=True, help="a new .safetensors file")
    add_format(convert, _convert)
    pack = verbs.add_parser("pack", help="make a package from weights or an ONNX graph")
    pack.add_argument("manifest", type=Path, help="YAML: the manifest without files and tensors")
    pack.add_argument("--weights", type=Path, required=True, help=".safetensors or .onnx")
    pack.add_argument("--second-stage", type=Path, help="boosted trees as XGBoost writes JSON")
    pack.add_argument(
        "--golden", type=Path, help=".safetensors of inputs to check against (default: noise)"
    )
    pack.add_argument("--out", type=Path, required=True, help="a new folder")
    add_format(pack, _pack)


def _convert(arguments: argparse.Namespace) -> Outcome:
    from fedcac.models import build_network
    from fedcac.models.conversion import AI_CAC_LAYOUT, convert_checkpoint
    from fedcac.models.swinunetr import PUBLISHED_ARCHITECTURE

    _check_new(arguments.out)
    network = build_network("swinunetr", dict(PUBLISHED_ARCHITECTURE))
    found = convert_checkpoint(arguments.checkpoint, network, AI_CAC_LAYOUT)
    arguments.out.write_bytes(found.to_bytes())
    text = (
        f"{len(found.tensors)} tensors of family swinunetr in {arguments.out}; "
        f"{len(found.dropped)} entries of the checkpoint were left out.\n"
        f"Source {found.source}"
    )
    data = {"tensors": len(found.tensors), "dropped": list(found.dropped), "source": found.source}
    return Outcome(text, data)


def _pack(arguments: argparse.Namespace) -> Outcome:
    from fedcac.models.assembly import assemble_package, golden_noise, read_weights
    from fedcac.models.package import read_tensors
    from fedcac.models.registry import family_of

    _check_new(arguments.out)
    document = _document(arguments.manifest)
    family = family_of(str(document["family"]), document["architecture"])
    if arguments.golden is None:
        golden = golden_noise(family, document["input"]["clip_hu"])
    else:
        golden = read_tensors(_read(arguments.golden), arguments.golden.name)
    package = assemble_package(
        arguments.out,
        document=document,
        weights=read_weights(family, document["architecture"], _read(arguments.weights)),
        golden_inputs=golden,
        second_stage=_read(arguments.second_stage) if arguments.second_stage else None,
    )
    text = (
        f"Package {package.manifest.name} {package.manifest.version} in {arguments.out}.\n"
        f"Digest {package.digest}\nSign it: fedcac model sign {arguments.out} --key LEAD.key --out "
        "SIGNED"
    )
    return Outcome(text, {"digest": package.digest})


def _document(path: Path) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(_read(path).decode("utf-8"))
    except (yaml.YAMLError, *DAMAGED_YAML) as error:
        raise PackageError(
            f"{path} is not YAML.",
            code="bad_manifest",
            cure="Mend it; docs/how-to/wrap-your-own-model.md has a whole one.",
        ) from error
    if not isinstance(document, dict) or not {"family", "architecture", "input"} <= set(document):
        raise PackageError(
            f"{path} does not describe a package.",
            code="bad_manifest",
            cure="Give name, version, family, architecture, input, calcium_threshold, "
            "golden_tolerance, licence and card.",
        )
    return document


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read.", code="no_file", cure="Give the path of an existing file."
        ) from error


def _check_new(path: Path) -> None:
    if path.exists():
        raise UsageError(f"{path} exists.", code="folder_not_empty", cure="Give a new path.")
