"""Cross tables leave whole, collapsed, or not at all."""

from __future__ import annotations

from typing import Any

from fedcac.aggregate import Count
from fedcac.disclosure.cross_table import Matrix, protect_table, two_by_two_tables
from fedcac.disclosure.policy import Policy
from fedcac.disclosure.rules.common import HIDDEN, Changes
from fedcac.vocabulary import CellStatus

__all__ = ["is_consistent", "protect"]


def _numbers(matrix: tuple[tuple[Count, ...], ...]) -> Matrix:
    return tuple(
        tuple(count for count in row if not isinstance(count, CellStatus)) for row in matrix
    )


def is_consistent(table: Any) -> bool:
    """Say whether matrix, 2x2 tables and number of patients agree."""
    matrix = _numbers(table.matrix)
    return (
        matrix == table.matrix
        and two_by_two_tables(matrix) == table.two_by_two
        and sum(map(sum, matrix)) == table.n_patients
        and not table.kept_cut_offs
        and not table.collapsed
    )


def protect(table: Any, policy: Policy) -> Changes:
    """Suppress what the audited suppression of `protect_table` withholds."""
    matrix = _numbers(table.matrix)
    safe = protect_table(matrix, policy.minimum_cell, policy.zero_is_small)
    if safe.is_whole:
        return {}
    cells = two_by_two_tables(matrix)
    return {
        "matrix": tuple((HIDDEN,) * len(row) for row in matrix),
        "two_by_two": tuple(
            (
                *(four[:2] if (cut_off, True) in safe.rows else (HIDDEN, HIDDEN)),
                *(four[2:] if (cut_off, False) in safe.rows else (HIDDEN, HIDDEN)),
            )
            for cut_off, four in enumerate(cells)
        ),
        "kept_cut_offs": safe.kept_cut_offs,
        "collapsed": safe.collapsed,
    }
