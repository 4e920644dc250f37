"""The protocol: schema, loading from YAML, the shipped catalogue."""

from __future__ import annotations

from fedcac.protocol.analyses import (
    AccuracySpec,
    AgreementSpec,
    AnalysisSpec,
    AucSpec,
    BlandAltmanSpec,
    CalibrationSpec,
    ComparisonSpec,
    CorrelationSpec,
    CoxSpec,
    DescriptivesSpec,
    DistributionSpec,
    FusionSpec,
    KaplanMeierSpec,
    ReclassificationSpec,
    SurvivalCalibrationSpec,
    ZeroInflatedSpec,
)
from fedcac.protocol.categories import CategoryScheme
from fedcac.protocol.schema import (
    Amendment,
    Covariate,
    DisclosureMinimum,
    Endpoint,
    ImageCriteria,
    Pooling,
    Protocol,
    ScoreColumn,
    Subgroup,
)

__all__ = [
    "AccuracySpec",
    "AgreementSpec",
    "Amendment",
    "AnalysisSpec",
    "AucSpec",
    "BlandAltmanSpec",
    "CalibrationSpec",
    "CategoryScheme",
    "ComparisonSpec",
    "CorrelationSpec",
    "Covariate",
    "CoxSpec",
    "DescriptivesSpec",
    "DisclosureMinimum",
    "DistributionSpec",
    "Endpoint",
    "FusionSpec",
    "ImageCriteria",
    "KaplanMeierSpec",
    "Pooling",
    "Protocol",
    "ReclassificationSpec",
    "ScoreColumn",
    "Subgroup",
    "SurvivalCalibrationSpec",
    "ZeroInflatedSpec",
]
