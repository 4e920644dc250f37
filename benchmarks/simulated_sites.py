"""`python -m benchmarks simulated_sites`: Eng's round with up to 100 sites on one machine.

The engine and every agent in one process, over spool folders, with databases on disk. Recorded per
number of sites: seconds, memory, bytes that leave a site, and how the engine's time grows.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.consortium import SpoolConsortium
from benchmarks.hundred_sites import share_out
from benchmarks.side_by_side import RESULTS, Spread, machine, spread_of, version_of
from fedcac.phantom import eng_tables, write_tables

__all__ = ["NAME", "recorded"]

NAME = "simulated_sites"
_PROTOCOL = "eng2021-nongated"
_SIZES = (25, 50, 100)
_COLUMNS = (
    "sites",
    "round_s",
    "engine_cpu_ms_per_site",
    "agent_cpu_ms_per_site",
    "idle_look_cpu_ms",
    "most_mib",
    "bytes_per_site",
    "exchanges",
)


def recorded() -> dict[str, dict[str, Spread]]:
    """Run each size in a process of its own; write the page; return the seconds to record."""
    rows = [_of_own_process(n_sites) for n_sites in _SIZES]
    with (RESULTS / f"{NAME}.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([_COLUMNS, *rows])
    versions = ", ".join(f"{name} {version_of(name)}" for name in ("fedcac", "numpy", "sqlalchemy"))
    lines = [
        f"# Eng's round with up to {_SIZES[-1]} sites in one process",
        "",
        f"{machine()}; {versions}. Engine and agents in one process, parcels in spool folders, "
        "every database on disk, `fsync` as in a deployment. Eng's generated patients, ten copies "
        "of them at 100 sites, are dealt out to sites of log-normal sizes.",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        f"|{'---|' * len(_COLUMNS)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "`round_s` is wall time from launch to estimates. Processor time is of the whole "
        "round, by site: where they do not grow with the number of sites, the round is linear in "
        "it. `idle_look` is one more step of the engine after the end; `most_mib` is the process "
        "with the engine, every agent and the libraries (`VmHWM`).",
    ]
    (RESULTS / f"{NAME}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    last = dict(zip(_COLUMNS, rows[-1], strict=True))
    return {"seconds": {f"eng_round_of_{last['sites']}_sites": spread_of([float(last["round_s"])])}}


def _of_own_process(n_sites: int) -> list[str]:
    # A process of its own, so that memory is that of this size alone.
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.simulated_sites", str(n_sites)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return finished.stdout.splitlines()[-1].split(",")


def _measured(n_sites: int) -> Sequence[object]:
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        eng = write_tables(eng_tables(seed=1), scratch / "eng")
        paths = share_out(eng * max(1, n_sites // 10), scratch / "shared", n_sites, seed=3)
        consortium = SpoolConsortium(scratch / "sites", {path.stem: path for path in paths})
        run = consortium.run(_PROTOCOL)
        engine_s, agents_s = sum(consortium.engine_seconds), sum(consortium.agent_seconds)
        consortium.step(run.view.record.round_id)
        sizes = [site.n_bytes for site in run.view.sites]
        consortium.close()
        return (
            n_sites,
            f"{run.seconds:.1f}",
            f"{1000 * engine_s / n_sites:.1f}",
            f"{1000 * agents_s / n_sites:.1f}",
            f"{1000 * consortium.engine_seconds[-1]:.0f}",
            f"{_peak_mib():.0f}",
            f"{sum(sizes) / n_sites:.0f}",
            run.view.n_exchanges,
        )


def _peak_mib() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    print(*_measured(int(sys.argv[1])), sep=",")
