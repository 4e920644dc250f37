"""Tables of the patients' characteristics by group."""

from __future__ import annotations

from collections.abc import Iterator

from fedcac.protocol import (
    DescriptivesSpec,
)
from fedcac.report.between_sites import refused_words
from fedcac.report.findings import Findings
from fedcac.report.table import Row, Table
from fedcac.report.wording import (
    analysis_words,
    p_words,
    plain_number,
    score_words,
)
from fedcac.statistics.estimator import POOLED, Estimate
from fedcac.vocabulary import Measure

__all__ = ["characteristics_tables"]

_MEDIAN = (Measure.MEDIAN, Measure.QUARTILE_LOW, Measure.QUARTILE_HIGH)
_MEAN = (Measure.MEAN, Measure.SD)


def characteristics_tables(findings: Findings) -> tuple[Table, ...]:
    """Return a table of characteristics per descriptive analysis (Miller 2023 Tables 1, S4)."""
    tables = []
    for spec in findings.analyses("descriptives"):
        if isinstance(spec, DescriptivesSpec) and _counts(findings, spec.id):
            tables.append(_characteristics(findings, spec))
    return tuple(tables)


def _characteristics(findings: Findings, spec: DescriptivesSpec) -> Table:
    sizes = [row for row in _counts(findings, spec.id) if not row.term]
    groups = [row.group for row in sizes]
    columns = []
    for row in sizes:
        n = findings.gap(spec.id, POOLED, row) or f"n = {round(row.estimate or 0):,}"
        columns.append(f"{row.group}, {n}")
    rows: list[Row] = []
    for role in spec.scores:
        column = findings.protocol.score_column(role)
        words = score_words(findings.protocol, column)
        rows.extend(_continuous(findings, spec.id, groups, column, f"{words}, score"))
        rows.extend(
            _levels(findings, spec.id, groups, column, f"{words}, category", f"{column}_category")
        )
    for name in spec.covariates:
        covariate = findings.protocol.covariate(name)
        if covariate.type == "continuous":
            unit = f", {covariate.unit}" if covariate.unit else ""
            title = f"{covariate.description}{unit}"
            rows.extend(_continuous(findings, spec.id, groups, name, title))
        else:
            rows.extend(_levels(findings, spec.id, groups, name, covariate.description, name))
    by = "of all patients" if spec.by == "all" else f"by {score_words(findings.protocol, spec.by)}"
    return Table(
        f"Characteristics {by} ({analysis_words(findings.protocol, spec)}).",
        ("Characteristic", *columns, "p-value"),
        tuple(rows),
        note="Categories: patients, and their percentage of those whose value is known. Medians "
        "and quartiles are read from histograms on a public grid; p-values are of Pearson's "
        "chi-square test, or of Kruskal and Wallis's test on the same grid."
        f"{refused_words(findings, spec, Measure.COUNT)}",
    )


def _counts(findings: Findings, analysis: str) -> tuple[Estimate, ...]:
    return tuple(row for row in findings.rows(analysis, (Measure.COUNT,)) if row.scope == POOLED)


def _test(findings: Findings, analysis: str, term: str) -> str:
    row = findings.find(analysis, POOLED, Measure.DIFFERENCE_TEST, term)
    return findings.gap(analysis, POOLED, row) or p_words(row.p_value if row else None)


def _continuous(
    findings: Findings, analysis: str, groups: list[str], term: str, title: str
) -> Iterator[Row]:
    p_value = _test(findings, analysis, term)
    first = groups[0]
    # A histogram may be withheld where moments are not, and a covariate without limits has none.
    shown = [
        (words, measures)
        for words, measures in (("mean (SD)", _MEAN), ("median (quartiles)", _MEDIAN))
        if findings.find(analysis, POOLED, measures[0], term, first) is not None
    ]
    for place, (words, measures) in enumerate(shown):
        cells = [_spread(findings, analysis, group, term, measures) for group in groups]
        head = f"\N{EM SPACE}{words}" if place else f"{title}, {words}"
        yield Row(head, (*cells, "" if place else p_value))
    yield from _missing(findings, analysis, groups, term)


def _spread(
    findings: Findings, analysis: str, group: str, term: str, measures: tuple[Measure, ...]
) -> str:
    found = [findings.find(analysis, POOLED, measure, term, group) for measure in measures]
    numbers = [plain_number(row.estimate) for row in found if row and row.estimate is not None]
    if len(numbers) == len(measures):
        return f"{numbers[0]} ({', '.join(numbers[1:])})"
    # Of a single patient there is a mean and no SD.
    return findings.gap(analysis, POOLED, found[0]) or f"{numbers[0]} (not estimable)"


def _levels(
    findings: Findings, analysis: str, groups: list[str], name: str, title: str, tested: str
) -> Iterator[Row]:
    terms = [
        row.term
        for row in _counts(findings, analysis)
        if row.group == groups[0]
        and (row.term == name or row.term.startswith(f"{name}="))
        and row.term != f"{name}=missing"
    ]
    p_value = _test(findings, analysis, tested)
    if len(terms) == 1:
        cells = _shares(findings, analysis, groups, terms[0])
        yield Row(title, (*cells, p_value))
    else:
        yield Row(title, (*("",) * len(groups), p_value))
        for term in terms:
            level = term.partition("=")[2]
            yield Row(f"\N{EM SPACE}{level}", (*_shares(findings, analysis, groups, term), ""))
    yield from _missing(findings, analysis, groups, name)


def _shares(findings: Findings, analysis: str, groups: list[str], term: str) -> list[str]:
    cells = []
    for group in groups:
        count = findings.find(analysis, POOLED, Measure.COUNT, term, group)
        share = findings.find(analysis, POOLED, Measure.PROPORTION, term, group)
        gap = findings.gap(analysis, POOLED, count)
        if gap or count is None or count.estimate is None:
            cells.append(gap)
        elif share is None or share.estimate is None:
            cells.append(f"{round(count.estimate):,}")
        else:
            cells.append(f"{round(count.estimate):,} ({100 * share.estimate:.1f}%)")
    return cells


def _missing(findings: Findings, analysis: str, groups: list[str], name: str) -> Iterator[Row]:
    found = [
        findings.find(analysis, POOLED, Measure.COUNT, f"{name}=missing", group) for group in groups
    ]
    if all(row is None or row.estimate == 0 for row in found):
        return
    cells = [
        findings.gap(analysis, POOLED, row) or f"{round(row.estimate or 0) if row else 0:,}"
        for row in found
    ]
    yield Row("\N{EM SPACE}missing", (*cells, ""))
