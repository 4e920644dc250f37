"""Serves the status page on loopback; reads one file and changes nothing.

It is a process of its own, and not a part of the agent, so that whatever answers HTTP holds no key,
no patient and no way to approve anything. Other accounts of this computer can reach a loopback
port: what the file holds is meant for them.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

from fedcac.errors import UsageError
from site_agent.status.standing import Standing, read_note
from site_agent.status_page.page import CONTENT_POLICY, page_of

__all__ = ["StatusServer", "make_server"]

_LOOPBACK = "127.0.0.1"
_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
_CONNECTION_S = 10.0
_REFRESH_S = 15


class StatusServer(ThreadingHTTPServer):
    """The server, and the file that it shows."""

    daemon_threads = True

    def __init__(self, path: Path, port: int) -> None:
        self.standing_file = path
        super().__init__((_LOOPBACK, port), _Handler)

    def handle_error(self, *_: object) -> None:
        """Nothing: a browser that goes away is no fault, and a log would hold addresses."""


class _Handler(BaseHTTPRequestHandler):
    server: StatusServer
    timeout = _CONNECTION_S
    server_version = "fedcac"
    sys_version = ""
    _GUARDS: ClassVar[dict[str, str]] = {
        "Content-Security-Policy": CONTENT_POLICY,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }

    def do_GET(self) -> None:
        """Answer with the page, or with the same as JSON."""
        parts = urlsplit(self.path)
        if not self._is_for_us():
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", "This page is for this computer.\n")
        elif parts.path == "/":
            is_still = "still" in parse_qs(parts.query, keep_blank_values=True)
            self._answer(HTTPStatus.OK, "text/html", self._page(is_still=is_still))
        elif parts.path == "/status.json":
            standing = read_note(self.server.standing_file, Standing)
            text = "null" if standing is None else json.dumps(standing.model_dump(mode="json"))
            self._answer(HTTPStatus.OK, "application/json", text + "\n")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", "There is nothing here.\n")

    do_HEAD = do_GET

    def _is_for_us(self) -> bool:
        # A name that somebody's DNS points here (rebinding) is not one of these. The port may be
        # another one: an SSH tunnel has its own.
        host = (self.headers.get("Host") or "").lower()
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if name not in _HOSTS:
            return False
        is_foreign = self.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
        is_visit = self.headers.get("Sec-Fetch-Dest") == "document"
        return not is_foreign or is_visit

    def _page(self, *, is_still: bool) -> str:
        standing = read_note(self.server.standing_file, Standing)
        return page_of(standing, now=datetime.now(UTC), refresh_s=0 if is_still else _REFRESH_S)

    def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in self._GUARDS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep no log of who looked when."""


def make_server(path: Path, port: int) -> StatusServer:
    """Return a server of the file on 127.0.0.1; `port` 0 takes a free one.

    Raises
    ------
    UsageError
        `port_taken` if the port cannot be listened on.
    """
    try:
        return StatusServer(path, port)
    except OSError as error:
        raise UsageError(
            f"Port {port} of this computer is taken, or may not be used.",
            code="port_taken",
            cure="Give another one with --port, above 1023.",
        ) from error
