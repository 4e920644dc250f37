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
from fedcac.aggregate.shapes import CrossTable, FlowCounts, FlowStage, LikelihoodTerms, Moments

__all__ = [
    "Aggregate",
    "Cell",
    "Count",
    "CrossTable",
    "Evidence",
    "FlowCounts",
    "FlowStage",
    "LikelihoodTerms",
    "Moments",
    "parse_aggregate",
    "register",
    "registered",
]
