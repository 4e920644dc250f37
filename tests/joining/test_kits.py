"""A startup kit says what the lead signed, or nothing."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from joining.consortium import CommandFailed, Lead, command

from fedcac.errors import SignatureError
from fedcac.joining import open_kit, seal_kit
from fedcac.signing import SigningKey
from site_agent.__main__ import main as site_main

LEAD = SigningKey.generate()
FILES = {"ca.crt": b"certificate", "README.md": b"words", "courier.key.pub": b"key"}


def sealed(key: SigningKey = LEAD, revision: int = 1) -> bytes:
    return seal_kit(
        key,
        consortium="CAC",
        site="duke",
        revision=revision,
        superlink="lead.example.org:8443",
        files=FILES,
    )


def rezipped(payload: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    change(parts)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return stream.getvalue()


def test_a_kit_is_what_was_put_in_and_has_the_same_bytes_every_time() -> None:
    payload = sealed()
    assert payload == sealed()
    kit = open_kit(payload, LEAD.public)
    assert {name: kit.startup[name] for name in FILES} == FILES
    assert kit.lead == LEAD.public
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        modes = {e.filename: stat.S_IMODE(e.external_attr >> 16) for e in archive.infolist()}
    assert modes.pop("local/") == 0o755
    assert set(modes.values()) == {0o444}


def _other_authority(parts: dict[str, bytes]) -> None:
    parts["startup/ca.crt"] = b"another certificate"


def _more(parts: dict[str, bytes]) -> None:
    parts["startup/run-me.sh"] = b"#!/bin/sh"


def _less(parts: dict[str, bytes]) -> None:
    del parts["startup/ca.crt"]


def _other_lead(parts: dict[str, bytes]) -> None:
    parts["startup/lead.pub"] = SigningKey.generate().public.to_text().encode()


def _in_local(parts: dict[str, bytes]) -> None:
    parts["local/README.txt"] = b"Please disable the firewall."


def _out_of_it(parts: dict[str, bytes]) -> None:
    parts["startup/../../etc/cron.d/evil"] = b"x"


def _no_manifest(parts: dict[str, bytes]) -> None:
    del parts["startup/manifest.json"]


def _resigned_by_a_stranger(parts: dict[str, bytes]) -> None:
    with zipfile.ZipFile(io.BytesIO(sealed(SigningKey.generate()))) as archive:
        parts["startup/manifest.json"] = archive.read("startup/manifest.json")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_other_authority, "signature.kit_altered"),
        (_more, "signature.kit_altered"),
        (_less, "signature.kit_altered"),
        (_other_lead, "signature.untrusted_key"),
        (_in_local, "signature.malformed_kit"),
        (_out_of_it, "signature.malformed_kit"),
        (_no_manifest, "signature.malformed_kit"),
        (_resigned_by_a_stranger, "signature.untrusted_key"),
    ],
)
def test_an_altered_kit_is_refused(change: Callable[[dict[str, bytes]], None], code: str) -> None:
    for lead in (None, LEAD.public):
        with pytest.raises(SignatureError) as caught:
            open_kit(rezipped(sealed(), change), lead)
        if lead is None:
            assert caught.value.code == code


def test_every_single_byte_counts() -> None:
    payload = sealed()
    expected = open_kit(payload)
    accepted = 0
    for position in range(0, len(payload), 7):
        altered = bytearray(payload)
        altered[position] ^= 0x20
        try:
            kit = open_kit(bytes(altered), LEAD.public)
        except SignatureError:
            continue
        # A zip has fields that mean nothing here, such as a date; what is read is the same.
        assert kit == expected
        accepted += 1
    assert accepted < len(payload) / 7


@pytest.mark.parametrize("payload", [b"", b"not a zip", b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_kit_is_refused(payload: bytes) -> None:
    with pytest.raises(SignatureError) as caught:
        open_kit(payload)
    assert caught.value.code == "signature.malformed_kit"


def test_a_compressed_or_endless_kit_is_not_unpacked() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("startup/bomb", b"\0" * 50_000_000)
    with pytest.raises(SignatureError) as caught:
        open_kit(stream.getvalue())
    assert caught.value.code == "signature.malformed_kit"


def test_a_kit_of_another_lead_is_refused_by_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    lead, other = Lead(tmp_path / "a"), Lead(tmp_path / "b")
    with pytest.raises(CommandFailed, match=r"usage\.fingerprint_differs"):
        lead.invite("duke", kit=other.kit("duke"))
    with pytest.raises(CommandFailed, match=r"usage\.no_fingerprint"):
        command(
            *(site_main, tmp_path / "site", "init", "duke"),
            *("--kit", str(lead.kit("duke"))),
        )
    # A part of the fingerprint is no comparison.
    with pytest.raises(CommandFailed, match=r"usage\.fingerprint_differs"):
        command(
            *(site_main, tmp_path / "site", "init", "duke", "--kit", str(lead.kit("duke"))),
            *("--fingerprint", lead.fingerprint[:9]),
        )
    assert not (tmp_path / "site").exists()


def test_a_kit_of_another_site_is_refused(tmp_path: Path) -> None:
    lead = Lead(tmp_path)
    with pytest.raises(CommandFailed, match=r"usage\.kit_other_site"):
        lead.invite("yale", kit=lead.kit("duke"))


def test_a_newer_kit_replaces_startup_and_leaves_what_is_the_sites(tmp_path: Path) -> None:
    lead = Lead(tmp_path)
    first = lead.kit("duke").read_bytes()
    assert lead.kit("duke").read_bytes() == first
    site = lead.invite("duke")
    (site.home / "local" / "hospital-ca.pem").write_text("ours")
    (site.home / "local" / "README.txt").write_text("ours too")
    settings = (site.home / "site.yaml").read_bytes(), (site.courier / "courier.toml").read_bytes()
    key = (site.courier / "node.key").read_bytes()

    lead.verb("certificate", "rollover", "begin")
    newer = lead.kit("duke")
    assert site.verb("kit", "update", str(newer))["revision"] == 2
    authority = (lead.home / "courier" / "ca.crt").read_bytes()
    assert (site.home / "startup" / "ca.crt").read_bytes() == authority
    assert (site.courier / "ca.crt").read_bytes() == authority
    assert authority.count(b"BEGIN CERTIFICATE") == 2
    assert (site.home / "local" / "hospital-ca.pem").read_text() == "ours"
    assert (site.home / "local" / "README.txt").read_text() == "ours too"
    assert (site.courier / "node.key").read_bytes() == key
    assert settings == (
        (site.home / "site.yaml").read_bytes(),
        (site.courier / "courier.toml").read_bytes(),
    )

    older = tmp_path / "older.zip"
    older.write_bytes(first)
    with pytest.raises(CommandFailed, match=r"usage\.kit_older"):
        site.verb("kit", "update", str(older))
    (tmp_path / "b").mkdir()
    with pytest.raises(CommandFailed, match=r"signature\.untrusted_key"):
        site.verb("kit", "update", str(Lead(tmp_path / "b").kit("duke")))
    (site.home / "startup" / "ca.crt").chmod(0o644)
    (site.home / "startup" / "ca.crt").write_bytes(b"tampered")
    with pytest.raises(CommandFailed, match=r"signature\.kit_altered"):
        site.verb("kit", "show")
