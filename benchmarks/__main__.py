"""`python -m benchmarks`: rerun every benchmark and record its ratios.

Machines are shared and noisy, so each pair is timed in turn, A B A B, and the ratio of each pair
is what counts: its median, least and greatest are recorded with the machine and the versions.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.cox_step import NAME as COX_STEP
from benchmarks.cox_step import step_against_coxph
from benchmarks.miller_round import NAME as MILLER_ROUND
from benchmarks.miller_round import miller_round
from fedcac.imaging import load_volume
from fedcac.phantom import chest_ct_folder
from fedcac.protocol import ImageCriteria
from fedcac.scoring import profile_named, score_volume

_RESULTS = Path(__file__).parent / "results" / "results.json"
_PAIRS = 7


def _ratios(ours: Callable[[], object], other: Callable[[], object]) -> dict[str, float]:
    ours(), other()
    ratios = []
    for _ in range(_PAIRS):
        start = time.perf_counter()
        other()
        middle = time.perf_counter()
        ours()
        ratios.append((middle - start) / (time.perf_counter() - middle))
    return {
        "median": round(statistics.median(ratios), 2),
        "least": round(min(ratios), 2),
        "greatest": round(max(ratios), 2),
    }


def _plain_score(hu: NDArray[np.float32], mask: NDArray[np.uint8], pixel_mm2: float) -> float:
    """Score slice by slice and lesion by lesion, as open implementations do."""
    total = 0.0
    for index in range(hu.shape[0]):
        labels, count = ndimage.label((hu[index] >= 130) & (mask[index] > 0), np.ones((3, 3)))
        for lesion in range(1, count + 1):
            pixels = labels == lesion
            area = float(pixels.sum()) * pixel_mm2
            if area >= 1.0:
                peak = float(hu[index][pixels].max())
                total += area * (1 + (peak >= 200) + (peak >= 300) + (peak >= 400))
    return total


def agatston_against_a_loop() -> dict[str, float]:
    """Score 64 x 512 x 512 under a heart-sized mask; a real chest CT."""
    hu = load_volume(chest_ct_folder(), ImageCriteria()).hu
    rows, columns = np.mgrid[0:512, 0:512]
    heart = ((columns - 288) / 64) ** 2 + ((rows - 238) / 74) ** 2 < 1
    mask = np.zeros(hu.shape, dtype=np.uint8)
    mask[29:49, heart] = 2
    profile = profile_named("agatston1990")
    return _ratios(
        lambda: score_volume(hu, mask, (5.0, 0.84, 0.84), profile),
        lambda: _plain_score(hu, mask, 0.84**2),
    )


def volume_against_highdicom() -> dict[str, float]:
    """Build the volume of a 64-slice series, reading included; more than 1 is faster."""
    files = sorted(chest_ct_folder().iterdir())

    def plain() -> object:
        return hd.get_volume_from_series(
            [pydicom.dcmread(path) for path in files], dtype=np.float32
        )

    return _ratios(lambda: load_volume(chest_ct_folder(), ImageCriteria()), plain)


def main() -> None:
    """Run everything and write the results."""
    benchmarks = {
        "agatston_speed_up_over_a_per_lesion_loop": agatston_against_a_loop,
        "volume_building_speed_relative_to_highdicom": volume_against_highdicom,
        COX_STEP: step_against_coxph,
    }
    results = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {
            name: version(name) for name in ("numpy", "scipy", "highdicom", "pydicom", "fedcac")
        },
        # A comparison with software that is not installed records nothing.
        "ratios": {name: ratio for name, run in benchmarks.items() if (ratio := run())},
        "seconds": {MILLER_ROUND: miller_round()},
    }
    _RESULTS.parent.mkdir(exist_ok=True)
    _RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
