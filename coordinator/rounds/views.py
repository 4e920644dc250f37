"""What is said to the engine about a round, and what it says about one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from coordinator.rounds.masked_sums import SumOfSites
from coordinator.state.records import OPEN, EditionRecord, RoundRecord, RoundState
from fedcac.aggregate import FlowCounts, parse_aggregate
from fedcac.exchange import Answer, Offer, Reply
from fedcac.protocol import Protocol
from fedcac.statistics import Estimate
from fedcac.vocabulary import RefusalCode

__all__ = ["LaunchPlan", "RoundView", "SiteView", "Standing", "Used"]

Used = Mapping[str, Mapping[str, int]]
"""Of one step, per analysis and site, the exchange in which the site gave the answer used."""


class Standing(StrEnum):
    """Where one site stands in a round, as far as its parcels tell.

    A site that scores sends nothing until it is done: between its word that it takes part and its
    first reply it scores, as far as anybody outside knows.
    """

    NOT_ASKED = "not_asked"
    INVITED = "invited"
    APPROVED = "approved"
    REFUSED = "refused"
    SCORING = "scoring"
    ANSWERING = "answering"
    ANSWERED = "answered"
    POOLED = "pooled"
    LATE = "late"
    SILENT = "silent"


@dataclass(frozen=True)
class LaunchPlan:
    """What a lead decides: sites, least number of them, deadline, and the signed package's files.

    `package_files` is empty, and `package_digest` None, for a round over already scored tables.
    The reference package, if there is one, reads the reference exam of every pair.
    With `quorum` answers an exchange is closed before its deadline; None waits for every site.
    `actor` is who launches, for the round's events.
    """

    sites: tuple[str, ...]
    minimum_sites: int
    deadline: datetime
    package_digest: str | None
    package_files: Mapping[str, bytes]
    quorum: int | None = None
    actor: str = "lead"
    reference_digest: str | None = None
    reference_files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class SiteView:
    """What the coordinator knows of one site in one round.

    Attributes
    ----------
    replies
        Those that the estimates use, in the order of their exchanges.
    n_bytes
        Bytes of its acceptance and of these replies.
    told
        Per step of the pooling, its answer to each analysis that was asked; empty where it gave
        none. A step is an exchange in a round's first edition.
    last_contact
        When its last parcel was taken in; None before, and for a round read from its releases.
    """

    name: str
    is_accepting: bool | None
    refusal: RefusalCode | None
    replies: tuple[Reply, ...]
    n_bytes: int
    told: tuple[Mapping[str, Answer], ...] = ()
    # What only the coordinator knows takes no part in comparing it with a file of releases.
    standing: Standing = field(default=Standing.NOT_ASKED, compare=False)
    last_contact: datetime | None = field(default=None, compare=False)

    @property
    def flow(self) -> FlowCounts | None:
        """The latest flow that the site released, if it released one."""
        for reply in reversed(self.replies):
            if reply.flow.release is not None:
                flow = parse_aggregate(reply.flow.release)
                return flow if isinstance(flow, FlowCounts) else None
        return None


@dataclass(frozen=True)
class RoundView:
    """One edition of a round as far as it has come.

    Attributes
    ----------
    n_exchanges
        The highest number of an exchange whose answers are used.
    sums
        The masked sums of every closed exchange.
    steps
        Which exchange every answer comes from; empty in a first edition, whose steps are its
        exchanges.
    editions
        This edition and those before it.
    open_exchange, due
        The exchange that waits for sites, and until when; `due` alone while an offer does.
    """

    record: RoundRecord
    offer: Offer
    protocol: Protocol
    sites: tuple[SiteView, ...]
    estimates: tuple[Estimate, ...]
    n_exchanges: int
    sums: tuple[Mapping[str, SumOfSites], ...]
    is_finished: bool
    steps: tuple[Used, ...] = ()
    editions: tuple[EditionRecord, ...] = ()
    open_exchange: int | None = None
    due: datetime | None = None

    @property
    def phase(self) -> str:
        """The round's state; `scoring` until the first site has answered."""
        if self.record.state is RoundState.ANSWERING and not any(
            site.standing in (Standing.ANSWERED, Standing.ANSWERING) for site in self.sites
        ):
            return "scoring"
        return self.record.state.value

    @property
    def awaited(self) -> tuple[str, ...]:
        """The sites whose word or answer the round waits for."""
        return self._at(Standing.INVITED, Standing.SCORING, Standing.ANSWERING)

    @property
    def late(self) -> tuple[str, ...]:
        """The sites that were asked and said nothing, or did not answer, in time."""
        return self._at(Standing.LATE, Standing.SILENT)

    def _at(self, *standings: Standing) -> tuple[str, ...]:
        return tuple(site.name for site in self.sites if site.standing in standings)

    @property
    def is_open(self) -> bool:
        """Say whether the round waits for sites or for its engine."""
        return self.record.state in OPEN

    @property
    def is_pooled(self) -> bool:
        """Say whether this edition ended in estimates; a closed round may have."""
        outcome = self.editions[-1].outcome if self.editions else self.record.state
        return outcome is RoundState.POOLED
