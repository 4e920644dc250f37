"""The record of a mutation run: one line per mutant, with the reasons people gave for survivors."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

KILLED, SURVIVED, TIMEOUT, NOT_RUN = "killed", "survived", "timeout", "not run"
COLUMNS = ("module", "line", "function", "operator", "change", "number", "outcome", "reason")

Key = tuple[str, str, str, str, int]


@dataclass
class Row:
    """A mutant's line of the record."""

    module: str
    line: int
    function: str
    operator: str
    change: str
    number: int
    outcome: str = NOT_RUN
    reason: str = ""

    @property
    def key(self) -> Key:
        return self.module, self.function, self.operator, self.change, self.number


def read(path: Path) -> dict[Key, Row]:
    """Return an earlier record's rows, none if there is none."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [
            Row(
                line["module"],
                int(line["line"]),
                line["function"],
                line["operator"],
                line["change"],
                int(line["number"]),
                line["outcome"],
                line["reason"],
            )
            for line in csv.DictReader(stream)
        ]
    return {row.key: row for row in rows}


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write a record, in the order of modules and lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    with new.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in sorted(rows, key=lambda r: (r.module, r.line, r.key)):
            writer.writerow([getattr(row, name) for name in COLUMNS])
    new.replace(path)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share (Wilson 1927), 0 to 1."""
    if not n:
        return 0.0, 1.0
    z, share = 1.959964, successes / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def table(rows: Iterable[Row]) -> str:
    """Return the outcomes per module as a Markdown table.

    The rate is that of detected (killed or timed out) among those tried; survivors that have a
    reason count as survivors.
    """
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        here = counts.setdefault(row.module, Counter())
        here[row.outcome] += 1
        here["explained"] += row.outcome == SURVIVED and bool(row.reason)
    lines = [
        "| module | mutants | tried | killed | timed out | survived | explained | rate | 95 % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    total: Counter[str] = Counter()
    for module, here in sorted(counts.items()):
        lines.append(_line(f"`{module}`", here))
        total += here
    return "\n".join([*lines, _line("all", total)])


def _line(name: str, here: Counter[str]) -> str:
    tried = here[KILLED] + here[TIMEOUT] + here[SURVIVED]
    found = here[KILLED] + here[TIMEOUT]
    low, high = wilson(found, tried)
    rate = f"{100 * found / tried:.1f} %" if tried else "-"
    cells = [
        name,
        tried + here[NOT_RUN],
        tried,
        here[KILLED],
        here[TIMEOUT],
        here[SURVIVED],
        here["explained"],
        rate,
        f"{100 * low:.1f} to {100 * high:.1f}" if tried else "-",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"
