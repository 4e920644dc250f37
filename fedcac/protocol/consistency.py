"""What a protocol's parts say about one another, checked once the parts are sound themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

from fedcac.protocol.analyses import (
    AgreementSpec,
    AnalysisSpec,
    AucSpec,
    CalibrationSpec,
    ComparisonSpec,
    CoxSpec,
    DescriptivesSpec,
    FusionSpec,
    KaplanMeierSpec,
    ReclassificationSpec,
    SurvivalCalibrationSpec,
)
from fedcac.vocabulary import Modality, ReclassificationType, ScoreRole, Vessel

if TYPE_CHECKING:
    from fedcac.protocol.schema import Protocol, Subgroup

__all__ = [
    "check_acquisition",
    "check_analyses",
    "check_columns",
    "check_pooling",
    "inconsistent",
    "repeated",
]

_SCORE_COLUMNS = frozenset(
    f"{side}_{what}"
    for side in ("index", "reference")
    for what in ("score", *(vessel.value for vessel in Vessel))
)
_RESERVED = frozenset([*(role.value for role in ScoreRole), "all", "none"])
"""Words that `by` and `risk_category` give a meaning of their own."""

_ACQUISITIONS = {
    Modality.GATED_CT: "gated",
    Modality.NON_GATED_CT: "non_gated",
    Modality.CTAC: "attenuation_correction",
}

At = tuple[str | int, ...]


def inconsistent(message: str, *at: str | int) -> PydanticCustomError:
    """Return the error of a plan that contradicts itself; `at` is the key to look at."""
    return PydanticCustomError("inconsistent", "{message}", {"message": message, "at": at})


def repeated(names: Iterable[str]) -> str:
    """Return the names that occur more than once, for a message; '' if none does."""
    return ", ".join(sorted(name for name, count in Counter(names).items() if count > 1))


def check_acquisition(protocol: Protocol) -> None:
    """Check that the series asked for can be of the modality: no exam would be left otherwise."""
    asked = protocol.image_criteria.acquisition
    if asked not in ("any", _ACQUISITIONS.get(protocol.modality)):
        raise inconsistent(
            f"a series acquired as '{asked}' is none of modality '{protocol.modality.value}'",
            "image_criteria",
            "acquisition",
        )


def check_columns(protocol: Protocol) -> None:
    """Check that names are unique and that no column of the site table has two meanings."""
    for what, section, names in (
        ("analysis id", "analyses", [analysis.id for analysis in protocol.analyses]),
        ("covariate", "covariates", [covariate.name for covariate in protocol.covariates]),
        ("endpoint", "endpoints", [endpoint.name for endpoint in protocol.endpoints]),
        ("subgroup", "subgroups", [subgroup.name for subgroup in protocol.subgroups]),
    ):
        if twice := repeated(names):
            raise inconsistent(f"{what} used twice: {twice}", section)
        if section == "analyses" and "flow" in names:
            raise inconsistent("the flow of patients is asked for as 'flow'", section)
        if section in ("covariates", "endpoints") and (clash := sorted(_RESERVED & set(names))):
            raise inconsistent(f"'{clash[0]}' is a word of the protocol language", section)
    # Endpoints may share times or events.
    roles = dict.fromkeys(_SCORE_COLUMNS, "a score") | {
        "patient_id": "the patient",
        "reference_annotation": "an annotation",
        "reference_date": "a date",
    }
    for column, role, at in _claims(protocol):
        taken = roles.setdefault(column, role)
        if taken != role:
            raise inconsistent(f"column '{column}' is {taken} already, not {role}", *at)
    for index, subgroup in enumerate(protocol.subgroups):
        _check_subgroup(protocol, subgroup, ("subgroups", index))


def _claims(protocol: Protocol) -> Iterator[tuple[str, str, At]]:
    for index, covariate in enumerate(protocol.covariates):
        yield covariate.name, "a covariate", ("covariates", index, "name")
    for index, endpoint in enumerate(protocol.endpoints):
        yield endpoint.time_column, "a time", ("endpoints", index, "time_column")
        yield endpoint.event_column, "an event", ("endpoints", index, "event_column")
    for name, score in (
        ("comparator", protocol.comparator),
        ("second_reference", protocol.second_reference),
    ):
        if score is not None:
            yield score.column, f"the {name.replace('_', ' ')}", (name, "column")


def _check_subgroup(protocol: Protocol, subgroup: Subgroup, at: At) -> None:
    declared = {covariate.name: covariate for covariate in protocol.covariates}
    covariate = declared.get(subgroup.covariate)
    if covariate is None:
        raise inconsistent(
            f"subgroup '{subgroup.name}' names the undeclared covariate '{subgroup.covariate}'",
            *at,
        )
    levels = ("0", "1") if covariate.type == "binary" else covariate.levels
    is_range = subgroup.minimum is not None or subgroup.below is not None
    if (covariate.type == "continuous") != is_range or is_range == bool(subgroup.levels):
        raise inconsistent(
            "a subgroup of a continuous covariate has minimum or below, of another one levels", *at
        )
    if unknown := sorted(set(subgroup.levels) - set(levels)):
        raise inconsistent(f"'{covariate.name}' has no level {', '.join(unknown)}", *at, "levels")


def check_analyses(protocol: Protocol) -> None:
    """Check every analysis against the covariates, endpoints and scores the protocol declares."""
    subgroups = {subgroup.name for subgroup in protocol.subgroups}
    for index, analysis in enumerate(protocol.analyses):
        at = ("analyses", index)
        if analysis.subgroup is not None and analysis.subgroup not in subgroups:
            raise inconsistent(
                f"analysis '{analysis.id}' names the undeclared subgroup '{analysis.subgroup}'",
                *at,
                "subgroup",
            )
        _check_covariates(protocol, analysis, at)
        _check_endpoint(protocol, analysis, at)
        _check_roles(protocol, analysis, at)
        _check_cut_offs(protocol, analysis, at)
        _check_own(protocol, analysis, at)


def _check_covariates(protocol: Protocol, analysis: AnalysisSpec, at: At) -> None:
    declared = {covariate.name for covariate in protocol.covariates}
    named: tuple[str, ...] = getattr(analysis, "covariates", ())
    if isinstance(analysis, SurvivalCalibrationSpec):
        named = (analysis.prediction,)
    if unknown := sorted(set(named) - declared):
        raise inconsistent(
            f"analysis '{analysis.id}' names covariates that the protocol does not "
            f"declare: {', '.join(unknown)}",
            *at,
            "prediction" if isinstance(analysis, SurvivalCalibrationSpec) else "covariates",
        )
    if twice := repeated(named):
        raise inconsistent(f"covariate used twice: {twice}", *at, "covariates")


def _check_endpoint(protocol: Protocol, analysis: AnalysisSpec, at: At) -> None:
    endpoint = getattr(analysis, "endpoint", None)
    if endpoint is not None and endpoint not in {e.name for e in protocol.endpoints}:
        raise inconsistent(
            f"analysis '{analysis.id}' names endpoint '{endpoint}', "
            "which the protocol does not declare",
            *at,
            "endpoint",
        )


def _check_roles(protocol: Protocol, analysis: AnalysisSpec, at: At) -> None:
    wanted = {
        getattr(analysis, name, "none")
        for name in ("index", "reference", "risk_category", "log_score", "by")
    }
    wanted |= {role.value for role in getattr(analysis, "scores", ())}
    if isinstance(analysis, ComparisonSpec):
        wanted.add("comparator" if analysis.compare == "index_tests" else "second_reference")
    for role, score in (
        ("comparator", protocol.comparator),
        ("second_reference", protocol.second_reference),
    ):
        if role in wanted and score is None:
            raise inconsistent(
                f"analysis '{analysis.id}' uses the {role.replace('_', ' ')}, "
                "which the protocol does not declare",
                *at,
            )


def _check_cut_offs(protocol: Protocol, analysis: AnalysisSpec, at: At) -> None:
    if isinstance(analysis, AucSpec | ComparisonSpec | CalibrationSpec):
        wanted = set(analysis.cut_offs)
    elif isinstance(analysis, FusionSpec):
        wanted = {analysis.cut_off}
    else:
        return
    if unknown := sorted(wanted - set(protocol.categories.cut_offs)):
        raise inconsistent(
            f"analysis '{analysis.id}' uses cut-offs that the categories do not have: "
            f"{', '.join(f'{cut:g}' for cut in unknown)}",
            *at,
        )


def _check_own(protocol: Protocol, analysis: AnalysisSpec, at: At) -> None:
    if isinstance(analysis, AgreementSpec) and (twice := repeated(analysis.weights)):
        raise inconsistent(f"used twice: {twice}", *at, "weights")
    if isinstance(analysis, CoxSpec):
        is_empty = analysis.risk_category == analysis.log_score == "none"
        if not analysis.covariates and is_empty:
            raise inconsistent(f"analysis '{analysis.id}' has nothing to estimate", *at)
        if analysis.univariable and (
            analysis.robust or analysis.proportionality or analysis.concordance or analysis.by_site
        ):
            raise inconsistent(
                "robust, proportionality, concordance and by_site belong to one model, not to a "
                "univariable series",
                *at,
            )
    if isinstance(analysis, KaplanMeierSpec | DescriptivesSpec):
        _check_groups(protocol, analysis, at)
    if isinstance(analysis, ReclassificationSpec):
        _check_reclassification(protocol, analysis, at)


def _check_groups(protocol: Protocol, analysis: KaplanMeierSpec | DescriptivesSpec, at: At) -> None:
    allowed = {c.name for c in protocol.covariates if c.type != "continuous"}
    allowed |= {role.value for role in ScoreRole} | {"all"}
    if isinstance(analysis, DescriptivesSpec):
        allowed |= {endpoint.name for endpoint in protocol.endpoints}
    if analysis.by not in allowed:
        raise inconsistent(f"patients cannot be grouped by '{analysis.by}'", *at, "by")


def _check_reclassification(protocol: Protocol, analysis: ReclassificationSpec, at: At) -> None:
    models = {spec.id: spec for spec in protocol.analyses if isinstance(spec, CoxSpec)}
    pair = [models.get(analysis.base), models.get(analysis.full)]
    for name, model in zip(("base", "full"), pair, strict=True):
        if model is None or model.univariable:
            raise inconsistent(f"'{name}' has to be the id of a Cox model", *at, name)
    base, full = pair
    if base is None or full is None or base.id == full.id:
        raise inconsistent("base and full are the same model", *at, "full")
    shared = ("endpoint", "ties", "missing", "subgroup")
    if any(getattr(base, name) != getattr(full, name) for name in shared):
        raise inconsistent(f"base and full differ in {', '.join(shared)}", *at, "full")
    if analysis.subgroup != full.subgroup:
        raise inconsistent("the subgroup is not that of the two models", *at, "subgroup")
    needs_cuts = analysis.type is ReclassificationType.CATEGORICAL
    if needs_cuts != bool(analysis.cuts) or list(analysis.cuts) != sorted(set(analysis.cuts)):
        raise inconsistent("cuts are increasing and belong to the categorical type", *at, "cuts")


def check_pooling(protocol: Protocol) -> None:
    """Check which analyses are answered in sums only, and that those that belong together are."""
    pooling, known = protocol.pooling, {spec.id for spec in protocol.analyses}
    if pooling.mode == "open" and pooling.per_site:
        raise inconsistent("per_site belongs to the mode 'masked'", "pooling", "per_site")
    if unknown := sorted(set(pooling.per_site) - known):
        raise inconsistent(
            f"per_site names no analysis: {', '.join(unknown)}", "pooling", "per_site"
        )
    for index, spec in enumerate(protocol.analyses):
        at = ("analyses", index)
        if isinstance(spec, CoxSpec) and spec.by_site and protocol.is_masked(spec.id):
            raise inconsistent(
                f"'{spec.id}' asks for every site's own model: name it under pooling.per_site",
                *at,
                "by_site",
            )
        if isinstance(spec, ReclassificationSpec):
            together = {protocol.is_masked(name) for name in (spec.id, spec.base, spec.full)}
            if len(together) > 1:
                raise inconsistent(
                    f"'{spec.id}' and its models are answered alike: name all or none of them "
                    "under pooling.per_site",
                    *at,
                )
