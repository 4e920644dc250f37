"""Each site's own Cox model beside the pooled one: how the hazard ratios differ between sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from fedcac.aggregate import Aggregate, LikelihoodTerms
from fedcac.exchange.messages import Query
from fedcac.protocol import CoxSpec
from fedcac.statistics.estimator import META, Estimate
from fedcac.statistics.fit import Fit
from fedcac.statistics.heterogeneity import MINIMUM_SITES, random_effects
from fedcac.statistics.meta_rows import meta_rows, without
from fedcac.statistics.newton import maximise
from fedcac.statistics.rows import Value, refusal_status, value_row, wald
from fedcac.vocabulary import Measure, RefusalCode, RowStatus, SiteName

__all__ = ["BY_SITE_QUERY", "by_site_rows", "own_coefficients"]

BY_SITE_QUERY = Query(step="by_site")

_SELF = SiteName("self")


def own_coefficients(
    n_parameters: int, kind: type[LikelihoodTerms], terms_at: Callable[[Query], LikelihoodTerms]
) -> tuple[tuple[float, float], ...]:
    """Return the site's own log hazard ratios and their variances, one row per term.

    A term that the site's patients do not identify, or a model without a maximum, has (0, 0).

    Parameters
    ----------
    terms_at
        The likelihood's terms in answer to a query.
    """
    search = maximise((_SELF,), n_parameters, kind)
    query = next(search)
    fit: Fit | None = None
    while fit is None:
        try:
            query = search.send({_SELF: terms_at(query)})
        except StopIteration as stop:
            fit = stop.value
    # Both are 0 where a parameter is not identified, as none is without a maximum.
    found = zip(fit.coefficients.tolist(), np.diag(fit.covariance).tolist(), strict=True)
    return tuple(found)


def by_site_rows(
    spec: CoxSpec,
    terms: Sequence[str],
    given: Mapping[SiteName, Aggregate],
    refused: Mapping[SiteName, RefusalCode],
    sites: Sequence[SiteName],
) -> Iterator[Estimate]:
    """Yield every site's hazard ratios, and how they differ (`meta`), term by term.

    The random-effects mean is also given without each site, group `without <site>`. `given` holds
    totals with one row (log hazard ratio, variance) per term.
    """
    for j, term in enumerate(terms):
        known: dict[SiteName, tuple[float, float]] = {}
        for site in sites:
            row = getattr(given.get(site), "values", ())
            beta, variance = row[j] if len(row) == len(terms) and len(row[j]) == 2 else (0.0, 0.0)
            status = RowStatus.NOT_ESTIMABLE
            if site in refused:
                status = refusal_status(refused[site])
            if variance > 0:
                known[site] = (beta, variance)
            value = _ratio(wald(beta, variance**0.5, is_tested=True)) if variance > 0 else None
            n = given[site].n_patients if site in given else None
            yield value_row(
                spec.id, site, Measure.HAZARD_RATIO, value, absent=status, term=term, n=n
            )
        estimates = [beta for beta, _ in known.values()]
        variances = [variance for _, variance in known.values()]
        n = sum(given[site].n_patients for site in known)
        yield from meta_rows(
            spec.id,
            Measure.HAZARD_RATIO,
            term,
            estimates,
            variances,
            n,
            back=lambda log_ratio: float(np.exp(log_ratio)),
        )
        sizes = {site: given[site].n_patients for site in known}
        yield from _without_rows(spec, term, known, sizes)


def _without_rows(
    spec: CoxSpec,
    term: str,
    known: Mapping[SiteName, tuple[float, float]],
    sizes: Mapping[SiteName, int],
) -> Iterator[Estimate]:
    if len(known) <= MINIMUM_SITES:
        return
    for site in known:
        rest = [pair for other, pair in known.items() if other != site]
        mean = random_effects([beta for beta, _ in rest], [variance for _, variance in rest])
        value = None
        if mean is not None:
            low, high = (None, None) if mean.ci is None else mean.ci
            method = "" if mean.ci is None else "hartung_knapp"
            value = _ratio(Value(mean.estimate, mean.se, low, high, method))
        n = sum(sizes.values()) - sizes[site]
        yield value_row(
            spec.id, META, Measure.HAZARD_RATIO, value, group=without(site), term=term, n=n
        )


def _ratio(log_ratio: Value) -> Value:
    """Return a hazard ratio of its logarithm; the standard error is the logarithm's no more."""
    low, high = log_ratio.ci_low, log_ratio.ci_high
    return Value(
        float(np.exp(log_ratio.estimate)),
        None,
        None if low is None else float(np.exp(low)),
        None if high is None else float(np.exp(high)),
        log_ratio.ci_method,
        log_ratio.p_value,
    )
