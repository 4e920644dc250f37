"""The report's tables as rows of words, ready to be printed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fedcac.aggregate import FlowStage
from fedcac.protocol import AccuracySpec, AgreementSpec, CoxSpec
from fedcac.report.figures.flow import count_words
from fedcac.report.findings import CUT_OFF_CELLS, Findings
from fedcac.report.wording import (
    PERCENT_MEASURES,
    STAGE_WORDS,
    bytes_words,
    exclusion_words,
    measure_words,
    number_words,
    p_words,
    refusal_words,
    scope_words,
    suppressed_words,
    term_words,
)
from fedcac.statistics.estimator import META, POOLED, Estimate
from fedcac.vocabulary import Measure, RowStatus

__all__ = [
    "Row",
    "Table",
    "cox_tables",
    "cross_table",
    "disclosure_table",
    "flow_table",
    "heterogeneity_table",
    "performance_table",
    "suppression_table",
]

_ACCURACY = (
    Measure.SENSITIVITY,
    Measure.SPECIFICITY,
    Measure.PPV,
    Measure.NPV,
    Measure.F1,
)


@dataclass(frozen=True)
class Row:
    """One line: its header cell and its cells. A row without cells is a heading within the body."""

    head: str
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A caption, the column headers (the first heads the row headers) and the rows.

    `has_summary` marks the last column as the pooled one, which is printed in bold.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    has_summary: bool = False


def performance_table(findings: Findings) -> Table | None:
    """Return agreement and accuracy of every site and pooled, in the layout of Eng 2021 Table 3."""
    rows = [*_kappa_rows(findings), *_accuracy_rows(findings)]
    if not rows:
        return None
    return Table(
        caption="Diagnostic performance: estimate (95% confidence interval). Sensitivity, "
        "specificity, PPV, NPV and F1 in percent.",
        columns=("Measure", *(scope_words(scope) for scope in findings.scopes)),
        rows=tuple(rows),
        has_summary=True,
    )


def cross_table(findings: Findings) -> Table | None:
    """Return TP, FN, FP and TN at every cut-off, per site and pooled."""
    scopes = (*findings.sites, POOLED)
    rows: list[Row] = []
    for spec in findings.analyses("accuracy"):
        for cut_off in findings.protocol.categories.cut_offs:
            rows.append(Row(f"Cut-off {cut_off:g}"))
            for cell in CUT_OFF_CELLS:
                found = [
                    (scope, findings.find(spec.id, scope, Measure.COUNT, f"{cut_off:g}", cell))
                    for scope in scopes
                ]
                cells = tuple(_count(findings, spec.id, scope, row) for scope, row in found)
                rows.append(Row(cell.upper(), cells))
    if not rows:
        return None
    return Table(
        "Cross-tabulation of index test and reference standard at each cut-off (patients).",
        ("Cell", *(scope_words(scope) for scope in scopes)),
        tuple(rows),
        has_summary=True,
    )


def flow_table(findings: Findings) -> Table:
    """Return the stages of the flow and every exclusion reason, one column per site."""
    sites = findings.report.sites
    reasons = sorted({reason for site in sites if site.flow for reason in site.flow.exclusions})
    rows = [
        Row(
            STAGE_WORDS[stage],
            tuple(
                count_words(site.flow.stages[stage], findings.threshold(site.name))
                if site.flow
                else "not released"
                for site in sites
            ),
        )
        for stage in FlowStage
    ]
    if reasons:
        rows.append(Row("Excluded, by coded reason"))
    for reason in reasons:
        cells = tuple(
            count_words(site.flow.exclusions.get(reason, 0), findings.threshold(site.name))
            if site.flow
            else "not released"
            for site in sites
        )
        rows.append(Row(exclusion_words(reason), cells))
    return Table(
        "Flow of patients at each site (distinct patients; STARD).",
        ("Stage", *findings.sites),
        tuple(rows),
    )


def cox_tables(findings: Findings) -> tuple[Table, ...]:
    """Return one table of hazard ratios per Cox analysis."""
    tables = []
    for spec in findings.analyses("cox"):
        rows = findings.rows(spec.id, (Measure.HAZARD_RATIO,))
        if not isinstance(spec, CoxSpec) or not rows:
            continue
        test = findings.find(spec.id, POOLED, Measure.LR_CHI2)
        tail = ""
        if test is not None and test.estimate is not None:
            tail = f" Likelihood-ratio χ² = {test.estimate:.1f}, p {_p_phrase(test.p_value)}."
        tables.append(
            Table(
                f"Hazard ratios for {spec.endpoint} ({spec.id}), stratified by site.{tail}",
                ("Covariate", "Hazard ratio (95% CI)", "p-value", "Patients", "Events"),
                tuple(_hazard_row(findings, row) for row in rows),
            )
        )
    return tuple(tables)


def heterogeneity_table(findings: Findings) -> Table | None:
    """Return I² and τ² of every measure that has them, and the meta-analytic estimate."""
    rows = []
    for row in findings.report.estimates:
        if row.measure is not Measure.I2:
            continue
        tau2 = findings.find(row.analysis, row.scope, Measure.TAU2, row.term, row.group)
        measure = Measure(row.group) if row.group in set(Measure) else None
        summary = measure and findings.find(row.analysis, META, measure, row.term)
        rows.append(
            Row(
                _title(measure, row.term) if measure else row.group,
                (
                    "not estimable" if row.estimate is None else f"{100 * row.estimate:.0f}%",
                    "not estimable"
                    if tau2 is None or tau2.estimate is None
                    else f"{tau2.estimate:.4g}",
                    number_words(summary)
                    if summary and summary.estimate is not None
                    else "not estimable"
                    if summary
                    else "not computed",
                    "not stated" if row.n is None else f"{row.n:,}",
                ),
            )
        )
    if not rows:
        return None
    return Table(
        "Between-site heterogeneity.",
        ("Measure", "I²", "τ²", "Meta-analytic estimate", "Patients"),
        tuple(rows),
    )


def disclosure_table(findings: Findings) -> Table:
    """Return, per site, the policy in force, what left it, and what it refused and why."""
    titles = {spec.id: spec.id for spec in findings.protocol.analyses}
    rows = []
    for site in findings.report.sites:
        policy = site.policy
        refused = "; ".join(
            f"{titles.get(analysis, analysis)}: {refusal_words(code)}"
            for analysis, code in sorted(site.refusals.items())
        )
        rows.append(
            Row(
                site.name,
                (
                    policy.profile if policy else "no reply",
                    _cell_rule(policy.minimum_cell) if policy else "no reply",
                    str(policy.minimum_patients) if policy else "no reply",
                    str(site.n_releases),
                    bytes_words(site.bytes_left),
                    refused or "none",
                ),
            )
        )
    return Table(
        "Disclosure policy in force at each site, and what left it.",
        (
            "Site",
            "Policy",
            "Smallest count shown",
            "Smallest cohort",
            "Releases",
            "Sent in all",
            "Refusals",
        ),
        tuple(rows),
    )


def suppression_table(findings: Findings) -> Table:
    """Return the pooled values that lack a site's patients for reasons of disclosure."""
    rows = []
    for pooled in findings.report.estimates:
        if pooled.scope != POOLED or pooled.measure in {Measure.COUNT, Measure.LOG_HAZARD_RATIO}:
            continue
        missing = [
            site for site in findings.report.sites if _is_withheld(findings, pooled, site.name)
        ]
        if not missing:
            continue
        sizes = [findings.size(site) for site in missing]
        known = sum(size for size in sizes if size is not None)
        unknown = sizes.count(None)
        cost = f"{known:,}" + (f" and {unknown} site(s) of unstated size" if unknown else "")
        rows.append(
            Row(
                _full_title(pooled),
                (
                    pooled.analysis,
                    "none" if pooled.n is None else f"{pooled.n:,}",
                    cost,
                    ", ".join(site.name for site in missing),
                ),
            )
        )
    return Table(
        "What disclosure control cost: patients missing from a pooled value.",
        ("Pooled value", "Analysis", "Patients pooled", "Patients missing", "Sites left out"),
        tuple(rows),
    )


def _kappa_rows(findings: Findings) -> Iterator[Row]:
    for spec in findings.analyses("agreement"):
        if not isinstance(spec, AgreementSpec):
            continue
        measures = [Measure(f"kappa_{weights.value}") for weights in spec.weights]
        yield Row("Agreement over all categories")
        yield Row("Patients", _numbers(findings, spec.id, measures[0], ""))
        for measure in measures:
            yield Row(measure_words(measure), _cells(findings, spec.id, measure, ""))
        # Categories merged at one site make a kappa of their own: it is never mixed with the full.
        for term in findings.terms(spec.id, measures[0]):
            if term:
                merged = " / ".join(term.split(" | "))
                yield Row(f"Agreement over merged categories {merged}")
                for measure in measures:
                    yield Row(
                        measure_words(measure), _cells(findings, spec.id, measure, term, "not used")
                    )


def _accuracy_rows(findings: Findings) -> Iterator[Row]:
    for spec in findings.analyses("accuracy"):
        if not isinstance(spec, AccuracySpec):
            continue
        for cut_off in findings.protocol.categories.cut_offs:
            term = f"{cut_off:g}"
            yield Row(f"Cut-off {term}")
            for measure in _ACCURACY:
                yield Row(measure_words(measure), _cells(findings, spec.id, measure, term))


def _cells(
    findings: Findings, analysis: str, measure: Measure, term: str, absent: str = ""
) -> tuple[str, ...]:
    cells = []
    for scope in findings.scopes:
        row = findings.find(analysis, scope, measure, term)
        if row is None and (absent or scope == META):
            cells.append(absent or "not computed")
            continue
        gap = findings.gap(analysis, scope, row)
        cells.append(gap if gap or row is None else number_words(row))
    return tuple(cells)


def _numbers(findings: Findings, analysis: str, measure: Measure, term: str) -> tuple[str, ...]:
    cells = []
    for scope in findings.scopes:
        row = findings.find(analysis, scope, measure, term)
        n = row.n if row else None
        cells.append(
            f"{n:,}" if n is not None else findings.gap(analysis, scope, row) or "not stated"
        )
    return tuple(cells)


def _count(findings: Findings, analysis: str, scope: str, row: Estimate | None) -> str:
    gap = findings.gap(analysis, scope, row)
    return gap if gap or row is None or row.estimate is None else f"{round(row.estimate):,}"


def _hazard_row(findings: Findings, row: Estimate) -> Row:
    gap = findings.gap(row.analysis, row.scope, row)
    name = _covariate_words(findings, row.term)
    if row.scope != POOLED:
        name = f"{name}, {scope_words(row.scope)}"
    minimum = suppressed_words(findings.threshold(row.scope))
    counts = tuple(
        f"{count:,}" if count is not None else minimum if gap.startswith("s") else "not stated"
        for count in (row.n, row.n_events)
    )
    if gap:
        return Row(name, (gap, "not tested", *counts))
    return Row(name, (number_words(row), p_words(row.p_value), *counts))


def _covariate_words(findings: Findings, term: str) -> str:
    name, _, level = term.partition("=")
    declared = {covariate.name: covariate for covariate in findings.protocol.covariates}
    if term in findings.protocol.categories.labels:
        return f"Risk category {term}, against {findings.protocol.categories.labels[0]}"
    if name not in declared:
        return term_words(term)
    covariate = declared[name]
    if covariate.levels:
        return f"{covariate.description}: {level}, against {covariate.levels[0]}"
    if covariate.type == "continuous":
        return f"{covariate.description}, per {covariate.scale:g} {covariate.unit}".rstrip()
    return covariate.description


def _is_withheld(findings: Findings, pooled: Estimate, site: str) -> bool:
    summary = next(s for s in findings.report.sites if s.name == site)
    if pooled.analysis in summary.refusals:
        return True
    row = findings.find(pooled.analysis, site, pooled.measure, pooled.term, pooled.group)
    return row is not None and row.status is RowStatus.SUPPRESSED


def _full_title(row: Estimate) -> str:
    return _title(row.measure, row.term)


def _title(measure: Measure, term: str) -> str:
    title = measure_words(measure)
    if measure in PERCENT_MEASURES:
        return f"{title}, cut-off {term}"
    return f"{title}, {term_words(term)}" if term else title


def _cell_rule(minimum_cell: int) -> str:
    return "every count" if minimum_cell <= 1 else str(minimum_cell)


def _p_phrase(p_value: float | None) -> str:
    text = p_words(p_value)
    return text if text.startswith(("<", "n")) else f"= {text}"
