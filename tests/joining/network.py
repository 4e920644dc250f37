"""A hospital's network on loopback: a CONNECT proxy, and a server that answers /health over TLS."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from coordinator.flower_courier.certificates import make_authority, make_server, pem_of, write_key

__all__ = ["ConnectProxy", "certified", "connect_proxy", "health_server"]


@dataclass
class ConnectProxy:
    """What a proxy was asked for, and where it leads."""

    port: int
    targets: dict[str, int]
    credentials: str | None = None
    asked: list[str] = field(default_factory=list)

    def answer(self, line: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = line.recv(1)
            if not byte:
                return
            head += byte
        first, *rest = head.decode("ascii").split("\r\n")
        method, address, _ = first.split()
        self.asked.append(f"{method} {address}")
        headers = {k.lower(): v for k, _, v in (one.partition(": ") for one in rest)}
        if method != "CONNECT" or address not in self.targets:
            line.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            return
        if self.credentials is not None:
            expected = "Basic " + base64.b64encode(self.credentials.encode()).decode()
            if headers.get("proxy-authorization") != expected:
                line.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                return
        with socket.create_connection(("127.0.0.1", self.targets[address])) as far:
            line.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(far, line), daemon=True)
            back.start()
            _pump(line, far)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while part := source.recv(65_536):
            target.sendall(part)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def connect_proxy(
    targets: dict[str, int], credentials: str | None = None
) -> Iterator[ConnectProxy]:
    """Run a proxy that leads CONNECT HOST:PORT to a port of loopback, and nothing else anywhere."""
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = ConnectProxy(listener.getsockname()[1], targets, credentials)

    def serve(line: socket.socket) -> None:
        with line, suppress(OSError, ValueError):
            proxy.answer(line)

    def accept() -> None:
        with suppress(OSError):
            while True:
                line, _ = listener.accept()
                threading.Thread(target=serve, args=(line,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def certified(root: Path, host: str, life: timedelta = timedelta(days=100)) -> Path:
    """Write ca.crt, server.pem and server.key of a new authority into a folder."""
    root.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    made = make_authority(now)
    key, certificate = make_server([host], made, now, life)
    (root / "ca.crt").write_bytes(pem_of(made[1]))
    (root / "server.pem").write_bytes(pem_of(certificate))
    write_key(root / "server.key", key)
    return root


class _Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        # A client that does not trust the certificate breaks off; that is what is tested.
        pass


@contextmanager
def health_server(folder: Path) -> Iterator[int]:
    """Serve /health over TLS with the certificate of a folder; yield the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")

    class Secured(_Quiet):
        def get_request(self) -> tuple[socket.socket, object]:
            line, address = super().get_request()
            return context.wrap_socket(
                line, server_side=True, do_handshake_on_connect=False
            ), address

    server = Secured(("127.0.0.1", 0), _Health)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
