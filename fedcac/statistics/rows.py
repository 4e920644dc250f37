"""What every estimator's rows have in common: the status of a refusal and the normal test."""

from __future__ import annotations

from scipy import special

from fedcac.vocabulary import RefusalCode, RowStatus

__all__ = ["refusal_status", "two_sided_p"]

_NOTHING_TO_ESTIMATE = frozenset({RefusalCode.NOT_COMPUTABLE, RefusalCode.EMPTY_COHORT})


def refusal_status(code: RefusalCode) -> RowStatus:
    """Return the status of a refused site's rows.

    `not_estimable` if the site had nothing to compute from, `suppressed` for every other code.
    """
    return RowStatus.NOT_ESTIMABLE if code in _NOTHING_TO_ESTIMATE else RowStatus.SUPPRESSED


def two_sided_p(estimate: float, se: float) -> float | None:
    """Return the two-sided normal p-value of estimate / se; None without a standard error."""
    return float(2 * special.ndtr(-abs(estimate) / se)) if se > 0 else None
