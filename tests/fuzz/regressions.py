"""Inputs that broke a promise once, in their smallest form, with what becomes of them now."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable

from fuzz.engine import CANARY, TOKEN
from fuzz.messages import SITE_COURIER, parcels
from fuzz.mutations import DEEP, packed

from fedcac.canonical import canonical_bytes

__all__ = ["REGRESSIONS"]


def _reply(old: bytes, new: bytes) -> Callable[[], bytes]:
    def made() -> bytes:
        body = canonical_bytes(parcels().reply.model_dump(mode="json"))
        assert old in body
        return body.replace(old, new, 1)

    return made


def _aggregate(count: int) -> bytes:
    answers = parcels().reply.answers.values()
    released = next(a.release for a in answers if a.release and "matrix" in a.release)
    return canonical_bytes(released | {"n_patients": count})


def _archive(flags: int, method: int, damage: bool = False) -> bytes:
    """An archive whose member says that it is under a password, or packed in an unknown way."""
    packing = zipfile.ZIP_DEFLATED
    whole = bytearray(packed([("releases.jsonl", b'{"a":1}' * 99)], packing))
    central = whole.find(b"PK\x01\x02")
    for start in (6, central + 8):
        whole[start] |= flags
    for start in (8, central + 10):
        whole[start] = method if method else whole[start]
    if damage:
        at = whole.find(b"releases.jsonl") + len("releases.jsonl")
        whole[at : at + 4] = b"\xff\xff\xff\xff"
    return bytes(whole)


def _courier_key() -> bytes:
    """A courier's key whose point is stored in the short form, which no key of ours is."""
    import base64

    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    text = SITE_COURIER._key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    body = base64.b64decode(b"".join(text.splitlines()[1:-1]))
    odd = body.replace(b"nistp384\0\0\0a\x04", b"nistp384\0\0\0a\x02")
    assert odd != body
    lines = base64.encodebytes(odd)
    mark = b"OPENSSH PRIVATE KEY-----\n"
    return b"-----BEGIN " + mark + lines + b"-----END " + mark


def _certificate() -> bytes:
    """A certificate that says it is of version 66."""
    import base64

    from fuzz.joining import certificates

    lines = certificates().partition(b"-----END")[0].splitlines()
    body = base64.b64decode(b"".join(lines[1:]))
    odd = body.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x42", 1)
    assert odd != body
    mark = b"CERTIFICATE-----\n"
    return b"-----BEGIN " + mark + base64.encodebytes(odd) + b"-----END " + mark


def _regions(maximum: str) -> bytes:
    points = "".join(f"<string>({x},{y})</string>" for x, y in ((1, 1), (2, 1), (2, 2)))
    return (
        '<?xml version="1.0"?><plist version="1.0"><dict><key>Images</key><array><dict>'
        "<key>ImageIndex</key><integer>1</integer><key>ROIs</key><array><dict>"
        f"<key>Name</key><string>left main</string><key>Max</key>{maximum}"
        f"<key>Point_px</key><array>{points}</array></dict></array></dict></array></dict></plist>"
    ).encode()


def _released(value: bytes) -> bytes:
    """The first line of a file of releases, with a number that has no canonical form."""
    line = {"what": "round", "digest": "sha256:" + "0" * 64, "document": {"a": 1}}
    return json.dumps(line).encode().replace(b'{"a": 1}', b'{"a": ' + value + b"}")


def _tagged(kind: bytes, value: bytes, where: bytes) -> bytes:
    """A DICOM file whose only element has a value of another type than it says."""
    stream = io.BytesIO(bytes(128) + b"DICM")
    stream.seek(132)
    stream.write(where + kind + len(value).to_bytes(2, "little") + value)
    return stream.getvalue()


_FORM = (
    b"POST /launch/preview multipart/form-data; boundary=x\n--x\r\n"
    b'Content-Disposition: form-data; name="form_token"\r\n\r\n' + TOKEN + b"\r\n--x\r\n"
    b"Content-Disposition\xd3: form-data\r\n\r\n1\r\n--x--\r\n"
)

REGRESSIONS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "an escape beyond Unicode in YAML": (
        "protocol",
        lambda: b'a: "\\UFFFFFFFF"',
        "protocol.not_yaml",
    ),
    "a YAML node that holds itself": ("protocol", lambda: b"a: &a [*a]", "protocol.not_plain"),
    "settings with an escape beyond Unicode": (
        "site-settings",
        lambda: b'name: "\\UFFFFFFFF"',
        "usage.bad_settings",
    ),
    "settings with a day that does not exist": (
        "site-settings",
        lambda: b"name: 2020-99-99",
        "usage.bad_settings",
    ),
    "settings with a number of 5000 digits": (
        "site-settings",
        lambda: b"name: " + b"9" * 5000,
        "usage.bad_settings",
    ),
    "settings nested 3000 deep": (
        "site-settings",
        lambda: b"name: " + b"[" * DEEP,
        "usage.bad_settings",
    ),
    "settings with an empty number": (
        "site-settings",
        lambda: b"name: !!int ''",
        "usage.bad_settings",
    ),
    "settings that are not UTF-8": ("site-settings", lambda: b"\xff\xfe\xff", "usage.bad_settings"),
    "a description of a package with a day that does not exist": (
        "package-description",
        lambda: b"family: 2020-99-99",
        "package.bad_manifest",
    ),
    "courier settings that are not UTF-8": (
        "courier-settings",
        lambda: b"\xff",
        "usage.bad_settings",
    ),
    "courier settings nested 3000 deep": (
        "courier-settings",
        lambda: b"a = " + b"[" * DEEP,
        "usage.bad_settings",
    ),
    "courier settings with a number of 5000 digits": (
        "courier-settings",
        lambda: b"a = " + b"9" * 5000,
        "usage.bad_settings",
    ),
    "a release with a number beyond floats": (
        "reply",
        _reply(b'"release":{', b'"release":{"x":1e999,'),
        "round.malformed_message",
    ),
    "a release with a number that is none": (
        "reply",
        _reply(b'"release":{', b'"release":{"x":NaN,'),
        "round.malformed_message",
    ),
    "a masking note with a number beyond floats": (
        "masking-note",
        lambda: (
            b'{"document":{"a":-Infinity},"exchange":1,"issued_at":"2026-01-01T00:00:00Z",'
            b'"round_id":"fuzz-0001","site":"duke","step":"plan"}'
        ),
        "round.malformed_message",
    ),
    "a message written at no time zone's time": (
        "closing",
        lambda: b'{"issued_at":"2026-01-01T00:00:00","outcome":"closed","round_id":"fuzz-0001"}',
        "round.malformed_message",
    ),
    "a count that no array holds": (
        "aggregate",
        lambda: _aggregate(2**63),
        "gate.malformed_aggregate",
    ),
    "the largest count": ("aggregate", lambda: _aggregate(2**53), "accepted"),
    "a manifest with a number beyond floats": (
        "package-manifest",
        lambda: b'{"architecture":{"a":1e999}}',
        "package.bad_manifest",
    ),
    "an Ed25519 key that says X448": (
        "key-file",
        lambda: (
            b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VvBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUW"
            b"FxgZGhscHR4f\n-----END PRIVATE KEY-----\n"
        ),
        "signature.malformed_key",
    ),
    "a courier's key with a short point": (
        "courier-key-file",
        _courier_key,
        "signature.bad_courier_key",
    ),
    "releases with a number beyond floats": (
        "releases",
        lambda: _released(b"1e999"),
        "integrity.releases_malformed",
    ),
    "an archive under a password": (
        "releases-archive",
        lambda: _archive(1, 0),
        "usage.no_releases",
    ),
    "an archive packed in an unknown way": (
        "releases-archive",
        lambda: _archive(0, 99),
        "usage.no_releases",
    ),
    "an archive whose member is damaged": (
        "releases-archive",
        lambda: _archive(0, 0, damage=True),
        "usage.no_releases",
    ),
    "estimates that are not UTF-8": (
        "estimates",
        lambda: b"analysis\xef,scope",
        "table.estimates_value",
    ),
    "a clinical table whose header swallows the lines below": (
        "clinical-table",
        lambda: (
            f'patient_id,reference_score,age,sex,follow_up_days,"vent\n{CANARY}-1,1'.encode()
            + f',6,male,4,1\n"\n{CANARY}-1,10,61,male,1,0\n'.encode()
        ),
        "table.missing_column",
    ),
    "a protocol of 3000 keys that are unknown": (
        "protocol",
        lambda: b"".join(b"unknown%d: 1\n" % n for n in range(3000)),
        "protocol.missing_key",
    ),
    "a manifest whose header runs on into a patient's line": (
        "manifest",
        lambda: f"path,role,patient_id,/{CANARY}/2,{CANARY},20200103\n/3,index,P3,\n".encode(),
        "table.unknown_column",
    ),
    "a measured value of 400 digits": (
        "regions",
        lambda: _regions("<integer>" + "9" * 400 + "</integer>"),
        "cohort.bad_annotation",
    ),
    "an annotation with an element of the wrong length": (
        "structure-set",
        lambda: _tagged(b"UL", b"\xd9\xa1", b"\x02\0\0\0"),
        "cohort.unknown_annotation",
    ),
    "an annotation whose class is a patient's number": (
        "structure-set",
        lambda: _tagged(b"UI", CANARY.encode(), b"\x08\x00\x16\x00"),
        "cohort.unknown_annotation",
    ),
    "an answer of a PACS with a text of the wrong length": (
        "c-find-answer",
        lambda: _tagged(b"FD", b"0x10", b"\x08\x00\x30\x10"),
        "accepted",
    ),
    "an answer of a PACS nested 3000 deep": (
        "dicomweb",
        lambda: b'[{"0020000D":' * DEEP,
        "cohort.pacs_truncated",
    ),
    "a count of 5000 digits from a PACS": (
        "dicomweb",
        lambda: (
            b'[{"0020000E":{"Value":["1.2"]},"0020000D":{"Value":["1.2"]},'
            b'"00201209":{"Value":["' + b"9" * 5000 + b'"]}}]'
        ),
        "accepted",
    ),
    "a certificate of a version that there is none": (
        "certificate",
        _certificate,
        "usage.bad_certificate",
    ),
    "a form with a header that is none": ("form", lambda: _FORM, "accepted"),
}
