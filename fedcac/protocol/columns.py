"""Which columns of the site table an analysis reads, and what each of them holds."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from fedcac.protocol.analyses import (
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
from fedcac.protocol.schema import Endpoint, Protocol
from fedcac.vocabulary import ScoreRole

__all__ = [
    "PROBABILITY_PREFIX",
    "ColumnKind",
    "Columns",
    "columns_of",
    "endpoint_of",
    "probability_column",
    "threshold_of",
]

PROBABILITY_PREFIX = "index_probability_"
"""What the columns of a classifier's probabilities begin with."""


class ColumnKind(StrEnum):
    """What a column of the site table holds."""

    SCORE = "score"
    PROBABILITY = "probability"
    TIME = "time"
    EVENT = "event"
    NUMBER = "number"
    COVARIATE = "covariate"


class Columns(NamedTuple):
    """Columns of one analysis by name: those without which a patient is left out, and the rest."""

    needed: dict[str, ColumnKind]
    optional: dict[str, ColumnKind]


def probability_column(cut_off: float) -> str:
    """Return the column of the index test's probability for a cut-off.

    The lowest cut-off separates zero from any calcium, so its column is `index_probability_0`.
    """
    return f"{PROBABILITY_PREFIX}{threshold_of(cut_off):g}"


def threshold_of(cut_off: float) -> float:
    """Return the threshold of a classifier that decides at a cut-off: 0 for the lowest, up to 1."""
    return 0 if cut_off <= 1 else cut_off


def endpoint_of(spec: AnalysisSpec, protocol: Protocol) -> Endpoint | None:
    """Return the endpoint an analysis follows patients for, or None."""
    if isinstance(spec, ReclassificationSpec):
        return endpoint_of(protocol.analysis(spec.full), protocol)
    name = getattr(spec, "endpoint", None)
    if isinstance(spec, DescriptivesSpec):
        name = spec.by if spec.by in {e.name for e in protocol.endpoints} else None
    return None if name is None else protocol.endpoint(name)


def columns_of(spec: AnalysisSpec, protocol: Protocol) -> Columns:
    """Return the columns of an analysis.

    Raises
    ------
    KeyError
        If the protocol does not declare what the analysis names; a validated protocol does.
    """
    needed: dict[str, ColumnKind] = {}
    optional: dict[str, ColumnKind] = {}
    needed.update(_cohort_columns(spec, protocol))
    if isinstance(spec, ReclassificationSpec):
        for model in (spec.base, spec.full):
            own = columns_of(protocol.analysis(model), protocol)
            needed.update(own.needed)
            optional.update(own.optional)
        return Columns(needed, optional)
    for role in _roles(spec):
        needed[protocol.score_column(role)] = ColumnKind.SCORE
    for cut_off in _probabilities(spec, protocol):
        needed[probability_column(cut_off)] = ColumnKind.PROBABILITY
    covariates: tuple[str, ...] = getattr(spec, "covariates", ())
    is_gap_kept = isinstance(spec, DescriptivesSpec) or (
        isinstance(spec, CoxSpec) and spec.missing == "indicator"
    )
    (optional if is_gap_kept else needed).update(dict.fromkeys(covariates, ColumnKind.COVARIATE))
    if isinstance(spec, SurvivalCalibrationSpec):
        needed[spec.prediction] = ColumnKind.COVARIATE
    if isinstance(spec, KaplanMeierSpec | DescriptivesSpec):
        if spec.by in {covariate.name for covariate in protocol.covariates}:
            needed[spec.by] = ColumnKind.COVARIATE
            optional.pop(spec.by, None)
    return Columns(needed, optional)


def _cohort_columns(spec: AnalysisSpec, protocol: Protocol) -> dict[str, ColumnKind]:
    """Return the columns that say who belongs to the analysis and what became of them."""
    columns: dict[str, ColumnKind] = {}
    endpoint = endpoint_of(spec, protocol)
    if endpoint is not None:
        columns[endpoint.time_column] = ColumnKind.TIME
        columns[endpoint.event_column] = ColumnKind.EVENT
        if endpoint.exclusion is not None:
            columns[endpoint.exclusion.column] = ColumnKind.NUMBER
    if spec.subgroup is not None:
        columns[protocol.subgroup(spec.subgroup).covariate] = ColumnKind.COVARIATE
    return columns


def _roles(spec: AnalysisSpec) -> tuple[str, ...]:
    roles = {role.value for role in ScoreRole}
    if isinstance(spec, ComparisonSpec):
        other = "comparator" if spec.compare == "index_tests" else "second_reference"
        return ("index", "reference", other)
    if isinstance(spec, CalibrationSpec | FusionSpec):
        return ("reference",)
    if isinstance(spec, AucSpec) and spec.value == "probability":
        return (spec.reference,)
    names = ("index", "reference", "risk_category", "log_score", "by")
    found = [getattr(spec, name, "none") for name in names]
    found += [role.value for role in getattr(spec, "scores", ())]
    return tuple(dict.fromkeys(name for name in found if name in roles))


def _probabilities(spec: AnalysisSpec, protocol: Protocol) -> tuple[float, ...]:
    if isinstance(spec, FusionSpec):
        return (spec.cut_off,)
    if isinstance(spec, CalibrationSpec) or (
        isinstance(spec, AucSpec) and spec.value == "probability"
    ):
        return protocol.chosen_cut_offs(spec.cut_offs)
    return ()
