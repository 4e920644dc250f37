"""A protocol that declares everything, one specification per analysis kind, and exams for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedcac.exams import Exams
from fedcac.protocol import (
    AccuracySpec,
    AgreementSpec,
    AucSpec,
    BlandAltmanSpec,
    CalibrationSpec,
    ComparisonSpec,
    CorrelationSpec,
    Covariate,
    CoxSpec,
    DescriptivesSpec,
    DistributionSpec,
    Endpoint,
    FusionSpec,
    KaplanMeierSpec,
    Protocol,
    ReclassificationSpec,
    ScoreColumn,
    Subgroup,
    SurvivalCalibrationSpec,
    ZeroInflatedSpec,
)
from fedcac.protocol.catalogue import load_shipped
from fedcac.protocol.schema import ClinicalCriterion

__all__ = ["SPECS", "draw_exams", "plan"]

BASE = CoxSpec(id="base", kind="cox", endpoint="mace", covariates=("age", "sex"))
FULL = CoxSpec(id="full", kind="cox", endpoint="mace", covariates=("age", "sex"), log_score="index")

SPECS: dict[str, Any] = {
    "agreement": AgreementSpec(id="x", kind="agreement"),
    "accuracy": AccuracySpec(id="x", kind="accuracy"),
    "bland_altman": BlandAltmanSpec(id="x", kind="bland_altman", per_vessel=True),
    "correlation": CorrelationSpec(id="x", kind="correlation"),
    "distribution": DistributionSpec(id="x", kind="distribution"),
    "zero_inflated": ZeroInflatedSpec(id="x", kind="zero_inflated"),
    "auc": AucSpec(id="x", kind="auc", value="probability", cut_offs=(100,), bins=100),
    "comparison": ComparisonSpec(
        id="x", kind="comparison", compare="index_tests", cut_offs=(10, 100), bins=100
    ),
    "calibration": CalibrationSpec(id="x", kind="calibration", cut_offs=(100,)),
    "fusion": FusionSpec(
        id="x", kind="fusion", covariates=("age", "sex"), cut_off=100, folds=5, bins=100
    ),
    "descriptives": DescriptivesSpec(
        id="x", kind="descriptives", covariates=("age", "sex", "vendor"), by="mace"
    ),
    "cox": CoxSpec(
        id="x",
        kind="cox",
        endpoint="mace",
        covariates=("age", "sex"),
        robust=True,
        proportionality=True,
        concordance=True,
    ),
    "kaplan_meier": KaplanMeierSpec(
        id="x", kind="kaplan_meier", endpoint="mace", by="vendor", bin_days=90, horizon_days=900
    ),
    "reclassification": ReclassificationSpec(
        id="x", kind="reclassification", base="base", full="full", horizon_days=720, replicates=5
    ),
    "survival_calibration": SurvivalCalibrationSpec(
        id="x", kind="survival_calibration", endpoint="mace", prediction="risk", horizon_days=720
    ),
}


def plan(specs: Sequence[Any], **changes: Any) -> Protocol:
    """Return a valid protocol with these analyses."""
    demo = load_shipped("demo-nongated")
    document = {
        **{name: getattr(demo, name) for name in type(demo).model_fields},
        "covariates": (
            Covariate(
                name="age",
                type="continuous",
                description="Age",
                unit="years",
                minimum=18,
                maximum=120,
                scale=10,
            ),
            Covariate(name="sex", type="binary", description="Female sex"),
            Covariate(
                name="vendor",
                type="categorical",
                description="Scanner vendor",
                levels=("a", "b", "c"),
            ),
            Covariate(
                name="risk",
                type="continuous",
                description="Predicted risk",
                minimum=0,
                maximum=1,
            ),
        ),
        "endpoints": (
            Endpoint(name="mace", definition="Event"),
            Endpoint(name="late_mace", definition="Event after 90 days", landmark_days=90),
            Endpoint(
                name="kept_mace",
                definition="Event",
                exclusion=ClinicalCriterion(
                    column="early", exclude_if=1, statement="Treated early."
                ),
            ),
        ),
        "comparator": ScoreColumn(column="visual_score", description="Visual estimate"),
        "second_reference": ScoreColumn(column="other_reader", description="Second reader"),
        "subgroups": (
            Subgroup(name="women", covariate="sex", levels=("1",), description="Women."),
            Subgroup(name="old", covariate="age", minimum=65, description="65 or older."),
        ),
        "analyses": tuple(specs),
        **changes,
    }
    return Protocol(**document)


def draw_exams(seed: int, n: int, prefix: str = "k", **changes: Any) -> Exams:
    """Return generated patients with every column of the plan: ties, zeros, no gap."""
    rng = np.random.default_rng(seed)
    reference = np.where(rng.random(n) < 0.3, 0.0, rng.lognormal(4, 2, n).round(1))
    index = np.where(rng.random(n) < 0.1, 0.0, (reference * rng.lognormal(0, 0.5, n)).round(1))
    strength = np.log1p(reference) - np.log1p(100) + rng.normal(0, 1, n)
    columns: dict[str, Any] = {
        "reference_score": reference,
        "index_score": index,
        "visual_score": np.where(rng.random(n) < 0.2, 0.0, (reference * 1.2).round(-1)),
        "other_reader": (reference * rng.lognormal(0, 0.3, n)).round(1),
        "index_probability_100": (1 / (1 + np.exp(-strength))).round(3),
        "age": rng.normal(62, 9, n).round(1),
        "sex": rng.integers(0, 2, n).astype(float),
        "vendor": rng.integers(0, 3, n).astype(float),
        "risk": rng.uniform(0.02, 0.4, n).round(3),
        "early": (rng.random(n) < 0.1).astype(float),
        # Whole months: many ties.
        "follow_up_days": 30.0 * rng.integers(1, 40, n),
        "event": (rng.random(n) < 0.35).astype(float),
    }
    for vessel in ("lm", "lad", "lcx", "rca"):
        columns[f"reference_{vessel}"] = (reference * rng.random(n)).round(1)
        columns[f"index_{vessel}"] = (index * rng.random(n)).round(1)
    columns |= changes
    keys = tuple(f"{prefix}{i}" for i in range(n))
    return Exams(columns=columns, keys=keys, secret=b"a site's secret")


def needed_models(spec: Any) -> Mapping[str, Any]:
    """Return the analyses that another one builds on, by id."""
    return {"base": BASE, "full": FULL} if spec.kind == "reclassification" else {}
