"""Which columns an analysis reads, which of them a table may lack, and what their cells become."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plans import BASE, FULL, SPECS, plan

from fedcac.errors import TableError
from fedcac.protocol import (
    AccuracySpec,
    AgreementSpec,
    AucSpec,
    CalibrationSpec,
    ComparisonSpec,
    CoxSpec,
    DescriptivesSpec,
    KaplanMeierSpec,
    Protocol,
)
from fedcac.protocol.categories import CategoryScheme
from fedcac.protocol.columns import ColumnKind, columns_of, probability_column
from fedcac.protocol.schema import ClinicalCriterion
from fedcac.site_table import read_clinical_table, read_site_table
from fedcac.vocabulary import BoundaryConvention, ScoreRole

SCORES = {"index_score": ColumnKind.SCORE, "reference_score": ColumnKind.SCORE}
FOLLOW_UP = {"follow_up_days": ColumnKind.TIME, "event": ColumnKind.EVENT}
PERSON = {"age": ColumnKind.COVARIATE, "sex": ColumnKind.COVARIATE}
AT_100 = {"index_probability_100": ColumnKind.PROBABILITY}
REFERENCE = {"reference_score": ColumnKind.SCORE}
VISUAL = {"visual_score": ColumnKind.SCORE}
OTHER = {"other_reader": ColumnKind.SCORE}
VENDOR = {"vendor": ColumnKind.COVARIATE}

Kinds = dict[str, ColumnKind]


def write(folder: Path, header: str, *rows: str) -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def values(path: Path, protocol: Protocol, column: str) -> list[float]:
    return read_site_table(path, protocol).exams.column(column).tolist()


# --- categories for scores ------------------------------------------------------------------------

SCHEMES: dict[str, tuple[tuple[float, ...], tuple[str, ...]]] = {
    "Eng": ((1, 10, 100, 400), ("0", "1-10", "11-100", "101-400", ">400")),
    "Hong": ((1, 100, 400), ("0", "1-99", "100-399", ">=400")),
    "neighbours": ((1, 2, 3), ("0", "1", "2", ">=3")),
    "below one": ((0.5, 100), ("0", "1-100", ">100")),
    "one high cut-off": ((400,), ("<=400", ">400")),
}


@pytest.mark.parametrize("convention", list(BoundaryConvention))
@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_a_category_becomes_a_score_inside_its_band(
    tmp_path: Path, name: str, convention: BoundaryConvention
) -> None:
    cut_offs, labels = SCHEMES[name]
    scheme = CategoryScheme(cut_offs=cut_offs, labels=labels, convention=convention)
    protocol = plan([AgreementSpec(id="x", kind="agreement")], categories=scheme)
    rows = [f'P{number},"{label}",0' for number, label in enumerate(labels)]
    path = write(tmp_path, "patient_id,index_category,reference_score", *rows)
    scores = read_site_table(path, protocol).exams.column("index_score")
    assert scheme.categorise(scores).tolist() == list(range(len(labels)))


def protocol_of(*specs: Any, **changes: Any) -> Protocol:
    return plan(specs, **changes)


AGREEMENT = protocol_of(AgreementSpec(id="x", kind="agreement"))


def test_a_score_goes_before_a_category(tmp_path: Path) -> None:
    header = "patient_id,index_category,index_score,reference_score"
    table = read_site_table(write(tmp_path, header, "P0,>400,7,0"), AGREEMENT)
    assert table.exams.column("index_score").tolist() == [7]
    assert table.ignored_columns == ("index_category",)


def test_a_category_is_used_for_every_analysis_and_not_called_ignored(tmp_path: Path) -> None:
    protocol = protocol_of(
        AgreementSpec(id="x", kind="agreement"), AccuracySpec(id="y", kind="accuracy")
    )
    table = read_site_table(
        write(tmp_path, "patient_id,index_category,reference_score", "P0,11-100,20"), protocol
    )
    assert set(table.exams.columns) == {"index_score", "reference_score"}
    assert table.ignored_columns == ()


@pytest.mark.parametrize("cell", ["", "12", "1 - 10", "IV"])
def test_a_word_that_is_no_label_is_an_error(tmp_path: Path, cell: str) -> None:
    path = write(tmp_path, "patient_id,index_category,reference_score", f"SECRET,{cell},0")
    with pytest.raises(TableError) as caught:
        read_site_table(path, AGREEMENT)
    assert caught.value.code == "table.unknown_level"
    assert "Line 2, column 'index_category'" in str(caught.value)
    assert "101-400" in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_neither_score_nor_category(tmp_path: Path) -> None:
    path = write(tmp_path, "patient_id,reference_score", "P0,0")
    with pytest.raises(TableError, match="missing_column") as caught:
        read_site_table(path, AGREEMENT)
    assert "'index_score'" in caught.value.message


# --- what may be absent ---------------------------------------------------------------------------

DESCRIBED = DescriptivesSpec(id="x", kind="descriptives", covariates=("age", "vendor"), by="all")
INDICATOR = CoxSpec(
    id="x", kind="cox", endpoint="mace", covariates=("age", "vendor"), missing="indicator"
)


@pytest.mark.parametrize("spec", [DESCRIBED, INDICATOR], ids=["descriptives", "indicator"])
def test_an_optional_column_may_be_absent_and_is_read_where_it_is_there(
    tmp_path: Path, spec: Any
) -> None:
    protocol = protocol_of(spec)
    header = "patient_id,reference_score,follow_up_days,event,age"
    lacking = read_site_table(write(tmp_path, header, "P0,1,10,0,60", "P1,1,10,0,"), protocol)
    assert not lacking.exams.has("vendor")
    assert lacking.exams.column("age")[0] == 60
    assert np.isnan(lacking.exams.column("age")[1])
    path = write(tmp_path, f"{header},vendor", "P0,1,10,0,60,B", "P1,1,10,0,60,")
    found = values(path, protocol, "vendor")
    assert found[0] == 1
    assert np.isnan(found[1])


def test_a_column_that_another_analysis_needs_is_not_optional(tmp_path: Path) -> None:
    curve = KaplanMeierSpec(
        id="curve", kind="kaplan_meier", endpoint="mace", by="vendor", horizon_days=900
    )
    path = write(tmp_path, "patient_id,reference_score,follow_up_days,event,age", "P0,1,1,0,60")
    for specs in ((DESCRIBED, curve), (curve, DESCRIBED)):
        with pytest.raises(TableError, match="analysis 'curve'") as caught:
            read_site_table(path, protocol_of(*specs))
        assert caught.value.code == "table.missing_column"


FULL_TABLE = {
    "patient_id": "P0",
    "index_score": "5",
    "reference_score": "5",
    "visual_score": "5",
    "other_reader": "5",
    "index_probability_100": "0.5",
    "age": "60",
    "sex": "0",
    "vendor": "a",
    "risk": "0.1",
    "early": "0",
    "follow_up_days": "900",
    "event": "1",
}


@pytest.mark.parametrize("kind", sorted(SPECS))
def test_every_needed_column_is_asked_for_and_no_other(tmp_path: Path, kind: str) -> None:
    spec = SPECS[kind]
    models = (BASE, FULL) if kind == "reclassification" else ()
    protocol = protocol_of(*models, spec)
    needed, optional = columns_of(spec, protocol)
    assert set(needed) | set(optional) <= set(FULL_TABLE)

    def read(columns: Iterable[str]) -> None:
        kept = [name for name in FULL_TABLE if name in columns]
        path = write(tmp_path, ",".join(kept), ",".join(FULL_TABLE[name] for name in kept))
        read_site_table(path, protocol)

    enough = {"patient_id", "reference_score", *needed}
    read(enough)
    for missing in enough:
        with pytest.raises(TableError, match=f"no column '{missing}'"):
            read(enough - {missing})


# --- empty cells ----------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["visual_score", "other_reader"])
def test_a_further_score_may_be_missing_for_a_patient(tmp_path: Path, column: str) -> None:
    compare = "index_tests" if column == "visual_score" else "references"
    protocol = protocol_of(ComparisonSpec(id="x", kind="comparison", compare=compare))
    header = f"patient_id,index_score,reference_score,{column}"
    path = write(tmp_path, header, "P0,1,2,", "P1,1,2,3.5", "P2,1,2,NA")
    found = values(path, protocol, column)
    assert np.isnan(found[0])
    assert np.isnan(found[2])
    assert found[1] == 3.5
    with pytest.raises(TableError, match="negative_score"):
        read_site_table(write(tmp_path, header, "P0,1,2,-3"), protocol)
    with pytest.raises(TableError, match=f"missing_column.*|no column '{column}'"):
        read_site_table(write(tmp_path, header.replace(column, "x"), "P0,1,2,3"), protocol)


@pytest.mark.parametrize(
    ("cell", "code"), [("1.2", "out_of_range"), ("-0.1", "out_of_range"), ("50%", "not_a_number")]
)
def test_a_probability_lies_between_0_and_1(tmp_path: Path, cell: str, code: str) -> None:
    protocol = protocol_of(SPECS["calibration"])
    header = "patient_id,reference_score,index_probability_100"
    with pytest.raises(TableError) as caught:
        read_site_table(write(tmp_path, header, "P0,1,0", "P1,1,1", f"P2,1,{cell}"), protocol)
    assert caught.value.code == f"table.{code}"
    assert "Line 4, column 'index_probability_100'" in str(caught.value)
    assert np.isnan(values(write(tmp_path, header, "P0,1,"), protocol, "index_probability_100"))


def test_an_endpoints_exclusion_may_not_be_unknown(tmp_path: Path) -> None:
    spec = CoxSpec(id="x", kind="cox", endpoint="kept_mace", covariates=("age",))
    header = "patient_id,reference_score,follow_up_days,event,age,early"
    protocol = protocol_of(spec)
    assert values(write(tmp_path, header, "P0,1,9,1,60,1"), protocol, "early") == [1]
    with pytest.raises(TableError, match="unknown_eligibility") as caught:
        read_site_table(write(tmp_path, header, "P0,1,9,1,60,"), protocol)
    assert "Line 2, column 'early'" in str(caught.value)
    # Only the endpoint with the exclusion needs the column.
    other = protocol_of(spec.model_copy(update={"endpoint": "mace"}))
    assert read_site_table(write(tmp_path, header, "P0,1,9,1,60,"), other).exams.n == 1


@pytest.mark.parametrize("word", ["1", "yes", "TRUE", "y"])
def test_yes_and_no_of_a_binary_covariate(tmp_path: Path, word: str) -> None:
    protocol = protocol_of(
        DescriptivesSpec(id="x", kind="descriptives", covariates=("sex",), by="all")
    )
    path = write(tmp_path, "patient_id,reference_score,sex", f"P0,1,{word}", "P1,1,no")
    assert values(path, protocol, "sex") == [1, 0]


# --- columns of every kind ------------------------------------------------------------------------


def cox(**changes: Any) -> CoxSpec:
    return CoxSpec(**{"id": "x", "kind": "cox", "endpoint": "mace", **changes})


def described(**changes: Any) -> DescriptivesSpec:
    return DescriptivesSpec(
        **{
            "id": "x",
            "kind": "descriptives",
            "covariates": ("age", "vendor"),
            "by": "all",
            **changes,
        }
    )


AGE, AGE_VENDOR = {"age": ColumnKind.COVARIATE}, {"age": ColumnKind.COVARIATE, **VENDOR}

COLUMNS: dict[str, tuple[Any, Kinds, Kinds]] = {
    "agreement": (SPECS["agreement"], SCORES, {}),
    "accuracy": (SPECS["accuracy"], SCORES, {}),
    "bland_altman": (SPECS["bland_altman"], SCORES, {}),
    "correlation": (SPECS["correlation"], SCORES, {}),
    "distribution": (SPECS["distribution"], SCORES, {}),
    "zero_inflated": (SPECS["zero_inflated"], SCORES, {}),
    "auc": (SPECS["auc"], REFERENCE | AT_100, {}),
    "auc of the score": (AucSpec(id="x", kind="auc"), SCORES, {}),
    "comparison": (SPECS["comparison"], SCORES | VISUAL, {}),
    "comparison of references": (
        ComparisonSpec(id="x", kind="comparison", compare="references"),
        SCORES | OTHER,
        {},
    ),
    "calibration": (SPECS["calibration"], REFERENCE | AT_100, {}),
    "calibration at every cut-off": (
        CalibrationSpec(id="x", kind="calibration"),
        REFERENCE
        | {f"index_probability_{cut}": ColumnKind.PROBABILITY for cut in (0, 10, 100, 400)},
        {},
    ),
    "fusion": (SPECS["fusion"], REFERENCE | AT_100 | PERSON, {}),
    "descriptives": (SPECS["descriptives"], FOLLOW_UP, PERSON | VENDOR),
    "descriptives by a score": (
        described(by="comparator", scores=(ScoreRole.INDEX, ScoreRole.REFERENCE)),
        SCORES | VISUAL,
        AGE_VENDOR,
    ),
    "descriptives by a covariate": (described(by="vendor"), VENDOR, AGE),
    "descriptives of all": (described(), {}, AGE_VENDOR),
    "cox": (SPECS["cox"], FOLLOW_UP | PERSON, {}),
    "cox with scores": (
        cox(risk_category="index", log_score="second_reference"),
        FOLLOW_UP | {"index_score": ColumnKind.SCORE} | OTHER,
        {},
    ),
    "cox with gaps": (
        cox(covariates=("age", "vendor"), missing="indicator"),
        FOLLOW_UP,
        AGE_VENDOR,
    ),
    "cox with an exclusion": (
        cox(endpoint="kept_mace", covariates=("age",)),
        FOLLOW_UP | AGE | {"early": ColumnKind.NUMBER},
        {},
    ),
    "kaplan_meier": (SPECS["kaplan_meier"], FOLLOW_UP | VENDOR, {}),
    "kaplan_meier by a score": (
        KaplanMeierSpec(id="x", kind="kaplan_meier", endpoint="mace", horizon_days=900),
        FOLLOW_UP | {"index_score": ColumnKind.SCORE},
        {},
    ),
    "reclassification": (
        SPECS["reclassification"],
        FOLLOW_UP | PERSON | {"index_score": ColumnKind.SCORE},
        {},
    ),
    "survival_calibration": (
        SPECS["survival_calibration"],
        FOLLOW_UP | {"risk": ColumnKind.COVARIATE},
        {},
    ),
    "further scores": (
        AgreementSpec(id="x", kind="agreement", index="comparator", reference="second_reference"),
        VISUAL | OTHER,
        {},
    ),
    "a subgroup": (
        AgreementSpec(id="x", kind="agreement", subgroup="women"),
        SCORES | {"sex": ColumnKind.COVARIATE},
        {},
    ),
}


def test_every_kind_has_its_columns_stated() -> None:
    assert {spec.kind for spec, _, _ in COLUMNS.values()} == set(SPECS)


@pytest.mark.parametrize("name", sorted(COLUMNS))
def test_columns_of_an_analysis(name: str) -> None:
    spec, needed, optional = COLUMNS[name]
    assert columns_of(spec, protocol_of(BASE, FULL, spec)) == (needed, optional)


def test_reclassification_reads_what_its_models_read() -> None:
    gaps = {"missing": "indicator"}
    base, full = (model.model_copy(update=gaps) for model in (BASE, FULL))
    protocol = protocol_of(base, full, SPECS["reclassification"])
    index = {"index_score": ColumnKind.SCORE}
    assert columns_of(SPECS["reclassification"], protocol) == (FOLLOW_UP | index, PERSON)


@pytest.mark.parametrize(
    ("cut_off", "column"),
    [
        (1, "index_probability_0"),
        (0.5, "index_probability_0"),
        (100, "index_probability_100"),
        (400.0, "index_probability_400"),
        (2.5, "index_probability_2.5"),
    ],
)
def test_the_column_of_a_probability(cut_off: float, column: str) -> None:
    assert probability_column(cut_off) == column


# --- the clinical half ----------------------------------------------------------------------------


@pytest.mark.parametrize("index", ["", "index_score", "index_category"])
def test_a_clinical_table_is_not_asked_for_the_index_score(tmp_path: Path, index: str) -> None:
    protocol = protocol_of(
        AgreementSpec(id="y", kind="agreement"), cox(covariates=("age",), log_score="index")
    )
    header = "patient_id,reference_score,follow_up_days,event,age"
    rows = ["A,12,100,1,60", "B,,100,1,"]
    if index:
        # A score that was typed in does not replace the one that is computed here.
        header, rows = f"{header},{index}", [f"{row},9999" for row in rows]
    table = read_clinical_table(write(tmp_path, header, *rows), protocol)
    assert table.columns == ("reference_score", "follow_up_days", "event", "age")
    assert table.rows["A"] == {"reference_score": 12, "follow_up_days": 100, "event": 1, "age": 60}
    assert np.isnan(table.rows["B"]["reference_score"])
    assert np.isnan(table.rows["B"]["age"])


def test_a_clinical_table_is_asked_for_everything_else(tmp_path: Path) -> None:
    criterion = ClinicalCriterion(column="known_cad", exclude_if=1.0, statement="Known disease.")
    protocol = protocol_of(
        SPECS["comparison"],
        cox(id="y", covariates=("age",)),
        clinical_criteria=(criterion,),
    )
    columns = ["patient_id", "reference_score", "visual_score", "follow_up_days", "event", "age"]
    columns.append("known_cad")
    table = read_clinical_table(write(tmp_path, ",".join(columns), "A,1,2,3,1,60,1"), protocol)
    assert table.excluded == {"A"}
    for column in columns:
        kept = [name for name in columns if name != column]
        path = write(tmp_path, ",".join(kept), ",".join("1" for _ in kept))
        with pytest.raises(TableError, match=f"no column '{column}'"):
            read_clinical_table(path, protocol)


def test_vessels_of_the_index_test_are_the_sites_own(tmp_path: Path) -> None:
    header = "patient_id,index_score,reference_score,index_lad,reference_lad"
    path = write(tmp_path, header, "A,1,2,1,2")
    assert read_clinical_table(path, AGREEMENT).columns == ("reference_score", "reference_lad")
    scored = read_site_table(path, AGREEMENT)
    assert {"index_lad", "reference_lad"} <= set(scored.exams.columns)
