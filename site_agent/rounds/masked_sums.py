"""A site's part in the masked sums of its rounds, step by step, driven by what lies in the inbox.

Whatever a step makes is stored together with the state that follows from it before it leaves, so
that after kill -9 the same bytes leave again, and a site never gives two vectors of one exchange or
signs two lists of survivors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from fedcac.canonical import canonical_bytes, digest_of
from fedcac.errors import RoundError
from fedcac.exchange import MaskingNote, MaskingTerms, Offer, Spool, parcel_name
from fedcac.masking import (
    ChannelKey,
    ChannelList,
    ExchangeKeys,
    ExchangePlan,
    MaskingSite,
    PlanDelivery,
    SiteState,
    SurvivorList,
    UnmaskRequest,
)
from fedcac.masking.fixed_point import LARGEST_VALUE
from fedcac.protocol import Protocol
from fedcac.signing import PublicKey, TrustedKeys
from site_agent.rounds.faults import misplaced
from site_agent.rounds.identity import SiteIdentity
from site_agent.state.store import SiteStore

__all__ = ["MaskedSums"]

_STATE, _KEYS, _VECTORS, _PARCEL = "masking", "masking keys", "vectors", "parcel"
_ASKED, _SITES = "sum asked of", "sum of"


class MaskedSums:
    """Masked sums at one site. `step` may be called at any time."""

    def __init__(
        self,
        identity: SiteIdentity,
        store: SiteStore,
        spool: Spool,
        lead_keys: TrustedKeys,
        clock: Callable[[], datetime],
    ) -> None:
        self._identity = identity
        self._store = store
        self._spool = spool
        self._lead_keys = lead_keys
        self._clock = clock

    # the offer

    def check_offer(self, offer: Offer, protocol: Protocol) -> None:
        """Check the terms of an offer against the protocol and the keys that this site knows.

        Raises
        ------
        RoundError
            `masking_terms` if the offer does not fit its protocol; `unknown_peer` if a site's key
            was not confirmed here, or is another one.
        """
        terms = offer.masking
        if (protocol.pooling.mode == "masked") != (terms is not None):
            raise RoundError(
                "The offer and its protocol differ on sums.",
                code="masking_terms",
                cure="Ask the lead for a new round.",
            )
        if terms is None:
            return
        is_complete = set(terms.site_keys) == set(offer.sites)
        if not is_complete or terms.threshold < protocol.pooling.least_sites:
            raise RoundError(
                "The offer's masked sums are not those of its protocol.",
                code="masking_terms",
                cure="Ask the lead for a new round.",
            )
        self._check_peers(terms, offer.sites)

    def _check_peers(self, terms: MaskingTerms, sites: Sequence[str]) -> None:
        known = {**self._identity.peers, self._identity.name: self._identity.key.public}
        offered = {name: key for name, key in _keys_of(terms).items() if name in sites}
        unknown = sorted(name for name, key in offered.items() if known.get(name) != key)
        if unknown:
            lines = "; ".join(f"{name} {offered[name].fingerprint}" for name in unknown)
            raise RoundError(
                f"Keys of other sites are not confirmed here: {lines}.",
                code="unknown_peer",
                cure="Compare each fingerprint with that site's people over another channel, then "
                "add its .pub file with `fedcac-site peer add`. Never take a key from the lead.",
            )

    def channel_key(self, offer: Offer) -> ChannelKey | None:
        """Return this site's key of the round, for its acceptance; None if nothing is masked."""
        if offer.masking is None:
            return None
        site = self._site(offer, offer.masking)
        self._keep(offer.round_id, site, {})
        return site.advertise()

    # before a reply

    def is_ready(self, offer: Offer) -> bool:
        """Say whether requests can be answered: the other sites' keys have come or are not needed.

        Raises
        ------
        MaskingError
            If the list of keys does not hold.
        """
        if offer.masking is None or self._has_channels(offer):
            return True
        note = self._note(offer, "channels", 0)
        if note is None:
            return False
        site = self._site(offer, offer.masking)
        site.accept_channels(ChannelList.from_document(note))
        self._keep(offer.round_id, site, {})
        return True

    def prepare(
        self, offer: Offer, exchange: int, vectors: Mapping[str, Sequence[float]]
    ) -> ExchangeKeys | None:
        """Keep the vectors of an exchange, by analysis, and return the keys for its reply.

        Without any vector there are no keys.

        Raises
        ------
        RoundError
            `request_changed` if other vectors were kept for this exchange before.
        """
        if not vectors or offer.masking is None:
            return None
        name = f"{offer.round_id}.{exchange}"
        kept = self._store.document(_KEYS, name)
        if kept is not None and self._store.document(_VECTORS, name) != canonical_bytes(vectors):
            raise RoundError(
                "The request of this exchange is not the one that was answered.",
                code="request_changed",
                cure="Ask the lead for a new round; this one is not answered any more.",
            )
        if kept is None:
            site = self._site(offer, offer.masking)
            keys = site.prepare(exchange)
            kept = canonical_bytes(keys.to_document())
            more = {(_KEYS, name): kept, (_VECTORS, name): canonical_bytes(vectors)}
            self._keep(offer.round_id, site, more)
        return ExchangeKeys.from_document(json.loads(kept))

    # after it

    def step(self, offer: Offer, exchange: int) -> bool:
        """Do the next steps of an exchange whose reply has left; say whether anything left.

        Raises
        ------
        MaskingError
            If a message does not hold; nothing is lost, and nothing leaves.
        RoundError
            `sites_changed` if a sum is over other sites than another one about the same patients,
            `bad_bound` if it declares a bound of its own, `unknown_peer` if a site's key is not
            confirmed here any more.
        """
        if offer.masking is None or self._vectors(offer, exchange) is None:
            return False
        is_changed = False
        for comes, goes, act in (
            ("plan", "masked", self._mask),
            ("survivors", "signature", self._sign),
            ("unmask", "shares", self._unmask),
        ):
            name = parcel_name(offer.round_id, goes, exchange)
            payload = self._store.document(_PARCEL, name)
            if payload is None:
                document = self._note(offer, comes, exchange)
                if document is None:
                    break
                payload = act(offer, offer.masking, exchange, document)
            if self._spool.outbox.get(name) is None:
                self._spool.outbox.put(name, payload)
                is_changed = True
        return is_changed

    def _mask(self, offer: Offer, terms: MaskingTerms, exchange: int, document: Any) -> bytes:
        delivery = PlanDelivery.from_document(document)
        patients = self._patients(offer)
        self._check_plan(delivery.plan, terms, patients)
        vectors = self._vectors(offer, exchange) or {}
        values = {}
        for block in delivery.plan.blocks:
            if self._identity.name in block.members:
                if block.analysis not in vectors:
                    raise RoundError(
                        "A sum was not answered here.",
                        code="not_answered",
                        cure="Ask the lead for a new round.",
                    )
                values[block.analysis] = vectors[block.analysis]
        site = self._site(offer, terms)
        masked = site.mask(delivery, values)
        # The first plan is the widest; the later ones are parts of it.
        asked = self._store.document(_ASKED, patients) or canonical_bytes(delivery.plan.sites)
        more = {(_ASKED, patients): asked}
        return self._leaving(offer, exchange, "masked", site, masked.to_document(), more)

    def _check_plan(self, plan: ExchangePlan, terms: MaskingTerms, patients: str) -> None:
        # A key may have been withdrawn since the offer.
        self._check_peers(terms, plan.sites)
        self._check_sites(patients, plan.sites)
        for block in plan.blocks:
            # Also within one plan: every sum is over the sites of the plan.
            if block.members != plan.sites:
                raise _sites_changed()
            # A bound raised until the site answers would tell its largest number.
            if block.bound != LARGEST_VALUE:
                raise RoundError(
                    "A sum declares a bound of its own.",
                    code="bad_bound",
                    cure="Treat it as an attack: the coordinator's software never does.",
                )
        kept = self._store.document(_ASKED, patients)
        asked = plan.sites if kept is None else json.loads(kept)
        # Whether the others finished an earlier sum is not known here. Among so few sites two lists
        # of survivors have a signer in common, which signs no second one.
        if not (set(plan.sites) <= set(asked) and len(asked) < 2 * terms.threshold):
            raise _sites_changed()

    def _sign(self, offer: Offer, terms: MaskingTerms, exchange: int, document: Any) -> bytes:
        survivors = SurvivorList.from_document(document)
        site = self._site(offer, terms)
        signature = site.sign_survivors(survivors)
        patients = self._patients(offer)
        self._check_sites(patients, survivors.survivors)
        over = {(_SITES, patients): canonical_bytes(survivors.survivors)}
        return self._leaving(offer, exchange, "signature", site, signature.to_document(), over)

    def _unmask(self, offer: Offer, terms: MaskingTerms, exchange: int, document: Any) -> bytes:
        site = self._site(offer, terms)
        shares = site.unmask(UnmaskRequest.from_document(document))
        # What could unmask this exchange is not needed any more.
        site.forget(exchange)
        return self._leaving(offer, exchange, "shares", site, shares.to_document(), {})

    def _check_sites(self, patients: str, sites: Sequence[str]) -> None:
        # Two sums of one question over different sites differ by the sites that left; so do those
        # of one fit at neighbouring parameters, and of questions that count the same patients.
        kept = self._store.document(_SITES, patients)
        if kept is not None and json.loads(kept) != list(sites):
            raise _sites_changed()

    def _patients(self, offer: Offer) -> str:
        # Not the digest of their values: with one column more they are still the same patients.
        cohort = self._store.frozen_cohort(offer.round_id)
        if cohort is None:
            raise RoundError(
                "The round has no cohort here.",
                code="not_answered",
                cure="Ask the lead for a new round.",
            )
        return digest_of(json.loads(cohort)["keys"])

    # state

    def _site(self, offer: Offer, terms: MaskingTerms) -> MaskingSite:
        enrolled = _keys_of(terms)
        kept = self._store.document(_STATE, offer.round_id)
        if kept is None:
            return MaskingSite(
                round_id=offer.round_id,
                site=self._identity.name,
                key=self._identity.key,
                enrolled=enrolled,
                threshold=terms.threshold,
            )
        state = SiteState.from_document(json.loads(kept))
        return MaskingSite.from_state(state, key=self._identity.key, enrolled=enrolled)

    def _has_channels(self, offer: Offer) -> bool:
        kept = self._store.document(_STATE, offer.round_id)
        return kept is not None and json.loads(kept)["channels"] is not None

    def _keep(
        self, round_id: str, site: MaskingSite, more: Mapping[tuple[str, str], bytes]
    ) -> None:
        state = canonical_bytes(site.to_state().to_document())
        once = frozenset((_KEYS, _VECTORS, _PARCEL))
        self._store.keep_documents({(_STATE, round_id): state, **more}, once=once)

    def _vectors(self, offer: Offer, exchange: int) -> dict[str, list[float]] | None:
        kept = self._store.document(_VECTORS, f"{offer.round_id}.{exchange}")
        return None if kept is None else json.loads(kept)

    def _note(self, offer: Offer, step: str, exchange: int) -> Any:
        envelope = self._spool.inbox.get(parcel_name(offer.round_id, step, exchange))
        if envelope is None:
            return None
        note, _ = MaskingNote.open(envelope, self._lead_keys)
        address = (note.round_id, note.site, note.exchange, note.step)
        if address != (offer.round_id, self._identity.name, exchange, step):
            raise misplaced("A message")
        return note.document

    def _leaving(
        self,
        offer: Offer,
        exchange: int,
        step: Any,
        site: MaskingSite,
        document: dict[str, Any],
        more: Mapping[tuple[str, str], bytes],
    ) -> bytes:
        payload = MaskingNote(
            round_id=offer.round_id,
            issued_at=self._clock(),
            site=self._identity.name,
            exchange=exchange,
            step=step,
            document=document,
        ).seal(self._identity.key)
        name = parcel_name(offer.round_id, step, exchange)
        self._keep(offer.round_id, site, {(_PARCEL, name): payload, **more})
        return payload


def _sites_changed() -> RoundError:
    return RoundError(
        "A sum is asked over other sites than another sum about the same patients.",
        code="sites_changed",
        cure="The difference of the two would tell of single sites. It is not answered; ask the "
        "lead for a round over the same sites as before.",
    )


def _keys_of(terms: MaskingTerms) -> dict[str, PublicKey]:
    return {name: PublicKey.from_text(text) for name, text in terms.site_keys.items()}
