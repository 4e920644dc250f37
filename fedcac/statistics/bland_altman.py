"""Bland-Altman: bias and limits of agreement of index minus reference score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import ClassVar

import numpy as np
from scipy import special

from fedcac.aggregate import Aggregate, Moments, register
from fedcac.exams import Exams, vessel_columns
from fedcac.exchange.messages import Query
from fedcac.protocol import BlandAltmanSpec
from fedcac.statistics.estimator import (
    NO_FITS,
    POOLED,
    Answers,
    Estimate,
    Estimator,
    Pooling,
    QueryError,
    register_estimator,
)
from fedcac.statistics.fit import Fit
from fedcac.statistics.heterogeneity import MINIMUM_SITES
from fedcac.statistics.meta_rows import meta_rows, without
from fedcac.statistics.rows import Value, absent_status, refusal_status, value_row
from fedcac.vocabulary import CellStatus, Measure, RefusalCode, RowStatus, SiteName, Vessel

__all__ = ["BlandAltman", "DifferenceMoments"]

TOTAL = ""
MOMENTS_QUERY = Query(step="moments")
LIMIT = 1.96
"""Limits of agreement stand this many standard deviations from the bias (Bland and Altman)."""


@register
class DifferenceMoments(Moments):
    """Moments of index minus reference score: total, then LM, LAD, LCX, RCA if per vessel."""

    kind: ClassVar[str] = "difference_moments"


@dataclass(frozen=True)
class Spread:
    """Number of differences, their mean and sum of squared deviations from it."""

    n: int
    mean: float
    m2: float

    def merge(self, other: Spread) -> Spread:
        """Return the moments of both groups together (Chan, Golub and LeVeque 1983)."""
        n = self.n + other.n
        if n == 0:
            return self
        shift = other.mean - self.mean
        return Spread(
            n,
            self.mean + shift * other.n / n,
            self.m2 + other.m2 + shift**2 * self.n * other.n / n,
        )


Scope = Spread | RowStatus


@register_estimator
class BlandAltman(Estimator[BlandAltmanSpec]):
    """Bias with a t interval and limits of agreement bias +- 1.96 s (Eng 2021 Fig. 1).

    SE(bias) = s / sqrt(n); SE(limit) = s sqrt(1/n + 1.96^2 / (2(n-1))); both intervals use t with
    n - 1 degrees of freedom. Term is empty for the total score, else the vessel. `meta` gives the
    random-effects mean of the sites' biases and how they differ, when three sites or more took
    part; the pooled bias is again given without each site, group `without <site>`.
    """

    kind: ClassVar[str] = "bland_altman"
    aggregate_types: ClassVar[tuple[type[Aggregate], ...]] = (DifferenceMoments,)

    @property
    def terms(self) -> tuple[str, ...]:
        """The total score, and the vessels if the protocol asks for them."""
        return (TOTAL, *(vessel.value for vessel in Vessel)) if self.spec.per_vessel else (TOTAL,)

    def summarise(self, exams: Exams, query: Query) -> DifferenceMoments:
        """Return the moments of the differences; a vessel without scores has n = 0.

        Raises
        ------
        QueryError
            If the query is not the step `moments` without values.
        KeyError
            If a total score column is absent.
        """
        if query != MOMENTS_QUERY:
            raise QueryError("differences are asked by the step 'moments' without values")
        complete = self.cohort(exams)
        spreads = [self._spread(complete, term) for term in self.terms]
        return DifferenceMoments(
            n_patients=complete.n,
            n=tuple(spread.n for spread in spreads),
            mean=tuple(spread.mean for spread in spreads),
            m2=tuple(spread.m2 for spread in spreads),
        )

    def _spread(self, exams: Exams, term: str) -> Spread:
        roles = (self.spec.index, self.spec.reference)
        totals = tuple(self.protocol.score_column(role) for role in roles)
        names = totals if term == TOTAL else vessel_columns(term)
        if not all(exams.has(name) for name in names):
            return Spread(0, 0.0, 0.0)
        scored = exams.complete(names)
        difference = scored.column(names[0]) - scored.column(names[1])
        if scored.n == 0:
            return Spread(0, 0.0, 0.0)
        mean = float(np.mean(difference))
        return Spread(scored.n, mean, float(np.sum((difference - mean) ** 2)))

    def pool(self, sites: Sequence[SiteName], fits: Mapping[str, Fit] = NO_FITS) -> Pooling:
        """Ask once, then give bias and limits per site and pooled."""
        answers = yield MOMENTS_QUERY
        rows: list[Estimate] = []
        for position, term in enumerate(self.terms):
            scopes = self._scopes(answers, sites, position)
            for scope, spread in scopes.items():
                rows.extend(self._scope_rows(scope, term, spread))
            rows.extend(self._heterogeneity_rows(scopes, term))
            rows.extend(self._without_rows(scopes, term))
        return tuple(rows)

    def _scopes(
        self, answers: Answers, sites: Sequence[SiteName], position: int
    ) -> dict[str, Scope]:
        scopes: dict[str, Scope] = {site: self._scope(answers[site], position) for site in sites}
        given = [spread for spread in scopes.values() if isinstance(spread, Spread)]
        absent = absent_status(s for s in scopes.values() if isinstance(s, RowStatus))
        return {**scopes, POOLED: reduce(Spread.merge, given) if given else absent}

    def _scope(self, answer: Aggregate | RefusalCode, position: int) -> Scope:
        if isinstance(answer, RefusalCode):
            return refusal_status(answer)
        if not isinstance(answer, DifferenceMoments) or len(answer.n) != len(self.terms):
            return RowStatus.ERROR
        n, mean, m2 = answer.n[position], answer.mean[position], answer.m2[position]
        if isinstance(n, CellStatus) or isinstance(mean, CellStatus) or isinstance(m2, CellStatus):
            return RowStatus.SUPPRESSED
        return Spread(n, mean, max(m2, 0.0))

    def _scope_rows(self, scope: str, term: str, spread: Scope) -> Iterator[Estimate]:
        measures = {Measure.BIAS: 0.0, Measure.LOA_LOW: -LIMIT, Measure.LOA_HIGH: LIMIT}
        for measure, distance in measures.items():
            if isinstance(spread, RowStatus):
                yield Estimate(self.spec.id, scope, measure, term=term, status=spread)
                continue
            n = spread.n
            if n < 2:
                status = RowStatus.NOT_ESTIMABLE
                yield Estimate(self.spec.id, scope, measure, term=term, n=n, status=status)
                continue
            sd = (spread.m2 / (n - 1)) ** 0.5
            se = sd * (1 / n + distance**2 / (2 * (n - 1))) ** 0.5
            estimate = spread.mean + distance * sd
            value = Value(estimate)
            # Differences that are all the same show no spread, which is not certainty.
            if se > 0:
                half = float(special.stdtrit(n - 1, 0.975)) * se
                p = _t_test(estimate, se, n - 1) if measure is Measure.BIAS else None
                value = Value(estimate, se, estimate - half, estimate + half, "t", p)
            yield value_row(self.spec.id, scope, measure, value, term=term, n=n)

    def _without_rows(self, scopes: Mapping[str, Scope], term: str) -> Iterator[Estimate]:
        given = {s: own for s, own in scopes.items() if s != POOLED and isinstance(own, Spread)}
        if len(given) < MINIMUM_SITES:
            return
        for site in given:
            rest = reduce(Spread.merge, (own for other, own in given.items() if other != site))
            bias = next(self._scope_rows(POOLED, term, rest))
            yield replace(bias, group=without(SiteName(site)))

    def _heterogeneity_rows(self, scopes: Mapping[str, Scope], term: str) -> Iterator[Estimate]:
        if len(scopes) - 1 < MINIMUM_SITES:
            return
        known = [
            spread
            for scope, spread in scopes.items()
            if scope != POOLED and isinstance(spread, Spread) and spread.n >= 2
        ]
        yield from meta_rows(
            self.spec.id,
            Measure.BIAS,
            term,
            [spread.mean for spread in known],
            [spread.m2 / (spread.n - 1) / spread.n for spread in known],
            sum(spread.n for spread in known),
        )


def _t_test(estimate: float, se: float, df: int) -> float:
    return float(2 * special.stdtr(df, -abs(estimate) / se))
