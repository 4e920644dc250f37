"""The scoring queue: every index exam is scored once, whatever happens to the process.

An exam is begun, scored and finished, each in the site's database. kill -9 loses at most the exam
under way. A corrupt exam is excluded with its code and the queue goes on; an exam that ends the
whole process is given up after a few attempts instead of ending it for ever.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedcac.console import progress
from fedcac.errors import DicomError
from fedcac.vocabulary import ExclusionReason, Vessel
from site_agent.store import ExamRecord, SiteStore

__all__ = ["ExamScore", "IndexExam", "Scorer", "ScoringQueue"]

_LOG = logging.getLogger(__name__)

MAXIMUM_ATTEMPTS = 3


@dataclass(frozen=True)
class IndexExam:
    """One exam to score: its site-local pseudonym and where its series lies."""

    exam_key: str
    series: Path

    def __repr__(self) -> str:
        # A path often holds a name or an identifier; a pseudonym is as good as one in a log.
        return "IndexExam(...)"


@dataclass(frozen=True)
class ExamScore:
    """An exam's Agatston score in total and per vessel."""

    total: float
    vessels: Mapping[Vessel, float]
    native_score: float | None = None


Scorer = Callable[[Path], ExamScore]
"""Reads one series and scores it; DicomError with an exclusion reason if it cannot be used."""


@dataclass(frozen=True)
class ScoringQueue:
    """Scores exams with one package and one scoring profile."""

    store: SiteStore
    package_digest: str
    profile: str
    scorer: Scorer

    def run(self, exams: Iterable[IndexExam]) -> dict[str, ExamRecord]:
        """Score what is not finished yet and return the records of all, by exam key."""
        exams = tuple(exams)
        finished = {
            key
            for key, record in self.store.exams(self.package_digest, self.profile).items()
            if record.is_finished
        }
        pending = [exam for exam in exams if exam.exam_key not in finished]
        if pending:
            with progress("Scoring exams", len(pending)) as advance:
                for exam in pending:
                    self._score(exam)
                    advance()
        records = self.store.exams(self.package_digest, self.profile)
        return {exam.exam_key: records[exam.exam_key] for exam in exams}

    def _score(self, exam: IndexExam) -> None:
        key = (exam.exam_key, self.package_digest, self.profile)
        attempts = self.store.begin_exam(*key)
        started = time.monotonic()
        if attempts > MAXIMUM_ATTEMPTS:
            _LOG.warning("an exam is given up after %d attempts", MAXIMUM_ATTEMPTS)
            self.store.finish_exam(*key, seconds=0.0, reason=ExclusionReason.INFERENCE_FAILED)
            return
        try:
            score = self.scorer(exam.series)
        except DicomError as error:
            reason = ExclusionReason(error.code.removeprefix("dicom."))
            self.store.finish_exam(*key, seconds=time.monotonic() - started, reason=reason)
        except Exception as error:
            # Only the class: the text may quote a header or a path.
            _LOG.warning("an exam could not be scored: %s", type(error).__name__)
            self.store.finish_exam(
                *key,
                seconds=time.monotonic() - started,
                reason=ExclusionReason.INFERENCE_FAILED,
            )
        else:
            self.store.finish_exam(
                *key,
                seconds=time.monotonic() - started,
                total=score.total,
                vessels=dict(score.vessels),
                native_score=score.native_score,
            )
