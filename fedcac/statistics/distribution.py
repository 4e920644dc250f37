"""Whether two scores of the same patients are distributed alike: KS bounds and a sign-flip test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import ClassVar

import numpy as np
from scipy import special

from fedcac.aggregate import Aggregate, BinnedCounts, register
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import DistributionSpec
from fedcac.statistics.bland_altman import DifferenceMoments, Spread
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
from fedcac.statistics.grids import (
    bin_numbers,
    common_bins,
    grid_counts,
    released_row,
    score_edges,
)
from fedcac.statistics.rows import value_row, wald
from fedcac.statistics.sums import answered, is_binned, is_long, missing_status
from fedcac.vocabulary import CellStatus, Measure, RowStatus, SiteName

__all__ = ["Distribution", "ScoreHistogram"]

HISTOGRAM_QUERY = Query(step="histogram")
MOMENTS_QUERY = Query(step="moments")
N_BINS = 400


@register
class ScoreHistogram(BinnedCounts):
    """Patients by bin of the index score, then by bin of the reference score."""

    kind: ClassVar[str] = "score_histogram"


@register_estimator
class Distribution(Estimator[DistributionSpec]):
    """Two tests of equal distributions (Eng 2021, Results). Rows, all `pooled`.

    ks_d
        The largest distance of the two distribution functions on the public grid. The distance
        between grid points lies between ci_low and ci_high (ci_method `grid_bounds`). The p-value
        is that of the grid's distance by Kolmogorov's limit for two independent samples; the
        samples here are paired and share zeros, so it is reported as the paper did and not more.
    mean_difference
        Index minus reference, with the p-value of the sign-flip test, in which every patient's
        difference is as likely to have either sign: z = Sum d / sqrt(Sum d^2).
    """

    kind: ClassVar[str] = "distribution"
    aggregate_types: ClassVar[tuple[type[Aggregate], ...]] = (ScoreHistogram, DifferenceMoments)

    def summarise(self, exams: Exams, query: Query) -> ScoreHistogram | DifferenceMoments:
        """Return both histograms, or the moments of the differences; QueryError otherwise."""
        if query not in (HISTOGRAM_QUERY, MOMENTS_QUERY):
            raise QueryError("distributions ask the steps 'histogram' and 'moments' without values")
        complete = self.cohort(exams)
        scores = [
            complete.column(self.protocol.score_column(role))
            for role in (self.spec.index, self.spec.reference)
        ]
        if query == MOMENTS_QUERY:
            d = scores[0] - scores[1]
            mean = float(d.mean()) if len(d) else 0.0
            return DifferenceMoments(
                n_patients=complete.n,
                n=(complete.n,),
                mean=(mean,),
                m2=(float(np.sum((d - mean) ** 2)),),
            )
        everyone = np.zeros(complete.n, dtype=np.int64)
        edges, grid = score_edges(N_BINS), tuple(range(N_BINS))
        return ScoreHistogram(
            n_patients=complete.n,
            starts=((grid,), (grid,)),
            counts=tuple(
                grid_counts(bin_numbers(score, edges), everyone, 1, N_BINS) for score in scores
            ),
        )

    def pool(self, sites: Sequence[SiteName], fits: Mapping[str, Fit] = NO_FITS) -> Pooling:
        """Ask for histograms, then for moments."""
        shape = is_binned([(1, N_BINS)] * 2)
        histograms, hidden = answered((yield HISTOGRAM_QUERY), sites, ScoreHistogram, shape)
        moments, refused = answered((yield MOMENTS_QUERY), sites, DifferenceMoments, is_long(1))
        return (
            self._ks_row(list(histograms.values()), missing_status(hidden.values())),
            *self._flip_rows(list(moments.values()), missing_status(refused.values())),
        )

    def _ks_row(self, histograms: Sequence[ScoreHistogram], absent: RowStatus) -> Estimate:
        pairs = [(released_row(answer, 0, 0), released_row(answer, 1, 0)) for answer in histograms]
        known = [(one, other) for one, other in pairs if one is not None and other is not None]
        if not known:
            status = RowStatus.SUPPRESSED if pairs else absent
            return Estimate(self.spec.id, POOLED, Measure.KS_D, status=status)
        starts, counts = common_bins([row for pair in known for row in pair])
        index = common_bins([(starts, np.zeros_like(counts)), *(one for one, _ in known)])[1]
        reference = counts - index
        n = int(index.sum())
        if n == 0:
            return value_row(self.spec.id, POOLED, Measure.KS_D, None, n=0)
        steps = np.abs(np.cumsum(index - reference)) / n
        distance = float(steps.max())
        # Between two grid points the functions can part by what the bin between holds, no more;
        # the first bin is a single value.
        before = np.concatenate([[0], np.cumsum(index - reference)[:-1]]) / n
        inside = np.maximum(np.abs(before + index / n), np.abs(before - reference / n))
        if len(starts) > 1 and starts[1] == 1:
            inside[0] = steps[0]
        bound = float(np.max(inside))
        return Estimate(
            self.spec.id,
            POOLED,
            Measure.KS_D,
            estimate=distance,
            ci_low=distance,
            ci_high=min(1.0, bound),
            ci_method="grid_bounds",
            p_value=float(special.kolmogorov((n / 2) ** 0.5 * distance)),
            n=n,
        )

    def _flip_rows(
        self, moments: Sequence[DifferenceMoments], absent: RowStatus
    ) -> Iterator[Estimate]:
        spreads = []
        for answer in moments:
            n, mean, m2 = answer.n[0], answer.mean[0], answer.m2[0]
            if not any(isinstance(cell, CellStatus) for cell in (n, mean, m2)):
                spreads.append(Spread(int(n), float(mean), float(m2)))
        whole = reduce(Spread.merge, spreads) if spreads else None
        if whole is None or whole.n < 2:
            status = RowStatus.SUPPRESSED if moments and whole is None else absent
            yield Estimate(self.spec.id, POOLED, Measure.MEAN_DIFFERENCE, status=status)
            return
        n, mean = whole.n, whole.mean
        squares = whole.m2 + n * mean**2
        se = (whole.m2 / (n - 1) / n) ** 0.5
        z = n * mean / squares**0.5 if squares > 0 else None
        p = None if z is None else float(2 * special.ndtr(-abs(z)))
        value = replace(wald(mean, se), p_value=p)
        yield value_row(self.spec.id, POOLED, Measure.MEAN_DIFFERENCE, value, n=n)
