"""What the lead says of a round beside its requests: offers, later editions, and the last word.

The spool is the courier's: what lies there now need not be what was approved, even if the lead's
key signed it. So an approved offer is found by its digest.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedcac.canonical import sha256_hex
from fedcac.errors import RoundError, SignatureError
from fedcac.exchange import Closing, Offer, parcel_name
from fedcac.exchange.mailbox import Mailbox
from fedcac.exchange.parcels import numbered_parcels
from fedcac.signing import TrustedKeys
from site_agent.rounds.faults import misplaced

__all__ = ["Offers"]


@dataclass(frozen=True)
class Offers:
    """The lead's offers and closings in an inbox, verified for the site `name`."""

    inbox: Mailbox
    keys: TrustedKeys
    name: str

    def newest(self, round_id: str) -> tuple[Offer, str]:
        """Return the newest offer that holds and the digest of its parcel.

        A later edition that does not hold is passed over: whoever can write to the spool must not
        be able to end a round by it.

        Raises
        ------
        SignatureError, RoundError
            If the first offer does not hold either.
        """
        for edition in self._later_editions(round_id):
            envelope = self.parcel(round_id, "offer", edition)
            try:
                return self._opened(round_id, envelope, edition), sha256_hex(envelope)
            except (SignatureError, RoundError):
                continue
        envelope = self.parcel(round_id, "offer")
        return self._opened(round_id, envelope, None), sha256_hex(envelope)

    def approved(self, round_id: str, digest: str) -> Offer:
        """Return the offer whose parcel has a digest; RoundError `offer_changed` if it is gone."""
        for edition in (*self._later_editions(round_id), None):
            envelope = self.parcel(round_id, "offer", edition)
            if sha256_hex(envelope) == digest:
                return self._opened(round_id, envelope, edition)
        raise RoundError(
            "The offer was replaced after it was approved.",
            code="offer_changed",
            cure="Ask the lead for a new round; this one is not answered any more.",
        )

    def is_closed(self, round_id: str) -> bool:
        """Say whether the lead has said its last word on a round.

        Raises
        ------
        SignatureError, RoundError
            If what lies there does not hold; the round then waits for somebody to look.
        """
        envelope = self.inbox.get(parcel_name(round_id, "closing"))
        if envelope is None:
            return False
        closing, _ = Closing.open(envelope, self.keys)
        if closing.round_id != round_id:
            raise misplaced("A closing")
        return True

    def parcel(self, round_id: str, what: str, exchange: int | None = None) -> bytes:
        """Return a parcel; RoundError `parcel_missing` if it has not arrived."""
        payload = self.inbox.get(parcel_name(round_id, what, exchange))
        if payload is None:
            raise RoundError(
                f"The {what} of round {round_id} has not arrived.",
                code="parcel_missing",
                cure="Wait for the courier, or put the round's parcels into the spool's inbox.",
            )
        return payload

    def _later_editions(self, round_id: str) -> tuple[int, ...]:
        """Return the numbers of later editions, newest first; the first edition has none."""
        return tuple(reversed(numbered_parcels(self.inbox, round_id, "offer")))

    def _opened(self, round_id: str, envelope: bytes, edition: int | None) -> Offer:
        offer, _ = Offer.open(envelope, self.keys)
        if offer.round_id != round_id or self.name not in offer.sites:
            raise RoundError(
                "The offer is for another round or site.",
                code="wrong_address",
                cure="It is not answered. Tell the lead which site this is.",
            )
        if offer.edition != (edition or 1):
            raise misplaced("An offer")
        return offer
