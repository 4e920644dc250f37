"""The coordinator's state machine: offer, exchange after exchange, pool.

draft -> offered -> answering -> pooled, or failed. All it knows lies in the store, and pooling is
deterministic: after a crash the stored replies are replayed and the round goes on where it was.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta

from coordinator.intake import TO_NOBODY, TO_PARTICIPANTS, Intake, typed_answer
from coordinator.masked_sums import MaskedSums
from coordinator.store import CoordinatorStore, Direction, RoundRecord, RoundState
from coordinator.views import LaunchPlan, RoundView, SiteView
from fedcac.aggregate import Aggregate
from fedcac.canonical import canonical_bytes, sha256_hex
from fedcac.errors import RoundError, UsageError
from fedcac.exchange import (
    Acceptance,
    Courier,
    MaskingTerms,
    Offer,
    Query,
    Request,
    package_parcels,
    parcel_name,
)
from fedcac.models.manifest import MANIFEST_FILE, PAYLOAD_TYPE, PackageManifest
from fedcac.protocol import Protocol
from fedcac.protocol.signing import open_protocol, seal_protocol
from fedcac.signing import SigningKey, open_envelope, trusted
from fedcac.statistics import SUM_OF_SITES, PoolingSession, SiteAnswers
from fedcac.vocabulary import RefusalCode, SiteName

__all__ = ["RoundEngine"]

_REQUEST_LIFETIME = timedelta(days=30)


class RoundEngine:
    """Launches rounds and moves them on. `step` may be called at any time."""

    def __init__(
        self,
        *,
        store: CoordinatorStore,
        courier: Courier,
        key: SigningKey,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._courier = courier
        self._intake = Intake(store, courier)
        self._sums = MaskedSums(store, courier, self._intake, key, clock)
        self._key = key
        self._lead_keys = trusted([key.public])
        self._clock = clock
        self._sessions: dict[str, tuple[PoolingSession | None, int]] = {}

    def launch(self, protocol: Protocol, plan: LaunchPlan) -> str:
        """Sign and store a round; the next `step` offers it. Return its id.

        Raises
        ------
        UsageError
            If a site is not enrolled, or the numbers of sites contradict each other.
        ProtocolError
            If a newer version of the protocol, or another one of this version, was launched.
        """
        self._check_plan(plan)
        terms = self._masking_terms(protocol, plan)
        envelope = seal_protocol(protocol, self._key)
        open_protocol(envelope, self._lead_keys, newest_seen=self._store.newest_protocols())
        now = self._clock()
        round_id = f"{protocol.id}-{now:%Y%m%d}-{secrets.token_hex(4)}"
        offer = Offer(
            round_id=round_id,
            issued_at=now,
            protocol_id=protocol.id,
            protocol_version=protocol.version,
            protocol_digest=protocol.digest(),
            package_digest=plan.package_digest,
            sites=plan.sites,
            expires_at=plan.deadline,
            masking=terms,
        )
        names = package_parcels(round_id, plan.package_files)
        parcels = {names[name]: payload for name, payload in plan.package_files.items()}
        parcels[parcel_name(round_id, "protocol")] = envelope
        parcels[parcel_name(round_id, "offer")] = offer.seal(self._key)
        record = RoundRecord(
            round_id, RoundState.DRAFT, plan.minimum_sites, now, plan.deadline, None
        )
        self._store.add_round(record, parcels, (protocol.id, protocol.version, protocol.digest()))
        return round_id

    def step(self, round_id: str) -> RoundView:
        """Send what is due, collect what has come, and return the round as it stands."""
        record = self._store.round(round_id)
        if record.state is RoundState.DRAFT:
            self._send_offer(record)
            record = self._store.round(round_id)
        offer, protocol = self._plan_of(round_id)
        if record.state is RoundState.OFFERED:
            self._begin_answering(record, offer)
            record = self._store.round(round_id)
        if record.state is RoundState.ANSWERING:
            self._exchange(record, offer, protocol)
        return self.view(round_id)

    def view(self, round_id: str) -> RoundView:
        """Return the round from the store alone, without sending or collecting anything."""
        record = self._store.round(round_id)
        offer, protocol = self._plan_of(round_id)
        session, n_exchanges = self._replay(offer, protocol)
        return RoundView(
            record=record,
            offer=offer,
            protocol=protocol,
            sites=tuple(self._site_view(offer, name, n_exchanges) for name in offer.sites),
            estimates=session.estimates(),
            n_exchanges=n_exchanges,
            sums=tuple(
                self._sums.sums(offer, number) or {}
                for number in range(1, n_exchanges + 1)
                if offer.masking is not None
            ),
            is_finished=record.state in (RoundState.POOLED, RoundState.FAILED),
        )

    def package_manifest(self, round_id: str) -> PackageManifest | None:
        """Return the manifest of the round's model package, or None where it has none."""
        name = package_parcels(round_id, [MANIFEST_FILE])[MANIFEST_FILE]
        envelope = self._store.parcel(round_id, Direction.SENT, name)
        if envelope is None:
            return None
        payload, _ = open_envelope(envelope, PAYLOAD_TYPE, self._lead_keys)
        return PackageManifest.model_validate_json(payload)

    # launching

    def _check_plan(self, plan: LaunchPlan) -> None:
        enrolled = self._store.sites()
        unknown = sorted(set(plan.sites) - set(enrolled))
        if unknown:
            raise UsageError(
                f"Not enrolled: {', '.join(unknown)}.",
                code="unknown_site",
                cure="Enrol the site first with `fedcac-coordinator enrol`.",
            )
        if not 1 <= plan.minimum_sites <= len(plan.sites):
            raise UsageError(
                f"At least {plan.minimum_sites} of {len(plan.sites)} sites cannot be.",
                code="bad_minimum_sites",
                cure="Give a number from 1 to the number of sites.",
            )
        if plan.deadline <= self._clock():
            raise UsageError("The deadline has passed.", code="bad_deadline")

    def _masking_terms(self, protocol: Protocol, plan: LaunchPlan) -> MaskingTerms | None:
        if protocol.pooling.mode == "open":
            return None
        n, least = len(plan.sites), protocol.pooling.least_sites
        if n < least:
            raise UsageError(
                f"The protocol's sums are over at least {least} sites, and there are {n}.",
                code="too_few_sites",
                cure="Enrol more sites, or launch a protocol whose pooling is open.",
            )
        # Two thirds bear a third of the sites working together against the others.
        threshold = max(least, -(-2 * n // 3))
        enrolled = self._store.sites()
        keys = {site: enrolled[site].key.to_text() for site in plan.sites}
        return MaskingTerms(threshold=threshold, site_keys=keys)

    def _send_offer(self, record: RoundRecord) -> None:
        offer, _ = self._plan_of(record.round_id)
        parcels = self._store.sent_to_all(record.round_id)
        offer_name = parcel_name(record.round_id, "offer")
        for site in offer.sites:
            # The offer goes last: a site that sees it finds everything else already there.
            for name in sorted(parcels, key=lambda name: name == offer_name):
                self._courier.send(SiteName(site), name, parcels[name])
        self._store.set_state(record.round_id, RoundState.OFFERED)

    def _plan_of(self, round_id: str) -> tuple[Offer, Protocol]:
        offer_bytes = self._sent(round_id, "offer")
        protocol_bytes = self._sent(round_id, "protocol")
        offer, _ = Offer.open(offer_bytes, self._lead_keys)
        return offer, open_protocol(protocol_bytes, self._lead_keys, newest_seen={})

    def _sent(self, round_id: str, what: str) -> bytes:
        payload = self._store.parcel(round_id, Direction.SENT, parcel_name(round_id, what))
        if payload is None:
            raise RoundError(f"There is no round '{round_id}'.", code="unknown_round")
        return payload

    # acceptances

    def _begin_answering(self, record: RoundRecord, offer: Offer) -> None:
        acceptances = [self._acceptance(offer, site) for site in offer.sites]
        n_accepting = sum(a is not None and a.refusal is None for a in acceptances)
        is_late = self._clock() > record.deadline
        if any(acceptance is None for acceptance in acceptances) and not is_late:
            return
        needed = offer.masking.threshold if offer.masking else 1
        if n_accepting >= max(record.minimum_sites, needed):
            self._store.set_state(record.round_id, RoundState.ANSWERING)
        else:
            self._store.set_state(record.round_id, RoundState.FAILED, self._clock())

    def _acceptance(self, offer: Offer, site: str, *, collect: bool = True) -> Acceptance | None:
        digest = sha256_hex(self._sent(offer.round_id, "offer"))
        return self._intake.acceptance(offer, digest, site, collect=collect)

    # exchanges

    def _exchange(self, record: RoundRecord, offer: Offer, protocol: Protocol) -> None:
        session, exchange = self._replay(offer, protocol)
        if offer.masking is not None:
            self._sums.send_channels(offer, self._accepted(offer))
        while not session.is_finished:
            self._send_request(offer, exchange + 1, session.queries)
            if self._close(record, offer, exchange + 1) is None:
                return
            if not self._has_sums(record, offer, protocol, exchange + 1, session.queries):
                return
            session, exchange = self._replay(offer, protocol)
        self._store.set_state(record.round_id, RoundState.POOLED, self._clock())

    def _replay(self, offer: Offer, protocol: Protocol) -> tuple[PoolingSession, int]:
        """Return the session fed with every closed exchange, and the number of them.

        A session fed before in this process goes on from where it stands. It is out of the memory
        while it is fed, so that an error leaves nothing half fed behind.
        """
        session, exchange = self._sessions.pop(offer.round_id, (None, 0))
        if session is None:
            session = PoolingSession(protocol, [SiteName(site) for site in offer.sites])
        while not session.is_finished:
            counted = self._counted(offer.round_id, exchange + 1)
            sums = self._sums.sums(offer, exchange + 1) if offer.masking else {}
            if counted is None or sums is None:
                break
            exchange += 1
            answers = self._answers(offer, exchange, counted, session.queries)
            summed = {analysis: one.answer for analysis, one in sums.items()}
            session.answer({**answers, SUM_OF_SITES: summed})
        self._sessions[offer.round_id] = session, exchange
        return session, exchange

    def _send_request(self, offer: Offer, exchange: int, queries: dict[str, Query]) -> None:
        name = parcel_name(offer.round_id, "request", exchange)
        envelope = self._store.parcel(offer.round_id, Direction.SENT, name, TO_PARTICIPANTS)
        if envelope is None:
            now = self._clock()
            envelope = Request(
                round_id=offer.round_id,
                issued_at=now,
                exchange=exchange,
                protocol_digest=offer.protocol_digest,
                expires_at=now + _REQUEST_LIFETIME,
                queries=queries,
            ).seal(self._key)
            self._store.add_parcel(offer.round_id, Direction.SENT, name, envelope, TO_PARTICIPANTS)
        for site in self._participants(offer):
            self._courier.send(SiteName(site), name, envelope)

    def _participants(self, offer: Offer) -> tuple[str, ...]:
        return tuple(self._accepted(offer))

    def _accepted(self, offer: Offer) -> dict[str, Acceptance]:
        given = {site: self._acceptance(offer, site, collect=False) for site in offer.sites}
        return {site: a for site, a in given.items() if a is not None and a.refusal is None}

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
        counted = self._counted(offer.round_id, exchange) or ()
        replies = {site: self._intake.reply(offer, exchange, site) for site in counted}
        return self._sums.advance(
            offer,
            exchange,
            [analysis for analysis in queries if protocol.is_masked(analysis)],
            self._accepted(offer),
            {site: reply for site, reply in replies.items() if reply is not None},
            record.deadline - record.started_at,
        )

    def _close(self, record: RoundRecord, offer: Offer, exchange: int) -> tuple[str, ...] | None:
        """Close an exchange once it is complete; return the sites whose replies count, or None.

        Which replies count is stored: one that comes later must not change what was already asked.
        """
        if (counted := self._counted(offer.round_id, exchange)) is not None:
            return counted
        participants = self._participants(offer)
        replied = tuple(
            s for s in participants if self._intake.reply(offer, exchange, s, collect=True)
        )
        if len(replied) < len(participants):
            if self._clock() <= self._exchange_deadline(record, exchange):
                return None
            if len(replied) < record.minimum_sites:
                self._store.set_state(record.round_id, RoundState.FAILED, self._clock())
                return None
        self._store.add_parcel(
            record.round_id,
            Direction.SENT,
            parcel_name(record.round_id, "closed", exchange),
            canonical_bytes(list(replied)),
            TO_NOBODY,
        )
        return replied

    def _exchange_deadline(self, record: RoundRecord, exchange: int) -> datetime:
        """Every exchange gives sites as long as the offer did, counted from its request."""
        name = parcel_name(record.round_id, "request", exchange)
        envelope = self._store.parcel(record.round_id, Direction.SENT, name, TO_PARTICIPANTS)
        if envelope is None:
            return record.deadline
        request, _ = Request.open(envelope, self._lead_keys)
        return request.issued_at + (record.deadline - record.started_at)

    def _counted(self, round_id: str, exchange: int) -> tuple[str, ...] | None:
        name = parcel_name(round_id, "closed", exchange)
        payload = self._store.parcel(round_id, Direction.SENT, name, TO_NOBODY)
        return None if payload is None else tuple(json.loads(payload))

    def _answers(
        self, offer: Offer, exchange: int, counted: Sequence[str], asked: Iterable[str]
    ) -> SiteAnswers:
        answers: dict[SiteName, dict[str, Aggregate | RefusalCode]] = {}
        for site in offer.sites:
            acceptance = self._acceptance(offer, site, collect=False)
            if acceptance is not None and acceptance.refusal is not None:
                answers[SiteName(site)] = dict.fromkeys(asked, acceptance.refusal)
        for site in counted:
            reply = self._intake.reply(offer, exchange, site)
            if reply is not None:
                answers[SiteName(site)] = {
                    analysis: typed_answer(answer) for analysis, answer in reply.answers.items()
                }
        return answers

    def _site_view(self, offer: Offer, site: str, n_exchanges: int) -> SiteView:
        acceptance = self._acceptance(offer, site, collect=False)
        replies = [self._intake.reply(offer, number, site) for number in range(1, n_exchanges + 1)]
        names = [parcel_name(offer.round_id, "acceptance")] + [
            parcel_name(offer.round_id, "reply", number) for number in range(1, n_exchanges + 1)
        ]
        payloads = [
            self._store.parcel(offer.round_id, Direction.RECEIVED, name, site) for name in names
        ]
        return SiteView(
            name=site,
            is_accepting=None if acceptance is None else acceptance.refusal is None,
            refusal=acceptance.refusal if acceptance else None,
            replies=tuple(reply for reply in replies if reply is not None),
            n_bytes=sum(len(payload) for payload in payloads if payload is not None),
        )
