"""Writes the reference pages that come from code: commands, the protocol schema, dependencies.

`make docs` runs it; a test compares what is committed with what it would write.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import dependencies

__all__ = ["pages"]

_FOLDER = Path(__file__).parent / "reference"
_HEAD = "<!-- Made by `make docs` from the code; do not edit. -->\n\n"


def _help_of(parser: argparse.ArgumentParser, level: int = 2) -> list[str]:
    parts = [
        f"{'#' * level} `{parser.prog}`",
        "```text\n" + parser.format_help().rstrip() + "\n```",
    ]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                parts += _help_of(child, min(level + 1, 4))
    return parts


def pages() -> dict[Path, str]:
    """Return the text of every generated page by its path."""
    # Help texts wrap at the terminal's width; a page must not depend on it.
    os.environ["COLUMNS"] = "96"
    from coordinator.cli import build_parser as coordinator_parser
    from fedcac.cli import build_parser
    from fedcac.protocol import Protocol
    from site_agent.cli import build_parser as site_parser

    commands = [
        part
        for parser in (build_parser(), site_parser(), coordinator_parser())
        for part in _help_of(parser)
    ]
    schema = json.dumps(Protocol.model_json_schema(), indent=2)
    return {
        _FOLDER / "commands.md": _HEAD + "# Commands\n\n" + "\n\n".join(commands) + "\n",
        _FOLDER / "protocol.schema.json": schema + "\n",
        _FOLDER / "dependencies.md": _HEAD + dependencies.page(),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
