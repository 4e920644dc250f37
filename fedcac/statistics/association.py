"""Correlation of two scores: Pearson's r, intraclass and concordance correlation, per site too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import ClassVar

import numpy as np

from fedcac.aggregate import Aggregate, PairedMoments, register
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import CorrelationSpec
from fedcac.statistics.correlation import CoMoments, ccc, icc, pearson
from fedcac.statistics.estimator import (
    NO_FITS,
    POOLED,
    Estimate,
    Estimator,
    Pooling,
    QueryError,
    register_estimator,
)
from fedcac.statistics.fit import Fit
from fedcac.statistics.rows import absent_status, refusal_status
from fedcac.statistics.sums import answered, is_long
from fedcac.vocabulary import CellStatus, Measure, RowStatus, SiteName

__all__ = ["Association", "ScoreMoments"]

MOMENTS_QUERY = Query(step="moments")


@register
class ScoreMoments(PairedMoments):
    """Moments of the index (x) and the reference score (y)."""

    kind: ClassVar[str] = "score_moments"


@register_estimator
class Association(Estimator[CorrelationSpec]):
    """Pearson's r, ICC(1), ICC(2), ICC(3) (term) and Lin's CCC, per site and pooled.

    All are functions of means, variances and the covariance of the summed moments.
    """

    kind: ClassVar[str] = "correlation"
    aggregate_types: ClassVar[tuple[type[Aggregate], ...]] = (ScoreMoments,)

    def summarise(self, exams: Exams, query: Query) -> ScoreMoments:
        """Return the moments of the two scores; QueryError for another query."""
        if query != MOMENTS_QUERY:
            raise QueryError("correlations are asked by the step 'moments' without values")
        complete = self.cohort(exams)
        x, y = (
            complete.column(self.protocol.score_column(role))
            for role in (self.spec.index, self.spec.reference)
        )
        if self.spec.scale == "log":
            x, y = np.log1p(x), np.log1p(y)
        own = CoMoments.from_values(x, y) if complete.n else CoMoments(0, 0.0, 0.0, 0.0, 0.0, 0.0)
        return ScoreMoments(
            n_patients=complete.n,
            n=(own.n,),
            mean_x=(own.mean_x,),
            mean_y=(own.mean_y,),
            m2_x=(own.m2_x,),
            m2_y=(own.m2_y,),
            cross=(own.cross,),
        )

    def pool(self, sites: Sequence[SiteName], fits: Mapping[str, Fit] = NO_FITS) -> Pooling:
        """Ask once."""
        given, refused = answered((yield MOMENTS_QUERY), sites, ScoreMoments, is_long(1))
        scopes: dict[str, CoMoments | RowStatus] = {}
        for site in sites:
            if site in refused:
                scopes[site] = refusal_status(refused[site])
            else:
                scopes[site] = _moments(given[site])
        known = [own for own in scopes.values() if isinstance(own, CoMoments)]
        absent = absent_status(own for own in scopes.values() if isinstance(own, RowStatus))
        scopes[POOLED] = reduce(CoMoments.merge, known) if known else absent
        return tuple(row for scope, own in scopes.items() for row in self._rows(scope, own))

    def _rows(self, scope: str, own: CoMoments | RowStatus) -> Iterator[Estimate]:
        for measure, term in (
            (Measure.PEARSON_R, ""),
            *((Measure.ICC, kind) for kind in ("icc1", "icc2", "icc3")),
            (Measure.CCC, ""),
        ):
            if isinstance(own, RowStatus):
                yield Estimate(self.spec.id, scope, measure, term=term, status=own)
                continue
            if measure is Measure.PEARSON_R:
                found, method = pearson(own), "fisher_z"
            elif measure is Measure.ICC:
                found, method = icc(own, term), "f"
            else:
                found, method = ccc(own), "lin_z"
            if found is None:
                status = RowStatus.NOT_ESTIMABLE
                yield Estimate(self.spec.id, scope, measure, term=term, n=own.n, status=status)
                continue
            yield Estimate(
                self.spec.id,
                scope,
                measure,
                term=term,
                estimate=found.estimate,
                ci_low=found.ci_low,
                ci_high=found.ci_high,
                ci_method=method,
                p_value=found.p_value,
                n=own.n,
            )


def _moments(answer: ScoreMoments) -> CoMoments | RowStatus:
    parts = (answer.mean_x, answer.mean_y, answer.m2_x, answer.m2_y, answer.cross)
    numbers = [part[0] for part in parts]
    known = [number for number in numbers if not isinstance(number, CellStatus)]
    if isinstance(answer.n[0], CellStatus) or len(known) != len(numbers):
        return RowStatus.SUPPRESSED
    return CoMoments(answer.n[0], *known)
