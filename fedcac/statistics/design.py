"""The design matrix of a regression: which columns a protocol's covariates become."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcac.aggregate import Evidence
from fedcac.errors import TableError
from fedcac.exams import Exams
from fedcac.protocol import Covariate, CoxSpec, Protocol

__all__ = ["Design", "DesignColumn", "covariate_columns", "design_evidence", "design_of"]

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class DesignColumn:
    """One parameter: its term in estimates.csv and its values of shape (n,) at a site.

    `is_indicator`: it holds 0 and 1 only. `is_gap`: it marks patients with a missing value.
    """

    term: str
    is_indicator: bool
    values: Callable[[Exams], Vector]
    is_gap: bool = False


@dataclass(frozen=True)
class Design:
    """The columns of a model in the protocol's order; risk categories and log score come last.

    A continuous covariate is divided by its scale; a categorical one and the risk category become
    indicators against their first level. `blocks` numbers the models of a univariable series:
    columns of one block belong to one model.
    """

    columns: tuple[DesignColumn, ...]
    blocks: tuple[int, ...]

    @property
    def terms(self) -> tuple[str, ...]:
        """The name of every parameter."""
        return tuple(column.term for column in self.columns)

    def matrix(self, exams: Exams) -> Vector:
        """Return the design of complete exams, shape (n, p).

        Raises
        ------
        TableError
            If a binary value is not 0 or 1, or a categorical one is not the code of a level.
        ValueError
            If a score is negative.
        """
        return np.column_stack([column.values(exams) for column in self.columns])

    def models(self) -> Iterator[slice]:
        """Return where each model's columns stand; one slice unless the series is univariable."""
        blocks = np.array(self.blocks)
        for block in np.unique(blocks):
            where = np.flatnonzero(blocks == block)
            yield slice(int(where[0]), int(where[-1]) + 1)

    def evidence(self, x: Vector, parameters: Vector) -> Evidence:
        """Return what the gate looks at for a design of shape (n, p) at parameters (p,)."""
        is_indicator = np.array([column.is_indicator for column in self.columns], dtype=np.bool_)
        is_gap = np.array([column.is_gap for column in self.columns], dtype=np.bool_)
        # That nobody's value is missing says nothing about anybody.
        is_judged = is_indicator & ~(is_gap & (x.sum(axis=0) == 0))
        return design_evidence(x, parameters, is_judged)


def design_evidence(x: Vector, parameters: Vector, is_indicator: NDArray[np.bool_]) -> Evidence:
    """Return the smaller side of the smallest indicator and the norm of the parameters.

    The norm is the largest absolute coefficient times its column's standard deviation.
    """
    ones = x[:, is_indicator].sum(axis=0)
    sizes = np.minimum(ones, len(x) - ones)
    spread = x.std(axis=0) if len(x) else np.zeros(x.shape[1])
    return Evidence(
        n_parameters=x.shape[1],
        smallest_group=int(sizes.min()) if len(sizes) else None,
        parameter_norm=float(np.max(np.abs(parameters) * spread)),
    )


def design_of(spec: CoxSpec, protocol: Protocol) -> Design:
    """Return the design of a Cox analysis."""
    parts: list[list[DesignColumn]] = []
    for name in spec.covariates:
        columns = list(covariate_columns(protocol.covariate(name)))
        parts.append(_with_gap(name, columns) if spec.missing == "indicator" else columns)
    if spec.risk_category != "none":
        parts.append(_risk_columns(protocol.score_column(spec.risk_category), protocol))
    if spec.log_score != "none":
        score = protocol.score_column(spec.log_score)
        parts.append([DesignColumn(f"ln({score}+1)", False, lambda e: np.log1p(e.column(score)))])
    blocks = [number for number, part in enumerate(parts) for _ in part]
    return Design(
        columns=tuple(column for part in parts for column in part),
        blocks=tuple(blocks if spec.univariable else [0] * len(blocks)),
    )


def covariate_columns(covariate: Covariate) -> Iterator[DesignColumn]:
    """Yield the design columns of one covariate."""
    name = covariate.name
    if covariate.type == "continuous":
        yield DesignColumn(name, False, lambda exams: exams.column(name) / covariate.scale)
    elif covariate.type == "binary":
        yield DesignColumn(name, True, lambda exams: _codes(exams, name, 2))
    else:
        n_levels = len(covariate.levels)

        def indicator(level: int) -> Callable[[Exams], Vector]:
            return lambda exams: (_codes(exams, name, n_levels) == level).astype(np.float64)

        for level in range(1, n_levels):
            yield DesignColumn(f"{name}={covariate.levels[level]}", True, indicator(level))


def _with_gap(name: str, columns: list[DesignColumn]) -> list[DesignColumn]:
    """Return columns that hold 0 where the covariate is missing, and the column that says so."""

    def filled(column: DesignColumn) -> DesignColumn:
        def values(exams: Exams) -> Vector:
            gap = _gap(exams, name)
            known = exams.with_column(name, np.where(gap, 0.0, _column_or_nan(exams, name)))
            return np.where(gap, 0.0, column.values(known))

        return DesignColumn(column.term, column.is_indicator, values)

    def is_missing(exams: Exams) -> Vector:
        return _gap(exams, name).astype(np.float64)

    gap = DesignColumn(f"{name}=missing", True, is_missing, is_gap=True)
    return [*(filled(column) for column in columns), gap]


def _column_or_nan(exams: Exams, name: str) -> Vector:
    return exams.column(name) if exams.has(name) else np.full(exams.n, np.nan)


def _gap(exams: Exams, name: str) -> NDArray[np.bool_]:
    gap: NDArray[np.bool_] = ~np.isfinite(_column_or_nan(exams, name))
    return gap


def _codes(exams: Exams, name: str, n_levels: int) -> Vector:
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

    def indicator(category: int) -> Callable[[Exams], Vector]:
        return lambda exams: (scheme.categorise(exams.column(score)) == category).astype(np.float64)

    return [
        DesignColumn(scheme.labels[category], True, indicator(category))
        for category in range(1, scheme.n_categories)
    ]
