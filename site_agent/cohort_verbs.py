"""`fedcac-site cohort`: what a protocol asks of a site, and what the site's exams make of it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedcac.console import Outcome, add_format
from fedcac.protocol.catalogue import load_protocol_or_shipped
from site_agent.exams.dictionary import (
    data_dictionary,
    dictionary_text,
    template_csv,
    write_dictionary,
)
from site_agent.settings import SiteFolder

__all__ = ["add_cohort_verbs"]


def add_cohort_verbs(verbs: Any) -> None:
    """Add `cohort check`, `cohort dictionary` and `cohort series`."""
    cohort = verbs.add_parser("cohort", help="look at this site's exams and clinical table")
    cohort_verbs = cohort.add_subparsers(metavar="VERB", required=True)
    check = cohort_verbs.add_parser(
        "check",
        help="say which exam is excluded, why, and the cure; count the table's empty cells",
    )
    dictionary = cohort_verbs.add_parser(
        "dictionary", help="the clinical table's columns under a protocol, and a template of it"
    )
    series = cohort_verbs.add_parser(
        "series",
        help="say which series of a study's folder is read, and why: every one with its evidence",
    )
    for parser in (check, dictionary, series):
        parser.add_argument("protocol", help="a protocol file, or the id of a shipped one")
    dictionary.add_argument(
        "--out", type=Path, metavar="DIR", help="write template and dictionary as CSV files here"
    )
    series.add_argument("path", type=Path, help="the folder of one study")
    add_format(series, _series)
    add_format(check, _check)
    add_format(dictionary, _dictionary)


def _check(arguments: argparse.Namespace) -> Outcome:
    from site_agent.exams.dicom_source import DicomFiles, check_cohort

    folder = SiteFolder(arguments.home)
    settings = folder.settings()
    protocol = load_protocol_or_shipped(arguments.protocol)
    return Outcome(*check_cohort(protocol, DicomFiles.of_site(folder, settings)))


def _series(arguments: argparse.Namespace) -> Outcome:
    from site_agent.exams.series_survey import survey_study

    return Outcome(*survey_study(load_protocol_or_shipped(arguments.protocol), arguments.path))


def _dictionary(arguments: argparse.Namespace) -> Outcome:
    entries = data_dictionary(load_protocol_or_shipped(arguments.protocol))
    content: dict[str, Any] = {"columns": [asdict(entry) for entry in entries]}
    if arguments.out is None:
        text = f"{template_csv(entries).rstrip()}\n\n{dictionary_text(entries)}"
        return Outcome(text, content)
    paths = write_dictionary(arguments.out, entries)
    content["files"] = [str(path) for path in paths]
    return Outcome("Written: " + ", ".join(content["files"]), content)
