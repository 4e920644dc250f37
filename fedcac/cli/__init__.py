"""The `fedcac` command: one module per verb group, heavy imports only inside the verb."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

from fedcac import __version__
from fedcac.console import run_command

__all__ = ["build_parser", "main"]

# Each module has `add_parser(subparsers)`. It imports torch, pydicom or matplotlib only when its
# verb runs, so that `fedcac --help` is quick and a coordinator needs none of them.
_VERB_MODULES: tuple[str, ...] = (
    "demo",
    "analyze",
    "report",
    "compare",
    "score",
    "agatston",
    "protocol",
    "model",
    "phantom",
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="fedcac",
        description="Federated validation of coronary-calcium models. Research use only.",
    )
    parser.add_argument("--version", action="version", version=f"fedcac {__version__}")
    subparsers = parser.add_subparsers(metavar="VERB")
    for name in _VERB_MODULES:
        importlib.import_module(f"fedcac.cli.{name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(build_parser(), argv)
