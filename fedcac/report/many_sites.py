"""What a report of many sites says in few words: names in lists, values by their range.

Up to eight sites every table has a column per site. Beyond that the tables in the text have the
range over sites, and a table with a row per site follows, folded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import Final

from fedcac.report.findings import CUT_OFF_CELLS, Findings, count_cell
from fedcac.report.table import Row, Table
from fedcac.report.wording import covariate_words, measure_words, number_words
from fedcac.statistics.estimator import META, Estimate
from fedcac.vocabulary import Measure

__all__ = [
    "MANY_SITES",
    "accuracy_by_site",
    "agreement_by_site",
    "cross_by_site",
    "hazards_by_site",
    "is_many",
    "n_sites_words",
    "range_words",
    "sites_words",
]

MANY_SITES: Final = 8
"""The most sites that have a column each."""

_LONGEST_LIST = 6
_SHOWN = 3


def is_many(findings: Findings) -> bool:
    """Say whether the round has more sites than a table has columns for."""
    return len(findings.report.sites) > MANY_SITES


def sites_words(names: Sequence[str]) -> str:
    """Return names in a list; of a long one the number, and the first of them."""
    if len(names) <= _LONGEST_LIST:
        return ", ".join(names)
    return f"{len(names)} sites ({', '.join(names[:_SHOWN])}, \N{HORIZONTAL ELLIPSIS})"


def range_words(rows: Iterable[Estimate | None]) -> str:
    """Return the median of the sites' values, the lowest and the highest; '' without any."""
    known = [row for row in rows if row is not None and row.estimate is not None]
    if not known:
        return ""
    values = sorted(row.estimate or 0.0 for row in known)
    middle, low, high = (
        number_words(replace(known[0], estimate=value, ci_low=None, ci_high=None))
        for value in (median(values), values[0], values[-1])
    )
    return f"{middle} ({low} to {high})"


def n_sites_words(rows: Iterable[Estimate | None]) -> str:
    """Return how many of the sites have a number."""
    found = list(rows)
    n_known = sum(row is not None and row.estimate is not None for row in found)
    return f"{n_known} of {len(found)}"


def accuracy_by_site(findings: Findings, measures: Sequence[Measure]) -> Iterator[Table]:
    """Yield a table per accuracy analysis and cut-off with a row per site."""
    for spec in findings.analyses("accuracy"):
        if findings.protocol.is_masked(spec.id):
            continue
        for cut_off in findings.protocol.categories.cut_offs:
            term = f"{cut_off:g}"
            yield Table(
                f"Diagnostic performance at cut-off {term} by site ({spec.id}): percent (95% "
                "confidence interval).",
                ("Site", *map(measure_words, measures)),
                tuple(
                    Row(
                        scope,
                        tuple(_cell(findings, spec.id, scope, m, term) for m in measures),
                    )
                    for scope in findings.sites
                ),
            )


def agreement_by_site(findings: Findings, measures: Sequence[Measure]) -> Iterator[Table]:
    """Yield a table per agreement analysis with a row per site: patients and kappas."""
    for spec in findings.analyses("agreement"):
        if findings.protocol.is_masked(spec.id):
            continue
        own = [m for m in measures if findings.rows(spec.id, (m,))]
        rows = []
        for scope in findings.sites:
            first = findings.find(spec.id, scope, own[0]) if own else None
            n = f"{first.n:,}" if first and first.n is not None else "not stated"
            cells = (_cell(findings, spec.id, scope, measure, "") for measure in own)
            rows.append(Row(scope, (n, *cells)))
        yield Table(
            f"Agreement over all categories by site ({spec.id}): kappa (95% confidence interval).",
            ("Site", "Patients", *map(measure_words, own)),
            tuple(rows),
        )


def cross_by_site(findings: Findings) -> Iterator[Table]:
    """Yield TP, FN, FP and TN of every site, a table per cut-off."""
    for spec in findings.analyses("accuracy"):
        if findings.protocol.is_masked(spec.id):
            continue
        for cut_off in findings.protocol.categories.cut_offs:
            term = f"{cut_off:g}"
            rows = []
            for scope in findings.sites:
                found = [
                    findings.find(spec.id, scope, Measure.COUNT, term, cell)
                    for cell in CUT_OFF_CELLS
                ]
                rows.append(
                    Row(scope, tuple(count_cell(findings, spec.id, scope, r) for r in found))
                )
            yield Table(
                f"Cross-tabulation at cut-off {term} by site ({spec.id}; patients).",
                ("Site", *(cell.upper() for cell in CUT_OFF_CELLS)),
                tuple(rows),
            )


def hazards_by_site(findings: Findings, analysis: str, name: str) -> Table:
    """Return every site's own hazard ratios with a row per site; `name` says what they are of."""
    terms = findings.terms(analysis, Measure.HAZARD_RATIO)
    rows = [
        Row(
            {META: "Random-effects mean"}.get(scope, scope),
            tuple(_cell(findings, analysis, scope, Measure.HAZARD_RATIO, term) for term in terms),
        )
        for scope in (META, *findings.sites)
    ]
    return Table(
        f"Hazard ratios of each site's own model ({name}), and their random-effects mean.",
        ("Site", *(covariate_words(findings.protocol, term) for term in terms)),
        tuple(rows),
    )


def _cell(findings: Findings, analysis: str, scope: str, measure: Measure, term: str) -> str:
    row = findings.find(analysis, scope, measure, term)
    gap = findings.gap(analysis, scope, row)
    return gap if gap or row is None else number_words(row)
