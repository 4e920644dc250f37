"""The logistic likelihood of one site."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["LogisticTerms", "logistic_terms", "logit"]

Vector = NDArray[np.float64]

SMALLEST_PROBABILITY = 1e-6
"""Probabilities nearer to 0 or 1 than this are moved to it, so that their logit is finite."""


@dataclass(frozen=True)
class LogisticTerms:
    """Log-likelihood, gradient (p,) and information (p, p)."""

    log_likelihood: float
    gradient: Vector
    information: Vector


def logit(probability: Vector) -> Vector:
    """Return ln(p / (1 - p)) of probabilities cut to 1e-6 .. 1 - 1e-6, shape (n,)."""
    found: Vector = special.logit(
        np.clip(probability, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    )
    return found


def logistic_terms(
    x: Vector, is_positive: NDArray[np.bool_], beta: Vector, offset: Vector
) -> LogisticTerms:
    """Return the terms at coefficients beta (p,) of a design x (n, p) with an offset (n,)."""
    predictor = x @ beta + offset
    expected = special.expit(predictor)
    y = is_positive.astype(np.float64)
    weight = expected * special.expit(-predictor)
    return LogisticTerms(
        log_likelihood=float(np.sum(y * predictor - np.logaddexp(0.0, predictor))),
        gradient=x.T @ (y - expected),
        information=x.T @ (weight[:, None] * x),
    )
