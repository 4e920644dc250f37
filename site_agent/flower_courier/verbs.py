"""The verbs `fedcac-site courier`: for a site that installs everything in one place.

A deployment packs the courier (`courier pack`) and runs that file as another user.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fedcac.console import Outcome, add_format
from site_agent.flower_courier import __main__ as packed
from site_agent.flower_courier.pack import pack_courier

__all__ = ["add_courier_verbs"]


def _with_home(arguments: argparse.Namespace) -> argparse.Namespace:
    # `--home` is the agent's folder; the courier has one of its own.
    return argparse.Namespace(**{**vars(arguments), "home": arguments.courier_home})


def _init(arguments: argparse.Namespace) -> Outcome:
    key = packed.init(_with_home(arguments))
    text = (
        f"Courier of {arguments.name} made in {arguments.courier_home}.\n"
        f"Send node.key.pub to the lead:\n  {key}"
    )
    return Outcome(text, {"node_key": key})


def _check(arguments: argparse.Namespace) -> Outcome:
    found = packed.check(_with_home(arguments))
    text = "\n".join(f"{'ok  ' if one.is_good else 'LOOK'}  {one.text}" for one in found)
    is_good = all(one.is_good for one in found)
    content = [{"is_good": one.is_good, "text": one.text} for one in found]
    return Outcome(text, {"findings": content}, 0 if is_good else 1)


def _node(arguments: argparse.Namespace) -> Outcome:
    packed.node(_with_home(arguments))
    return Outcome("")


def _run(arguments: argparse.Namespace) -> Outcome:
    packed.run(_with_home(arguments))
    return Outcome("")


def _put(arguments: argparse.Namespace) -> Outcome:
    n_files = packed.put(_with_home(arguments))
    return Outcome(f"{n_files} parcels put into the inbox.", {"parcels": n_files})


def _pack(arguments: argparse.Namespace) -> Outcome:
    digest = pack_courier(arguments.out)
    return Outcome(f"Packed into {arguments.out}\n  {digest}", {"digest": digest})


def add_courier_verbs(verbs: Any) -> None:
    """Add `courier` with its verbs."""
    courier = verbs.add_parser("courier", help="carry parcels over Flower")
    courier_verbs = courier.add_subparsers(metavar="VERB", required=True)
    for name, verb, text in (
        ("init", _init, "make the courier's folder with the SuperNode's key"),
        ("check", _check, "look at the line to the coordinator, and how long certificates hold"),
        ("node", _node, "run the SuperNode"),
        ("run", _run, "carry parcels between the SuperNode and the spool"),
        ("put", _put, "put parcels that came beside Flower into the inbox"),
    ):
        parser = courier_verbs.add_parser(name, help=text)
        parser.add_argument(
            "--courier-home",
            type=Path,
            default=Path("courier-home"),
            help="the courier's own folder (courier.toml)",
        )
        packed.add_courier_options(parser, name)
        add_format(parser, verb)
    pack = courier_verbs.add_parser("pack", help="write the courier as one file to install alone")
    pack.add_argument("--out", type=Path, default=Path("fedcac-courier.pyz"))
    add_format(pack, _pack)
