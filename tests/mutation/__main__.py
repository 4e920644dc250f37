"""Mutation testing: plant one fault at a time, and see whether a test finds it.

    python -m tests.mutation disclosure
    python -m tests.mutation disclosure --module rules/ --again survived
    python -m tests.mutation disclosure --table

A room is a folder of modules with the tests that answer for it. Its record is a CSV under
docs/studies: module, line, function, operator, change, outcome, and the reason why a survivor is
none (written by a person; kept from run to run). A run that was stopped goes on where it stopped,
and tries again what stands in functions that have changed. Nothing is written into the sources.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from . import record, running
from .operators import Faults, Mutant
from .record import NOT_RUN, Row

ROOT = running.ROOT


@dataclass(frozen=True)
class Room:
    """Modules, and the tests that answer for them."""

    sources: str
    tests: tuple[str, ...]


ROOMS = {
    "disclosure": Room("fedcac/disclosure", ("tests/unit/disclosure", "tests/attacks")),
    "statistics": Room("fedcac/statistics", ("tests/unit/statistics", "tests/oracle")),
}


class Progress:
    """Writes outcomes to the state of the run and the record, and says how far it is."""

    def __init__(self, name: str, rows: dict[record.Key, Row], digests: dict[str, str]) -> None:
        self._csv = ROOT / "docs" / "studies" / f"mutation_{name}.csv"
        self._state = ROOT / "build" / "mutation" / f"{name}.jsonl"
        self._state.parent.mkdir(parents=True, exist_ok=True)
        self._rows = rows
        self._digests = digests
        self._left = 0
        self._done: Counter[str] = Counter()
        self._started = self._said = time.monotonic()

    def begin(self, n: int) -> None:
        self._left = n
        self._started = time.monotonic()

    def tell(self, mutant: Mutant, outcome: str) -> None:
        self._rows[mutant.key].outcome = outcome
        self._done[outcome] += 1
        line = {"key": mutant.key, "digest": self._digests[_scope(mutant)], "outcome": outcome}
        with self._state.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        done, now = self._done.total(), time.monotonic()
        if now - self._said > 10 or done == self._left:
            self._said = now
            minutes = (now - self._started) / done * (self._left - done) / 60
            counts = ", ".join(f"{n} {name}" for name, n in sorted(self._done.items()))
            _say(f"{done} of {self._left}: {counts}; {minutes:.0f} min left ({mutant.path})")
            self.save()

    def save(self) -> None:
        record.write(self._csv, self._rows.values())

    def earlier(self) -> dict[record.Key, tuple[str, str]]:
        """Return digest and outcome of what was tried before, by mutant."""
        if not self._state.exists():
            return {}
        lines = self._state.read_text("utf-8").splitlines()
        told = [json.loads(line) for line in lines]
        return {_key(line["key"]): (line["digest"], line["outcome"]) for line in told}


def _key(told: Sequence[str | int]) -> record.Key:
    module, function, operator, change, number = told
    return str(module), str(function), str(operator), str(change), int(number)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _scope(mutant: Mutant) -> str:
    outer = mutant.place.outer
    return f"{mutant.path}:{outer.name if outer else ''}:{outer.lineno if outer else 0}"


def find(
    sources: Sequence[Path],
) -> tuple[list[tuple[Mutant, ast.Module]], dict[str, str]]:
    """Return every mutant with its module's tree, and digests of the code around it."""
    found, digests = [], {}
    for path in sources:
        text = (ROOT / path).read_text("utf-8")
        tree = ast.parse(text)
        for mutant in Faults(path, tree).find():
            outer = mutant.place.outer
            around = ast.get_source_segment(text, outer) if outer else text
            scope = _scope(mutant)
            if scope not in digests:
                digests[scope] = sha256((around or "").encode()).hexdigest()[:16]
            found.append((mutant, tree))
    return found, digests


def ranked(mutants: Sequence[Mutant], seed: int) -> dict[record.Key, float]:
    """Return every mutant's place, 0 to 1, in a seeded random order of its module's.

    Those up to a share are a random sample of so large a share, and a larger share holds it.
    """
    by_module: dict[Path, list[Mutant]] = {}
    for mutant in mutants:
        by_module.setdefault(mutant.path, []).append(mutant)
    ranks: dict[record.Key, float] = {}
    for path, own in sorted(by_module.items()):
        dice = random.Random(f"{seed}:{path}")  # noqa: S311 - a sample, not a secret
        order = dice.sample(own, len(own))
        ranks |= {mutant.key: (i + 0.5) / len(own) for i, mutant in enumerate(order)}
    return ranks


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    room = ROOMS[asked.room]
    csv = ROOT / "docs" / "studies" / f"mutation_{asked.room}.csv"
    before = record.read(csv)
    if asked.table:
        sys.stdout.write(record.table(before.values()) + "\n")
        return 0
    sources = sorted(p.relative_to(ROOT) for p in (ROOT / room.sources).rglob("*.py"))
    found, digests = find(sources)
    rows = {
        m.key: Row(
            *(m.path.as_posix(), m.line, m.place.function, m.operator, m.text, m.number),
            reason=before[m.key].reason if m.key in before else "",
        )
        for m, _ in found
    }
    progress = Progress(asked.room, rows, digests)
    tried = {} if asked.fresh else progress.earlier()
    ranks = ranked([m for m, _ in found], asked.seed)
    todo = []
    for mutant, tree in found:
        digest, outcome = tried.get(mutant.key, ("", NOT_RUN))
        is_known = digest == digests[_scope(mutant)]
        if is_known:
            rows[mutant.key].outcome = outcome
        if _is_asked(mutant, asked, ranks) and not (is_known and outcome not in asked.again):
            todo.append((mutant, tree))
    # In random order, so that what a stopped run tried is a sample of every module.
    todo.sort(key=lambda each: ranks[each[0].key])
    progress.save()
    _say(f"{len(found)} mutants in {room.sources}, {len(todo)} to try")
    quick = float("inf") if asked.slow else asked.quick
    _try(asked.room, room, todo, progress, quick)
    progress.save()
    sys.stdout.write(record.table(rows.values()) + "\n")
    return 0


def _is_asked(mutant: Mutant, asked: argparse.Namespace, ranks: Mapping[record.Key, float]) -> bool:
    stage = "functions" if mutant.place.outer else "constants"
    return (
        ranks[mutant.key] <= asked.share
        and stage in asked.stage
        and any(part in mutant.path.as_posix() for part in asked.module)
    )


def _try(
    name: str,
    room: Room,
    todo: list[tuple[Mutant, ast.Module]],
    progress: Progress,
    quick: float,
) -> None:
    if not todo:
        return
    sources = sorted(p.relative_to(ROOT) for p in (ROOT / room.sources).rglob("*.py"))
    baseline = running.measure(room.tests, sources, ROOT / "build" / "mutation" / f"{name}.json")
    baseline.quick = quick
    constants = [(m, tree) for m, tree in todo if m.place.outer is None]
    functions = [(m, tree) for m, tree in todo if m.place.outer is not None]
    progress.begin(len(todo))
    running.run_reloading(constants, baseline, progress.tell)
    if functions:
        running.run_exchanging(functions, baseline, room.tests, progress.tell)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("room", choices=sorted(ROOMS))
    parser.add_argument(
        "--module", nargs="*", default=[""], help="only modules whose path holds one of these"
    )
    parser.add_argument("--share", type=float, default=1.0, help="of each module's mutants, 0 to 1")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument(
        "--again", nargs="*", default=[], help="outcomes to try again: survived, timeout, killed"
    )
    parser.add_argument("--quick", type=float, default=0.25, help="seconds a test may take at most")
    parser.add_argument("--slow", action="store_true", help="with slower tests as well")
    parser.add_argument("--stage", nargs="*", default=["functions", "constants"])
    parser.add_argument("--fresh", action="store_true", help="forget what was tried before")
    parser.add_argument("--table", action="store_true", help="only print the record's table")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
