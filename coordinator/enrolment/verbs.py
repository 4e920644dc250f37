"""The verbs by which a consortium is made and joined: init, kit, enrol, enrolments."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coordinator.enrolment.consortium import (
    made_consortium,
    read_consortium,
    write_consortium,
)
from coordinator.enrolment.enrolling import Enrolments, opened_enrolments
from coordinator.enrolment.kits import make_kit
from coordinator.enrolment.register import EventKind
from coordinator.flower_courier.authority import PASSPHRASE_VARIABLE, new_passphrase
from coordinator.flower_courier.certificate_verbs import add_certificate_verbs
from coordinator.flower_courier.folder import CourierFolder, CourierPorts
from coordinator.folder import CoordinatorFolder
from fedcac.canonical import sha256_hex
from fedcac.console import Outcome, add_format, say
from fedcac.errors import UsageError
from fedcac.joining import CheckedRequest, compared, fingerprint_of
from fedcac.joining.key_files import public_key_text
from fedcac.signing import PublicKey

__all__ = ["add_membership_verbs"]


def add_membership_verbs(verbs: Any) -> None:
    """Add `init`, `kit`, `enrol`, `enrolments` and `certificate`."""
    _add_init(verbs)
    kit = verbs.add_parser("kit", help="write a startup kit for a site's IT")
    kit.add_argument("site", help="the site's name in the consortium")
    kit.add_argument("--out", type=Path, help="default: SITE.zip")
    add_format(kit, _kit)
    enrol = verbs.add_parser("enrol", help="add a site by its request, or by its public key")
    enrol.add_argument("request", help="the file the site sent; with --key the site's name")
    _add_fingerprint(enrol)
    enrol.add_argument("--key", type=Path, help="the site's site.pub, where there is no request")
    enrol.add_argument("--spool", type=Path, help="the site's spool folder, if carried by hand")
    add_format(enrol, _enrol)
    _add_enrolments(verbs)
    add_certificate_verbs(verbs)


def _add_init(verbs: Any) -> None:
    init = verbs.add_parser(
        "init",
        help="make a coordinator's folder with its signing key; with --host what Flower needs too",
    )
    init.add_argument("--name", help="the consortium's name, for people")
    init.add_argument(
        "--host",
        action="append",
        help="name or address under which sites reach the public port; may be given again",
    )
    init.add_argument("--listen", default="0.0.0.0", help="address of the public port")  # noqa: S104
    init.add_argument("--public-port", type=int, default=8443, help="default 8443")
    init.add_argument("--superlink-port", type=int, default=8444, help="on loopback; default 8444")
    init.add_argument(
        "--address", help="HOST:PORT for sites, if not the first --host and --public-port"
    )
    init.add_argument(
        "--ca-passphrase",
        action="store_true",
        help=f"ask for a passphrase of the authority's key (or set {PASSPHRASE_VARIABLE})",
    )
    add_format(init, _init)


def _add_fingerprint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fingerprint",
        help="what the site's people read to you on the telephone; asked for at a terminal",
    )


def _add_enrolments(verbs: Any) -> None:
    enrolments = verbs.add_parser("enrolments", help="who is in the consortium, and with which key")
    own = enrolments.add_subparsers(metavar="VERB", required=True)
    add_format(own.add_parser("list", help="show every site and its state"), _list)
    show = own.add_parser("show", help="show all that happened to one site's keys")
    show.add_argument("site")
    add_format(show, _show)
    renew = own.add_parser("renew", help="take a site's new keys in the place of its former ones")
    renew.add_argument("request", type=Path, help="the file the site sent")
    _add_fingerprint(renew)
    renew.add_argument(
        "--replace", action="store_true", help="though the former key did not sign the request"
    )
    add_format(renew, _renew)
    revoke = own.add_parser("revoke", help="refuse a site's key everywhere, from now on")
    revoke.add_argument("site")
    revoke.add_argument("--reason", required=True, help="kept in the register here, sent nowhere")
    add_format(revoke, _revoke)


def _init(arguments: argparse.Namespace) -> Outcome:
    folder = CoordinatorFolder(arguments.home)
    # A folder without Flower gets it later by the same verb.
    is_new = not (arguments.host and folder.key_path.exists())
    name = arguments.name or read_consortium(arguments.home).name
    address = arguments.address
    if arguments.host and address is None:
        address = f"{arguments.host[0]}:{arguments.public_port}"
    consortium = made_consortium(name, address)
    key = folder.create() if is_new else folder.key().public
    lines = [
        f"Coordinator made in {arguments.home}." if is_new else "The lead's key stays as it is.",
        f"The lead's fingerprint, to be read to every site on the telephone:\n  {key.fingerprint}",
    ]
    content = {"public_key": key.to_text(), "fingerprint": key.fingerprint}
    if arguments.host:
        content["courier_key"] = _init_courier(arguments, lines)
        lines.append(f"Sites reach {address} by HTTPS.")
    write_consortium(arguments.home, consortium)
    lines.append("Next: `fedcac-coordinator kit SITE` for every site.")
    return Outcome("\n".join(lines), content)


def _init_courier(arguments: argparse.Namespace, lines: list[str]) -> str:
    ports = CourierPorts(
        public_host=arguments.listen,
        public_port=arguments.public_port,
        superlink_port=arguments.superlink_port,
    )
    passphrase = new_passphrase(may_ask=arguments.ca_passphrase)
    courier = CourierFolder(arguments.home / "courier")
    key = courier.create(arguments.host, ports, passphrase)
    lines.append(
        f"Keep {arguments.home / 'authority'} offline: it is needed to renew certificates alone"
        + (", with its passphrase." if passphrase else ". Its key is not encrypted.")
    )
    return key.to_text()


def _kit(arguments: argparse.Namespace) -> Outcome:
    folder = CoordinatorFolder(arguments.home)
    lead = folder.key().public
    payload, revision = make_kit(folder, arguments.site)
    out = arguments.out or Path(f"{arguments.site}.zip")
    out.write_bytes(payload)
    text = (
        f"Kit of {arguments.site}, revision {revision}, written to {out}. Send it by mail if you\n"
        f"like; it holds no secret. Read this fingerprint to the site's IT on the telephone:\n"
        f"  {lead.fingerprint}"
    )
    return Outcome(
        text,
        {
            "out": str(out),
            "revision": revision,
            "digest": sha256_hex(payload),
            "fingerprint": lead.fingerprint,
        },
    )


def _enrol(arguments: argparse.Namespace) -> Outcome:
    if arguments.key is not None:
        return _enrol_by_key(arguments)
    with opened_enrolments(arguments.home) as enrolments:
        checked = enrolments.open(_read(Path(arguments.request)))
        _confirm(arguments, checked)
        enrolments.enrol(checked, _spool(arguments))
    site = checked.request.site
    return Outcome(f"{site} is enrolled.", {"site": site, **_fingerprints(checked)})


def _enrol_by_key(arguments: argparse.Namespace) -> Outcome:
    key = PublicKey.from_text(public_key_text(arguments.key))
    if arguments.spool is None:
        raise UsageError(
            "A site that is enrolled by its key alone has a spool folder.",
            code="no_way",
            cure="Give --spool, or enrol it by its request.",
        )
    with opened_enrolments(arguments.home) as enrolments:
        enrolments.add(arguments.request, key, None, _spool(arguments))
    text = (
        f"Site {arguments.request} is enrolled. Compare this fingerprint with the site's people\n"
        f"before the first round:\n  {key.fingerprint}"
    )
    return Outcome(text, {"site": arguments.request, "fingerprint": key.fingerprint})


def _spool(arguments: argparse.Namespace) -> str:
    return "" if arguments.spool is None else str(arguments.spool.resolve())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read.",
            code="no_request",
            cure="Give the request that the site sent, or --key with a site's name.",
        ) from error


def _confirm(arguments: argparse.Namespace, checked: CheckedRequest) -> None:
    request = checked.request
    told = _fingerprints(checked)
    say(
        f"'{request.site}' asks to join {request.consortium}, "
        f"on {request.made_at:%Y-%m-%d %H:%M} UTC.\n"
        f"  signing key  {told['signing_key']}\n"
        f"  node key     {told['node_key'] or 'none: parcels by hand'}\n"
        f"Both keys signed the request. Its fingerprint stands for the name and for both keys."
    )
    compared(
        request.fingerprint, arguments.fingerprint, request.site, may_ask=arguments.format == "text"
    )


def _fingerprints(checked: CheckedRequest) -> dict[str, str | None]:
    node = checked.node_key
    return {
        "fingerprint": checked.request.fingerprint,
        "signing_key": checked.key.fingerprint,
        "node_key": None if node is None else fingerprint_of(node.to_text().encode("ascii")),
    }


def _renew(arguments: argparse.Namespace) -> Outcome:
    with opened_enrolments(arguments.home) as enrolments:
        checked = enrolments.open(_read(arguments.request))
        _confirm(arguments, checked)
        kind = enrolments.renew(checked, is_replacing=arguments.replace)
    site = checked.request.site
    signed = (
        "its former key signed that"
        if kind is EventKind.RENEWED
        else "replaced by the lead, without its former key"
    )
    text = (
        f"{site} has new keys; {signed}. The former ones are refused from now on.\n"
        f"Tell the site to run `fedcac-site keys activate`. The other sites are told, and confirm\n"
        f"the new key before they add up with {site} again."
    )
    return Outcome(text, {"site": site, "kind": kind.value, **_fingerprints(checked)})


def _revoke(arguments: argparse.Namespace) -> Outcome:
    with opened_enrolments(arguments.home) as enrolments:
        running = enrolments.running_rounds(arguments.site)
        enrolments.revoke(arguments.site, arguments.reason)
    lines = [f"{arguments.site} is revoked; nothing of it is taken in from now on."]
    if running:
        lines.append(f"Rounds that waited for it go on at their deadline: {', '.join(running)}.")
    return Outcome("\n".join(lines), {"site": arguments.site, "running_rounds": list(running)})


def _state(enrolments: Enrolments, site: str, key: PublicKey) -> dict[str, Any]:
    events = [e for e in enrolments.register.of(site) if e.kind is not EventKind.KIT]
    is_revoked = site in enrolments.register.revoked()
    return {
        "site": site,
        "state": "revoked" if is_revoked else "enrolled",
        "since": events[-1].at.isoformat() if events else None,
        "way": "flower" if site in enrolments.courier.roster() else "spool",
        "fingerprint": key.fingerprint,
    }


def _list(arguments: argparse.Namespace) -> Outcome:
    with opened_enrolments(arguments.home) as enrolments:
        sites = [_state(enrolments, name, key) for name, key in enrolments.keys().items()]
        invited = sorted(
            {e.site for e in enrolments.register.events if e.kind is EventKind.KIT}
            - {one["site"] for one in sites}
        )
    lines = [
        f"{one['site']}: {one['state']}"
        + (f" since {one['since'][:10]}" if one["since"] else "")
        + (f", by {one['way']}" if one["state"] == "enrolled" else "")
        + f"\n  {one['fingerprint']}"
        for one in sites
    ]
    lines += [f"{site}: has a kit, has not asked to join yet" for site in invited]
    text = "\n".join(lines) or "Nobody yet; `fedcac-coordinator kit SITE` invites a site."
    return Outcome(text, {"sites": sites, "invited": invited})


def _show(arguments: argparse.Namespace) -> Outcome:
    with opened_enrolments(arguments.home) as enrolments:
        events = enrolments.register.of(arguments.site)
        key = enrolments.keys().get(arguments.site)
        state = None if key is None else _state(enrolments, arguments.site, key)
    if state is None and not events:
        raise UsageError(
            f"Nothing is known of '{arguments.site}'.",
            code="unknown_site",
            cure="`fedcac-coordinator enrolments list` shows every site.",
        )
    now = datetime.now(UTC)
    lines = [f"{arguments.site}: {state['state'] if state else 'invited'}"]
    for event in events:
        days = (now - event.at).days
        parts = [f"{event.at:%Y-%m-%d %H:%M} UTC ({days} days ago): {event.kind.value}"]
        if event.revision is not None:
            parts.append(f"revision {event.revision}")
        if event.key is not None:
            parts.append(PublicKey.from_text(event.key).fingerprint)
        if event.reason:
            parts.append(event.reason)
        lines.append("  " + ", ".join(parts))
    content = [e.model_dump(mode="json", exclude_none=True) for e in events]
    return Outcome("\n".join(lines), {"state": state, "events": content})
