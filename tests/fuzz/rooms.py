"""What continuous integration asks of every room of parsers."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

from fuzz.engine import PARSERS, fuzz, tried
from fuzz.regressions import REGRESSIONS

__all__ = ["check_parser", "check_regression", "parsers_of", "regressions_of", "table_of"]

_STUDY = Path(__file__).resolve().parents[2] / "docs" / "studies" / "fuzzing.md"


def parsers_of(room: ModuleType) -> list[str]:
    """Return the names of the parsers that a module registered."""
    return [name for name, one in PARSERS.items() if one.parse.__module__ == room.__name__]


def regressions_of(room: ModuleType) -> list[str]:
    """Return the names of what was found once in a module's parsers."""
    own = set(parsers_of(room))
    return [name for name, (parser, _, _) in REGRESSIONS.items() if parser in own]


def check_parser(name: str, folder: Path) -> None:
    """Try a parser's seeds and its cases; Failure if one breaks a promise."""
    parser = PARSERS[name]
    tally = fuzz(parser, folder, range(parser.n_cases))
    assert tally.n_cases == parser.n_cases


def check_regression(name: str, folder: Path) -> None:
    """Try what broke a promise once."""
    parser, made, expected = REGRESSIONS[name]
    assert tried(PARSERS[parser], made(), folder) == expected


def table_of(room: str) -> list[tuple[str, str]]:
    """Return (parser, entry) of every line of a room's table in the study."""
    text = _STUDY.read_text(encoding="utf-8")
    section = text.partition(f"\n### {room}\n")[2].partition("\n#")[0]
    return re.findall(r"^\| `([a-z-]+)` \|[^|]*\| `([^`]+)` \|", section, re.MULTILINE)
