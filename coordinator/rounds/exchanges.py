"""The exchanges of a round's first edition: ask, wait, close, exchange after exchange."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta

from pydantic import JsonValue

from coordinator.rounds.intake import TO_NOBODY, TO_PARTICIPANTS, Intake
from coordinator.rounds.masked_sums import MaskedSums
from coordinator.rounds.round_reading import RoundReader
from coordinator.state.leases import Lease
from coordinator.state.records import Direction, Event, EventKind, RoundRecord, RoundState
from coordinator.state.store import CoordinatorStore
from fedcac.canonical import canonical_bytes
from fedcac.exchange import Courier, Offer, Query, Request, parcel_name
from fedcac.protocol import Protocol
from fedcac.signing import SigningKey
from fedcac.vocabulary import SiteName

__all__ = ["ENGINE", "Exchanges"]

ENGINE = "engine"
"""The actor of what no person does."""

_REQUEST_LIFETIME = timedelta(days=30)


class Exchanges:
    """Drives the exchanges of rounds; each call does what is due now."""

    def __init__(
        self,
        store: CoordinatorStore,
        courier: Courier,
        intake: Intake,
        sums: MaskedSums,
        reader: RoundReader,
        key: SigningKey,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._courier = courier
        self._intake = intake
        self._sums = sums
        self._reader = reader
        self._key = key
        self._clock = clock

    def run(self, record: RoundRecord, offer: Offer, protocol: Protocol, lease: Lease) -> None:
        """Move the first edition on as far as the sites' answers reach."""
        self._take_in_later_sites(record, offer)
        session, steps = self._reader.replay(offer, protocol, 1)
        if offer.masking is not None:
            self._sums.send_channels(offer, self._reader.accepted(offer))
        while not session.is_finished:
            lease.check()
            exchange = len(steps) + 1
            participants = tuple(self._reader.accepted(offer))
            self.send(record, offer, exchange, session.queries, participants)
            if self._close(record, offer, exchange, participants) is None:
                return
            if not self._has_sums(record, offer, protocol, exchange, session.queries):
                return
            session, steps = self._reader.replay(offer, protocol, 1)
        self.pooled(record)

    def send(
        self,
        record: RoundRecord,
        offer: Offer,
        exchange: int,
        queries: Mapping[str, Query],
        sites: Collection[str],
    ) -> None:
        """Send the request of an exchange to sites, signed and stored when it is first sent."""
        name = parcel_name(offer.round_id, "request", exchange)
        envelope = self._store.parcel(offer.round_id, Direction.SENT, name, TO_PARTICIPANTS)
        if envelope is None:
            now = self._clock()
            patience = record.deadline - (record.edition_at or record.started_at)
            envelope = Request(
                round_id=offer.round_id,
                issued_at=now,
                exchange=exchange,
                protocol_digest=offer.protocol_digest,
                expires_at=now + max(_REQUEST_LIFETIME, patience),
                queries=dict(queries),
            ).seal(self._key)
            detail: dict[str, JsonValue] = {
                "exchange": exchange,
                "sites": list(sites),
                "analyses": len(queries),
            }
            sent = Event(now, ENGINE, EventKind.EXCHANGE_SENT, offer.round_id, detail=detail)
            self._store.add_parcel(
                offer.round_id,
                Direction.SENT,
                name,
                envelope,
                TO_PARTICIPANTS,
                at=now,
                events=[sent],
            )
        for site in sites:
            self._courier.send(SiteName(site), name, envelope)

    def pooled(self, record: RoundRecord) -> None:
        """End the edition: every analysis is estimated."""
        now = self._clock()
        detail: dict[str, JsonValue] = {"edition": record.edition}
        event = Event(now, ENGINE, EventKind.POOLED, record.round_id, detail=detail)
        self._store.move(record, RoundState.POOLED, event, finished_at=now)

    def failed(self, record: RoundRecord, n_sites: int) -> None:
        """End the edition: too few sites took part before the deadline."""
        now = self._clock()
        detail: dict[str, JsonValue] = {
            "edition": record.edition,
            "reason": "too_few_sites",
            "sites": n_sites,
            "minimum_sites": record.minimum_sites,
        }
        event = Event(now, ENGINE, EventKind.FAILED, record.round_id, detail=detail)
        self._store.move(record, RoundState.FAILED, event, finished_at=now)

    def _take_in_later_sites(self, record: RoundRecord, offer: Offer) -> None:
        """Let sites that accept while the first exchange is open take part in it.

        The quorum may have begun without them. The keys of masked sums are listed once.
        """
        if offer.masking is None and self._reader.counted(record.round_id, 1) is None:
            for site in offer.sites:
                self._reader.acceptance(offer, site, collect=True)

    def _close(
        self, record: RoundRecord, offer: Offer, exchange: int, participants: tuple[str, ...]
    ) -> tuple[str, ...] | None:
        """Close an exchange once it is complete; return the sites whose replies count, or None.

        Which replies count is stored: one that comes later must not change what was already asked.
        """
        if (counted := self._reader.counted(offer.round_id, exchange)) is not None:
            return counted
        replied = tuple(
            s for s in participants if self._intake.reply(offer, exchange, s, collect=True)
        )
        enough = min(len(participants), record.quorum or len(participants))
        if len(replied) < enough:
            if self._clock() <= self._reader.deadline(record, exchange):
                return None
            if len(replied) < record.minimum_sites:
                self.failed(record, len(replied))
                return None
        now = self._clock()
        detail: dict[str, JsonValue] = {"exchange": exchange, "sites": list(replied)}
        self._store.add_parcel(
            record.round_id,
            Direction.SENT,
            parcel_name(record.round_id, "closed", exchange),
            canonical_bytes(list(replied)),
            TO_NOBODY,
            at=now,
            events=[Event(now, ENGINE, EventKind.EXCHANGE_CLOSED, record.round_id, detail=detail)],
        )
        return replied

    def _has_sums(
        self,
        record: RoundRecord,
        offer: Offer,
        protocol: Protocol,
        exchange: int,
        queries: dict[str, Query],
    ) -> bool:
        if offer.masking is None:
            return True
        counted = self._reader.counted(offer.round_id, exchange) or ()
        replies = {site: self._intake.reply(offer, exchange, site) for site in counted}
        return self._sums.advance(
            offer,
            exchange,
            [analysis for analysis in queries if protocol.is_masked(analysis)],
            self._reader.accepted(offer),
            {site: reply for site, reply in replies.items() if reply is not None},
            record.deadline - record.started_at,
        )
