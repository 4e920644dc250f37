"""Accuracy of the index test at every cut-off: sensitivity, specificity, PPV, NPV, F1, accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, NamedTuple

from scipy import special

from fedcac.aggregate import Aggregate, Count
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import AccuracySpec
from fedcac.statistics.confusion import (
    COUNTS_QUERY,
    ConfusionCounts,
    confusion_answers,
    confusion_counts,
)
from fedcac.statistics.estimator import (
    META,
    NO_FITS,
    POOLED,
    Estimate,
    Estimator,
    Pooling,
    register_estimator,
)
from fedcac.statistics.fit import Fit
from fedcac.statistics.heterogeneity import MINIMUM_SITES, logit_with_variance
from fedcac.statistics.intervals import eng2021, proportion_interval
from fedcac.statistics.meta_rows import meta_rows, without
from fedcac.statistics.reitsma import Fallback, Reitsma, reitsma
from fedcac.statistics.rows import absent_status, refusal_status
from fedcac.vocabulary import CellStatus, Interval, Measure, RefusalCode, RowStatus, SiteName

__all__ = ["Accuracy"]

CELLS = ("tp", "fn", "fp", "tn")
TP, FN, FP, TN = range(4)

# What is counted as a success, and out of what. F1 is computed through J = TP / (TP + FP + FN).
_FRACTIONS: dict[Measure, tuple[tuple[int, ...], tuple[int, ...]]] = {
    Measure.SENSITIVITY: ((TP,), (TP, FN)),
    Measure.SPECIFICITY: ((TN,), (FP, TN)),
    Measure.PPV: ((TP,), (TP, FP)),
    Measure.NPV: ((TN,), (FN, TN)),
    Measure.F1: ((TP,), (TP, FN, FP)),
    Measure.ACCURACY: ((TP, TN), (TP, FN, FP, TN)),
}


_BETWEEN_SITES = frozenset({Measure.SENSITIVITY, Measure.SPECIFICITY})

BIVARIATE = "bivariate"
"""Group of the rows of the bivariate random-effects model."""


class Fraction(NamedTuple):
    """Successes out of n patients; `n_total` counts all patients of the sites behind it."""

    successes: int
    n: int
    n_total: int


@register_estimator
class Accuracy(Estimator[AccuracySpec]):
    """Proportions of the 2x2 table at every cut-off (Eng 2021 Table 3). Term = the cut-off.

    Each measure is pooled over the sites that released the cells it needs; `n` is its denominator.
    F1 = 2J / (1 + J) with J = TP / (TP + FP + FN), and so is its interval from that of J. The 2x2
    counts are `count` rows with group tp, fn, fp or tn.

    When three sites or more took part, `meta` gives for sensitivity and specificity the
    random-effects mean of the logits, how the sites differ on the logit scale (`meta_rows`), and
    both together by Reitsma's bivariate model (group `bivariate`). Where that model cannot be
    fitted, with fewer than ten sites or a covariance on the edge of its range, its rows are not
    estimable (an error if it did not converge) and ci_method says why; the univariate means stand
    instead. `pooled` is again given without each site, group `without <site>`.
    """

    kind: ClassVar[str] = "accuracy"
    aggregate_types: ClassVar[tuple[type[Aggregate], ...]] = (ConfusionCounts,)

    def summarise(self, exams: Exams, query: Query) -> ConfusionCounts:
        """Return the site's confusion counts; raises as `confusion_counts`."""
        return confusion_counts(
            self.cohort(exams),
            query,
            self.protocol.categories,
            self.protocol.score_column(self.spec.index),
            self.protocol.score_column(self.spec.reference),
        )

    def pool(self, sites: Sequence[SiteName], fits: Mapping[str, Fit] = NO_FITS) -> Pooling:
        """Ask once, then give counts and proportions at every cut-off."""
        scheme = self.protocol.categories
        answers = confusion_answers((yield COUNTS_QUERY), sites, scheme)
        return tuple(
            row
            for position, cut_off in enumerate(scheme.cut_offs)
            for row in self._cut_off_rows(answers, position, f"{cut_off:g}")
        )

    def _cut_off_rows(
        self, answers: Mapping[SiteName, ConfusionCounts | RefusalCode], position: int, term: str
    ) -> Iterator[Estimate]:
        for number, cell in enumerate(CELLS):
            for scope, count in _scopes(answers, position, (number,), (number,)).items():
                yield self._count_row(scope, cell, term, count)
        for measure, (successes, denominator) in _FRACTIONS.items():
            scopes = _scopes(answers, position, successes, denominator)
            for scope, fraction in scopes.items():
                yield self._fraction_row(scope, measure, term, fraction)
            if len(answers) >= MINIMUM_SITES and measure in _BETWEEN_SITES:
                yield from self._heterogeneity_rows(scopes, measure, term)
        if len(answers) >= MINIMUM_SITES:
            yield from self._bivariate_rows(answers, position, term)

    def _count_row(self, scope: str, cell: str, term: str, count: Fraction | RowStatus) -> Estimate:
        if isinstance(count, RowStatus):
            return Estimate(self.spec.id, scope, Measure.COUNT, group=cell, term=term, status=count)
        return Estimate(
            self.spec.id,
            scope,
            Measure.COUNT,
            group=cell,
            term=term,
            estimate=float(count.successes),
            n=count.n_total,
        )

    def _fraction_row(
        self, scope: str, measure: Measure, term: str, fraction: Fraction | RowStatus
    ) -> Estimate:
        if isinstance(fraction, RowStatus):
            return Estimate(self.spec.id, scope, measure, term=term, status=fraction)
        successes, n, n_total = fraction
        if n == 0:
            return Estimate(
                self.spec.id, scope, measure, term=term, n=0, status=RowStatus.NOT_ESTIMABLE
            )
        p = successes / n
        se = (p * (1 - p) / n) ** 0.5
        low, high = proportion_interval(self.spec.interval, successes, n, n_total)
        if measure is Measure.F1:
            p, se, low, high = _f1(p), 2 * se / (1 + p) ** 2, _f1(low), _f1(high)
            if self.spec.interval is Interval.ENG2021:
                limits = eng2021(p, n_total)
                low, high = float(limits[0]), float(limits[1])
        return Estimate(
            self.spec.id,
            scope,
            measure,
            term=term,
            estimate=p,
            se=se,
            ci_low=low,
            ci_high=high,
            ci_method=self.spec.interval.value,
            n=n,
        )

    def _heterogeneity_rows(
        self, scopes: Mapping[str, Fraction | RowStatus], measure: Measure, term: str
    ) -> Iterator[Estimate]:
        known = {
            scope: fraction
            for scope, fraction in scopes.items()
            if scope != POOLED and not isinstance(fraction, RowStatus) and fraction.n > 0
        }
        logits = [logit_with_variance(own.successes, own.n) for own in known.values()]
        yield from meta_rows(
            self.spec.id,
            measure,
            term,
            [y for y, _ in logits],
            [v for _, v in logits],
            sum(fraction.n for fraction in known.values()),
            back=lambda logit: float(special.expit(logit)),
        )
        if len(known) < MINIMUM_SITES:
            return
        for site in known:
            rest = [own for other, own in known.items() if other != site]
            fraction = Fraction(*(sum(parts) for parts in zip(*rest, strict=True)))
            row = self._fraction_row(POOLED, measure, term, fraction)
            yield replace(row, group=without(SiteName(site)))

    def _bivariate_rows(
        self, answers: Mapping[SiteName, ConfusionCounts | RefusalCode], position: int, term: str
    ) -> Iterator[Estimate]:
        tables = [
            tuple(cell for cell in answer.two_by_two[position] if not isinstance(cell, CellStatus))
            for answer in answers.values()
            if not isinstance(answer, RefusalCode)
        ]
        whole = [(cells[0], cells[1], cells[2], cells[3]) for cells in tables if len(cells) == 4]
        # The model has no use for a site without one of the classes.
        whole = [t for t in whole if t[0] + t[1] > 0 and t[2] + t[3] > 0]
        found = reitsma(whole)
        n = sum(map(sum, whole))
        is_fitted = isinstance(found, Reitsma)
        status = RowStatus.OK if is_fitted else RowStatus.NOT_ESTIMABLE
        if found is Fallback.NOT_CONVERGED:
            status = RowStatus.ERROR
        for measure in (Measure.SENSITIVITY, Measure.SPECIFICITY):
            limits = getattr(found, measure.value) if is_fitted else None
            yield Estimate(
                self.spec.id,
                META,
                measure,
                group=BIVARIATE,
                term=term,
                estimate=limits and limits.estimate,
                ci_low=limits and limits.ci_low,
                ci_high=limits and limits.ci_high,
                ci_method="wald_logit" if is_fitted else str(found),
                n=n,
                status=status,
            )
        yield Estimate(
            self.spec.id,
            META,
            Measure.CORRELATION,
            group=BIVARIATE,
            term=term,
            estimate=found.rho if isinstance(found, Reitsma) else None,
            ci_method="" if is_fitted else str(found),
            n=n,
            status=status,
        )


def _f1(jaccard: float) -> float:
    return 2 * jaccard / (1 + jaccard)


def _scopes(
    answers: Mapping[SiteName, ConfusionCounts | RefusalCode],
    position: int,
    successes: tuple[int, ...],
    denominator: tuple[int, ...],
) -> dict[str, Fraction | RowStatus]:
    """Return each site's fraction and the pooled one, or the status that stands in its place."""
    scopes: dict[str, Fraction | RowStatus] = {}
    for site, answer in answers.items():
        if isinstance(answer, RefusalCode):
            scopes[site] = refusal_status(answer)
            continue
        cells = answer.two_by_two[position]
        n = _sum_cells(cells, denominator)
        top = _sum_cells(cells, successes)
        scopes[site] = (
            RowStatus.SUPPRESSED
            if n is None or top is None
            else Fraction(top, n, answer.n_patients)
        )
    given = [fraction for fraction in scopes.values() if not isinstance(fraction, RowStatus)]
    if given:
        pooled: Fraction | RowStatus = Fraction(*(sum(parts) for parts in zip(*given, strict=True)))
    else:
        pooled = absent_status(own for own in scopes.values() if isinstance(own, RowStatus))
    return {**scopes, POOLED: pooled}


def _sum_cells(cells: tuple[Count, ...], wanted: tuple[int, ...]) -> int | None:
    counts = [cells[number] for number in wanted]
    known = [count for count in counts if not isinstance(count, CellStatus)]
    return sum(known) if len(known) == len(counts) else None
