"""Site tables with exactly one fault each; messages never quote a patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedcac.errors import TableError
from fedcac.protocol.catalogue import load_shipped
from fedcac.protocol.schema import ClinicalCriterion
from fedcac.site_table import (
    ScoredExam,
    assemble_exams,
    read_clinical_table,
    read_site_table,
)
from fedcac.vocabulary import ExclusionReason, Vessel

PROTOCOL = load_shipped("demo-nongated")
HEADER = "patient_id,index_score,reference_score,age,sex,follow_up_days,event"
SOUND = [
    HEADER,
    "SECRET1,0,0,61.5,male,400,0",
    "SECRET2,120.5,99,70,female,200.5,1",
    "SECRET3,7,12,,Male,,",
]


def write(folder: Path, lines: list[str], *, end: str = "\n") -> Path:
    path = folder / "table.csv"
    path.write_bytes(end.join(lines).encode("utf-8"))
    return path


def test_a_sound_table(tmp_path: Path) -> None:
    table = read_site_table(write(tmp_path, SOUND), PROTOCOL)
    assert table.exams.n == 3
    assert table.exams.column("index_score").tolist() == [0, 120.5, 7]
    assert table.exams.column("sex").tolist() == [1, 0, 1]
    assert np.isnan(table.exams.column("age")[2])
    assert np.isnan(table.exams.column("event")[2])
    assert not any("SECRET" in key for key in table.exams.keys)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_byte_order_mark_and_line_ends_are_accepted(tmp_path: Path, end: str) -> None:
    path = write(tmp_path, ["\ufeff" + SOUND[0], *SOUND[1:], ""], end=end)
    assert read_site_table(path, PROTOCOL).exams.n == 3


def test_columns_nobody_asked_for_are_named(tmp_path: Path) -> None:
    lines = [f"{SOUND[0]},shoe_size", *(f"{line},42" for line in SOUND[1:])]
    assert read_site_table(write(tmp_path, lines), PROTOCOL).ignored_columns == ("shoe_size",)


FAULTS: dict[str, tuple[list[str], str, str]] = {
    "no score column": (
        [HEADER.replace("index_score", "score"), *SOUND[1:]],
        "missing_column",
        "index_score",
    ),
    "no covariate column": (
        [HEADER.replace("age", "years"), *SOUND[1:]],
        "missing_column",
        "cox_age_sex",
    ),
    "text for a number": ([*SOUND, "SECRET4,many,1,50,male,1,0"], "not_a_number", "Line 5"),
    "underscore": ([*SOUND, "SECRET4,1_0,1,50,male,1,0"], "not_a_number", "Line 5"),
    "other digits": ([*SOUND, "SECRET4,\u0661,1,50,male,1,0"], "not_a_number", "Line 5"),
    "overflow": ([*SOUND, "SECRET4,1e999,1,50,male,1,0"], "not_a_number", "Line 5"),
    "infinite": ([*SOUND, "SECRET4,inf,1,50,male,1,0"], "not_a_number", "Line 5"),
    "NaN score": ([*SOUND, "SECRET4,nan,1,50,male,1,0"], "nan_score", "index_score"),
    "empty score": ([*SOUND, "SECRET4,1,,50,male,1,0"], "nan_score", "reference_score"),
    "negative score": ([*SOUND, "SECRET4,-1,1,50,male,1,0"], "negative_score", "Line 5"),
    "duplicate patient": ([*SOUND, "SECRET1,1,1,50,male,1,0"], "duplicate_patient", "Line 5"),
    "blank patient": ([*SOUND, ",1,1,50,male,1,0"], "no_patient_id", "Line 5"),
    "unknown level": ([*SOUND, "SECRET4,1,1,50,m,1,0"], "unknown_level", "female, male"),
    "out of range": ([*SOUND, "SECRET4,1,1,150,male,1,0"], "out_of_range", "18 to 120"),
    "bad event": ([*SOUND, "SECRET4,1,1,50,male,1,2"], "bad_event", "event"),
    "negative time": ([*SOUND, "SECRET4,1,1,50,male,-1,0"], "negative_time", "follow_up_days"),
    "ragged line": ([*SOUND, "SECRET4,1,1"], "not_csv", "Line 5"),
    "semicolons": ([line.replace(",", ";") for line in SOUND], "not_csv", "comma"),
    "column twice": (
        [f"{HEADER},age", *(f"{line},1" for line in SOUND[1:])],
        "duplicate_column",
        "age",
    ),
    "no row": ([HEADER], "empty_table", "no row"),
    "nothing": ([""], "empty_table", "empty"),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_one_fault_is_named_with_line_and_cure(tmp_path: Path, fault: str) -> None:
    lines, code, words = FAULTS[fault]
    with pytest.raises(TableError) as caught:
        read_site_table(write(tmp_path, lines), PROTOCOL)
    assert caught.value.code == f"table.{code}"
    assert words in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_files_that_are_no_table(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no_such_file"):
        read_site_table(tmp_path / "absent.csv", PROTOCOL)
    binary = tmp_path / "binary.csv"
    binary.write_bytes(bytes(range(256)))
    with pytest.raises(TableError, match="not_csv"):
        read_site_table(binary, PROTOCOL)


def test_clinical_criteria_exclude_and_are_counted(tmp_path: Path) -> None:
    criterion = ClinicalCriterion(column="known_cad", exclude_if=1.0, statement="Known disease.")
    protocol = PROTOCOL.model_copy(update={"clinical_criteria": (criterion,)})
    with pytest.raises(TableError, match="known_cad"):
        read_site_table(write(tmp_path, SOUND), protocol)
    lines = [f"{SOUND[0]},known_cad", *(f"{line},{n % 2}" for n, line in enumerate(SOUND[1:]))]
    table = read_site_table(write(tmp_path, lines), protocol)
    assert (table.exams.n, table.n_excluded) == (2, 1)


def test_an_empty_criterion_is_an_error_not_an_inclusion(tmp_path: Path) -> None:
    criterion = ClinicalCriterion(column="known_cad", exclude_if=1.0, statement="Known disease.")
    protocol = PROTOCOL.model_copy(update={"clinical_criteria": (criterion,)})
    lines = [f"{SOUND[0]},known_cad", f"{SOUND[1]},0", f"{SOUND[2]},"]
    with pytest.raises(TableError, match="unknown_eligibility"):
        read_site_table(write(tmp_path, lines), protocol)


def test_scored_exams_join_the_clinical_table(tmp_path: Path) -> None:
    lines = [
        "patient_id,reference_score,reference_lad,age,sex,follow_up_days,event",
        "A,10,4,60,male,100,1",
        "B,,,60,male,100,1",
    ]
    table = read_clinical_table(write(tmp_path, lines), PROTOCOL)
    vessels = dict.fromkeys(Vessel, 2.0)
    scored = [ScoredExam(f"key-{p}", p, 8.0, vessels) for p in ("A", "B", "C")]
    assert "'A'" not in repr(scored[0])
    joined = assemble_exams(scored, table)
    assert joined.exams.keys == ("key-A",)
    assert joined.exams.column("reference_lad").tolist() == [4]
    assert joined.exams.column("index_rca").tolist() == [2]
    assert joined.exclusions == {ExclusionReason.NO_REFERENCE_SCORE: 2}


def test_an_excluded_patient_never_joins_a_scored_exam(tmp_path: Path) -> None:
    criterion = ClinicalCriterion(column="known_cad", exclude_if=1.0, statement="Known disease.")
    protocol = PROTOCOL.model_copy(update={"clinical_criteria": (criterion,)})
    lines = [
        "patient_id,reference_score,age,sex,follow_up_days,event,known_cad",
        "A,10,60,male,100,1,0",
        "B,20,60,male,100,1,1",
        "C,,60,male,100,1,1",
    ]
    table = read_clinical_table(write(tmp_path, lines), protocol)
    vessels = dict.fromkeys(Vessel, 2.0)
    joined = assemble_exams([ScoredExam(f"key-{p}", p, 8.0, vessels) for p in "ABC"], table)
    assert joined.exams.keys == ("key-A",)
    # The criterion is the stated reason even where the reference score is missing too.
    assert joined.exclusions == {ExclusionReason.PROTOCOL_EXCLUSION: 2}


def test_a_table_without_a_header_is_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "site.csv"
    path.write_text("DOE^JANE,0.5,1.5\nROE^RICHARD,2.0,3.0\n", encoding="utf-8")
    with pytest.raises(TableError) as caught:
        read_site_table(path, load_shipped("demo-nongated"))
    assert "DOE" not in f"{caught.value} {caught.value.cure}"
    assert "3 column(s)" in str(caught.value.cure)
    path.write_text("DOE^JANE,1,1\nROE^RICHARD,2,3\n", encoding="utf-8")
    with pytest.raises(TableError) as caught:
        read_site_table(path, load_shipped("demo-nongated"))
    assert "DOE" not in f"{caught.value} {caught.value.cure}"
