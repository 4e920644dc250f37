"""The verbs of `fedcac-coordinator round`."""

from __future__ import annotations

import argparse
import getpass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from coordinator.folder import opened
from coordinator.rounds.api import Rounds
from coordinator.rounds.editions import Retry
from coordinator.rounds.package_sealing import NOT_TRIED, sealed_for
from coordinator.rounds.status_words import in_words, in_words_short
from coordinator.rounds.views import LaunchPlan
from coordinator.rounds.waiting import wait_for
from fedcac.console import Outcome, add_format
from fedcac.errors import RoundError, UsageError
from fedcac.models import SealedPackage
from fedcac.protocol.catalogue import load_protocol_or_shipped

__all__ = ["add_by", "add_round_verbs"]

# `round wait` ends with these, as flare and kubectl users expect of a wait.
_WAIT_POOLED, _WAIT_FAILED, _WAIT_TIMED_OUT = 0, 1, 3


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a number that has no name.
        return "lead"


_ROLE_WORDS = {
    "package": "Index exams are scored by",
    "reference_package": "Reference exams are read by the model",
}


def _named(package: SealedPackage) -> str:
    named = f"{package.manifest.name} {package.manifest.version}, {package.digest}"
    return named if package.is_tried else f"{named}. {NOT_TRIED.rstrip('.')}"


def _launch(arguments: argparse.Namespace) -> Outcome:
    protocol = load_protocol_or_shipped(arguments.protocol)
    with opened(arguments.home) as (folder, store):
        sites = tuple(arguments.site or store.members())
        package = reference = None
        if arguments.model is not None:
            package = sealed_for(protocol, arguments.model, folder.key())
        if arguments.reference_model is not None:
            reference = sealed_for(
                protocol, arguments.reference_model, folder.key(), is_reference=True
            )
        sealed = {"package": package, "reference_package": reference}
        packages = {role: _named(one) for role, one in sealed.items() if one is not None}
        plan = LaunchPlan(
            sites=sites,
            minimum_sites=arguments.minimum_sites or arguments.quorum or len(sites),
            deadline=datetime.now(UTC) + timedelta(days=arguments.days),
            package_digest=package.digest if package else None,
            package_files=package.files if package else {},
            quorum=arguments.quorum,
            actor=arguments.by,
            reference_digest=reference.digest if reference else None,
            reference_files=reference.files if reference else {},
        )
        rounds = Rounds(folder, store, arguments.by)
        round_id = rounds.launch(protocol, plan)
        rounds.step(round_id)
    text = (
        f"Round {round_id} is offered to {len(sites)} sites until {plan.deadline:%Y-%m-%d}.\n"
        + "".join(f"{_ROLE_WORDS[role]} {name}.\n" for role, name in packages.items())
        + f"Follow it with `fedcac-coordinator round wait {round_id}`."
    )
    return Outcome(text, {"round_id": round_id, "sites": list(sites), "packages": packages})


def _status(arguments: argparse.Namespace) -> Outcome:
    with Rounds.open(arguments.home) as rounds:
        if arguments.round_id is None:
            statuses = [rounds.status(summary.round_id) for summary in rounds.list()]
            text = "\n".join(in_words_short(statuses)) or "No round has been launched."
        else:
            statuses = [rounds.step(arguments.round_id)]
            events = rounds.events(arguments.round_id) if arguments.events else ()
            text = "\n".join(in_words(statuses[0], datetime.now(UTC), events))
    return Outcome(text, {"rounds": [status.to_dict() for status in statuses]})


def _wait(arguments: argparse.Namespace) -> Outcome:
    with Rounds.open(arguments.home) as rounds:
        try:
            status = wait_for(rounds, arguments.round_id, arguments.timeout, arguments.interval)
        except RoundError as error:
            if error.code != "round.unknown_round":
                raise
            # Scripts tell a wrong name from a round that failed by the exit code.
            raise UsageError(error.message, code="unknown_round", cure=error.cure) from error
    if status.is_pooled:
        code = _WAIT_POOLED
    else:
        code = _WAIT_FAILED if status.is_finished else _WAIT_TIMED_OUT
    return Outcome("\n".join(in_words(status, datetime.now(UTC))), status.to_dict(), code)


def _retry(arguments: argparse.Namespace) -> Outcome:
    retry = Retry(
        sites=tuple(arguments.site or ()),
        reason=arguments.reason,
        patience=timedelta(days=arguments.days),
        actor=arguments.by,
    )
    with Rounds.open(arguments.home, arguments.by) as rounds:
        edition = rounds.retry(arguments.round_id, retry)
        status = rounds.step(arguments.round_id)
    text = (
        f"Edition {edition.edition} of {arguments.round_id} adds {', '.join(edition.added)}, who "
        f"may answer until {edition.deadline:%Y-%m-%d}.\nIt is {status.phase}; follow it with "
        f"`fedcac-coordinator round wait {arguments.round_id}`."
    )
    return Outcome(text, {**status.to_dict(), "added": list(edition.added)})


def _close(arguments: argparse.Namespace) -> Outcome:
    with Rounds.open(arguments.home, arguments.by) as rounds:
        status = rounds.close(arguments.round_id)
    text = f"{arguments.round_id} is closed: nothing more is taken in, and its sites are told."
    return Outcome(text, status.to_dict())


def _cancel(arguments: argparse.Namespace) -> Outcome:
    with Rounds.open(arguments.home, arguments.by) as rounds:
        status = rounds.cancel(arguments.round_id, arguments.reason)
    text = f"{arguments.round_id} is cancelled, and its sites are told."
    return Outcome(text, status.to_dict())


def _export(arguments: argparse.Namespace) -> Outcome:
    out = arguments.out or Path(f"{arguments.round_id}.zip")
    with Rounds.open(arguments.home, arguments.by) as rounds:
        rounds.export(arguments.round_id, out, with_package=arguments.with_package)
        is_pooled = rounds.status(arguments.round_id).is_pooled
    text = f"Written to {out}."
    if is_pooled:
        text += f"\nAnybody can pool it again: `fedcac report --from {out} --out FOLDER`."
    return Outcome(text, {"out": str(out)})


def add_by(parser: argparse.ArgumentParser) -> None:
    """Add `--by`, under whose name a verb is noted."""
    parser.add_argument(
        "--by", default=_user(), metavar="NAME", help="who does it, for the round's events"
    )


def add_round_verbs(verbs: Any) -> None:
    """Add `round` with its verbs."""
    rounds = verbs.add_parser("round", help="launch and follow rounds")
    round_verbs = rounds.add_subparsers(metavar="VERB", required=True)
    _add_launch(round_verbs)
    status = round_verbs.add_parser("status", help="show one round and what to do next, or all")
    status.add_argument("round_id", nargs="?")
    status.add_argument("--events", action="store_true", help="also who did what, and when")
    add_format(status, _status)
    wait = round_verbs.add_parser(
        "wait",
        help="move a round on until it ends (exit 0 pooled, 1 failed or cancelled, 2 no such "
        "round, 3 timed out)",
    )
    wait.add_argument("round_id")
    wait.add_argument("--timeout", type=float, default=3600.0, help="seconds (default 3600)")
    wait.add_argument("--interval", type=float, default=2.0, help="most seconds between looks")
    add_format(wait, _wait)
    retry = round_verbs.add_parser(
        "retry", help="add late sites to a round that has ended, and pool it again"
    )
    retry.add_argument("round_id")
    retry.add_argument(
        "--site", action="append", help="a late site; default: all that did not refuse"
    )
    retry.add_argument("--reason", default="", help="why they were late, for report and events")
    retry.add_argument(
        "--days", type=float, default=30.0, help="days to answer each question (default 30)"
    )
    add_by(retry)
    add_format(retry, _retry)
    close = round_verbs.add_parser("close", help="freeze a round that has ended; tell its sites")
    close.add_argument("round_id")
    add_by(close)
    add_format(close, _close)
    cancel = round_verbs.add_parser("cancel", help="end a round before it is pooled, for good")
    cancel.add_argument("round_id")
    cancel.add_argument("--reason", default="", help="why, for the round's events")
    add_by(cancel)
    add_format(cancel, _cancel)
    export = round_verbs.add_parser("export", help="write one archive of a round that has ended")
    export.add_argument("round_id")
    export.add_argument("--out", type=Path, help="default: ROUND.zip")
    export.add_argument(
        "--with-package", action="store_true", help="also the model package's weights"
    )
    add_by(export)
    add_format(export, _export)


def _add_launch(round_verbs: Any) -> None:
    launch = round_verbs.add_parser("launch", help="sign a protocol and a package and offer them")
    launch.add_argument("protocol", help="a protocol file, or the id of a shipped one")
    launch.add_argument(
        "--model", type=Path, help="model package folder; none for sites' scored tables"
    )
    launch.add_argument(
        "--reference-model",
        type=Path,
        metavar="PACKAGE",
        help="package that reads the reference exam of every pair, for a protocol whose reference "
        "is gated_ct_model",
    )
    launch.add_argument("--site", action="append", help="a site's name; default: all enrolled")
    launch.add_argument(
        "--minimum-sites",
        type=int,
        help="with fewer at a deadline the round fails; default: the quorum, or all sites",
    )
    launch.add_argument(
        "--quorum",
        type=int,
        help="go on with so many answers before the deadline; who comes later is added by `round "
        "retry`; default: wait for all",
    )
    launch.add_argument(
        "--days",
        type=float,
        default=30.0,
        help="days to accept, and again to answer each exchange (default 30)",
    )
    add_by(launch)
    add_format(launch, _launch)
