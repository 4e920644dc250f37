"""The design matrix of a regression: which columns a protocol's covariates become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcac.errors import TableError
from fedcac.exams import Exams
from fedcac.protocol import Covariate, CoxSpec, Protocol

__all__ = ["Design", "DesignColumn", "design_of"]


@dataclass(frozen=True)
class DesignColumn:
    """One parameter: its term in estimates.csv and its values of shape (n,) at a site."""

    term: str
    is_indicator: bool
    values: Callable[[Exams], NDArray[np.float64]]


@dataclass(frozen=True)
class Design:
    """The columns of a model, in the protocol's order; the risk categories come last.

    A continuous covariate is divided by its scale; a categorical one and the risk category become
    indicators against their first level.
    """

    columns: tuple[DesignColumn, ...]
    needs: tuple[str, ...]

    @property
    def terms(self) -> tuple[str, ...]:
        """The name of every parameter."""
        return tuple(column.term for column in self.columns)

    @property
    def indicators(self) -> NDArray[np.bool_]:
        """Which columns hold 0 and 1 only, shape (p,)."""
        return np.array([column.is_indicator for column in self.columns], dtype=np.bool_)

    def matrix(self, exams: Exams) -> NDArray[np.float64]:
        """Return the design of complete exams, shape (n, p).

        Raises
        ------
        TableError
            If a binary value is not 0 or 1, or a categorical one is not the code of a level.
        ValueError
            If a score is negative.
        """
        return np.column_stack([column.values(exams) for column in self.columns])


def design_of(spec: CoxSpec, protocol: Protocol) -> Design:
    """Return the design of a Cox analysis."""
    columns: list[DesignColumn] = []
    for name in spec.covariates:
        columns.extend(_covariate_columns(protocol.covariate(name)))
    needs = list(spec.covariates)
    if spec.risk_category != "none":
        score = f"{spec.risk_category}_score"
        needs.append(score)
        columns.extend(_risk_columns(score, protocol))
    return Design(tuple(columns), tuple(needs))


def _covariate_columns(covariate: Covariate) -> list[DesignColumn]:
    name = covariate.name
    if covariate.type == "continuous":
        return [DesignColumn(name, False, lambda exams: exams.column(name) / covariate.scale)]
    if covariate.type == "binary":
        return [DesignColumn(name, True, lambda exams: _codes(exams, name, 2))]
    n_levels = len(covariate.levels)

    def indicator(level: int) -> Callable[[Exams], NDArray[np.float64]]:
        return lambda exams: (_codes(exams, name, n_levels) == level).astype(np.float64)

    return [
        DesignColumn(f"{name}={covariate.levels[level]}", True, indicator(level))
        for level in range(1, n_levels)
    ]


def _codes(exams: Exams, name: str, n_levels: int) -> NDArray[np.float64]:
    codes = exams.column(name)
    if not np.all(np.isin(codes, np.arange(n_levels))):
        raise TableError(
            f"Column '{name}' holds a value that is not one of its {n_levels} codes.",
            code="unknown_level",
            cure=f"Code the column 0 to {n_levels - 1} in the order of the protocol's levels.",
        )
    return codes


def _risk_columns(score: str, protocol: Protocol) -> list[DesignColumn]:
    scheme = protocol.categories

    def indicator(category: int) -> Callable[[Exams], NDArray[np.float64]]:
        return lambda exams: (scheme.categorise(exams.column(score)) == category).astype(np.float64)

    return [
        DesignColumn(scheme.labels[category], True, indicator(category))
        for category in range(1, scheme.n_categories)
    ]
