"""The courier's loop: one order at a time to each site that is online and has work.

An order is not a round: if it is lost, expires or comes back as an error, another one is sent,
and the round does not notice. All that matters lies in the journal; this loop may be killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from coordinator.flower_courier.journal import CourierJournal
from fedcac.errors import FedcacError
from fedcac.exchange.couriering import (
    BODY_BYTES,
    CourierKey,
    CourierPublicKey,
    Delivery,
    Order,
    Receipt,
    Sealed,
)

__all__ = ["Answered", "Dispatcher", "Link"]

# An order waits at the site for what was asked: long where an answer may come within seconds.
_FIRST_WAIT_S, _WAIT_S = 5.0, 2.0
_SETTLE_S = 0.15
_UNASKED_BYTES = 2**20
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class Answered:
    """What came back for an order: a sealed receipt with its chunks, or None for an error."""

    sealed: Sealed | None
    bodies: Mapping[str, bytes]


class Link(Protocol):
    """What the loop needs of Flower."""

    def online(self) -> Mapping[str, int]:
        """Return the node of each site of the roster that is online."""

    def send(self, node: int, sealed: Sealed, bodies: Mapping[str, bytes]) -> str:
        """Send an order and return a ticket for its answer."""

    def poll(self, tickets: Sequence[str]) -> Mapping[str, Answered]:
        """Return the answers that have come, by ticket."""


@dataclass
class _Site:
    ticket: str | None = None
    serial: int = 0
    expires: float = 0.0
    due: float = 0.0
    pause: float = _FIRST_PAUSE_S
    missing: dict[str, tuple[str, ...]] = field(default_factory=dict)
    work: tuple[object, ...] = ()


class Dispatcher:
    """Moves the journal's parcels over a link.

    Parameters
    ----------
    journal
        What is to be carried.
    roster
        The node key of every site, with which its receipts are verified.
    key
        Signs the orders.
    order_life_s
        An order without an answer for so long is taken for lost.
    say
        Told in a few words what happens; never of what is in a parcel.
    """

    def __init__(
        self,
        *,
        journal: CourierJournal,
        link: Link,
        roster: Mapping[str, CourierPublicKey],
        key: CourierKey,
        order_life_s: float = 300.0,
        say: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._link = link
        self._roster = dict(roster)
        self._key = key
        self._order_life_s = order_life_s
        self._say = say
        self._clock = clock
        self._sites = {name: _Site() for name in roster}

    def turn(self) -> bool:
        """Take in what has come and send what is due; say whether anything moved."""
        is_moved = self._take_in()
        online: Mapping[str, int] | None = None
        for name, site in self._sites.items():
            if site.ticket is not None:
                continue
            deliver, asked = self._journal.pending(name), self._journal.asked(name)
            work = (tuple(one.name for one in deliver), tuple(asked.items()))
            if not deliver and not asked:
                continue
            if work != site.work:
                # The engine may still be writing: what it asks for is to go with what it sends,
                # since a SuperNode that has nothing to do looks again after seconds only.
                site.work, site.pause = work, _FIRST_PAUSE_S
                site.due = self._clock() + _SETTLE_S
            if self._clock() < site.due:
                continue
            online = self._link.online() if online is None else online
            if name in online:
                order = Order(
                    site=name,
                    serial=self._journal.next_serial(),
                    deliver=deliver,
                    collect=asked,
                    wait_s=_FIRST_WAIT_S if site.pause == _FIRST_PAUSE_S else _WAIT_S,
                )
                self._send(site, online[name], order)
                is_moved = True
            else:
                self._postpone(site)
        return is_moved

    def _send(self, site: _Site, node: int, order: Order) -> None:
        bodies = self._bodies(site, order.deliver)
        site.serial = order.serial
        site.ticket = self._link.send(node, order.seal(self._key), bodies)
        site.expires = self._clock() + self._order_life_s

    def _bodies(self, site: _Site, deliver: Sequence[Delivery]) -> dict[str, bytes]:
        """Return the chunks to send: what the site said is missing, or small parcels unasked."""
        bodies: dict[str, bytes] = {}
        n_bytes = 0
        for one in deliver:
            wanted = site.missing.get(one.name)
            if wanted is None and one.manifest.size <= _UNASKED_BYTES and not site.missing:
                wanted = one.manifest.chunks
            for digest in wanted or ():
                chunk = self._journal.chunks.get(digest) if digest not in bodies else None
                if chunk is not None and n_bytes + len(chunk) <= BODY_BYTES:
                    bodies[digest] = chunk
                    n_bytes += len(chunk)
        return bodies

    def _take_in(self) -> bool:
        waiting = {site.ticket: name for name, site in self._sites.items() if site.ticket}
        answers = self._link.poll(list(waiting)) if waiting else {}
        for ticket, answered in answers.items():
            name = waiting[ticket]
            self._sites[name].ticket = None
            self._receive(name, answered)
        for site in self._sites.values():
            if site.ticket is not None and self._clock() > site.expires:
                site.ticket = None
                self._postpone(site)
        return bool(answers)

    def _receive(self, name: str, answered: Answered) -> None:
        site = self._sites[name]
        if answered.sealed is None:
            self._say(f"{name}: an order came back without a receipt")
            self._postpone(site)
            return
        try:
            receipt = Receipt.open(answered.sealed, self._roster[name])
            if (receipt.site, receipt.serial) != (name, site.serial):
                # Another order's receipt, however genuine, says nothing about this one.
                self._say(f"{name}: a receipt for another order was dropped")
                self._postpone(site)
                return
            is_moved = self._apply(name, receipt, answered.bodies)
        except FedcacError as error:
            self._say(f"{name}: a receipt was dropped ({error.code})")
            self._postpone(site)
            return
        if is_moved:
            site.due, site.pause = 0.0, _FIRST_PAUSE_S
        else:
            self._postpone(site)

    def _apply(self, name: str, receipt: Receipt, bodies: Mapping[str, bytes]) -> bool:
        site = self._sites[name]
        asked = self._journal.asked(name)
        manifests = {n: one for n, one in receipt.collected.items() if n in asked}
        wanted = {digest for one in manifests.values() for digest in one.chunks}
        for digest in wanted & bodies.keys():
            self._journal.chunks.put(digest, bodies[digest])
        self._journal.note_collected(name, manifests)
        self._journal.note_delivered(name, receipt.delivered)
        self._journal.note_refused(name, receipt.refused)
        for parcel, code in receipt.refused.items():
            self._say(f"{name}: {parcel} was not taken ({code})")
        is_moved = bool(receipt.delivered or manifests or receipt.missing != site.missing)
        site.missing = dict(receipt.missing)
        return is_moved

    def _postpone(self, site: _Site) -> None:
        site.due = self._clock() + site.pause
        site.pause = min(2 * site.pause, _LONGEST_PAUSE_S)
