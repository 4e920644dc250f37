"""Federated estimators: one file each, both halves in it."""

from __future__ import annotations

from fedcac.statistics.accuracy import Accuracy
from fedcac.statistics.agreement import Agreement
from fedcac.statistics.bland_altman import BlandAltman
from fedcac.statistics.cox import Cox
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
from fedcac.statistics.session import PoolingSession, SiteAnswers

__all__ = [
    "META",
    "POOLED",
    "Accuracy",
    "Agreement",
    "Answers",
    "BlandAltman",
    "Cox",
    "Estimate",
    "Estimator",
    "Pooling",
    "PoolingSession",
    "QueryError",
    "SiteAnswers",
    "estimator_for",
    "register_estimator",
    "registered_estimators",
]
