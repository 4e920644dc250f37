"""Entry point of `fedcac-coordinator`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from coordinator.cli import build_parser
from fedcac.console import run_command

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
