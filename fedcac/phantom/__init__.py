"""Generated exam pairs with known truth, and scored tables with published margins."""

from __future__ import annotations

from fedcac.phantom.clinical import eng_tables, miller_tables, write_tables
from fedcac.phantom.cohort import write_cohort
from fedcac.phantom.grid import GATED, NON_GATED, Grid, PhantomExam, PhantomPair
from fedcac.phantom.hybrid import (
    chest_ct_folder,
    generate_hybrid_pair,
)
from fedcac.phantom.pairs import generate_pair
from fedcac.phantom.radiographs import hong_tables

__all__ = [
    "GATED",
    "NON_GATED",
    "Grid",
    "PhantomExam",
    "PhantomPair",
    "chest_ct_folder",
    "eng_tables",
    "generate_hybrid_pair",
    "generate_pair",
    "hong_tables",
    "miller_tables",
    "write_cohort",
    "write_tables",
]
