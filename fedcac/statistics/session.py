"""Drives every analysis of a protocol in lockstep: one exchange carries all their queries.

Deterministic: fed the same answers again, it asks the same questions and ends in the same
estimates. A coordinator therefore stores only requests and replies, and replays them after a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from fedcac.aggregate import Aggregate
from fedcac.exchange.messages import Query
from fedcac.protocol import Protocol
from fedcac.statistics.estimator import POOLED, Estimate, Pooling, estimator_for
from fedcac.vocabulary import RefusalCode, SiteName

__all__ = ["SUM_OF_SITES", "PoolingSession", "SiteAnswers"]

SUM_OF_SITES = SiteName("*sum")
"""Who answers the masked analyses: all sites in one. No site has this name."""

SiteAnswers = Mapping[SiteName, Mapping[str, Aggregate | RefusalCode]]
"""Per site, per analysis id: what it released or refused."""


class PoolingSession:
    """The running `pool` generators of all analyses of one protocol.

    The masked analyses are answered by `SUM_OF_SITES`, with the sum of the sites' aggregates; of
    these there are pooled rows only.
    """

    def __init__(self, protocol: Protocol, sites: Sequence[SiteName]) -> None:
        self._sites = {
            spec.id: (SUM_OF_SITES,) if protocol.is_masked(spec.id) else tuple(sites)
            for spec in protocol.analyses
        }
        self._estimators = {spec.id: estimator_for(spec.id, protocol) for spec in protocol.analyses}
        self._running: dict[str, Pooling] = {}
        self._queries: dict[str, Query] = {}
        self._estimates: dict[str, tuple[Estimate, ...]] = {}
        self._start()

    def _start(self) -> None:
        # An analysis that builds on fits waits for them; it may end at once if they failed.
        has_started = True
        while has_started:
            has_started = False
            for analysis_id, estimator in self._estimators.items():
                is_new = analysis_id not in self._running and analysis_id not in self._estimates
                if is_new and all(model in self._estimates for model in estimator.models):
                    has_started = True
                    self._begin(analysis_id)

    def _begin(self, analysis_id: str) -> None:
        estimator = self._estimators[analysis_id]
        fits = {name: self._estimators[name].fit for name in estimator.models}
        pooling = estimator.pool(
            self._sites[analysis_id], {name: fit for name, fit in fits.items() if fit is not None}
        )
        self._running[analysis_id] = pooling
        self._advance(analysis_id, lambda: next(pooling))

    def _advance(self, analysis_id: str, ask: Callable[[], Query]) -> None:
        try:
            self._queries[analysis_id] = ask()
        except StopIteration as stop:
            self._estimates[analysis_id] = self._told(analysis_id, stop.value)
            self._queries.pop(analysis_id, None)
            del self._running[analysis_id]

    def _told(self, analysis_id: str, rows: tuple[Estimate, ...]) -> tuple[Estimate, ...]:
        if self._sites[analysis_id] != (SUM_OF_SITES,):
            return rows
        # Between sites nothing is known.
        return tuple(row for row in rows if row.scope == POOLED)

    @property
    def queries(self) -> dict[str, Query]:
        """The questions of the next exchange, by analysis id; empty when all is estimated."""
        return dict(self._queries)

    @property
    def is_finished(self) -> bool:
        """Say whether every analysis has ended."""
        return not self._queries

    def answer(self, answers: SiteAnswers) -> None:
        """Give every running analysis its sites' answers. A site that says nothing: `no_reply`."""
        for analysis_id in list(self._queries):
            given = {
                site: answers.get(site, {}).get(analysis_id, RefusalCode.NO_REPLY)
                for site in self._sites[analysis_id]
            }
            pooling = self._running[analysis_id]
            self._advance(analysis_id, partial(pooling.send, given))
        self._start()

    def estimates(self) -> tuple[Estimate, ...]:
        """Return the estimates of the analyses that have ended, in the protocol's order."""
        return tuple(
            estimate
            for analysis_id in self._estimators
            for estimate in self._estimates.get(analysis_id, ())
        )
