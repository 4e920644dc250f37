"""`python -m benchmarks.corrupted_cohort`: 1,000 generated exams, 5 % of them corrupted.

Every exam goes through manifest, pairing, DICOM reading and the site's scoring queue in this
process. Recorded: the code of each corruption, sound exams lost, and the resident memory along
the way. The corruptions are those of `tests/imaging/corruptions.py`, each at least once.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.side_by_side import Spread

_ROOT = Path(__file__).parents[1]
_RESULTS = _ROOT / "benchmarks" / "results"
_SEED = 20
_N_EXAMS = 1000
_SHARE = 0.05
_EVERY = 100

if TYPE_CHECKING:
    from imaging.corrupted_cohort import CohortRun


def _plan(n_exams: int, names: tuple[str, ...]) -> list[str]:
    rng = np.random.default_rng(_SEED)
    n_corrupted = round(_SHARE * n_exams)
    plan = [names[n % len(names)] for n in range(n_corrupted)] + [""] * (n_exams - n_corrupted)
    return [plan[n] for n in rng.permutation(n_exams)]


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class _Lines(logging.Handler):
    """Keeps every log line of every library, to look for identifiers in them."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _table(run: CohortRun) -> list[tuple[str, int, str]]:
    rows = []
    for name, codes in run.codes_by_corruption().items():
        text = ", ".join(f"{code} {n}" for code, n in sorted(codes.items()))
        rows.append((name or "(none)", sum(codes.values()), text))
    return rows


def recorded() -> dict[str, dict[str, Spread]]:
    """Run this benchmark; its numbers are on its own page."""
    main([])
    return {}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the cohort once and write the tables.

    Raises
    ------
    RuntimeError
        If a sound exam was lost, a corruption was not coded or an identifier was logged.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exams", type=int, default=_N_EXAMS)
    arguments = parser.parse_args(argv)
    sys.path.insert(0, str(_ROOT / "tests"))
    from imaging.corrupted_cohort import run_cohort
    from imaging.corruptions import fixed_names

    lines = _Lines()
    logging.getLogger().addHandler(lines)
    memory: list[float] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        run = run_cohort(
            Path(scratch),
            _plan(arguments.exams, fixed_names()),
            seed=_SEED,
            on_exam=lambda: memory.append(_resident_mib()),
        )
        is_silent = not any("SECRET" in line or scratch in line for line in lines.lines)
    if run.wrong or not is_silent:
        raise RuntimeError(f"wrong: {run.wrong}; identifiers logged: {not is_silent}")
    _write(run, memory, time.monotonic() - started)


def _write(run: CohortRun, memory: list[float], seconds: float) -> None:
    rows = _table(run)
    with (_RESULTS / "corrupted_cohort.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([("corruption", "exams", "codes"), *rows])
    n_corrupted = sum(bool(name) for name, _ in run.outcomes)
    samples = [*memory[::_EVERY], memory[-1]]
    libraries = ", ".join(f"{name} {version(name)}" for name in ("pydicom", "highdicom", "numpy"))
    text = [
        f"# {len(run.outcomes)} generated exams, {n_corrupted} of them corrupted",
        "",
        f"Machine: {platform.machine()}, {os.cpu_count()} cores. {libraries}. 16 slices of 24 x 24 "
        f"each; written, paired, read and scored in {seconds:.0f} s.",
        "",
        "Sound exams lost or scored otherwise than written: 0. Corruptions without their code: 0. "
        "Identifiers in a log: 0.",
        "",
        f"Resident memory at every {_EVERY}th exam read, MiB: "
        + ", ".join(f"{value:.0f}" for value in samples)
        + f"; most {max(memory):.0f}.",
        "",
        "| corruption | exams | codes |",
        "|---|---|---|",
        *(f"| {name} | {n} | {codes} |" for name, n, codes in rows),
    ]
    (_RESULTS / "corrupted_cohort.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
