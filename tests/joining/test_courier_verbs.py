"""`fedcac-coordinator courier`: what each verb starts, carries, shows and refuses."""

from __future__ import annotations

import itertools
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from joining.consortium import CommandFailed, Lead

from coordinator.__main__ import main as coordinator_main
from coordinator.flower_courier import authority, verbs
from coordinator.flower_courier.authority import PASSPHRASE_VARIABLE, new_passphrase, server_hosts
from coordinator.flower_courier.certificates import make_authority, make_server, pem_of, write_key
from coordinator.flower_courier.dispatch import Answered
from coordinator.flower_courier.folder import CourierFolder
from coordinator.flower_courier.journal import CourierJournal
from fedcac.errors import RoundError, UsageError
from fedcac.exchange.couriering import CourierKey, Sealed
from fedcac.signing import SigningKey

with warnings.catch_warnings():
    # Flower's own imports warn; they are not ours to mend.
    warnings.simplefilter("ignore")
    from coordinator.flower_courier import adapter


@pytest.fixture
def lead(tmp_path: Path) -> Lead:
    return Lead(tmp_path)


def folder_of(lead: Lead) -> CourierFolder:
    return CourierFolder(lead.home / "courier")


def enrol(lead: Lead, name: str) -> None:
    key, node_key = lead.root / f"{name}.pub", lead.root / f"{name}.node.pub"
    key.write_text(SigningKey.generate().public.to_text(), encoding="ascii")
    node_key.write_text(CourierKey.generate().public.to_text(), encoding="ascii")
    lead.verb("courier", "enrol", name, "--key", str(key), "--node-key", str(node_key))


# the processes


def test_the_superlink_takes_the_place_of_the_process(
    lead: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Replaced(Exception):
        pass

    calls: list[tuple[str, list[str], dict[str, str]]] = []

    def replace(program: str, words: list[str], environment: dict[str, str]) -> None:
        calls.append((program, words, environment))
        raise Replaced

    monkeypatch.setattr(os, "execve", replace)
    with pytest.raises(Replaced):
        lead.verb("courier", "superlink")
    ((program, words, environment),) = calls
    assert Path(program).name == "flower-superlink"
    options = dict(itertools.pairwise(words))
    assert (options["--host"], options["--port"]) == ("127.0.0.1", "8444")
    assert "--enable-supernode-auth" in words
    assert "--disable-runtime-dependency-installation" in words
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    link = folder_of(lead).link_path
    assert link.stat().st_mode & 0o777 == 0o700
    assert environment["FLWR_HOME"].startswith(str(link))


def test_without_a_courier_no_process_starts(tmp_path: Path) -> None:
    lead = Lead(tmp_path, host=None)
    for verb in ("superlink", "front"):
        with pytest.raises(CommandFailed, match=r"usage\.no_courier_folder"):
            lead.verb("courier", verb)


@pytest.mark.parametrize(
    "text", ["{", '{"public_port": 0}', '{"public_port": "8443"}', '{"bind": "0.0.0.0"}']
)
def test_ports_that_are_none_are_refused(lead: Lead, text: str) -> None:
    (lead.home / "courier" / "courier.json").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        folder_of(lead).ports()
    assert caught.value.code == "usage.bad_settings"
    assert "run-over-flower" in caught.value.cure


class Link:
    """Stands for the run on the SuperLink: every site is online, and no answer comes."""

    made: list[Link]
    turns: list[Any]

    def __init__(self, folder: CourierFolder, roster: Mapping[str, object]) -> None:
        self.roster = roster
        self.sent: list[tuple[int, Sealed, Mapping[str, bytes]]] = []
        self.is_closed = False
        Link.made.append(self)

    def beat(self) -> None:
        if Link.turns:
            Link.turns.pop(0)()

    def online(self) -> Mapping[str, int]:
        return dict.fromkeys(self.roster, 7)

    def send(self, node: int, sealed: Sealed, bodies: Mapping[str, bytes]) -> str:
        self.sent.append((node, sealed, bodies))
        return "ticket"

    def poll(self, tickets: Sequence[str]) -> Mapping[str, Answered]:
        return {}

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> type[Link]:
    Link.made, Link.turns = [], []
    monkeypatch.setattr(adapter, "FlowerLink", Link)
    monkeypatch.setattr(verbs, "_TURN_S", 0.01)
    return Link


def test_a_link_lasts_as_long_as_its_roster(
    lead: Lead, link: type[Link], capsys: pytest.CaptureFixture[str]
) -> None:
    enrol(lead, "duke")
    folder = folder_of(lead)
    CourierJournal(folder.journal_path).add("duke", "r-1.offer", b"offer")
    link.turns = [lambda: None] * 40 + [lambda: enrol(lead, "yale")]
    verbs.carry(folder)
    (made,) = link.made
    assert made.is_closed
    # What waits is sent once to the site's node, and not again while its answer is awaited.
    ((node, _, bodies),) = made.sent
    assert (node, list(bodies.values())) == (7, [b"offer"])
    assert "Connected; carrying for 1 sites." in capsys.readouterr().err
    assert set(folder.roster()) == {"duke", "yale"}


def test_a_broken_link_is_closed_and_made_again(
    lead: Lead,
    link: type[Link],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    courier, now = lead.home / "courier", datetime.now(UTC)
    made = make_authority(now)
    key, certificate = make_server(["lead.example.org"], made, now, timedelta(days=3))
    (courier / "ca.crt").write_bytes(pem_of(made[1]))
    (courier / "server.pem").write_bytes(pem_of(certificate))
    write_key(courier / "server.key", key)

    def breaks() -> None:
        raise RoundError("The SuperLink ended the run.", code="flower_link")

    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise KeyboardInterrupt

    link.turns = [breaks, breaks]
    monkeypatch.setattr(verbs.time, "sleep", pause)
    assert coordinator_main(["--home", str(lead.home), "courier", "run"]) == 130
    told = capsys.readouterr().err
    assert pauses == [3.0, 3.0]
    assert [one.is_closed for one in link.made] == [True, True]
    assert told.count("Connecting again in 3 s: The SuperLink ended the run.") == 2
    assert "URGENT: the server's certificate" in told


# the journal


def test_the_status_names_what_a_site_did_not_take(
    lead: Lead, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--home", str(lead.home), "courier", "status"]
    assert coordinator_main(words) == 0
    assert "No site is enrolled over Flower." in capsys.readouterr().out
    enrol(lead, "duke")
    journal = CourierJournal(folder_of(lead).journal_path)
    journal.add("duke", "r-1.offer", b"offer")
    journal.add("duke", "r-1.package.weights", b"\0" * 10)
    journal.note_refused("duke", {"r-1.package.weights": "courier.too_large"})
    assert coordinator_main(words) == 0
    text = capsys.readouterr().out
    assert "duke: 1 to deliver, 0 asked for" in text or "duke: 2 to deliver, 0 asked for" in text
    assert "  r-1.package.weights was not taken: courier.too_large" in text


def test_what_is_forgotten_is_counted(lead: Lead) -> None:
    enrol(lead, "duke")
    journal = CourierJournal(folder_of(lead).journal_path)
    journal.add("duke", "r-1.offer", b"offer")
    journal.add("duke", "r-2.offer", b"offer")
    journal.ask("duke", "r-1.acceptance")
    assert lead.verb("courier", "forget", "r-1") == {"parcels": 2}
    assert [one.name for one in journal.pending("duke")] == ["r-2.offer"]
    assert lead.verb("courier", "forget", "r-1") == {"parcels": 0}


def test_a_parcel_whose_bytes_are_lost_is_not_brought_by_hand(lead: Lead, tmp_path: Path) -> None:
    enrol(lead, "duke")
    journal = CourierJournal(folder_of(lead).journal_path)
    journal.add("duke", "r-1.offer", b"offer")
    journal.add("duke", "r-1.protocol", b"protocol")
    (lost,) = (one for one in journal.pending("duke") if one.name == "r-1.protocol")
    for digest in lost.manifest.chunks:
        for path in (folder_of(lead).journal_path / "chunks").iterdir():
            if path.read_bytes() == b"protocol":
                path.unlink()
        assert journal.chunks.get(digest) is None
    out = tmp_path / "usb"
    assert lead.verb("courier", "export", "duke", "--out", str(out)) == {"parcels": ["r-1.offer"]}
    assert [path.name for path in out.iterdir()] == ["r-1.offer"]


def test_a_site_taken_off_an_empty_roster_leaves_no_file(lead: Lead) -> None:
    folder = folder_of(lead)
    folder.replace_site("duke", None)
    assert not (folder.root / "roster.json").exists()
    key = CourierKey.generate().public
    folder.replace_site("duke", key)
    assert folder.roster()["duke"].to_text() == key.to_text()
    folder.replace_site("duke", None)
    assert json.loads((folder.root / "roster.json").read_text(encoding="utf-8")) == {}


# certificates and their passphrase


def test_certificates_without_a_courier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lead = Lead(tmp_path, host=None)
    assert coordinator_main(["--home", str(lead.home), "certificate", "show"]) == 0
    assert "There is no courier." in capsys.readouterr().out
    with pytest.raises(UsageError) as caught:
        server_hosts(lead.home / "courier")
    assert caught.value.code == "usage.no_courier_folder"
    with pytest.raises(CommandFailed, match=r"usage\.no_"):
        lead.verb("certificate", "renew", "--host", "lead.example.org")


def test_an_authority_key_of_another_kind_is_none(lead: Lead) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (lead.home / "authority" / "ca.key").write_bytes(pem)
    with pytest.raises(CommandFailed, match=r"usage\.no_authority_key"):
        lead.verb("certificate", "renew")


class Terminal:
    def __init__(self, is_one: bool) -> None:
        self.is_one = is_one

    def isatty(self) -> bool:
        return self.is_one


@pytest.mark.parametrize(
    ("typed", "passphrase"),
    [(["horse", "horse"], b"horse"), (["horse", "mule"], None), (["", ""], None)],
)
def test_a_new_passphrase_is_typed_twice(
    typed: list[str], passphrase: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)
    assert new_passphrase(may_ask=False) is None
    monkeypatch.setattr(authority.sys, "stdin", Terminal(False))
    with pytest.raises(UsageError, match="no terminal") as caught:
        new_passphrase(may_ask=True)
    assert caught.value.cure == f"Set {PASSPHRASE_VARIABLE} instead."
    monkeypatch.setattr(authority.sys, "stdin", Terminal(True))
    monkeypatch.setattr(authority.getpass, "getpass", lambda prompt: typed.pop(0))
    if passphrase is None:
        with pytest.raises(UsageError) as caught:
            new_passphrase(may_ask=True)
        assert caught.value.code == "usage.no_passphrase"
    else:
        assert new_passphrase(may_ask=True) == passphrase
    assert not typed


def test_the_passphrase_is_asked_for_at_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "horse")
    lead = Lead(tmp_path)
    monkeypatch.delenv(PASSPHRASE_VARIABLE)
    monkeypatch.setattr(authority.sys, "stdin", Terminal(True))
    monkeypatch.setattr(authority.getpass, "getpass", lambda prompt: "horse")
    before = (lead.home / "courier" / "server.pem").read_bytes()
    lead.verb("certificate", "renew")
    assert (lead.home / "courier" / "server.pem").read_bytes() != before
    monkeypatch.setattr(authority.getpass, "getpass", lambda prompt: "mule")
    with pytest.raises(CommandFailed, match=r"usage\.wrong_passphrase"):
        lead.verb("certificate", "renew")
