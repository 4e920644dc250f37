"""`fedcac agatston`: the Agatston score of a series under an existing mask."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedcac.console import Outcome, add_format

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fedcac.imaging import Volume

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("agatston", help="score a series under an existing mask")
    parser.add_argument("series", type=Path, help="a folder that holds one DICOM series")
    parser.add_argument(
        "--mask",
        type=Path,
        required=True,
        help="a DICOM SEG of coronary segments, or a .npy vessel map (0 none, 1-4 LM LAD LCX RCA)",
    )
    parser.add_argument("--profile", default="agatston1990", help="scoring profile")
    parser.add_argument(
        "--any-kernel", action="store_true", help="accept sharp and lung kernels too"
    )
    add_format(parser, _run)


def _run(arguments: argparse.Namespace) -> Outcome:
    from fedcac.imaging import load_volume
    from fedcac.protocol import ImageCriteria
    from fedcac.scoring import profile_named, score_volume

    profile = profile_named(arguments.profile)
    criteria = ImageCriteria(min_slices=1, allow_sharp_kernel=arguments.any_kernel)
    volume = load_volume(arguments.series, criteria)
    mask = _read_mask(arguments.mask, volume)
    score = score_volume(volume.hu, mask, volume.spacing_mm, profile, kvp=volume.kvp)
    vessels = {vessel.value: value for vessel, value in score.vessels.items()}
    listed = ", ".join(f"{name.upper()} {value:.1f}" for name, value in vessels.items())
    text = (
        f"Agatston score {score.total:.1f} ({listed})\n"
        f"{score.n_lesions} lesions, {score.volume_mm3:.1f} mm3, profile {profile.name}"
    )
    content = {
        "agatston": score.total,
        "vessels": vessels,
        "volume_mm3": score.volume_mm3,
        "mass_mg": score.mass_mg,
        "n_lesions": score.n_lesions,
        "profile": profile.name,
    }
    return Outcome(text, content)


def _read_mask(path: Path, volume: Volume) -> NDArray[np.uint8]:
    import numpy as np

    from fedcac.errors import UsageError
    from fedcac.imaging import read_vessel_map

    if path.suffix == ".npy":
        try:
            mask = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} is not a NumPy array.", code="bad_mask") from error
    else:
        mask = read_vessel_map(path, volume)
    if mask.shape != volume.hu.shape or not 0 <= int(mask.min()) <= int(mask.max()) <= 4:
        raise UsageError(
            f"The mask has shape {mask.shape}, the series {volume.hu.shape}; or a value over 4.",
            code="bad_mask",
            cure="Give a vessel map of the series' shape, superior to inferior, values 0 to 4.",
        )
    vessel_map: NDArray[np.uint8] = mask.astype(np.uint8)
    return vessel_map
