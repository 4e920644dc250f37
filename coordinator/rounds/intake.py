"""What sites sent, verified once: acceptances and replies as typed messages.

A parcel is opened with the key enrolled for the site whose outbox it came from, and must name that
site, this round and what it answers. Only what passes is stored.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from datetime import datetime
from typing import TypeVar

from pydantic import JsonValue

from coordinator.rounds.site_keys import SiteKeys
from coordinator.state.records import Direction, Event, EventKind
from coordinator.state.store import CoordinatorStore
from fedcac.aggregate import Aggregate, parse_aggregate
from fedcac.canonical import sha256_hex
from fedcac.errors import FedcacError, GateError
from fedcac.exchange import (
    Acceptance,
    Answer,
    Courier,
    MaskingNote,
    Message,
    Offer,
    Reply,
    parcel_name,
)
from fedcac.signing import TrustedKeys
from fedcac.vocabulary import RefusalCode, SiteName

__all__ = ["TO_NOBODY", "TO_PARTICIPANTS", "Intake", "typed_answer"]

# Not site names (those begin with a letter or digit): who else a stored parcel is for.
TO_PARTICIPANTS = "*participants"
TO_NOBODY = "*nobody"

M = TypeVar("M", bound=Message)

_KEPT_BYTES = 64 * 2**20


class Intake:
    """Collects and verifies the parcels of enrolled sites.

    A parcel that held is stored and does not change: the newest stay in memory as messages, so
    that a round of many sites or exchanges is not read and verified anew at every look.
    """

    def __init__(
        self, store: CoordinatorStore, courier: Courier, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._courier = courier
        self._keys = SiteKeys(store)
        self._clock = clock
        # By round, site and name: the message and the bytes of its parcel, the oldest first.
        self._opened: OrderedDict[tuple[str, str, str], tuple[Message, int]] = OrderedDict()
        self._n_kept = 0

    def acceptance(
        self, offer: Offer, offer_digests: Collection[str], site: str, *, collect: bool
    ) -> Acceptance | None:
        """Return a site's word on an offer, or None while there is none that holds.

        `offer_digests` are those of the offers of all editions: they differ in their dates alone.
        """

        def opened(payload: bytes, keys: TrustedKeys) -> Acceptance | None:
            acceptance, _ = Acceptance.open(payload, keys)
            if (acceptance.round_id, acceptance.site) != (offer.round_id, site):
                return None
            if acceptance.offer_digest not in offer_digests:
                return None
            is_bare = acceptance.refusal is None and acceptance.channel_key is None
            return None if is_bare and offer.masking is not None else acceptance

        def event(acceptance: Acceptance) -> Event:
            code = acceptance.refusal
            what = EventKind.ACCEPTED if code is None else EventKind.REFUSED
            detail: dict[str, JsonValue] = {} if code is None else {"code": code.value}
            return Event(self._clock(), site, what, offer.round_id, site, detail)

        name = parcel_name(offer.round_id, "acceptance")
        if (kept := self._kept(offer.round_id, site, name, Acceptance)) is not None:
            return kept
        return self._received(offer.round_id, site, name, opened, event, collect=collect)

    def reply(
        self, offer: Offer, exchange: int, site: str, *, collect: bool = False
    ) -> Reply | None:
        """Return a site's reply to an exchange that was asked, or None while none holds."""
        name = parcel_name(offer.round_id, "reply", exchange)
        if (kept := self._kept(offer.round_id, site, name, Reply)) is not None:
            return kept
        request_name = parcel_name(offer.round_id, "request", exchange)
        request = self._store.parcel(offer.round_id, Direction.SENT, request_name, TO_PARTICIPANTS)
        if request is None:
            return None
        expected = (offer.round_id, site, exchange, sha256_hex(request))

        def opened(payload: bytes, keys: TrustedKeys) -> Reply | None:
            reply, _ = Reply.open(payload, keys)
            given = (reply.round_id, reply.site, reply.exchange, reply.request_digest)
            return reply if given == expected else None

        def event(reply: Reply) -> Event:
            detail: dict[str, JsonValue] = {
                "exchange": exchange,
                "releases": sum(answer.refusal is None for answer in reply.answers.values()),
                "refusals": sum(answer.refusal is not None for answer in reply.answers.values()),
            }
            return Event(self._clock(), site, EventKind.REPLIED, offer.round_id, site, detail)

        return self._received(offer.round_id, site, name, opened, event, collect=collect)

    def n_bytes(self, round_id: str, site: str, names: Collection[str]) -> int:
        """Return how many bytes these parcels of a site have together; those that came."""
        kept = {name: self._opened.get((round_id, site, name)) for name in names}
        sizes = [one[1] for one in kept.values() if one is not None]
        for name in (name for name, one in kept.items() if one is None):
            payload = self._store.parcel(round_id, Direction.RECEIVED, name, site)
            sizes.append(0 if payload is None else len(payload))
        return sum(sizes)

    def note(
        self, offer: Offer, step: str, exchange: int, site: str, *, collect: bool
    ) -> MaskingNote | None:
        """Return a site's message of a masked sum, or None while none holds."""
        expected = (offer.round_id, site, exchange, step)

        def opened(payload: bytes, keys: TrustedKeys) -> MaskingNote | None:
            note, _ = MaskingNote.open(payload, keys)
            given = (note.round_id, note.site, note.exchange, note.step)
            return note if given == expected else None

        name = parcel_name(offer.round_id, step, exchange)
        return self._received(offer.round_id, site, name, opened, None, collect=collect)

    def _received(
        self,
        round_id: str,
        site: str,
        name: str,
        opened: Callable[[bytes, TrustedKeys], M | None],
        event: Callable[[M], Event] | None,
        *,
        collect: bool,
    ) -> M | None:
        stored = self._store.parcel(round_id, Direction.RECEIVED, name, site)
        if stored is not None:
            message = opened(stored, self._keys.stored(site))
            self._keep((round_id, site, name), message, len(stored))
            return message
        arrived = self._courier.collect(SiteName(site), name) if collect else None
        if arrived is None:
            return None
        try:
            message = opened(arrived, self._keys.arriving(site))
        except FedcacError:
            # Not stored: whoever tampered with the way must not be able to end a site's part in
            # the round; the genuine parcel may still come.
            return None
        if message is not None:
            self._store.add_parcel(
                round_id,
                Direction.RECEIVED,
                name,
                arrived,
                site,
                at=self._clock(),
                events=() if event is None else (event(message),),
            )
            self._keep((round_id, site, name), message, len(arrived))
        return message

    def _kept(self, round_id: str, site: str, name: str, kind: type[M]) -> M | None:
        found = self._opened.get((round_id, site, name))
        return found[0] if found is not None and isinstance(found[0], kind) else None

    def _keep(self, key: tuple[str, str, str], message: Message | None, n_bytes: int) -> None:
        if message is None or key in self._opened:
            return
        self._opened[key] = message, n_bytes
        self._n_kept += n_bytes
        while self._n_kept > _KEPT_BYTES and len(self._opened) > 1:
            self._n_kept -= self._opened.popitem(last=False)[1][1]


def typed_answer(answer: Answer) -> Aggregate | RefusalCode:
    """Return what a site released, or its code.

    One that answers out of shape is left out like one that refuses; the round goes on.
    """
    if answer.release is None:
        return answer.refusal or RefusalCode.INTERNAL
    try:
        return parse_aggregate(answer.release)
    except GateError:
        return RefusalCode.INTERNAL
