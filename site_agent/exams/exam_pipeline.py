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
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from fedcac.imaging import Volume, load_volume
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
    "category_name",
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
    """What a model made of one exam.

    Attributes
    ----------
    total, vessels
        The Agatston score and that of each vessel; no vessels where the model tells none, and no
        total where it makes no mask.
    native_score, native_category
        The model's own score and the name of its own category, where its package gives them.
    probabilities
        The model's probability of a score above each threshold, where it is a classifier.
    """

    total: float | None
    vessels: Mapping[Vessel, float] = field(default_factory=dict)
    native_score: float | None = None
    native_category: str | None = None
    probabilities: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ScoredMask:
    """The platform's score of a mask, and the model's own beside it."""

    score: CalciumScore
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
    """Score a mask by the platform's scorer; the model's own score stands beside it."""
    spacing_mm = volume.spacing_mm
    score = score_volume(volume.hu, vessel_map, spacing_mm, profile, kvp=volume.kvp)
    given = (volume.hu, vessel_map, spacing_mm)
    return ScoredMask(
        score=score,
        native_score=second_stage.native_score(*given) if second_stage else None,
        native_category=second_stage.category(*given) if second_stage else None,
    )


class _Gathered(NamedTuple):
    """An exam that was read and waits for the device."""

    key: Any
    volume: Any
    seconds: float


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
        Makes the mask of a volume, on the device; with `batch`, the masks of a list of them, in
        their order.
    score
        Scores a volume under its mask, in a thread.
    limits
        How far reading may run ahead.
    preload
        Modules that the workers need.
    review
        What else is made of an exam, of its key, volume, mask and score, in the scoring thread. It
        does not raise.
    batch
        How many exams the device takes at a time; None where each is segmented by itself. What an
        exam gets must not depend on those beside it.
    """

    read: Callable[[Path], Reading]
    restore: Callable[[Reading], Any]
    segment: Callable[[Any], Any]
    score: Callable[[Any, Any], ExamScore]
    limits: StreamLimits = field(default_factory=StreamLimits)
    preload: tuple[str, ...] = ()
    review: Callable[[_Key, Any, Any, ExamScore], None] | None = None
    batch: int | None = None

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

            gathered: list[_Gathered] = []
            for arrival in ahead.arrivals(next_exam):
                key = arrival.item[0]
                restored = self._restored(arrival)
                if isinstance(restored, Failure):
                    ahead.release()
                    deliver(key, restored, arrival.seconds)
                else:
                    gathered.append(_Gathered(key, restored, arrival.seconds))
                del arrival, restored
                if len(gathered) < (self.batch or 1) and ahead.is_reading:
                    continue
                masks = self._masks([one.volume for one in gathered])
                for one, mask in zip(gathered, masks, strict=True):
                    if isinstance(mask, Failure):
                        ahead.release()
                        deliver(one.key, mask, one.seconds)
                        continue
                    future = scorer.submit(self._scored, one.key, one.volume, mask)
                    waiting.append((one.key, future, one.seconds))
                gathered.clear()
                del masks
                # One place stays free, so that the next series is read meanwhile.
                settle(at_most=max(0, limits.n_in_flight - _AHEAD))
                if not ahead.is_reading:
                    settle(at_most=0)
            settle(at_most=0)

    def _restored(self, arrival: Arrival[tuple[_Key, Path]]) -> Any:
        if arrival.value is None:
            return arrival.failure or Failure("died")
        try:
            return self.restore(arrival.value)
        except Exception as error:
            return Failure("raised", type(error).__name__, None)

    def _masks(self, volumes: list[Any]) -> list[Any]:
        """Return the mask of every volume, a failure in the place of one that has none."""
        if self.batch is not None and len(volumes) > 1:
            try:
                return list(self.segment(volumes))
            except Exception:
                # One of them may be to blame: each for itself, so that it costs no other.
                return [self._mask(volume) for volume in volumes]
        return [self._mask(volume) for volume in volumes]

    def _mask(self, volume: Any) -> Any:
        try:
            return self.segment(volume) if self.batch is None else self.segment([volume])[0]
        except Exception as error:
            return Failure("raised", type(error).__name__, None)

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


def category_name(index: int | None) -> str | None:
    """Return the name of a second stage's category, None where it gave none."""
    if index is None:
        return None
    # XGBoost is needed by the packages that bring a second stage, and by no other.
    from fedcac.models.second_stage import RISK_CATEGORIES

    return RISK_CATEGORIES.labels[index]


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
    """Return the pipeline of one package, one scoring profile and a protocol's image criteria.

    A package that reads radiographs has the pipeline of `site_agent.exams.radiograph_pipeline`.
    """
    if not package.family.is_segmenting:
        from site_agent.exams.radiograph_pipeline import radiograph_pipeline

        return radiograph_pipeline(package, engine, criteria, limits or default_limits())
    second_stage = package.second_stage()

    def segment(volume: Volume) -> Prediction:
        return engine.predict(volume.hu, volume.spacing_mm)

    def score(volume: Volume, prediction: Prediction) -> ExamScore:
        scored = score_mask(volume, prediction.vessel_map, profile, second_stage)
        return ExamScore(
            scored.score.total,
            scored.score.vessels,
            scored.native_score,
            category_name(scored.native_category),
        )

    return ExamPipeline(
        read=partial(_read_volume, criteria=criteria),
        restore=_restore_volume,
        segment=segment,
        score=score,
        limits=limits or default_limits(),
        preload=("site_agent.exams.exam_pipeline",),
    )
