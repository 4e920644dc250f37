"""`python -m benchmarks`: rerun every benchmark and record its ratios.

Machines are shared and noisy, so each pair is timed in turn, A B A B, and the ratio of each pair
is what counts: its median, least and greatest are recorded with the machine and the versions.
"""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

from benchmarks.agatston_loop import NAME as AGATSTON_LOOP
from benchmarks.agatston_loop import SECONDS_NAME as AGATSTON_SECONDS
from benchmarks.agatston_loop import agatston_against_a_loop
from benchmarks.cox_step import NAME as COX_STEP
from benchmarks.cox_step import step_against_coxph
from benchmarks.inference_engine import engine_ratios
from benchmarks.miller_round import NAME as MILLER_ROUND
from benchmarks.miller_round import miller_round
from benchmarks.volume_building import volume_ratios

_RESULTS = Path(__file__).parent / "results" / "results.json"


def main() -> None:
    """Run everything and write the results."""
    agatston_ratio, agatston_seconds = agatston_against_a_loop()
    ratios = {AGATSTON_LOOP: agatston_ratio, **volume_ratios(), **engine_ratios()}
    ratios[COX_STEP] = step_against_coxph()
    results = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {
            name: version(name) for name in ("numpy", "scipy", "highdicom", "pydicom", "fedcac")
        },
        # A comparison with software that is not installed records nothing.
        "ratios": {name: ratio for name, ratio in ratios.items() if ratio},
        "seconds": {AGATSTON_SECONDS: agatston_seconds, MILLER_ROUND: miller_round()},
    }
    _RESULTS.parent.mkdir(exist_ok=True)
    _RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
