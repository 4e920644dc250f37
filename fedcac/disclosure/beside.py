"""Which counts of a cross table may leave beside everything told before.

First come, first served: what was told stays told, and the new table gives way. In order: what it
gives by itself; the rows of its 2x2 tables withdrawn one by one; coarser collapses; its number of
patients alone. The first of these that confines no small group more than it was leaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fedcac.disclosure.audit import Mask, Possible, is_any_narrowed, nested_differences
from fedcac.disclosure.cross_table import (
    Matrix,
    ProtectedTable,
    collapse,
    collapses,
    has_small,
    protect_table,
    rectangles,
    released_sums,
    withdrawal_order,
)
from fedcac.disclosure.facts import Earlier

__all__ = ["protect_beside"]

MAXIMUM_PROGRAMS = 1500
"""Integer programs per form of a table. A form that takes more counts as exposed."""


def protect_beside(matrix: Matrix, k: int, zero: bool, earlier: Earlier) -> ProtectedTable | None:
    """Return what may leave of a matrix of counts beside earlier facts.

    Parameters
    ----------
    matrix, k, zero
        As in `protect_table`.
    earlier
        What is known before, over atoms of which the table's cells are some.

    Returns
    -------
    ProtectedTable | None
        None if not even the number of patients may be told.
    """
    before = Possible(earlier.facts, earlier.n_patients, MAXIMUM_PROGRAMS)
    table = np.asarray(matrix, dtype=np.int64)
    for form in _forms(matrix, k, zero):
        cells, sums = _told_by(form, len(matrix))
        known = earlier.facts.joined(
            earlier.on_atoms(cells), cells.astype(np.int64) @ table.reshape(-1)
        )
        after = Possible(known, earlier.n_patients, MAXIMUM_PROGRAMS)
        groups = np.vstack(
            [rectangles(len(matrix)), nested_differences(np.vstack([sums, earlier.own_sums]))]
        )
        counts = groups.astype(np.int64) @ table.reshape(-1)
        small = (counts < k) & (zero | (counts > 0))
        own = earlier.on_atoms(groups)
        if not is_any_narrowed(before, after, own, small, k, zero=zero) and not is_any_narrowed(
            before, after, earlier.others, None, k, zero=zero
        ):
            return form
    return None


def _forms(matrix: Matrix, k: int, zero: bool) -> Iterator[ProtectedTable]:
    """Yield what a table may give by itself, then less and less."""
    first = protect_table(matrix, k, zero)
    yield first
    table = np.asarray(matrix, dtype=np.int64)
    safe = [
        kept
        for kept in collapses(len(matrix) - 1)
        if not has_small(np.asarray(collapse(table, kept)), k, zero)
    ]
    finest = safe[0] if safe else ()
    for kept in (*safe, ()):
        form = ProtectedTable(False, kept, collapse(table, kept), first.rows)
        fewer = list(_withdrawn(form, len(matrix) - 1))
        # Of the collapses between, what follows from them alone.
        yield from fewer if kept in (finest, ()) else fewer[-1:]


def _withdrawn(form: ProtectedTable, n_cut_offs: int) -> Iterator[ProtectedTable]:
    """Yield a form with fewer and fewer rows, down to those that follow from its collapse."""
    rows = form.rows
    yield form
    for row in withdrawal_order(n_cut_offs):
        if row in rows and row[0] not in form.kept_cut_offs:
            rows -= {row}
            yield replace(form, rows=rows)


def _told_by(form: ProtectedTable, size: int) -> tuple[Mask, Mask]:
    """Return the cells of every number of a form, and these with the sums that follow."""
    if not form.is_whole:
        return released_sums(size, form.kept_cut_offs, form.rows)
    cells = np.eye(size**2, dtype=np.bool_)
    # The categories are known one by one, so that no sum over them is news.
    return cells, cells
