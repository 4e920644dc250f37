"""Writes `releases.jsonl`: all that a round's estimates were pooled from, for a third party.

The file holds what the coordinator got, no more: releases, refusal codes, layouts of masked
vectors, and sums. Whoever has it can pool the round again (coordinator.reports.repooling).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import JsonValue

from coordinator.reports.release_records import (
    HEADER_TYPE,
    EditionEntry,
    Record,
    RoundHeader,
    SiteEntry,
    record_of,
)
from coordinator.rounds.intake import TO_PARTICIPANTS
from coordinator.rounds.site_keys import SiteKeys
from coordinator.rounds.views import RoundView, SiteView
from coordinator.state.store import CoordinatorStore, Direction
from fedcac import __version__
from fedcac.canonical import canonical_bytes, sha256_hex
from fedcac.errors import RoundError
from fedcac.exchange import parcel_name
from fedcac.report import estimates_csv
from fedcac.signing import PublicKey, SigningKey, seal

if TYPE_CHECKING:
    from fedcac.models.manifest import PackageManifest

__all__ = ["RoundSeals", "releases_jsonl", "seals_of"]


@dataclass(frozen=True)
class RoundSeals:
    """The signed envelopes of a round, and the keys behind them.

    `envelope` returns the envelope of a part by what it is, its exchange and its site, or None.
    """

    lead: SigningKey
    site_keys: Mapping[str, PublicKey]
    envelope: Callable[[str, int | None, str | None], bytes | None]


def seals_of(store: CoordinatorStore, lead: SigningKey, round_id: str) -> RoundSeals:
    """Return the seals of a stored round."""

    def envelope(what: str, exchange: int | None, site: str | None) -> bytes | None:
        name = parcel_name(round_id, what, exchange)
        if what == "reply":
            return store.parcel(round_id, Direction.RECEIVED, name, site or "")
        receiver = TO_PARTICIPANTS if what == "request" else ""
        return store.parcel(round_id, Direction.SENT, name, receiver)

    keys = SiteKeys(store).at(store.round(round_id).started_at)
    return RoundSeals(lead, keys, envelope)


def releases_jsonl(
    view: RoundView, package: PackageManifest | None, seals: RoundSeals | None
) -> bytes:
    """Return the file of a pooled round; without seals it carries digests and no signature.

    Raises
    ------
    RoundError
        If the round has not ended (`not_pooled`).
    """
    if view.record.finished_at is None:
        raise RoundError("The round has not ended.", code="not_pooled")
    records = tuple(_records(view, seals))
    header = RoundHeader(
        round_id=view.record.round_id,
        software=__version__,
        minimum_sites=view.record.minimum_sites,
        started_at=view.record.started_at,
        deadline=view.record.deadline,
        finished_at=view.record.finished_at,
        exchanges=view.n_exchanges,
        lead_key=seals.lead.public.to_text() if seals else None,
        sites=tuple(_entry(site, seals) for site in view.sites),
        estimates_digest=sha256_hex(estimates_csv(view.estimates).encode()),
        package=None if package is None else json.loads(package.to_bytes()),
        edition=view.record.edition,
        editions=tuple(
            EditionEntry.model_validate(
                {
                    "edition": one.edition,
                    "added": one.added,
                    "reason": one.reason,
                    "started_at": one.started_at,
                    "deadline": one.deadline,
                    "finished_at": one.finished_at,
                    "outcome": one.outcome and one.outcome.value,
                }
            )
            for one in view.editions
        ),
        parts=tuple(record.part() for record in records),
    )
    document = header.model_dump(mode="json")
    envelope = seal(canonical_bytes(document), HEADER_TYPE, seals.lead) if seals else None
    first = record_of("round", document, envelope)
    return b"".join(record.to_line() for record in (first, *records))


def _entry(site: SiteView, seals: RoundSeals | None) -> SiteEntry:
    key = seals.site_keys.get(site.name) if seals else None
    return SiteEntry(
        name=site.name,
        is_accepting=site.is_accepting,
        refusal=site.refusal,
        public_key=None if key is None else key.to_text(),
        n_bytes=site.n_bytes,
    )


def _records(view: RoundView, seals: RoundSeals | None) -> Iterator[Record]:
    def envelope(what: str, exchange: int | None = None, site: str | None = None) -> bytes | None:
        return seals.envelope(what, exchange, site) if seals else None

    yield record_of("protocol", view.protocol.model_dump(mode="json"), envelope("protocol"))
    yield record_of("offer", view.offer.model_dump(mode="json"), envelope("offer"))
    for number in range(1, view.n_exchanges + 1):
        request = envelope("request", number)
        if request is not None:
            yield record_of("request", {}, request, exchange=number)
        for site in view.sites:
            for reply in site.replies:
                if reply.exchange == number:
                    yield record_of(
                        "reply",
                        reply.model_dump(mode="json"),
                        envelope("reply", number, site.name),
                        exchange=number,
                        site=site.name,
                    )
        if view.sums:
            sums = view.sums[number - 1]
            told: dict[str, JsonValue] = {name: sums[name].to_document() for name in sums}
            yield record_of("sums", told, exchange=number)
    for number, used in enumerate(view.steps, start=1):
        document: dict[str, JsonValue] = {name: dict(sites) for name, sites in used.items()}
        yield record_of("step", document, exchange=number)
