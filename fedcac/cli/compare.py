"""`fedcac compare`: rounds of one protocol, of several packages or dates, side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fedcac.console import Outcome, add_format

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "compare",
        help="compare two rounds of one protocol, or follow three and more: packages, or dates",
    )
    parser.add_argument("first", type=Path, metavar="DIR_A", help="output folder of round A")
    parser.add_argument("second", type=Path, metavar="DIR_B", help="output folder of round B")
    parser.add_argument(
        "later",
        type=Path,
        nargs="*",
        metavar="DIR",
        help="output folders of later rounds, the earliest first: run charts of every site",
    )
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument(
        "--patients",
        choices=("different", "same", "unknown"),
        default="unknown",
        help="whether the rounds are about different patients; only then has a change an interval "
        "(default: unknown)",
    )
    add_format(parser, _run)


def _run(arguments: argparse.Namespace) -> Outcome:
    if arguments.later:
        return _follow(arguments)
    from fedcac.output import read_compared_round
    from fedcac.report.comparison_page import write_comparison
    from fedcac.report.rounds_compared import compare_rounds

    first, second = read_compared_round(arguments.first), read_compared_round(arguments.second)
    rows = compare_rounds(first, second, arguments.patients)
    write_comparison(first, second, rows, arguments.patients, arguments.out)
    changed = [row for row in rows if row.change is not None]
    certain = sum(row.low is not None for row in changed)
    words = {
        "different": f"{certain} of them with an interval.",
        "same": "none with an interval: values of the same patients cannot be compared from "
        "aggregates.",
        "unknown": "none with an interval: it was not said that the patients differ "
        "(--patients different).",
    }[arguments.patients]
    return Outcome(
        f"{len(changed)} values are in both rounds, {words}\nRead {arguments.out}/comparison.html",
        {"out": str(arguments.out), "compared": len(changed), "with_interval": certain},
    )


def _follow(arguments: argparse.Namespace) -> Outcome:
    from fedcac.output import read_compared_round
    from fedcac.report.rounds_trend import follow_rounds
    from fedcac.report.trend_page import write_trend

    folders = (arguments.first, arguments.second, *arguments.later)
    rounds = [read_compared_round(folder) for folder in folders]
    rows = follow_rounds(rounds, arguments.patients)
    write_trend(rounds, rows, arguments.patients, arguments.out)
    tested = [row for row in rows if row.p_value is not None]
    words = (
        f"{len(tested)} of them tested for a drift."
        if tested
        else "none tested for a drift: that needs rounds of different patients "
        "(--patients different) and three values with an interval."
    )
    return Outcome(
        f"{len(rows)} values followed over {len(rounds)} rounds, {words}\n"
        f"Read {arguments.out}/comparison.html",
        {
            "out": str(arguments.out),
            "rounds": len(rounds),
            "followed": len(rows),
            "tested": len(tested),
        },
    )
