"""The public port over TLS on loopback: what reaches the SuperLink behind it, and what does not."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from flower.deployment import free_port
from joining.consortium import Lead

from coordinator.__main__ import main as coordinator_main
from coordinator.flower_courier import front as module
from coordinator.flower_courier.certificates import make_authority, write_key


@dataclass
class Behind:
    """What stands for the SuperLink: a TLS server that notes what it is asked."""

    port: int
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def lead(tmp_path: Path) -> Lead:
    lead = Lead(tmp_path, host="127.0.0.1")
    ports = {"public_host": "127.0.0.1", "public_port": free_port(), "superlink_port": free_port()}
    (lead.home / "courier" / "courier.json").write_text(json.dumps(ports), encoding="utf-8")
    return lead


def ports_of(lead: Lead) -> dict[str, Any]:
    text = (lead.home / "courier" / "courier.json").read_text(encoding="utf-8")
    ports: dict[str, Any] = json.loads(text)
    return ports


@pytest.fixture
def behind(lead: Lead) -> Iterator[Behind]:
    courier = lead.home / "courier"
    found = Behind(ports_of(lead)["superlink_port"])

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found.asked.append((self.command, self.path, body))
            found.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(201)
            self.send_header("X-Flower", "kept")
            self.send_header("Connection", "close")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[::-1])

        do_GET = do_POST = answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", found.port), Handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(courier / "server.pem", courier / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Front:
    port: int
    authority: Path
    said: list[str]

    def connected(self) -> http.client.HTTPSConnection:
        trust = ssl.create_default_context(cafile=str(self.authority))
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=trust)

    def ask(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        line = self.connected()
        try:
            line.request(method, path, body, headers)
            answer = line.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, named, answer.read()
        finally:
            line.close()

    def shown(self) -> bytes:
        line = self.connected()
        try:
            line.connect()
            return line.sock.getpeercert(binary_form=True) or b""
        finally:
            line.close()


def wait_for(is_reached: Callable[[], bool]) -> None:
    for _ in range(150):
        if is_reached():
            return
        time.sleep(0.05)
    raise TimeoutError


@pytest.fixture
def front(lead: Lead, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    servers: list[uvicorn.Server] = []

    class Known(uvicorn.Server):
        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            servers.append(self)

    found = Front(ports_of(lead)["public_port"], lead.home / "courier" / "ca.crt", [])
    monkeypatch.setattr(uvicorn, "Server", Known)
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(module, "say", found.said.append)
    codes: list[int] = []
    words = ["--home", str(lead.home), "courier", "front"]
    thread = threading.Thread(target=lambda: codes.append(coordinator_main(words)))
    thread.start()
    wait_for(lambda: bool(servers and servers[0].started))
    yield found
    servers[0].should_exit = True
    thread.join(20)
    assert codes == [0]


def test_the_fleet_interface_and_health_reach_the_superlink(front: Front, behind: Behind) -> None:
    body = b"a message" * 1000
    status, headers, answer = front.ask(
        *("POST", "/v1/fleet/pull-messages", body), **{"X-Flwr-Signature": "kept", "TE": "trailers"}
    )
    assert (status, answer) == (201, body[::-1])
    assert headers["x-flower"] == "kept"
    # What is about one line only stays on it, and nothing tells what software answers.
    assert "server" not in headers
    assert behind.asked == [("POST", "/v1/fleet/pull-messages", body)]
    assert behind.headers[0]["x-flwr-signature"] == "kept"
    assert behind.headers[0]["host"] == f"127.0.0.1:{behind.port}"
    assert "te" not in behind.headers[0]
    assert front.ask("GET", "/health")[0] == 201
    assert behind.asked[1:] == [("GET", "/health", b"")]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/control/start-run"),
        ("POST", "/v1/runtime/acquire-task"),
        ("POST", "/v1/fleet/register-node"),
        ("POST", "/v1/fleet/register-node/"),
        ("POST", "/v1/fleet/unregister-node"),
        ("POST", "/v1/fleet/../control/start-run"),
        ("POST", "/v1/fleet/%2e%2e/control/start-run"),
        ("POST", "/v1/fleet//register-node"),
        ("POST", "/V1/fleet/pull-messages"),
        ("POST", "/health"),
        ("GET", "/v1/fleet/pull-messages"),
        ("GET", "/health/"),
        ("GET", "/"),
    ],
)
def test_everything_else_is_not_there(method: str, path: str, front: Front, behind: Behind) -> None:
    status, headers, answer = front.ask(method, path)
    assert (status, answer) == (404, b"")
    assert headers["content-length"] == "0"
    assert behind.asked == []


def test_an_upgrade_to_another_protocol_is_not_taken_up(front: Front, behind: Behind) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "AAAAAAAAAAAAAAAAAAAAAA=="
    assert front.ask("GET", "/v1/control/stream", **upgrade)[0] == 404
    assert front.ask("GET", "/health", **upgrade)[0] == 201
    assert "upgrade" not in behind.headers[0]


def test_without_a_superlink_a_site_is_told_to_come_back(front: Front) -> None:
    assert front.ask("POST", "/v1/fleet/pull-messages", b"x")[0] == 503


def test_a_body_that_is_broken_off_never_reaches_the_superlink(
    front: Front, behind: Behind
) -> None:
    line = front.connected()
    line.putrequest("POST", "/v1/fleet/push-object")
    line.putheader("Content-Length", "1000")
    line.endheaders()
    line.send(b"half")
    line.close()
    assert front.ask("GET", "/health")[0] == 201
    assert [path for _, path, _ in behind.asked] == ["/health"]


def test_a_changed_certificate_is_taken_up_when_its_key_fits(lead: Lead, front: Front) -> None:
    courier = lead.home / "courier"
    first, whole = front.shown(), (courier / "server.key").read_bytes()
    write_key(courier / "server.key", make_authority(datetime.now(UTC))[0])
    wait_for(lambda: len(front.said) == 1)
    assert front.said == ["The changed certificate is not in use yet (SSLError)."]
    assert front.shown() == first
    # In the middle of a renewal a file may be gone for a moment.
    os.replace(courier / "server.pem", courier / "aside.pem")
    (courier / "server.key").write_bytes(whole)
    time.sleep(0.3)
    assert front.shown() == first
    os.replace(courier / "aside.pem", courier / "server.pem")
    lead.verb("certificate", "renew")
    wait_for(lambda: "A renewed certificate is in use." in front.said)
    wait_for(lambda: front.shown() != first)
