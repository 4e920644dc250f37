"""`python -m benchmarks.cox_step`: one Newton step of the Cox model against survival::coxph.

The step is what a site computes when it is asked: log-likelihood, gradient and information at one
beta, sorting included. R sorts once per fit, so its time per iteration leaves sorting out. Where
R or its survival package is missing, the comparison is skipped and nothing is recorded.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.side_by_side import Spread, record
from fedcac.statistics.partial_likelihood import partial_likelihood
from fedcac.vocabulary import TieMethod

__all__ = ["NAME", "step_against_coxph"]

NAME = "cox_newton_step_speed_relative_to_coxph"

_SCRIPT = Path(__file__).with_name("cox_step.R")
_PAIRS = 7
_N, _P = 1_000_000, 20
_LAST_DAY = 3650

Vector = NDArray[np.float64]


def _patients() -> tuple[Vector, Vector, NDArray[np.bool_], Vector]:
    """Return covariates, days of follow-up, events (14 %), and the beta of the step."""
    rng = np.random.default_rng(20)
    x = rng.normal(size=(_N, _P))
    x[:, 1::3] = rng.random(x[:, 1::3].shape) < 0.4
    effect = np.where(np.arange(_P) % 2 == 0, 0.3, -0.3)
    to_event = rng.exponential(26_000 * np.exp(-x @ effect))
    to_censoring = rng.uniform(0, 2 * _LAST_DAY, _N)
    days = np.ceil(np.minimum(np.minimum(to_event, to_censoring), _LAST_DAY))
    event = (to_event <= to_censoring) & (to_event <= _LAST_DAY)
    return x, days, event, effect / 2


class _Coxph:
    """A running R process that times one iteration each time it is asked."""

    def __init__(self, folder: str, x: Vector, days: Vector, event: NDArray[np.bool_]) -> None:
        data = Path(folder) / "patients.bin"
        with data.open("wb") as file:
            for column in (*x.T, days, event):
                np.ascontiguousarray(column, dtype=np.float64).tofile(file)
        self._process = subprocess.Popen(
            ["Rscript", str(_SCRIPT), str(data), str(_N), str(_P)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.version = self._line().split()[1]

    def _line(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 - opened as a pipe
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("R ended early")
        return line

    def measure(self) -> float:
        """Return the seconds of one iteration."""
        assert self._process.stdin is not None  # noqa: S101 - opened as a pipe
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        """End R."""
        self._process.communicate()


def _has_coxph() -> bool:
    if shutil.which("Rscript") is None:
        return False
    asked = ["Rscript", "-e", "stopifnot(requireNamespace('survival', quietly = TRUE))"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def step_against_coxph() -> dict[str, float]:
    """Take one step for 1,000,000 patients and 20 covariates; more than 0.5 is within twice R's.

    Empty where R is missing.
    """
    if not _has_coxph():
        print("R with the package survival is not installed: the comparison with coxph is skipped")
        return {}
    x, days, event, beta = _patients()

    def ours() -> float:
        start = time.perf_counter()
        partial_likelihood(x, days, event, beta, TieMethod.EFRON)
        return time.perf_counter() - start

    with tempfile.TemporaryDirectory() as folder:
        r = _Coxph(folder, x, days, event)
        try:
            ours(), r.measure()
            pairs = [(r.measure(), ours()) for _ in range(_PAIRS)]
        finally:
            r.close()
    threads = os.environ.get("OMP_NUM_THREADS", "as many as there are cores")
    print(
        f"survival {r.version}, one thread; BLAS threads here: {threads}; {event.mean():.1%} events"
    )
    for theirs, own in pairs:
        print(f"coxph {theirs:.3f} s per iteration, one step here {own:.3f} s")
    ratios = [theirs / own for theirs, own in pairs]
    return {
        "median": round(statistics.median(ratios), 2),
        "least": round(min(ratios), 2),
        "greatest": round(max(ratios), 2),
    }


def recorded() -> dict[str, dict[str, Spread]]:
    """Run this benchmark and return what `benchmarks` records."""
    ratio = step_against_coxph()
    # A comparison with software that is not installed records nothing.
    return {"ratios": {NAME: ratio} if ratio else {}}


def main() -> None:
    """Run this benchmark alone and put its ratio among the recorded results."""
    record("ratios", recorded()["ratios"])


if __name__ == "__main__":
    main()
