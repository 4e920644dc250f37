"""`fedcac score`: the Agatston score of one DICOM series by a model package."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fedcac.console import Outcome, add_format

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("score", help="score one CT series with a model package")
    parser.add_argument("path", type=Path, help="a folder that holds one DICOM series")
    parser.add_argument(
        "--model", type=Path, help="model package folder (default: the demonstration package)"
    )
    parser.add_argument("--profile", default="agatston1990", help="scoring profile")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--any-kernel", action="store_true", help="accept sharp and lung kernels too"
    )
    add_format(parser, _run)


def _run(arguments: argparse.Namespace) -> Outcome:
    from fedcac.imaging import load_volume
    from fedcac.models import InferenceEngine, demonstration_package
    from fedcac.models.package import ModelPackage
    from fedcac.protocol import ImageCriteria
    from fedcac.scoring import profile_named, score_volume

    profile = profile_named(arguments.profile)
    criteria = ImageCriteria(allow_sharp_kernel=arguments.any_kernel)
    volume = load_volume(arguments.path, criteria)
    package = (
        demonstration_package()
        if arguments.model is None
        else ModelPackage.from_folder(arguments.model)
    )
    engine = InferenceEngine(package, device=arguments.device)
    prediction = engine.predict(volume.hu, volume.spacing_mm)
    score = score_volume(
        volume.hu, prediction.vessel_map, volume.spacing_mm, profile, kvp=volume.kvp
    )
    content = {
        "agatston": score.total,
        "vessels": {vessel.value: value for vessel, value in score.vessels.items()},
        "volume_mm3": score.volume_mm3,
        "n_lesions": score.n_lesions,
        "n_slices": int(volume.hu.shape[0]),
        "spacing_mm": list(volume.spacing_mm),
        "profile": profile.name,
        "package": package.manifest.name,
        "package_digest": package.digest,
        "is_demonstration": package.manifest.card.is_demonstration,
    }
    vessels = ", ".join(f"{vessel.value.upper()} {v:.1f}" for vessel, v in score.vessels.items())
    warning = (
        "\nDemonstration model: not for clinical use."
        if package.manifest.card.is_demonstration
        else "\nResearch use only."
    )
    text = (
        f"Agatston score {score.total:.1f} ({vessels})\n"
        f"{score.n_lesions} lesions, {score.volume_mm3:.1f} mm3, profile {profile.name}, "
        f"package {package.manifest.name}{warning}"
    )
    return Outcome(text, content)
