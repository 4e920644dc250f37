"""Counts of patients by reference and index category, as agreement and accuracy both need them.

Both estimators ask the identical question, so a site releases the table once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedcac.aggregate import Count, CrossTable, register
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import CategoryScheme
from fedcac.statistics.estimator import Answers, QueryError
from fedcac.vocabulary import BoundaryConvention, CellStatus, RefusalCode, SiteName

__all__ = [
    "COUNTS_QUERY",
    "ConfusionCounts",
    "common_cut_offs",
    "confusion_answers",
    "confusion_counts",
    "count_matrix",
    "matrix_on",
    "merged_labels",
]

COUNTS_QUERY = Query(step="counts")

Matrix = NDArray[np.int64]


@register
class ConfusionCounts(CrossTable):
    """Patients by reference category (rows) and index category (columns)."""

    kind: ClassVar[str] = "confusion_counts"


def confusion_counts(
    exams: Exams, query: Query, scheme: CategoryScheme, index: str, reference: str
) -> ConfusionCounts:
    """Return the category matrix and the 2x2 tables of two score columns without a gap.

    Raises
    ------
    QueryError
        If the query is not `COUNTS_QUERY`.
    KeyError
        If a score column is absent.
    ValueError
        If a score is negative.
    """
    if query != COUNTS_QUERY:
        raise QueryError("confusion counts are asked by the step 'counts' without values")
    columns, rows = (scheme.categorise(exams.column(name)) for name in (index, reference))
    size = scheme.n_categories
    matrix = np.bincount(rows * size + columns, minlength=size**2).reshape(size, size)
    return ConfusionCounts(
        n_patients=exams.n,
        matrix=tuple(tuple(int(count) for count in row) for row in matrix),
        two_by_two=tuple(_two_by_two(matrix, cut_off) for cut_off in range(1, size)),
    )


def _two_by_two(matrix: Matrix, first_positive: int) -> tuple[int, int, int, int]:
    negative, positive = slice(None, first_positive), slice(first_positive, None)
    tp, fn, fp, tn = (
        int(matrix[rows, columns].sum())
        for rows in (positive, negative)
        for columns in (positive, negative)
    )
    return tp, fn, fp, tn


def confusion_answers(
    answers: Answers, sites: Sequence[SiteName], scheme: CategoryScheme
) -> dict[SiteName, ConfusionCounts | RefusalCode]:
    """Return the sites' answers in order; one that does not fit the scheme is a site's fault."""
    checked: dict[SiteName, ConfusionCounts | RefusalCode] = {}
    for site in sites:
        answer = answers[site]
        is_fit = isinstance(answer, ConfusionCounts) and len(answer.matrix) == scheme.n_categories
        if isinstance(answer, RefusalCode) or (isinstance(answer, ConfusionCounts) and is_fit):
            checked[site] = answer
        else:
            checked[site] = RefusalCode.INTERNAL
    return checked


def count_matrix(rows: tuple[tuple[Count, ...], ...]) -> Matrix | None:
    """Return released rows as an array, or None if they are absent or a cell is suppressed."""
    if not rows or any(isinstance(count, CellStatus) for row in rows for count in row):
        return None
    return np.array(rows, dtype=np.int64)


def _merge(matrix: Matrix, starts: Sequence[int]) -> Matrix:
    by_row = np.add.reduceat(matrix, [0, *starts], axis=0)
    merged: Matrix = np.add.reduceat(by_row, [0, *starts], axis=1)
    return merged


def common_cut_offs(answers: Sequence[ConfusionCounts | RefusalCode]) -> tuple[int, ...]:
    """Return the indices of the cut-offs that every site kept, over the sites with a matrix.

    Empty if no site gave a matrix or if the sites have no cut-off in common.
    """
    kept = []
    for answer in answers:
        if isinstance(answer, RefusalCode):
            continue
        if count_matrix(answer.matrix) is not None:
            kept.append(set(range(len(answer.matrix) - 1)))
        elif count_matrix(answer.collapsed) is not None:
            kept.append(set(answer.kept_cut_offs))
    return tuple(sorted(set.intersection(*kept))) if kept else ()


def matrix_on(answer: ConfusionCounts | RefusalCode, kept: Sequence[int]) -> Matrix | None:
    """Return a site's matrix with the categories between the `kept` cut-offs merged.

    `kept` holds indices of cut-offs, increasing. None if the site did not give enough.
    """
    if isinstance(answer, RefusalCode):
        return None
    matrix = count_matrix(answer.matrix)
    if matrix is not None:
        return _merge(matrix, [cut_off + 1 for cut_off in kept])
    collapsed = count_matrix(answer.collapsed)
    if collapsed is None or not set(kept) <= set(answer.kept_cut_offs):
        return None
    return _merge(collapsed, [answer.kept_cut_offs.index(cut_off) + 1 for cut_off in kept])


def merged_labels(scheme: CategoryScheme, kept: Sequence[int]) -> tuple[str, ...]:
    """Return names of the categories between the kept cut-offs, such as `0-100`, `>100`.

    A category that is not merged keeps its own label.
    """
    edges = [0, *(cut_off + 1 for cut_off in kept), scheme.n_categories]
    names = []
    for first, end in pairwise(edges):
        if end - first == 1:
            names.append(scheme.labels[first])
        elif end == scheme.n_categories:
            low, is_included = _lowest_above(scheme, first - 1)
            names.append(f"{'>=' if is_included else '>'}{low:g}")
        else:
            names.append(_range_label(scheme, first, end))
    return tuple(names)


def _range_label(scheme: CategoryScheme, first: int, end: int) -> str:
    upper, is_open = _lowest_above(scheme, end - 1)
    if first == 0:
        return f"<{upper:g}" if is_open else f"0-{upper:g}"
    lower, is_included = _lowest_above(scheme, first - 1)
    if is_included:
        start = f"{lower:g}"
    else:
        # Agatston categories are written for whole scores: above 10 reads 11.
        start = f"{lower + 1:g}" if lower == int(lower) else f">{lower:g}"
    return f"{start}-<{upper:g}" if is_open else f"{start}-{upper:g}"


def _lowest_above(scheme: CategoryScheme, cut_off: int) -> tuple[float, bool]:
    """Return where the scores above a cut-off begin, and whether that score is one of them."""
    score = scheme.cut_offs[cut_off]
    if scheme.convention is BoundaryConvention.GUIDELINE_GE:
        return score, True
    if score > 1:
        return score, False
    is_any = scheme.convention is BoundaryConvention.ANY_GT0
    return (0.0, False) if is_any else (score, True)
