"""Accuracy of the index test at every cut-off: sensitivity, specificity, PPV, NPV, F1, accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

from fedcac.aggregate import Aggregate, Count
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import AccuracySpec
from fedcac.statistics.confusion import (
    COLUMNS,
    COUNTS_QUERY,
    ConfusionCounts,
    confusion_answers,
    confusion_counts,
)
from fedcac.statistics.estimator import (
    META,
    POOLED,
    Estimate,
    Estimator,
    Pooling,
    register_estimator,
)
from fedcac.statistics.heterogeneity import (
    MINIMUM_SITES,
    dersimonian_laird,
    logit_with_variance,
)
from fedcac.statistics.intervals import eng2021, proportion_interval
from fedcac.statistics.rows import refusal_status
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
    counts are `count` rows with group tp, fn, fp or tn. `meta` rows give I2 (a fraction, with the
    p-value of Cochran's Q) and the DerSimonian-Laird tau2 on the logit scale, group = the measure,
    for sensitivity and specificity when three sites or more took part.
    """

    kind: ClassVar[str] = "accuracy"
    aggregate_types: ClassVar[tuple[type[Aggregate], ...]] = (ConfusionCounts,)

    @property
    def columns(self) -> tuple[str, ...]:
        """The two scores."""
        return COLUMNS

    def summarise(self, exams: Exams, query: Query) -> ConfusionCounts:
        """Return the site's confusion counts; raises as `confusion_counts`."""
        return confusion_counts(exams, query, self.protocol.categories)

    def pool(self, sites: Sequence[SiteName]) -> Pooling:
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
            if measure in (Measure.SENSITIVITY, Measure.SPECIFICITY):
                yield from self._heterogeneity_rows(scopes, measure, term)

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
        if len(scopes) - 1 < MINIMUM_SITES:
            return
        known = [
            fraction
            for scope, fraction in scopes.items()
            if scope != POOLED and not isinstance(fraction, RowStatus) and fraction.n > 0
        ]
        logits = [logit_with_variance(fraction.successes, fraction.n) for fraction in known]
        found = dersimonian_laird([y for y, _ in logits], [v for _, v in logits])
        for what in (Measure.I2, Measure.TAU2):
            is_i2 = what is Measure.I2
            yield Estimate(
                self.spec.id,
                META,
                what,
                group=measure.value,
                term=term,
                estimate=None if found is None else (found.i2 if is_i2 else found.tau2),
                p_value=found.p_value if found is not None and is_i2 else None,
                n=sum(fraction.n for fraction in known),
                status=RowStatus.NOT_ESTIMABLE if found is None else RowStatus.OK,
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
        is_known = n is not None and top is not None
        scopes[site] = (
            Fraction(top or 0, n or 0, answer.n_patients) if is_known else RowStatus.SUPPRESSED
        )
    given = [fraction for fraction in scopes.values() if not isinstance(fraction, RowStatus)]
    if given:
        pooled: Fraction | RowStatus = Fraction(*(sum(parts) for parts in zip(*given, strict=True)))
    elif RowStatus.SUPPRESSED in scopes.values():
        pooled = RowStatus.SUPPRESSED
    else:
        pooled = RowStatus.NOT_ESTIMABLE
    return {**scopes, POOLED: pooled}


def _sum_cells(cells: tuple[Count, ...], wanted: tuple[int, ...]) -> int | None:
    counts = [cells[number] for number in wanted]
    known = [count for count in counts if not isinstance(count, CellStatus)]
    return sum(known) if len(known) == len(counts) else None
