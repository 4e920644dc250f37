"""Federated estimators: one file each, both halves in it."""

from __future__ import annotations

from fedcac.statistics.accuracy import Accuracy
from fedcac.statistics.agreement import Agreement
from fedcac.statistics.association import Association
from fedcac.statistics.auc import AucAnalysis
from fedcac.statistics.bland_altman import BlandAltman
from fedcac.statistics.calibration import Calibration
from fedcac.statistics.comparison import Comparison
from fedcac.statistics.cox import Cox
from fedcac.statistics.descriptives import Descriptives
from fedcac.statistics.distribution import Distribution
from fedcac.statistics.estimator import (
    META,
    POOLED,
    Answers,
    Estimate,
    Estimator,
    Pooling,
    QueryError,
    estimator_for,
    register_estimator,
    registered_estimators,
)
from fedcac.statistics.fusion import Fusion
from fedcac.statistics.kaplan_meier import KaplanMeier
from fedcac.statistics.reclassification import Reclassification
from fedcac.statistics.session import SUM_OF_SITES, PoolingSession, SiteAnswers
from fedcac.statistics.survival_calibration import SurvivalCalibration
from fedcac.statistics.zip_regression import ZeroInflated

__all__ = [
    "META",
    "POOLED",
    "SUM_OF_SITES",
    "Accuracy",
    "Agreement",
    "Answers",
    "Association",
    "AucAnalysis",
    "BlandAltman",
    "Calibration",
    "Comparison",
    "Cox",
    "Descriptives",
    "Distribution",
    "Estimate",
    "Estimator",
    "Fusion",
    "KaplanMeier",
    "Pooling",
    "PoolingSession",
    "QueryError",
    "Reclassification",
    "SiteAnswers",
    "SurvivalCalibration",
    "ZeroInflated",
    "estimator_for",
    "register_estimator",
    "registered_estimators",
]
