"""Before and after every page: which hosts are answered, how much is read, what a browser may do.

A page can say a stricter or another content policy itself, as a report in its frame does.
"""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["CONTENT_POLICY", "LARGEST_BODY", "SECURITY_HEADERS", "Guard", "host_of"]

LARGEST_BODY: Final = 2 * 1024 * 1024
"""Bytes of a request's body: a protocol or a request to join is far smaller."""

CONTENT_POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: with that a browser sends forms with the origin null.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}
_YEAR_S = 365 * 24 * 3600


def host_of(value: str) -> str:
    """Return the host of a Host header, without its port."""
    value = value.strip().lower()
    if value.startswith("["):
        return value[1:].partition("]")[0]
    return value.rpartition(":")[0] if value.count(":") == 1 else value


class _TooLargeError(Exception):
    pass


class Guard:
    """Wraps the application.

    Parameters
    ----------
    hosts
        Names that are answered. A page elsewhere whose name resolves to this machine is not.
    is_secure
        Whether browsers reach it by https; then they are told to come by nothing else.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str], *, is_secure: bool) -> None:
        self._app = app
        self._hosts = hosts
        self._headers = dict(SECURITY_HEADERS)
        if is_secure:
            self._headers["Strict-Transport-Security"] = f"max-age={_YEAR_S}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def guarded(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        asked = Headers(scope=scope)
        if host_of(asked.get("host", "")) not in self._hosts:
            refusal = PlainTextResponse(
                "This host is not the dashboard's. Start it with --public-url.\n", 400
            )
            await refusal(scope, receive, guarded)
            return
        length = asked.get("content-length", "0")
        if not length.isdecimal() or int(length) > LARGEST_BODY:
            await _too_large(scope, receive, guarded)
            return
        try:
            await self._app(scope, _counted(receive), guarded)
        except _TooLargeError:
            if has_begun:
                raise
            await _too_large(scope, receive, guarded)


def _counted(receive: Receive) -> Receive:
    n_bytes = 0

    async def counted() -> Message:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > LARGEST_BODY:
            raise _TooLargeError
        return message

    return counted


async def _too_large(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("More was sent than a form holds.\n", 413)(scope, receive, send)
