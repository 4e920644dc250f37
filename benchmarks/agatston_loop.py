"""`python -m benchmarks.agatston_loop`: the Agatston score against a plain Python loop.

The loop is what open implementations do: slice by slice it labels, and lesion by lesion it measures
area and peak. Both must give the same score, or there is no benchmark.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.side_by_side import (
    OURS,
    Case,
    Spread,
    record,
    spread_of,
    time_in_turn,
    write_tables,
)
from fedcac.imaging import load_volume
from fedcac.phantom import chest_ct_folder
from fedcac.protocol import ImageCriteria
from fedcac.scoring import profile_named, score_volume

__all__ = ["NAME", "SECONDS_NAME", "agatston_against_a_loop", "agatston_cases"]

NAME = "agatston_speed_up_over_a_per_lesion_loop"
SECONDS_NAME = "agatston_score_under_a_heart_sized_mask"

_ROUNDS = 41
_LOOP = "per-lesion loop"
_SPACING_MM = (5.0, 0.841796875, 0.841796875)
_HEART_CASE = "heart-sized mask"


def _heart_mask(hu: NDArray[np.float32]) -> NDArray[np.uint8]:
    # An ellipse about the heart of the shipped series, in 20 of its 64 slices.
    rows, columns = np.mgrid[0 : hu.shape[1], 0 : hu.shape[2]]
    heart = ((columns - 288) / 64) ** 2 + ((rows - 238) / 74) ** 2 < 1
    mask = np.zeros(hu.shape, dtype=np.uint8)
    mask[29:49, heart] = 2
    return mask


def _calcium_mask(hu: NDArray[np.float32], heart: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # What a model leaves: the bright voxels with a rim of one.
    over = (hu >= 130) & (heart > 0)
    rim = ndimage.binary_dilation(over, np.ones((1, 3, 3), dtype=bool))
    return (2 * rim).astype(np.uint8)


def _plain_score(hu: NDArray[np.float32], mask: NDArray[np.uint8]) -> float:
    """Score slice by slice and lesion by lesion."""
    increment_mm, row_mm, column_mm = _SPACING_MM
    total = 0.0
    for index in range(hu.shape[0]):
        labels, count = ndimage.label((hu[index] >= 130) & (mask[index] > 0), np.ones((3, 3)))
        for lesion in range(1, count + 1):
            pixels = labels == lesion
            area = float(pixels.sum()) * row_mm * column_mm
            if area >= 1.0:
                peak = float(hu[index][pixels].max())
                factor = 1 + (peak >= 200) + (peak >= 300) + (peak >= 400)
                total += area * factor * increment_mm / 3.0
    return total


def agatston_cases() -> tuple[Case, ...]:
    """Score 64 x 512 x 512 of a real chest CT, a heart-sized mask first.

    Raises
    ------
    RuntimeError
        If the two scores differ.
    """
    hu = load_volume(chest_ct_folder(), ImageCriteria()).hu
    heart = _heart_mask(hu)
    profile = profile_named("agatston1990")
    cases = []
    for name, mask in ((_HEART_CASE, heart), ("calcium mask", _calcium_mask(hu, heart))):

        def ours(mask: NDArray[np.uint8] = mask) -> float:
            return score_volume(hu, mask, _SPACING_MM, profile).total

        def loop(mask: NDArray[np.uint8] = mask) -> float:
            return _plain_score(hu, mask)

        if not np.isclose(ours(), loop(), rtol=1e-9, atol=0) or ours() == 0:
            raise RuntimeError(f"the scores differ: {ours()} and {loop()}")
        contenders = {OURS: lambda run=ours: run, _LOOP: lambda run=loop: run}
        cases.append(time_in_turn(name, contenders, n_rounds=_ROUNDS))
    return tuple(cases)


def agatston_against_a_loop() -> tuple[Spread, Spread]:
    """Write the tables; return the speed-up and our seconds under the heart-sized mask."""
    cases = agatston_cases()
    write_tables(
        "agatston_loop",
        "Agatston score of 64 x 512 x 512 against a per-slice, per-lesion loop",
        cases,
        ("fedcac", "numpy", "scipy"),
        f"{_ROUNDS} rounds, contenders in turn within each. The series is the chest CT that ships "
        "with the package; the heart-sized mask is an ellipse of 128 x 148 pixels in 20 slices, "
        "the calcium mask its bright voxels with a rim of one. Both give the same score.",
    )
    heart = cases[0]
    return heart.ratios_to(_LOOP), spread_of(heart.seconds[OURS], 4)


def recorded() -> dict[str, dict[str, Spread]]:
    """Run this benchmark and return what `benchmarks` records."""
    ratio, seconds = agatston_against_a_loop()
    return {"ratios": {NAME: ratio}, "seconds": {SECONDS_NAME: seconds}}


def main() -> None:
    """Run this benchmark alone and put its numbers among the recorded results."""
    for kind, spreads in recorded().items():
        record(kind, spreads)


if __name__ == "__main__":
    main()
