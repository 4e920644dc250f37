"""The scoring queue over worker processes: every exam ends with a score or a code, once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unit.models.reading import read

from fedcac.imaging import Volume, load_volume
from fedcac.models import InferenceEngine, demonstration_package
from fedcac.models.streams import StreamLimits
from fedcac.models.transport import Reading
from fedcac.phantom import chest_ct_folder
from fedcac.protocol import ImageCriteria
from fedcac.scoring import profile_named, score_volume
from fedcac.vocabulary import ExclusionReason, Vessel
from site_agent.exams.exam_pipeline import (
    ExamPipeline,
    ExamScore,
    default_limits,
    package_pipeline,
    score_mask,
)
from site_agent.exams.scoring_queue import MAXIMUM_ATTEMPTS, IndexExam, ScoringQueue
from site_agent.state.store import SiteStore

KEY = ("sha256:package", "agatston1990")
LIMITS = StreamLimits(n_in_flight=3, n_workers=2, time_limit_s=120.0)


def restore(reading: Reading) -> np.ndarray[Any, Any]:
    return reading.arrays["hu"]


def score(volume: np.ndarray[Any, Any], mask: float) -> ExamScore:
    if volume[0, 0, 0] == 13:
        raise ValueError("the scorer quotes ZZCANARY")
    return ExamScore(float(volume.mean()) + mask, {Vessel.LAD: 1.0}, native_score=mask)


def segment(volume: np.ndarray[Any, Any]) -> float:
    if volume[0, 0, 0] == 11:
        raise MemoryError("the network quotes ZZCANARY")
    return 0.5


def pipeline(
    limits: StreamLimits = LIMITS, segment: Callable[[Any], Any] = segment
) -> ExamPipeline[IndexExam]:
    return ExamPipeline(read=read, restore=restore, segment=segment, score=score, limits=limits)


def exams(*names: str) -> list[IndexExam]:
    return [IndexExam(Path(name).name, Path(name)) for name in names]


def queue(store: SiteStore, **parts: Any) -> ScoringQueue:
    return ScoringQueue(store, *KEY, scorer=pipeline(**parts))


def test_faults_of_every_step_cost_their_own_exam(caplog: pytest.LogCaptureFixture) -> None:
    store = SiteStore(":memory:")
    names = ("exam-1", "crash-2", "corrupt-3", "bug-4", "exam-11", "exam-13", "exam-7", "exam-8")
    records = queue(store).run(exams(*names))
    found = {name: (record.total, record.reason) for name, record in records.items()}
    failed = (None, ExclusionReason.INFERENCE_FAILED)
    assert found == {
        "exam-1": (1.5, None),
        "crash-2": failed,
        "corrupt-3": (None, ExclusionReason.CORRUPT_PIXELS),
        "bug-4": failed,
        "exam-11": failed,
        "exam-13": failed,
        "exam-7": (7.5, None),
        "exam-8": (8.5, None),
    }
    assert records["exam-7"].native_score == 0.5
    assert records["exam-7"].vessels == {Vessel.LAD: 1.0}
    assert records["crash-2"].attempts == MAXIMUM_ATTEMPTS + 1
    assert {record.completions for record in records.values()} == {1}
    assert "ZZCANARY" not in caplog.text
    assert "patient" not in caplog.text
    # Nothing is scored again, whatever is asked.
    assert queue(store, segment=lambda _: pytest.fail("scored again")).run(exams(*names)) == records


def test_a_reader_that_was_ended_once_is_started_again(tmp_path: Path) -> None:
    store = SiteStore(":memory:")
    (record,) = queue(store).run(exams(str(tmp_path / "once-9"))).values()
    assert (record.total, record.attempts, record.completions) == (9.5, 2, 1)


def test_a_hanging_exam_is_given_up_after_the_time_that_was_set() -> None:
    store = SiteStore(":memory:")
    limits = StreamLimits(n_in_flight=2, n_workers=2, time_limit_s=6.0)
    records = queue(store, limits=limits).run(exams("exam-1", "hang-2", "exam-3"))
    assert records["hang-2"].reason is ExclusionReason.INFERENCE_FAILED
    assert records["hang-2"].attempts == 1
    assert (records["exam-1"].total, records["exam-3"].total) == (1.5, 3.5)


def test_never_more_volumes_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count exams that are begun and not yet finished, in the store's own words."""
    store = SiteStore(":memory:")
    begin, finish = store.begin_exam, store.finish_exam
    under_way: set[str] = set()
    most = 0

    def counted_begin(key: str, *rest: str) -> int:
        nonlocal most
        under_way.add(key)
        most = max(most, len(under_way))
        return begin(key, *rest)

    def counted_finish(key: str, *rest: Any, **values: Any) -> None:
        under_way.remove(key)
        finish(key, *rest, **values)

    monkeypatch.setattr(store, "begin_exam", counted_begin)
    monkeypatch.setattr(store, "finish_exam", counted_finish)
    names = [f"exam-{number}" for number in range(20, 32)]
    queue(store).run(exams(*names))
    assert under_way == set()
    assert 2 <= most <= LIMITS.n_in_flight


class Killed(BaseException):
    """Stands for the end of the whole process."""


def test_an_exam_that_ends_the_process_is_given_up_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "site.sqlite"
    names = ("exam-1", "exam-66", "exam-3", "exam-4", "exam-5")

    def deadly(volume: np.ndarray[Any, Any]) -> float:
        if volume[0, 0, 0] == 66:
            raise Killed
        return 0.5

    n_starts = 0
    while True:
        n_starts += 1
        store = SiteStore(path)
        try:
            records = queue(store, segment=deadly).run(exams(*names))
            break
        except Killed:
            store.close()
        assert n_starts <= MAXIMUM_ATTEMPTS + 1
    assert n_starts == MAXIMUM_ATTEMPTS + 1
    assert records["exam-66"].reason is ExclusionReason.INFERENCE_FAILED
    others = [record for name, record in records.items() if name != "exam-66"]
    assert all(record.total is not None and record.completions == 1 for record in others)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM exams").fetchone() == (5,)


def test_one_function_in_this_process_serves_as_well() -> None:
    store = SiteStore(":memory:")

    def scorer(series: Path) -> ExamScore:
        return score(restore(read(series)), 0.0)

    work = ScoringQueue(store, *KEY, scorer=scorer)
    records = work.run(exams("exam-1", "corrupt-2", "bug-3", "exam-4"))
    assert [record.total for record in records.values()] == [1.0, None, None, 4.0]
    assert records["corrupt-2"].reason is ExclusionReason.CORRUPT_PIXELS
    assert records["bug-3"].reason is ExclusionReason.INFERENCE_FAILED


def test_calcium_without_a_vessel_counts_in_the_total_alone() -> None:
    hu = np.zeros((2, 16, 16), dtype=np.float32)
    hu[0, 2:6, 2:6] = 250.0
    hu[1, 8:12, 8:12] = 450.0
    volume = Volume(hu, (3.0, 1.0, 1.0), 3.0, (0.0, 0.0, 0.0))
    vessel_map = np.zeros(hu.shape, dtype=np.uint8)
    vessel_map[hu > 0] = 2
    profile = profile_named("agatston1990")
    known = score_mask(volume, vessel_map, profile)
    assert known.score.vessels[Vessel.LAD] == known.score.total == 16 * 2 + 16 * 4
    vessel_map[1][vessel_map[1] > 0] = 5
    partly = score_mask(volume, vessel_map, profile)
    assert partly.score.total == known.score.total
    assert partly.score.vessels == {}


class HalfOfTheTotal:
    """A second stage that says something simple of the mask it is shown."""

    def native_score(self, hu: Any, vessel_map: Any, spacing_mm: tuple[float, ...]) -> float:
        return float(np.count_nonzero(vessel_map)) + spacing_mm[0]

    def category(self, hu: Any, vessel_map: Any, spacing_mm: tuple[float, ...]) -> int:
        return 3


def test_a_packages_pipeline_scores_dicom_and_keeps_the_models_own_score() -> None:
    """Read by a worker, masked, scored and stored: the same as step by step in this process."""
    package = demonstration_package()
    engine = InferenceEngine(package, device="cpu")
    profile = profile_named("agatston1990")
    criteria = ImageCriteria()
    volume = load_volume(chest_ct_folder(), criteria)
    mask = engine.predict(volume.hu, volume.spacing_mm).vessel_map
    expected = score_volume(volume.hu, mask, volume.spacing_mm, profile)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(package), "second_stage", lambda _: HalfOfTheTotal())
        made = package_pipeline(package, engine, criteria, profile, StreamLimits(2, 1))
    store = SiteStore(":memory:")
    work = ScoringQueue(store, package.digest, profile.name, scorer=made)
    (record,) = work.run([IndexExam("pseudonym", chest_ct_folder())]).values()
    assert record.total == expected.total > 0
    assert record.vessels == dict(expected.vessels)
    assert record.native_score == np.count_nonzero(mask) + 5.0
    engine.close()


def test_limits_leave_a_core_to_the_network() -> None:
    limits = default_limits(12.0)
    assert 1 <= limits.n_workers <= 4
    assert limits.n_in_flight == limits.n_workers + 2
    assert limits.time_limit_s == 12.0
