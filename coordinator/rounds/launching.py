"""Launches rounds: checks the plan, signs protocol and offer, and stores a draft."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime

from coordinator.rounds.views import LaunchPlan
from coordinator.state.records import Event, EventKind, RoundRecord, RoundState
from coordinator.state.store import CoordinatorStore
from fedcac.errors import ProtocolError, UsageError
from fedcac.exchange import MaskingTerms, Offer, package_parcels, parcel_name
from fedcac.protocol import Protocol
from fedcac.protocol.signing import open_protocol, seal_protocol
from fedcac.signing import SigningKey, trusted
from fedcac.vocabulary import ReferenceKind

__all__ = ["Launcher"]


class Launcher:
    """Makes draft rounds; nothing is sent from here."""

    def __init__(
        self, store: CoordinatorStore, key: SigningKey, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._key = key
        self._clock = clock

    def check(self, protocol: Protocol, plan: LaunchPlan) -> None:
        """Raise what `launch` would raise, and store nothing."""
        self._checked(protocol, plan)

    def _checked(self, protocol: Protocol, plan: LaunchPlan) -> tuple[bytes, MaskingTerms | None]:
        self._check_plan(plan)
        _check_reference(protocol, plan)
        terms = self._masking_terms(protocol, plan)
        envelope = seal_protocol(protocol, self._key)
        newest = self._store.newest_protocols()
        open_protocol(envelope, trusted([self._key.public]), newest_seen=newest)
        _check_amendment(protocol, newest.get(protocol.id, (0, ""))[0])
        return envelope, terms

    def launch(self, protocol: Protocol, plan: LaunchPlan) -> str:
        """Sign and store a round; return its id. Errors are those of `RoundEngine.launch`."""
        envelope, terms = self._checked(protocol, plan)
        now = self._clock()
        round_id = f"{protocol.id}-{now:%Y%m%d}-{secrets.token_hex(4)}"
        offer = Offer(
            round_id=round_id,
            issued_at=now,
            protocol_id=protocol.id,
            protocol_version=protocol.version,
            protocol_digest=protocol.digest(),
            package_digest=plan.package_digest,
            reference_package_digest=plan.reference_digest,
            sites=plan.sites,
            expires_at=plan.deadline,
            masking=terms,
        )
        names = package_parcels(round_id, plan.package_files)
        parcels = {names[name]: payload for name, payload in plan.package_files.items()}
        names = package_parcels(round_id, plan.reference_files, "reference_package")
        parcels |= {names[name]: payload for name, payload in plan.reference_files.items()}
        parcels[parcel_name(round_id, "protocol")] = envelope
        parcels[parcel_name(round_id, "offer")] = offer.seal(self._key)
        record = RoundRecord(
            round_id, RoundState.DRAFT, plan.minimum_sites, now, plan.deadline, None, plan.quorum
        )
        launched = Event(
            now,
            plan.actor,
            EventKind.LAUNCHED,
            round_id,
            detail={
                "protocol": protocol.id,
                "version": protocol.version,
                "sites": list(plan.sites),
                "minimum_sites": plan.minimum_sites,
                "quorum": plan.quorum,
                "has_reference_package": plan.reference_digest is not None,
                "deadline": plan.deadline.isoformat(),
            },
        )
        digests = protocol.id, protocol.version, protocol.digest()
        self._store.add_round(record, parcels, digests, [launched])
        return round_id

    def _check_plan(self, plan: LaunchPlan) -> None:
        enrolled = self._store.members()
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
        if plan.quorum is not None and not plan.minimum_sites <= plan.quorum <= len(plan.sites):
            raise UsageError(
                f"A quorum of {plan.quorum} cannot be: at least {plan.minimum_sites} of "
                f"{len(plan.sites)} sites are needed.",
                code="bad_quorum",
                cure="Give a number from the least number of sites to the number of sites.",
            )
        if plan.deadline <= self._clock():
            raise UsageError(
                "The deadline has passed.", code="bad_deadline", cure="Give a later one."
            )

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
        if plan.quorum is not None and plan.quorum < threshold:
            raise UsageError(
                f"A sum over {n} sites needs {threshold} of them; the quorum is {plan.quorum}.",
                code="bad_quorum",
                cure=f"Give a quorum of at least {threshold}, or none.",
            )
        enrolled = self._store.sites()
        keys = {site: enrolled[site].key.to_text() for site in plan.sites}
        return MaskingTerms(threshold=threshold, site_keys=keys)


def _check_reference(protocol: Protocol, plan: LaunchPlan) -> None:
    """Check that a reference read by a model is one that the protocol says is."""
    if plan.reference_digest is None:
        return
    is_marked = protocol.reference.kind is ReferenceKind.GATED_CT_MODEL
    if not is_marked or protocol.pairing is None or plan.package_digest is None:
        raise UsageError(
            "A reference package reads the reference exam of every pair, and this round has "
            + (
                "no exams to score."
                if plan.package_digest is None
                else "a protocol whose reference standard is another."
            ),
            code="unmarked_reference",
            cure="Give --model too, and a protocol with reference.kind gated_ct_model and a "
            "pairing window: whoever reads the report must see that a model read the reference.",
        )


def _check_amendment(protocol: Protocol, newest: int) -> None:
    """Check that a version that follows another says so, and why."""
    if 0 < newest < protocol.version and newest not in {one.version for one in protocol.amends}:
        raise ProtocolError(
            f"Version {newest} of protocol '{protocol.id}' was launched, and version "
            f"{protocol.version} does not say why it differs.",
            code="amendment_unexplained",
            cure=f"Add `amends: [{{version: {newest}, reason: ...}}]` to the protocol; `fedcac "
            "protocol diff` shows what changed.",
        )
