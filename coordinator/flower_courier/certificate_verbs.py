"""The verbs `fedcac-coordinator certificate`: how long TLS holds, renewal, another authority."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coordinator.flower_courier.authority import Authority, expiries_at, server_hosts
from fedcac.console import Outcome, add_format

__all__ = ["add_certificate_verbs", "certificate_warnings"]

_RESTART = (
    "The front takes it up by itself. Restart `courier superlink` before the former one ends."
)


def certificate_warnings(home: Path, now: datetime | None = None) -> list[str]:
    """Return what to tell the lead about certificates that end within 30 days."""
    moment = now or datetime.now(UTC)
    warnings = [one.warning(moment) for one in expiries_at(home / "courier")]
    return [
        f"{text} `fedcac-coordinator certificate "
        f"{'renew' if 'server' in text else 'rollover begin'}` renews it."
        for text in warnings
        if text is not None
    ]


def _authority(arguments: argparse.Namespace) -> Authority:
    root = arguments.authority or arguments.home / "authority"
    return Authority(root, arguments.home / "courier")


def _show(arguments: argparse.Namespace) -> Outcome:
    now = datetime.now(UTC)
    found = expiries_at(arguments.home / "courier")
    lines = [
        f"{one.name}: until {one.not_after:%Y-%m-%d}, {one.n_days(now)} days left" for one in found
    ]
    if found:
        lines.append(f"hosts: {', '.join(server_hosts(arguments.home / 'courier'))}")
    warnings = certificate_warnings(arguments.home, now)
    content = {
        "certificates": [
            {"name": one.name, "not_after": one.not_after.isoformat(), "days": one.n_days(now)}
            for one in found
        ],
        "warnings": warnings,
    }
    return Outcome("\n".join([*lines, *warnings]) or "There is no courier.", content)


def _renew(arguments: argparse.Namespace) -> Outcome:
    until = _authority(arguments).renew(arguments.host)
    text = f"The server's certificate holds until {until:%Y-%m-%d}.\n{_RESTART}"
    return Outcome(text, {"not_after": until.isoformat()})


def _begin(arguments: argparse.Namespace) -> Outcome:
    _authority(arguments).begin_rollover()
    return Outcome(
        "ca.crt holds both authorities. Send every site a new kit\n"
        "(`fedcac-coordinator kit SITE`), which it takes with `fedcac-site kit update`.\n"
        "When all have: `fedcac-coordinator certificate rollover switch`."
    )


def _switch(arguments: argparse.Namespace) -> Outcome:
    _authority(arguments).switch_rollover()
    return Outcome(
        f"The server's certificate is of the next authority. {_RESTART}\n"
        "A site that did not take the new kit is turned away from now on.\n"
        "When the SuperLink has restarted: `fedcac-coordinator certificate rollover finish`."
    )


def _finish(arguments: argparse.Namespace) -> Outcome:
    _authority(arguments).finish_rollover()
    return Outcome(
        "ca.crt holds the new authority alone. Sites drop the former one with their next kit."
    )


def add_certificate_verbs(verbs: Any) -> None:
    """Add `certificate` with its verbs."""
    certificate = verbs.add_parser("certificate", help="the public port's certificate, its renewal")
    own = certificate.add_subparsers(metavar="VERB", required=True)
    add_format(own.add_parser("show", help="show until when each certificate holds"), _show)
    renew = own.add_parser("renew", help="issue a new server certificate")
    renew.add_argument("--host", action="append", help="default: the hosts of the one in force")
    _add_authority(renew)
    add_format(renew, _renew)
    rollover = own.add_parser("rollover", help="move to another authority, in three steps")
    steps = rollover.add_subparsers(metavar="STEP", required=True)
    for name, verb, text in (
        ("begin", _begin, "make the next authority and trust both"),
        ("switch", _switch, "issue the server's certificate by the next one"),
        ("finish", _finish, "trust the former one no more"),
    ):
        parser = steps.add_parser(name, help=text)
        _add_authority(parser)
        add_format(parser, verb)


def _add_authority(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--authority", type=Path, help="folder of ca.key (default: authority in the home)"
    )
