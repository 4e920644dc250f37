"""The site's state machine: verify, approve, score, answer. Driven by what lies in the inbox.

States of a round here: offered -> approved -> answering, or refused. `step` may be called at any
time and any number of times; after kill -9 it goes on where it stopped. Nothing is read from the
site's data before a person (or the site's standing rule) has approved the round.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fedcac.canonical import sha256_hex
from fedcac.errors import (
    CohortError,
    FedcacError,
    IntegrityError,
    PackageError,
    ProtocolError,
    RoundError,
    SignatureError,
)
from fedcac.exchange import Acceptance, Offer, Reply, Request, Spool, parcel_name
from fedcac.exchange.parcels import package_files, rounds_in
from fedcac.protocol import Protocol
from fedcac.protocol.signing import open_protocol
from fedcac.signing import trusted
from fedcac.vocabulary import RefusalCode
from site_agent.answering import Answerer
from site_agent.cohort import ExamSource, FrozenCohort, empty_cohort
from site_agent.identity import SiteIdentity
from site_agent.masked_sums import MaskedSums
from site_agent.store import ExchangeState, RoundRecord, RoundState, SiteStore

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
    ) -> None:
        self._identity = identity
        self._keys = trusted([identity.lead_key])
        self._spool = spool
        self._store = store
        self._source = source
        self._answerer = answerer
        self._last_cohort: tuple[str, FrozenCohort] | None = None
        self._is_auto_approving = is_auto_approving
        self._is_accepting_onnx = is_accepting_onnx
        self._clock = clock
        self._sums = MaskedSums(identity, store, spool, self._keys, clock)
        self.problems: dict[str, FedcacError] = {}

    def step(self) -> bool:
        """Do everything that can be done now; say whether anything changed.

        One round's trouble does not stop another: it is kept in `problems` until the next step,
        for the site's people to read. The coordinator sees nothing of it.
        """
        is_changed = False
        self.problems.clear()
        for round_id in rounds_in(self._spool.inbox):
            try:
                is_changed |= self._step_round(round_id)
            except FedcacError as error:
                self.problems[round_id] = error
        return is_changed

    def approve(self, round_id: str) -> None:
        """Approve an offered round; RoundError if it is not waiting for approval."""
        self._decide(round_id, None)

    def refuse(self, round_id: str) -> None:
        """Refuse an offered round; RoundError if it is not waiting for approval."""
        self._decide(round_id, RefusalCode.REJECTED_BY_SITE)

    def withdraw(self, round_id: str) -> None:
        """Answer an approved round with 'empty cohort' from now on; RoundError otherwise."""
        record = self._store.round(round_id)
        if record is None or record.state is not RoundState.APPROVED:
            raise RoundError(
                f"Round {round_id} is not approved and unanswered.",
                code="not_approved",
                cure="`fedcac-site status` lists the rounds and their states.",
            )
        self._store.freeze_cohort(round_id, empty_cohort().to_json())

    def release(self, round_id: str, exchange: int) -> None:
        """Let a held reply go; RoundError if there is none."""
        if not self._store.release_reply(round_id, exchange):
            raise RoundError("No such reply is held.", code="nothing_held")
        self._deliver_reply(round_id, exchange)

    def reject(self, round_id: str, exchange: int) -> None:
        """Replace a held reply by refusals: the coordinator learns the code and nothing else."""
        held = self._store.reply(round_id, exchange)
        if held is None or held[1] is not ExchangeState.HELD:
            raise RoundError("No such reply is held.", code="nothing_held")
        rejection = self._answerer.rejected(held[2], self._identity.key, self._clock())
        self._store.replace_held_reply(round_id, exchange, rejection)
        self._deliver_reply(round_id, exchange)

    def protocol(self, round_id: str) -> Protocol:
        """Return the verified protocol of a known round, for a person to read."""
        return self._open_protocol(round_id, self._open_offer(round_id))

    # verification

    def _open_offer(self, round_id: str) -> Offer:
        envelope = self._parcel(round_id, "offer")
        offer, _ = Offer.open(envelope, self._keys)
        if offer.round_id != round_id or self._identity.name not in offer.sites:
            raise RoundError("The offer is for another round or site.", code="wrong_address")
        return offer

    def _open_protocol(
        self, round_id: str, offer: Offer, newest_seen: Mapping[str, tuple[int, str]] | None = None
    ) -> Protocol:
        protocol = open_protocol(
            self._parcel(round_id, "protocol"), self._keys, newest_seen=newest_seen or {}
        )
        if protocol.digest() != offer.protocol_digest:
            raise ProtocolError("The protocol is not the one offered.", code="wrong_digest")
        return protocol

    def _approved(self, record: RoundRecord) -> Offer:
        # The spool is the courier's: what lies there now need not be what was approved, even if
        # the lead's key signed it.
        if sha256_hex(self._parcel(record.round_id, "offer")) != record.offer_digest:
            raise RoundError(
                "The offer was replaced after it was approved.",
                code="offer_changed",
                cure="Ask the lead for a new round; this one is not answered any more.",
            )
        return self._open_offer(record.round_id)

    def _open_package(self, round_id: str, package_digest: str) -> ModelPackage:
        from fedcac.models import open_package

        package = open_package(package_files(self._spool.inbox, round_id), self._keys)
        if package.digest != package_digest:
            raise SignatureError("The package is not the one offered.", code="wrong_package")
        if package.manifest.family == "onnx" and not self._is_accepting_onnx:
            raise PackageError(
                "The package is an ONNX graph, which this site does not accept.",
                code="onnx_not_accepted",
                cure="Set accept_onnx in site.yaml to run it, and ask for a new round.",
            )
        return package

    def _parcel(self, round_id: str, what: str, exchange: int | None = None) -> bytes:
        payload = self._spool.inbox.get(parcel_name(round_id, what, exchange))
        if payload is None:
            raise RoundError(
                f"The {what} of round {round_id} has not arrived.", code="parcel_missing"
            )
        return payload

    # the state machine

    def _step_round(self, round_id: str) -> bool:
        record = self._store.round(round_id)
        if record is None:
            record = self._receive_offer(round_id)
            if record is None:
                return False
        if record.state is RoundState.REFUSED:
            return self._deliver_acceptance(record)
        if record.state is RoundState.OFFERED:
            return False
        is_changed = self._deliver_acceptance(record)
        return self._answer_requests(record) or is_changed

    def _receive_offer(self, round_id: str) -> RoundRecord | None:
        try:
            offer = self._open_offer(round_id)
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
            offer_digest=sha256_hex(self._parcel(round_id, "offer")),
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
        if offer.package_digest is None or not self._source.needs_package:
            return False
        return "manifest.json" not in package_files(self._spool.inbox, round_id)

    def _verify(self, round_id: str, offer: Offer) -> RefusalCode | None:
        try:
            # Roll-back is judged once, when a round is offered: a round already under way goes on
            # although a newer version of its protocol has been offered since.
            self._open_protocol(round_id, offer, self._store.newest_protocols())
        except FedcacError:
            return RefusalCode.PROTOCOL_INVALID
        if self._source.needs_package:
            try:
                self._open_package(round_id, offer.package_digest or "")
            except FedcacError:
                return RefusalCode.PACKAGE_INVALID
        return None

    def _decide(self, round_id: str, refusal: RefusalCode | None) -> None:
        self.step()
        record = self._store.round(round_id)
        if record is None or record.state is not RoundState.OFFERED:
            raise RoundError(
                f"Round {round_id} is not waiting for approval.",
                code="not_offered",
                cure="`fedcac-site status` lists the rounds and their states.",
            )
        state = RoundState.REFUSED if refusal else RoundState.APPROVED
        self._store.set_round_state(round_id, state, refusal=refusal.value if refusal else None)

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
        package = None
        if self._source.needs_package:
            package = self._open_package(record.round_id, record.package_digest or "")
        try:
            cohort = self._source.collect(protocol, package)
        except CohortError as error:
            # A person mends the data or withdraws; an unattended site can only withdraw.
            if error.code != "cohort.empty" or not self._is_auto_approving:
                raise
            cohort = empty_cohort()
            self.problems[record.round_id] = error
        self._store.freeze_cohort(record.round_id, cohort.to_json())
        self._store.set_round_state(record.round_id, RoundState.ANSWERING)
        return cohort

    def _answer_requests(self, record: RoundRecord) -> bool:
        is_changed = False
        offer = self._approved(record)
        protocol = self._open_protocol(record.round_id, offer)
        cohort = self._cohort(record, protocol)
        if not self._sums.is_ready(offer):
            return False
        for exchange in itertools.count(1):
            envelope = self._spool.inbox.get(parcel_name(record.round_id, "request", exchange))
            if envelope is None:
                break
            if self._store.reply(record.round_id, exchange) is None:
                self._answer(offer, protocol, cohort, exchange, envelope)
            is_changed |= self._deliver_reply(record.round_id, exchange)
            if offer.masking is not None and self._is_with_keys(record.round_id, exchange):
                is_changed |= self._sums.step(offer, exchange)
        return is_changed

    def _is_with_keys(self, round_id: str, exchange: int) -> bool:
        """Say whether a reply has left that promised a part of a sum; a rejected one did not."""
        payload = self._spool.outbox.get(parcel_name(round_id, "reply", exchange))
        if payload is None:
            return False
        reply, _ = Reply.open(payload, trusted([self._identity.key.public]))
        return reply.masking_keys is not None

    def _answer(
        self,
        offer: Offer,
        protocol: Protocol,
        cohort: FrozenCohort,
        exchange: int,
        envelope: bytes,
    ) -> None:
        request, _ = Request.open(envelope, self._keys)
        now = self._clock()
        if (request.round_id, request.exchange) != (offer.round_id, exchange):
            raise RoundError("A request lies under another's name.", code="wrong_address")
        if request.protocol_digest != offer.protocol_digest:
            raise RoundError("A request is for another protocol.", code="wrong_protocol")
        if request.expires_at < now:
            raise RoundError("A request has expired.", code="expired")
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
            raise IntegrityError("A reply that was stored is gone.", code="reply_missing")
        _, state, payload = stored
        name = parcel_name(round_id, "reply", exchange)
        if state is ExchangeState.HELD or self._spool.outbox.get(name) is not None:
            return False
        self._spool.outbox.put(name, payload)
        return True
