"""The verbs `fedcac-coordinator dashboard` and `fedcac-coordinator users`."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedcac.console import Outcome, add_format, say
from fedcac.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from coordinator.dashboard.accounts import Accounts
    from coordinator.dashboard.trail import Deed

__all__ = ["add_dashboard_verbs"]

URL_VARIABLE = "FEDCAC_DASHBOARD_URL"
"""The public URL where `--public-url` is not given, as containers have it."""

_ROLES = ("lead", "statistician", "read-only")


def _dashboard(arguments: argparse.Namespace) -> Outcome:
    import uvicorn

    from coordinator.dashboard.app import make_app
    from coordinator.dashboard.desk import Dashboard, made_settings
    from coordinator.folder import opened

    url = arguments.public_url or os.environ.get(URL_VARIABLE) or None
    settings = made_settings(
        arguments.home, arguments.listen, arguments.port, url, arguments.packages
    )
    with opened(arguments.home) as (folder, store):
        dashboard = Dashboard(folder, store, settings)
        app = make_app(dashboard)
        say(f"The dashboard is at {settings.public_url}; it listens on {arguments.listen}.")
        if not dashboard.accounts.list():
            say("There is no user yet: `fedcac-coordinator users add NAME --role lead`.")
        proxies = arguments.proxy or (["127.0.0.1"] if url else [])
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                host=arguments.listen,
                port=arguments.port,
                # Addresses of pages hold tokens of links, and names.
                access_log=False,
                log_level="warning",
                server_header=False,
                ws="none",
                lifespan="off",
                proxy_headers=bool(proxies),
                forwarded_allow_ips=proxies,
                timeout_graceful_shutdown=10,
                limit_concurrency=500,
            )
        )
        try:
            server.run()
        except SystemExit as error:
            raise ResourceError(
                f"Nothing can listen on {arguments.listen}, port {arguments.port}.",
                code="port_taken",
                cure="Stop what listens there, or give another --port.",
            ) from error
    return Outcome("Stopped.", {})


def _opened(arguments: argparse.Namespace) -> Any:
    from coordinator.folder import opened

    return opened(arguments.home)


def _with_accounts(store: Any) -> Accounts:
    from coordinator.dashboard.accounts import Accounts

    return Accounts(store.database)


def _note(store: Any, deed: Deed, subject: str) -> None:
    from coordinator.dashboard.trail import AuditTrail

    try:
        who = getpass.getuser()
    except (KeyError, OSError):
        who = "console"
    AuditTrail(store.database).add(who, deed, subject, "console")


def _add(arguments: argparse.Namespace) -> Outcome:
    from coordinator.dashboard.accounts import Role
    from coordinator.dashboard.trail import Deed

    with _opened(arguments) as (_, store):
        accounts = _with_accounts(store)
        name = arguments.name.lower()
        token = accounts.add(name, Role(arguments.role))
        _note(store, Deed.USER_ADDED, f"{name}, {arguments.role}")
        return _password_or_link(arguments, accounts, name, token, f"{name} is added.")


def _reset(arguments: argparse.Namespace) -> Outcome:
    from coordinator.dashboard.trail import Deed

    with _opened(arguments) as (_, store):
        accounts = _with_accounts(store)
        name = arguments.name.lower()
        token = accounts.reset(name)
        _note(store, Deed.USER_RESET, name)
        text = f"{name} is signed out everywhere, and the former password holds no more."
        return _password_or_link(arguments, accounts, name, token, text)


def _password_or_link(
    arguments: argparse.Namespace, accounts: Accounts, name: str, token: str, text: str
) -> Outcome:
    from coordinator.dashboard.accounts import LINK_HOURS
    from coordinator.dashboard.desk import made_settings

    may_ask = sys.stdin.isatty() and arguments.format == "text" and not arguments.link
    if may_ask:
        _ask_password(accounts, name)
        return Outcome(f"{text} The password is set.", {"name": name})
    url = arguments.public_url or os.environ.get(URL_VARIABLE) or None
    link = f"{made_settings(arguments.home, public_url=url).public_url}/choose-password/{token}"
    words = f"{text}\nTo choose a password, once and within {LINK_HOURS} hours:\n  {link}"
    return Outcome(words, {"name": name, "link": link})


def _ask_password(accounts: Accounts, name: str) -> None:
    for _ in range(3):
        password = getpass.getpass(f"Password for {name}: ")
        if password != getpass.getpass("The same once more: "):
            say("They differ.")
            continue
        try:
            accounts.set_password(name, password)
        except UsageError as error:
            say(str(error))
            continue
        return
    raise UsageError(
        f"No password was set for '{name}'.",
        code="weak_password",
        cure=f"`fedcac-coordinator users reset {name}` asks again.",
    )


def _list(arguments: argparse.Namespace) -> Outcome:
    with _opened(arguments) as (_, store):
        found = _with_accounts(store).list()
    states = {
        one.name: "disabled"
        if one.is_disabled
        else "active"
        if one.has_password
        else "has not chosen a password yet"
        for one in found
    }
    lines = [f"{one.name}: {one.role}, {states[one.name]}" for one in found]
    users = [{"name": one.name, "role": one.role.value, "state": states[one.name]} for one in found]
    text = "\n".join(lines) or "Nobody yet: `fedcac-coordinator users add NAME --role lead`."
    return Outcome(text, {"users": users})


def _disable(arguments: argparse.Namespace) -> Outcome:
    from coordinator.dashboard.trail import Deed

    name = arguments.name.lower()
    with _opened(arguments) as (_, store):
        _with_accounts(store).disable(name)
        _note(store, Deed.USER_DISABLED, name)
    return Outcome(f"{name} can sign in no more, and is signed out.", {"name": name})


def _enable(arguments: argparse.Namespace) -> Outcome:
    from coordinator.dashboard.trail import Deed

    name = arguments.name.lower()
    with _opened(arguments) as (_, store):
        _with_accounts(store).enable(name)
        _note(store, Deed.USER_ENABLED, name)
    return Outcome(f"{name} can sign in again.", {"name": name})


def add_dashboard_verbs(verbs: Any) -> None:
    """Add `dashboard`, and `users` with its verbs."""
    run = verbs.add_parser("dashboard", help="serve the web dashboard until it is stopped")
    run.add_argument("--listen", default="127.0.0.1", help="address (default: loopback alone)")
    run.add_argument("--port", type=int, default=8480, help="default 8480")
    _add_url(run)
    run.add_argument(
        "--proxy",
        action="append",
        metavar="ADDRESS",
        help="a proxy whose word about who asks is believed; default: 127.0.0.1 with --public-url",
    )
    run.add_argument(
        "--packages", type=Path, help="folder of model packages (default: packages in the home)"
    )
    add_format(run, _dashboard)

    users = verbs.add_parser("users", help="who may use the dashboard")
    own = users.add_subparsers(metavar="VERB", required=True)
    add = own.add_parser("add", help="add a user: asks for a password, or prints a link")
    add.add_argument("name", help="small letters, digits and . _ @ -")
    add.add_argument("--role", choices=_ROLES, required=True)
    _add_link(add)
    add_format(add, _add)
    add_format(own.add_parser("list", help="show every user"), _list)
    for name, verb, text in (
        ("disable", _disable, "let a user sign in no more"),
        ("enable", _enable, "let a disabled user sign in again"),
    ):
        parser = own.add_parser(name, help=text)
        parser.add_argument("name")
        add_format(parser, verb)
    reset = own.add_parser("reset", help="take a user's password away and set another")
    reset.add_argument("name")
    _add_link(reset)
    add_format(reset, _reset)


def _add_url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--public-url",
        metavar="URL",
        help="where people reach it, such as https://dashboard.example.org "
        f"(or set {URL_VARIABLE}; default: http://localhost:8480)",
    )


def _add_link(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--link", action="store_true", help="print a link that serves once, and ask for nothing"
    )
    _add_url(parser)
