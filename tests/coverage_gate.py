"""Whether every room is covered by the tests as far as it must be; reads coverage's JSON report.

`coverage json` counts lines and branches together, as `coverage report` does. What decides what
leaves a site, and what bytes become trusted, must be covered whole; any other room nearly so.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

__all__ = ["GUARDED", "LEAST_PERCENT", "Room", "main", "rooms_of"]

GUARDED = ("fedcac.disclosure", "fedcac.exchange", "fedcac.protocol", "fedcac.signing")
"""Rooms of which every line and every branch has to be run."""

LEAST_PERCENT = 95.0
"""Of the lines and branches of every other room."""


@dataclass(frozen=True)
class Room:
    """A package of the first level, or the modules beside the packages of a root."""

    name: str
    files: Mapping[str, Mapping[str, Any]]

    @property
    def least(self) -> float:
        """Return how many percent have to be covered."""
        return 100.0 if self.name in GUARDED else LEAST_PERCENT

    def _sum(self, *fields: str) -> int:
        return sum(file["summary"][field] for file in self.files.values() for field in fields)

    @property
    def percent(self) -> float:
        """Return how many percent of the lines and branches were run."""
        n_all = self._sum("num_statements", "num_branches")
        return 100.0 * self._sum("covered_lines", "covered_branches") / n_all if n_all else 100.0

    @property
    def is_covered(self) -> bool:
        """Say whether as much was run as must be."""
        return self.percent >= self.least

    def gaps(self) -> Iterator[str]:
        """Yield every file with what was not run in it, the one with most of it first."""
        n_missing = {
            path: len(file["missing_lines"]) + len(file["missing_branches"])
            for path, file in self.files.items()
        }
        for path in sorted(self.files, key=lambda path: (-n_missing[path], path)):
            if n_missing[path]:
                yield f"{path}: {_words(self.files[path])}"


def _words(file: Mapping[str, Any]) -> str:
    lines = set(file["missing_lines"])
    # A branch from or to a line that was not run is no news.
    branches = [
        f"{start}->{'exit' if end < 0 else end}"
        for start, end in file["missing_branches"]
        if not {start, end} & lines
    ]
    parts = [("lines", list(_spans(sorted(lines)))), ("branches", branches)]
    return "; ".join(f"{what} {', '.join(which)}" for what, which in parts if which)


def _spans(lines: Iterable[int]) -> Iterator[str]:
    # Lines that follow one another keep their distance to their place.
    for _, run in groupby(enumerate(lines), key=lambda placed: placed[1] - placed[0]):
        span = [line for _, line in run]
        yield str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}"


def _room_of(path: str) -> str:
    root, *inner = PurePosixPath(path.replace("\\", "/")).parts
    if len(inner) > 1:
        return f"{root}.{inner[0]}"
    alone = f"{root}.{PurePosixPath(inner[0]).stem}" if inner else root
    return alone if alone in GUARDED else root


def rooms_of(report: Mapping[str, Any]) -> list[Room]:
    """Return the rooms of a report, by name.

    Raises
    ------
    ValueError
        If branches were not measured, or nothing of a guarded room was: such a report would pass
        for the wrong reason.
    """
    if not report["meta"].get("branch_coverage"):
        raise ValueError("the report is without branches: measure with branch = true")
    files: dict[str, dict[str, Any]] = {}
    for path, file in report["files"].items():
        files.setdefault(_room_of(path), {})[path] = file
    rooms = [Room(name, files[name]) for name in sorted(files)]
    measured = {room.name for room in rooms if room._sum("num_statements")}
    if absent := [name for name in GUARDED if name not in measured]:
        raise ValueError(f"the report has nothing of {', '.join(absent)}")
    return rooms


def main(arguments: list[str] | None = None) -> int:
    """Print every room, and what is missing of those that are not covered; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="what `coverage json -o FILE` wrote")
    rooms = rooms_of(json.loads(parser.parse_args(arguments).report.read_text(encoding="utf-8")))
    lines = []
    for room in rooms:
        # Rounded down: 99.996 % is not everything.
        percent = int(room.percent * 100) / 100
        is_short = "" if room.is_covered else f"  NOT COVERED, at least {room.least:g}"
        lines.append(f"{room.name:<32} {percent:6.2f} %{is_short}")
    short = [room for room in rooms if not room.is_covered]
    for room in short:
        lines += ["", f"{room.name} is not run at:", *(f"  {gap}" for gap in room.gaps())]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
