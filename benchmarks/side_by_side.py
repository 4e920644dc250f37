"""Contenders timed in turn on one machine, and what a benchmark leaves in `results/`.

Machines are shared and noisy: a time alone says little. Every round runs each contender once, in
an order that turns round every second time, and the ratio within a round is what counts.
"""

from __future__ import annotations

import csv
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = [
    "OURS",
    "RESULTS",
    "Case",
    "Spread",
    "machine",
    "only",
    "record",
    "record_machine",
    "recorded_results",
    "spread_of",
    "time_in_turn",
    "version_of",
    "write_tables",
]

OURS = "fedcac"
RESULTS = Path(__file__).parent / "results"

Spread = dict[str, float]

# A long benchmark says now and then how far it has come.
_SILENCE_S = 10.0


@dataclass(frozen=True)
class Case:
    """One case of a benchmark: seconds of each contender, round by round.

    `seconds` has the contenders' names as keys, `OURS` among them. A contender that is not
    installed is in `absent` instead.
    """

    name: str
    seconds: Mapping[str, tuple[float, ...]]
    absent: tuple[str, ...] = ()

    def ratios_to(self, contender: str) -> Spread:
        """Return contender's seconds over ours, per round; more than 1 says that ours is faster."""
        pairs = zip(self.seconds[contender], self.seconds[OURS], strict=True)
        ratios = [theirs / own for theirs, own in pairs]
        return spread_of(ratios, 2 if min(ratios) >= 0.5 else 3)


def spread_of(values: Sequence[float], digits: int = 2) -> Spread:
    """Return median, least and greatest."""
    return {
        "median": round(statistics.median(values), digits),
        "least": round(min(values), digits),
        "greatest": round(max(values), digits),
    }


def only(value: float) -> Spread:
    """Return the spread of a number that is the same in every run."""
    one = float(f"{value:.3g}") if abs(value) < 1 else round(float(value), 2)
    return {"median": one, "least": one, "greatest": one}


def time_in_turn(
    name: str,
    contenders: Mapping[str, Callable[[], Callable[[], object]]],
    *,
    n_rounds: int,
    absent: tuple[str, ...] = (),
) -> Case:
    """Time each contender once per round, after one round that is not counted.

    A contender is called untimed and returns what is timed: so each gets fresh inputs.
    """
    seconds: dict[str, list[float]] = {contender: [] for contender in contenders}
    told = time.perf_counter()
    for number in range(n_rounds + 1):
        order = list(contenders)[:: 1 if number % 2 else -1]
        for contender in order:
            run = contenders[contender]()
            gc.collect()
            start = time.perf_counter()
            outcome = run()
            elapsed = time.perf_counter() - start
            del outcome, run
            if number:
                seconds[contender].append(elapsed)
        if time.perf_counter() - told > _SILENCE_S:
            print(f"{name}: {number} of {n_rounds} rounds", flush=True)
            told = time.perf_counter()
    return Case(name, {key: tuple(values) for key, values in seconds.items()}, absent)


def version_of(package: str) -> str:
    """Return the version of a package, or 'not installed'."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def machine() -> str:
    """Return the kind of machine, without its name, and how busy others keep it."""
    kind = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"{kind}, load average {os.getloadavg()[1]:.1f} over the last five minutes"


def write_tables(
    name: str, title: str, cases: Sequence[Case], packages: Sequence[str], notes: str
) -> None:
    """Write `results/NAME.csv` (one timing a row) and `results/NAME.md` (one ratio a row)."""
    with (RESULTS / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "round", "contender", "seconds"])
        for case in cases:
            for contender, values in case.seconds.items():
                for number, value in enumerate(values, start=1):
                    writer.writerow([case.name, number, contender, f"{value:.6f}"])
    versions = ", ".join(f"{package} {version_of(package)}" for package in packages)
    lines = [
        f"# {title}",
        "",
        f"{machine()}; {versions}.",
        "",
        notes,
        "",
        "| case | contender | median ms (least to greatest) | contender / fedcac, median of rounds "
        "(least to greatest) |",
        "|---|---|---|---|",
        *(line for case in cases for line in _rows(case)),
    ]
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rows(case: Case) -> list[str]:
    rows = []
    for contender, values in case.seconds.items():
        times = spread_of([value * 1000 for value in values], 1)
        ratio = "" if contender == OURS else _shown(case.ratios_to(contender))
        rows.append(f"| {case.name} | {contender} | {_shown(times)} | {ratio} |")
    rows += [f"| {case.name} | {contender} | not installed | |" for contender in case.absent]
    return rows


def _shown(spread: Spread) -> str:
    return f"{spread['median']:g} ({spread['least']:g} to {spread['greatest']:g})"


def recorded_results() -> dict[str, Any]:
    """Return what `results/results.json` holds."""
    path = RESULTS / "results.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _keep(results: Mapping[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "results.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def record_machine(benchmark: str, packages: Sequence[str]) -> None:
    """Put machine, load and versions under which a benchmark ran into `results/results.json`."""
    results = recorded_results()
    versions = ", ".join(f"{package} {version_of(package)}" for package in packages)
    results.setdefault("measured", {})[benchmark] = f"{machine()}; {versions}"
    _keep(results)


def record(kind: str, spreads: Mapping[str, Spread]) -> None:
    """Put ratios, seconds or other figures among those of `results/results.json`."""
    results = recorded_results()
    results.setdefault(kind, {}).update(spreads)
    _keep(results)
    print(json.dumps({kind: spreads}, indent=2))
