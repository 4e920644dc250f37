"""Adding up what sites released, or saying why it cannot be added."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedcac.aggregate import Aggregate, BinnedCounts, Moments, PairedMoments, Totals
from fedcac.statistics.estimator import Answers
from fedcac.statistics.rows import absent_status, refusal_status
from fedcac.vocabulary import RefusalCode, RowStatus, SiteName

__all__ = [
    "answered",
    "is_binned",
    "is_long",
    "is_table",
    "missing_status",
    "summed_totals",
    "totals_status",
]

A = TypeVar("A", bound=Aggregate)


def summed_totals(
    answers: Answers, sites: Sequence[SiteName], kind: type[Totals], shape: tuple[int, int]
) -> NDArray[np.float64] | None:
    """Return the sum over `sites` of totals of a shape; None if any of them did not give it.

    For sums at the maximum of a fit, which mean nothing without one of the fit's sites.
    """
    tables = []
    for site in sites:
        answer = answers[site]
        if not isinstance(answer, kind):
            return None
        # A row that is withheld is empty.
        if [len(row) for row in answer.values] != [shape[1]] * shape[0]:
            return None
        tables.append(answer.values)
    return np.sum(tables, axis=0) if tables else None


def answered(
    answers: Answers,
    sites: Sequence[SiteName],
    kind: type[A],
    is_fit: Callable[[A], bool],
) -> tuple[dict[SiteName, A], dict[SiteName, RefusalCode]]:
    """Return the answers of a kind in the sites' order, and why the other sites have none.

    An answer of another kind, or of a shape that does not fit the question, is a fault at the site.
    """
    given: dict[SiteName, A] = {}
    refused: dict[SiteName, RefusalCode] = {}
    for site in sites:
        answer = answers[site]
        if isinstance(answer, kind) and is_fit(answer):
            given[site] = answer
        elif isinstance(answer, RefusalCode):
            refused[site] = answer
        else:
            refused[site] = RefusalCode.INTERNAL
    return given, refused


def is_table(rows: int, columns: int) -> Callable[[Totals], bool]:
    """Say of totals whether they have so many rows, each withheld or of so many columns."""
    return lambda answer: (
        len(answer.values) == rows and all(len(row) in (0, columns) for row in answer.values)
    )


def is_binned(grids: Sequence[tuple[int, int]]) -> Callable[[BinnedCounts], bool]:
    """Say of binned counts whether each variable has its number of groups, on its grid of bins.

    `grids` holds both numbers per variable.
    """

    def is_fit(answer: BinnedCounts) -> bool:
        return len(answer.starts) == len(grids) and all(
            len(groups) == n_groups and all(start < n_bins for row in groups for start in row)
            for groups, (n_groups, n_bins) in zip(answer.starts, grids, strict=True)
        )

    return is_fit


def is_long(length: int) -> Callable[[Moments | PairedMoments], bool]:
    """Say of moments whether they have so many terms."""
    return lambda answer: len(answer.n) == length


def missing_status(codes: Iterable[RefusalCode]) -> RowStatus:
    """Return the status of a pooled row behind which no site stands."""
    return absent_status(refusal_status(code) for code in codes)


def totals_status(answers: Answers, sites: Sequence[SiteName], kind: type[Totals]) -> RowStatus:
    """Return the status of rows that need the sum of `summed_totals` where there is none."""
    given, refused = answered(answers, sites, kind, lambda _: True)
    # Whoever answered without giving the sum gave another shape than was asked.
    codes = (*refused.values(), *([RefusalCode.INTERNAL] if given and not refused else []))
    return missing_status(codes)
