"""The verbs of `fedcac-coordinator`."""

from __future__ import annotations

import argparse
from pathlib import Path

from coordinator.dashboard.verbs import add_dashboard_verbs
from coordinator.enrolment.verbs import add_membership_verbs
from coordinator.flower_courier.verbs import add_courier_verbs
from coordinator.reports.report_options import add_format_options, formats_of
from coordinator.round_verbs import add_by, add_round_verbs
from coordinator.rounds.api import Rounds
from coordinator.service_verbs import add_service_verbs
from fedcac.console import Outcome, add_format

__all__ = ["build_parser"]


def _report(arguments: argparse.Namespace) -> Outcome:
    with Rounds.open(arguments.home, arguments.by) as rounds:
        rounds.write_report(
            arguments.round_id, arguments.out, formats_of(arguments), arguments.edition
        )
    return Outcome(f"Report written to {arguments.out}/report.html", {"out": str(arguments.out)})


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="fedcac-coordinator",
        description="Launch validation rounds and pool what the sites release.",
    )
    parser.add_argument(
        "--home", type=Path, default=Path("coordinator-home"), help="the coordinator's folder"
    )
    verbs = parser.add_subparsers(metavar="VERB")

    add_membership_verbs(verbs)
    add_round_verbs(verbs)
    add_service_verbs(verbs)
    add_courier_verbs(verbs)
    add_dashboard_verbs(verbs)
    report = verbs.add_parser("report", help="write the output folder of a pooled round")
    report.add_argument("round_id")
    report.add_argument("--out", type=Path, required=True)
    report.add_argument("--edition", type=int, help="default: the newest")
    add_by(report)
    add_format_options(report)
    add_format(report, _report)
    return parser
