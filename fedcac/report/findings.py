"""The estimates of a round by what they mean: rows, confusion matrices, reasons for a gap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from fedcac.protocol import AnalysisSpec
from fedcac.report.content import RoundReport, SiteSummary
from fedcac.report.wording import PERCENT_MEASURES, error_words, suppressed_words
from fedcac.statistics.estimator import META, POOLED, Estimate
from fedcac.statistics.rows import refusal_status
from fedcac.vocabulary import Measure, RefusalCode, RowStatus

__all__ = ["CUT_OFF_CELLS", "Findings", "Matrix", "count_cell", "count_words"]

CUT_OFF_CELLS = ("tp", "fn", "fp", "tn")
"""Groups of the counts of a 2x2 table at a cut-off."""

Key = tuple[str, str, Measure, str, str]


@dataclass(frozen=True)
class Matrix:
    """One square table of counts of one scope; rows = reference, columns = index category.

    A cell is None where the count is suppressed. `is_collapsed` says that neighbouring categories
    were merged at the site so that the table could leave.
    """

    scope: str
    labels: tuple[str, ...]
    cells: tuple[tuple[int | None, ...], ...]
    is_collapsed: bool

    @property
    def is_suppressed(self) -> bool:
        """Say whether no cell can be shown."""
        return all(cell is None for row in self.cells for cell in row)

    @property
    def n(self) -> int | None:
        """Number of patients; None when any cell is suppressed."""
        total = 0
        for row in self.cells:
            for cell in row:
                if cell is None:
                    return None
                total += cell
        return total


class Findings:
    """Looks up the estimates of one round; the first row of a key wins."""

    def __init__(self, report: RoundReport) -> None:
        self.report = report
        self.protocol = report.protocol
        # Sites of which the round says more than their flow: none where all answers are sums.
        is_summed = all(report.protocol.is_masked(spec.id) for spec in report.protocol.analyses)
        self.sites = () if is_summed else tuple(site.name for site in report.sites)
        self._site = {site.name: site for site in report.sites}
        self._rows: dict[Key, Estimate] = {}
        for row in report.estimates:
            self._rows.setdefault((row.analysis, row.scope, row.measure, row.group, row.term), row)

    def analyses(self, kind: str) -> tuple[AnalysisSpec, ...]:
        """Return the declared analyses of a kind, in the protocol's order."""
        return tuple(spec for spec in self.protocol.analyses if spec.kind == kind)

    def find(
        self, analysis: str, scope: str, measure: Measure, term: str = "", group: str = ""
    ) -> Estimate | None:
        """Return one row, or None if the round holds none."""
        return self._rows.get((analysis, scope, measure, group, term))

    def rows(self, analysis: str, measures: Iterable[Measure]) -> tuple[Estimate, ...]:
        """Return all rows of an analysis with one of the measures, in their order."""
        wanted = set(measures)
        return tuple(
            row
            for row in self.report.estimates
            if row.analysis == analysis and row.measure in wanted
        )

    def terms(self, analysis: str, measure: Measure) -> tuple[str, ...]:
        """Return the terms of a measure in the order of first appearance."""
        return tuple(dict.fromkeys(row.term for row in self.rows(analysis, (measure,))))

    def threshold(self, scope: str) -> int:
        """Return the smallest count shown for a scope: the site's own, or the strictest of all."""
        return self.report.minimum_cell(scope)

    def gap(self, analysis: str, scope: str, row: Estimate | None) -> str:
        """Return the words that stand where a number does not, or '' if the row has one."""
        if row is not None and row.status is RowStatus.OK and row.estimate is not None:
            return ""
        if row is None and scope in self._site and self.protocol.is_masked(analysis):
            return "in the sum"
        status = self._status(analysis, scope) if row is None else row.status
        if status is RowStatus.SUPPRESSED:
            return self._suppressed(analysis, scope)
        if status is RowStatus.ERROR:
            # A pooled row fails by its sites, or by a search that found no maximum.
            return error_words(self._codes(analysis, scope, status) or ("not_converged",))
        status = RowStatus.NOT_ESTIMABLE if status is RowStatus.OK else status
        return status.value.replace("_", " ")

    def _status(self, analysis: str, scope: str) -> RowStatus:
        """Return the status of a row that the round does not hold."""
        site = self._site.get(scope)
        code = None if site is None else site.refusal_of(analysis)
        return RowStatus.NOT_ESTIMABLE if code is None else refusal_status(code)

    def _codes(self, analysis: str, scope: str, status: RowStatus) -> tuple[RefusalCode, ...]:
        """Return the codes of a status with which the scope's sites refused an analysis."""
        sites = [self._site[scope]] if scope in self._site else [*self._site.values()]
        found = {site.refusal_of(analysis) for site in sites}
        return tuple(
            sorted(code for code in found if code is not None and refusal_status(code) is status)
        )

    def _suppressed(self, analysis: str, scope: str) -> str:
        """Return the rule that withheld a number: the smallest count, or the code of a refusal."""
        site = self._site.get(scope)
        codes = self._codes(analysis, scope, RowStatus.SUPPRESSED)
        # What single sites refused explains a pooled gap only if no site showed anything.
        is_whole = site is not None or all(
            own.refusal_of(analysis) in codes for own in self._site.values()
        )
        if not codes or not is_whole:
            return suppressed_words(self.threshold(scope))
        if site is not None and site.policy and codes[0] is RefusalCode.TOO_FEW_PATIENTS:
            return f"suppressed (<{site.policy.minimum_patients} patients)"
        return f"suppressed ({', '.join(codes)})"

    def size(self, site: SiteSummary) -> int | None:
        """Return how many patients a site analysed; None if no released number tells."""
        analysed = site.flow.n_patients if site.flow else None
        return analysed if analysed else self._largest_n.get(site.name)

    @cached_property
    def _largest_n(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for row in self.report.estimates:
            # The n of a proportion is its denominator, a part of the site's patients.
            if row.n and row.measure not in PERCENT_MEASURES:
                found[row.scope] = max(row.n, found.get(row.scope, 0))
        return found

    def matrices(self, analysis: str, scope: str) -> tuple[Matrix, ...]:
        """Return the confusion matrices of a scope that a report shows.

        A site has one: the full matrix, or the collapsed one if only that could leave, or the full
        one suppressed. `pooled` has the full one over the sites that released it and, when any
        site merged categories, the collapsed one over all of them.
        """
        full = self._matrix(analysis, scope, self.protocol.categories.labels, is_collapsed=False)
        collapsed = [
            matrix
            for labels in self._merged_labels(analysis)
            if (matrix := self._collapsed(analysis, scope, labels)) and not matrix.is_suppressed
        ]
        if full is None:
            return ()
        if scope == POOLED:
            return (full, *collapsed)
        return tuple(collapsed[:1]) if full.is_suppressed and collapsed else (full,)

    def _merged_labels(self, analysis: str) -> tuple[tuple[str, ...], ...]:
        kappas = [measure for measure in Measure if measure.value.startswith("kappa_")]
        terms = dict.fromkeys(row.term for row in self.rows(analysis, kappas) if row.term)
        return tuple(tuple(term.split(" | ")) for term in terms)

    def _matrix(
        self, analysis: str, scope: str, labels: tuple[str, ...], *, is_collapsed: bool
    ) -> Matrix | None:
        rows = [
            [self.find(analysis, scope, Measure.COUNT, term, group) for term in labels]
            for group in labels
        ]
        if all(row is None for line in rows for row in line):
            return None
        cells = tuple(tuple(_count(row) for row in line) for line in rows)
        if any(cell is None for line in cells for cell in line):
            # The gate lets out all of a matrix or nothing; a number among gaps belongs to the
            # collapsed matrix, which shares the labels of categories that were not merged.
            cells = tuple(tuple(None for _ in labels) for _ in labels)
        return Matrix(scope, labels, cells, is_collapsed)

    def _collapsed(self, analysis: str, scope: str, labels: tuple[str, ...]) -> Matrix | None:
        if scope != POOLED:
            return self._matrix(analysis, scope, labels, is_collapsed=True)
        # Summed here: under a label that was not merged, the pooled row holds the count of the
        # full matrix, which covers fewer sites.
        found = [self._collapsed(analysis, site, labels) for site in self.sites]
        given = [matrix.cells for matrix in found if matrix and not matrix.is_suppressed]
        if not given:
            return None
        size = range(len(labels))
        cells = tuple(tuple(sum(m[i][j] or 0 for m in given) for j in size) for i in size)
        return Matrix(scope, labels, cells, is_collapsed=True)

    @property
    def scopes(self) -> tuple[str, ...]:
        """Sites in their order, `meta` if any estimate of a measure has it, and `pooled` last."""
        descriptive = {Measure.I2, Measure.TAU2}
        has_meta = any(
            row.scope == META and row.measure not in descriptive for row in self.report.estimates
        )
        return (*self.sites, *((META,) if has_meta else ()), POOLED)


def count_words(findings: Findings, analysis: str, row: Estimate | None, count: int | None) -> str:
    """Return a pooled row's number of patients or events, or the words in its place."""
    if count is not None:
        return f"{count:,}"
    return findings.gap(analysis, POOLED, row) or "not stated"


def count_cell(findings: Findings, analysis: str, scope: str, row: Estimate | None) -> str:
    """Return a count of a scope as a cell of a table, or the words in its place."""
    gap = findings.gap(analysis, scope, row)
    return gap if gap or row is None or row.estimate is None else f"{round(row.estimate):,}"


def _count(row: Estimate | None) -> int | None:
    if row is None or row.estimate is None or row.status is not RowStatus.OK:
        return None
    return round(row.estimate)
