"""Parsers of what comes before the first round: kits, enrolment requests, notices, certificates."""

from __future__ import annotations

import base64
import io
import json
import random
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from fuzz.engine import Parser, register
from fuzz.messages import LEAD, SITE, SITE_COURIER
from fuzz.mutations import damage_archive, damage_bytes, damage_json, damage_lines, damage_numbers

from fedcac.canonical import canonical_bytes
from fedcac.exchange.expiry import expiries_of
from fedcac.joining import EnrolmentRequest, Notice, RequestKeys, open_kit, open_request, seal_kit
from fedcac.joining.kits import KIT_FORMAT, KitManifest
from fedcac.joining.requests import REQUEST_FORMAT
from fedcac.signing import Envelope, seal
from site_agent.joining.kit_files import install_kit, installed_kit

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
_FILES = {"ca.crt": b"certificate", "README.md": b"words", "courier.key.pub": b"key"}


@cache
def _kit() -> bytes:
    return seal_kit(
        LEAD,
        consortium="CAC",
        site="duke",
        revision=1,
        superlink="lead.example.org:8443",
        files=_FILES,
    )


def _open_kit(payload: bytes, folder: Path) -> None:
    kit = open_kit(payload, LEAD.public)
    assert {name: kit.startup[name] for name in _FILES} == _FILES, "another file was taken"
    install_kit(folder / "site", kit)
    assert sorted(path.name for path in folder.iterdir()) == ["site"]
    found = installed_kit(folder / "site")
    assert found is not None
    assert found.manifest == kit.manifest


register(
    Parser(
        name="kit",
        writer="the lead, or whoever holds the file on its way",
        entry="fedcac.joining.open_kit",
        promise="every file is, byte for byte, the lead's; installed, it lies in one folder",
        seeds=lambda: [_kit()],
        parse=_open_kit,
        mutators=(damage_archive, damage_archive, damage_bytes),
    )
)


def _open_own_kit(payload: bytes, folder: Path) -> None:
    """Open a kit around a manifest that its own key signed, as a stranger can make one."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, part in _FILES.items():
            archive.writestr(f"startup/{name}", part)
        archive.writestr("startup/lead.pub", LEAD.public.to_text() + "\n")
        archive.writestr("startup/manifest.json", seal(payload, KIT_FORMAT, LEAD))
    kit = open_kit(stream.getvalue())
    assert KitManifest.model_validate_json(kit.manifest.model_dump_json()) == kit.manifest


register(
    Parser(
        name="kit-manifest",
        writer="a lead, or a stranger with a key of their own",
        entry="fedcac.joining.open_kit",
        promise="lists exactly the files that are there",
        seeds=lambda: [canonical_bytes(open_kit(_kit()).manifest.model_dump(mode="json"))],
        parse=_open_own_kit,
        mutators=(damage_json, damage_json, damage_numbers),
    )
)


def _request(keys: RequestKeys) -> EnrolmentRequest:
    made = EnrolmentRequest.make("CAC", LEAD.public, "duke", keys, NOW)
    # The nonce is drawn; a seed is to be the same every time.
    return made.model_copy(update={"nonce": "0" * 32})


def _open_request(payload: bytes, folder: Path) -> None:
    checked = open_request(payload, LEAD.public, NOW)
    bodies = {_request(keys).body() for keys in _KEYS}
    assert checked.request.body() in bodies, "signatures hold for another request"
    assert not checked.is_renewal_by(LEAD.public)


_KEYS = (RequestKeys(SITE, SITE_COURIER), RequestKeys(SITE))

register(
    Parser(
        name="enrolment-request",
        writer="a site, or whoever holds the file on its way",
        entry="fedcac.joining.open_request",
        promise="it is one of those that the keys signed",
        seeds=lambda: [_request(keys).seal(keys) for keys in _KEYS],
        parse=_open_request,
        mutators=(damage_json, damage_json, damage_bytes),
    )
)


def _open_own_request(payload: bytes, folder: Path) -> None:
    document = {
        "request": json.loads(seal(payload, REQUEST_FORMAT, SITE)),
        "node_signature": None,
        "renewal": None,
    }
    checked = open_request(canonical_bytes(document), LEAD.public, NOW)
    assert checked.key == SITE.public
    assert checked.request.body() == payload, "a request that is not canonical was taken"
    assert NOW - timedelta(days=31) < checked.request.made_at < NOW + timedelta(hours=1)


register(
    Parser(
        name="enrolment-body",
        writer="a site, whose signature holds",
        entry="fedcac.joining.open_request",
        promise="is canonical, and not older than a request may be",
        seeds=lambda: [_request(_KEYS[1]).body()],
        parse=_open_own_request,
        mutators=(damage_json, damage_json, damage_numbers, damage_bytes),
    )
)


def _notices() -> list[bytes]:
    renewal = Envelope.model_validate_json(seal(b"{}", REQUEST_FORMAT, SITE))
    former, following = SITE.public.to_text(), LEAD.public.to_text()
    made = (
        Notice(number=1, issued_at=NOW, site="duke", former_key=former),
        Notice(
            number=2,
            issued_at=NOW,
            site="duke",
            former_key=former,
            new_key=following,
            renewal=renewal,
        ),
    )
    return [canonical_bytes(one.model_dump(mode="json")) for one in made]


def _open_notice(payload: bytes, folder: Path) -> None:
    notice = Notice.open(seal(payload, "application/vnd.fedcac.notice+json", LEAD), LEAD.public)
    assert not notice.is_signed_by_former
    assert Notice.open(notice.seal(LEAD), LEAD.public) == notice


register(
    Parser(
        name="notice",
        writer="the lead, whose signature holds",
        entry="fedcac.joining.Notice.open",
        promise="can be sealed and opened again; no renewal that the former key did not sign",
        seeds=_notices,
        parse=_open_notice,
        mutators=(damage_json, damage_json, damage_numbers),
    )
)


@cache
def certificates() -> bytes:
    """Two certificates; Ed25519 signs the same bytes in the same way every time."""
    made = []
    for serial, name in enumerate(("lead.example.org", "authority"), start=1):
        key = Ed25519PrivateKey.from_private_bytes(bytes([serial]) * 32)
        named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            x509.CertificateBuilder(named, named, key.public_key(), serial)
            .not_valid_before(NOW - timedelta(days=1))
            .not_valid_after(NOW + timedelta(days=20))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(key, None)
        )
        made.append(certificate.public_bytes(Encoding.PEM))
    return b"".join(made)


def _expiries(payload: bytes, folder: Path) -> None:
    found = expiries_of(payload, "ca.crt")
    assert found
    for one in found:
        assert one.warning(NOW) is None or "ca.crt" in (one.warning(NOW) or "")


def _inner_bytes(rng: random.Random, payload: bytes, seeds: Sequence[bytes]) -> bytes:
    """Damage the DER inside the first PEM block."""
    head, _, rest = payload.partition(b"-----\n")
    body, mark, tail = rest.partition(b"-----END")
    try:
        der = base64.b64decode(body)
    except ValueError:
        return damage_bytes(rng, payload, seeds)
    return head + b"-----\n" + base64.encodebytes(damage_bytes(rng, der, [der])) + mark + tail


register(
    Parser(
        name="certificate",
        writer="the lead's IT, a hospital's proxy, or a web server on the way",
        entry="fedcac.exchange.expiry.expiries_of",
        promise="an end for every certificate, and words about it",
        seeds=lambda: [certificates()],
        parse=_expiries,
        mutators=(_inner_bytes, _inner_bytes, damage_bytes, damage_lines),
    )
)
