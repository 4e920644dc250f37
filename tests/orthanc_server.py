"""A real PACS for tests: Debian's Orthanc on 127.0.0.1, with its own folder, ports and keys."""

from __future__ import annotations

import json
import os
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from pydicom import dcmread
from pydicom.dataset import Dataset

from fedcac.phantom import GATED, NON_GATED
from fedcac.phantom.anatomy import paint_anatomy, sample_anatomy
from fedcac.phantom.dicom import ExamLabel, write_series
from fedcac.phantom.pairs import finish_exam

__all__ = [
    "WEB_PASSWORD",
    "WEB_USER",
    "Authority",
    "Orthanc",
    "free_port",
    "orthanc_or_skip",
    "started",
    "tls_gateway",
    "write_exam",
]

_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_START_LIMIT_S = 240.0

WEB_USER, WEB_PASSWORD = "fedcac", "a password of this test only"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def orthanc_or_skip() -> str:
    """Return Orthanc's path; skip without it, but fail where continuous integration lacks it."""
    found = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found and _PLUGIN.exists():
        return found
    reason = "Orthanc is not installed: apt-get install orthanc orthanc-dicomweb"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class Authority:
    """A throw-away certificate authority and what it signs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._name = _name("Authority of a test")
        self.ca_file = folder / "ca.pem"
        builder = self._builder(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: rsa.RSAPublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return a certificate for 127.0.0.1 and localhost, and its key."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        certificate = (
            self._builder(_name(name), key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        certificate_path = self.folder / f"{name}.pem"
        key_path = self.folder / f"{name}.key"
        certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        key_path.chmod(0o600)
        return certificate_path, key_path


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass(frozen=True)
class Orthanc:
    """A running server."""

    dicom_port: int
    http_port: int
    process: subprocess.Popen[bytes]
    authority: Authority

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def rest(self, path: str, body: bytes | None = None) -> Any:
        """Ask Orthanc's own interface: the oracle for what is stored there."""
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        passwords.add_password(None, self.url, WEB_USER, WEB_PASSWORD)
        opener = urllib.request.build_opener(
            urllib.request.HTTPBasicAuthHandler(passwords), urllib.request.ProxyHandler({})
        )
        with opener.open(self.url + path, data=body, timeout=30) as answer:
            return json.loads(answer.read())

    def n_instances(self, series_uid: str) -> int:
        """Return how many instances of a series Orthanc holds."""
        found = self.rest("/tools/lookup", series_uid.encode())
        return len(self.rest(found[0]["Path"])["Instances"])


@contextmanager
def started(folder: Path, **changes: Any) -> Iterator[Orthanc]:
    """Run Orthanc with the given configuration on top of a small one."""
    program = orthanc_or_skip()
    folder.mkdir(parents=True, exist_ok=True)
    authority = Authority(folder / "ca")
    certificate, key = authority.issue("pacs")
    dicom_port, http_port = free_port(), free_port()
    configuration = {
        "Name": "PACS of a test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(_PLUGIN)],
        "DicomServerEnabled": True,
        "DicomAet": "PACS",
        "DicomCheckCalledAet": True,
        "StrictAetComparison": True,
        "DicomPort": dicom_port,
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {WEB_USER: WEB_PASSWORD},
        "DicomTlsCertificate": str(certificate),
        "DicomTlsPrivateKey": str(key),
        "DicomTlsTrustedCertificates": str(authority.ca_file),
        "SyncStorageArea": False,
        "SaveJobs": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **changes,
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(configuration), encoding="utf-8")
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([program, str(path)], stdout=log, stderr=log, cwd=folder)
        try:
            server = Orthanc(dicom_port, http_port, process, authority)
            _wait(server, folder / "orthanc.log")
            yield server
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(server: Orthanc, log: Path) -> None:
    limit = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < limit:
        if server.process.poll() is not None:
            break
        try:
            server.rest("/system")
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"Orthanc did not start: {log.read_text(errors='replace')[-2000:]}")


@contextmanager
def tls_gateway(server: Orthanc) -> Iterator[int]:
    """Serve Orthanc's web part over TLS, as a hospital's reverse proxy does; yield the port.

    Debian's Orthanc 1.10.1 ends with a segmentation fault at the first HTTPS request.
    """
    certificate, key = server.authority.issue("gateway")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                outer = context.wrap_socket(self.request, server_side=True)
            except OSError:
                return
            address = ("127.0.0.1", server.http_port)
            with outer, socket.create_connection(address) as inner:
                back = threading.Thread(target=_copy, args=(inner, outer))
                back.start()
                _copy(outer, inner)
                back.join()

    class Gateway(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = True

        def handle_error(self, *_: object) -> None:
            """Say nothing: a client that does not believe the certificate is a test."""

    with Gateway(("127.0.0.1", 0), Relay) as gateway:
        thread = threading.Thread(target=gateway.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield int(gateway.server_address[1])
        finally:
            gateway.shutdown()
            thread.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while chunk := source.recv(1 << 16):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


def write_exam(
    folder: Path,
    patient_id: str,
    day: date,
    *,
    is_gated: bool,
    seed: int,
    n_slices: int = 16,
    **changes: Any,
) -> list[Dataset]:
    """Write a small generated exam, with changes to every header; return its data sets."""
    rng = np.random.default_rng(seed)
    full = GATED if is_gated else NON_GATED
    # A quarter of the matrix over the same field: whole anatomy, small files.
    grid = replace(full, n_slices=n_slices, matrix=64, pixel_mm=4 * full.pixel_mm)
    exam = finish_exam(rng, grid, paint_anatomy(grid, sample_anatomy(rng)), [], [])
    write_series(folder, exam, ExamLabel(patient_id, day, is_gated), rng)
    datasets = []
    for path in sorted(folder.iterdir()):
        dataset = dcmread(path)
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path, enforce_file_format=True)
        datasets.append(dataset)
    return datasets
