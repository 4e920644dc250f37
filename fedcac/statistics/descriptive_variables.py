"""What descriptives tabulate: covariates, and scores with their risk categories."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcac.exams import Exams
from fedcac.protocol import Covariate, Protocol
from fedcac.statistics.grids import HIGHEST_SCORE, covariate_edges, score_edges
from fedcac.vocabulary import ScoreRole

__all__ = ["N_BINS", "Variable", "covariate_variable", "score_variables"]

N_BINS = 128


@dataclass(frozen=True)
class Variable:
    """What is tabulated: values by patient (n,), where bins part, and what is written about them.

    `level_terms` gives the position and term of every level shown; empty for a continuous one.
    `limits` close the outer bins for quantiles.
    """

    name: str
    values: Callable[[Exams], NDArray[np.float64]]
    edges: NDArray[np.float64]
    is_continuous: bool
    level_terms: tuple[tuple[int, str], ...] = ()
    limits: tuple[float, float] | None = None
    can_be_missing: bool = True


def covariate_variable(covariate: Covariate) -> Variable:
    """Return a covariate as what is tabulated."""
    name = covariate.name
    levels = tuple((i, f"{name}={level}") for i, level in enumerate(covariate.levels))
    is_continuous = covariate.type == "continuous"
    limits = None
    if covariate.minimum is not None and covariate.maximum is not None:
        limits = (covariate.minimum, covariate.maximum)
    return Variable(
        name,
        lambda exams: _covariate_values(exams, covariate),
        covariate_edges(covariate, N_BINS),
        is_continuous,
        # Of a binary covariate the second level says all.
        () if is_continuous else levels or ((1, name),),
        limits if is_continuous else None,
    )


def _covariate_values(exams: Exams, covariate: Covariate) -> NDArray[np.float64]:
    if not exams.has(covariate.name):
        return np.full(exams.n, np.nan)
    values = exams.column(covariate.name)
    known = values[np.isfinite(values)]
    n_levels = max(len(covariate.levels), 2)
    if covariate.type != "continuous" and not np.all(np.isin(known, np.arange(n_levels))):
        raise ValueError("a value is not the code of a level")
    return values


def score_variables(role: ScoreRole, protocol: Protocol) -> tuple[Variable, Variable]:
    """Return a score as a number, and its risk category."""
    column, scheme = protocol.score_column(role), protocol.categories
    score = Variable(
        column,
        lambda exams: exams.column(column),
        score_edges(N_BINS),
        is_continuous=True,
        limits=(0.0, HIGHEST_SCORE),
        can_be_missing=False,
    )
    category = Variable(
        f"{column}_category",
        lambda exams: scheme.categorise(exams.column(column)).astype(np.float64),
        np.arange(1, scheme.n_categories, dtype=np.float64) - 0.5,
        is_continuous=False,
        level_terms=tuple((i, f"{column}={label}") for i, label in enumerate(scheme.labels)),
        can_be_missing=False,
    )
    return score, category
