"""Drives every analysis of a protocol in lockstep: one exchange carries all their queries.

Deterministic: fed the same answers again, it asks the same questions and ends in the same
estimates. A coordinator therefore stores only requests and replies, and replays them after a crash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedcac.aggregate import Aggregate
from fedcac.exchange.messages import Query
from fedcac.protocol import Protocol
from fedcac.statistics.estimator import Estimate, Pooling, estimator_for
from fedcac.vocabulary import RefusalCode, SiteName

__all__ = ["PoolingSession", "SiteAnswers"]

SiteAnswers = Mapping[SiteName, Mapping[str, Aggregate | RefusalCode]]
"""Per site, per analysis id: what it released or refused."""


class PoolingSession:
    """The running `pool` generators of all analyses of one protocol."""

    def __init__(self, protocol: Protocol, sites: Sequence[SiteName]) -> None:
        self._sites = tuple(sites)
        self._running: dict[str, Pooling] = {}
        self._queries: dict[str, Query] = {}
        self._estimates: dict[str, tuple[Estimate, ...]] = {}
        self._order = tuple(spec.id for spec in protocol.analyses)
        for analysis_id in self._order:
            pooling = estimator_for(analysis_id, protocol).pool(self._sites)
            self._running[analysis_id] = pooling
            self._queries[analysis_id] = next(pooling)

    @property
    def queries(self) -> dict[str, Query]:
        """The questions of the next exchange, by analysis id; empty when all is estimated."""
        return dict(self._queries)

    @property
    def is_finished(self) -> bool:
        """Say whether every analysis has ended."""
        return not self._queries

    def answer(self, answers: SiteAnswers) -> None:
        """Give every running analysis its sites' answers. A site that says nothing is refused."""
        for analysis_id in list(self._queries):
            given = {
                site: answers.get(site, {}).get(analysis_id, RefusalCode.NOT_COMPUTABLE)
                for site in self._sites
            }
            try:
                self._queries[analysis_id] = self._running[analysis_id].send(given)
            except StopIteration as stop:
                self._estimates[analysis_id] = stop.value
                del self._queries[analysis_id], self._running[analysis_id]

    def estimates(self) -> tuple[Estimate, ...]:
        """Return the estimates of the analyses that have ended, in the protocol's order."""
        return tuple(
            estimate
            for analysis_id in self._order
            for estimate in self._estimates.get(analysis_id, ())
        )
