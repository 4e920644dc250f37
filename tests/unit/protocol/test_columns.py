"""Which columns of the site table each analysis reads."""

from __future__ import annotations

from typing import Any

import pytest
from plans import BASE, FULL, SPECS, plan

from fedcac.protocol.columns import Columns, columns_of, endpoint_of, probability_column
from fedcac.protocol.header_covariates import header_covariates
from fedcac.protocol.schema import Covariate
from fedcac.vocabulary import ScoreRole

BOTH = {"index_score": "score", "reference_score": "score"}
FOLLOWED = {"follow_up_days": "time", "event": "event"}
AGE_SEX = {"age": "covariate", "sex": "covariate"}


def columns(kind: str, **changes: Any) -> Columns:
    spec = SPECS[kind].model_copy(update=changes)
    return columns_of(spec, plan([BASE, FULL, spec]))


@pytest.mark.parametrize(
    ("kind", "changes", "needed"),
    [
        ("agreement", {}, BOTH),
        (
            "accuracy",
            {"index": "comparator"},
            {"visual_score": "score", "reference_score": "score"},
        ),
        ("bland_altman", {"subgroup": "women"}, BOTH | {"sex": "covariate"}),
        (
            "correlation",
            {"reference": "second_reference"},
            {"index_score": "score", "other_reader": "score"},
        ),
        ("distribution", {}, BOTH),
        ("zero_inflated", {}, BOTH),
        ("auc", {}, {"reference_score": "score", "index_probability_100": "probability"}),
        ("auc", {"value": "score"}, BOTH),
        (
            "auc",
            {"cut_offs": ()},
            {
                "reference_score": "score",
                "index_probability_0": "probability",
                "index_probability_10": "probability",
                "index_probability_100": "probability",
                "index_probability_400": "probability",
            },
        ),
        ("comparison", {}, BOTH | {"visual_score": "score"}),
        ("comparison", {"compare": "references"}, BOTH | {"other_reader": "score"}),
        ("calibration", {}, {"reference_score": "score", "index_probability_100": "probability"}),
        (
            "fusion",
            {},
            AGE_SEX | {"reference_score": "score", "index_probability_100": "probability"},
        ),
        (
            "fusion",
            {"cut_off": 1},
            AGE_SEX | {"reference_score": "score", "index_probability_0": "probability"},
        ),
        ("cox", {}, FOLLOWED | AGE_SEX),
        ("cox", {"endpoint": "kept_mace"}, FOLLOWED | AGE_SEX | {"early": "number"}),
        (
            "cox",
            {"risk_category": "reference", "log_score": "comparator"},
            FOLLOWED | AGE_SEX | {"reference_score": "score", "visual_score": "score"},
        ),
        ("kaplan_meier", {}, FOLLOWED | {"vendor": "covariate"}),
        ("kaplan_meier", {"by": "index"}, FOLLOWED | {"index_score": "score"}),
        ("kaplan_meier", {"by": "all"}, FOLLOWED),
        ("reclassification", {}, FOLLOWED | AGE_SEX | {"index_score": "score"}),
        ("survival_calibration", {}, FOLLOWED | {"risk": "covariate"}),
        ("descriptives", {}, FOLLOWED),
        ("descriptives", {"by": "all"}, {}),
        ("descriptives", {"by": "reference"}, {"reference_score": "score"}),
        ("descriptives", {"by": "all", "scores": (ScoreRole.INDEX,)}, {"index_score": "score"}),
        ("descriptives", {"by": "sex"}, {"sex": "covariate"}),
    ],
)
def test_without_these_a_patient_is_left_out(
    kind: str, changes: dict[str, Any], needed: dict[str, str]
) -> None:
    assert columns(kind, **changes).needed == needed


@pytest.mark.parametrize(
    ("kind", "changes", "optional"),
    [
        ("cox", {}, ()),
        ("cox", {"missing": "indicator"}, ("age", "sex")),
        ("descriptives", {}, ("age", "sex", "vendor")),
        # Who is in no group is in no column of the table of characteristics.
        ("descriptives", {"by": "sex"}, ("age", "vendor")),
    ],
)
def test_a_gap_in_these_is_kept(
    kind: str, changes: dict[str, Any], optional: tuple[str, ...]
) -> None:
    assert tuple(columns(kind, **changes).optional) == optional


def test_models_of_a_subgroup_are_compared_in_it() -> None:
    three = [one.model_copy(update={"subgroup": "women"}) for one in (BASE, FULL)]
    three = [one.model_copy(update={"covariates": ("age",)}) for one in three]
    three.append(SPECS["reclassification"].model_copy(update={"subgroup": "women"}))
    assert set(columns_of(three[2], plan(three)).needed) == {
        *FOLLOWED,
        "age",
        "index_score",
        "sex",
    }


def test_models_that_keep_gaps_are_compared_with_their_gaps() -> None:
    models = [one.model_copy(update={"missing": "indicator"}) for one in (BASE, FULL)]
    spec = SPECS["reclassification"]
    found = columns_of(spec, plan([*models, spec]))
    assert set(found.optional) == {"age", "sex"}
    assert set(found.needed) == {*FOLLOWED, "index_score"}


@pytest.mark.parametrize(
    ("kind", "changes", "endpoint"),
    [
        ("cox", {}, "mace"),
        ("kaplan_meier", {"endpoint": "late_mace"}, "late_mace"),
        ("reclassification", {}, "mace"),
        ("descriptives", {"by": "kept_mace"}, "kept_mace"),
        ("descriptives", {"by": "sex"}, None),
        ("agreement", {}, None),
    ],
)
def test_patients_are_followed_for_one_endpoint(
    kind: str, changes: dict[str, Any], endpoint: str | None
) -> None:
    spec = SPECS[kind].model_copy(update=changes)
    found = endpoint_of(spec, plan([BASE, FULL, spec]))
    assert (found and found.name) == endpoint


@pytest.mark.parametrize(
    ("cut_off", "column"),
    [(1.0, "index_probability_0"), (10.0, "index_probability_10"), (2.5, "index_probability_2.5")],
)
def test_a_probability_is_that_of_exceeding_a_cut_off(cut_off: float, column: str) -> None:
    assert probability_column(cut_off) == column


def declared(name: str, kind: str, *levels: str) -> Covariate:
    return Covariate(name=name, type=kind, description="Of the header", levels=levels)


@pytest.mark.parametrize(
    ("covariate", "is_told"),
    [
        (declared("kernel_class", "categorical", "soft", "sharp"), True),
        (declared("kernel_class", "categorical", "Sharp", "SOFT"), True),
        (declared("kernel_class", "categorical", "soft", "sharp", "lung"), False),
        (declared("kernel_class", "binary"), False),
        (declared("tube_voltage_kv", "continuous"), True),
        (declared("tube_voltage_kv", "categorical", "100", "120"), False),
        (declared("ecg_gated", "binary"), True),
        (declared("scanner_manufacturer", "categorical", "ge", "other"), True),
        (declared("scanner_manufacturer", "categorical", "ge", "acme"), False),
        (declared("pitch", "continuous"), False),
    ],
)
def test_a_header_tells_what_is_declared_in_its_words(covariate: Covariate, is_told: bool) -> None:
    base = BASE.model_copy(update={"covariates": (covariate.name,)})
    protocol = plan([base], covariates=(covariate,), subgroups=())
    assert header_covariates(protocol) == ((covariate.name,) if is_told else ())


def test_a_header_is_not_asked_for_what_no_analysis_reads() -> None:
    unread = declared("ecg_gated", "binary")
    protocol = plan([BASE])
    further = protocol.model_copy(update={"covariates": (*protocol.covariates, unread)})
    assert header_covariates(further) == ()
    read = BASE.model_copy(update={"covariates": ("age", "ecg_gated")})
    assert header_covariates(further.model_copy(update={"analyses": (read,)})) == ("ecg_gated",)
