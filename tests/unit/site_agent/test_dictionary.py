"""The data dictionary against the reader of the table: each is the other's oracle."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from plans import BASE, FULL, SPECS, plan

from fedcac.errors import TableError
from fedcac.protocol import Protocol
from fedcac.protocol.catalogue import load_shipped, shipped_protocols
from fedcac.protocol.schema import ClinicalCriterion, Covariate
from fedcac.site_table import (
    REFERENCE_ANNOTATION,
    REFERENCE_DATE,
    ClinicalTable,
    read_clinical_table,
    read_site_table,
    survey_clinical_table,
)
from site_agent.__main__ import main
from site_agent.exams.dictionary import (
    DICTIONARY_FILE,
    TEMPLATE_FILE,
    ColumnEntry,
    data_dictionary,
    dictionary_csv,
    template_csv,
    write_dictionary,
)

CRITERION = ClinicalCriterion(column="known_cad", exclude_if=1.0, statement="Known disease.")


def everything() -> Protocol:
    specs = [spec.model_copy(update={"id": kind}) for kind, spec in SPECS.items()]
    return plan([BASE, FULL, *specs], clinical_criteria=(CRITERION,))


PROTOCOLS = {
    **{name: load_shipped(name) for name in shipped_protocols()},
    "everything": everything(),
}


@pytest.fixture(params=sorted(PROTOCOLS))
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return PROTOCOLS[request.param]


def filled(entries: Sequence[ColumnEntry], **cells: str) -> dict[str, str]:
    """One patient's line of the template, filled in with the examples."""
    examples = {entry.column: entry.example for entry in entries}
    header = next(csv.reader(io.StringIO(template_csv(entries))))
    return {name: examples[name] for name in header} | cells


def read(folder: Path, protocol: Protocol, *rows: dict[str, str]) -> ClinicalTable:
    path = folder / "clinical.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return read_clinical_table(path, protocol)


def test_a_filled_template_is_accepted_whole(tmp_path: Path, protocol: Protocol) -> None:
    entries = data_dictionary(protocol)
    row = filled(entries)
    table = read(tmp_path, protocol, row)
    assert not table.ignored_columns
    assert set(table.rows) == {row["patient_id"]}
    assert not table.excluded
    assert not any(survey_clinical_table(table).missing.values())


def test_columns_are_required_exactly_where_it_says(tmp_path: Path, protocol: Protocol) -> None:
    entries = data_dictionary(protocol)
    row = filled(entries)
    for entry in entries:
        if entry.column not in row:
            assert entry.column in (REFERENCE_ANNOTATION, REFERENCE_DATE)
            continue
        rest = {name: cell for name, cell in row.items() if name != entry.column}
        if entry.is_required:
            with pytest.raises(TableError) as caught:
                read(tmp_path, protocol, rest)
            assert caught.value.code == "table.missing_column"
            assert f"'{entry.column}'" in caught.value.message
        else:
            assert entry.column not in read(tmp_path, protocol, rest).columns


def test_cells_may_be_empty_exactly_where_it_says(tmp_path: Path, protocol: Protocol) -> None:
    entries = data_dictionary(protocol)
    row = filled(entries)
    for entry in entries:
        if entry.column not in row:
            continue
        if entry.may_be_empty:
            survey = survey_clinical_table(read(tmp_path, protocol, row | {entry.column: ""}))
            assert {name for name, n in survey.missing.items() if n} == {entry.column}
        else:
            with pytest.raises(TableError, match=r"no_patient_id|unknown_eligibility"):
                read(tmp_path, protocol, row | {entry.column: ""})


def test_every_typed_cell_refuses_what_it_does_not_allow(
    tmp_path: Path, protocol: Protocol
) -> None:
    entries = data_dictionary(protocol)
    row = filled(entries)
    for entry in entries:
        if entry.type in ("text", "path"):
            continue
        with pytest.raises(TableError) as caught:
            read(tmp_path, protocol, row | {entry.column: "SECRET"})
        assert f"Line 2, column '{entry.column}'" in caught.value.message
        assert "SECRET" not in str(caught.value)
        if " to " in entry.allowed:
            low, high = (float(word) for word in entry.allowed.split(" to "))
            for edge, beyond in ((low, low - 1), (high, high + 1)):
                read(tmp_path, protocol, row | {entry.column: f"{edge:g}"})
                with pytest.raises(TableError, match="out_of_range"):
                    read(tmp_path, protocol, row | {entry.column: f"{beyond:g}"})


def test_every_level_it_names_is_read(tmp_path: Path) -> None:
    protocol = PROTOCOLS["everything"]
    entries = {entry.column: entry for entry in data_dictionary(protocol)}
    levels = entries["vendor"].allowed.removeprefix("one of ").split(" | ")
    row = filled(tuple(entries.values()))
    rows = [row | {"patient_id": f"P{n}", "vendor": level} for n, level in enumerate(levels)]
    table = read(tmp_path, protocol, *rows)
    assert [table.rows[f"P{n}"]["vendor"] for n in range(3)] == [0, 1, 2]
    assert "kaplan_meier" in entries["vendor"].needed_by


def test_a_criterion_says_which_value_excludes(tmp_path: Path) -> None:
    protocol = PROTOCOLS["everything"]
    entries = data_dictionary(protocol)
    entry = next(entry for entry in entries if entry.column == "known_cad")
    assert "1 excludes the patient: Known disease." in entry.description
    row = filled(entries)
    table = read(tmp_path, protocol, row | {"patient_id": "A"}, row | {"known_cad": "1"})
    assert table.excluded == {row["patient_id"]}


def test_the_dictionary_is_csv_without_formulas() -> None:
    age = Covariate(name="age", type="continuous", description="=cmd|' /C calc'!A0", unit="years")
    others = tuple(c for c in PROTOCOLS["everything"].covariates if c.name != "age")
    protocol = PROTOCOLS["everything"].model_copy(update={"covariates": (age, *others)})
    entries = data_dictionary(protocol)
    rows = list(csv.DictReader(io.StringIO(dictionary_csv(entries))))
    assert [row["column"] for row in rows] == [entry.column for entry in entries]
    by_name = {row["column"]: row for row in rows}
    assert by_name["age"]["description"].startswith("'=")
    assert by_name["age"]["unit"] == "years"
    assert by_name["reference_score"]["required"] == "required"
    assert not any(cell.startswith("=") for row in rows for cell in row.values())


def test_the_verb_prints_or_writes_and_never_overwrites(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cohort", "dictionary", "demo-nongated"]) == 0
    printed = capsys.readouterr().out
    entries = data_dictionary(load_shipped("demo-nongated"))
    assert printed.startswith(template_csv(entries).rstrip())
    assert all(f"{entry.column}" in printed for entry in entries)

    out = ["cohort", "dictionary", "demo-nongated", "--out", str(tmp_path / "made")]
    assert main([*out, "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)["data"]
    assert [column["column"] for column in content["columns"]] == [e.column for e in entries]
    template = tmp_path / "made" / TEMPLATE_FILE
    row = filled(entries)
    with template.open("a", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerow(row.values())
    table = read_clinical_table(template, load_shipped("demo-nongated"))
    assert set(table.rows) == {row["patient_id"]}

    before = template.read_bytes()
    assert main(out) == 2
    assert "usage.file_exists" in capsys.readouterr().err
    assert template.read_bytes() == before
    assert (tmp_path / "made" / DICTIONARY_FILE).is_file()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    with pytest.raises(Exception, match="cannot_write"):
        write_dictionary(blocked, data_dictionary(load_shipped("demo-nongated")))


# --- the table itself -----------------------------------------------------------------------------


def test_all_faults_are_named_at_once_by_line_column_and_rule(tmp_path: Path) -> None:
    protocol = load_shipped("demo-nongated")
    row = filled(data_dictionary(protocol))
    rows = [
        row | {"patient_id": "SECRET1", "age": "17"},
        row | {"patient_id": "SECRET2", "event": "7", "sex": "SECRETLEVEL"},
        row | {"patient_id": "SECRET2"},
        row | {"patient_id": ""},
    ]
    with pytest.raises(TableError) as caught:
        read(tmp_path, protocol, *rows)
    text = str(caught.value)
    assert caught.value.code == "table.out_of_range"
    for words in (
        "5 cells or lines",
        "Line 2, column 'age': not in the protocol's range 18 to 120",
        "Line 3, column 'event'",
        "Line 3, column 'sex': not one of female, male",
        "Line 4 of clinical.csv: this patient_id stands on an earlier line",
        "Line 5 has no patient_id",
    ):
        assert words in text
    assert "SECRET" not in text


def test_many_faults_are_counted_and_the_first_shown(tmp_path: Path) -> None:
    protocol = load_shipped("demo-nongated")
    row = filled(data_dictionary(protocol))
    rows = [row | {"patient_id": f"P{n}", "age": "-3"} for n in range(30)]
    with pytest.raises(TableError, match="30 cells or lines") as caught:
        read(tmp_path, protocol, *rows)
    assert caught.value.message.count("column 'age'") == 20
    assert "and 10 more" in caught.value.message
    assert caught.value.cure.count("Correct the value") == 1


def test_missing_cells_are_counted_by_column_and_unknown_columns_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    protocol = load_shipped("demo-nongated")
    row = filled(data_dictionary(protocol)) | {"shoe_size": "43"}
    rows = [row | {"patient_id": f"P{n}", "age": "" if n < 3 else "60"} for n in range(7)]
    rows[0]["reference_score"] = rows[1]["reference_score"] = "NA"
    with caplog.at_level(logging.DEBUG):
        survey = survey_clinical_table(read(tmp_path, protocol, *rows))
    assert survey.n_patients == 7
    assert {name: n for name, n in survey.missing.items() if n} == {"age": 3, "reference_score": 2}
    assert survey.ignored_columns == ("shoe_size",)
    assert not caplog.records


def annotated(folder: Path, **cells: str) -> ClinicalTable:
    protocol = load_shipped("demo-nongated")
    row: dict[str, Any] = filled(data_dictionary(protocol)) | cells
    if not row["reference_score"]:
        del row["reference_score"]
    return read(folder, protocol, row)


def test_an_annotation_stands_in_place_of_a_score(tmp_path: Path) -> None:
    table = annotated(tmp_path, reference_score="", reference_annotation="a/b.dcm")
    assert table.annotations == {"P001": "a/b.dcm"}
    survey = survey_clinical_table(table)
    assert (survey.n_annotations, survey.missing["reference_score"]) == (1, 0)
    assert "b.dcm" not in repr(table)


def test_a_score_and_an_annotation_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="two_references") as caught:
        annotated(tmp_path, reference_annotation="SECRET.dcm")
    assert "Line 2" in caught.value.message
    assert "SECRET" not in str(caught.value)


def test_a_table_of_scored_exams_takes_no_annotation(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("patient_id,index_score,reference_annotation\nA,1,a.dcm\n")
    with pytest.raises(TableError, match="missing_column"):
        read_site_table(path, load_shipped("demo-nongated"))
