"""Which changes of a protocol make another question, and which scores a question is about."""

from __future__ import annotations

from typing import Any

import pytest
from plans import BASE, FULL, SPECS, plan

from fedcac.canonical import digest_of
from fedcac.disclosure import FLOW, Question, analysis_digest, question_of
from fedcac.disclosure.differences import score_pair
from fedcac.exchange.messages import Query
from fedcac.protocol import AgreementSpec, ComparisonSpec, Protocol

KAPLAN_MEIER = SPECS["kaplan_meier"]
WOMEN = SPECS["agreement"].model_copy(update={"subgroup": "women"})
OLD = SPECS["agreement"].model_copy(update={"subgroup": "old"})


def asked(protocol: Protocol, analysis: str = "x") -> Question:
    return question_of(
        protocol,
        analysis,
        Query(step="counts"),
        round_id="round-1",
        exchange=1,
        cohort_digest=digest_of("cohort"),
    )


def changed(protocol: Protocol, field: str, name: str, **changes: Any) -> tuple[Any, ...]:
    """Return a protocol's list with one of its members changed."""
    members = getattr(protocol, field)
    assert name in [member.name for member in members]
    return tuple(
        type(member)(**{**dict(member), **changes}) if member.name == name else member
        for member in members
    )


@pytest.mark.parametrize(
    ("spec", "field", "name", "changes", "is_other"),
    [
        # The words of an endpoint are no content; the day from which it counts is.
        (KAPLAN_MEIER, "endpoints", "mace", {"definition": "In other words"}, False),
        (KAPLAN_MEIER, "endpoints", "mace", {"landmark_days": 30}, True),
        # Another endpoint's is not.
        (KAPLAN_MEIER, "endpoints", "late_mace", {"landmark_days": 30}, False),
        (SPECS["descriptives"], "endpoints", "mace", {"landmark_days": 30}, True),
        # A covariate that only the subgroup is by.
        (OLD, "covariates", "age", {"maximum": 100}, True),
        (OLD, "covariates", "age", {"description": "In other words"}, False),
        (WOMEN, "covariates", "age", {"maximum": 100}, False),
        # The prediction whose calibration is asked for.
        (SPECS["survival_calibration"], "covariates", "risk", {"minimum": 0.1}, True),
        (SPECS["survival_calibration"], "covariates", "age", {"maximum": 100}, False),
        (OLD, "subgroups", "old", {"minimum": 70}, True),
        (OLD, "subgroups", "old", {"description": "In other words"}, False),
        (WOMEN, "subgroups", "old", {"minimum": 70}, False),
    ],
)
def test_what_an_analysis_depends_on(
    spec: Any, field: str, name: str, changes: dict[str, Any], is_other: bool
) -> None:
    first = plan([spec])
    second = plan([spec], **{field: changed(first, field, name, **changes)})
    assert (analysis_digest(first, "x") != analysis_digest(second, "x")) is is_other


@pytest.mark.parametrize("role", ["comparator", "second_reference"])
def test_the_columns_of_further_scores_are_content(role: str) -> None:
    first = plan([SPECS["comparison"]])
    score = getattr(first, role)
    for changes, is_other in (({"description": "In other words"}, False), ({"column": "c"}, True)):
        second = plan([SPECS["comparison"]], **{role: type(score)(**{**dict(score), **changes})})
        assert (analysis_digest(first, "x") != analysis_digest(second, "x")) is is_other


def test_a_comparison_of_two_models_depends_on_both() -> None:
    spec = SPECS["reclassification"]
    first = analysis_digest(plan([BASE, FULL, spec]), "x")
    by_age = {"covariates": ("age",)}
    for base, full in (
        (BASE.model_copy(update=by_age), FULL),
        (BASE, FULL.model_copy(update=by_age)),
    ):
        assert analysis_digest(plan([base, full, spec]), "x") != first
    # Their names are no content, but the comparison gives them.
    assert analysis_digest(plan([FULL, BASE, spec]), "x") == first


def test_categories_are_those_of_days_or_of_scores() -> None:
    scheme = plan([WOMEN]).categories
    wider = scheme.model_copy(update={"cut_offs": (1.0, 10.0, 110.0, 400.0)})
    for spec in (SPECS["agreement"], SPECS["correlation"], SPECS["descriptives"]):
        first, second = asked(plan([spec])), asked(plan([spec], categories=wider))
        assert first.categories_digest != second.categories_digest
    assert len({asked(plan([SPECS[kind]])).categories_digest for kind in ("auc", "cox")}) == 1
    assert asked(plan([WOMEN]), FLOW).categories_digest == asked(plan([WOMEN])).categories_digest
    # Curves are cut by days.
    curves = asked(plan([KAPLAN_MEIER]))
    assert (
        curves.categories_digest == asked(plan([KAPLAN_MEIER], categories=wider)).categories_digest
    )
    for changes in ({"bin_days": 30}, {"horizon_days": 720}):
        other = asked(plan([KAPLAN_MEIER.model_copy(update=changes)]))
        assert other.categories_digest != curves.categories_digest


@pytest.mark.parametrize(
    ("kind", "is_other"),
    [
        ("bland_altman", False),
        ("correlation", False),
        ("distribution", False),
        ("zero_inflated", False),
        ("agreement", True),
        ("calibration", True),
        ("descriptives", True),
    ],
)
def test_what_is_not_by_category_is_the_same_analysis_under_other_cut_offs(
    kind: str, is_other: bool
) -> None:
    scheme = plan([SPECS[kind]]).categories
    wider = scheme.model_copy(update={"cut_offs": (1.0, 10.0, 100.0, 500.0)})
    digests = {
        analysis_digest(protocol, "x")
        for protocol in (plan([SPECS[kind]]), plan([SPECS[kind]], categories=wider))
    }
    assert len(digests) == (2 if is_other else 1)


@pytest.mark.parametrize(
    ("spec", "pair"),
    [
        (AgreementSpec(id="x", kind="agreement"), ("index_score", "reference_score")),
        (
            AgreementSpec(id="x", kind="agreement", index="comparator"),
            ("visual_score", "reference_score"),
        ),
        (
            AgreementSpec(id="x", kind="agreement", reference="second_reference"),
            ("index_score", "other_reader"),
        ),
        # By whose classes an answer tells comes second: between two references it is the index.
        (
            ComparisonSpec(id="x", kind="comparison", compare="index_tests", cut_offs=(100,)),
            ("index_score", "reference_score"),
        ),
        (
            ComparisonSpec(id="x", kind="comparison", compare="references", cut_offs=(100,)),
            ("reference_score", "index_score"),
        ),
    ],
)
def test_the_scores_that_a_question_is_about(spec: Any, pair: tuple[str, str]) -> None:
    question = asked(plan([spec]))
    assert score_pair(question.columns, question.scores_digest) == pair
    # In one order, so that a ledger's lines are the same in every run.
    assert list(question.columns) == sorted(question.columns)


def test_the_flow_reads_nothing() -> None:
    question = asked(plan([WOMEN]), FLOW)
    assert question.columns == ()
    assert question.scores_digest == digest_of([])
