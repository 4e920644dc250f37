"""What a site does with an order: parcels into the inbox, parcels out of the outbox.

Knows no Flower. An order counts only if the coordinator's courier signed it for this site and it
is newer than every order before; nothing else can write here or read here, whoever holds the
SuperLink.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from fedcac.errors import RoundError
from fedcac.exchange.chunks import ChunkStore, Manifest, chunks_of, digest_of
from fedcac.exchange.couriering import (
    BODY_BYTES,
    CourierKey,
    CourierPublicKey,
    Delivery,
    Order,
    Receipt,
    RefusalWord,
    Sealed,
)
from fedcac.exchange.mailbox import Mailbox

__all__ = ["SiteCarrier"]

_N_MISSING_TOLD = 8
_LOOK_EVERY_S = 0.1


class SiteCarrier:
    """Carries out orders at one site.

    Parameters
    ----------
    site
        The site's name in the consortium.
    inbox, outbox
        The two mailboxes of the spool; the outbox is only read.
    state
        The courier's own folder: the last order's serial and the chunks.
    key
        This courier's key, which is the SuperNode's.
    coordinator
        The pinned key of the coordinator's courier.
    limit_bytes
        What the chunks may take on disk; a larger parcel has to come another way.
    """

    def __init__(
        self,
        *,
        site: str,
        inbox: Mailbox,
        outbox: Mailbox,
        state: Path,
        key: CourierKey,
        coordinator: CourierPublicKey,
        limit_bytes: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._site = site
        self._inbox = inbox
        self._outbox = outbox
        self._serial_path = state / "last-serial"
        self._chunks = ChunkStore(state / "chunks", limit_bytes)
        self._key = key
        self._coordinator = coordinator
        self._sleep = sleep

    def answer(
        self, sealed: Sealed, bodies: Mapping[str, bytes]
    ) -> tuple[Sealed, dict[str, bytes]]:
        """Carry out an order and return the signed receipt and the chunks that go with it.

        Parameters
        ----------
        sealed
            The order as it came.
        bodies
            Chunks that came with it, by digest; those that nothing asks for are dropped.

        Raises
        ------
        SignatureError
            `courier_signature` if the coordinator's courier did not sign it.
        RoundError
            `wrong_address` if it is for another site, `courier_replayed` if it is not newer than
            the last one, `malformed_courier_message` if it has another shape.
        """
        order = Order.open(sealed, self._coordinator)
        self._check_fresh(order)
        delivered, missing, refused = self._deliver(order.deliver, bodies)
        collected, chunks = self._collect(order, may_wait=not missing)
        receipt = Receipt(
            site=self._site,
            serial=order.serial,
            delivered=tuple(delivered),
            missing=missing,
            refused=refused,
            collected=collected,
        )
        return receipt.seal(self._key), chunks

    def _check_fresh(self, order: Order) -> None:
        if order.site != self._site:
            raise RoundError(
                "The order is for another site.",
                code="wrong_address",
                cure="Correct `site` in courier.toml; the lead says which name is this courier's.",
            )
        try:
            last = int(self._serial_path.read_text(encoding="ascii"))
        except FileNotFoundError:
            last = 0
        if order.serial <= last:
            raise RoundError(
                "An order is not newer than the last one.",
                code="courier_replayed",
                cure="If the coordinator was set up anew, its clock may run behind: correct it.",
            )
        self._serial_path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._serial_path.with_suffix(".part")
        temporary.write_text(str(order.serial), encoding="ascii")
        os.replace(temporary, self._serial_path)

    # into the inbox

    def _deliver(
        self, deliveries: tuple[Delivery, ...], bodies: Mapping[str, bytes]
    ) -> tuple[list[str], dict[str, tuple[str, ...]], dict[str, RefusalWord]]:
        delivered: list[str] = []
        missing: dict[str, tuple[str, ...]] = {}
        refused: dict[str, RefusalWord] = {}
        wanted = {digest for one in deliveries for digest in one.manifest.chunks}
        self._keep(bodies, wanted)
        waiting: set[str] = set()
        for one in deliveries:
            # The offer of a round comes last: the agent that sees it finds the rest in place.
            round_id = one.name.partition(".")[0]
            if round_id not in waiting:
                refusal = self._put(one)
                if refusal is None:
                    delivered.append(one.name)
                    continue
                waiting.add(round_id)
                if refusal != "missing":
                    refused[one.name] = refusal
                    continue
            absent = self._chunks.missing(one.manifest)
            if absent:
                missing[one.name] = absent[:_N_MISSING_TOLD]
        return delivered, missing, refused

    def _keep(self, bodies: Mapping[str, bytes], wanted: set[str]) -> None:
        arrived = {digest: chunk for digest, chunk in bodies.items() if digest in wanted}
        self._chunks.make_room(sum(map(len, arrived.values())), wanted)
        for digest, chunk in arrived.items():
            self._chunks.put(digest, chunk)

    def _put(self, one: Delivery) -> RefusalWord | Literal["missing"] | None:
        present = self._inbox.get(one.name)
        if present is not None:
            # It may also have come beside Flower, by hand; what counts is the digest.
            is_same = digest_of(present) == one.manifest.digest
            return None if is_same else "parcel_changed"
        if one.manifest.size > self._chunks.limit_bytes:
            return "too_large"
        try:
            payload = self._chunks.assemble(one.manifest)
        except RoundError:
            return "parcel_altered"
        if payload is None:
            return "missing"
        self._inbox.put(one.name, payload)
        return None

    # out of the outbox

    def _collect(
        self, order: Order, *, may_wait: bool
    ) -> tuple[dict[str, Manifest], dict[str, bytes]]:
        n_looks = int(order.wait_s / _LOOK_EVERY_S) if may_wait and order.collect else 0
        found = self._new_parcels(order)
        while not found and n_looks > 0:
            n_looks -= 1
            self._sleep(_LOOK_EVERY_S)
            found = self._new_parcels(order)
        chunks: dict[str, bytes] = {}
        n_bytes = 0
        for name, payload in found.items():
            held = set(order.collect[name].chunks)
            for digest, chunk in chunks_of(payload):
                if digest not in held and n_bytes + len(chunk) <= BODY_BYTES:
                    chunks[digest] = chunk
                    n_bytes += len(chunk)
        return {name: Manifest.of(payload) for name, payload in found.items()}, chunks

    def _new_parcels(self, order: Order) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for name, asked in order.collect.items():
            payload = self._outbox.get(name)
            if payload is not None and digest_of(payload) != asked.digest:
                found[name] = payload
        return found
