"""Cohen's kappa of one confusion matrix, with the standard errors of Fleiss, Cohen and Everitt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcac.vocabulary import KappaWeights

__all__ = ["Kappa", "agreement_weights", "cohen_kappa"]

_ROUNDING = 1e-14
"""A per-patient variance below this is the rounding error of a difference that is zero."""


@dataclass(frozen=True)
class Kappa:
    """Kappa, its standard error, and `se0`, the standard error if there were no agreement."""

    estimate: float
    se: float
    se0: float
    n: int


def agreement_weights(size: int, weights: KappaWeights) -> NDArray[np.float64]:
    """Return agreement weights of shape (size, size), 1 on the diagonal; size >= 2."""
    distance: NDArray[np.float64] = np.abs(np.subtract.outer(np.arange(size), np.arange(size))) / (
        size - 1
    )
    if weights is KappaWeights.UNWEIGHTED:
        return np.eye(size)
    if weights is KappaWeights.LINEAR:
        return np.asarray(1 - distance)
    return np.asarray(1 - distance**2)


def cohen_kappa(matrix: NDArray[np.int64], weights: KappaWeights) -> Kappa | None:
    """Return kappa of counts of shape (k, k), rows = reference, columns = index; k >= 2.

    None if it does not exist: no patients, or chance agreement is complete (all patients in one
    category by both). `se` is for the confidence interval, `se0` for the test of kappa = 0
    (Fleiss, Cohen and Everitt, Psychol Bull 1969;72:323).
    """
    n = int(matrix.sum())
    if n == 0:
        return None
    w = agreement_weights(len(matrix), weights)
    p = matrix / n
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    expected = np.outer(rows, columns)
    observed_agreement, chance_agreement = float(np.sum(w * p)), float(np.sum(w * expected))
    room = 1 - chance_agreement
    if room < 1e-12:
        return None
    kappa = (observed_agreement - chance_agreement) / room
    # w_i. averages over the index margin, w_.j over the reference margin.
    margin = (w @ columns)[:, None] + (rows @ w)[None, :]
    variance = (
        np.sum(p * (w - margin * (1 - kappa)) ** 2) - (kappa - chance_agreement * (1 - kappa)) ** 2
    )
    variance0 = np.sum(expected * (w - margin) ** 2) - chance_agreement**2
    return Kappa(kappa, _standard_error(variance, n, room), _standard_error(variance0, n, room), n)


def _standard_error(variance: float, n: int, room: float) -> float:
    return float(np.sqrt(variance / n) / room) if variance > _ROUNDING else 0.0
