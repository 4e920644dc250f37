"""How one exam becomes a score, in three steps that run side by side for different exams.

Series are read in worker processes, masks are made on the device by the main thread, and scores
are computed in a thread beside it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from fedcac.imaging import Volume, load_volume
from fedcac.models.manifest import VESSEL_UNKNOWN
from fedcac.models.streams import Arrival, Failure, ReadAhead, StreamLimits
from fedcac.models.transport import Reading
from fedcac.scoring import CalciumScore, ScoringProfile, score_volume
from fedcac.vocabulary import Vessel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedcac.models import InferenceEngine, ModelPackage, Prediction
    from fedcac.protocol import ImageCriteria

__all__ = [
    "EXAM_TIME_LIMIT_S",
    "ExamPipeline",
    "ExamScore",
    "ScoredMask",
    "default_limits",
    "package_pipeline",
    "score_mask",
]

EXAM_TIME_LIMIT_S = 600.0
"""A series that takes longer to read is given up: a site's scoring must end some day."""

# Volumes that are masked or scored beside those that are read.
_AHEAD = 2
_MOST_WORKERS = 4


@dataclass(frozen=True)
class ExamScore:
    """An exam's Agatston score in total and per vessel; no vessels where the model tells none.

    `native_score` is the model's own score, where its package gives one.
    """

    total: float
    vessels: Mapping[Vessel, float]
    native_score: float | None = None


@dataclass(frozen=True, eq=False)
class ScoredMask:
    """The platform's score of a mask, and the model's own beside it."""

    score: CalciumScore
    vessels: Mapping[Vessel, float]
    native_score: float | None
    native_category: int | None


class _SecondStage(Protocol):
    def native_score(
        self, hu: Any, vessel_map: Any, spacing_mm: tuple[float, float, float]
    ) -> float | None: ...

    def category(
        self, hu: Any, vessel_map: Any, spacing_mm: tuple[float, float, float]
    ) -> int | None: ...


def score_mask(
    volume: Volume,
    vessel_map: NDArray[np.uint8],
    profile: ScoringProfile,
    second_stage: _SecondStage | None = None,
) -> ScoredMask:
    """Score a mask by the platform's scorer; the model's own score stands beside it.

    Calcium whose vessel is not told counts in the total; if there is any, no vessel has a score,
    because a share of it could belong to each.
    """
    is_vessel_known = int(vessel_map.max(initial=0)) < VESSEL_UNKNOWN
    # Lesions do not depend on the vessel, so one label for all of them leaves the total as it is.
    map_to_score = vessel_map if is_vessel_known else (vessel_map > 0).astype(np.uint8)
    spacing_mm = volume.spacing_mm
    score = score_volume(volume.hu, map_to_score, spacing_mm, profile, kvp=volume.kvp)
    given = (volume.hu, vessel_map, spacing_mm)
    return ScoredMask(
        score=score,
        vessels=score.vessels if is_vessel_known else {},
        native_score=second_stage.native_score(*given) if second_stage else None,
        native_category=second_stage.category(*given) if second_stage else None,
    )


_Key = TypeVar("_Key")
Deliver = Callable[[_Key, "ExamScore | Failure", float], None]


@dataclass(frozen=True)
class ExamPipeline(Generic[_Key]):
    """The three steps and their limits.

    Attributes
    ----------
    read
        Reads one series, in a worker process; a function of a module.
    restore
        Makes the volume of what the worker handed back.
    segment
        Makes the mask of a volume, on the device.
    score
        Scores a volume under its mask, in a thread.
    limits
        How far reading may run ahead.
    preload
        Modules that the workers need.
    review
        What else is made of an exam, of its key, volume, mask and score, in the scoring thread. It
        does not raise.
    """

    read: Callable[[Path], Reading]
    restore: Callable[[Reading], Any]
    segment: Callable[[Any], Any]
    score: Callable[[Any, Any], ExamScore]
    limits: StreamLimits = field(default_factory=StreamLimits)
    preload: tuple[str, ...] = ()
    review: Callable[[_Key, Any, Any, ExamScore], None] | None = None

    def run(
        self,
        next_exam: Callable[[], tuple[_Key, Path] | None],
        deliver: Deliver[_Key],
        *,
        limits: StreamLimits | None = None,
    ) -> None:
        """Score exams until `next_exam` has none; deliver each, in the order they are done.

        Both callbacks run in the calling thread. An exam is asked for when its reading begins.
        """
        limits = limits or self.limits
        with (
            ReadAhead(partial(_read_keyed, self.read), limits, preload=self.preload) as ahead,
            ThreadPoolExecutor(1, thread_name_prefix="fedcac-score") as scorer,
        ):
            waiting: deque[tuple[_Key, Future[ExamScore], float]] = deque()

            def settle(at_most: int) -> None:
                while waiting and (len(waiting) > at_most or waiting[0][1].done()):
                    key, future, seconds = waiting.popleft()
                    ahead.release()
                    deliver(key, _outcome(future), seconds)

            for arrival in ahead.arrivals(next_exam):
                key = arrival.item[0]
                future = self._masked(arrival, scorer)
                if isinstance(future, Failure):
                    ahead.release()
                    deliver(key, future, arrival.seconds)
                else:
                    waiting.append((key, future, arrival.seconds))
                del arrival
                # One place stays free, so that the next series is read meanwhile.
                settle(at_most=max(0, limits.n_in_flight - _AHEAD))
                if not ahead.is_reading:
                    settle(at_most=0)
            settle(at_most=0)

    def _masked(
        self, arrival: Arrival[tuple[_Key, Path]], scorer: ThreadPoolExecutor
    ) -> Future[ExamScore] | Failure:
        if arrival.value is None:
            return arrival.failure or Failure("died")
        try:
            volume = self.restore(arrival.value)
            mask = self.segment(volume)
        except Exception as error:
            return Failure("raised", type(error).__name__, None)
        return scorer.submit(self._scored, arrival.item[0], volume, mask)

    def _scored(self, key: _Key, volume: Any, mask: Any) -> ExamScore:
        score = self.score(volume, mask)
        if self.review is not None:
            self.review(key, volume, mask, score)
        return score


def _read_volume(path: Path, criteria: ImageCriteria) -> Reading:
    volume = load_volume(path, criteria)
    facts = {one.name: getattr(volume, one.name) for one in fields(volume) if one.name != "hu"}
    return Reading({"hu": volume.hu}, facts)


def _restore_volume(reading: Reading) -> Volume:
    facts: dict[str, Any] = dict(reading.facts)
    for name in ("spacing_mm", "origin_lps_mm"):
        facts[name] = tuple(float(value) for value in facts[name])
    return Volume(hu=reading.arrays["hu"], **facts)


def _read_keyed(read: Callable[[Path], Reading], item: tuple[Any, Path]) -> Reading:
    return read(item[1])


def _outcome(future: Future[ExamScore]) -> ExamScore | Failure:
    try:
        return future.result()
    except Exception as error:
        return Failure("raised", type(error).__name__, None)


def default_limits(time_limit_s: float = EXAM_TIME_LIMIT_S) -> StreamLimits:
    """Return limits for this machine: a core per reading process, but one, and at most four."""
    workers = max(1, min(_MOST_WORKERS, (os.cpu_count() or 1) - 1))
    return StreamLimits(workers + _AHEAD, workers, time_limit_s)


def package_pipeline(
    package: ModelPackage,
    engine: InferenceEngine,
    criteria: ImageCriteria,
    profile: ScoringProfile,
    limits: StreamLimits | None = None,
) -> ExamPipeline[Any]:
    """Return the pipeline of one package, one scoring profile and a protocol's image criteria."""
    second_stage = package.second_stage()

    def segment(volume: Volume) -> Prediction:
        return engine.predict(volume.hu, volume.spacing_mm)

    def score(volume: Volume, prediction: Prediction) -> ExamScore:
        scored = score_mask(volume, prediction.vessel_map, profile, second_stage)
        return ExamScore(scored.score.total, scored.vessels, scored.native_score)

    return ExamPipeline(
        read=partial(_read_volume, criteria=criteria),
        restore=_restore_volume,
        segment=segment,
        score=score,
        limits=limits or default_limits(),
        preload=("site_agent.exam_pipeline",),
    )
