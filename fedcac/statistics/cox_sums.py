"""What a site sums up at the maximum of a Cox model, and how it is packed into one row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcac.statistics.concordance import Concordance, concordance
from fedcac.statistics.risk_sets import proportionality_terms, score_residuals
from fedcac.vocabulary import TieMethod

__all__ = ["CoxPacking", "CoxSums"]

Vector = NDArray[np.float64]

TIME_SCALE_DAYS = 365.25
"""Unit of time in the proportionality test; the test does not depend on it, rounding does."""


@dataclass(frozen=True)
class CoxSums:
    """Sums over sites at the maximum; None where the analysis does not ask for them.

    Attributes
    ----------
    score_products
        Sum of score residuals' outer products, shape (p, p).
    proportionality
        u, Sum t u, each (p,), then Sum V, Sum t V, Sum t^2 V, each (p, p), stacked: (2 + 3 p, p).
    concordance
        Pair counts within sites.
    """

    score_products: Vector | None
    proportionality: Vector | None
    concordance: Concordance | None


@dataclass(frozen=True)
class CoxPacking:
    """Which sums an analysis of `n_terms` parameters asks for. Symmetric tables travel halved."""

    n_terms: int
    robust: bool
    proportionality: bool
    concordance: bool

    @property
    def _triangle(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        rows, columns = np.triu_indices(self.n_terms)
        return rows, columns

    @property
    def length(self) -> int:
        """Number of numbers in the row; 0 if nothing is asked."""
        half = self.n_terms * (self.n_terms + 1) // 2
        return (
            self.robust * half
            + self.proportionality * (2 * self.n_terms + 3 * half)
            + self.concordance * Concordance.N_NUMBERS
        )

    def at_site(
        self, x: Vector, time: Vector, event: NDArray[np.bool_], beta: Vector, ties: TieMethod
    ) -> Vector:
        """Return the packed sums of one stratum, shape (length,); ValueError as the likelihood."""
        parts: list[Vector] = []
        if self.robust:
            residuals = score_residuals(x, time, event, beta, ties)
            parts.append((residuals.T @ residuals)[self._triangle])
        if self.proportionality:
            terms = proportionality_terms(x, time, event, beta, ties, TIME_SCALE_DAYS)
            parts += [terms.u, terms.tu]
            parts += [table[self._triangle] for table in (terms.v, terms.tv, terms.ttv)]
        if self.concordance:
            # Row by row: a matrix product may round equal rows apart, and a tie would be lost.
            predictor = (x * beta).sum(axis=1)
            parts.append(concordance(predictor, time, event).numbers())
        return np.concatenate(parts)

    def unpack(self, row: Vector) -> CoxSums:
        """Return the sums of a packed row of shape (length,)."""
        p, half = self.n_terms, self.n_terms * (self.n_terms + 1) // 2
        position = 0

        def take(count: int) -> Vector:
            nonlocal position
            position += count
            return row[position - count : position]

        products = self._full(take(half)) if self.robust else None
        proportionality = None
        if self.proportionality:
            vectors = take(2 * p).reshape(2, p)
            tables = [self._full(take(half)) for _ in range(3)]
            proportionality = np.vstack([vectors, *tables])
        pairs = Concordance.from_numbers(take(Concordance.N_NUMBERS)) if self.concordance else None
        return CoxSums(products, proportionality, pairs)

    def _full(self, half: Vector) -> Vector:
        table = np.zeros((self.n_terms, self.n_terms))
        table[self._triangle] = half
        return table + table.T - np.diag(np.diag(table))
