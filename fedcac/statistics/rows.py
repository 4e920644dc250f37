"""What every estimator's rows have in common: a value with its interval, the normal test."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scipy import special

from fedcac.statistics.estimator import Estimate
from fedcac.statistics.fit import Fit, FitStatus
from fedcac.statistics.intervals import Z95
from fedcac.vocabulary import Measure, RefusalCode, RowStatus

__all__ = [
    "Value",
    "absent_status",
    "fit_status",
    "refusal_status",
    "two_sided_p",
    "value_row",
    "wald",
]

_STATUS_OF = {
    # The site has nothing that the number could be about.
    RefusalCode.NOT_COMPUTABLE: RowStatus.NOT_APPLICABLE,
    RefusalCode.EMPTY_COHORT: RowStatus.NOT_APPLICABLE,
    # The policy in force, or a person who applied it, said no.
    RefusalCode.TOO_FEW_PATIENTS: RowStatus.SUPPRESSED,
    RefusalCode.TOO_FEW_EVENTS: RowStatus.SUPPRESSED,
    RefusalCode.TOO_FEW_PER_CATEGORY: RowStatus.SUPPRESSED,
    RefusalCode.TOO_MANY_PARAMETERS: RowStatus.SUPPRESSED,
    RefusalCode.TOO_MANY_EXCHANGES: RowStatus.SUPPRESSED,
    RefusalCode.PARAMETERS_OUT_OF_BOUNDS: RowStatus.SUPPRESSED,
    RefusalCode.BUDGET_SPENT: RowStatus.SUPPRESSED,
    RefusalCode.NESTED_COHORT: RowStatus.SUPPRESSED,
    RefusalCode.UNPROTECTABLE: RowStatus.SUPPRESSED,
    RefusalCode.REJECTED_BY_SITE: RowStatus.SUPPRESSED,
    RefusalCode.TOO_FEW_SITES: RowStatus.SUPPRESSED,
    RefusalCode.SITES_CHANGED: RowStatus.SUPPRESSED,
}
_ORDER = (
    RowStatus.SUPPRESSED,
    RowStatus.ERROR,
    RowStatus.NOT_ESTIMABLE,
    RowStatus.NOT_APPLICABLE,
)


def refusal_status(code: RefusalCode) -> RowStatus:
    """Return the status of a refused site's rows: the one place where codes become statuses.

    Every code that is neither a decision of disclosure control nor a site without what the
    analysis is about is a fault: `error`. That holds for a code added later, too, until somebody
    says otherwise here.
    """
    return _STATUS_OF.get(code, RowStatus.ERROR)


def absent_status(statuses: Iterable[RowStatus]) -> RowStatus:
    """Return the status of a pooled row behind which no site stands, from those of the sites.

    Suppressed if one site is, else an error if one site's answer is, then not estimable; not
    applicable only if it is so at every site. Without any site the row is not estimable.
    """
    found = set(statuses)
    return next((status for status in _ORDER if status in found), RowStatus.NOT_ESTIMABLE)


def fit_status(fit: Fit) -> RowStatus:
    """Return the status of the rows of a fit.

    Where no site answered, as `absent_status`. A search that ended without a maximum is
    suppressed if sites' bounds on the parameters stopped it, not estimable if the likelihood has
    no maximum or the patients do not determine the parameters, and an error otherwise.
    """
    if fit.status is FitStatus.NO_ANSWER:
        return absent_status(refusal_status(code) for code in fit.refused.values())
    return {
        FitStatus.OK: RowStatus.OK,
        FitStatus.NOT_IDENTIFIED: RowStatus.NOT_ESTIMABLE,
        FitStatus.UNBOUNDED: RowStatus.NOT_ESTIMABLE,
        FitStatus.NOT_CONVERGED: RowStatus.ERROR,
        FitStatus.OUT_OF_BOUNDS: RowStatus.SUPPRESSED,
    }[fit.status]


def two_sided_p(estimate: float, se: float) -> float | None:
    """Return the two-sided normal p-value of estimate / se; None without a standard error."""
    return float(2 * special.ndtr(-abs(estimate) / se)) if se > 0 else None


@dataclass(frozen=True)
class Value:
    """A number with its standard error, 95 % interval and p-value, as far as it has them."""

    estimate: float
    se: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    ci_method: str = ""
    p_value: float | None = None


def wald(
    estimate: float,
    se: float | None,
    *,
    low: float = -float("inf"),
    high: float = float("inf"),
    method: str = "wald",
    is_tested: bool = False,
) -> Value:
    """Return a value with Wald's interval, cut to low .. high, and on request its test of 0.

    Without an interval where `se` is None or 0: few patients who all are alike show no spread,
    which is not certainty.
    """
    if se is None or se <= 0:
        return Value(estimate)
    return Value(
        estimate,
        se,
        max(low, estimate - Z95 * se),
        min(high, estimate + Z95 * se),
        method,
        two_sided_p(estimate, se) if is_tested else None,
    )


def value_row(
    analysis: str,
    scope: str,
    measure: Measure,
    value: Value | None,
    *,
    absent: RowStatus = RowStatus.NOT_ESTIMABLE,
    group: str = "",
    term: str = "",
    n: int | None = None,
    n_events: int | None = None,
) -> Estimate:
    """Return the row of a value, or one without a number and with the status `absent`."""
    if value is None:
        return Estimate(
            analysis, scope, measure, group=group, term=term, n=n, n_events=n_events, status=absent
        )
    return Estimate(
        analysis,
        scope,
        measure,
        group=group,
        term=term,
        estimate=value.estimate,
        se=value.se,
        ci_low=value.ci_low,
        ci_high=value.ci_high,
        ci_method=value.ci_method,
        p_value=value.p_value,
        n=n,
        n_events=n_events,
    )
