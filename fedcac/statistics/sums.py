"""Adding up what sites released, or saying why it cannot be added."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedcac.aggregate import Aggregate, Totals
from fedcac.statistics.estimator import Answers
from fedcac.statistics.rows import absent_status, refusal_status
from fedcac.vocabulary import RefusalCode, RowStatus, SiteName

__all__ = ["answered", "missing_status", "summed_totals", "totals_status"]


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
        values = np.array(answer.values, dtype=np.float64)
        if values.shape != shape:
            return None
        tables.append(values)
    return np.sum(tables, axis=0) if tables else None


def answered(
    answers: Answers, sites: Sequence[SiteName], kind: type[Aggregate]
) -> tuple[dict[SiteName, Aggregate], dict[SiteName, RefusalCode]]:
    """Return the answers of a kind in the sites' order, and why the other sites have none.

    An answer of another kind is a fault at the site.
    """
    given: dict[SiteName, Aggregate] = {}
    refused: dict[SiteName, RefusalCode] = {}
    for site in sites:
        answer = answers[site]
        if isinstance(answer, kind):
            given[site] = answer
        elif isinstance(answer, RefusalCode):
            refused[site] = answer
        else:
            refused[site] = RefusalCode.INTERNAL
    return given, refused


def missing_status(codes: Iterable[RefusalCode]) -> RowStatus:
    """Return the status of a pooled row behind which no site stands."""
    return absent_status(refusal_status(code) for code in codes)


def totals_status(answers: Answers, sites: Sequence[SiteName], kind: type[Totals]) -> RowStatus:
    """Return the status of rows that need the sum of `summed_totals` where there is none."""
    given, refused = answered(answers, sites, kind)
    # Whoever answered without giving the sum gave another shape than was asked.
    codes = (*refused.values(), *([RefusalCode.INTERNAL] if given and not refused else []))
    return missing_status(codes)
