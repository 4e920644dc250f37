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

__all__ = ["PackageCard", "RoundReport", "SiteSummary"]


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
        Analysis id to the code with which the site refused it.
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
    n_releases: int = 0
    bytes_left: int = 0
    ledger_head: str = ""
    software: str = ""
    package: str = ""


@dataclass(frozen=True)
class RoundReport:
    """One finished round, ready to be written.

    `provenance` is any JSON object: digests, software versions, policies, bytes per site.

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
