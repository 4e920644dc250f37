"""TLS over the years: renewal, another authority, warnings, and a front that goes on serving."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from flower.deployment import free_port
from joining.consortium import CommandFailed, Lead

from coordinator.flower_courier.authority import PASSPHRASE_VARIABLE, Authority
from coordinator.flower_courier.certificates import make_authority, make_server, pem_of, write_key
from fedcac.exchange.expiry import Expiry

ROOT = Path(__file__).parents[2]
HOST = "lead.example.org"


@pytest.fixture
def lead(tmp_path: Path) -> Lead:
    return Lead(tmp_path)


def shown(lead: Lead) -> x509.Certificate:
    return x509.load_pem_x509_certificate((lead.home / "courier" / "server.pem").read_bytes())


def trust(lead: Lead) -> bytes:
    return (lead.home / "courier" / "ca.crt").read_bytes()


def is_trusted(certificate: x509.Certificate, authorities: bytes) -> bool:
    store = Store(x509.load_pem_x509_certificates(authorities))
    verifier = PolicyBuilder().store(store).build_server_verifier(x509.DNSName(HOST))
    try:
        verifier.verify(certificate, [])
    except VerificationError:
        return False
    return True


def test_a_renewed_certificate_holds_for_the_same_hosts_under_the_same_authority(
    lead: Lead,
) -> None:
    before, authorities = shown(lead), trust(lead)
    lead.verb("certificate", "renew")
    after = shown(lead)
    assert after.serial_number != before.serial_number
    assert after.public_key() != before.public_key()
    assert trust(lead) == authorities
    assert is_trusted(after, authorities)
    lead.verb("certificate", "renew", "--host", "new.example.org")
    assert not is_trusted(shown(lead), authorities)


def test_the_authoritys_key_lies_apart_and_renewal_says_when_it_is_not_there(
    lead: Lead, tmp_path: Path
) -> None:
    assert not (lead.home / "courier" / "ca.key").exists()
    drawer = tmp_path / "drawer"
    (lead.home / "authority").rename(drawer)
    with pytest.raises(CommandFailed, match=r"usage\.no_authority_key"):
        lead.verb("certificate", "renew")
    before = shown(lead)
    lead.verb("certificate", "renew", "--authority", str(drawer))
    assert shown(lead) != before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to other users")
def test_a_renewal_leaves_the_files_to_the_users_who_read_them(
    lead: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    courier = lead.home / "courier"
    (courier / "server.key").chmod(0o640)
    for name in ("server.key", "server.pem"):
        os.chown(courier / name, 12345, 12346)
    lead.verb("certificate", "renew")
    key, chain = (courier / "server.key").stat(), (courier / "server.pem").stat()
    assert (key.st_uid, key.st_gid, key.st_mode & 0o777) == (12345, 12346, 0o640)
    assert (chain.st_uid, chain.st_gid, chain.st_mode & 0o777) == (12345, 12346, 0o644)

    def refused(*arguments: object) -> None:
        raise PermissionError

    before = shown(lead)
    monkeypatch.setattr(os, "fchown", refused)
    with pytest.raises(CommandFailed, match=r"usage\.no_rights"):
        lead.verb("certificate", "renew")
    assert shown(lead) == before
    assert not list(courier.glob("*.part"))


def test_a_passphrase_guards_the_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "correct horse")
    lead = Lead(tmp_path)
    key = (lead.home / "authority" / "ca.key").read_bytes()
    assert b"ENCRYPTED" in key
    lead.verb("certificate", "renew")
    lead.verb("certificate", "rollover", "begin")
    assert b"ENCRYPTED" in (lead.home / "authority" / "next.key").read_bytes()
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "wrong")
    for verb in (("renew",), ("rollover", "switch")):
        with pytest.raises(CommandFailed, match=r"usage\.wrong_passphrase"):
            lead.verb("certificate", *verb)
    monkeypatch.delenv(PASSPHRASE_VARIABLE)
    with pytest.raises(CommandFailed, match=r"usage\.no_passphrase"):
        lead.verb("certificate", "renew")


def test_a_site_with_the_overlap_trusts_every_step_of_a_rollover(lead: Lead) -> None:
    first = trust(lead)
    lead.verb("certificate", "rollover", "begin")
    overlap = trust(lead)
    assert overlap.startswith(first)
    assert is_trusted(shown(lead), first)
    assert is_trusted(shown(lead), overlap)
    lead.verb("certificate", "rollover", "switch")
    assert not is_trusted(shown(lead), first)
    assert is_trusted(shown(lead), overlap)
    # The couriers at the coordinator still trust a SuperLink that was not restarted.
    assert set(x509.load_pem_x509_certificates(trust(lead))) == set(
        x509.load_pem_x509_certificates(overlap)
    )
    lead.verb("certificate", "rollover", "finish")
    assert len(x509.load_pem_x509_certificates(trust(lead))) == 1
    assert is_trusted(shown(lead), trust(lead))
    lead.verb("certificate", "renew")
    assert is_trusted(shown(lead), overlap)


def test_the_steps_of_a_rollover_have_one_order(lead: Lead) -> None:
    def refused(step: str) -> None:
        with pytest.raises(CommandFailed, match=r"usage\.rollover_state"):
            lead.verb("certificate", "rollover", step)

    refused("switch")
    refused("finish")
    lead.verb("certificate", "rollover", "begin")
    refused("begin")
    refused("finish")
    lead.verb("certificate", "rollover", "switch")
    refused("switch")
    refused("begin")
    lead.verb("certificate", "rollover", "finish")
    refused("finish")


@pytest.mark.parametrize("n_writes", range(1, 9))
def test_a_switch_that_is_killed_anywhere_is_gone_on_with(
    lead: Lead, monkeypatch: pytest.MonkeyPatch, n_writes: int
) -> None:
    authority = Authority(lead.home / "authority", lead.home / "courier")
    authority.begin_rollover()
    overlap = trust(lead)
    left = n_writes
    replace = os.replace

    def dies(*paths: Path) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        replace(*paths)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", dies)
        try:
            authority.switch_rollover()
            is_killed = False
        except KeyboardInterrupt:
            is_killed = True
    # Wherever it stopped: what is shown is trusted by sites with the overlap, and here.
    assert is_trusted(shown(lead), overlap)
    assert is_trusted(shown(lead), trust(lead))
    if is_killed and (lead.home / "authority" / "next.key").exists():
        authority.switch_rollover()
    assert is_trusted(shown(lead), overlap)
    authority.finish_rollover()
    assert is_trusted(shown(lead), trust(lead))
    assert len(x509.load_pem_x509_certificates(trust(lead))) == 1


@pytest.mark.parametrize(
    ("days", "word"),
    [(31, None), (30, "Warning"), (8, "Warning"), (7, "URGENT"), (1, "URGENT"), (0, "EXPIRED")],
)
def test_warnings_come_thirty_and_seven_days_before(days: int, word: str | None) -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    text = Expiry("it", now + timedelta(days=days)).warning(now)
    assert (text is None) if word is None else (text is not None and text.startswith(word))


def write_server(lead: Lead, life: timedelta) -> None:
    """Put a certificate with another life in the place of the server's."""
    courier, now = lead.home / "courier", datetime.now(UTC)
    made = make_authority(now)
    key, certificate = make_server([HOST], made, now, life)
    (courier / "ca.crt").write_bytes(pem_of(made[1]))
    (courier / "server.pem").write_bytes(pem_of(certificate))
    write_key(courier / "server.key", key)


@pytest.mark.parametrize(
    ("life", "word"),
    [(timedelta(days=20), "Warning"), (timedelta(days=3), "URGENT"), (-timedelta(0), "EXPIRED")],
)
def test_the_lead_is_warned_in_every_status(lead: Lead, life: timedelta, word: str) -> None:
    assert lead.verb("courier", "status")["warnings"] == []
    write_server(lead, life)
    for verb in (("courier", "status"), ("certificate", "show")):
        (warning,) = lead.verb(*verb)["warnings"]
        assert warning.startswith(f"{word}: the server's certificate")
        assert "certificate renew" in warning


# the front


@contextmanager
def front(lead: Lead) -> Iterator[int]:
    port = free_port()
    path = lead.home / "courier" / "courier.json"
    path.write_text(f'{{"public_host": "127.0.0.1", "public_port": {port}}}')
    command = [sys.executable, "-m", "coordinator", "--home", str(lead.home), "courier", "front"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield port
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait()


def serial_shown(port: int) -> int | None:
    # What is shown is compared with the files; whether it is trusted is not the question here.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as line,
            context.wrap_socket(line, server_hostname=HOST) as secured,
        ):
            der = secured.getpeercert(binary_form=True) or b""
    except OSError:
        return None
    return x509.load_der_x509_certificate(der).serial_number


def wait_for(is_reached: Callable[[], bool]) -> None:
    for _ in range(300):
        if is_reached():
            return
        time.sleep(0.1)
    raise TimeoutError


def test_the_front_shows_a_renewed_certificate_without_a_restart(lead: Lead) -> None:
    courier = lead.home / "courier"
    with front(lead) as port:
        first = shown(lead).serial_number
        wait_for(lambda: serial_shown(port) == first)
        # Half of a pair, as in the middle of a renewal: the former one is served on.
        whole = (courier / "server.key").read_bytes()
        write_key(courier / "server.key", make_authority(datetime.now(UTC))[0])
        time.sleep(2.5)
        assert serial_shown(port) == first
        (courier / "server.key").write_bytes(whole)
        lead.verb("certificate", "renew")
        second = shown(lead).serial_number
        assert second != first
        wait_for(lambda: serial_shown(port) == second)
