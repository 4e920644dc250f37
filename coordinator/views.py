"""What is said to the engine about a round, and what it says about one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from coordinator.masked_sums import SumOfSites
from coordinator.store import RoundRecord
from fedcac.aggregate import FlowCounts, parse_aggregate
from fedcac.exchange import Offer, Reply
from fedcac.protocol import Protocol
from fedcac.statistics import Estimate
from fedcac.vocabulary import RefusalCode

__all__ = ["LaunchPlan", "RoundView", "SiteView"]


@dataclass(frozen=True)
class LaunchPlan:
    """What a lead decides: sites, least number of them, deadline, and the signed package's files.

    `package_files` is empty, and `package_digest` None, for a round over already scored tables.
    """

    sites: tuple[str, ...]
    minimum_sites: int
    deadline: datetime
    package_digest: str | None
    package_files: dict[str, bytes]


@dataclass(frozen=True)
class SiteView:
    """What the coordinator knows of one site in one round."""

    name: str
    is_accepting: bool | None
    refusal: RefusalCode | None
    replies: tuple[Reply, ...]
    n_bytes: int

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
    """A round as far as it has come. `sums` holds the masked sums of every closed exchange."""

    record: RoundRecord
    offer: Offer
    protocol: Protocol
    sites: tuple[SiteView, ...]
    estimates: tuple[Estimate, ...]
    n_exchanges: int
    sums: tuple[Mapping[str, SumOfSites], ...]
    is_finished: bool
