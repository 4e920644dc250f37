"""The model's own score and category, and its probabilities, beside the platform's score."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedcac.errors import ProtocolError, TableError
from fedcac.imaging import ExamPair
from fedcac.protocol import ComparisonSpec, Protocol, ScoreColumn
from fedcac.protocol.catalogue import load_shipped
from fedcac.site_table import (
    assemble_exams,
    read_clinical_table,
    read_site_table,
)
from site_agent.exams.exam_answers import scored_exam
from site_agent.state.records import ExamRecord

HONG, ENG = load_shipped("hong2025-cxr"), load_shipped("eng2021-nongated")
PAIR = ExamPair("key", Path("x"), None, None, "P1")
PACKAGE: Any = SimpleNamespace(manifest=SimpleNamespace(calcium_threshold=0.5))


def native(protocol: Protocol, column: str) -> Protocol:
    """Compare the model's own answer with the platform's, against one reference."""
    spec = ComparisonSpec(id="own", kind="comparison", compare="index_tests", cut_offs=(100,))
    changes = {
        "comparator": ScoreColumn(column=column, description="The model's own answer"),
        "analyses": (spec,),
        "covariates": (),
        "endpoints": (),
        "clinical_criteria": (),
        "subgroups": (),
    }
    parts = {name: getattr(protocol, name) for name in type(protocol).model_fields}
    return Protocol(**{**parts, **changes})


def record(**answer: Any) -> ExamRecord:
    parts: dict[str, Any] = {"total": None, "vessels": {}, **answer}
    return ExamRecord("key", 1, 1, None, **parts)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("category", ["0", "1-10", "11-100", "101-400", ">400"])
def test_a_category_of_the_models_own_is_a_score_inside_the_protocols(
    category: str, tmp_path: Path
) -> None:
    protocol = native(ENG, "index_native_category")
    table = read_clinical_table(
        write(tmp_path / "t.csv", "patient_id,reference_score", "P1,7"), protocol
    )
    answer = record(total=3.0, native_score=88.5, native_category=category)
    exams = assemble_exams([scored_exam(PAIR, answer, protocol, PACKAGE)], table).exams
    assert exams.column("index_score").tolist() == [3.0]
    assert exams.column("index_native_score").tolist() == [88.5]
    own = protocol.categories.categorise(exams.column("index_native_category"))
    assert protocol.categories.labels[own[0]] == category


def test_categories_with_other_names_have_no_score() -> None:
    answer = scored_exam(PAIR, record(total=3.0, native_category="101-400"), HONG, PACKAGE)
    assert np.isnan(answer.further["index_native_category"])
    assert np.isnan(answer.further["index_native_score"])


def test_probabilities_make_the_index_score_under_the_protocols_own_cut_offs() -> None:
    answer = record(probabilities={0: 0.9, 100: 0.7, 400: 0.2}, native_category="100-399")
    exam = scored_exam(PAIR, answer, HONG, PACKAGE)
    assert HONG.categories.categorise(np.array([exam.total])).tolist() == [2]
    assert exam.further["index_probability_0"] == 0.9
    assert exam.further["index_probability_400"] == 0.2
    stricter: Any = SimpleNamespace(manifest=SimpleNamespace(calcium_threshold=0.8))
    exam = scored_exam(PAIR, answer, HONG, stricter)
    assert HONG.categories.categorise(np.array([exam.total])).tolist() == [1]
    with pytest.raises(ValueError, match="not scored"):
        scored_exam(PAIR, record(), HONG, PACKAGE)


def test_a_scored_table_states_the_models_own_category_by_name(tmp_path: Path) -> None:
    protocol = native(ENG, "index_native_category")
    header = "patient_id,index_score,reference_score,index_native_category"
    path = write(tmp_path / "t.csv", header, "A,5,7,101-400", "B,5,7,", "C,5,7,>400")
    own = read_site_table(path, protocol).exams.column("index_native_category")
    assert np.isnan(own[1])
    assert protocol.categories.categorise(own[[0, 2]]).tolist() == [3, 4]
    with pytest.raises(TableError, match="unknown_level"):
        read_site_table(write(tmp_path / "u.csv", header, "A,5,7,high"), protocol)


def test_a_scored_table_states_the_models_own_score_as_a_number(tmp_path: Path) -> None:
    protocol = native(ENG, "index_native_score")
    header = "patient_id,index_score,reference_score,index_native_score"
    path = write(tmp_path / "t.csv", header, "A,5,7,12.5")
    assert read_site_table(path, protocol).exams.column("index_native_score").tolist() == [12.5]


def test_a_site_that_scores_exams_is_not_asked_for_the_models_answers(tmp_path: Path) -> None:
    header = "patient_id,reference_score,age,sex,bmi,follow_up_days,event"
    path = write(tmp_path / "t.csv", header, "P1,7,60,male,25,100,0")
    table = read_clinical_table(path, HONG)
    assert not [name for name in table.columns if name.startswith("index_")]
    answer = record(probabilities={0: 0.9, 100: 0.7, 400: 0.2}, native_category="100-399")
    exams = assemble_exams([scored_exam(PAIR, answer, HONG, PACKAGE)], table).exams
    assert exams.column("index_probability_100").tolist() == [0.7]
    assert np.isnan(exams.column("index_lad")).all()


# --- the day of a reference that was read elsewhere -----------------------------------------------


def test_days_are_read_in_two_forms(tmp_path: Path) -> None:
    header = "patient_id,reference_score,reference_date,age,sex,bmi,follow_up_days,event"
    rest = "60,male,25,100,0"
    path = write(
        tmp_path / "t.csv", header, f"A,7,2024-02-29,{rest}", f"B,7,20240301,{rest}", f"C,7,,{rest}"
    )
    table = read_clinical_table(path, HONG)
    assert table.reference_dates == {"A": date(2024, 2, 29), "B": date(2024, 3, 1)}
    assert "reference_date" not in (*table.columns, *table.ignored_columns)


@pytest.mark.parametrize("day", ["2023-02-29", "29.02.2024", "0001-01-01", "2024-W09-4", "24"])
def test_what_is_no_day_is_named_by_its_line(tmp_path: Path, day: str) -> None:
    header = "patient_id,reference_score,reference_date,age,sex,bmi,follow_up_days,event"
    path = write(tmp_path / "t.csv", header, f"A,7,{day},60,male,25,100,0")
    with pytest.raises(TableError, match="not_a_date") as caught:
        read_clinical_table(path, HONG)
    assert "Line 2" in str(caught.value)
    assert day not in str(caught.value)


def test_the_column_of_days_can_have_no_other_meaning() -> None:
    with pytest.raises((ProtocolError, ValueError), match="reference_date"):
        native(ENG, "reference_date")
