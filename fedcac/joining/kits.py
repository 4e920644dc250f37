"""A startup kit: all that a hospital's IT needs to join, in one file that the lead signed.

A zip with two folders, as in a network appliance: `startup/` is the lead's, read-only, listed with
the SHA-256 of every file in `manifest.json`, an envelope of the lead; `local/` is the site's, empty
in the file, and no newer kit writes there. The same contents give the same bytes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fedcac.canonical import canonical_bytes, sha256_hex
from fedcac.errors import SignatureError
from fedcac.signing import PublicKey, SigningKey, open_envelope, seal, trusted

__all__ = [
    "KIT_FORMAT",
    "MANIFEST_NAME",
    "Kit",
    "KitManifest",
    "check_startup",
    "open_kit",
    "seal_kit",
]

KIT_FORMAT = "application/vnd.fedcac.kit+json"
MANIFEST_NAME = "manifest.json"
_STARTUP, _LOCAL = "startup/", "local/"
_LEAD_KEY = "lead.pub"
_MOMENT = (2020, 1, 1, 0, 0, 0)
_LARGEST_FILE = 8 * 2**20
_MOST_ENTRIES = 40

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$")]
DigestWord = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
SiteWord = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]
HostPort = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,252}:[0-9]{1,5}$")]
ConsortiumName = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,80}$")]


class KitManifest(BaseModel):
    """What the lead signs of a kit.

    Attributes
    ----------
    consortium, site
        Whose consortium it is, and for which site the kit was made.
    revision
        Grows with every change of the contents; a site never goes back.
    superlink
        HOST:PORT of the one port that the site reaches, None where parcels go by hand.
    files
        SHA-256 of every other file of `startup/`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    consortium: ConsortiumName
    site: SiteWord
    revision: Annotated[int, Field(ge=1)]
    superlink: HostPort | None = None
    files: dict[FileName, DigestWord]


@dataclass(frozen=True)
class Kit:
    """A verified kit: its manifest, the lead's key that signed it, and `startup/` by file name."""

    manifest: KitManifest
    lead: PublicKey
    startup: Mapping[str, bytes]


def seal_kit(
    key: SigningKey,
    *,
    consortium: str,
    site: str,
    revision: int,
    superlink: str | None,
    files: Mapping[str, bytes],
) -> bytes:
    """Return the bytes of a kit; `lead.pub` is added to `files`."""
    contents = {**files, _LEAD_KEY: (key.public.to_text() + "\n").encode("ascii")}
    manifest = KitManifest(
        consortium=consortium,
        site=site,
        revision=revision,
        superlink=superlink,
        files={name: sha256_hex(payload) for name, payload in contents.items()},
    )
    document = canonical_bytes(manifest.model_dump(mode="json"))
    contents[MANIFEST_NAME] = seal(document, KIT_FORMAT, key)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(_entry(_LOCAL, 0o40755), b"")
        for name in sorted(contents):
            archive.writestr(_entry(_STARTUP + name, 0o100444), contents[name])
    return stream.getvalue()


def _entry(name: str, mode: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _MOMENT)
    entry.create_system = 3
    entry.external_attr = mode << 16
    return entry


def open_kit(payload: bytes, lead: PublicKey | None = None) -> Kit:
    """Verify a kit and return it.

    Parameters
    ----------
    payload
        The file's bytes.
    lead
        The pinned key, for a newer kit. With None the key in the kit is believed, and the caller
        must have its fingerprint compared by a person.

    Raises
    ------
    SignatureError
        `malformed_kit` if it is no kit; `kit_altered` if a file is missing, altered or not listed;
        `untrusted_key` or `bad_signature` if the lead did not sign the manifest.
    """
    return check_startup(_unpacked(payload), lead)


def check_startup(startup: Mapping[str, bytes], lead: PublicKey | None) -> Kit:
    """Verify the files of a `startup` folder; parameters and errors are those of `open_kit`."""
    try:
        claimed = PublicKey.from_text(startup[_LEAD_KEY].decode("ascii"))
        envelope = startup[MANIFEST_NAME]
    except (KeyError, UnicodeDecodeError) as error:
        raise _malformed() from error
    try:
        document, signer = open_envelope(envelope, KIT_FORMAT, trusted([lead or claimed]))
        manifest = KitManifest.model_validate_json(document)
    except ValueError as error:
        raise _malformed() from error
    given = {name: sha256_hex(part) for name, part in startup.items() if name != MANIFEST_NAME}
    if given != manifest.files or claimed != signer:
        wrong = sorted(
            name
            for name in given.keys() | manifest.files.keys()
            if given.get(name) != manifest.files.get(name)
        )
        raise SignatureError(
            f"The kit is not what the lead signed: {', '.join(wrong) or _LEAD_KEY}.",
            code="kit_altered",
            cure="Install nothing of it; ask the lead for the kit again over another channel.",
        )
    return Kit(manifest, signer, startup)


def _unpacked(payload: bytes) -> dict[str, bytes]:
    startup: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_ENTRIES:
                raise _malformed()
            for entry in entries:
                if entry.filename == _LOCAL:
                    continue
                name = entry.filename.removeprefix(_STARTUP)
                is_odd = "/" in name or name == entry.filename or name in startup
                # Stored, not deflated: the size that is told is the size that is read.
                if is_odd or entry.compress_type or entry.file_size > _LARGEST_FILE:
                    raise _malformed()
                startup[name] = archive.read(entry)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise _malformed() from error
    return startup


def _malformed() -> SignatureError:
    return SignatureError(
        "This is not a startup kit, or something was put into it.",
        code="malformed_kit",
        cure="Ask the lead for the file that `fedcac-coordinator kit` wrote.",
    )
