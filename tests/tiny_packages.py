"""What tiny model packages of tests have in common: a manifest, an architecture, a second stage."""

from __future__ import annotations

from typing import Any

import numpy as np
import xgboost

from fedcac.models.second_stage_features import FEATURE_NAMES

__all__ = ["TINY_ENG", "TINY_INPUT", "tiny_manifest", "tiny_second_stage"]

TINY_ENG: dict[str, Any] = {
    "planes": [4, 4, 4, 4],
    "blocks": [1, 1, 1, 1],
    "groups": 1,
    "base_width": 64,
    "decoder": [4, 4, 4, 4],
}
TINY_INPUT: dict[str, Any] = {
    "clip_hu": [-800.0, 1200.0],
    "centre_hu": 200.0,
    "scale_hu": 1000.0,
}


def tiny_manifest(
    family: str = "eng2021", architecture: dict[str, Any] = TINY_ENG, **changes: Any
) -> dict[str, Any]:
    """Return what a person writes of a package; `changes` replace parts."""
    return {
        "name": f"tiny-{family}",
        "version": "1.0.0",
        "family": family,
        "architecture": architecture,
        "input": TINY_INPUT,
        "calcium_threshold": 0.5,
        "golden_tolerance": 0.001,
        "licence": "Apache-2.0",
        "card": {
            "intended_use": "Tests only. Not for clinical use.",
            "is_demonstration": True,
            "training_data": "None beyond a test's own numbers.",
            "limitations": "Knows nothing.",
            "measurements": [],
        },
        **changes,
    }


def tiny_second_stage() -> bytes:
    """Return three small trees over a second stage's features, as XGBoost writes them."""
    rng = np.random.default_rng(3)
    features = rng.gamma(1.0, 100.0, (40, len(FEATURE_NAMES)))
    booster = xgboost.train(
        {"objective": "reg:absoluteerror", "max_depth": 2, "nthread": 1},
        xgboost.DMatrix(features, label=np.log1p(features[:, 0]), feature_names=[*FEATURE_NAMES]),
        num_boost_round=3,
    )
    booster.set_attr(slice_increment_mm="5")
    return bytes(booster.save_raw("json"))
