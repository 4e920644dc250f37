"""`fedcac-site doctor` and `fedcac-site dry-run`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedcac import __version__
from fedcac.console import Outcome, add_format, say
from fedcac.errors import UsageError
from site_agent.doctor.dry_run import DryRun, dry_run
from site_agent.doctor.findings import Check, Finding, Situation, failed, ok, run_check
from site_agent.doctor.holdings import HOLDING_CHECKS
from site_agent.doctor.machine import MACHINE_CHECKS
from site_agent.doctor.network import network_checks
from site_agent.doctor.records import RECORD_CHECKS
from site_agent.doctor.trust import TRUST_CHECKS
from site_agent.flower_courier.settings import CourierFolder
from site_agent.settings import SiteFolder
from site_agent.status.standing import DoctorLine, DoctorNote, write_note
from site_agent.status.standing_reader import doctor_path

__all__ = ["EXIT_FAILED", "add_doctor_verbs", "all_checks"]

EXIT_FAILED = 1
"""What `doctor` ends with when a check failed; warnings and skipped checks are 0."""

_MARKS = {"ok": "ok     ", "warning": "WARNING", "failed": "FAILED ", "skipped": "skipped"}
_DRY_RUN = "dry-run"


def all_checks() -> tuple[Check, ...]:
    """Return every check in the order in which a person would mend them."""
    return (
        *TRUST_CHECKS[:1],
        *MACHINE_CHECKS,
        *TRUST_CHECKS[1:],
        *RECORD_CHECKS,
        *HOLDING_CHECKS,
        *network_checks(),
    )


def add_doctor_verbs(verbs: Any) -> None:
    """Add `doctor` and `dry-run`."""
    names = ", ".join(check.name for check in all_checks())
    doctor = verbs.add_parser(
        "doctor",
        help="check this installation; say what to mend",
        description=f"Checks: {names}. Exit code 0 unless one failed, then {EXIT_FAILED}. The "
        "output names no patient and no exam, so that it can be mailed.",
    )
    doctor.add_argument(
        "--only", metavar="NAME[,NAME]", type=_names, default=(), help="make these checks only"
    )
    doctor.add_argument(
        "--courier-home",
        type=Path,
        default=Path("courier-home"),
        help="the courier's folder, for the checks of the line (default: courier-home)",
    )
    doctor.add_argument(
        "--dry-run", action="store_true", help="also score a generated exam and answer a question"
    )
    doctor.add_argument(
        "--details",
        action="store_true",
        help="print what only this site's people may read, too: do not mail that",
    )
    add_format(doctor, _doctor)
    dry = verbs.add_parser(
        "dry-run",
        help="score one generated exam and answer one question through the gate; sends nothing",
    )
    add_format(dry, _dry_run)


def _names(text: str) -> tuple[str, ...]:
    known = [check.name for check in all_checks()]
    names = tuple(word.strip() for word in text.split(",") if word.strip())
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"no check '{name}'; there are {', '.join(known)}")
    return names


def _doctor(arguments: argparse.Namespace) -> Outcome:
    folder = SiteFolder(arguments.home)
    # os.path: a folder that this user may not look into is none here.
    has_site = os.path.isdir(folder.root)
    if not has_site and not os.path.isdir(arguments.courier_home):
        raise UsageError(
            "There is no site's folder and no courier's folder here.",
            code="no_site_folder",
            cure="Give --home DIR, made by `fedcac-site init`, or --courier-home DIR.",
        )
    situation = Situation(folder, CourierFolder(arguments.courier_home))
    chosen = [c for c in all_checks() if not arguments.only or c.name in arguments.only]
    findings: list[tuple[str, Finding]] = []
    for check in chosen:
        say(f"{check.name} ...")
        findings.append((check.name, run_check(check, situation)))
    if arguments.dry_run:
        say(f"{_DRY_RUN} ...")
        findings.append((_DRY_RUN, run_check(Check(_DRY_RUN, _dry_finding), situation)))
    lines = tuple(
        DoctorLine(name=name, status=one.status, found=one.found, cure=one.cure)
        for name, one in findings
    )
    if not arguments.only and has_site:
        write_note(doctor_path(folder), DoctorNote(at=datetime.now(UTC), lines=lines))
    n_failed = sum(line.status == "failed" for line in lines)
    content = {
        "software": __version__,
        "failed": n_failed,
        "checks": [line.model_dump() for line in lines],
    }
    text = _text(findings, with_details=arguments.details)
    return Outcome(text, content, EXIT_FAILED if n_failed else 0)


def _text(findings: Sequence[tuple[str, Finding]], *, with_details: bool) -> str:
    width = max((len(name) for name, _ in findings), default=0)
    lines = [f"fedcac {__version__}"]
    for name, finding in findings:
        lines.append(f"{_MARKS[finding.status]}  {name:<{width}}  {finding.found}")
        indent = " " * (11 + width)
        if finding.cure:
            lines.append(f"{indent}What to do: {finding.cure}")
        if with_details:
            lines += [f"{indent}(not to be mailed) {line}" for line in finding.details]
    counts = dict.fromkeys(_MARKS, 0)
    for _, finding in findings:
        counts[finding.status] += 1
    told = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    lines.append(f"{len(findings)} checks: {told}.")
    if not counts["failed"] and len(findings) >= len(all_checks()):
        lines.append("This installation can take part in a round.")
    return "\n".join(lines)


def _dry_finding(situation: Situation) -> Finding:
    return _judged(dry_run(situation.folder))


def _judged(found: DryRun) -> Finding:
    words = _words(found)
    if not found.score > 0:
        return failed(words, "The model found no calcium in an exam made with some: report it.")
    return ok(words)


def _words(found: DryRun) -> str:
    refused = f" ({', '.join(found.refusals)})" if found.refusals else ""
    return (
        f"a generated exam scored {found.score:.0f} Agatston units in {found.seconds:.0f} s (made "
        f"with {found.reference:.0f}); of {found.n_released + found.n_refused} answers about "
        f"generated patients policy {found.policy} released {found.n_released} and refused "
        f"{found.n_refused}{refused}; nothing was sent"
    )


def _dry_run(arguments: argparse.Namespace) -> Outcome:
    found = dry_run(SiteFolder(arguments.home))
    finding = _judged(found)
    text = f"Dry run: {finding.found}."
    if finding.cure:
        text += f"\nWhat to do: {finding.cure}"
    return Outcome(text, asdict(found), EXIT_FAILED if finding.status == "failed" else 0)
