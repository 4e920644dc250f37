"""Cross tables leave whole, collapsed, or not at all."""

from __future__ import annotations

from typing import Any

from fedcac.aggregate import CrossTable
from fedcac.disclosure.beside import protect_beside
from fedcac.disclosure.cross_table import Matrix, protect_table, two_by_two_tables
from fedcac.disclosure.facts import Earlier
from fedcac.disclosure.policy import Policy
from fedcac.disclosure.rules.common import HIDDEN, Changes
from fedcac.vocabulary import CellStatus, RefusalCode

__all__ = ["is_consistent", "protect", "whole_matrix"]


def whole_matrix(table: CrossTable) -> Matrix:
    """Return a table's counts, none of them suppressed yet."""
    return tuple(
        tuple(count for count in row if not isinstance(count, CellStatus)) for row in table.matrix
    )


def is_consistent(table: Any) -> bool:
    """Say whether matrix, 2x2 tables and number of patients agree."""
    matrix = whole_matrix(table)
    return (
        matrix == table.matrix
        and two_by_two_tables(matrix) == table.two_by_two
        and sum(map(sum, matrix)) == table.n_patients
        and not table.collapsed
    )


def protect(table: Any, policy: Policy, earlier: Earlier | None = None) -> Changes:
    """Suppress what the audited suppression withholds, beside what was told earlier if given."""
    matrix = whole_matrix(table)
    k, zero = policy.minimum_cell, policy.zero_is_small
    if earlier is None:
        safe = protect_table(matrix, k, zero)
    else:
        found = protect_beside(matrix, k, zero, earlier)
        if found is None:
            return RefusalCode.UNPROTECTABLE
        safe = found
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
