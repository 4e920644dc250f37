"""Reads `releases.jsonl`: every document is checked before anything is made of it.

Its digest against the first line, its signature against the keys that the first line names, the
first line against the lead's key, and what the documents say of one another.
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from coordinator.reports.release_records import (
    PAYLOAD_TYPES,
    RELEASES_FILE,
    Part,
    Record,
    RoundHeader,
    What,
    envelope_of,
    part_words,
)
from coordinator.rounds.masked_sums import SumOfSites
from coordinator.rounds.views import Used
from fedcac.canonical import canonical_bytes, digest_of, sha256_hex
from fedcac.errors import GateError, IntegrityError, SignatureError, UsageError
from fedcac.exchange import Offer, Reply, Request
from fedcac.models.manifest import PackageManifest
from fedcac.protocol import Protocol
from fedcac.signing import PublicKey, open_envelope, trusted

__all__ = ["Releases", "read_releases"]

_LARGEST_RELEASES = 2**30
# RuntimeError: a member under a password, or packed in a way that is not known here.
_UNREADABLE: tuple[type[Exception], ...] = (
    OSError,
    KeyError,
    ValueError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
_ASK_AGAIN = "Ask who wrote it for the file as it was written."

B = TypeVar("B", bound=BaseModel)

_STEP: TypeAdapter[dict[str, dict[str, int]]] = TypeAdapter(
    dict[str, dict[str, int]], config=ConfigDict(strict=True)
)


@dataclass(frozen=True)
class Releases:
    """A checked file of releases.

    Attributes
    ----------
    requests, replies
        By exchange, and by exchange and site. Requests are there in signed files only.
    sums
        One mapping of analyses per exchange; empty where nothing was masked.
    steps
        Of a later edition, which exchange every answer comes from; empty in a first edition.
    n_signed
        Documents whose signature was checked, the first line included.
    lead_key
        Who signed the first line; None if nobody did.
    payload
        The file's bytes.
    """

    header: RoundHeader
    protocol: Protocol
    offer: Offer
    package: PackageManifest | None
    requests: Mapping[int, Request]
    replies: Mapping[tuple[int, str], Reply]
    sums: tuple[Mapping[str, SumOfSites], ...]
    steps: tuple[Used, ...]
    n_signed: int
    lead_key: PublicKey | None
    payload: bytes


def read_releases(path: Path, lead_key: PublicKey | None = None) -> Releases:
    """Read and check a file of releases, or the one of an output folder.

    Parameters
    ----------
    path
        The file, the folder, or the archive that `fedcac-coordinator round export` wrote.
    lead_key
        The key that must have signed the file, where the reader knows it. Without it a signature
        only says that the file agrees with itself.

    Raises
    ------
    UsageError
        If there is no such file (`no_releases`).
    IntegrityError
        If a line does not have its shape (`releases_malformed`), a document is not the one that
        the first line lists (`releases_altered`), or one is missing or not listed
        (`releases_incomplete`).
    SignatureError
        If a signature does not fit (`bad_signature`), is by another key (`untrusted_key`), or
        `lead_key` is given and the file is not signed (`unsigned_releases`).
    """
    payload = _bytes_of(path)
    records = [_line(line, number) for number, line in enumerate(payload.splitlines(), start=1)]
    if not records or records[0].what != "round":
        raise _malformed("its first line is not that of a round")
    header = _typed(RoundHeader, records[0])
    _check_parts(header.parts, records[1:])
    for record in records:
        if digest_of(record.document) != record.digest:
            raise _altered(record)
    lead = _check_signatures(header, records, lead_key)
    releases = _assembled(header, records[1:], lead, payload)
    _check_round(releases)
    _check_requests(releases, records)
    return releases


def _bytes_of(path: Path) -> bytes:
    try:
        if path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _member(archive)
        return (path / RELEASES_FILE if path.is_dir() else path).read_bytes()
    except _UNREADABLE as error:
        raise UsageError(
            f"There are no releases at '{path}'.",
            code="no_releases",
            cure=f"Give an output folder, the file {RELEASES_FILE} of one, or the archive of a "
            "pooled round.",
        ) from error


def _member(archive: zipfile.ZipFile) -> bytes:
    # What a member says of its size is not believed: a small archive can unpack to anything.
    with archive.open(RELEASES_FILE) as stream:
        payload = stream.read(_LARGEST_RELEASES + 1)
    if len(payload) > _LARGEST_RELEASES:
        raise _malformed("it is larger than any round's")
    return payload


def _line(line: bytes, number: int) -> Record:
    try:
        return Record.model_validate_json(line)
    except ValidationError as error:
        raise _malformed(f"line {number} is not one of its kind") from error


def _typed(kind: type[B], record: Record) -> B:
    try:
        return kind.model_validate_json(canonical_bytes(record.document))
    except ValidationError as error:
        raise _malformed(f"the {part_words(record)} does not have its shape") from error


def _check_parts(parts: Sequence[Part], records: Sequence[Record]) -> None:
    if [part_words(part) for part in parts] != [part_words(record) for record in records]:
        listed, found = (
            {part_words(one) for one in parts},
            {part_words(one) for one in records},
        )
        missing, surplus = sorted(listed - found), sorted(found - listed)
        words = [f"missing: {'; '.join(missing)}"] if missing else []
        words += [f"not listed: {'; '.join(surplus)}"] if surplus else []
        raise _incomplete(", ".join(words) or "the parts are not in their order")
    for part, record in zip(parts, records, strict=True):
        if part != record.part():
            raise _altered(record)


def _check_signatures(
    header: RoundHeader, records: Sequence[Record], pinned: PublicKey | None
) -> PublicKey | None:
    """Check every signature; return the key of the first line's, None if it has none."""
    first = records[0]
    if pinned is not None and first.signature is None:
        raise SignatureError(
            "The releases are not signed.",
            code="unsigned_releases",
            cure="Ask the lead for the folder that `fedcac-coordinator report` wrote.",
        )
    lead = pinned or (PublicKey.from_text(header.lead_key) if header.lead_key else None)
    keys = {
        site.name: PublicKey.from_text(site.public_key) for site in header.sites if site.public_key
    }
    for record in records:
        signer = keys.get(record.site or "") if record.what == "reply" else lead
        envelope = envelope_of(record)
        if envelope is not None:
            open_envelope(envelope, PAYLOAD_TYPES[record.what], trusted([signer] if signer else []))
    return lead if first.signature else None


def _assembled(
    header: RoundHeader, records: Sequence[Record], lead: PublicKey | None, payload: bytes
) -> Releases:
    def of(what: What) -> list[Record]:
        return [record for record in records if record.what == what]

    protocols, offers = of("protocol"), of("offer")
    if len(protocols) != 1 or len(offers) != 1:
        raise _incomplete("there must be one protocol and one offer")
    if max((record.exchange or 0 for record in of("reply")), default=0) != header.exchanges:
        raise _incomplete(f"there must be replies up to exchange {header.exchanges}")
    sums = of("sums")
    if sums and [record.exchange for record in sums] != list(range(1, header.exchanges + 1)):
        raise _incomplete("there must be the sums of every exchange, or none")
    steps = of("step")
    if [record.exchange for record in steps] != list(range(1, len(steps) + 1)) or bool(steps) != (
        header.edition > 1
    ):
        raise _incomplete("there must be every step of a later edition, and of no other")
    return Releases(
        header=header,
        protocol=_typed(Protocol, protocols[0]),
        offer=_typed(Offer, offers[0]),
        package=_package(header),
        requests={record.exchange or 0: _typed(Request, record) for record in of("request")},
        replies={
            (record.exchange or 0, record.site or ""): _typed(Reply, record)
            for record in of("reply")
        },
        sums=tuple(_sums(record) for record in sums),
        steps=tuple(_step(record) for record in steps),
        n_signed=sum(record.signature is not None for record in records) + (lead is not None),
        lead_key=lead,
        payload=payload,
    )


def _package(header: RoundHeader) -> PackageManifest | None:
    if header.package is None:
        return None
    try:
        return PackageManifest.model_validate_json(canonical_bytes(header.package))
    except ValidationError as error:
        raise _malformed("the package's manifest does not have its shape") from error


def _sums(record: Record) -> dict[str, SumOfSites]:
    try:
        return {
            analysis: SumOfSites.from_document(told) for analysis, told in record.document.items()
        }
    except (GateError, KeyError, TypeError, ValueError) as error:
        raise _malformed(f"the {part_words(record)} does not have its shape") from error


def _step(record: Record) -> Used:
    try:
        return _STEP.validate_python(record.document)
    except ValidationError as error:
        raise _malformed(f"the {part_words(record)} does not have its shape") from error


def _check_round(releases: Releases) -> None:
    """Check that all documents are about one round, one protocol and one package."""
    header, offer = releases.header, releases.offer
    ids = {offer.round_id, *(r.round_id for r in releases.replies.values())}
    ids |= {request.round_id for request in releases.requests.values()}
    package = releases.package.digest() if releases.package else offer.package_digest
    agrees = (
        ids == {header.round_id}
        and offer.protocol_digest == releases.protocol.digest()
        and offer.package_digest == package
        and offer.sites == tuple(site.name for site in header.sites)
        and all(
            (reply.exchange, reply.site) == key and reply.site in offer.sites
            for key, reply in releases.replies.items()
        )
        and all(request.exchange == number for number, request in releases.requests.items())
        and all(
            (exchange, site) in releases.replies
            for step in releases.steps
            for sites in step.values()
            for site, exchange in sites.items()
        )
        and all(_promised(releases, number) for number in range(1, len(releases.sums) + 1))
    )
    if not agrees:
        raise IntegrityError(
            "The documents are not all of one round.", code="releases_altered", cure=_ASK_AGAIN
        )


def _promised(releases: Releases, number: int) -> bool:
    """Say whether every site of an exchange's sums promised a vector in its reply."""
    for analysis, told in releases.sums[number - 1].items():
        for site in told.sites:
            reply = releases.replies.get((number, site))
            answer = reply.answers.get(analysis) if reply else None
            if answer is None or answer.layout is None:
                return False
    return True


def _check_requests(releases: Releases, records: Sequence[Record]) -> None:
    """Check that every reply answers the very request that is there."""
    digests = {
        record.exchange: sha256_hex(envelope)
        for record in records
        if record.what == "request" and (envelope := envelope_of(record)) is not None
    }
    for (number, site), reply in releases.replies.items():
        if digests.get(number, reply.request_digest) != reply.request_digest:
            raise IntegrityError(
                f"The reply of {site} in exchange {number} answers another request.",
                code="releases_altered",
                cure=_ASK_AGAIN,
            )


def _malformed(why: str) -> IntegrityError:
    return IntegrityError(
        f"This is not a file of releases: {why}.",
        code="releases_malformed",
        cure=f"Give the file {RELEASES_FILE} of an output folder, written by this version.",
    )


def _altered(record: Record) -> IntegrityError:
    return IntegrityError(
        f"The {part_words(record)} is not what the first line lists.",
        code="releases_altered",
        cure=_ASK_AGAIN,
    )


def _incomplete(why: str) -> IntegrityError:
    return IntegrityError(
        f"The releases are not complete: {why}.", code="releases_incomplete", cure=_ASK_AGAIN
    )
