"""The public port: TLS, the Fleet interface and health, and nothing else.

A SuperLink serves its Control and Runtime interfaces, which ask nobody who they are, on the same
port as the Fleet interface. So it listens on loopback, and sites reach this front. Any reverse
proxy with the same two paths will do (docs/how-to/run-over-flower.md has one for nginx).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from coordinator.flower_courier.folder import CourierFolder
from fedcac.console import say

__all__ = ["FleetOnly", "serve_front"]

_LONGEST_BODY = 32 * 2**20
_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 2.0
# Registering is the coordinator's own act, over the loopback port.
_CLOSED = ("/v1/fleet/register-node", "/v1/fleet/unregister-node")
_HOP_BY_HOP = {
    b"connection",
    b"content-length",
    b"host",
    b"keep-alive",
    b"proxy-authorization",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class FleetOnly:
    """An ASGI application that passes on the open paths and answers 404 to all others."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; the server is to hand on nothing else."""
        path = scope["raw_path"].decode("ascii", errors="replace")
        if not _is_open(scope["method"], path):
            await _answer(send, 404)
            return
        body = await _body(receive)
        if body is None:
            await _answer(send, 413)
            return
        try:
            response = await self._client.request(
                scope["method"],
                path,
                content=body,
                headers=[(k, v) for k, v in scope["headers"] if k not in _HOP_BY_HOP],
            )
        except httpx.TransportError:
            # A SuperNode takes 503 for 'try again later'.
            await _answer(send, 503)
            return
        headers = [
            (name.lower(), value)
            for name, value in response.headers.raw
            if name.lower() not in _HOP_BY_HOP | {b"content-encoding", b"server", b"date"}
        ]
        await _answer(send, response.status_code, headers, response.content)


def _is_open(method: str, path: str) -> bool:
    if path == "/health":
        return method == "GET"
    is_plain = "%" not in path and ".." not in path and "//" not in path
    is_fleet = path.startswith("/v1/fleet/") and path.rstrip("/") not in _CLOSED
    return method == "POST" and is_plain and is_fleet


async def _body(receive: Receive) -> bytes | None:
    parts: list[bytes] = []
    n_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        n_bytes += len(parts[-1])
        if n_bytes > _LONGEST_BODY:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)


async def _answer(
    send: Send, status: int, headers: list[tuple[bytes, bytes]] | None = None, body: bytes = b""
) -> None:
    length = (b"content-length", str(len(body)).encode("ascii"))
    await send(
        {"type": "http.response.start", "status": status, "headers": [*(headers or []), length]}
    )
    await send({"type": "http.response.body", "body": body})


def serve_front(folder: CourierFolder) -> None:
    """Serve the public port until stopped; a renewed certificate is taken up without a restart."""
    ports = folder.ports()
    trust = ssl.create_default_context(cafile=str(folder.root / "ca.crt"))
    client = httpx.AsyncClient(
        base_url=f"https://127.0.0.1:{ports.superlink_port}",
        verify=trust,
        timeout=_TIMEOUT_S,
        trust_env=False,
    )
    config = uvicorn.Config(
        FleetOnly(client),
        host=ports.public_host,
        port=ports.public_port,
        ssl_certfile=str(folder.root / "server.pem"),
        ssl_keyfile=str(folder.root / "server.key"),
        lifespan="off",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
    )
    config.load()
    asyncio.run(_serve(uvicorn.Server(config), folder, config.ssl, trust))


async def _serve(
    server: uvicorn.Server,
    folder: CourierFolder,
    shown: ssl.SSLContext | None,
    trust: ssl.SSLContext,
) -> None:
    watching = asyncio.create_task(_watch(folder, shown, trust))
    try:
        await server.serve()
    finally:
        watching.cancel()


async def _watch(
    folder: CourierFolder, shown: ssl.SSLContext | None, trust: ssl.SSLContext
) -> None:
    chain, key, authority = (folder.root / n for n in ("server.pem", "server.key", "ca.crt"))
    paths = (chain, key, authority)
    known = told = _stamps(paths)
    while shown is not None:
        await asyncio.sleep(_LOOK_EVERY_S)
        current = _stamps(paths)
        if current == known or None in current:
            continue
        # Key and certificate are two files: while they do not fit, the former pair is served on.
        try:
            # Tried on a context of its own first, so that half a pair never gets into use.
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(chain, key)
            shown.load_cert_chain(chain, key)
            trust.load_verify_locations(authority)
            known = current
            say("A renewed certificate is in use.")
        except (ssl.SSLError, OSError) as error:
            if current != told:
                told = current
                say(f"The changed certificate is not in use yet ({type(error).__name__}).")


def _stamps(paths: Sequence[Path]) -> list[tuple[int, int] | None]:
    found: list[tuple[int, int] | None] = []
    for path in paths:
        try:
            found.append((path.stat().st_mtime_ns, path.stat().st_ino))
        except FileNotFoundError:
            found.append(None)
    return found
