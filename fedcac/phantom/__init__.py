"""Generated exam pairs with known truth."""

from __future__ import annotations

from fedcac.phantom.grid import GATED, NON_GATED, Grid, PhantomExam, PhantomPair
from fedcac.phantom.pairs import generate_pair

__all__ = ["GATED", "NON_GATED", "Grid", "PhantomExam", "PhantomPair", "generate_pair"]
