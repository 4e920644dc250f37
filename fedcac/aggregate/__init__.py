"""Aggregates: the only values that may leave a site, and only through the gate."""

from __future__ import annotations

from fedcac.aggregate.base import (
    Aggregate,
    Cell,
    Count,
    Evidence,
    parse_aggregate,
    register,
    registered,
)
from fedcac.aggregate.shapes import (
    BinnedCounts,
    CrossTable,
    FlowCounts,
    FlowStage,
    LikelihoodTerms,
    Moments,
    PairedMoments,
    SurvivalTable,
    Totals,
)

__all__ = [
    "Aggregate",
    "BinnedCounts",
    "Cell",
    "Count",
    "CrossTable",
    "Evidence",
    "FlowCounts",
    "FlowStage",
    "LikelihoodTerms",
    "Moments",
    "PairedMoments",
    "SurvivalTable",
    "Totals",
    "parse_aggregate",
    "register",
    "registered",
]
