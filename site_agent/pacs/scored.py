"""Which patients' files no round needs any more."""

from __future__ import annotations

from pathlib import Path

from fedcac.scoring import profiles
from site_agent.state.store import RoundState, SiteStore

__all__ = ["scored_exam_keys"]


def scored_exam_keys(database: Path) -> frozenset[str]:
    """Return the exam keys that were scored, or excluded at scoring, in every open round.

    Until a round's cohort is frozen its pairs are read from the files: while one is offered, or
    approved and not frozen, nobody counts as scored.
    """
    if not database.exists():
        return frozenset()
    store = SiteStore(database)
    try:
        rounds = store.rounds()
        if any(
            record.state in (RoundState.OFFERED, RoundState.APPROVED)
            and store.frozen_cohort(record.round_id) is None
            for record in rounds
        ):
            return frozenset()
        digests = {record.package_digest for record in rounds if record.package_digest}
        return frozenset(
            key
            for digest in digests
            for profile in profiles()
            for key, exam in store.exams(digest, profile.name).items()
            if exam.is_finished
        )
    finally:
        store.close()
