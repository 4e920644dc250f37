"""The verbs by which a site joins: `init --kit`, `kit`, `keys`, and `peer replace`."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedcac.console import Outcome, add_format
from fedcac.errors import UsageError
from fedcac.exchange.expiry import expiries_of
from fedcac.joining import EnrolmentRequest, Kit, compared
from fedcac.signing import PublicKey
from site_agent.flower_courier.__main__ import add_line_options
from site_agent.flower_courier.settings import CourierFolder, CourierSettings, settings_of
from site_agent.joining.kit_files import install_courier_files, install_kit, installed_kit, read_kit
from site_agent.joining.membership import Membership
from site_agent.settings import SiteFolder, SiteSettings

__all__ = ["add_joining_options", "add_joining_verbs", "join_by_kit", "settings_asked_for"]


def add_joining_options(init: argparse.ArgumentParser) -> None:
    """Give `init` what it needs for a kit."""
    init.add_argument("--kit", type=Path, help="the startup kit that the lead sent")
    init.add_argument(
        "--fingerprint",
        help="what the lead read to you on the telephone; asked for at a terminal",
    )
    init.add_argument("--request", type=Path, help="where to write it (default NAME.request.json)")
    init.add_argument(
        "--courier-home",
        type=Path,
        default=Path("courier-home"),
        help="the courier's own folder, made if the kit is for Flower",
    )
    init.add_argument(
        "--courier-spool",
        help="the spool as the courier sees it, such as the path of a mount (default: where it is)",
    )
    init.add_argument("--port", type=int, default=9100, help="loopback port of the SuperNode")
    add_line_options(init)


def add_joining_verbs(verbs: Any) -> None:
    """Add `kit` and `keys`."""
    kit = verbs.add_parser("kit", help="the lead's startup kit: look at one, take a newer one")
    kit_verbs = kit.add_subparsers(metavar="VERB", required=True)
    show = kit_verbs.add_parser("show", help="show who made a kit and what is in it")
    show.add_argument("file", type=Path, nargs="?", help="default: the installed one")
    add_format(show, _show)
    update = kit_verbs.add_parser(
        "update", help="put a newer kit in the place of the installed one"
    )
    update.add_argument("file", type=Path)
    _add_courier_home(update)
    add_format(update, _update)
    keys = verbs.add_parser("keys", help="this site's own keys, and requests to enrol them")
    keys_verbs = keys.add_subparsers(metavar="VERB", required=True)
    request = keys_verbs.add_parser("request", help="write the enrolment request again")
    renew = keys_verbs.add_parser("renew", help="make new keys and a request to change to them")
    renew.add_argument(
        "--lost", action="store_true", help="the key in force is lost or was revoked"
    )
    for parser, verb in ((request, _request), (renew, _renew)):
        parser.add_argument("--out", type=Path, help="default NAME.request.json")
        _add_courier_home(parser)
        add_format(parser, verb)
    activate = keys_verbs.add_parser("activate", help="use the new keys; the lead has taken them")
    _add_courier_home(activate)
    add_format(activate, _activate)


def _add_courier_home(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--courier-home", type=Path, help="default: where `init` made it")


def settings_asked_for(arguments: argparse.Namespace, lead: PublicKey) -> SiteSettings:
    """Return the settings of the site that `init` is to make."""
    return SiteSettings(
        name=arguments.name,
        lead_key=lead.to_text(),
        manifest=arguments.manifest,
        clinical_table=arguments.clinical_table,
        policy=arguments.policy,
        approval=arguments.approval,
    )


def join_by_kit(arguments: argparse.Namespace) -> Outcome:
    """Verify a kit, have the lead's fingerprint compared, make the folders and the request.

    Raises
    ------
    UsageError, SignatureError
        If the kit is altered, is another lead's or another site's, or nobody compared.
    """
    kit = read_kit(arguments.kit)
    if kit.manifest.site != arguments.name:
        raise UsageError(
            f"The kit was made for '{kit.manifest.site}', not for '{arguments.name}'.",
            code="kit_other_site",
            cure="Give the name that the lead chose for this site, or ask for this site's kit.",
        )
    compared(
        kit.lead.fingerprint, arguments.fingerprint, "the lead", may_ask=arguments.format == "text"
    )
    settings = settings_asked_for(arguments, kit.lead)
    courier = _courier_settings(arguments, kit)
    membership = Membership(SiteFolder(arguments.home))
    membership.join(kit, settings, courier)
    home = None
    if courier is not None:
        home = arguments.courier_home
        membership.join_courier(kit, home, courier)
    request, payload = membership.request(home)
    out = arguments.request or Path(f"{arguments.name}.request.json")
    out.write_bytes(payload)
    text = (
        f"Site {arguments.name} of {kit.manifest.consortium} made in {arguments.home}.\n"
        + (f"Its courier is in {home}.\n" if home else "")
        + _told(request, out)
        + f"{arguments.home / 'startup' / 'README.md'} has the next steps."
    )
    return Outcome(text, {**_content(request, out), "public_key": request.key})


def _courier_settings(arguments: argparse.Namespace, kit: Kit) -> CourierSettings | None:
    if kit.manifest.superlink is None:
        return None
    spool = SiteFolder(arguments.home).spool_path.resolve()
    return settings_of(
        site=arguments.name,
        spool=arguments.courier_spool or os.path.relpath(spool, arguments.courier_home.resolve()),
        superlink=kit.manifest.superlink,
        coordinator_key=_coordinator_key(kit),
        port=arguments.port,
        proxy=arguments.proxy,
        extra_ca=None if arguments.extra_ca is None else str(arguments.extra_ca.resolve()),
    )


def _coordinator_key(kit: Kit) -> str:
    return kit.startup["courier.key.pub"].decode("ascii").strip()


def _told(request: EnrolmentRequest, out: Path) -> str:
    return (
        f"Send {out} to the lead (it holds no secret), and read them on the telephone:\n"
        f"  {request.fingerprint}\n"
    )


def _content(request: EnrolmentRequest, out: Path) -> dict[str, Any]:
    return {
        "request": str(out),
        "fingerprint": request.fingerprint,
        "signing_key": PublicKey.from_text(request.key).fingerprint,
    }


def _show(arguments: argparse.Namespace) -> Outcome:
    kit = installed_kit(arguments.home) if arguments.file is None else read_kit(arguments.file)
    if kit is None:
        raise UsageError(
            f"No kit is installed in {arguments.home}.",
            code="no_kit",
            cure="Give a kit's file, or join with `fedcac-site init NAME --kit FILE`.",
        )
    manifest, now = kit.manifest, datetime.now(UTC)
    expiries = (
        expiries_of(kit.startup["ca.crt"], "the consortium's authority")
        if manifest.superlink
        else []
    )
    warnings = [text for one in expiries if (text := one.warning(now)) is not None]
    lines = [
        f"Kit of {manifest.consortium} for {manifest.site}, revision {manifest.revision}",
        f"the one port to reach: {manifest.superlink or 'none, parcels go by hand'}",
        f"files: {', '.join(sorted(manifest.files))}",
        "The files are as the maker of the kit signed them. Who that is, the telephone says:",
        f"  {kit.lead.fingerprint}",
        *warnings,
    ]
    content = {
        **manifest.model_dump(mode="json"),
        "fingerprint": kit.lead.fingerprint,
        "warnings": warnings,
    }
    return Outcome("\n".join(lines), content)


def _update(arguments: argparse.Namespace) -> Outcome:
    folder = SiteFolder(arguments.home)
    settings = folder.settings()
    kit = read_kit(arguments.file, PublicKey.from_text(settings.lead_key))
    if kit.manifest.site != settings.name:
        raise UsageError(
            f"The kit was made for '{kit.manifest.site}', not for '{settings.name}'.",
            code="kit_other_site",
            cure="Ask the lead for this site's kit.",
        )
    install_kit(arguments.home, kit)
    home = Membership(folder).courier_home(arguments.courier_home)
    lines = [
        f"Revision {kit.manifest.revision} is installed; the site's own settings and local/ are as "
        "they were."
    ]
    if home is not None and kit.manifest.superlink is not None:
        install_courier_files(kit, home)
        lines += _differences(kit, CourierFolder(home).settings())
        lines.append("Restart the courier's two processes.")
    return Outcome("\n".join(lines), {"revision": kit.manifest.revision})


def _differences(kit: Kit, settings: CourierSettings) -> list[str]:
    """Say what the site has to change itself in `courier.toml`, which no kit writes."""
    named = {
        "superlink": (kit.manifest.superlink, settings.superlink),
        "coordinator_key": (_coordinator_key(kit), settings.coordinator_key),
    }
    return [
        f'courier.toml is to say {name} = "{new}"; it says "{present}".'
        for name, (new, present) in named.items()
        if new != present
    ]


def _request(arguments: argparse.Namespace) -> Outcome:
    membership = Membership(SiteFolder(arguments.home))
    request, payload = membership.request(membership.courier_home(arguments.courier_home))
    return _written(arguments, request, payload)


def _renew(arguments: argparse.Namespace) -> Outcome:
    membership = Membership(SiteFolder(arguments.home))
    home = membership.courier_home(arguments.courier_home)
    request, payload = membership.renewal(home, is_lost=arguments.lost)
    return _written(
        arguments,
        request,
        payload,
        "When the lead has taken it: `fedcac-site keys activate`. Until then the keys in force "
        "stay in force.",
    )


def _written(
    arguments: argparse.Namespace, request: EnrolmentRequest, payload: bytes, then: str = ""
) -> Outcome:
    out = arguments.out or Path(f"{request.site}.request.json")
    out.write_bytes(payload)
    return Outcome(_told(request, out) + then, _content(request, out))


def _activate(arguments: argparse.Namespace) -> Outcome:
    membership = Membership(SiteFolder(arguments.home))
    key = membership.activate(membership.courier_home(arguments.courier_home))
    text = (
        f"The new keys are in force. Restart the agent and both processes of the courier.\n"
        f"  {key.fingerprint}"
    )
    return Outcome(text, {"fingerprint": key.fingerprint})
