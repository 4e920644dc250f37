"""The long form: random starts, as many cases as time allows, and every failing input kept."""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz.engine import PARSERS, Failure, Parser, Tally, case, fuzz, tried
from fuzz.registry import ROOMS

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 1 if a case broke a promise."""
    assert all(room.__name__ for room in ROOMS)
    arguments = _arguments().parse_args(argv)
    unknown = set(arguments.parser) - set(PARSERS)
    if unknown:
        _say(f"No such parser: {', '.join(sorted(unknown))}. There are: {', '.join(PARSERS)}")
        return 2
    chosen = [PARSERS[name] for name in arguments.parser or PARSERS]
    if arguments.replay is not None:
        return _replay(chosen[0], arguments.replay)
    start = secrets.randbits(64) if arguments.start is None else arguments.start
    _say(f"start {start}: the same inputs again with --start {start}")
    arguments.save.mkdir(parents=True, exist_ok=True)
    n_failures = 0
    for parser in chosen:
        with TemporaryDirectory(prefix="fuzz-") as folder:
            tally, failures = _run(parser, Path(folder), start, 60 * arguments.minutes)
        n_failures += len(failures)
        for failure in failures:
            _keep(failure, arguments.save)
        _note(parser, tally, failures, start, arguments.save)
    return 1 if n_failures else 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("parser", nargs="*", help=f"one or more of {', '.join(PARSERS)}; else all")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each parser (default 1)")
    parser.add_argument("--start", type=int, help="the number that every input follows from")
    parser.add_argument("--save", type=Path, default=Path("build/fuzz"), help="for failing inputs")
    parser.add_argument("--replay", type=Path, help="try one saved input on the parser named")
    return parser


def _run(parser: Parser, folder: Path, start: int, seconds: float) -> tuple[Tally, list[Failure]]:
    """Return what became of the cases, and one failure of each kind."""
    fuzz(parser, folder, range(0))
    tally, kinds = Tally(Counter()), set()
    failures: list[Failure] = []
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        try:
            tally.outcomes[tried(parser, case(parser, number, start), folder)] += 1
        except Failure as failure:
            tally.outcomes["FAILED"] += 1
            # The class and the place; what a message quotes differs from case to case.
            kind = failure.what.partition(":")[0] + failure.what.rpartition("(")[2]
            if kind not in kinds:
                kinds.add(kind)
                failures.append(failure)
        number += 1
    return tally, failures


def _keep(failure: Failure, folder: Path) -> None:
    digest = hashlib.sha256(failure.payload).hexdigest()[:12]
    path = folder / f"{failure.parser}-{digest}"
    path.write_bytes(failure.payload)
    _say(f"  FAILED {failure.what}\n  again: python -m tests.fuzz --replay {path} {failure.parser}")


def _note(
    parser: Parser, tally: Tally, failures: Sequence[Failure], start: int, folder: Path
) -> None:
    _say(
        f"{parser.name}: {tally.n_cases} cases, {tally.n_accepted} accepted, "
        f"{len(tally.outcomes)} outcomes, {len(failures)} kinds of failure"
    )
    line = {
        "parser": parser.name,
        "start": start,
        "cases": tally.n_cases,
        "accepted": tally.n_accepted,
        "failures": len(failures),
    }
    with (folder / "runs.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def _replay(parser: Parser, path: Path) -> int:
    with TemporaryDirectory(prefix="fuzz-") as folder:
        try:
            _say(tried(parser, path.read_bytes(), Path(folder)))
        except Failure as failure:
            cause = failure.__cause__
            _say(f"FAILED {failure.what}")
            if cause is not None:
                raise cause from None
            return 1
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
