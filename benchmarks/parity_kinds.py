"""The kinds of analysis of `estimator_parity`: protocol, analysis, and the other software."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks import pooled_scores, pooled_survival
from benchmarks.pooled_scores import Numbers
from fedcac.protocol import (
    AccuracySpec,
    AgreementSpec,
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
from fedcac.vocabulary import Resampling

__all__ = ["HONG", "MILLER", "Kind", "Part", "compared_kinds"]

MILLER, HONG = "miller2023-ctac", "hong2025-cxr"


@dataclass(frozen=True)
class Part:
    """Numbers of one analysis: exact, or only up to the public grid that the sites count on."""

    software: str
    numbers: Callable[[pd.DataFrame], Numbers]
    is_exact: bool = True


@dataclass(frozen=True)
class Kind:
    """One kind of analysis, named x in its protocol, and what it is held against."""

    protocol: str
    analyses: Sequence[Any]
    parts: Sequence[Part]
    columns: Sequence[str] = ()


def _cox(name: str, **changes: Any) -> CoxSpec:
    covariates = ("age", "sex", "diabetes")
    return CoxSpec(id=name, kind="cox", endpoint="mace", covariates=covariates, **changes)


def compared_kinds() -> dict[str, Kind]:
    """Return every kind of analysis by its name."""
    scores, survival = pooled_scores, pooled_survival
    return {
        "agreement": Kind(
            MILLER,
            [AgreementSpec(id="x", kind="agreement")],
            [Part("statsmodels", scores.agreement)],
        ),
        "accuracy": Kind(
            MILLER,
            [AccuracySpec(id="x", kind="accuracy")],
            [Part("scikit-learn", scores.accuracy)],
        ),
        "bland_altman": Kind(
            MILLER,
            [BlandAltmanSpec(id="x", kind="bland_altman")],
            [Part("statsmodels", scores.bland_altman)],
        ),
        "correlation": Kind(
            MILLER,
            [CorrelationSpec(id="x", kind="correlation")],
            [Part("scipy, definitions", scores.correlation)],
        ),
        "distribution": Kind(
            MILLER,
            [DistributionSpec(id="x", kind="distribution")],
            [
                Part("statsmodels", scores.distribution_means),
                Part("scipy", scores.distribution_distance, is_exact=False),
            ],
        ),
        "zero_inflated": Kind(
            MILLER,
            [ZeroInflatedSpec(id="x", kind="zero_inflated")],
            [Part("statsmodels", scores.zero_inflated)],
        ),
        "comparison": Kind(
            MILLER,
            [ComparisonSpec(id="x", kind="comparison", compare="index_tests")],
            [
                Part("scikit-learn", scores.comparison_rates),
                Part("scikit-learn", scores.comparison_areas, is_exact=False),
            ],
        ),
        "descriptives": Kind(
            MILLER,
            [DescriptivesSpec(id="x", kind="descriptives", covariates=("age", "sex"), by="index")],
            [
                Part("pandas, scipy", scores.descriptives_moments),
                Part("pandas", scores.descriptives_quantiles, is_exact=False),
            ],
        ),
        "auc": Kind(
            HONG,
            [AucSpec(id="x", kind="auc", value="probability")],
            [Part("scikit-learn", scores.auc, is_exact=False)],
        ),
        "calibration": Kind(
            HONG,
            [CalibrationSpec(id="x", kind="calibration")],
            [Part("statsmodels", scores.calibration)],
        ),
        "fusion": Kind(
            HONG,
            [FusionSpec(id="x", kind="fusion", covariates=("age", "sex", "bmi"), cut_off=100.0)],
            [
                Part("statsmodels", scores.fusion_model),
                Part("scikit-learn", scores.fusion_area, is_exact=False),
            ],
        ),
        "cox": Kind(MILLER, [_cox("x", risk_category="index")], [Part("lifelines", survival.cox)]),
        "kaplan_meier": Kind(
            MILLER,
            [
                KaplanMeierSpec(
                    id="x", kind="kaplan_meier", endpoint="mace", bin_days=1, horizon_days=1820
                )
            ],
            [Part("statsmodels", survival.kaplan_meier)],
        ),
        "reclassification": Kind(
            MILLER,
            [
                _cox("base"),
                _cox("full", risk_category="index"),
                ReclassificationSpec(
                    id="x",
                    kind="reclassification",
                    base="base",
                    full="full",
                    horizon_days=survival.HORIZON_DAYS,
                    uncertainty=Resampling.NONE,
                ),
            ],
            [Part("lifelines, definitions", survival.reclassification)],
        ),
        "survival_calibration": Kind(
            MILLER,
            [
                SurvivalCalibrationSpec(
                    id="x",
                    kind="survival_calibration",
                    endpoint="mace",
                    prediction="risk",
                    horizon_days=survival.HORIZON_DAYS,
                )
            ],
            [Part("lifelines", survival.survival_calibration)],
            columns=("risk",),
        ),
    }
