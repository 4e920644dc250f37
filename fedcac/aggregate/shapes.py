"""Shapes of aggregates. A shape is its disclosure rule: the gate dispatches on it.

An estimator's aggregate subclasses exactly one shape, sets `kind` and is registered. A shape that
the gate has no rule for cannot leave.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Self

from pydantic import model_validator

from fedcac.aggregate.base import Aggregate, Cell, Count, WholeNumber, register
from fedcac.vocabulary import ExclusionReason

__all__ = [
    "BinnedCounts",
    "CrossTable",
    "FlowCounts",
    "FlowStage",
    "LikelihoodTerms",
    "Moments",
    "PairedMoments",
    "SurvivalTable",
    "Totals",
]

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
    kept_cut_offs: tuple[WholeNumber, ...] = ()
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
            if list(self.kept_cut_offs) != sorted(set(self.kept_cut_offs)) or any(
                cut >= size - 1 for cut in self.kept_cut_offs
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


class PairedMoments(Aggregate):
    """Per term: n, both means, both M2, and the sum of products of the deviations (cross)."""

    n: tuple[Count, ...]
    mean_x: tuple[Cell, ...]
    mean_y: tuple[Cell, ...]
    m2_x: tuple[Cell, ...]
    m2_y: tuple[Cell, ...]
    cross: tuple[Cell, ...]

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        parts = (self.n, self.mean_x, self.mean_y, self.m2_x, self.m2_y, self.cross)
        if not self.n or len({len(part) for part in parts}) != 1:
            raise ValueError("every part must have the same length, at least one")
        return self


class BinnedCounts(Aggregate):
    """Patients per group and bin of a public grid, for one or several variables.

    Attributes
    ----------
    starts
        Per variable and group, the index of the first grid bin of every bin given, from 0 up. A
        site summarises on the whole grid; the gate may merge neighbouring bins. Empty: suppressed.
    counts
        Per variable and group, one count per bin given.

    `has_common_grid`: the gate merges the bins of all groups of a variable alike, so that tables
    of one variable by several groupings may stand beside each other. `are_groups_nested`: the
    second group of a variable is part of that of another, as the positives at rising cut-offs.
    """

    has_common_grid: ClassVar[bool] = False
    are_groups_nested: ClassVar[bool] = False

    starts: tuple[tuple[tuple[WholeNumber, ...], ...], ...]
    counts: tuple[tuple[Row, ...], ...]

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        if len(self.starts) != len(self.counts) or not self.starts:
            raise ValueError("starts and counts are given for the same variables")
        for starts, counts in zip(self.starts, self.counts, strict=True):
            if len(starts) != len(counts) or not starts:
                raise ValueError("starts and counts are given for the same groups")
            for firsts, row in zip(starts, counts, strict=True):
                if list(firsts) != sorted(set(firsts)) or (firsts and firsts[0] != 0):
                    raise ValueError("starts are increasing and begin with 0")
                if len(row) != len(firsts):
                    raise ValueError("there is one count per bin given")
        return self


class SurvivalTable(Aggregate):
    """A life table per group on public time bins.

    Attributes
    ----------
    edges
        Per group, the indices of the time bins' edges that are given, from 0 up; bin j reaches
        from edge j to edge j + 1. The gate may merge bins and cut the end off. Empty: suppressed.
    at_risk, events, censored
        Per group, one count per bin: at risk at its start, with the event, and lost inside it.
    n_events
        Patients with the event, over all groups and times; suppressed by the gate if a group is.
        `evidence.row_groups` gives their number by group.
    """

    edges: tuple[tuple[WholeNumber, ...], ...]
    at_risk: tuple[Row, ...]
    events: tuple[Row, ...]
    censored: tuple[Row, ...]
    n_events: Count

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        if not len(self.edges) == len(self.at_risk) == len(self.events) == len(self.censored) >= 1:
            raise ValueError("every part is given for the same groups")
        for parts in zip(self.edges, self.at_risk, self.events, self.censored, strict=True):
            edges, rows = parts[0], parts[1:]
            if list(edges) != sorted(set(edges)) or len(edges) == 1 or (edges and edges[0] != 0):
                raise ValueError("edges are increasing from 0, and there are none or two")
            if any(len(row) != max(len(edges) - 1, 0) for row in rows):
                raise ValueError("every row has one count per bin")
        return self


class LikelihoodTerms(Aggregate):
    """A log-likelihood with its gradient (p,) and information (p, p) at the queried parameters.

    The information is the negative Hessian. Used by every likelihood that is a sum over patients
    or strata; `n_events` counts patients with the event.
    """

    n_events: WholeNumber
    log_likelihood: float
    gradient: tuple[float, ...]
    information: tuple[tuple[float, ...], ...]

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        p = len(self.gradient)
        if p < 1 or len(self.information) != p or any(len(row) != p for row in self.information):
            raise ValueError("information must be p x p for a gradient of length p >= 1")
        return self


class Totals(Aggregate):
    """Sums over the patients of a site, in rows and columns that the estimator documents.

    Score residuals, pair counts, weights, gradients of replicates: every number is a sum over
    all patients of one group. `evidence.smallest_group` is the smallest number of patients behind
    any of them; where `evidence.row_groups` gives that number row by row, the gate suppresses
    single rows, which are then empty. `n_events` counts patients with the event, None if there is
    no event. `are_rows_of_classes`: a row begins with the number of positives at a cut-off.
    """

    are_rows_of_classes: ClassVar[bool] = False

    values: tuple[tuple[float, ...], ...]
    n_events: WholeNumber | None

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        if not self.values or len({len(row) for row in self.values if row}) > 1:
            raise ValueError("values must be a table with at least one row")
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
