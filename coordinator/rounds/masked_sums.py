"""The masked part of an exchange: plan, masked vectors, survivors, signatures, shares, sums.

What was sent is stored and decides what counts: who is in the plan and who stayed do not change
when a message comes late. The sums are stored as well, so that the round can be replayed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

from pydantic import JsonValue

from coordinator.rounds.intake import TO_NOBODY, Intake
from coordinator.state.store import CoordinatorStore, Direction
from fedcac.aggregate import Aggregate, parse_aggregate
from fedcac.aggregate.vectors import Layout, aggregate_of
from fedcac.canonical import canonical_bytes
from fedcac.errors import GateError, RoundError
from fedcac.exchange import (
    Acceptance,
    Courier,
    MaskingNote,
    MaskingTerms,
    Offer,
    Reply,
    parcel_name,
)
from fedcac.masking import (
    Block,
    MaskedInput,
    MaskedSum,
    MaskingCoordinator,
    MaskingError,
    MaskingExchange,
    SurvivorSignature,
    UnmaskRequest,
    UnmaskShares,
)
from fedcac.masking.fixed_point import LARGEST_VALUE
from fedcac.signing import PublicKey, SigningKey, trusted
from fedcac.vocabulary import RefusalCode, SiteName

__all__ = ["MaskedSums", "SumOfSites"]

_SUMS = "sums"

S = TypeVar("S", MaskedInput, SurvivorSignature, UnmaskShares)


@dataclass(frozen=True)
class SumOfSites:
    """What one exchange told of one masked analysis: an aggregate over `sites`, or a code."""

    answer: Aggregate | RefusalCode
    sites: tuple[str, ...] = ()

    def to_document(self) -> dict[str, JsonValue]:
        """Return the sum as it is stored and given out."""
        told: dict[str, JsonValue] = (
            {"refusal": self.answer.value}
            if isinstance(self.answer, RefusalCode)
            else {"payload": self.answer.to_payload()}
        )
        return {"sites": list(self.sites), **told}

    @classmethod
    def from_document(cls, document: Any) -> SumOfSites:
        """Return what `to_document` gave.

        Raises
        ------
        GateError, KeyError, TypeError, ValueError
            If the document has another shape.
        """
        answer = (
            parse_aggregate(document["payload"])
            if "payload" in document
            else RefusalCode(document["refusal"])
        )
        return cls(answer, tuple(document["sites"]))


class MaskedSums:
    """Drives the masked sums of every round. `advance` may be called at any time."""

    def __init__(
        self,
        store: CoordinatorStore,
        courier: Courier,
        intake: Intake,
        key: SigningKey,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._courier = courier
        self._intake = intake
        self._key = key
        self._clock = clock

    def send_channels(self, offer: Offer, acceptances: Mapping[str, Acceptance]) -> None:
        """Send every participant the keys of all; fixed once sent."""
        masking = self._coordinator(offer)
        channels = masking.list_channels(_channel_keys(acceptances)).to_document()
        self._send(offer, "channels", 0, dict.fromkeys(acceptances, channels))

    def sums(self, offer: Offer, exchange: int) -> dict[str, SumOfSites] | None:
        """Return what a finished exchange told, by analysis; None before it is finished."""
        name = parcel_name(offer.round_id, _SUMS, exchange)
        payload = self._store.parcel(offer.round_id, Direction.SENT, name, TO_NOBODY)
        if payload is None:
            return None
        return {
            analysis: SumOfSites.from_document(told)
            for analysis, told in json.loads(payload).items()
        }

    def advance(
        self,
        offer: Offer,
        exchange: int,
        asked: Sequence[str],
        acceptances: Mapping[str, Acceptance],
        replies: Mapping[str, Reply],
        patience: timedelta,
    ) -> bool:
        """Do what is due in an exchange whose replies are in; say whether its sums are there.

        `asked` are the masked analyses, `patience` is how long the sites have for each step.
        """
        if self.sums(offer, exchange) is not None:
            return True
        terms = _terms_of(offer)
        chosen = dict(self._blocks(offer, terms, exchange, asked, replies))
        told: dict[str, SumOfSites] = {
            analysis: SumOfSites(block)
            for analysis, block in chosen.items()
            if isinstance(block, RefusalCode)
        }
        blocks = [block for block in chosen.values() if isinstance(block, Block)]
        if blocks:
            found = self._sum(offer, exchange, blocks, acceptances, replies, patience)
            if found is None:
                return False
            layouts = {block.analysis: _layout_in(replies, block) for block in blocks}
            told |= {name: _typed(layouts[name], found.get(name)) for name in layouts}
        self._store_sums(offer, exchange, told)
        return True

    # what is summed over whom

    def _blocks(
        self,
        offer: Offer,
        terms: MaskingTerms,
        exchange: int,
        asked: Sequence[str],
        replies: Mapping[str, Reply],
    ) -> Iterator[tuple[str, Block | RefusalCode]]:
        """Yield what is summed, or why not. All sums of a round are over the same sites.

        The difference of two sums over different sites would tell of the sites between them: the
        events of one that adds to a curve and not to a model, say. The sites refuse it.
        """
        layouts = {analysis: _layouts(analysis, replies) for analysis in sorted(asked)}
        before = self._sites_before(offer, exchange)
        members = before or _members(layouts, terms.threshold)
        for analysis, given in layouts.items():
            agreed = _agreed(given)
            missing = [site for site in members if site not in agreed]
            if not given:
                yield analysis, _common_refusal(analysis, replies.values())
            elif len(members) < terms.threshold:
                yield analysis, RefusalCode.TOO_FEW_SITES
            elif missing and before:
                yield analysis, RefusalCode.SITES_CHANGED
            elif missing:
                said = [replies[site] for site in missing if site in replies]
                yield analysis, _common_refusal(analysis, said)
            else:
                length = given[members[0]].n_numbers
                yield (
                    analysis,
                    Block(
                        analysis=analysis, n_numbers=length, bound=LARGEST_VALUE, members=members
                    ),
                )

    def _sites_before(self, offer: Offer, exchange: int) -> tuple[str, ...]:
        for earlier in range(1, exchange):
            for told in (self.sums(offer, earlier) or {}).values():
                if told.sites:
                    return told.sites
        return ()

    # the steps

    def _sum(
        self,
        offer: Offer,
        exchange: int,
        blocks: Sequence[Block],
        acceptances: Mapping[str, Acceptance],
        replies: Mapping[str, Reply],
        patience: timedelta,
    ) -> dict[str, MaskedSum] | None:
        """Return the sums by analysis, none of them if too few sites stayed, or None: not yet."""
        masking = self._coordinator(offer)
        masking.list_channels(_channel_keys(acceptances))
        keys = [reply.masking_keys for reply in replies.values() if reply.masking_keys is not None]
        try:
            running = masking.open(exchange, keys, blocks)
            return self._steps(offer, running, patience)
        except MaskingError:
            # A site's message does not hold in a way that nobody can go on from; no vector opens.
            return {}

    def _steps(
        self, offer: Offer, running: MaskingExchange, patience: timedelta
    ) -> dict[str, MaskedSum] | None:
        threshold, exchange, sites = (
            _terms_of(offer).threshold,
            running.plan.exchange,
            running.plan.sites,
        )
        deliveries = {site: one.to_document() for site, one in running.deliveries().items()}
        sent = self._send(offer, "plan", exchange, deliveries)
        stayed = self._survivors(offer, exchange)
        inputs = [
            message
            for message in self._collected(offer, MaskedInput, "masked", exchange, stayed or sites)
            if running.fits(message)
        ]
        if stayed is None and len(inputs) < len(sites) and self._clock() <= sent + patience:
            return None
        survivors = running.close(inputs)
        stayed = survivors.survivors
        documents = dict.fromkeys(stayed, survivors.to_document())
        sent = self._send(offer, "survivors", exchange, documents)
        given = self._collected(offer, SurvivorSignature, "signature", exchange, stayed)
        signatures = [signature for signature in given if running.is_signed(signature)]
        request = self._certified(offer, exchange)
        if request is None:
            if len(signatures) < threshold:
                return None if self._clock() <= sent + patience else {}
            request = running.certify(signatures)
        documents = dict.fromkeys(stayed, request.to_document())
        sent = self._send(offer, "unmask", exchange, documents)
        answers = list(self._collected(offer, UnmaskShares, "shares", exchange, stayed))
        if len(answers) < threshold:
            return None if self._clock() <= sent + patience else {}
        return {one.analysis: one for one in running.sums(answers)}

    def _survivors(self, offer: Offer, exchange: int) -> tuple[str, ...] | None:
        document = self._sent_document(offer, "survivors", exchange)
        return None if document is None else tuple(document["survivors"])

    def _certified(self, offer: Offer, exchange: int) -> UnmaskRequest | None:
        document = self._sent_document(offer, "unmask", exchange)
        return None if document is None else UnmaskRequest.from_document(document)

    # parcels

    def _send(
        self,
        offer: Offer,
        step: Literal["channels", "plan", "survivors", "unmask"],
        exchange: int,
        documents: Mapping[str, Any],
    ) -> datetime:
        """Send a step's message to its sites; return when it was first sent."""
        name, issued = parcel_name(offer.round_id, step, exchange), self._clock()
        for site, document in sorted(documents.items()):
            envelope = self._store.parcel(offer.round_id, Direction.SENT, name, site)
            if envelope is None:
                note = MaskingNote(
                    round_id=offer.round_id,
                    issued_at=issued,
                    site=site,
                    exchange=exchange,
                    step=step,
                    document=document,
                )
                envelope = note.seal(self._key)
                self._store.add_parcel(offer.round_id, Direction.SENT, name, envelope, site)
            else:
                issued = min(issued, self._opened(envelope).issued_at)
            self._courier.send(SiteName(site), name, envelope)
        return issued

    def _sent_document(self, offer: Offer, step: str, exchange: int) -> Any:
        name = parcel_name(offer.round_id, step, exchange)
        for site in offer.sites:
            envelope = self._store.parcel(offer.round_id, Direction.SENT, name, site)
            if envelope is not None:
                return self._opened(envelope).document
        return None

    def _opened(self, envelope: bytes) -> MaskingNote:
        note, _ = MaskingNote.open(envelope, trusted([self._key.public]))
        return note

    def _collected(
        self, offer: Offer, kind: type[S], step: str, exchange: int, sites: Sequence[str]
    ) -> Iterator[S]:
        for site in sites:
            note = self._intake.note(offer, step, exchange, site, collect=True)
            if note is None:
                continue
            try:
                message = kind.from_document(note.document)
            except RoundError:
                # Left out like a site that says nothing.
                continue
            if message.site == site:
                yield message

    def _store_sums(self, offer: Offer, exchange: int, told: Mapping[str, SumOfSites]) -> None:
        document = {analysis: one.to_document() for analysis, one in told.items()}
        name = parcel_name(offer.round_id, _SUMS, exchange)
        payload = canonical_bytes(document)
        self._store.add_parcel(offer.round_id, Direction.SENT, name, payload, TO_NOBODY)

    def _coordinator(self, offer: Offer) -> MaskingCoordinator:
        terms = _terms_of(offer)
        enrolled = {name: PublicKey.from_text(text) for name, text in terms.site_keys.items()}
        return MaskingCoordinator(
            round_id=offer.round_id, enrolled=enrolled, threshold=terms.threshold
        )


def _terms_of(offer: Offer) -> MaskingTerms:
    if offer.masking is None:
        raise RoundError("The round has no masked sums.", code="masking_terms")
    return offer.masking


def _channel_keys(acceptances: Mapping[str, Acceptance]) -> list[Any]:
    return [one.channel_key for one in acceptances.values() if one.channel_key is not None]


def _layouts(analysis: str, replies: Mapping[str, Reply]) -> dict[str, Layout]:
    return {
        site: answer.layout
        for site, reply in replies.items()
        if (answer := reply.answers.get(analysis)) is not None
        and answer.layout is not None
        and reply.masking_keys is not None
    }


def _agreed(given: Mapping[str, Layout]) -> set[str]:
    """Return the sites whose vectors fit together."""
    if not given:
        return set()
    layout, _ = Counter(given.values()).most_common(1)[0]
    return {site for site, own in given.items() if own == layout}


def _members(layouts: Mapping[str, Mapping[str, Layout]], threshold: int) -> tuple[str, ...]:
    """Return the sites that answered everything; all that answered if these are too few.

    A protocol is kept whole if a site must be left out for it. If too few answered everything, an
    analysis is left out for the sites.
    """
    answered = [_agreed(given) for given in layouts.values() if given]
    if not answered:
        return ()
    whole = set.intersection(*answered)
    return tuple(sorted(whole if len(whole) >= threshold else set.union(*answered)))


def _common_refusal(analysis: str, replies: Iterable[Reply]) -> RefusalCode:
    codes = Counter(
        answer.refusal
        for reply in replies
        if (answer := reply.answers.get(analysis)) is not None and answer.refusal is not None
    )
    return codes.most_common(1)[0][0] if codes else RefusalCode.TOO_FEW_SITES


def _layout_in(replies: Mapping[str, Reply], block: Block) -> Layout:
    layout = replies[block.members[0]].answers[block.analysis].layout
    if layout is None:
        raise RoundError("A member of a sum gave no layout.", code="masking_terms")
    return layout


def _typed(layout: Layout, found: MaskedSum | None) -> SumOfSites:
    if found is None:
        return SumOfSites(RefusalCode.TOO_FEW_SITES)
    try:
        return SumOfSites(aggregate_of(layout, found.values.tolist()), found.sites)
    except GateError:
        return SumOfSites(RefusalCode.INTERNAL, found.sites)
