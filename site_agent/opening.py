"""A site's agent over the files of its folder, as every verb opens it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fedcac.disclosure import FileLedger, load_policy
from fedcac.exchange import Spool
from fedcac.signing import PublicKey, SigningKey
from site_agent.exams.table_source import TableSource, WithScoredTable
from site_agent.rounds.agent import SiteAgent
from site_agent.rounds.answering import Answerer
from site_agent.rounds.identity import SiteIdentity
from site_agent.rounds.peers import LivePeers
from site_agent.settings import SiteFolder, SiteSettings
from site_agent.state.store import SiteStore

if TYPE_CHECKING:
    from site_agent.exams.cohort import ExamSource

__all__ = ["opened", "policy_name"]


@contextmanager
def opened(
    home: Path,
    *,
    is_stopping: Callable[[], bool] = lambda: False,
    guard: Callable[[ExamSource], ExamSource] = lambda source: source,
) -> Iterator[tuple[SiteAgent, SiteStore]]:
    """Open a site's folder and yield its agent and store; the store is closed at the end.

    `guard` may wrap the source of exams, for a service that has to stop in the middle of scoring.

    Raises
    ------
    FedcacError
        If settings, keys, policy, ledger or database cannot be used.
    """
    from site_agent.exams.dicom_source import DicomFiles, DicomSource
    from site_agent.exams.review_artefacts import plan_at

    folder = SiteFolder(home)
    settings = folder.settings()
    store = SiteStore(folder.database_path)
    try:
        source: ExamSource = DicomSource(
            DicomFiles.of_site(folder, settings),
            store,
            device=settings.device,
            exam_time_limit_s=settings.exam_time_limit_s,
            maximum_excluded_share=settings.maximum_excluded_share,
            artefacts=plan_at(folder, settings),
        )
        if settings.scored_table is not None:
            table = TableSource(folder.resolve(settings.scored_table))
            source = WithScoredTable(source, table)
        policy = load_policy(policy_name(folder, settings))
        agent = SiteAgent(
            identity=SiteIdentity(
                name=settings.name,
                key=SigningKey.load(folder.key_path),
                lead_key=PublicKey.from_text(settings.lead_key),
                peers=LivePeers(folder),
            ),
            spool=Spool.at(folder.spool_path),
            store=store,
            source=guard(source),
            answerer=Answerer(policy, FileLedger(folder.ledger_path), folder.secret()),
            is_auto_approving=settings.approval == "auto",
            is_accepting_onnx=settings.accept_onnx,
            is_stopping=is_stopping,
        )
        yield agent, store
    finally:
        store.close()


def policy_name(folder: SiteFolder, settings: SiteSettings) -> str | Path:
    """Return the profile that the settings name, or the path of the policy file."""
    if settings.policy in ("research", "cms", "open"):
        return settings.policy
    return folder.resolve(settings.policy)
