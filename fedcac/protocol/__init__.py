"""The protocol: schema, loading from YAML, the shipped catalogue."""

from __future__ import annotations

from fedcac.protocol.analyses import (
    AccuracySpec,
    AgreementSpec,
    AnalysisSpec,
    BlandAltmanSpec,
    CoxSpec,
)
from fedcac.protocol.categories import CategoryScheme
from fedcac.protocol.schema import Covariate, DisclosureMinimum, Endpoint, ImageCriteria, Protocol

__all__ = [
    "AccuracySpec",
    "AgreementSpec",
    "AnalysisSpec",
    "BlandAltmanSpec",
    "CategoryScheme",
    "Covariate",
    "CoxSpec",
    "DisclosureMinimum",
    "Endpoint",
    "ImageCriteria",
    "Protocol",
]
