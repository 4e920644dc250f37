"""Characteristics of the patients by group: counts, means, medians, tests, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedcac.aggregate import Aggregate, BinnedCounts, Evidence, Moments, register
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import DescriptivesSpec, Protocol
from fedcac.statistics.bland_altman import Spread
from fedcac.statistics.descriptive_variables import (
    N_BINS,
    Variable,
    covariate_variable,
    score_variables,
)
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
)
from fedcac.statistics.group_tests import (
    binned_quantile,
    kruskal_wallis,
    pearson_chi2,
    quantile_bin,
)
from fedcac.statistics.grouping import group_labels, group_numbers
from fedcac.statistics.risk_sets import ChiSquare
from fedcac.statistics.rows import Value, refusal_status, value_row
from fedcac.statistics.sums import answered, is_binned, is_long, missing_status
from fedcac.vocabulary import CellStatus, Measure, RowStatus, SiteName

__all__ = ["CharacteristicCounts", "CharacteristicMoments", "Descriptives"]

COUNTS_QUERY = Query(step="counts")
MOMENTS_QUERY = Query(step="moments")
WIDEST_BIN = N_BINS // 12

_QUARTILES = {
    Measure.MEDIAN: 0.5,
    Measure.QUARTILE_LOW: 0.25,
    Measure.QUARTILE_HIGH: 0.75,
}

Integers = NDArray[np.int64]
Group = tuple[Integers, Integers] | None
"""First grid bin and count of every bin of one group, summed over sites; None if withheld."""


@register
class CharacteristicCounts(BinnedCounts):
    """Group sizes; then per covariate and group, patients by level or bin of the value."""

    kind: ClassVar[str] = "characteristic_counts"
    has_common_grid: ClassVar[bool] = True


@register
class CharacteristicMoments(Moments):
    """Moments of every continuous covariate in every group, covariate by covariate."""

    kind: ClassVar[str] = "characteristic_moments"


@register_estimator
class Descriptives(Estimator[DescriptivesSpec]):
    """Table 1: patients by group (Miller 2023 Tables 1 and S4). All rows `pooled`.

    count with term '' is the group's size; with term `<covariate>=<level>` (or the name of a
    binary covariate) the patients with it, beside their proportion among those whose value is
    known; with term `<covariate>=missing` those without a value. A continuous covariate has mean
    and sd, and where the protocol gives it a minimum and a maximum also median, quartile_low and
    quartile_high, read from a histogram of 128 bins by linear interpolation; a score, too, on the
    public grid of scores, and it has its risk categories as levels `<column>=<category>`. A
    quantile that falls into a bin merged from more than ten is suppressed.

    difference_test compares the groups: Pearson's chi-square of the counts, or Kruskal and
    Wallis's test of the binned values (with two groups, Mann and Whitney's). A site whose counts
    of a covariate are withheld is left out of that covariate's rows.
    """

    kind: ClassVar[str] = "descriptives"
    aggregate_types: ClassVar[tuple[type[Aggregate], ...]] = (
        CharacteristicCounts,
        CharacteristicMoments,
    )

    def __init__(self, spec: DescriptivesSpec, protocol: Protocol) -> None:
        super().__init__(spec, protocol)
        self._labels = group_labels(spec.by, protocol)
        self._variables = [
            *(part for role in spec.scores for part in score_variables(role, protocol)),
            *(covariate_variable(protocol.covariate(name)) for name in spec.covariates),
        ]
        self._continuous = [v for v in self._variables if v.is_continuous]

    # --- at a site --------------------------------------------------------------------------

    def summarise(self, exams: Exams, query: Query) -> CharacteristicCounts | CharacteristicMoments:
        """Return counts or moments by group.

        Raises
        ------
        QueryError
            If the query is neither step.
        KeyError, ValueError
            If a column is absent or holds a value it cannot have.
        """
        if query not in (COUNTS_QUERY, MOMENTS_QUERY):
            raise QueryError("descriptives ask the steps 'counts' and 'moments' without values")
        complete = self.cohort(exams)
        group = group_numbers(self.spec.by, self.protocol, complete)
        if query == MOMENTS_QUERY:
            return self._moments(complete, group)
        n_groups = len(self._labels)
        sizes = np.bincount(group, minlength=n_groups)
        starts: list[tuple[tuple[int, ...], ...]] = [(tuple(range(n_groups)),)]
        counts: list[tuple[tuple[int, ...], ...]] = [(tuple(int(size) for size in sizes),)]
        # Who has a value of a covariate is part of the group.
        nested = [tuple(sizes.tolist())]
        for variable in self._variables:
            values = variable.values(complete)
            known = np.isfinite(values)
            bins = bin_numbers(values[known], variable.edges)
            n_bins = len(variable.edges) + 1
            starts.append((tuple(range(n_bins)),) * n_groups)
            counts.append(grid_counts(bins, group[known], n_groups, n_bins))
            nested.append(tuple(np.bincount(group[known], minlength=n_groups).tolist()))
        return CharacteristicCounts(
            n_patients=complete.n,
            starts=tuple(starts),
            counts=tuple(counts),
            evidence=Evidence(nested=tuple(nested)),
        )

    def _moments(self, exams: Exams, group: Integers) -> CharacteristicMoments:
        parts = []
        for variable in self._continuous:
            values = variable.values(exams)
            for number in range(len(self._labels)):
                own = values[(group == number) & np.isfinite(values)]
                mean = float(own.mean()) if len(own) else 0.0
                parts.append((len(own), mean, float(np.sum((own - mean) ** 2))))
        # Without a continuous covariate there is nothing to ask; the shape wants one entry.
        parts = parts or [(0, 0.0, 0.0)]
        n, mean_, m2 = zip(*parts, strict=True)
        sizes = np.bincount(group, minlength=len(self._labels))
        return CharacteristicMoments(
            n_patients=exams.n,
            n=n,
            mean=mean_,
            m2=m2,
            evidence=self._blocks(sizes) if self._continuous else None,
        )

    def _blocks(self, sizes: Integers) -> Evidence:
        """Return that the terms of one covariate are about different patients."""
        return Evidence(
            row_blocks=tuple(range(len(sizes))) * len(self._continuous),
            block_sizes=tuple(sizes.tolist()),
        )

    # --- at the coordinator -----------------------------------------------------------------

    def pool(self, sites: Sequence[SiteName], fits: Mapping[str, Fit] = NO_FITS) -> Pooling:
        """Ask for counts, and for moments if a covariate is continuous."""
        n_groups = len(self._labels)
        grids = [(n_groups, len(variable.edges) + 1) for variable in self._variables]
        shape = is_binned([(1, n_groups), *grids])
        given, refused = answered((yield COUNTS_QUERY), sites, CharacteristicCounts, shape)
        absent = RowStatus.SUPPRESSED if given else missing_status(refused.values())
        moments: list[CharacteristicMoments] = []
        if self._continuous:
            long = is_long(len(self._continuous) * n_groups)
            found, _ = answered((yield MOMENTS_QUERY), sites, CharacteristicMoments, long)
            moments = list(found.values())
        answers = list(given.values())
        rows = list(self._size_rows(answers, absent))
        for number, variable in enumerate(self._variables):
            groups = self._groups(answers, number + 1)
            if variable.is_continuous:
                rows.extend(self._moment_rows(moments, variable, absent))
                rows.extend(self._quantile_rows(groups, variable, absent))
            else:
                rows.extend(self._level_rows(groups, variable, absent))
            rows.append(self._test_row(groups, variable, absent))
            if variable.can_be_missing:
                rows.extend(self._missing_rows(answers, number, absent))
        for site, code in refused.items():
            status = refusal_status(code)
            rows.append(value_row(self.spec.id, site, Measure.COUNT, None, absent=status))
        return tuple(rows)

    def _row(
        self,
        measure: Measure,
        number: int,
        value: Value | None,
        absent: RowStatus,
        *,
        term: str = "",
        n: int | None = None,
    ) -> Estimate:
        # With a known n nothing is hidden: there is nobody to describe.
        return value_row(
            self.spec.id,
            POOLED,
            measure,
            value,
            absent=absent if n is None else RowStatus.NOT_ESTIMABLE,
            group=self._labels[number],
            term=term,
            n=n,
        )

    def _groups(self, answers: Sequence[CharacteristicCounts], variable: int) -> list[Group]:
        """Return every group's bins of a variable, over the sites that give all groups of it."""
        rows = []
        for answer in answers:
            own = [released_row(answer, variable, g) for g in range(len(self._labels))]
            known = [row for row in own if row is not None]
            if len(known) == len(own):
                rows.append(known)
        if not rows:
            return [None] * len(self._labels)
        return [common_bins([own[number] for own in rows]) for number in range(len(self._labels))]

    def _size_rows(
        self, answers: Sequence[CharacteristicCounts], absent: RowStatus
    ) -> Iterator[Estimate]:
        shown = [
            row[1]
            for answer in answers
            if (row := released_row(answer, 0, 0)) is not None and len(row[1]) == len(self._labels)
        ]
        sizes = np.sum(shown, axis=0) if shown else None
        for number in range(len(self._labels)):
            value = None if sizes is None else Value(float(sizes[number]))
            n = None if sizes is None else int(sizes.sum())
            yield self._row(Measure.COUNT, number, value, absent, n=n)

    def _level_rows(
        self, groups: Sequence[Group], variable: Variable, absent: RowStatus
    ) -> Iterator[Estimate]:
        for number, group in enumerate(groups):
            counts = None
            if group is not None and len(group[0]) == len(variable.edges) + 1:
                counts = group[1]
            for position, term in variable.level_terms:
                n = None if counts is None else int(counts.sum())
                count = None if counts is None else Value(float(counts[position]))
                share = Value(count.estimate / n) if count and n else None
                yield self._row(Measure.COUNT, number, count, absent, term=term, n=n)
                yield self._row(Measure.PROPORTION, number, share, absent, term=term, n=n)

    def _moment_rows(
        self, answers: Sequence[CharacteristicMoments], variable: Variable, absent: RowStatus
    ) -> Iterator[Estimate]:
        first = self._continuous.index(variable) * len(self._labels)
        for number in range(len(self._labels)):
            spreads = []
            for answer in answers:
                cells = [part[first + number] for part in (answer.n, answer.mean, answer.m2)]
                known = [cell for cell in cells if not isinstance(cell, CellStatus)]
                if len(known) == len(cells):
                    spreads.append(Spread(int(known[0]), known[1], known[2]))
            whole = reduce(Spread.merge, spreads) if spreads else None
            n = whole.n if whole else None
            mean = Value(whole.mean) if whole and whole.n else None
            sd = Value((whole.m2 / (whole.n - 1)) ** 0.5) if whole and whole.n > 1 else None
            yield self._row(Measure.MEAN, number, mean, absent, term=variable.name, n=n)
            yield self._row(Measure.SD, number, sd, absent, term=variable.name, n=n)

    def _quantile_rows(
        self, groups: Sequence[Group], variable: Variable, absent: RowStatus
    ) -> Iterator[Estimate]:
        if variable.limits is None:
            return
        low, high = variable.limits
        limits = np.concatenate([[low], variable.edges, [high]])
        for number, group in enumerate(groups):
            n = None if group is None else int(group[1].sum())
            for measure, share in _QUARTILES.items():
                value = None
                shown = n
                if group is not None and n:
                    ends = np.append(group[0], len(variable.edges) + 1)
                    place = quantile_bin(group[1], share)
                    if ends[place + 1] - ends[place] <= WIDEST_BIN:
                        bounds = np.append(limits[group[0]], limits[-1])
                        value = Value(binned_quantile(bounds, group[1], share))
                    else:
                        # Somewhere in a bin so wide is no quantile, but withheld.
                        shown = None
                yield self._row(measure, number, value, absent, term=variable.name, n=shown)

    def _test_row(self, groups: Sequence[Group], variable: Variable, absent: RowStatus) -> Estimate:
        known = [group for group in groups if group is not None]
        test: ChiSquare | None = None
        if len(known) == len(groups):
            table = _on_common_bins(known)
            if variable.is_continuous:
                test = kruskal_wallis(table)
            elif table.shape[1] == len(variable.edges) + 1:
                test = pearson_chi2(table)
        is_hidden = len(known) < len(groups)
        # Levels or bins that were merged may leave too few to be compared.
        is_coarse = any(len(group[0]) <= len(variable.edges) for group in known)
        status = absent if is_hidden or is_coarse else RowStatus.NOT_ESTIMABLE
        if len(groups) == 1:
            # One group has nothing to be compared with.
            status = RowStatus.NOT_APPLICABLE
        return value_row(
            self.spec.id,
            POOLED,
            Measure.DIFFERENCE_TEST,
            Value(test.chi2, p_value=test.p_value) if test else None,
            absent=status,
            term=variable.name,
            n=sum(int(group[1].sum()) for group in known) if not is_hidden else None,
        )

    def _missing_rows(
        self, answers: Sequence[CharacteristicCounts], position: int, absent: RowStatus
    ) -> Iterator[Estimate]:
        for number in range(len(self._labels)):
            gaps = []
            for answer in answers:
                sizes = released_row(answer, 0, 0)
                own = released_row(answer, position + 1, number)
                if sizes is not None and own is not None and len(sizes[1]) == len(self._labels):
                    gaps.append((int(sizes[1][number]), int(own[1].sum())))
            n = sum(size for size, _ in gaps) if gaps else None
            value = Value(float(sum(size - known for size, known in gaps))) if gaps else None
            term = f"{self._variables[position].name}=missing"
            yield self._row(Measure.COUNT, number, value, absent, term=term, n=n)


def _on_common_bins(groups: Sequence[tuple[Integers, Integers]]) -> Integers:
    """Return counts on the bins that all groups have, shape (groups, bins)."""
    starts = np.array(sorted(set.intersection(*(set(group[0].tolist()) for group in groups))))
    return np.array(
        [np.add.reduceat(counts, np.searchsorted(firsts, starts)) for firsts, counts in groups]
    )
