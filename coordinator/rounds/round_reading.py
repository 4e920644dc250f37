"""A round read back from the store: what was offered, who takes part, what was asked and answered.

Nothing is sent or collected here unless a method says so. Pooling is deterministic, so that a round
is its parcels: the estimates are those of the stored answers, replayed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime

from coordinator.rounds.intake import TO_NOBODY, TO_PARTICIPANTS, Intake, typed_answer
from coordinator.rounds.masked_sums import MaskedSums
from coordinator.rounds.views import RoundView, SiteView, Standing, Used
from coordinator.state.records import OPEN, Direction, EditionRecord, RoundRecord, RoundState
from coordinator.state.store import CoordinatorStore, unknown_round
from fedcac.aggregate import Aggregate
from fedcac.canonical import sha256_hex
from fedcac.errors import RoundError
from fedcac.exchange import Acceptance, Answer, Offer, Query, Reply, Request, parcel_name
from fedcac.protocol import Protocol
from fedcac.protocol.signing import open_protocol
from fedcac.signing import TrustedKeys
from fedcac.statistics import SUM_OF_SITES, PoolingSession, SiteAnswers
from fedcac.vocabulary import RefusalCode, SiteName

__all__ = ["RoundReader", "step_name"]


def step_name(edition: int) -> str:
    """Return under what a later edition's steps are stored; the number follows."""
    return f"edition{edition}-step"


class RoundReader:
    """Reads rounds. What it remembers are parcels, which do not change."""

    def __init__(
        self, store: CoordinatorStore, intake: Intake, sums: MaskedSums, lead_keys: TrustedKeys
    ) -> None:
        self._store = store
        self._intake = intake
        self._sums = sums
        self._lead_keys = lead_keys
        self._sessions: dict[tuple[str, int], tuple[PoolingSession, tuple[Used, ...]]] = {}
        self._requests: dict[tuple[str, int], Request] = {}
        self._plans: dict[str, tuple[Offer, Protocol]] = {}
        # Of the offers of every edition, the first one's at the front.
        self._digests: dict[str, list[str]] = {}

    # what was offered

    def plan(self, round_id: str) -> tuple[Offer, Protocol]:
        """Return a round's first offer and its protocol; RoundError `unknown_round`."""
        if round_id not in self._plans:
            offer, _ = Offer.open(self.sent(round_id, "offer"), self._lead_keys)
            envelope = self.sent(round_id, "protocol")
            protocol = open_protocol(envelope, self._lead_keys, newest_seen={})
            self._plans[round_id] = offer, protocol
        return self._plans[round_id]

    def sent(self, round_id: str, what: str) -> bytes:
        """Return a parcel that every site got; RoundError `unknown_round` if there is none."""
        payload = self._store.parcel(round_id, Direction.SENT, parcel_name(round_id, what))
        if payload is None:
            raise unknown_round(round_id)
        return payload

    def later_offer(self, round_id: str, edition: int) -> bytes | None:
        """Return the offer of a later edition, which late sites got; None if it made none."""
        name = parcel_name(round_id, "offer", edition)
        return self._store.parcel(round_id, Direction.SENT, name, TO_PARTICIPANTS)

    def withdrawn(self, record: RoundRecord) -> tuple[int, ...]:
        """Return the requests that the newest edition's late sites need not answer."""
        envelope = self.later_offer(record.round_id, record.edition)
        if envelope is None:
            return ()
        offer, _ = Offer.open(envelope, self._lead_keys)
        return offer.withdrawn

    # who takes part

    def acceptance(self, offer: Offer, site: str, *, collect: bool = False) -> Acceptance | None:
        """Return a site's word on any edition's offer; `collect` looks for one that has come."""
        digests = self._digests.setdefault(offer.round_id, [])
        if not digests:
            digests.append(sha256_hex(self.sent(offer.round_id, "offer")))
        while (later := self.later_offer(offer.round_id, len(digests) + 1)) is not None:
            digests.append(sha256_hex(later))
        return self._intake.acceptance(offer, digests, site, collect=collect)

    def accepted(self, offer: Offer) -> dict[str, Acceptance]:
        """Return the words of the sites that take part."""
        given = {site: self.acceptance(offer, site) for site in offer.sites}
        return {site: a for site, a in given.items() if a is not None and a.refusal is None}

    def asked_sites(self, record: RoundRecord, offer: Offer) -> tuple[str, ...]:
        """Return the sites that take part in the newest edition."""
        accepted = tuple(self.accepted(offer))
        if record.edition == 1:
            return accepted
        sites = self.edition(record).sites
        return tuple(site for site in accepted if site in sites)

    def edition(self, record: RoundRecord) -> EditionRecord:
        """Return the record of the round's edition."""
        return self._store.editions(record.round_id)[record.edition - 1]

    # what was asked

    def request(self, round_id: str, exchange: int) -> Request | None:
        """Return the request of an exchange, or None if it was not sent."""
        key = round_id, exchange
        if key not in self._requests:
            name = parcel_name(round_id, "request", exchange)
            envelope = self._store.parcel(round_id, Direction.SENT, name, TO_PARTICIPANTS)
            if envelope is None:
                return None
            self._requests[key], _ = Request.open(envelope, self._lead_keys)
        return self._requests[key]

    def requests(self, round_id: str) -> dict[int, Request]:
        """Return every request of a round by its exchange."""
        found: dict[int, Request] = {}
        while (request := self.request(round_id, len(found) + 1)) is not None:
            found[len(found) + 1] = request
        return found

    def counted(self, round_id: str, exchange: int) -> tuple[str, ...] | None:
        """Return the sites whose replies count in an exchange, or None before it is closed."""
        name = parcel_name(round_id, "closed", exchange)
        payload = self._store.parcel(round_id, Direction.SENT, name, TO_NOBODY)
        return None if payload is None else tuple(json.loads(payload))

    def used(self, round_id: str, edition: int, step: int, asked: Collection[str]) -> Used | None:
        """Return which exchange's answers a step uses, or None before it is closed."""
        if edition == 1:
            counted = self.counted(round_id, step)
            if counted is None:
                return None
            return {analysis: dict.fromkeys(counted, step) for analysis in asked}
        name = parcel_name(round_id, step_name(edition), step)
        payload = self._store.parcel(round_id, Direction.SENT, name, TO_NOBODY)
        if payload is None:
            return None
        found: Used = json.loads(payload)
        return found

    # what was answered

    def replay(
        self, offer: Offer, protocol: Protocol, edition: int
    ) -> tuple[PoolingSession, tuple[Used, ...]]:
        """Return an edition's session fed with every closed step, and what each step uses.

        A session fed before in this process goes on from where it stands. It is out of the memory
        while it is fed, so that an error leaves nothing half fed behind.
        """
        key = offer.round_id, edition
        session, steps = self._sessions.pop(key, (None, ()))
        if session is None:
            session = PoolingSession(protocol, [SiteName(site) for site in offer.sites])
        while not session.is_finished:
            queries = session.queries
            used = self.used(offer.round_id, edition, len(steps) + 1, queries)
            sums = self._sums.sums(offer, len(steps) + 1) if offer.masking else {}
            if used is None or sums is None:
                break
            steps = (*steps, used)
            summed = {analysis: one.answer for analysis, one in sums.items()}
            session.answer({**self._answers(offer, used, queries), SUM_OF_SITES: summed})
        self._sessions[key] = session, steps
        return session, steps

    def _answers(self, offer: Offer, used: Used, asked: Mapping[str, Query]) -> SiteAnswers:
        answers: dict[SiteName, dict[str, Aggregate | RefusalCode]] = {}
        for site in offer.sites:
            acceptance = self.acceptance(offer, site)
            if acceptance is not None and acceptance.refusal is not None:
                answers[SiteName(site)] = dict.fromkeys(asked, acceptance.refusal)
        for site, given in self._told(offer, used).items():
            answers[SiteName(site)] = {name: typed_answer(given[name]) for name in given}
        return answers

    def _told(self, offer: Offer, used: Used) -> dict[str, dict[str, Answer]]:
        """Return, per site, its answers that a step uses."""
        wanted: dict[tuple[str, int], list[str]] = {}
        for analysis, sites in used.items():
            for site, exchange in sites.items():
                wanted.setdefault((site, exchange), []).append(analysis)
        told: dict[str, dict[str, Answer]] = {}
        for (site, exchange), analyses in wanted.items():
            reply = self._intake.reply(offer, exchange, site)
            if reply is not None:
                known = told.setdefault(site, {})
                known |= {name: reply.answers[name] for name in analyses if name in reply.answers}
        return told

    # the whole

    def view(self, round_id: str, edition: int | None = None) -> RoundView:
        """Return a round's newest edition, or an earlier one as it ended.

        Raises
        ------
        RoundError
            If there is no such round (`unknown_round`) or edition (`unknown_edition`).
        """
        record = self._store.round(round_id)
        editions = self._store.editions(round_id)
        if edition is not None and edition != record.edition:
            record = _as_it_ended(record, editions, edition)
        offer, protocol = self.plan(round_id)
        session, steps = self.replay(offer, protocol, record.edition)
        last = max(
            (n for used in steps for sites in used.values() for n in sites.values()), default=0
        )
        n_exchanges = len(steps) if record.edition == 1 else last
        waiting, due = self._waits(record, offer, len(steps))
        contacts = self._store.events.last_contacts(round_id)
        told = [self._told(offer, used) for used in steps]
        return RoundView(
            record=record,
            offer=offer,
            protocol=protocol,
            sites=tuple(
                self._site_view(
                    record,
                    offer,
                    site,
                    steps,
                    [one.get(site, {}) for one in told],
                    waiting,
                    contacts.get(site),
                )
                for site in offer.sites
            ),
            estimates=session.estimates(),
            n_exchanges=n_exchanges,
            sums=tuple(
                self._sums.sums(offer, number) or {}
                for number in range(1, n_exchanges + 1)
                if offer.masking is not None
            ),
            is_finished=record.state not in OPEN,
            steps=() if record.edition == 1 else steps,
            editions=editions[: record.edition],
            open_exchange=waiting,
            due=due,
        )

    def _waits(
        self, record: RoundRecord, offer: Offer, n_steps: int
    ) -> tuple[int | None, datetime | None]:
        if record.state is RoundState.OFFERED:
            return None, record.deadline
        if record.state is not RoundState.ANSWERING:
            return None, None
        exchange = n_steps + 1 if record.edition == 1 else len(self.requests(offer.round_id))
        return exchange, self.deadline(record, exchange)

    def deadline(self, record: RoundRecord, exchange: int) -> datetime:
        """Every exchange gives sites as long as the offer did, counted from its request.

        A request of an earlier edition counts from the beginning of the one that still waits.
        """
        begun = record.edition_at or record.started_at
        request = self.request(record.round_id, exchange)
        if request is None:
            return record.deadline
        return max(request.issued_at, begun) + (record.deadline - begun)

    def _site_view(
        self,
        record: RoundRecord,
        offer: Offer,
        site: str,
        steps: tuple[Used, ...],
        told: list[Mapping[str, Answer]],
        waiting: int | None,
        contact: datetime | None,
    ) -> SiteView:
        acceptance = self.acceptance(offer, site)
        numbers = sorted({used[a][site] for used in steps for a in used if site in used[a]})
        found = [self._intake.reply(offer, number, site) for number in numbers]
        replies = tuple(reply for reply in found if reply is not None)
        names = [parcel_name(offer.round_id, "acceptance")]
        names += [parcel_name(offer.round_id, "reply", number) for number in numbers]
        return SiteView(
            name=site,
            is_accepting=None if acceptance is None else acceptance.refusal is None,
            refusal=acceptance.refusal if acceptance else None,
            replies=replies,
            n_bytes=self._intake.n_bytes(offer.round_id, site, names),
            told=tuple(told),
            standing=self._standing(record, offer, site, acceptance, replies, waiting),
            last_contact=contact,
        )

    def _standing(
        self,
        record: RoundRecord,
        offer: Offer,
        site: str,
        acceptance: Acceptance | None,
        replies: tuple[Reply, ...],
        waiting: int | None,
    ) -> Standing:
        if record.state is RoundState.DRAFT:
            return Standing.NOT_ASKED
        if acceptance is None:
            return Standing.INVITED if record.state is RoundState.OFFERED else Standing.SILENT
        if acceptance.refusal is not None:
            return Standing.REFUSED
        if record.state is RoundState.OFFERED:
            return Standing.APPROVED
        if waiting is None:
            return Standing.POOLED if replies else Standing.LATE
        if self._has_answered(offer, site, waiting, record.edition):
            return Standing.ANSWERED
        return Standing.ANSWERING if replies else Standing.SCORING

    def _has_answered(self, offer: Offer, site: str, waiting: int, edition: int) -> bool:
        """Say whether a site has answered every open question, in whichever exchange it was."""
        if edition == 1:
            return self._intake.reply(offer, waiting, site) is not None
        session, _ = self._sessions[offer.round_id, edition]
        replied = [
            request.queries
            for number, request in self.requests(offer.round_id).items()
            if self._intake.reply(offer, number, site) is not None
        ]
        return all(
            any(queries.get(name) == query for queries in replied)
            for name, query in session.queries.items()
        )


def _as_it_ended(
    record: RoundRecord, editions: tuple[EditionRecord, ...], edition: int
) -> RoundRecord:
    if not 1 <= edition <= len(editions):
        raise RoundError(
            f"Round {record.round_id} has {len(editions)} editions, and no edition {edition}.",
            code="unknown_edition",
            cure="`fedcac-coordinator round status` with the round's id lists its editions.",
        )
    found = editions[edition - 1]
    return replace(
        record,
        state=found.outcome or record.state,
        edition=edition,
        edition_at=None if edition == 1 else found.started_at,
        deadline=found.deadline,
        finished_at=found.finished_at,
    )
