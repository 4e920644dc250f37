"""From wishes to files: ask, choose series, pull what is missing, write the manifest."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from fedcac.console import progress
from fedcac.errors import DicomError
from fedcac.imaging import ExamHeader, Role, exam_key, read_header
from site_agent.pacs.cache import PacsCache, SeriesState
from site_agent.pacs.faults import PacsError, PacsFault
from site_agent.pacs.folder import PARSING, InstanceFolder
from site_agent.pacs.query import PacsClient, SeriesRecord
from site_agent.pacs.selection import Finding, Verdict, choose_series
from site_agent.pacs.settings import SeriesRules
from site_agent.pacs.worklist import Wish

__all__ = ["FoundStudy", "Plan", "PullReport", "Puller", "plan_pull"]

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")

_FAILURES_IN_A_ROW = 5
"""After so many series in a row the cause is the PACS, which is then left in peace."""


@dataclass(frozen=True)
class FoundStudy:
    """A study that a wish found, and the verdict on each of its series."""

    line: int | None
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Plan:
    """What would be pulled.

    Attributes
    ----------
    studies
        Every study found, in the order of the wishes.
    misses
        The worklist's line (None for a range of dates) and why it yields nothing.
    """

    studies: tuple[FoundStudy, ...]
    misses: tuple[tuple[int | None, PacsFault], ...]

    @property
    def wanted(self) -> tuple[Verdict, ...]:
        """The chosen series, each once."""
        chosen = {
            verdict.series.series_uid: verdict
            for study in reversed(self.studies)
            for verdict in reversed(study.verdicts)
            if verdict.finding is Finding.CHOSEN
        }
        return tuple(reversed(chosen.values()))


def plan_pull(
    client: PacsClient, wishes: Sequence[Wish], rules: SeriesRules, *, attempts: int = 1
) -> Plan:
    """Ask the PACS at study and series level; nothing is pulled.

    A question is asked up to `attempts` times when what went wrong may pass.

    Raises
    ------
    PacsError
        If the PACS cannot be asked. That nothing matches is a miss of the plan instead.
    """
    studies: list[FoundStudy] = []
    misses: list[tuple[int | None, PacsFault]] = []
    with progress("Asking the PACS", len(wishes)) as advance:
        for wish in wishes:
            found = []
            for study in _retried(attempts, client.find_studies, wish.query):
                series = _retried(attempts, client.find_series, study.study_uid)
                found.append(FoundStudy(wish.line, choose_series(study, series, rules, wish.role)))
            studies += found
            if not found:
                misses.append((wish.line, PacsFault.NO_SUCH_PATIENT))
            elif not any(v.finding is Finding.CHOSEN for one in found for v in one.verdicts):
                misses.append((wish.line, PacsFault.NO_SUITABLE_SERIES))
            advance()
    return Plan(tuple(studies), tuple(misses))


def _retried(attempts: int, ask: Callable[[_Asked], _Answer], asked: _Asked) -> _Answer:
    for _ in range(attempts - 1):
        try:
            return ask(asked)
        except PacsError as error:
            if not error.is_transient:
                raise
    return ask(asked)


@dataclass
class PullReport:
    """What a pull did, in numbers.

    Attributes
    ----------
    n_pulled, n_present, n_forgotten
        Series completed now; complete before; removed earlier and therefore left alone.
    n_instances
        Instances that came over the network now.
    failures
        Series that are not complete, by fault.
    """

    n_pulled: int = 0
    n_present: int = 0
    n_forgotten: int = 0
    n_instances: int = 0
    failures: Counter[PacsFault] = field(default_factory=Counter)


class Puller:
    """Pulls chosen series into a cache; ends early when every next series would fail too."""

    def __init__(
        self,
        client: PacsClient,
        cache: PacsCache,
        *,
        secret: bytes,
        concurrent: int = 1,
        attempts: int = 1,
        is_again: bool = False,
    ) -> None:
        self._client = client
        self._cache = cache
        self._secret = secret
        self._concurrent = concurrent
        self._attempts = attempts
        self._is_again = is_again
        self._guard = threading.Lock()
        self._end: PacsError | None = None
        self._n_failed_in_a_row = 0
        self._report = PullReport()

    def run(self, wanted: Iterable[Verdict]) -> PullReport:
        """Pull every series that is not here yet, then write the manifest.

        `is_again` also pulls what was removed before.

        Raises
        ------
        PacsError
            If the PACS cannot be reached or refuses this computer, or many series fail in a row.
            What came before that is kept, and in the manifest.
        """
        verdicts = tuple(wanted)
        try:
            with (
                progress("Pulling series", len(verdicts)) as advance,
                ThreadPoolExecutor(max_workers=self._concurrent) as workers,
            ):
                for _ in workers.map(self._pull, verdicts):
                    advance()
        finally:
            self._cache.write_manifest()
        if self._end is not None:
            raise self._end
        return self._report

    def _pull(self, verdict: Verdict) -> None:
        if self._end is not None:
            return
        known = self._cache.find(verdict.series)
        state = None if known is None else known.state
        if (
            known is not None
            and state is SeriesState.COMPLETE
            and self._cache.holds(known, verdict.series)
        ):
            with self._guard:
                self._report.n_present += 1
            return
        if state is SeriesState.REMOVED and not self._is_again:
            with self._guard:
                self._report.n_forgotten += 1
            return
        try:
            self._fetch(verdict.series, verdict.role)
        except PacsError as error:
            self._fail(error)

    def _fetch(self, series: SeriesRecord, role: Role) -> None:
        folder = self._cache.begin(series, role)
        for attempt in range(1, self._attempts + 1):
            n_before = len(folder.held())
            try:
                self._client.fetch_series(series, folder)
                break
            except PacsError as error:
                if not error.is_transient or attempt == self._attempts:
                    raise
            finally:
                self._add_instances(series, len(folder.held()) - n_before)
        header = _header_of(folder)
        patient_key = None
        if header.patient_id:
            patient_key = exam_key(header.issuer, header.patient_id, self._secret)
        self._cache.complete(series, len(folder.held()), patient_key)
        with self._guard:
            self._report.n_pulled += 1
            self._n_failed_in_a_row = 0

    def _add_instances(self, series: SeriesRecord, n_instances: int) -> None:
        self._cache.add_pulled(series, n_instances)
        with self._guard:
            self._report.n_instances += n_instances

    def _fail(self, error: PacsError) -> None:
        with self._guard:
            self._report.failures[error.fault] += 1
            self._n_failed_in_a_row += 1
            if error.ends_pull or self._n_failed_in_a_row >= _FAILURES_IN_A_ROW:
                self._end = error


def _header_of(folder: InstanceFolder) -> ExamHeader:
    try:
        with PARSING:
            return read_header(folder.path)
    except DicomError as error:
        raise PacsError(PacsFault.UNREADABLE_SERIES) from error
