"""The verbs `fedcac-coordinator courier`: set up and run the processes of the courier."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from coordinator.flower_courier.folder import CourierFolder, CourierPorts
from coordinator.flower_courier.journal import CourierJournal
from coordinator.flower_courier.superlink import superlink_command, superlink_environment
from coordinator.store import CoordinatorStore, EnrolledSite
from fedcac.console import Outcome, add_format, say
from fedcac.errors import RoundError, UsageError
from fedcac.exchange.couriering import CourierPublicKey
from fedcac.signing import PublicKey

__all__ = ["add_courier_verbs", "carry"]

_TURN_S = 0.3
_RECONNECT_S = 3.0


def _folder(arguments: argparse.Namespace) -> CourierFolder:
    return CourierFolder(arguments.home / "courier")


def _init(arguments: argparse.Namespace) -> Outcome:
    folder = _folder(arguments)
    ports = CourierPorts(
        public_host=arguments.listen,
        public_port=arguments.public_port,
        superlink_port=arguments.superlink_port,
    )
    key = folder.create(arguments.host, ports)
    text = (
        f"Courier made in {folder.root}.\n"
        f"Give every site ca.crt and courier.key.pub, and read it this line over another "
        f"channel:\n  {key.to_text()}\nMove ca.key to a safe place."
    )
    return Outcome(text, {"courier_key": key.to_text()})


def _enrol(arguments: argparse.Namespace) -> Outcome:
    from coordinator.folder import CoordinatorFolder

    node_key = CourierPublicKey.from_text(arguments.node_key.read_text(encoding="ascii"))
    key = PublicKey.from_text(arguments.key.read_text(encoding="ascii"))
    store: CoordinatorStore = CoordinatorFolder(arguments.home).store()
    try:
        folder = _folder(arguments)
        folder.ports()
        if arguments.name not in store.sites():
            store.enrol(EnrolledSite(arguments.name, key, spool=""))
        elif store.sites()[arguments.name].key.to_text() != key.to_text():
            raise UsageError(
                f"Site '{arguments.name}' is enrolled with another key.",
                code="site_exists",
                cure="Give the key it is enrolled with, or another name.",
            )
        folder.add_site(arguments.name, node_key)
    finally:
        store.close()
    text = (
        f"Site {arguments.name} is enrolled over Flower. Compare with the site's people:\n"
        f"  {key.fingerprint}\n  {node_key.to_text()}"
    )
    return Outcome(text, {"site": arguments.name, "fingerprint": key.fingerprint})


def _superlink(arguments: argparse.Namespace) -> Outcome:
    folder = _folder(arguments)
    command = superlink_command(folder)
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
    try:
        dispatcher = Dispatcher(
            journal=CourierJournal(folder.journal_path),
            link=link,
            roster=roster,
            key=folder.key(),
            say=say,
        )
        while folder.roster().keys() == roster.keys():
            link.beat()
            if not dispatcher.turn():
                time.sleep(_TURN_S)
    finally:
        link.close()


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
    return Outcome("\n".join(lines) or "No site is enrolled over Flower.", {"sites": sites})


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

    init = courier_verbs.add_parser("init", help="make certificates, the courier's key and ports")
    init.add_argument(
        "--host",
        action="append",
        required=True,
        help="name or address under which sites reach the public port; may be given again",
    )
    init.add_argument("--listen", default="0.0.0.0", help="address of the public port")  # noqa: S104
    init.add_argument("--public-port", type=int, default=8443, help="default 8443")
    init.add_argument("--superlink-port", type=int, default=8444, help="on loopback; default 8444")
    add_format(init, _init)

    enrol = courier_verbs.add_parser("enrol", help="add a site that is reached over Flower")
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
