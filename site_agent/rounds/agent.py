"""The site's state machine: verify, approve, score, answer. Driven by what lies in the inbox.

States of a round here: offered -> approved -> answering, or refused; closed by the lead's last
word. `step` may be called at any time and any number of times; after kill -9 it goes on where it
stopped. Nothing is read from the site's data before a person (or the site's standing rule) has
approved the round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fedcac.canonical import sha256_hex
from fedcac.errors import (
    CohortError,
    FedcacError,
    IntegrityError,
    ProtocolError,
    RoundError,
    SignatureError,
)
from fedcac.exchange import Acceptance, Offer, Reply, Request, Spool, parcel_name
from fedcac.exchange.parcels import numbered_parcels, rounds_in
from fedcac.protocol import Protocol
from fedcac.protocol.signing import open_protocol
from fedcac.signing import trusted
from fedcac.vocabulary import RefusalCode
from site_agent.exams.cohort import ExamSource, FrozenCohort, empty_cohort
from site_agent.faults import as_problem
from site_agent.rounds.answering import Answerer
from site_agent.rounds.faults import misplaced, nothing_held
from site_agent.rounds.identity import SiteIdentity
from site_agent.rounds.masked_sums import MaskedSums
from site_agent.rounds.offers import Offers
from site_agent.rounds.packages import RoundPackages
from site_agent.state.store import ExchangeState, RoundRecord, RoundState, SiteStore

if TYPE_CHECKING:
    from fedcac.models import ModelPackage

__all__ = ["SiteAgent"]


class SiteAgent:
    """One site. It sees its spool, its own data and its own store; no network."""

    def __init__(
        self,
        *,
        identity: SiteIdentity,
        spool: Spool,
        store: SiteStore,
        source: ExamSource,
        answerer: Answerer,
        is_auto_approving: bool,
        is_accepting_onnx: bool = False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._identity = identity
        self._keys = trusted([identity.lead_key])
        self._spool = spool
        self._store = store
        self._source = source
        self._answerer = answerer
        self._last_cohort: tuple[str, FrozenCohort] | None = None
        self._is_auto_approving = is_auto_approving
        self._packages = RoundPackages(spool.inbox, self._keys, is_accepting_onnx)
        self._clock = clock
        self._is_stopping = is_stopping
        self._sums = MaskedSums(identity, store, spool, self._keys, clock)
        self._offers = Offers(spool.inbox, self._keys, identity.name)
        self.problems: dict[str, FedcacError] = {}

    def step(self) -> bool:
        """Do everything that can be done now; say whether anything changed.

        One round's trouble does not stop another: it is kept in `problems` until the next step,
        for the site's people to read. The coordinator sees nothing of it.

        `is_stopping` is asked between rounds and between exchanges; once it says so, nothing new
        is begun.
        """
        is_changed = False
        self.problems.clear()
        for round_id in rounds_in(self._spool.inbox):
            if self._is_stopping():
                break
            try:
                is_changed |= self._step_round(round_id)
            except Exception as error:
                self.problems[round_id] = as_problem(error)
        return is_changed

    def approve(self, round_id: str) -> None:
        """Approve an offered round; RoundError if it is not waiting for approval."""
        self._decide(round_id, None)

    def refuse(self, round_id: str) -> None:
        """Refuse an offered round and say so; RoundError if it is not waiting for approval."""
        self._deliver_acceptance(self._decide(round_id, RefusalCode.REJECTED_BY_SITE))

    def withdraw(self, round_id: str) -> None:
        """Answer an approved round with 'empty cohort' from now on; RoundError otherwise."""
        record = self._store.round(round_id)
        empty = empty_cohort().to_json()
        is_approved = record is not None and record.state is RoundState.APPROVED
        if not is_approved or self._store.freeze_cohort(round_id, empty) != empty:
            raise RoundError(
                f"Round {round_id} is not approved and unanswered.",
                code="not_approved",
                cure="`fedcac-site status` lists the rounds and their states.",
            )

    def release(self, round_id: str, exchange: int) -> None:
        """Let a held reply go; RoundError if there is none, or the lead has closed the round."""
        record = self._store.round(round_id)
        if record is not None and record.state is RoundState.CLOSED:
            raise RoundError(
                f"Round {round_id} was closed by the lead; nothing more leaves for it.",
                code="round_closed",
                cure="There is nothing to do. The reply stays here and is not sent.",
            )
        if not self._store.release_reply(round_id, exchange):
            raise nothing_held()
        self._deliver_reply(round_id, exchange)

    def reject(self, round_id: str, exchange: int) -> None:
        """Replace a held reply by refusals: the coordinator learns the code and nothing else."""
        held = self._store.reply(round_id, exchange)
        if held is None or held[1] is not ExchangeState.HELD:
            raise nothing_held()
        rejection = self._answerer.rejected(held[2], self._identity.key, self._clock())
        self._store.replace_held_reply(round_id, exchange, rejection)
        self._deliver_reply(round_id, exchange)

    def protocol(self, round_id: str) -> Protocol:
        """Return the verified protocol of a known round, for a person to read."""
        return self._open_protocol(round_id, self._offers.newest(round_id)[0])

    def packages(self, round_id: str) -> dict[str, str]:
        """Return name and digest of the round's packages by role, for a person to read."""
        offer = self._offers.newest(round_id)[0]
        return self._packages.described(offer) if self._source.scores(offer.package_digest) else {}

    # verification

    def _open_protocol(
        self, round_id: str, offer: Offer, newest_seen: Mapping[str, tuple[int, str]] | None = None
    ) -> Protocol:
        protocol = open_protocol(
            self._offers.parcel(round_id, "protocol"), self._keys, newest_seen=newest_seen or {}
        )
        if protocol.digest() != offer.protocol_digest:
            raise ProtocolError(
                "The protocol is not the one offered.",
                code="wrong_digest",
                cure="Ask the lead for a new round.",
            )
        return protocol

    def _approved(self, record: RoundRecord) -> Offer:
        return self._offers.approved(record.round_id, record.offer_digest)

    def _open_package(self, round_id: str, package_digest: str) -> ModelPackage:
        return self._packages.open(round_id, package_digest)

    # the state machine

    def _step_round(self, round_id: str) -> bool:
        record = self._store.round(round_id)
        if record is None:
            record = self._receive_offer(round_id)
            if record is None:
                return False
        if record.state is RoundState.CLOSED:
            return False
        if self._offers.is_closed(round_id):
            self._store.set_round_state(round_id, RoundState.CLOSED, refusal=record.refusal)
            return True
        if record.state is RoundState.REFUSED:
            return self._deliver_acceptance(record)
        if record.state is RoundState.OFFERED:
            return False
        is_changed = self._deliver_acceptance(record)
        return self._answer_requests(record) or is_changed

    def _receive_offer(self, round_id: str) -> RoundRecord | None:
        try:
            offer, digest = self._offers.newest(round_id)
            if self._offers.is_closed(round_id):
                return None
        except (SignatureError, RoundError):
            # An offer that nobody we trust signed is not answered: an answer would tell a
            # stranger that a site listens here.
            return None
        if offer.expires_at < self._clock():
            return None
        if self._is_incomplete(round_id, offer):
            return None
        refusal = self._verify(round_id, offer)
        if refusal is None:
            # Not refused for good: the site's people can confirm a key and go on.
            self._sums.check_offer(offer, self._open_protocol(round_id, offer))
        state = RoundState.REFUSED if refusal else RoundState.OFFERED
        if state is RoundState.OFFERED and self._is_auto_approving:
            state = RoundState.APPROVED
        record = RoundRecord(
            round_id=round_id,
            state=state,
            offer_digest=digest,
            protocol_digest=offer.protocol_digest,
            package_digest=offer.package_digest,
            refusal=refusal.value if refusal else None,
        )
        self._store.add_round(record)
        if refusal is None:
            self._store.remember_protocol(
                offer.protocol_id, offer.protocol_version, offer.protocol_digest
            )
        return record

    def _is_incomplete(self, round_id: str, offer: Offer) -> bool:
        names = self._spool.inbox.names()
        if parcel_name(round_id, "protocol") not in names:
            return True
        if offer.package_digest is None or not self._source.scores(offer.package_digest):
            return False
        return not self._packages.are_complete(offer)

    def _verify(self, round_id: str, offer: Offer) -> RefusalCode | None:
        try:
            # Roll-back is judged once, when a round is offered: a round already under way goes on
            # although a newer version of its protocol has been offered since.
            self._open_protocol(round_id, offer, self._store.newest_protocols())
        except FedcacError:
            return RefusalCode.PROTOCOL_INVALID
        if self._source.scores(offer.package_digest):
            try:
                self._open_package(round_id, offer.package_digest or "")
                self._packages.reference(offer)
            except FedcacError:
                return RefusalCode.PACKAGE_INVALID
        return None

    def _decide(self, round_id: str, refusal: RefusalCode | None) -> RoundRecord:
        # Not a whole step: another process may be scoring, and nothing is scored by two.
        record = self._store.round(round_id)
        if record is None and round_id in rounds_in(self._spool.inbox):
            record = self._receive_offer(round_id)
        if record is None or record.state is not RoundState.OFFERED:
            raise RoundError(
                f"Round {round_id} is not waiting for approval.",
                code="not_offered",
                cure="`fedcac-site status` lists the rounds and their states.",
            )
        state = RoundState.REFUSED if refusal else RoundState.APPROVED
        code = refusal.value if refusal else None
        self._store.set_round_state(round_id, state, refusal=code)
        return replace(record, state=state, refusal=code)

    def _deliver_acceptance(self, record: RoundRecord) -> bool:
        name = parcel_name(record.round_id, "acceptance")
        if self._spool.outbox.get(name) is not None:
            return False
        is_refused = record.refusal is not None
        acceptance = Acceptance(
            round_id=record.round_id,
            issued_at=self._clock(),
            site=self._identity.name,
            offer_digest=record.offer_digest,
            refusal=RefusalCode(record.refusal) if record.refusal else None,
            channel_key=None if is_refused else self._sums.channel_key(self._approved(record)),
        )
        self._spool.outbox.put(name, acceptance.seal(self._identity.key))
        return True

    def _cohort(self, record: RoundRecord, protocol: Protocol) -> FrozenCohort:
        stored = self._store.frozen_cohort(record.round_id)
        if stored is not None:
            if self._last_cohort is None or self._last_cohort[0] != stored:
                self._last_cohort = stored, FrozenCohort.from_json(stored)
            return self._last_cohort[1]
        package, reference = None, None
        if self._source.scores(record.package_digest):
            package = self._open_package(record.round_id, record.package_digest or "")
            reference = self._packages.reference(self._approved(record))
        try:
            cohort = self._source.collect(protocol, package, reference)
        except CohortError as error:
            # A person mends the data or withdraws; an unattended site can only withdraw.
            if error.code != "cohort.empty" or not self._is_auto_approving:
                raise
            cohort = empty_cohort()
            self.problems[record.round_id] = error
        own = cohort.to_json()
        # A person may have withdrawn the round in the meantime: what was stored first holds.
        stored = self._store.freeze_cohort(record.round_id, own)
        if stored != own:
            return FrozenCohort.from_json(stored)
        self._store.set_round_state(record.round_id, RoundState.ANSWERING)
        return cohort

    def _answer_requests(self, record: RoundRecord) -> bool:
        is_changed = False
        offer = self._approved(record)
        protocol = self._open_protocol(record.round_id, offer)
        cohort = self._cohort(record, protocol)
        if not self._sums.is_ready(offer):
            return False
        withdrawn = self._offers.newest(record.round_id)[0].withdrawn
        expired: RoundError | None = None
        for exchange in numbered_parcels(self._spool.inbox, record.round_id, "request"):
            if self._is_stopping():
                break
            if self._store.reply(record.round_id, exchange) is None:
                if exchange in withdrawn:
                    continue
                try:
                    self._answer(offer, protocol, cohort, exchange)
                except RoundError as error:
                    # A later request may still be good; masked sums go in their order.
                    if error.code != "round.expired" or offer.masking is not None:
                        raise
                    expired = error
                    continue
            expired = None
            is_changed |= self._deliver_reply(record.round_id, exchange)
            if offer.masking is not None and self._is_with_keys(record.round_id, exchange):
                is_changed |= self._sums.step(offer, exchange)
        if expired is not None:
            raise expired
        return is_changed

    def _is_with_keys(self, round_id: str, exchange: int) -> bool:
        """Say whether a reply has left that promised a part of a sum; a rejected one did not."""
        payload = self._spool.outbox.get(parcel_name(round_id, "reply", exchange))
        if payload is None:
            return False
        reply, _ = Reply.open(payload, trusted([self._identity.key.public]))
        return reply.masking_keys is not None

    def _answer(
        self, offer: Offer, protocol: Protocol, cohort: FrozenCohort, exchange: int
    ) -> None:
        envelope = self._offers.parcel(offer.round_id, "request", exchange)
        request, _ = Request.open(envelope, self._keys)
        now = self._clock()
        if (request.round_id, request.exchange) != (offer.round_id, exchange):
            raise misplaced("A request")
        if request.protocol_digest != offer.protocol_digest:
            raise RoundError(
                "A request is for another protocol.",
                code="wrong_protocol",
                cure="It is not answered; ask the lead for a new round.",
            )
        if request.expires_at < now:
            raise RoundError(
                "A request has expired.",
                code="expired",
                cure="The lead asks again or withdraws it. If it happens often, look whether the "
                "courier runs.",
            )
        least_sites = offer.masking.threshold if offer.masking else 0
        answered = self._answerer.reply(
            request, sha256_hex(envelope), protocol, cohort, self._identity.name, now, least_sites
        )
        keys = self._sums.prepare(offer, exchange, answered.vectors)
        reply = answered.reply.model_copy(update={"masking_keys": keys})
        state = ExchangeState.HELD if self._answerer.is_holding else ExchangeState.RELEASED
        self._store.add_reply(
            offer.round_id,
            exchange,
            reply.request_digest,
            reply.seal(self._identity.key),
            state,
        )

    def _deliver_reply(self, round_id: str, exchange: int) -> bool:
        stored = self._store.reply(round_id, exchange)
        if stored is None:
            raise IntegrityError(
                "A reply that was stored is gone.",
                code="reply_missing",
                cure="Stop the agent, and restore the site's folder from its last backup.",
            )
        _, state, payload = stored
        name = parcel_name(round_id, "reply", exchange)
        if state is ExchangeState.HELD or self._spool.outbox.get(name) is not None:
            return False
        self._spool.outbox.put(name, payload)
        return True
