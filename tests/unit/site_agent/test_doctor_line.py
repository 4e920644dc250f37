"""The doctor's checks of the line out, against a server with its own clock and certificates."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from site_bench import Bench

from fedcac.exchange.couriering import CourierKey
from site_agent.doctor.findings import Situation, run_check
from site_agent.doctor.network import network_checks
from site_agent.flower_courier.settings import CourierFolder


def certificate(
    subject: str, issuer: tuple[x509.Certificate, Any] | None, days: int, name: str = "127.0.0.1"
) -> tuple[x509.Certificate, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(own)
        .issuer_name(issuer[0].subject if issuer else own)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=400))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer is None:
        usage = x509.KeyUsage(*[False] * 5, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    else:
        names = [x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer[0].public_key())
        builder = builder.add_extension(authority, critical=False)
    signer = issuer[1] if issuer else key
    return builder.sign(signer, hashes.SHA256()), key


def pem(made: tuple[x509.Certificate, Any]) -> bytes:
    return made[0].public_bytes(serialization.Encoding.PEM)


class Line:
    """A front that answers /health over TLS, with a clock of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = certificate("Consortium", None, 3000)
        self.issuer = self.authority
        self.days, self.name, self.skew_s = 800, "127.0.0.1", 0.0
        self.host = "127.0.0.1"

    def serve(self) -> HTTPServer:
        line = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response_only(200)
                moment = datetime.now(UTC) - timedelta(seconds=line.skew_s)
                self.send_header("Date", format_datetime(moment, usegmt=True))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        made = certificate("front", self.issuer, self.days, self.name)
        chain = self.folder / "server.pem"
        chain.write_bytes(
            pem(made)
            + made[1].private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)

        class Server(HTTPServer):
            def handle_error(self, *_: object) -> None:
                return

            def get_request(self) -> Any:
                connection, address = super().get_request()
                try:
                    return context.wrap_socket(connection, server_side=True), address
                except (ssl.SSLError, OSError):
                    connection.close()
                    raise

        server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """Return a function that sets up a line and gives the findings of its checks."""
    servers: list[HTTPServer] = []

    def findings(**changes: Any) -> dict[str, Any]:
        made = Line(tmp_path)
        for name, value in changes.items():
            setattr(made, name, value)
        server = made.serve()
        servers.append(server)
        home = tmp_path / "courier"
        home.mkdir()
        (home / "ca.crt").write_bytes(pem(made.authority))
        (home / "courier.toml").write_text(
            'site = "duke"\nspool = "../spool"\n'
            f'superlink = "{made.host}:{server.server_address[1]}"\n'
            f'coordinator_key = "{CourierKey.generate().public.to_text()}"\n'
        )
        situation = Situation(Bench(tmp_path).folder, CourierFolder(home))
        return {check.name: run_check(check, situation) for check in network_checks()}

    yield findings
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_a_sound_line(line: Callable[..., dict[str, Any]]) -> None:
    found = line()
    assert {name: one.status for name, one in found.items()} == {
        "dns": "ok",
        "proxy": "ok",
        "line": "ok",
        "clock": "ok",
    }


@pytest.mark.parametrize(
    ("skew_s", "status"), [(12.0, "failed"), (-420.0, "failed"), (3.0, "ok"), (-200.0, "ok")]
)
def test_a_clock_that_flower_turns_away(
    line: Callable[..., dict[str, Any]], skew_s: float, status: str
) -> None:
    found = line(skew_s=skew_s)
    assert found["clock"].status == status
    assert found["line"].status == "ok"


def test_a_coordinator_whose_name_is_a_clock_is_no_clock(
    line: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = socket.create_connection

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        return genuine(("127.0.0.1", address[1]), timeout)

    monkeypatch.setattr(socket, "create_connection", connect)
    found = line(name="clock.example", host="clock.example")
    assert "clock.example" in found["line"].found
    assert (found["line"].status, found["clock"].status) == ("ok", "ok")
    assert found["clock"].found == "The two clocks agree."


def test_tls_opened_by_the_hospitals_proxy(line: Callable[..., dict[str, Any]]) -> None:
    found = line(issuer=certificate("Hospital Inspection CA", None, 1000))
    assert found["line"].status == "failed"
    assert "Hospital Inspection CA" in found["line"].found
    assert found["clock"].status == "skipped"


def test_a_certificate_that_ends_or_names_another(line: Callable[..., dict[str, Any]]) -> None:
    found = line(days=5)
    assert found["line"].status == "failed"


def test_a_certificate_of_another_host(line: Callable[..., dict[str, Any]]) -> None:
    found = line(name="other.example")
    assert found["line"].status == "failed"
    assert "not trusted" in found["line"].found


def test_a_proxy_of_the_environment(
    line: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy.example:3128")
    found = line()["proxy"]
    assert found.status == "warning"
    assert "NO_PROXY" in found.found
    assert "secret" not in found.found + found.cure
