"""A whole signed round in one process: the same agents and engine, spools in memory."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from coordinator.rounds.engine import RoundEngine
from coordinator.rounds.views import LaunchPlan, RoundView
from coordinator.state.store import CoordinatorStore, EnrolledSite, RoundState
from fedcac.canonical import Digest
from fedcac.disclosure import FileLedger, Policy
from fedcac.errors import FedcacError, RoundError
from fedcac.exchange import MailboxCourier, Spool
from fedcac.protocol import Pooling, Protocol
from fedcac.signing import SigningKey
from fedcac.vocabulary import SiteName
from site_agent.exams.cohort import ExamSource
from site_agent.rounds.agent import SiteAgent
from site_agent.rounds.answering import Answerer
from site_agent.rounds.identity import SiteIdentity
from site_agent.state.store import SiteStore

__all__ = ["NOT_SHOWN", "InMemorySite", "SignedPackage", "pooled_by", "run_round"]

NOT_SHOWN = shutil.ignore_patterns("*.groups")
"""What of a site's files does not belong into an output folder: who was in which group."""


@dataclass(frozen=True)
class InMemorySite:
    """One site of an in-memory round: where its exams come from and where its ledger goes.

    `secret` deals patients to resampling groups and folds; whoever reads the releases must not
    know it.
    """

    name: str
    source: ExamSource
    store: SiteStore
    ledger_path: Path
    secret: bytes


@dataclass(frozen=True)
class SignedPackage:
    """A model package as the lead signed it."""

    digest: Digest
    files: dict[str, bytes]


def pooled_by(protocol: Protocol, mode: Literal["open", "masked"] | None) -> Protocol:
    """Return the protocol with its answers pooled in another way; None leaves it as it is.

    What is no sum, such as each site's own model, is still asked of each site.
    """
    if mode is None or mode == protocol.pooling.mode:
        return protocol
    apart = tuple(spec.id for spec in protocol.analyses if getattr(spec, "by_site", False))
    pooling = Pooling(mode=mode, per_site=apart if mode == "masked" else ())
    return Protocol.model_validate(protocol.model_dump() | {"pooling": pooling})


def run_round(
    protocol: Protocol,
    sites: Sequence[InMemorySite],
    policy: Policy,
    lead_key: SigningKey,
    package: SignedPackage | None = None,
    reference: SignedPackage | None = None,
) -> RoundView:
    """Run a round to its end and return it; `reference` reads the reference exams.

    Raises
    ------
    FedcacError
        The trouble of the first site that cannot go on, or RoundError `round.failed` if no site
        could take part.
    """
    # Nobody but the caller sees a reply here, so there is nobody to hold it for.
    unattended = policy.model_copy(update={"review": "auto"})
    spools = {SiteName(site.name): Spool.in_memory() for site in sites}
    store = CoordinatorStore("sqlite://")
    agents = {}
    keys = {site.name: SigningKey.generate() for site in sites}
    peers = {name: key.public for name, key in keys.items()}
    for site in sites:
        site.ledger_path.parent.mkdir(parents=True, exist_ok=True)
        key = keys[site.name]
        store.enrol(EnrolledSite(site.name, key.public, spool=""))
        agents[site.name] = SiteAgent(
            identity=SiteIdentity(site.name, key, lead_key.public, peers),
            spool=spools[SiteName(site.name)],
            store=site.store,
            source=site.source,
            answerer=Answerer(unattended, FileLedger(site.ledger_path), site.secret),
            is_auto_approving=True,
        )
    engine = RoundEngine(store=store, courier=MailboxCourier(spools), key=lead_key)
    round_id = engine.launch(
        protocol,
        LaunchPlan(
            sites=tuple(agents),
            minimum_sites=1,
            deadline=datetime.now(UTC) + timedelta(days=1),
            package_digest=package.digest if package else None,
            package_files=package.files if package else {},
            reference_digest=reference.digest if reference else None,
            reference_files=reference.files if reference else {},
        ),
    )
    try:
        return _run_to_end(engine, agents, round_id)
    finally:
        store.close()


def _run_to_end(engine: RoundEngine, agents: dict[str, SiteAgent], round_id: str) -> RoundView:
    view = engine.step(round_id)
    while not view.is_finished:
        is_changed = False
        for agent in agents.values():
            is_changed |= agent.step()
            problem = agent.problems.get(round_id)
            if problem is not None and not is_changed:
                raise problem
        before = (view.record.state, view.n_exchanges)
        view = engine.step(round_id)
        if not is_changed and (view.record.state, view.n_exchanges) == before:
            raise RoundError(
                "The round does not move on.",
                code="stuck",
                cure="This is a fault of fedcac: report it with the protocol.",
            )
    if view.record.state is RoundState.FAILED:
        raise _failure(view)
    return view


def _failure(view: RoundView) -> FedcacError:
    codes = ", ".join(
        f"{site.name}: {site.refusal.value if site.refusal else 'no reply'}" for site in view.sites
    )
    return RoundError(
        f"No site could take part ({codes}).",
        code="failed",
        cure="docs/reference/codes.md says what each code means, and what to do.",
    )
