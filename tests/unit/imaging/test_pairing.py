from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from fedcac.errors import CohortError
from fedcac.imaging import (
    ExamHeader,
    ListedExam,
    ManifestEntry,
    Role,
    exam_key,
    pair_exams,
    pair_manifest,
)
from fedcac.vocabulary import ExclusionReason as Reason

SECRET = b"0123456789abcdef"
START = date(2020, 1, 1)


def listed(
    name: str,
    role: str,
    patient: str = "P1",
    day: int | None = 0,
    *,
    kernel: str = "B30f",
    issuer: str = "",
    override: str | None = None,
    failure: Reason | None = None,
) -> ListedExam:
    line = int(name) + 2
    entry = ManifestEntry(line=line, path=Path("/x") / name, role=Role(role), patient_id=override)
    if failure:
        return ListedExam(entry, failure=failure)
    header = ExamHeader(
        patient_id=patient,
        issuer=issuer,
        study_date=None if day is None else START + timedelta(days=day),
        study_uid=f"1.{name}",
        series_uid=f"2.{name}",
        modality="CT",
        manufacturer="",
        kernel=kernel,
        slice_thickness_mm=3.0,
        kvp=120.0,
        n_instances=40,
    )
    return ListedExam(entry, header=header)


def test_the_nearest_reference_is_taken_and_the_others_are_coded() -> None:
    exams = [
        listed("0", "index", day=100),
        listed("1", "reference", day=0),
        listed("2", "reference", day=130),
        listed("3", "index", day=400),
    ]
    outcome = pair_exams(exams, 365, SECRET)
    (pair,) = outcome.pairs
    assert (pair.index_path, pair.reference_path) == (Path("/x/0"), Path("/x/2"))
    assert (pair.days, pair.patient_id) == (30, "P1")
    assert pair.exam_key == exam_key("", "P1", SECRET)
    assert [(loss.path.name, loss.reason) for loss in outcome.losses] == [
        ("1", Reason.SECOND_PAIR_OF_PATIENT),
        ("3", Reason.SECOND_PAIR_OF_PATIENT),
    ]
    # The patient has a pair, so no patient is lost.
    assert not outcome.exclusions


@pytest.mark.parametrize(
    ("exams", "reason"),
    [
        ([listed("0", "index")], Reason.NO_REFERENCE_EXAM),
        ([listed("0", "reference")], Reason.NO_INDEX_EXAM),
        ([listed("0", "index"), listed("1", "reference", day=366)], Reason.OUTSIDE_PAIRING_WINDOW),
        ([listed("0", "index", day=None), listed("1", "reference")], Reason.NO_STUDY_DATE),
        ([listed("0", "index"), listed("1", "reference", day=None)], Reason.NO_STUDY_DATE),
        (
            [
                listed("0", "index"),
                listed("1", "reference", override="P9", failure=Reason.NO_SUCH_PATH),
            ],
            Reason.NO_REFERENCE_EXAM,
        ),
    ],
)
def test_a_patient_without_a_pair_is_counted_once(exams: list[ListedExam], reason: Reason) -> None:
    outcome = pair_exams(exams, 365, SECRET)
    assert not outcome.pairs
    assert outcome.exclusions[reason] == 1
    assert len(outcome.losses) == len(exams)


def test_the_window_is_inclusive() -> None:
    exams = [listed("0", "index"), listed("1", "reference", day=-365)]
    assert pair_exams(exams, 365, SECRET).pairs[0].days == -365


def test_exams_without_a_patient_are_counted_each() -> None:
    exams = [
        listed("0", "index", patient=""),
        listed("1", "reference", patient=""),
        listed("2", "index", failure=Reason.TRUNCATED_DICOM),
    ]
    outcome = pair_exams(exams, 365, SECRET)
    assert outcome.exclusions == {Reason.NO_PATIENT_ID: 2, Reason.TRUNCATED_DICOM: 1}


def test_a_failure_of_a_known_patient_is_the_reason() -> None:
    exams = [
        listed("0", "index", override="P1", failure=Reason.TRUNCATED_DICOM),
        listed("1", "reference"),
    ]
    outcome = pair_exams(exams, 365, SECRET)
    assert outcome.exclusions == {Reason.TRUNCATED_DICOM: 1}


def test_issuers_tell_patients_apart() -> None:
    exams = [listed("0", "index", issuer="A"), listed("1", "reference", issuer="B")]
    outcome = pair_exams(exams, 365, SECRET)
    assert outcome.exclusions == {Reason.NO_INDEX_EXAM: 1, Reason.NO_REFERENCE_EXAM: 1}
    assert exam_key("A", "B", SECRET) != exam_key("AB", "", SECRET)


def test_a_soft_kernel_wins_at_equal_distance() -> None:
    exams = [
        listed("0", "index", kernel="L"),
        listed("1", "index", kernel="B"),
        listed("2", "reference", day=10),
    ]
    assert pair_exams(exams, 365, SECRET).pairs[0].index_path.name == "1"


def test_order_does_not_matter() -> None:
    rng = np.random.default_rng(5)
    exams = [
        listed(str(n), str(rng.choice(list(Role))), f"P{n % 7}", int(rng.integers(900)))
        for n in range(60)
    ]
    first = pair_exams(exams, 365, SECRET)
    assert len(first.pairs) >= 3
    for _ in range(10):
        shuffled = [exams[n] for n in rng.permutation(60)]
        assert pair_exams(shuffled, 365, SECRET) == first
    assert len(first.losses) + 2 * len(first.pairs) == 60


def test_without_a_window_index_exams_stand_alone() -> None:
    exams = [
        listed("0", "index", day=9),
        listed("1", "index", day=3),
        listed("2", "reference"),
        listed("3", "index", "P2", None),
    ]
    outcome = pair_exams(exams, None, SECRET)
    assert {pair.index_path.name for pair in outcome.pairs} == {"1", "3"}
    assert all(pair.reference_path is None and pair.days is None for pair in outcome.pairs)
    assert [loss.reason for loss in outcome.losses] == [Reason.SECOND_PAIR_OF_PATIENT]


def test_keys_depend_on_the_secret_and_hide_in_repr() -> None:
    key = exam_key("", "P1", SECRET)
    assert len(key) == 32
    assert int(key, 16) >= 0
    assert key != exam_key("", "P1", SECRET + b"!")
    with pytest.raises(CohortError, match="weak_secret"):
        exam_key("", "P1", b"short")
    shown = repr(pair_exams([listed("0", "index"), listed("1", "reference")], 1, SECRET))
    assert "P1" not in shown
    assert key not in shown
    assert "/x" not in shown


def test_a_missing_path_of_a_manifest_is_a_coded_exclusion(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("path,role\nabsent,index\n", encoding="utf-8")
    outcome = pair_manifest(manifest, window_days=365, secret=SECRET)
    assert outcome.exclusions == {Reason.NO_SUCH_PATH: 1}
    assert outcome.losses[0].path == tmp_path / "absent"


# References read elsewhere, of which the clinical table knows the day.


def test_the_exam_nearest_to_the_day_of_the_reference_is_paired() -> None:
    exams = [listed(str(n), "index", day=day) for n, day in enumerate((0, 60, 300))]
    dates = {"P1": START + timedelta(days=100), "P9": START}
    (pair,) = pair_exams(exams, 183, SECRET, dates).pairs
    assert (pair.index_path, pair.reference_path, pair.days) == (Path("/x/1"), None, 40)
    outcome = pair_exams(exams, 30, SECRET, dates)
    assert outcome.pairs == ()
    assert outcome.exclusions == {Reason.OUTSIDE_PAIRING_WINDOW: 1}
    assert {loss.path for loss in outcome.losses} == {exam.entry.path for exam in exams}


def test_a_listed_reference_exam_comes_before_a_day() -> None:
    exams = [listed("0", "index", day=0), listed("1", "reference", day=90)]
    (pair,) = pair_exams(exams, 100, SECRET, {"P1": START}).pairs
    assert (pair.reference_path, pair.days) == (Path("/x/1"), 90)
    broken = [exams[0], listed("1", "reference", failure=Reason.TRUNCATED_DICOM, override="P1")]
    outcome = pair_exams(
        [listed("0", "index", day=0, override="P1"), broken[1]], 100, SECRET, {"P1": START}
    )
    assert outcome.exclusions == {Reason.TRUNCATED_DICOM: 1}


def test_days_do_not_make_up_an_index_exam() -> None:
    assert pair_exams([], 100, SECRET, {"P1": START}).pairs == ()
    only = [listed("0", "reference")]
    assert pair_exams(only, 100, SECRET, {"P1": START}).exclusions == {Reason.NO_INDEX_EXAM: 1}
