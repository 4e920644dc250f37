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
    from fedcac.scoring import CalciumScore

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("agatston", help="score a series under an existing mask")
    parser.add_argument("series", type=Path, help="a folder that holds one DICOM series")
    parser.add_argument(
        "--mask",
        type=Path,
        required=True,
        help="a DICOM SEG of coronary segments, a NIfTI label map (.nii, .nii.gz) on the series' "
        "grid, or a .npy vessel map (0 none, 1-4 LM LAD LCX RCA, 5 vessel not told)",
    )
    parser.add_argument(
        "--labels",
        metavar="MEANINGS",
        help="what a NIfTI map's labels stand for, or a SEG's segments in place of their codes: "
        "'calcium' for all of them, or pairs such as '1=lm 2=lad 3=lcx 4=rca 5=other' ('calcium': "
        "coronary, vessel not told)",
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
    mask = _read_mask(arguments.mask, arguments.labels, volume)
    score = score_volume(volume.hu, mask, volume.spacing_mm, profile, kvp=volume.kvp)
    vessels = {vessel.value: value for vessel, value in score.vessels.items()}
    text = (
        f"Agatston score {score.total:.1f} ({_vessel_words(score)})\n"
        f"{score.n_lesions} lesions, {score.volume_mm3:.1f} mm3, profile {profile.name}"
    )
    content = {
        "agatston": score.total,
        "vessels": vessels,
        "is_vessel_told": bool(vessels),
        "volume_mm3": score.volume_mm3,
        "mass_mg": score.mass_mg,
        "n_lesions": score.n_lesions,
        "profile": profile.name,
    }
    return Outcome(text, content)


def _vessel_words(score: CalciumScore) -> str:
    if not score.vessels:
        return "the mask does not tell the vessel of all calcium: no score per vessel"
    return ", ".join(
        f"{vessel.value.upper()} {value:.1f}" for vessel, value in score.vessels.items()
    )


def _read_mask(path: Path, labels: str | None, volume: Volume) -> NDArray[np.uint8]:
    from fedcac.errors import UsageError
    from fedcac.imaging import is_label_map, parse_labels, read_label_map, read_vessel_map

    meanings = None if labels is None else parse_labels(labels)
    if is_label_map(path):
        return read_label_map(path, volume, meanings)
    if path.suffix != ".npy":
        return read_vessel_map(path, volume, meanings)
    if meanings is not None:
        raise UsageError(
            "--labels gives meaning to a NIfTI map's labels or a SEG's segments.",
            code="bad_labels",
            cure="Leave --labels out: the values of a .npy vessel map are fixed.",
        )
    return _read_numpy_map(path, volume)


def _read_numpy_map(path: Path, volume: Volume) -> NDArray[np.uint8]:
    import numpy as np

    from fedcac.errors import UsageError
    from fedcac.vocabulary import VESSEL_UNKNOWN

    try:
        mask = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} is not a NumPy array.",
            code="bad_mask",
            cure="Give a file that numpy.save wrote, without pickled objects.",
        ) from error
    is_map = mask.shape == volume.hu.shape and mask.dtype.kind in "biu"
    if not is_map or not 0 <= int(mask.min()) <= int(mask.max()) <= VESSEL_UNKNOWN:
        raise UsageError(
            f"The mask has shape {mask.shape} and type {mask.dtype}, the series {volume.hu.shape}; "
            f"or a value over {VESSEL_UNKNOWN}.",
            code="bad_mask",
            cure="Give a vessel map of the series' shape, superior to inferior, whole numbers from "
            f"0 to {VESSEL_UNKNOWN}.",
        )
    vessel_map: NDArray[np.uint8] = mask.astype(np.uint8)
    return vessel_map
