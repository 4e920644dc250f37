"""What a report is made of: everything a coordinator knows when a round has ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import JsonValue

from fedcac.aggregate import FlowCounts
from fedcac.exchange.messages import PolicySummary
from fedcac.protocol import Protocol
from fedcac.statistics.estimator import META, POOLED, Estimate
from fedcac.vocabulary import RefusalCode

__all__ = ["ExchangeAnswer", "PackageCard", "RoundReport", "SiteSummary"]


@dataclass(frozen=True)
class ExchangeAnswer:
    """What one site answered about one analysis in one exchange: a release, or a refusal.

    Attributes
    ----------
    kind
        The kind of aggregate that was asked for; empty if no site gave one.
    is_fit
        Whether that is a likelihood, which a site cannot join again once it left it.
    refusal
        The site's code; None if it answered.
    n_patients, n_events
        Those behind the release. None if it was added under masks; events also where the analysis
        has no endpoint, or where their number is suppressed.
    n_parts, n_suppressed
        The tables, rows and terms of the release that the gate judges one by one, and how many of
        them hold a suppressed number or are emptied.
    """

    kind: str
    is_fit: bool = False
    refusal: RefusalCode | None = None
    n_patients: int | None = None
    n_events: int | None = None
    n_parts: int = 0
    n_suppressed: int = 0


@dataclass(frozen=True)
class PackageCard:
    """The model package's own words about itself.

    `is_demonstration` says that the weights are not meant for patients; the report then opens
    with that statement.
    """

    name: str
    version: str
    text: str
    is_demonstration: bool


@dataclass(frozen=True)
class SiteSummary:
    """One site's part in the round.

    Attributes
    ----------
    flow
        The released STARD flow; None if the site refused it or never replied.
    policy
        The disclosure policy it applied; None if it never replied.
    refusals
        Analysis id, `flow`, or `round` for all of it, to the code with which the site refused.
    answers
        Analysis id to what the site answered, exchange by exchange.
    n_releases, bytes_left
        Number of releases and of bytes of payload that left the site in this round.
    ledger_head
        Digest of the last entry of the site's ledger; empty if it never replied.
    software, package
        Versions of the agent and of the model package that the site ran.
    """

    name: str
    flow: FlowCounts | None
    policy: PolicySummary | None
    refusals: Mapping[str, RefusalCode] = field(default_factory=dict)
    answers: Mapping[str, tuple[ExchangeAnswer, ...]] = field(default_factory=dict)
    n_releases: int = 0
    bytes_left: int = 0
    ledger_head: str = ""
    software: str = ""
    package: str = ""

    def refusal_of(self, analysis: str) -> RefusalCode | None:
        """Return the code with which the site refused an analysis, or the whole round."""
        return self.refusals.get("round") or self.refusals.get(analysis)


@dataclass(frozen=True)
class RoundReport:
    """One finished round, ready to be written.

    `provenance` is any JSON object: digests, software versions, policies, bytes per site.
    `editions` says of each later edition of the round which sites it added, and why.

    Raises
    ------
    ValueError
        If two sites share a name, a site has the name of a scope, or an estimate is not finite
        (it must be None with status `not_estimable`).
    """

    round_id: str
    protocol: Protocol
    sites: tuple[SiteSummary, ...]
    estimates: tuple[Estimate, ...]
    exchanges: int
    started: datetime
    finished: datetime
    provenance: Mapping[str, JsonValue] = field(default_factory=dict)
    package_card: PackageCard | None = None
    editions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [site.name for site in self.sites]
        if len(set(names)) != len(names) or {POOLED, META} & set(names):
            raise ValueError("site names must differ, also from 'pooled' and 'meta'")
        for row in self.estimates:
            numbers = (row.estimate, row.se, row.ci_low, row.ci_high, row.p_value)
            if any(number is not None and not math.isfinite(number) for number in numbers):
                raise ValueError(
                    f"'{row.measure}' of '{row.analysis}' ({row.scope}) is not finite; "
                    "state it as not_estimable"
                )

    def minimum_cell(self, scope: str) -> int:
        """Return the smallest count shown for a scope: the site's own, or the strictest of all."""
        known = {site.name: site.policy.minimum_cell for site in self.sites if site.policy}
        fallback = self.protocol.disclosure.minimum_cell
        if scope in {site.name for site in self.sites}:
            return known.get(scope, fallback)
        return max(known.values(), default=fallback)

    @property
    def is_open_policy(self) -> bool:
        """Say whether any site let numbers leave without disclosure control."""
        return any(
            site.policy is not None
            and (site.policy.profile == "open" or site.policy.minimum_cell <= 1)
            for site in self.sites
        )

    @property
    def is_demonstration(self) -> bool:
        """Say whether the model's own card calls it a demonstration."""
        return self.package_card is not None and self.package_card.is_demonstration
