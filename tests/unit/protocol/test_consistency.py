"""A plan that contradicts itself is refused at the key to look at, one contradiction at a time."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from plans import BASE, FULL, SPECS, plan

from fedcac.errors import ProtocolError
from fedcac.protocol import Protocol
from fedcac.protocol.loading import parse_protocol

SOUND = plan(
    [
        BASE,
        FULL,
        SPECS["reclassification"].model_copy(update={"id": "added"}),
        SPECS["kaplan_meier"].model_copy(update={"id": "curves"}),
        SPECS["fusion"].model_copy(update={"id": "fused"}),
        SPECS["survival_calibration"].model_copy(update={"id": "calibrated"}),
    ]
).model_dump(mode="json")
BASE_AT, FULL_AT, ADDED_AT, CURVES_AT, FUSED_AT, CALIBRATED_AT = range(6)


def document() -> dict[str, Any]:
    """Return a fresh copy of the sound plan's document."""
    fresh: dict[str, Any] = yaml.safe_load(yaml.safe_dump(SOUND))
    return fresh


def refusal(broken: dict[str, Any]) -> ProtocolError:
    """Return the error that a plan's file ends in."""
    with pytest.raises(ProtocolError) as caught:
        parse_protocol(yaml.safe_dump(broken, sort_keys=False))
    return caught.value


def test_the_plan_of_these_tests_is_sound() -> None:
    parsed = parse_protocol(yaml.safe_dump(SOUND))
    assert parsed == Protocol.model_validate_json(parsed.model_dump_json())
    assert [spec.id for spec in parsed.analyses] == [
        "base",
        "full",
        "added",
        "curves",
        "fused",
        "calibrated",
    ]


def analysis(at: int, **changes: Any) -> dict[str, Any]:
    broken = document()
    broken["analyses"][at] |= changes
    return broken


def part(section: str, at: int, **changes: Any) -> dict[str, Any]:
    broken = document()
    broken[section][at] |= changes
    return broken


def whole(**changes: Any) -> dict[str, Any]:
    return document() | changes


MASKED = {"mode": "masked", "least_sites": 3}


@pytest.mark.parametrize(
    ("broken", "path", "words"),
    [
        (analysis(FULL_AT, id="base"), "analyses", "analysis id used twice: base"),
        (part("covariates", 1, name="age"), "covariates", "covariate used twice: age"),
        (part("endpoints", 1, name="mace"), "endpoints", "endpoint used twice: mace"),
        (part("subgroups", 1, name="women"), "subgroups", "subgroup used twice: women"),
        (part("covariates", 1, name="index"), "covariates", "'index' is a word of the protocol"),
        (part("endpoints", 1, name="all"), "endpoints", "'all' is a word of the protocol"),
        (
            whole(comparator={"column": "age", "description": "Visual estimate"}),
            "comparator.column",
            "column 'age' is a covariate already, not the comparator",
        ),
        (
            whole(second_reference={"column": "visual_score", "description": "Second reader"}),
            "second_reference.column",
            "'visual_score' is the comparator already, not the second reference",
        ),
        (
            part("endpoints", 0, time_column="reference_date"),
            "endpoints.0.time_column",
            "'reference_date' is a date already, not a time",
        ),
        (
            part("subgroups", 0, covariate="weight"),
            "subgroups.0",
            "subgroup 'women' names the undeclared covariate 'weight'",
        ),
        (part("subgroups", 0, levels=["2"]), "subgroups.0.levels", "'sex' has no level 2"),
        (
            part("subgroups", 0, covariate="vendor", levels=["a", "z"]),
            "subgroups.0.levels",
            "'vendor' has no level z",
        ),
        (part("subgroups", 0, levels=[]), "subgroups.0", "of another one levels"),
        (part("subgroups", 0, minimum=1.0), "subgroups.0", "of another one levels"),
        (part("subgroups", 1, minimum=None), "subgroups.1", "has minimum or below"),
        (part("subgroups", 1, below=65), "subgroups.1", "minimum must be below 'below'"),
        (part("subgroups", 1, levels=["1"]), "subgroups.1", "has minimum or below"),
        (
            analysis(BASE_AT, subgroup="men"),
            "analyses.0.subgroup",
            "analysis 'base' names the undeclared subgroup 'men'",
        ),
        (
            analysis(CALIBRATED_AT, prediction="score2"),
            "analyses.5.prediction",
            "names covariates that the protocol does not declare: score2",
        ),
        (
            analysis(CURVES_AT, endpoint="death"),
            "analyses.3.endpoint",
            "analysis 'curves' names endpoint 'death'",
        ),
        (analysis(CURVES_AT, by="age"), "analyses.3.by", "cannot be grouped by 'age'"),
        # Those with the event are known only after time has passed: no groups for a curve.
        (analysis(CURVES_AT, by="mace"), "analyses.3.by", "cannot be grouped by 'mace'"),
        (
            analysis(FUSED_AT, cut_off=50.0),
            "analyses.4",
            "uses cut-offs that the categories do not have: 50",
        ),
        (
            analysis(BASE_AT, covariates=[], kind="cox"),
            "analyses.0",
            "analysis 'base' has nothing to estimate",
        ),
        (
            analysis(BASE_AT, univariable=True, robust=True),
            "analyses.0",
            "belong to one model, not to a univariable series",
        ),
        (
            analysis(ADDED_AT, base="curves"),
            "analyses.2.base",
            "'base' has to be the id of a Cox model",
        ),
        (
            analysis(FULL_AT, univariable=True),
            "analyses.2.full",
            "'full' has to be the id of a Cox model",
        ),
        (analysis(ADDED_AT, full="base"), "analyses.2.full", "base and full are the same model"),
        (
            analysis(FULL_AT, endpoint="late_mace"),
            "analyses.2.full",
            "base and full differ in endpoint, ties, missing, subgroup",
        ),
        (
            analysis(ADDED_AT, subgroup="women"),
            "analyses.2.subgroup",
            "the subgroup is not that of the two models",
        ),
        (analysis(ADDED_AT, cuts=[0.1]), "analyses.2.cuts", "belong to the categorical type"),
        (analysis(ADDED_AT, type="categorical"), "analyses.2.cuts", "belong to the categorical"),
        (
            analysis(ADDED_AT, type="categorical", cuts=[0.2, 0.1]),
            "analyses.2.cuts",
            "cuts are increasing",
        ),
        (
            whole(pooling={"per_site": ["base"]}),
            "pooling.per_site",
            "per_site belongs to the mode 'masked'",
        ),
        (
            whole(pooling=MASKED | {"per_site": ["bases"]}),
            "pooling.per_site",
            "per_site names no analysis: bases",
        ),
        (
            whole(pooling=MASKED | {"per_site": ["base"]}),
            "analyses.2",
            "'added' and its models are answered alike",
        ),
        (
            analysis(BASE_AT, by_site=True) | {"pooling": MASKED},
            "analyses.0.by_site",
            "'base' asks for every site's own model: name it under pooling.per_site",
        ),
        (
            whole(pairing=None),
            "reference",
            "read on different exams: declare pairing.window_days",
        ),
        (
            part("covariates", 0, minimum=120, maximum=18),
            "covariates.0",
            "minimum must be below maximum",
        ),
        (part("covariates", 0, levels=["a", "b"]), "covariates.0", "levels (two or more) belong"),
    ],
)
def test_one_contradiction_is_named_at_its_key(
    broken: dict[str, Any], path: str, words: str
) -> None:
    error = refusal(broken)
    assert error.code == "protocol.inconsistent"
    assert f": {path}: " in str(error)
    assert words in str(error)
    assert "fedcac protocol schema" in error.cure


@pytest.mark.parametrize("missing", ["comparator", "second_reference"])
@pytest.mark.parametrize(
    ("at", "changes"),
    [
        (CURVES_AT, {"by": "{role}"}),
        (BASE_AT, {"log_score": "{role}"}),
        (FULL_AT, {"risk_category": "{role}"}),
    ],
)
def test_a_score_that_is_not_declared_cannot_be_used(
    missing: str, at: int, changes: dict[str, str]
) -> None:
    used = {name: role.format(role=missing) for name, role in changes.items()}
    broken = analysis(at, **used)
    assert parse_protocol(yaml.safe_dump(broken)).analyses[at].id
    error = refusal({**broken, missing: None})
    assert error.code == "protocol.inconsistent"
    assert f": analyses.{at}: " in str(error)
    assert f"uses the {missing.replace('_', ' ')}, which" in str(error)


@pytest.mark.parametrize(
    ("compare", "missing"),
    [("index_tests", "comparator"), ("references", "second_reference")],
)
def test_a_comparison_needs_the_score_it_compares_with(compare: str, missing: str) -> None:
    comparison = SPECS["comparison"].model_copy(update={"compare": compare})
    sound = plan([comparison]).model_dump(mode="json")
    assert parse_protocol(yaml.safe_dump(sound)).analyses == (comparison,)
    error = refusal({**sound, missing: None})
    assert error.code == "protocol.inconsistent"
    assert f"analysis 'x' uses the {missing.replace('_', ' ')}" in str(error)


def test_models_named_together_may_be_answered_per_site() -> None:
    pooling = MASKED | {"per_site": ["base", "full", "added"]}
    parsed = parse_protocol(yaml.safe_dump(whole(pooling=pooling)))
    assert [parsed.is_masked(spec.id) for spec in parsed.analyses] == [
        False,
        False,
        False,
        True,
        True,
        True,
    ]
