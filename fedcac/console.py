"""What every command line shares: outcomes, the JSON envelope, exit codes and progress.

With `--format json` a verb prints exactly one envelope {schema_version, status, exit_code, data}
on standard output. Progress and messages go to standard error, so that output can be piped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedcac.errors import FedcacError

__all__ = [
    "Listener",
    "Outcome",
    "Verb",
    "add_format",
    "heard_by",
    "progress",
    "run_command",
    "say",
]

_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Outcome:
    """What a verb did: `text` for a person, `data` (JSON-like) for a program."""

    text: str
    data: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0


Verb = Callable[[argparse.Namespace], Outcome]


def add_format(parser: argparse.ArgumentParser, run: Verb) -> None:
    """Give a verb's parser the common options and its function."""
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="print text or one JSON envelope"
    )
    parser.set_defaults(run=run)


def run_command(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse, run the chosen verb, print its outcome and return the exit code."""
    arguments = parser.parse_args(argv)
    if not hasattr(arguments, "run"):
        parser.print_help(sys.stderr)
        return 2
    try:
        outcome: Outcome = arguments.run(arguments)
    except FedcacError as error:
        _print_error(error, arguments.format)
        return error.exit_code
    except KeyboardInterrupt:
        say("Stopped. Run the same command again to go on where it stopped.")
        return 130
    if arguments.format == "json":
        status = "ok" if outcome.exit_code == 0 else "failed"
        _print_envelope(status, outcome.exit_code, outcome.data)
    elif outcome.text:
        sys.stdout.write(outcome.text.rstrip("\n") + "\n")
    return outcome.exit_code


def _print_error(error: FedcacError, output_format: str) -> None:
    if output_format == "json":
        problem = {"code": error.code, "message": error.message, "cure": error.cure}
        _print_envelope("error", error.exit_code, problem)
    else:
        sys.stderr.write(f"Error: {error}\n")


def _print_envelope(status: str, exit_code: int, content: dict[str, Any]) -> None:
    envelope = {
        "schema_version": _SCHEMA_VERSION,
        "status": status,
        "exit_code": exit_code,
        "data": content,
    }
    sys.stdout.write(json.dumps(envelope, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


class Listener(Protocol):
    """Hears what would be shown on standard error, for a service that keeps a log instead."""

    def said(self, message: str) -> None:
        """Hear a message."""

    def advanced(self, description: str, finished: int, total: int) -> None:
        """Hear how far long work is; called at its beginning with `finished` 0, too."""


_LISTENERS: list[Listener] = []


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Give messages and progress to a listener, and not to standard error."""
    _LISTENERS.append(listener)
    try:
        yield
    finally:
        _LISTENERS.remove(listener)


def say(message: str) -> None:
    """Tell a person something on standard error, or whoever listens instead."""
    if _LISTENERS:
        _LISTENERS[-1].said(message)
        return
    sys.stderr.write(message.rstrip("\n") + "\n")
    sys.stderr.flush()


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Show the progress of long work; call the yielded function once per finished piece.

    A bar with the remaining time on a terminal; a plain line per tenth elsewhere.
    """
    if _LISTENERS:
        yield _told(_LISTENERS[-1], description, total)
        return
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(description, total=total)
            yield lambda: bar.advance(task)
        return
    finished = 0
    step = max(1, total // 10)

    def advance() -> None:
        nonlocal finished
        finished += 1
        if finished % step == 0 or finished == total:
            say(f"{description}: {finished}/{total}")

    yield advance


def _told(listener: Listener, description: str, total: int) -> Callable[[], None]:
    finished = 0
    listener.advanced(description, 0, total)

    def advance() -> None:
        nonlocal finished
        finished += 1
        listener.advanced(description, finished, total)

    return advance
