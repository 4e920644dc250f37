"""`fedcac-site status-page`: how the site stands, in a browser on this computer."""

from __future__ import annotations

import argparse
from typing import Any

from fedcac.console import Outcome, add_format, say
from site_agent.settings import SiteFolder
from site_agent.status.standing_reader import standing_path
from site_agent.status_page.server import make_server

__all__ = ["add_status_page_verb"]

DEFAULT_PORT = 8470


def add_status_page_verb(verbs: Any) -> None:
    """Add `status-page`."""
    page = verbs.add_parser(
        "status-page", help="show the status in a browser, on this computer only, until stopped"
    )
    page.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help=f"loopback port ({DEFAULT_PORT})"
    )
    add_format(page, _serve)


def _serve(arguments: argparse.Namespace) -> Outcome:
    server = make_server(standing_path(SiteFolder(arguments.home)), arguments.port)
    with server:
        say(f"http://127.0.0.1:{server.server_address[1]}/ until stopped (Ctrl-C)")
        server.serve_forever()
    return Outcome("")
