"""The command of the packed courier: `fedcac-courier.pyz --home DIR init|check|node|run|put`.

Uses nothing but the standard library and what Flower brings, so that the one file needs no
installation of this project.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fedcac.errors import FedcacError, UsageError
from fedcac.exchange.mailbox import DirectoryMailbox
from site_agent.flower_courier.line import Finding, line_environment, look, trust_warnings
from site_agent.flower_courier.settings import (
    CourierFolder,
    create_courier_folder,
    settings_of,
)
from site_agent.flower_courier.supernode import supernode_command, supernode_environment

__all__ = ["add_courier_options", "add_line_options", "check", "init", "main", "node", "put", "run"]


def init(arguments: argparse.Namespace) -> str:
    """Make the courier's folder; return the public key line to send to the lead."""
    settings = settings_of(
        site=arguments.name,
        spool=os.path.relpath(arguments.spool.resolve(), arguments.home.resolve()),
        superlink=arguments.superlink,
        ca_certificate=str(arguments.ca.resolve()),
        coordinator_key=_key_text(arguments.coordinator_key),
        port=arguments.port,
        proxy=arguments.proxy,
        extra_ca=None if arguments.extra_ca is None else str(arguments.extra_ca.resolve()),
    )
    return create_courier_folder(arguments.home, settings).to_text()


def _key_text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"There is no key of the coordinator's courier at '{path}'.",
            code="no_key_file",
            cure="Give courier.key.pub, as the lead sent it.",
        ) from error


def check(arguments: argparse.Namespace) -> list[Finding]:
    """Look at the line to the coordinator, and at how long certificates hold."""
    return look(CourierFolder(arguments.home))


def node(arguments: argparse.Namespace) -> None:
    """Become the SuperNode; whoever watches over this process starts it again if it ends."""
    folder = CourierFolder(arguments.home)
    os.environ.update(line_environment(folder.settings(), {}))
    if folder.node_path.exists():
        from site_agent.flower_courier.adapter import sign_off

        sign_off(folder)
    command = supernode_command(folder)
    os.execve(command[0], command, supernode_environment(folder))  # noqa: S606


def run(arguments: argparse.Namespace) -> None:
    """Carry parcels until stopped."""
    from site_agent.flower_courier.adapter import FlowerTasks

    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel("WARNING")
    folder = CourierFolder(arguments.home)
    os.environ.update(line_environment(folder.settings(), {}))
    for text in trust_warnings(folder, datetime.now(UTC)):
        logging.getLogger("fedcac.courier").warning(text)
    FlowerTasks(folder, folder.carrier()).run()


def put(arguments: argparse.Namespace) -> int:
    """Put files that came beside Flower into the inbox; return their number."""
    folder = CourierFolder(arguments.home)
    inbox = DirectoryMailbox(folder.root / folder.settings().spool / "inbox")
    files = sorted(path for path in arguments.files if path.is_file())
    # An offer goes last: the agent that sees it finds the rest in place.
    for path in sorted(files, key=lambda path: path.name.endswith(".offer")):
        inbox.put(path.name, path.read_bytes())
    return len(files)


def add_courier_options(parser: argparse.ArgumentParser, verb: str) -> None:
    """Give a verb's parser its own options."""
    if verb == "init":
        parser.add_argument("name", help="the site's name in the consortium")
        parser.add_argument("--spool", type=Path, required=True, help="the agent's spool folder")
        parser.add_argument("--superlink", required=True, help="HOST:PORT of the coordinator")
        parser.add_argument("--ca", type=Path, required=True, help="the consortium's ca.crt")
        parser.add_argument(
            "--coordinator-key", type=Path, required=True, help="the lead's courier.key.pub"
        )
        parser.add_argument(
            "--port", type=int, default=9100, help="loopback port of the SuperNode (9100)"
        )
        add_line_options(parser)
    if verb == "put":
        parser.add_argument("files", type=Path, nargs="+", help="parcels, under their own names")


def add_line_options(parser: argparse.ArgumentParser) -> None:
    """Add what a hospital's network may ask for."""
    parser.add_argument("--proxy", help="http://[USER:PASSWORD@]HOST:PORT of the hospital's proxy")
    parser.add_argument(
        "--extra-ca", type=Path, help="the hospital's authority, if its proxy inspects TLS"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the packed courier's command and return its exit code."""
    parser = argparse.ArgumentParser(prog="fedcac-courier", description="A site's courier.")
    parser.add_argument("--home", type=Path, default=Path("courier-home"))
    verbs = parser.add_subparsers(required=True, dest="verb")
    for name in ("init", "check", "node", "run", "put"):
        add_courier_options(verbs.add_parser(name), name)
    arguments = parser.parse_args(argv)
    actions = {"init": init, "check": check, "node": node, "run": run, "put": put}
    try:
        told = actions[arguments.verb](arguments)
    except FedcacError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    if isinstance(told, list):
        sys.stdout.writelines(f"{'ok  ' if one.is_good else 'LOOK'}  {one.text}\n" for one in told)
        return 0 if all(one.is_good for one in told) else 1
    if told is not None:
        sys.stdout.write(f"{told}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
