"""Runs the commands of a documentation page and compares what they print with what it shows.

In a page every block of language `console` is run: lines that begin with `$ ` are commands (a
backslash continues one), what follows is their output. A line `...` stands for any lines, `...`
within a line for any words; a command without output shown may print anything. Lines on
standard error, such as progress, may be left out of the page. `[exit code 3]` as
the last line is the exit code expected, else 0.

A block under `<!-- file: NAME -->` is written there first, and so is every file that the page links
to in a folder `files` beside it.

What differs from run to run is shown as an example: a fingerprint, a round's id, a digest. The page
is read with what the real run printed in that place, in later commands too. A command that runs
only elsewhere, such as an installation, does not stand in a block of this language.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coordinator.__main__ import main as coordinator_main
from fedcac.cli import main as fedcac_main
from site_agent.__main__ import main as site_main

__all__ = ["Command", "PageError", "commands_of", "run_page"]

# In this process: starting the interpreter and its libraries takes longer than most commands.
PROGRAMS: dict[str, Callable[[list[str]], int]] = {
    "fedcac": fedcac_main,
    "fedcac-site": site_main,
    "fedcac-coordinator": coordinator_main,
}
EXAMPLES = re.compile(
    r"(?:[0-9a-f]{4} ){7}[0-9a-f]{4}"  # a fingerprint
    r"|[a-z][a-z0-9-]+-20[0-9]{6}-[0-9a-f]{8}"  # a round's id
    r"|sha256:[0-9a-f]{12,64}"
    r"|20[0-9]{2}-[0-9]{2}-[0-9]{2}(?: [0-9]{2}:[0-9]{2})?"
)
FILE = r"^<!-- file: (?P<name>[\w.-]+) -->\n```\w*\n(?P<text>.*?)^```$"
SHELL = re.compile(r"[|<>&;*$`]")


class PageError(AssertionError):
    """A page shows what is not so."""


class _Stream(io.StringIO):
    """Marks what is written with the stream it came by, in the order of both."""

    def __init__(self, heard: list[Line], is_error: bool) -> None:
        super().__init__()
        self._heard = heard
        self._is_error = is_error

    def write(self, text: str) -> int:
        n_written = super().write(text)
        *whole, rest = self.getvalue().split("\n")
        self._heard += [Line(line.rstrip(), self._is_error) for line in whole]
        self.seek(0)
        self.truncate()
        super().write(rest)
        return n_written


@dataclass(frozen=True)
class Line:
    """A line that a command printed; one on standard error need not stand in the page."""

    text: str
    is_error: bool = False


@dataclass(frozen=True)
class Command:
    """A command of a page, with the line it stands in and what is shown after it."""

    text: str
    line: int
    shown: tuple[str, ...]
    exit_code: int = 0


def commands_of(text: str) -> Iterator[Command]:
    """Yield the commands of a page's `console` blocks, in order."""
    for block in re.finditer(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        first = text[: block.start()].count("\n") + 2
        lines = block[1].splitlines()
        if not lines or not lines[0].startswith("$ "):
            raise PageError(f"line {first}: a console block begins with '$ '")
        starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            yield _command(lines[start:end], first + start)


def _command(lines: list[str], number: int) -> Command:
    n_words = 1
    while lines[n_words - 1].endswith("\\"):
        n_words += 1
    text = "\n".join(lines[:n_words])[2:].replace("\\\n", " ")
    shown, code = lines[n_words:], 0
    if shown and (ended := re.fullmatch(r"\[exit code ([0-9]+)\]", shown[-1])):
        shown, code = shown[:-1], int(ended[1])
    return Command(text, number, tuple(line.rstrip() for line in shown if line.strip()), code)


def run_page(page: Path, folder: Path) -> int:
    """Run a page's commands in a folder and return how many there were.

    Raises
    ------
    PageError
        If a command's exit code or output is not the page's. It quotes the output.
    """
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\]\(files/([^)/]+)\)", text):
        shutil.copy(page.parent / "files" / name, folder)
    for block in re.finditer(FILE, text, re.MULTILINE | re.DOTALL):
        (folder / block["name"]).write_text(block["text"], encoding="utf-8")
    known: dict[str, str] = {}
    n_run = 0
    with contextlib.chdir(folder):
        for command in commands_of(text):
            code, lines = _run(_real(command.text, known))
            printed = "\n".join(line.text for line in lines)
            where = f"{page.name}, line {command.line}: $ {command.text}"
            if code != command.exit_code:
                raise PageError(f"{where}\nended with {code}, not {command.exit_code}:\n{printed}")
            if command.shown:
                found = dict(known)
                if not _matches(command.shown, [x for x in lines if x.text], found):
                    shown = "\n".join(command.shown)
                    raise PageError(f"{where}\nprinted:\n{printed}\nand the page shows:\n{shown}")
                known.update(found)
            n_run += 1
    return n_run


def _run(text: str) -> tuple[int, list[Line]]:
    words = shlex.split(text)
    if words[0] in PROGRAMS and not SHELL.search(text):
        heard: list[Line] = []
        output, errors = _Stream(heard, False), _Stream(heard, True)
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                code = PROGRAMS[words[0]](words[1:])
            except SystemExit as ended:  # argparse ends a program that is called wrongly
                code = ended.code if isinstance(ended.code, int) else 1
        return code, heard
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    finished = subprocess.run(
        ["bash", "-ec", text],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "PATH": path},
    )
    return finished.returncode, [Line(line.rstrip()) for line in finished.stdout.splitlines()]


def _real(text: str, known: dict[str, str]) -> str:
    return EXAMPLES.sub(lambda example: _known(example[0], known) or example[0], text)


def _matches(shown: Sequence[str], lines: Sequence[Line], known: dict[str, str]) -> bool:
    if not shown:
        return all(line.is_error for line in lines)
    if shown[0].strip() == "...":
        return any(_matches(shown[1:], lines[skip:], known) for skip in range(len(lines) + 1))
    if not lines:
        return False
    learnt = dict(known)
    if _line_matches(shown[0], lines[0].text, learnt) and _matches(shown[1:], lines[1:], learnt):
        known.update(learnt)
        return True
    return lines[0].is_error and _matches(shown, lines[1:], known)


def _line_matches(shown: str, line: str, known: dict[str, str]) -> bool:
    """Compare a line, and learn what its examples stand for."""
    pattern, names, at = "", [], 0
    for example in EXAMPLES.finditer(shown):
        pattern += _quoted(shown[at : example.start()])
        text = _known(example[0], known)
        if text is None:
            names.append(example[0])
        pattern += f"({_form(example[0])})" if text is None else re.escape(text)
        at = example.end()
    matched = re.fullmatch(pattern + _quoted(shown[at:]), line)
    if matched:
        known.update(zip(names, matched.groups(), strict=True))
    return matched is not None


def _known(example: str, known: dict[str, str]) -> str | None:
    """Return what an example stands for; a digest's first digits may stand for it."""
    if example in known:
        return known[example]
    longer = [name for name in known if name.startswith(example) and name.startswith("sha256:")]
    return known[longer[0]][: len(example)] if longer else None


def _form(example: str) -> str:
    """Return the pattern of everything that looks like an example: its digits may differ."""
    if example.startswith("sha256:"):
        return f"sha256:[0-9a-f]{{{len(example) - 7}}}"
    if re.fullmatch(r"[0-9a-f ]+", example):
        return "(?:[0-9a-f]{4} ){7}[0-9a-f]{4}"
    ended = re.search(r"20[0-9]{6}-[0-9a-f]{8}$", example)
    if ended:
        return re.escape(example[: ended.start()]) + "20[0-9]{6}-[0-9a-f]{8}"
    return re.sub("[0-9]", "[0-9]", example)


def _quoted(text: str) -> str:
    # A page may align its columns otherwise than a terminal does.
    parts = [r"\s+".join(map(re.escape, re.split(r"\s+", part))) for part in text.split("...")]
    return ".*?".join(parts)
