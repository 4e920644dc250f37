"""Agreement of risk categories: the confusion matrix and Cohen's kappa, per site and pooled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedcac.aggregate import Aggregate
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import AgreementSpec
from fedcac.statistics.confusion import (
    COUNTS_QUERY,
    ConfusionCounts,
    common_cut_offs,
    confusion_answers,
    confusion_counts,
    count_matrix,
    matrix_on,
    merged_labels,
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
from fedcac.statistics.heterogeneity import MINIMUM_SITES
from fedcac.statistics.kappa import Kappa, cohen_kappa
from fedcac.statistics.meta_rows import meta_rows, without
from fedcac.statistics.paired_counts import bhapkar, stuart_maxwell
from fedcac.statistics.rows import (
    Value,
    absent_status,
    refusal_status,
    two_sided_p,
    value_row,
    wald,
)
from fedcac.vocabulary import KappaWeights, Measure, RefusalCode, RowStatus, SiteName

__all__ = ["Agreement"]

CI_METHOD = "fleiss1969"

Matrix = NDArray[np.int64]
Scope = Matrix | RowStatus
"""The matrix of one scope, or the status that stands in its place."""


@register_estimator
class Agreement(Estimator[AgreementSpec]):
    """Counts, and kappa with the protocol's weightings (Eng 2021 Fig. 6).

    Rows
    ----
    count
        Group = reference category, term = index category; per site and pooled.
    kappa_*
        Per site; `pooled` is the kappa of the summed matrix; `meta` the site-stratified
        Sum w kappa / Sum w with w = 1/SE^2. The interval is Wald's with the Fleiss-Cohen-Everitt
        standard error, the p-value uses the one under no agreement.

    stuart_maxwell_chi2, bhapkar_chi2
        Whether both give the categories equally often, per site and pooled.

    With three sites or more, `meta` also says how their kappas differ, and `pooled` is given
    without each site, group `without <site>`.

    Where a gate withheld a site's matrix but released it with categories merged, kappa is given
    once more on the cut-offs that all sites kept, with the merged labels as its term; kappas on
    different categories are not comparable. `meta` does not exist when a site agrees perfectly,
    since its standard error is then zero.
    """

    kind: ClassVar[str] = "agreement"
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
        """Ask once, then give counts and kappas."""
        scheme = self.protocol.categories
        answers = confusion_answers((yield COUNTS_QUERY), sites, scheme)
        full = _with_pooled({site: _full_scope(answer) for site, answer in answers.items()})
        labels = scheme.labels
        counts = {
            (row.scope, row.group, row.term): row
            for scope, matrix in full.items()
            for row in self._count_rows(scope, matrix, labels)
        }
        kappas = [*self._kappa_rows(full, term=""), *self._margin_rows(full, term="")]
        kept = common_cut_offs(tuple(answers.values()))
        if kept and any(_is_collapsed(answer) for answer in answers.values()):
            merged = _with_pooled(
                {site: _merged_scope(answer, kept) for site, answer in answers.items()}
            )
            labels = merged_labels(scheme, kept)
            kappas.extend(self._kappa_rows(merged, term=" | ".join(labels)))
            kappas.extend(self._margin_rows(merged, term=" | ".join(labels)))
            for scope, matrix in merged.items():
                for row in self._count_rows(scope, matrix, labels):
                    # A category that was not merged is known from the full matrix already.
                    key = (row.scope, row.group, row.term)
                    if key not in counts or counts[key].status is not RowStatus.OK:
                        counts[key] = row
        return (*counts.values(), *kappas)

    def _count_rows(self, scope: str, matrix: Scope, labels: Sequence[str]) -> Iterator[Estimate]:
        for (i, group), (j, term) in product(enumerate(labels), enumerate(labels)):
            if isinstance(matrix, RowStatus):
                yield Estimate(
                    self.spec.id, scope, Measure.COUNT, group=group, term=term, status=matrix
                )
                continue
            yield Estimate(
                self.spec.id,
                scope,
                Measure.COUNT,
                group=group,
                term=term,
                estimate=float(matrix[i, j]),
                n=int(matrix.sum()),
            )

    def _kappa_rows(self, scopes: Mapping[str, Scope], term: str) -> Iterator[Estimate]:
        for weights in self.spec.weights:
            measure = Measure(f"kappa_{weights.value}")
            found: dict[str, Kappa] = {}
            for scope, matrix in scopes.items():
                if isinstance(matrix, RowStatus):
                    yield Estimate(self.spec.id, scope, measure, term=term, status=matrix)
                    continue
                kappa = cohen_kappa(matrix, weights)
                if kappa is not None and scope != POOLED:
                    found[scope] = kappa
                yield self._kappa_row(scope, measure, term, kappa, int(matrix.sum()))
            yield self._meta_row(measure, term, tuple(found.values()), scopes[POOLED])
            if len(scopes) > MINIMUM_SITES:
                yield from meta_rows(
                    self.spec.id,
                    measure,
                    term,
                    [kappa.estimate for kappa in found.values()],
                    [kappa.se**2 for kappa in found.values()],
                    sum(kappa.n for kappa in found.values()),
                    has_mean=False,
                )
                yield from self._without_rows(scopes, weights, term)

    def _without_rows(
        self, scopes: Mapping[str, Scope], weights: KappaWeights, term: str
    ) -> Iterator[Estimate]:
        known = {
            scope: matrix
            for scope, matrix in scopes.items()
            if scope != POOLED and not isinstance(matrix, RowStatus)
        }
        if len(known) < MINIMUM_SITES:
            return
        for site, own in known.items():
            rest = np.sum(list(known.values()), axis=0) - own
            kappa = cohen_kappa(rest, weights)
            measure = Measure(f"kappa_{weights.value}")
            row = self._kappa_row(POOLED, measure, term, kappa, int(rest.sum()))
            yield replace(row, group=without(SiteName(site)))

    def _margin_rows(self, scopes: Mapping[str, Scope], term: str) -> Iterator[Estimate]:
        for scope, matrix in scopes.items():
            for measure, test_of in (
                (Measure.STUART_MAXWELL_CHI2, stuart_maxwell),
                (Measure.BHAPKAR_CHI2, bhapkar),
            ):
                if isinstance(matrix, RowStatus):
                    yield Estimate(self.spec.id, scope, measure, term=term, status=matrix)
                    continue
                test = test_of(matrix)
                value = Value(test.chi2, p_value=test.p_value) if test else None
                n = int(matrix.sum())
                yield value_row(self.spec.id, scope, measure, value, term=term, n=n)

    def _kappa_row(
        self, scope: str, measure: Measure, term: str, kappa: Kappa | None, n: int
    ) -> Estimate:
        if kappa is None:
            return Estimate(
                self.spec.id, scope, measure, term=term, n=n, status=RowStatus.NOT_ESTIMABLE
            )
        interval = wald(kappa.estimate, kappa.se, method=CI_METHOD)
        value = replace(interval, p_value=two_sided_p(kappa.estimate, kappa.se0))
        return value_row(self.spec.id, scope, measure, value, term=term, n=n)

    def _meta_row(
        self, measure: Measure, term: str, kappas: Sequence[Kappa], pooled: Scope
    ) -> Estimate:
        if isinstance(pooled, RowStatus):
            return Estimate(self.spec.id, META, measure, term=term, status=pooled)
        if not kappas or any(kappa.se == 0 for kappa in kappas):
            return Estimate(self.spec.id, META, measure, term=term, status=RowStatus.NOT_ESTIMABLE)
        weight = sum(kappa.se**-2 for kappa in kappas)
        estimate = sum(kappa.estimate * kappa.se**-2 for kappa in kappas) / weight
        weight0 = [(kappa.se**-2 * kappa.se0 / weight) ** 2 for kappa in kappas]
        combined = Kappa(estimate, weight**-0.5, sum(weight0) ** 0.5, sum(k.n for k in kappas))
        return self._kappa_row(META, measure, term, combined, combined.n)


def _is_collapsed(answer: ConfusionCounts | RefusalCode) -> bool:
    # The gate merges categories only where the matrix cannot leave.
    return not isinstance(answer, RefusalCode) and count_matrix(answer.collapsed) is not None


def _full_scope(answer: ConfusionCounts | RefusalCode) -> Scope:
    if isinstance(answer, RefusalCode):
        return refusal_status(answer)
    matrix = count_matrix(answer.matrix)
    return RowStatus.SUPPRESSED if matrix is None else matrix


def _merged_scope(answer: ConfusionCounts | RefusalCode, kept: Sequence[int]) -> Scope:
    if isinstance(answer, RefusalCode):
        return refusal_status(answer)
    matrix = matrix_on(answer, kept)
    return RowStatus.SUPPRESSED if matrix is None else matrix


def _with_pooled(scopes: Mapping[SiteName, Scope]) -> dict[str, Scope]:
    """Add the sum over the sites that gave a matrix, or the reason why there is none."""
    given = [matrix for matrix in scopes.values() if not isinstance(matrix, RowStatus)]
    if given:
        pooled: Scope = np.sum(given, axis=0, dtype=np.int64)
    else:
        pooled = absent_status(own for own in scopes.values() if isinstance(own, RowStatus))
    return {**{str(site): scope for site, scope in scopes.items()}, POOLED: pooled}
