"""Whole generated cohorts: sites with DICOM pairs, manifests, clinical tables and the truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from fedcac.console import progress
from fedcac.errors import UsageError
from fedcac.phantom.dicom import ExamLabel, write_series
from fedcac.phantom.hybrid import generate_hybrid_pair
from fedcac.phantom.pairs import generate_pair
from fedcac.phantom.site_folders import check_new_folder, write_csv
from fedcac.phantom.worker_pool import worker_pool
from fedcac.vocabulary import Vessel

__all__ = ["write_cohort"]

_CLINICAL_COLUMNS = (
    "patient_id",
    "reference_score",
    *(f"reference_{vessel.value}" for vessel in Vessel),
    "age",
    "sex",
    "follow_up_days",
    "event",
)
_FIRST_DAY = date(2020, 1, 1)

# The generating truth of follow-up: a yearly hazard, and log hazard ratios per category of the
# reference score, per ten years of age and for men (near Miller 2023, Table 2).
_YEARLY_HAZARD = 0.03
_CATEGORY_LOG_HR = (0.0, 0.4, 0.8, 1.4, 1.8)
_AGE_LOG_HR, _MALE_LOG_HR = 0.15, 0.2
_CUT_OFFS = (1.0, 10.0, 100.0, 400.0)


@dataclass(frozen=True)
class _Task:
    folder: str
    seed: tuple[int, int, int]
    patient_id: str
    is_hybrid: bool


def write_cohort(
    out: Path, *, n_sites: int, n_patients: int, seed: int, hybrid_share: float = 0.25
) -> tuple[str, ...]:
    """Write generated sites below `out` and return their names.

    Each site's folder holds `dicom/`, `manifest.csv` (path, role) and `clinical.csv`; `truth.csv`
    beside them lists every patient's reference score and the calcium placed, in mg. The same seed
    writes the same files.

    Raises
    ------
    UsageError
        If `out` is not empty, or a number does not make sense.
    """
    if n_sites < 1 or n_patients < 1 or not 0 <= hybrid_share <= 1:
        raise UsageError(
            "A cohort needs at least one site and one patient, and a share from 0 to 1.",
            code="bad_cohort",
            cure="Give other numbers.",
        )
    check_new_folder(out)
    names = tuple(f"site-{number + 1}" for number in range(n_sites))
    tasks = [
        _plan(out / name, (seed, site, patient), hybrid_share)
        for site, name in enumerate(names)
        for patient in range(n_patients)
    ]
    with (
        worker_pool() as workers,
        progress("Generating exam pairs", len(tasks)) as advance,
    ):
        patients = []
        for patient in workers.map(_write_patient, tasks, chunksize=2):
            patients.append(patient)
            advance()
    for site, name in enumerate(names):
        own = patients[site * n_patients : (site + 1) * n_patients]
        write_csv(out / name / "clinical.csv", _CLINICAL_COLUMNS, own)
        _write_manifest(out / name, own)
    truth = [
        {"site": task.folder.rsplit("/", 1)[-1], **patient}
        for task, patient in zip(tasks, patients, strict=True)
    ]
    columns = (
        "site",
        "patient_id",
        "is_hybrid",
        "reference_score",
        *(f"mass_mg_{vessel.value}" for vessel in Vessel),
    )
    write_csv(out / "truth.csv", columns, truth)
    return names


def _plan(folder: Path, seed: tuple[int, int, int], hybrid_share: float) -> _Task:
    # Drawn apart from the exam itself, so that the share does not change the exams.
    is_hybrid = bool(np.random.default_rng((*seed, 7)).random() < hybrid_share)
    return _Task(folder.as_posix(), seed, f"P{seed[1] + 1}{seed[2] + 1:05d}", is_hybrid)


def _write_patient(task: _Task) -> dict[str, object]:
    rng = np.random.default_rng(task.seed)
    pair = generate_hybrid_pair(rng) if task.is_hybrid else generate_pair(rng)
    day = _FIRST_DAY + timedelta(days=int(rng.integers(0, 900)))
    other_day = day + timedelta(days=int(rng.integers(-180, 181)))
    folders = []
    for is_gated, exam, when in ((False, pair.non_gated, day), (True, pair.gated, other_day)):
        folder = Path(task.folder) / "dicom" / rng.bytes(6).hex()
        write_series(folder, exam, ExamLabel(task.patient_id, when, is_gated), rng)
        folders.append(folder.name)
    row: dict[str, object] = {
        "patient_id": task.patient_id,
        "is_hybrid": int(task.is_hybrid),
        "index_series": folders[0],
        "reference_series": folders[1],
        "reference_score": round(pair.reference_score, 3),
    }
    for vessel in Vessel:
        row[f"reference_{vessel.value}"] = round(pair.reference.vessels[vessel], 3)
        row[f"mass_mg_{vessel.value}"] = round(pair.mass_mg[vessel], 4)
    row.update(_follow(rng, pair.reference_score))
    return row


def _follow(rng: np.random.Generator, reference_score: float) -> dict[str, object]:
    """Draw age, sex and follow-up from a proportional-hazards model of the reference score."""
    age = float(np.clip(rng.normal(62, 9), 35, 90))
    is_male = bool(rng.random() < 0.5)
    category = sum(reference_score > cut_off for cut_off in _CUT_OFFS)
    log_hr = _CATEGORY_LOG_HR[category] + _AGE_LOG_HR * (age - 62) / 10 + _MALE_LOG_HR * is_male
    time_days = rng.exponential(365.25 / (_YEARLY_HAZARD * np.exp(log_hr)))
    censored_days = rng.uniform(2 * 365, 7 * 365)
    return {
        "age": round(age, 1),
        "sex": "male" if is_male else "female",
        "follow_up_days": int(max(1, min(time_days, censored_days))),
        "event": int(time_days <= censored_days),
    }


def _write_manifest(folder: Path, patients: Iterable[Mapping[str, object]]) -> None:
    rows = [
        {"path": f"dicom/{patient[column]}", "role": role}
        for patient in patients
        for column, role in (("index_series", "index"), ("reference_series", "reference"))
    ]
    write_csv(folder / "manifest.csv", ("path", "role"), rows)
