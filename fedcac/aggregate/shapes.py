"""Shapes of aggregates. A shape is its disclosure rule: the gate dispatches on it.

An estimator's aggregate subclasses exactly one shape, sets `kind` and is registered. A shape that
the gate has no rule for cannot leave.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Self

from pydantic import NonNegativeInt, model_validator

from fedcac.aggregate.base import Aggregate, Cell, Count, register
from fedcac.vocabulary import ExclusionReason

__all__ = ["CrossTable", "FlowCounts", "FlowStage", "LikelihoodTerms", "Moments"]

Row = tuple[Count, ...]


class CrossTable(Aggregate):
    """Patients by reference category (rows) and index category (columns), ordered low to high.

    Attributes
    ----------
    matrix
        (k+1) x (k+1) counts for k cut-offs. After the gate: all counts, or all suppressed.
    two_by_two
        Per cut-off (TP, FN, FP, TN). After the gate single cells may be suppressed.
    kept_cut_offs, collapsed
        Filled by the gate alone, when the full matrix cannot leave: the indices of the cut-offs
        kept, and the matrix with the categories between them merged. Empty otherwise.
    """

    matrix: tuple[Row, ...]
    two_by_two: tuple[tuple[Count, Count, Count, Count], ...]
    kept_cut_offs: tuple[NonNegativeInt, ...] = ()
    collapsed: tuple[Row, ...] = ()

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        size = len(self.matrix)
        if size < 2 or any(len(row) != size for row in self.matrix):
            raise ValueError("matrix must be square with at least two categories")
        if len(self.two_by_two) != size - 1:
            raise ValueError("there is one 2x2 table per cut-off")
        if self.kept_cut_offs or self.collapsed:
            small = len(self.kept_cut_offs) + 1
            if len(self.collapsed) != small or any(len(row) != small for row in self.collapsed):
                raise ValueError(
                    "collapsed must be square with one category more than cut-offs kept"
                )
            if list(self.kept_cut_offs) != sorted(set(self.kept_cut_offs)) or (
                self.kept_cut_offs[-1] >= size - 1
            ):
                raise ValueError("kept_cut_offs must be increasing indices of cut-offs")
        return self


class Moments(Aggregate):
    """Per term: number of patients, mean, and sum of squared deviations from the mean (M2)."""

    n: tuple[Count, ...]
    mean: tuple[Cell, ...]
    m2: tuple[Cell, ...]

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        if not len(self.n) == len(self.mean) == len(self.m2) >= 1:
            raise ValueError("n, mean and m2 must have the same length, at least one")
        return self


class LikelihoodTerms(Aggregate):
    """A log-likelihood with its gradient (p,) and information (p, p) at the queried parameters.

    The information is the negative Hessian. Used by every likelihood that is a sum over patients
    or strata; `n_events` counts patients with the event.
    """

    n_events: NonNegativeInt
    log_likelihood: float
    gradient: tuple[float, ...]
    information: tuple[tuple[float, ...], ...]

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        p = len(self.gradient)
        if p < 1 or len(self.information) != p or any(len(row) != p for row in self.information):
            raise ValueError("information must be p x p for a gradient of length p >= 1")
        return self


class FlowStage(StrEnum):
    """Stages of the STARD flow, in order; each counts distinct patients."""

    LISTED = "listed"
    ELIGIBLE = "eligible"
    PAIRED = "paired"
    SCORED = "scored"
    ANALYSED = "analysed"


@register
class FlowCounts(Aggregate):
    """How many patients reached each stage, and how many were lost for which reason.

    `n_patients` is the number analysed. `stages` holds every FlowStage in order; `exclusions` one
    count per reason that occurred.
    """

    kind: ClassVar[str] = "flow_counts"

    stages: dict[FlowStage, Count]
    exclusions: dict[ExclusionReason, Count]

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        if set(self.stages) != set(FlowStage):
            raise ValueError("every stage of the flow must be given")
        return self
