"""Exam pairs: which two exams of a patient are compared, and why a patient has none."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from fedcac.canonical import canonical_bytes
from fedcac.errors import CohortError, DicomError
from fedcac.imaging.coding import reason_of
from fedcac.imaging.header import ExamHeader, read_header
from fedcac.imaging.kernels import is_sharp_kernel
from fedcac.imaging.manifest import ManifestEntry, Role, read_manifest
from fedcac.vocabulary import ExclusionReason

__all__ = [
    "ExamLoss",
    "ExamPair",
    "ListedExam",
    "PairingOutcome",
    "exam_key",
    "pair_exams",
    "pair_manifest",
]

_KEY_LENGTH = 32
_SHORTEST_SECRET = 16


@dataclass(frozen=True)
class ListedExam:
    """A manifest entry with its header, or with the reason why it has none."""

    entry: ManifestEntry
    header: ExamHeader | None = None
    failure: ExclusionReason | None = None

    def __post_init__(self) -> None:
        if (self.header is None) == (self.failure is None):
            raise ValueError("a listed exam has either a header or a failure")


@dataclass(frozen=True)
class ExamPair:
    """Two exams of one patient, or an index exam alone (`reference_path` and `days` None).

    Attributes
    ----------
    exam_key
        Site-local pseudonym, 32 hexadecimal digits.
    reference_path
        None, with `days`, where the reference exam is known by its day alone: it was read
        elsewhere, and the clinical table holds its score.
    days
        Study date of the reference minus that of the index exam, days.
    patient_id
        Kept only to join the site's clinical table.
    """

    exam_key: str = field(repr=False)
    index_path: Path = field(repr=False)
    reference_path: Path | None = field(repr=False)
    days: int | None
    patient_id: str = field(repr=False)


@dataclass(frozen=True)
class ExamLoss:
    """A series that is not used, and why. Stays at the site."""

    path: Path = field(repr=False)
    reason: ExclusionReason


@dataclass(frozen=True)
class PairingOutcome:
    """Pairs, and what was lost on the way.

    Attributes
    ----------
    pairs
        One per patient, sorted by exam key.
    exclusions
        Distinct patients without a pair, each under one reason; their sum and the pairs make up
        every patient listed. A series whose patient is unknown counts as one patient.
    losses
        Every series that is not used, in the manifest's order: also those of a patient who has
        a pair (`second_pair_of_patient`).
    """

    pairs: tuple[ExamPair, ...]
    exclusions: Counter[ExclusionReason]
    losses: tuple[ExamLoss, ...] = field(repr=False)


@dataclass(frozen=True)
class _Exam:
    """A listed exam whose patient is known; `failure` if it cannot take part in a pair."""

    line: int
    path: Path | None
    role: Role
    patient_id: str
    header: ExamHeader | None
    ordinal: int
    failure: ExclusionReason | None


def exam_key(issuer: str, patient_id: str, secret: bytes) -> str:
    """Return the site-local pseudonym of a patient: HMAC-SHA256, 32 hexadecimal digits.

    Raises
    ------
    CohortError
        `weak_secret` if the secret is shorter than 16 bytes.
    """
    if len(secret) < _SHORTEST_SECRET:
        raise CohortError(
            f"The site's secret has fewer than {_SHORTEST_SECRET} bytes.",
            code="weak_secret",
            cure="Let `fedcac-site init` make one, and keep it.",
        )
    message = canonical_bytes([issuer, patient_id])
    return hmac.new(secret, message, hashlib.sha256).hexdigest()[:_KEY_LENGTH]


def pair_manifest(
    manifest: Path,
    *,
    window_days: int | None,
    secret: bytes,
    is_study: bool = False,
    reference_dates: Mapping[str, date] | None = None,
) -> PairingOutcome:
    """Read a manifest and the header of every series it lists, and pair them.

    With `is_study` a path may be the folder of a whole study, of which one series is chosen when
    it is read (`ImageCriteria.choose_series`). `reference_dates` as `pair_exams`.

    Raises
    ------
    TableError
        If the manifest cannot be used.
    CohortError
        `weak_secret`.
    """
    exams = [_listed(entry, is_study) for entry in read_manifest(manifest)]
    return pair_exams(exams, window_days, secret, reference_dates)


def _listed(entry: ManifestEntry, is_study: bool) -> ListedExam:
    try:
        return ListedExam(entry, header=read_header(entry.path, is_study=is_study))
    except DicomError as error:
        return ListedExam(entry, failure=reason_of(error))


def pair_exams(
    exams: Iterable[ListedExam],
    window_days: int | None,
    secret: bytes,
    reference_dates: Mapping[str, date] | None = None,
) -> PairingOutcome:
    """Return one exam pair per patient: the nearest study dates within the window.

    The order of the exams and their paths' names do not matter unless two series are the same
    in every other respect. Of equally near pairs the one with soft kernels, then the earlier, is
    taken. A `patient_id` override of the manifest names the patient in the site's own namespace,
    without an issuer. With `window_days` None each patient's earliest index exam stands alone and
    reference entries are not used.

    A patient of whom no reference exam is listed, and whose day of the reference is in
    `reference_dates` (by patient), is paired by that day.

    Raises
    ------
    CohortError
        `weak_secret`.
    """
    patients: dict[str, list[_Exam]] = {}
    exclusions: Counter[ExclusionReason] = Counter()
    losses: list[tuple[int, ExamLoss]] = []
    for exam in exams:
        if window_days is None and exam.entry.role is Role.REFERENCE:
            continue
        issuer, patient_id = _patient_of(exam)
        if patient_id:
            key = exam_key(issuer, patient_id, secret)
            patients.setdefault(key, []).append(_known(exam, patient_id, window_days))
            continue
        reason = exam.failure or ExclusionReason.NO_PATIENT_ID
        exclusions[reason] += 1
        losses.append((exam.entry.line, ExamLoss(exam.entry.path, reason)))
    pairs = []
    for key in sorted(patients):
        patients[key] += _read_elsewhere(patients[key], reference_dates or {})
        chosen = _choose(patients[key], window_days)
        used = chosen if isinstance(chosen, tuple) else ()
        if isinstance(chosen, ExclusionReason):
            exclusions[chosen] += 1
            other = chosen
        else:
            pairs.append(_pair(key, chosen))
            other = ExclusionReason.SECOND_PAIR_OF_PATIENT
        losses += [
            (exam.line, ExamLoss(exam.path, exam.failure or other))
            for exam in patients[key]
            if exam not in used and exam.path is not None
        ]
    ordered = sorted(losses, key=lambda loss: loss[0])
    return PairingOutcome(tuple(pairs), exclusions, tuple(loss for _, loss in ordered))


def _patient_of(exam: ListedExam) -> tuple[str, str]:
    if exam.entry.patient_id:
        return "", exam.entry.patient_id
    if exam.header is None:
        return "", ""
    return exam.header.issuer, exam.header.patient_id


def _known(exam: ListedExam, patient_id: str, window_days: int | None) -> _Exam:
    day = exam.entry.study_date or (exam.header.study_date if exam.header else None)
    failure = exam.failure
    if failure is None and day is None and window_days is not None:
        failure = ExclusionReason.NO_STUDY_DATE
    return _Exam(
        line=exam.entry.line,
        path=exam.entry.path,
        role=exam.entry.role,
        patient_id=patient_id,
        header=exam.header,
        ordinal=day.toordinal() if day else 0,
        failure=failure,
    )


def _read_elsewhere(exams: Sequence[_Exam], dates: Mapping[str, date]) -> list[_Exam]:
    """Return the reference exam of a patient of whom the day of the reference alone is known."""
    patient_id = exams[0].patient_id
    if patient_id not in dates or any(exam.role is Role.REFERENCE for exam in exams):
        return []
    day = dates[patient_id].toordinal()
    return [_Exam(0, None, Role.REFERENCE, patient_id, None, day, None)]


def _choose(exams: Sequence[_Exam], window_days: int | None) -> tuple[_Exam, ...] | ExclusionReason:
    usable = [exam for exam in exams if exam.failure is None]
    index = [exam for exam in usable if exam.role is Role.INDEX]
    if window_days is None and index:
        return (min(index, key=_preference),)
    reference = [exam for exam in usable if exam.role is Role.REFERENCE]
    for role, found, absent in (
        (Role.INDEX, index, ExclusionReason.NO_INDEX_EXAM),
        (Role.REFERENCE, reference, ExclusionReason.NO_REFERENCE_EXAM),
    ):
        if not found:
            failures = [exam.failure for exam in exams if exam.role is role and exam.failure]
            return min(failures, default=absent)
    nearest = min(
        ((one, other) for one in index for other in reference),
        key=lambda pair: (_distance(*pair), _preference(pair[0]), _preference(pair[1])),
    )
    if window_days is not None and _distance(*nearest) > window_days:
        return ExclusionReason.OUTSIDE_PAIRING_WINDOW
    return nearest


def _distance(index: _Exam, reference: _Exam) -> int:
    return abs(reference.ordinal - index.ordinal)


def _preference(exam: _Exam) -> tuple[bool, int, str, str]:
    kernel = exam.header.kernel if exam.header else ""
    series_uid = exam.header.series_uid if exam.header else ""
    return is_sharp_kernel(kernel), exam.ordinal, series_uid, str(exam.path)


def _pair(key: str, chosen: tuple[_Exam, ...]) -> ExamPair:
    index, reference = chosen[0], chosen[1] if len(chosen) > 1 else None
    if index.path is None:
        raise ValueError("an index exam has a path")
    return ExamPair(
        exam_key=key,
        index_path=index.path,
        reference_path=reference.path if reference else None,
        days=reference.ordinal - index.ordinal if reference else None,
        patient_id=index.patient_id,
    )
