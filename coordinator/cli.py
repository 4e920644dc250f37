"""The verbs of `fedcac-coordinator`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from coordinator.engine import RoundEngine
from coordinator.flower_courier.verbs import add_courier_verbs
from coordinator.folder import CoordinatorFolder
from coordinator.releases import seals_of
from coordinator.report_options import add_format_options, formats_of
from coordinator.reporting import write_round_report
from coordinator.store import CoordinatorStore, EnrolledSite, RoundState
from coordinator.views import LaunchPlan, RoundView
from fedcac.console import Outcome, add_format, say
from fedcac.errors import UsageError
from fedcac.protocol.catalogue import load_protocol_or_shipped
from fedcac.signing import PublicKey

__all__ = ["build_parser"]

# `round wait` ends with these, as flare and kubectl users expect of a wait.
_WAIT_POOLED, _WAIT_FAILED, _WAIT_TIMED_OUT = 0, 1, 3


@contextmanager
def _opened(arguments: argparse.Namespace) -> Iterator[tuple[CoordinatorFolder, CoordinatorStore]]:
    folder = CoordinatorFolder(arguments.home)
    store = folder.store()
    try:
        yield folder, store
    finally:
        store.close()


def _init(arguments: argparse.Namespace) -> Outcome:
    key = CoordinatorFolder(arguments.home).create()
    text = (
        f"Coordinator made in {arguments.home}.\n"
        f"Give every site keys/lead.pub and read it this fingerprint over another channel:\n"
        f"  {key.fingerprint}"
    )
    return Outcome(text, {"public_key": key.to_text(), "fingerprint": key.fingerprint})


def _enrol(arguments: argparse.Namespace) -> Outcome:
    key = PublicKey.from_text(arguments.key.read_text(encoding="ascii"))
    with _opened(arguments) as (_, store):
        store.enrol(EnrolledSite(arguments.name, key, str(arguments.spool.resolve())))
    text = (
        f"Site {arguments.name} is enrolled. Compare this fingerprint with the site's people\n"
        f"before the first round:\n  {key.fingerprint}"
    )
    return Outcome(text, {"site": arguments.name, "fingerprint": key.fingerprint})


def _launch(arguments: argparse.Namespace) -> Outcome:
    protocol = load_protocol_or_shipped(arguments.protocol)
    with _opened(arguments) as (folder, store):
        sites = tuple(arguments.site or store.sites())
        files: dict[str, bytes] = {}
        package_digest = None
        if arguments.model is not None:
            from fedcac.models import seal_package

            package = seal_package(arguments.model, folder.key())
            files, package_digest = package.files(), package.digest
        plan = LaunchPlan(
            sites=sites,
            minimum_sites=arguments.minimum_sites or len(sites),
            deadline=datetime.now(UTC) + timedelta(days=arguments.days),
            package_digest=package_digest,
            package_files=files,
        )
        engine = folder.engine(store)
        round_id = engine.launch(protocol, plan)
        engine.step(round_id)
    text = (
        f"Round {round_id} is offered to {len(sites)} sites until {plan.deadline:%Y-%m-%d}.\n"
        f"Follow it with `fedcac-coordinator round wait {round_id}`."
    )
    return Outcome(text, {"round_id": round_id, "sites": list(sites)})


def _describe(view: RoundView) -> dict[str, Any]:
    return {
        "round_id": view.record.round_id,
        "state": view.record.state.value,
        "protocol": f"{view.protocol.id} v{view.protocol.version}",
        "exchanges": view.n_exchanges,
        "deadline": view.record.deadline.isoformat(),
        "sites": {
            site.name: {
                "accepts": site.is_accepting,
                "refusal": site.refusal.value if site.refusal else None,
                "replies": len(site.replies),
                "bytes": site.n_bytes,
            }
            for site in view.sites
        },
    }


def _as_text(view: RoundView) -> str:
    words = {None: "no word yet", True: "takes part", False: "refuses"}
    lines = [
        f"{view.record.round_id}: {view.record.state.value}, {view.n_exchanges} exchanges, "
        f"deadline {view.record.deadline:%Y-%m-%d %H:%M} UTC"
    ]
    for site in view.sites:
        code = f" ({site.refusal.value})" if site.refusal else ""
        lines.append(
            f"  {site.name}: {words[site.is_accepting]}{code}, {len(site.replies)} replies, "
            f"{site.n_bytes} bytes"
        )
    return "\n".join(lines)


def _status(arguments: argparse.Namespace) -> Outcome:
    with _opened(arguments) as (folder, store):
        engine = folder.engine(store)
        if arguments.round_id is None:
            views = [engine.view(record.round_id) for record in store.rounds()]
        else:
            views = [engine.step(arguments.round_id)]
    text = "\n".join(_as_text(view) for view in views) or "No round has been launched."
    return Outcome(text, {"rounds": [_describe(view) for view in views]})


def _wait(arguments: argparse.Namespace) -> Outcome:
    end = time.monotonic() + arguments.timeout
    with _opened(arguments) as (folder, store):
        engine = folder.engine(store)
        view = _wait_for(engine, arguments.round_id, end, arguments.interval)
    if view.record.state is RoundState.POOLED:
        code = _WAIT_POOLED
    else:
        code = _WAIT_FAILED if view.is_finished else _WAIT_TIMED_OUT
    return Outcome(_as_text(view), _describe(view), code)


def _wait_for(engine: RoundEngine, round_id: str, end: float, interval: float) -> RoundView:
    told = ""
    while True:
        view = engine.step(round_id)
        if _as_text(view) != told:
            told = _as_text(view)
            say(told)
        if view.is_finished or time.monotonic() >= end:
            return view
        time.sleep(interval)


def _report(arguments: argparse.Namespace) -> Outcome:
    with _opened(arguments) as (folder, store):
        engine = folder.engine(store)
        view = engine.view(arguments.round_id)
        if view.record.state is not RoundState.POOLED:
            raise UsageError(
                f"Round {arguments.round_id} is {view.record.state.value}, not pooled.",
                code="round_not_pooled",
                cure="Wait for it with `fedcac-coordinator round wait`.",
            )
        seals = seals_of(store, folder.key(), arguments.round_id)
        package = engine.package_manifest(arguments.round_id)
        write_round_report(view, arguments.out, package, seals, formats_of(arguments))
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

    init = verbs.add_parser("init", help="make a coordinator's folder with its signing key")
    add_format(init, _init)

    enrol = verbs.add_parser("enrol", help="add a site by its public key")
    enrol.add_argument("name")
    enrol.add_argument("--key", type=Path, required=True, help="the site's site.pub")
    enrol.add_argument("--spool", type=Path, required=True, help="the site's spool folder")
    add_format(enrol, _enrol)

    rounds = verbs.add_parser("round", help="launch and follow rounds")
    round_verbs = rounds.add_subparsers(metavar="VERB", required=True)
    launch = round_verbs.add_parser("launch", help="sign a protocol and a package and offer them")
    launch.add_argument("protocol", help="a protocol file, or the id of a shipped one")
    launch.add_argument("--model", type=Path, help="model package folder; none for scored tables")
    launch.add_argument("--site", action="append", help="a site's name; default: all enrolled")
    launch.add_argument("--minimum-sites", type=int, help="default: all sites")
    launch.add_argument(
        "--days",
        type=float,
        default=30.0,
        help="days to accept, and again to answer each exchange (default 30)",
    )
    add_format(launch, _launch)
    status = round_verbs.add_parser("status", help="show one round, or all")
    status.add_argument("round_id", nargs="?")
    add_format(status, _status)
    wait = round_verbs.add_parser(
        "wait", help="move a round on until it ends (exit 0 pooled, 1 failed, 3 timed out)"
    )
    wait.add_argument("round_id")
    wait.add_argument("--timeout", type=float, default=3600.0, help="seconds (default 3600)")
    wait.add_argument("--interval", type=float, default=2.0, help="seconds between looks")
    add_format(wait, _wait)

    add_courier_verbs(verbs)
    report = verbs.add_parser("report", help="write the output folder of a pooled round")
    report.add_argument("round_id")
    report.add_argument("--out", type=Path, required=True)
    add_format_options(report)
    add_format(report, _report)
    return parser
