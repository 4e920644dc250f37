"""`fedcac phantom cohort`: generated sites with DICOM pairs and known truth."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fedcac.console import Outcome, add_format

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("phantom", help="generate exam pairs with known truth")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    cohort = verbs.add_parser("cohort", help="write DICOM pairs of several sites, and the truth")
    cohort.add_argument("--sites", type=int, default=4)
    cohort.add_argument("--patients", type=int, default=60, help="patients per site")
    cohort.add_argument("--seed", type=int, default=1)
    cohort.add_argument("--hybrid-share", type=float, default=0.25, help="share on a real chest CT")
    cohort.add_argument("--out", type=Path, required=True, help="a new folder")
    add_format(cohort, _cohort)


def _cohort(arguments: argparse.Namespace) -> Outcome:
    from fedcac.phantom import write_cohort

    names = write_cohort(
        arguments.out,
        n_sites=arguments.sites,
        n_patients=arguments.patients,
        seed=arguments.seed,
        hybrid_share=arguments.hybrid_share,
    )
    text = (
        f"{arguments.patients} pairs for each of {', '.join(names)} in {arguments.out}.\n"
        "Generated exams, not patients; truth.csv holds what was placed."
    )
    return Outcome(text, {"out": str(arguments.out), "sites": list(names)})
