"""A cohort of generated exams, some corrupted, through manifest, pairing and the scoring queue."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from imaging.corruptions import CORRUPTIONS, SOUND
from imaging.generated import body_hu, make_series, write_series

from fedcac.errors import DicomError
from fedcac.imaging import exam_key, load_volume, pair_manifest
from fedcac.protocol import ImageCriteria
from fedcac.scoring import profile_named, score_volume
from site_agent.exams.scoring_queue import ExamScore, IndexExam, ScoringQueue
from site_agent.state.store import SiteStore

PATIENT = "SECRET-PATIENT-{:04d}"
_SECRET = bytes(range(32))
_PROFILE = "agatston1990"


@dataclass(frozen=True)
class CohortRun:
    """What came of the exams.

    Attributes
    ----------
    outcomes
        By exam: the corruption (empty for a sound exam) and the code, or `sound`.
    wrong
        Exams, as (corruption, code): a sound one that is lost or scored otherwise than before it
        was written, or a corrupt one without one of its codes.
    """

    outcomes: tuple[tuple[str, str], ...]
    wrong: tuple[tuple[str, str], ...]

    def codes_by_corruption(self) -> dict[str, Counter[str]]:
        table: dict[str, Counter[str]] = {}
        for name, code in self.outcomes:
            table.setdefault(name, Counter())[code] += 1
        return dict(sorted(table.items()))


def run_cohort(
    folder: Path,
    corruptions: Sequence[str],
    *,
    seed: int,
    on_exam: Callable[[], None] = lambda: None,
) -> CohortRun:
    """Write one exam per name (empty: sound) and take all through pairing and the queue."""
    expected = _write(folder, corruptions, seed)
    pairing = pair_manifest(folder / "manifest.csv", window_days=None, secret=_SECRET)
    keys = [exam_key("", PATIENT.format(n), _SECRET) for n in range(len(corruptions))]
    lost_early = {loss.path: loss.reason.value for loss in pairing.losses}

    def score(series: Path) -> ExamScore:
        on_exam()
        return ExamScore(_score(series), {})

    store = SiteStore(":memory:")
    queue = ScoringQueue(store, "digest", _PROFILE, scorer=score)
    records = queue.run(IndexExam(pair.exam_key, pair.index_path) for pair in pairing.pairs)
    store.close()
    outcomes, wrong = [], []
    for number, (name, key) in enumerate(zip(corruptions, keys, strict=True)):
        record = records.get(key)
        if record is None:
            code = lost_early.get(_series(folder, number), "lost without a code")
        else:
            code = record.reason.value if record.reason else SOUND
        allowed = CORRUPTIONS[name].codes if name else {SOUND}
        changed = record is not None and code == SOUND and record.total != expected[number]
        outcomes.append((name, code))
        if code not in allowed or changed:
            wrong.append((name, "another score" if changed else code))
    return CohortRun(tuple(outcomes), tuple(wrong))


def _series(folder: Path, number: int) -> Path:
    return folder / f"e{number:04d}"


def _write(folder: Path, corruptions: Sequence[str], seed: int) -> list[float]:
    lines, expected = ["path,role,patient_id"], []
    for number, name in enumerate(corruptions):
        rng = np.random.default_rng([seed, number])
        hu = body_hu(rng)
        path = write_series(_series(folder, number), make_series(rng, PATIENT.format(number), hu))
        expected.append(_agatston(np.ascontiguousarray(hu[::-1], dtype=np.float32)))
        if name:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                CORRUPTIONS[name].damage(path, rng)
        lines.append(f"{path.name},index,{PATIENT.format(number)}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return expected


def _score(series: Path) -> float:
    volume = load_volume(series, ImageCriteria())
    if volume.spacing_mm != (3.0, 0.7, 0.7):
        raise DicomError("The spacing is not what was written.", code="irregular_spacing")
    return _agatston(volume.hu)


def _agatston(hu: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    mask = (hu > 0).astype(np.uint8)
    return score_volume(hu, mask, (3.0, 0.7, 0.7), profile_named(_PROFILE)).total
