"""The scoring queue: every index exam is scored once, whatever happens to the process.

An exam is begun, scored and finished, each in the site's database. kill -9 loses at most the exams
under way. A corrupt exam is excluded with its code and the queue goes on; so is one that crashes
or hangs its reader. Exams that were under way when the whole process ended are tried one at a time
at the next start, so that the one that ends it is given up after a few attempts, and no other.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedcac.console import progress, say
from fedcac.errors import DicomError
from fedcac.models.streams import Failure
from fedcac.vocabulary import ExclusionReason
from site_agent.exams.exam_pipeline import ExamPipeline, ExamScore
from site_agent.state.store import ExamRecord, SiteStore

__all__ = ["MAXIMUM_ATTEMPTS", "ExamScore", "IndexExam", "Scorer", "ScoringQueue"]

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


Scorer = Callable[[Path], ExamScore]
"""Reads one series and scores it; DicomError with an exclusion reason if it cannot be used."""


@dataclass(frozen=True)
class ScoringQueue:
    """Scores exams with one package and one scoring profile.

    `scorer` is a pipeline of worker processes, device and scoring thread, or one function that
    does everything in this process, exam by exam. `what` names the exams on the terminal.
    """

    store: SiteStore
    package_digest: str
    profile: str
    scorer: Scorer | ExamPipeline[IndexExam]
    what: str = "exams"

    def run(self, exams: Iterable[IndexExam]) -> dict[str, ExamRecord]:
        """Score what is not finished yet and return the records of all, by exam key."""
        exams = tuple(exams)
        known = self.store.exams(self.package_digest, self.profile)
        pending = [
            exam
            for exam in exams
            if exam.exam_key not in known or not known[exam.exam_key].is_finished
        ]
        if pending:
            started = time.monotonic()
            interrupted = [exam for exam in pending if exam.exam_key in known]
            fresh = [exam for exam in pending if exam.exam_key not in known]
            with progress(f"Scoring {self.what}", len(pending)) as advance:
                self._work(interrupted, advance, is_alone=True)
                self._work(fresh, advance, is_alone=False)
            say(_throughput(len(pending), time.monotonic() - started))
        records = self.store.exams(self.package_digest, self.profile)
        return {exam.exam_key: records[exam.exam_key] for exam in exams}

    def _work(
        self, exams: Sequence[IndexExam], advance: Callable[[], None], *, is_alone: bool
    ) -> None:
        if not exams:
            return
        if isinstance(self.scorer, ExamPipeline):
            self._stream(self.scorer, exams, advance, is_alone=is_alone)
            return
        for exam in exams:
            if self._begin(exam):
                self._score(self.scorer, exam)
            advance()

    def _stream(
        self,
        pipeline: ExamPipeline[IndexExam],
        exams: Sequence[IndexExam],
        advance: Callable[[], None],
        *,
        is_alone: bool,
    ) -> None:
        waiting = deque(exams)

        def next_exam() -> tuple[IndexExam, Path] | None:
            while waiting:
                exam = waiting.popleft()
                if self._begin(exam):
                    return exam, exam.series
                advance()
            return None

        def deliver(exam: IndexExam, outcome: ExamScore | Failure, seconds: float) -> None:
            if isinstance(outcome, Failure) and outcome.kind == "died":
                # The system may have ended the reader for another's need of memory: once more.
                _LOG.warning("a reading process ended; its exam is tried again")
                waiting.append(exam)
                return
            self._finish(exam, outcome, seconds)
            advance()

        limits = pipeline.limits
        if is_alone:
            limits = replace(limits, n_in_flight=1, n_workers=1)
        pipeline.run(next_exam, deliver, limits=limits)

    def _begin(self, exam: IndexExam) -> bool:
        """Note the attempt; False, and the exam is finished, if there were too many."""
        key = (exam.exam_key, self.package_digest, self.profile)
        if self.store.begin_exam(*key) <= MAXIMUM_ATTEMPTS:
            return True
        _LOG.warning("an exam is given up after %d attempts", MAXIMUM_ATTEMPTS)
        self.store.finish_exam(*key, seconds=0.0, reason=ExclusionReason.INFERENCE_FAILED)
        return False

    def _score(self, scorer: Scorer, exam: IndexExam) -> None:
        started = time.monotonic()
        outcome: ExamScore | Failure
        try:
            outcome = scorer(exam.series)
        except Exception as error:
            code = error.code if isinstance(error, DicomError) else None
            outcome = Failure("raised", type(error).__name__, code)
        self._finish(exam, outcome, time.monotonic() - started)

    def _finish(self, exam: IndexExam, outcome: ExamScore | Failure, seconds: float) -> None:
        key = (exam.exam_key, self.package_digest, self.profile)
        if isinstance(outcome, Failure):
            self.store.finish_exam(*key, seconds=seconds, reason=_reason(outcome))
            return
        self.store.finish_exam(
            *key,
            seconds=seconds,
            total=outcome.total,
            vessels=dict(outcome.vessels),
            native_score=outcome.native_score,
            native_category=outcome.native_category,
            probabilities=outcome.probabilities,
        )


def _reason(failure: Failure) -> ExclusionReason:
    family, _, word = (failure.code or "").partition(".")
    if family == DicomError.family and word in set(ExclusionReason):
        return ExclusionReason(word)
    # Only the class: the text may quote a header or a path.
    _LOG.warning("an exam could not be scored: %s %s", failure.kind, failure.error)
    return ExclusionReason.INFERENCE_FAILED


def _throughput(n_exams: int, seconds: float) -> str:
    rate = 60 * n_exams / max(seconds, 1e-3)
    return f"{n_exams} exams in {seconds:.0f} s: {rate:.3g} a minute"
