"""Kaplan-Meier curves by group over all sites, and the log-rank test stratified by site."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedcac.aggregate import Aggregate, Evidence, SurvivalTable, Totals, register
from fedcac.exams import Exams
from fedcac.exchange.messages import Query
from fedcac.protocol import KaplanMeierSpec, Protocol
from fedcac.statistics.cox import survival_data
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
from fedcac.statistics.grouping import group_labels, group_numbers
from fedcac.statistics.life_table import (
    binned_table,
    life_table_curve,
    log_rank_terms,
    log_rank_test,
)
from fedcac.statistics.rows import refusal_status
from fedcac.statistics.sums import answered, is_table, missing_status
from fedcac.vocabulary import CellStatus, Measure, RowStatus, SiteName

__all__ = ["KaplanMeier", "KaplanMeierTable", "LogRankTotals"]

TABLE_QUERY = Query(step="table")
LOG_RANK_QUERY = Query(step="log_rank")

Integers = NDArray[np.int64]


@register
class KaplanMeierTable(SurvivalTable):
    """At risk, events and censored per group and time bin."""

    kind: ClassVar[str] = "kaplan_meier_table"
    has_endpoint: ClassVar[bool] = True


@register
class LogRankTotals(Totals):
    """Observed and expected events per group, then the hypergeometric variance, row by row."""

    kind: ClassVar[str] = "log_rank_totals"
    has_endpoint: ClassVar[bool] = True


@register_estimator
class KaplanMeier(Estimator[KaplanMeierSpec]):
    """Survival by group at the ends of the protocol's time bins (Miller 2023 Fig. 4).

    Rows, all `pooled`: survival with Greenwood's standard error and a log-log interval, and
    at_risk, group = the patients' group, term = days; logrank_chi2 with its p-value, exact and
    stratified by site. Inside a bin, half of the censored count as at risk. Where sites merged
    bins, the curve has the edges that all sites of the group show; a site that shows none of a
    group is left out of it. A site that refused has one `survival` row without a number.
    """

    kind: ClassVar[str] = "kaplan_meier"
    aggregate_types: ClassVar[tuple[type[Aggregate], ...]] = (KaplanMeierTable, LogRankTotals)

    def __init__(self, spec: KaplanMeierSpec, protocol: Protocol) -> None:
        super().__init__(spec, protocol)
        self._labels = group_labels(spec.by, protocol)
        n_bins = -(-spec.horizon_days // spec.bin_days)
        self._edges = np.minimum(np.arange(n_bins + 1) * spec.bin_days, spec.horizon_days)

    def summarise(self, exams: Exams, query: Query) -> KaplanMeierTable | LogRankTotals:
        """Return the life table of every group, or the terms of the log-rank test.

        Raises
        ------
        QueryError
            If the query is neither of the two.
        KeyError, TableError, ValueError
            If a column is absent or holds a value it cannot have.
        """
        if query not in (TABLE_QUERY, LOG_RANK_QUERY):
            raise QueryError("Kaplan-Meier asks the steps 'table' and 'log_rank' without values")
        complete = self.cohort(exams)
        time, event = survival_data(self, complete)
        group = group_numbers(self.spec.by, self.protocol, complete)
        n_groups = len(self._labels)
        if query == TABLE_QUERY:
            return self._table(time, event, group)
        observed, expected, variance = log_rank_terms(time, event, group, n_groups)
        sizes = np.bincount(group, minlength=n_groups)
        with_event = np.bincount(group[event], minlength=n_groups)
        behind = np.minimum(with_event, sizes - with_event)[sizes > 0]
        return LogRankTotals(
            n_patients=complete.n,
            n_events=int(event.sum()),
            values=tuple(tuple(row.tolist()) for row in np.vstack([observed, expected, variance])),
            # A group that a site does not have adds nothing and says only that.
            evidence=Evidence(smallest_group=int(behind.min(initial=complete.n))),
        )

    def _table(
        self, time: NDArray[np.float64], event: NDArray[np.bool_], group: Integers
    ) -> KaplanMeierTable:
        rows: dict[str, list[tuple[int, ...]]] = {"at_risk": [], "events": [], "censored": []}
        edges: list[tuple[int, ...]] = []
        for number in range(len(self._labels)):
            own = group == number
            found = binned_table(time[own], event[own], self._edges)
            edges.append(tuple(range(len(self._edges))))
            for name, counts in zip(rows, found, strict=True):
                rows[name].append(tuple(int(count) for count in counts))
        return KaplanMeierTable(
            n_patients=len(time),
            n_events=int(event.sum()),
            edges=tuple(edges),
            at_risk=tuple(rows["at_risk"]),
            events=tuple(rows["events"]),
            censored=tuple(rows["censored"]),
            evidence=Evidence(
                row_groups=tuple(np.bincount(group[event], minlength=len(self._labels)).tolist())
            ),
        )

    # --- at the coordinator -----------------------------------------------------------------

    def pool(self, sites: Sequence[SiteName], fits: Mapping[str, Fit] = NO_FITS) -> Pooling:
        """Ask for the life tables, then for the log-rank terms."""
        given, refused = answered((yield TABLE_QUERY), sites, KaplanMeierTable, self._is_fit)
        tables = list(given.values())
        rows: list[Estimate] = []
        for number, label in enumerate(self._labels):
            own = [_group(table, number) for table in tables]
            rows.extend(self._group_rows(label, own, missing_status(refused.values())))
        log_rank = self._log_rank_row((yield LOG_RANK_QUERY), sites)
        lost = (
            Estimate(self.spec.id, site, Measure.SURVIVAL, status=refusal_status(code))
            for site, code in refused.items()
        )
        return (*rows, log_rank, *lost)

    def _is_fit(self, answer: KaplanMeierTable) -> bool:
        return len(answer.edges) == len(self._labels) and all(
            edge < len(self._edges) for edges in answer.edges for edge in edges
        )

    def _group_rows(
        self, label: str, tables: Sequence[dict[int, Integers]], absent: RowStatus
    ) -> Iterator[Estimate]:
        shown = [table for table in tables if table]
        if not shown:
            status = RowStatus.SUPPRESSED if tables else absent
            yield Estimate(self.spec.id, POOLED, Measure.SURVIVAL, group=label, status=status)
            return
        common = sorted(set.intersection(*(set(table) for table in shown)))
        if len(common) < 2:
            status = RowStatus.SUPPRESSED
            yield Estimate(self.spec.id, POOLED, Measure.SURVIVAL, group=label, status=status)
            return
        summed = np.sum([[table[edge] for edge in common] for table in shown], axis=0)
        # Columns: at risk from this edge on, cumulative events, cumulative censored.
        at_risk, events, censored = summed[:-1, 0], np.diff(summed[:, 1]), np.diff(summed[:, 2])
        days = self._edges[common]
        curve = life_table_curve(at_risk, events, censored, np.diff(days))
        n = int(summed[0, 0])
        for position, day in enumerate(days[1:]):
            limits = (curve.se, curve.ci_low, curve.ci_high)
            se, low, high = (_number(part[position]) for part in limits)
            yield Estimate(
                self.spec.id,
                POOLED,
                Measure.SURVIVAL,
                group=label,
                term=f"{int(day)}",
                estimate=float(curve.survival[position]),
                se=se,
                ci_low=low,
                ci_high=high,
                ci_method="" if low is None else "log_log",
                n=n,
                n_events=int(summed[position + 1, 1]),
            )
        for day, left in zip(days, summed[:, 0], strict=True):
            yield Estimate(
                self.spec.id,
                POOLED,
                Measure.AT_RISK,
                group=label,
                term=f"{int(day)}",
                estimate=float(left),
                n=n,
            )

    def _log_rank_row(self, answers: Answers, sites: Sequence[SiteName]) -> Estimate:
        g = len(self._labels)
        given, refused = answered(answers, sites, LogRankTotals, is_table(2 + g, g))
        whole = [answer for answer in given.values() if all(answer.values)]
        if not whole:
            status = missing_status(refused.values())
            return Estimate(self.spec.id, POOLED, Measure.LOGRANK_CHI2, status=status)
        total = np.sum([answer.values for answer in whole], axis=0)
        test = log_rank_test(total[0], total[1], total[2:])
        n = sum(answer.n_patients for answer in whole)
        if test is None:
            status = RowStatus.NOT_ESTIMABLE
            return Estimate(self.spec.id, POOLED, Measure.LOGRANK_CHI2, n=n, status=status)
        return Estimate(
            self.spec.id,
            POOLED,
            Measure.LOGRANK_CHI2,
            estimate=test.chi2,
            p_value=test.p_value,
            n=n,
            n_events=round(float(total[0].sum())),
        )


def _number(value: np.float64) -> float | None:
    return float(value) if np.isfinite(value) else None


def _group(table: KaplanMeierTable, number: int) -> dict[int, Integers]:
    """Return, per edge a site shows, at risk from there on, and events and censored until there."""
    edges = table.edges[number]
    rows = [table.at_risk[number], table.events[number], table.censored[number]]
    if not edges or any(isinstance(count, CellStatus) for row in rows for count in row):
        return {}
    at_risk, events, censored = (np.array(row, dtype=np.int64) for row in rows)
    if at_risk[0] == 0:
        return {}
    lost = np.cumsum(events), np.cumsum(censored)
    after = np.append(at_risk, at_risk[-1] - events[-1] - censored[-1])
    return {
        edge: np.array(
            [
                after[position],
                0 if position == 0 else lost[0][position - 1],
                0 if position == 0 else lost[1][position - 1],
            ]
        )
        for position, edge in enumerate(edges)
    }
