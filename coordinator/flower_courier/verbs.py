"""The verbs `fedcac-coordinator courier`: set up and run the processes of the courier."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coordinator.flower_courier.certificate_verbs import certificate_warnings
from coordinator.flower_courier.folder import CourierFolder
from coordinator.flower_courier.journal import CourierJournal
from coordinator.flower_courier.superlink import superlink_command, superlink_environment
from fedcac.console import Outcome, add_format, say
from fedcac.errors import RoundError
from fedcac.exchange.couriering import CourierPublicKey
from fedcac.joining.key_files import public_key_text
from fedcac.signing import PublicKey

__all__ = ["add_courier_verbs", "carry"]

_TURN_S = 0.2
_RECONNECT_S = 3.0


def _folder(arguments: argparse.Namespace) -> CourierFolder:
    return CourierFolder(arguments.home / "courier")


def _enrol(arguments: argparse.Namespace) -> Outcome:
    from coordinator.enrolment.enrolling import opened_enrolments

    node_key = CourierPublicKey.from_text(public_key_text(arguments.node_key))
    key = PublicKey.from_text(public_key_text(arguments.key))
    with opened_enrolments(arguments.home) as enrolments:
        enrolments.courier.ports()
        enrolments.add(arguments.name, key, node_key, spool="")
    text = (
        f"Site {arguments.name} is enrolled over Flower. Compare with the site's people:\n"
        f"  {key.fingerprint}\n  {node_key.to_text()}"
    )
    return Outcome(text, {"site": arguments.name, "fingerprint": key.fingerprint})


def _superlink(arguments: argparse.Namespace) -> Outcome:
    folder = _folder(arguments)
    command = superlink_command(folder)
    folder.link_path.mkdir(mode=0o700, exist_ok=True)
    # Replaces this process, so that whoever watches over it watches over the SuperLink.
    os.execve(command[0], command, superlink_environment(folder))  # noqa: S606


def _front(arguments: argparse.Namespace) -> Outcome:
    from coordinator.flower_courier.front import serve_front

    serve_front(_folder(arguments))
    return Outcome("")


def _run(arguments: argparse.Namespace) -> Outcome:
    while True:
        try:
            carry(_folder(arguments))
        except RoundError as error:
            say(f"Connecting again in {_RECONNECT_S:.0f} s: {error.message}")
            time.sleep(_RECONNECT_S)


def carry(folder: CourierFolder) -> None:
    """Carry parcels until the link breaks (RoundError `flower_link`) or the roster changes."""
    from coordinator.flower_courier.adapter import FlowerLink
    from coordinator.flower_courier.dispatch import Dispatcher

    roster = folder.roster()
    link = FlowerLink(folder, roster)
    say(f"Connected; carrying for {len(roster)} sites.")
    for text in certificate_warnings(folder.root.parent):
        say(text)
    try:
        dispatcher = Dispatcher(
            journal=CourierJournal(folder.journal_path),
            link=link,
            roster=roster,
            key=folder.key(),
            say=say,
        )
        while _lines(folder.roster()) == _lines(roster):
            link.beat()
            if not dispatcher.turn():
                time.sleep(_TURN_S)
    finally:
        link.close()


def _lines(roster: Mapping[str, CourierPublicKey]) -> dict[str, str]:
    return {name: key.to_text() for name, key in roster.items()}


def _status(arguments: argparse.Namespace) -> Outcome:
    folder = _folder(arguments)
    journal = CourierJournal(folder.journal_path)
    sites = {
        name: {
            "to_deliver": [one.name for one in journal.pending(name)],
            "refused": journal.refusals(name),
            "asked": sorted(journal.asked(name)),
        }
        for name in folder.roster()
    }
    lines = []
    for name, work in sites.items():
        lines.append(
            f"{name}: {len(work['to_deliver'])} to deliver, {len(work['asked'])} asked for"
        )
        for parcel, code in journal.refusals(name).items():
            lines.append(f"  {parcel} was not taken: {code}")
    warnings = certificate_warnings(arguments.home)
    text = "\n".join([*warnings, *(lines or ["No site is enrolled over Flower."])])
    return Outcome(text, {"sites": sites, "warnings": warnings})


def _export(arguments: argparse.Namespace) -> Outcome:
    journal = CourierJournal(_folder(arguments).journal_path)
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = []
    for one in journal.pending(arguments.name):
        payload = journal.chunks.assemble(one.manifest)
        if payload is not None:
            (arguments.out / one.name).write_bytes(payload)
            names.append(one.name)
    text = (
        f"{len(names)} parcels written to {arguments.out}. Bring them to {arguments.name}, where\n"
        f"`fedcac-courier put` puts them into the inbox; the digest still goes over Flower."
    )
    return Outcome(text, {"parcels": names})


def _forget(arguments: argparse.Namespace) -> Outcome:
    journal = CourierJournal(_folder(arguments).journal_path)
    n_parcels = journal.forget(arguments.round_id)
    return Outcome(
        f"{n_parcels} parcels of {arguments.round_id} forgotten.", {"parcels": n_parcels}
    )


def add_courier_verbs(verbs: Any) -> None:
    """Add `courier` with its verbs."""
    courier = verbs.add_parser("courier", help="carry parcels over Flower")
    courier_verbs = courier.add_subparsers(metavar="VERB", required=True)

    enrol = courier_verbs.add_parser(
        "enrol", help="add a site over Flower by two key files, without a kit"
    )
    enrol.add_argument("name")
    enrol.add_argument("--key", type=Path, required=True, help="the site's site.pub")
    enrol.add_argument("--node-key", type=Path, required=True, help="its node.key.pub")
    add_format(enrol, _enrol)

    for name, verb, text in (
        ("superlink", _superlink, "run the SuperLink, on loopback only"),
        ("front", _front, "serve the public port: the Fleet interface and health alone"),
        ("run", _run, "carry parcels between the journal and the SuperLink"),
        ("status", _status, "show what waits to be carried"),
    ):
        add_format(courier_verbs.add_parser(name, help=text), verb)

    forget = courier_verbs.add_parser("forget", help="carry nothing more of a round that is over")
    forget.add_argument("round_id")
    add_format(forget, _forget)

    export = courier_verbs.add_parser("export", help="write what a site lacks, to bring it by hand")
    export.add_argument("name")
    export.add_argument("--out", type=Path, required=True)
    add_format(export, _export)
