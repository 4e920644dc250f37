"""`fedcac phantom`: generated sites, with DICOM pairs and known truth, or as scored tables."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fedcac.console import Outcome, add_format

__all__ = ["add_parser"]

_MARGINS = "only the published margins are real"
_PROTOCOLS = {
    "miller2023": ("miller2023-ctac", _MARGINS),
    "eng2021": ("eng2021-nongated", _MARGINS),
    "hong2025": ("hong2025-cxr", "nothing about them is real"),
}
"""Protocol for each cohort, and what the tables have in common with it."""


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
    radiographs = verbs.add_parser(
        "radiographs", help="write DICOM radiographs of several sites, and their clinical tables"
    )
    radiographs.add_argument("--sites", type=int, default=3)
    radiographs.add_argument("--patients", type=int, default=60, help="patients per site")
    radiographs.add_argument("--seed", type=int, default=1)
    radiographs.add_argument("--out", type=Path, required=True, help="a new folder")
    add_format(radiographs, _radiographs)
    tables = verbs.add_parser("tables", help="write scored tables that resemble a published cohort")
    tables.add_argument("cohort", choices=tuple(_PROTOCOLS))
    tables.add_argument("--seed", type=int, default=1)
    tables.add_argument(
        "--copies",
        type=int,
        default=1,
        help="how many whole Miller cohorts; with 4, each site holds one",
    )
    tables.add_argument("--out", type=Path, required=True, help="a new folder")
    add_format(tables, _tables)


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


def _radiographs(arguments: argparse.Namespace) -> Outcome:
    from fedcac.phantom.radiograph_cohort import write_radiograph_cohort

    names = write_radiograph_cohort(
        arguments.out,
        n_sites=arguments.sites,
        n_patients=arguments.patients,
        seed=arguments.seed,
    )
    text = (
        f"{arguments.patients} patients for each of {', '.join(names)} in {arguments.out}.\n"
        "Drawn radiographs, not patients, for trying the software."
    )
    return Outcome(text, {"out": str(arguments.out), "sites": list(names)})


def _tables(arguments: argparse.Namespace) -> Outcome:
    from fedcac.phantom import eng_tables, hong_tables, miller_tables, write_tables

    protocol, note = _PROTOCOLS[arguments.cohort]
    if arguments.cohort == "miller2023":
        tables = miller_tables(arguments.seed, copies=arguments.copies)
    else:
        tables = (eng_tables if arguments.cohort == "eng2021" else hong_tables)(arguments.seed)
    paths = write_tables(tables, arguments.out)
    sites = " ".join(f"--site {path.stem}={path}" for path in paths)
    text = (
        f"{sum(map(len, tables.values()))} generated patients of {len(paths)} sites in "
        f"{arguments.out}; {note}.\n"
        f"fedcac analyze {protocol} {sites} --out results"
    )
    return Outcome(text, {"out": str(arguments.out), "sites": [path.stem for path in paths]})
