"""The report's tables as rows of words, ready to be printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fedcac.aggregate import FlowStage
from fedcac.protocol import AccuracySpec, AgreementSpec
from fedcac.report.figures.flow import count_words
from fedcac.report.findings import CUT_OFF_CELLS, Findings
from fedcac.report.table import Row, Table
from fedcac.report.wording import (
    PERCENT_MEASURES,
    STAGE_WORDS,
    bytes_words,
    exclusion_words,
    measure_words,
    number_words,
    refusal_words,
    scope_words,
    term_words,
)
from fedcac.statistics.estimator import META, POOLED, Estimate
from fedcac.vocabulary import Measure, RefusalCode, RowStatus

__all__ = [
    "cross_table",
    "disclosure_table",
    "flow_table",
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
        ("Stage", *(site.name for site in sites)),
        tuple(rows),
    )


def disclosure_table(findings: Findings) -> Table:
    """Return, per site, the policy in force, what left it, and what it refused and why."""
    rows = []
    for site in findings.report.sites:
        policy = site.policy
        refused = "; ".join(
            f"{refusal_words(code)}: {', '.join(analyses)}"
            for code, analyses in _by_code(site.refusals)
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


def _by_code(refusals: Mapping[str, RefusalCode]) -> list[tuple[RefusalCode, list[str]]]:
    names: dict[RefusalCode, list[str]] = {}
    for analysis, code in sorted(refusals.items()):
        names.setdefault(code, []).append(analysis)
    return sorted(names.items())


def suppression_table(findings: Findings) -> Table:
    """Return the pooled values that lack a site which answered but suppressed a part."""
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
        "Pooled values without the patients of a site that answered the analysis and suppressed "
        "the part of it that they need.",
        ("Pooled value", "Analysis", "Patients pooled", "Patients missing", "Sites left out"),
        tuple(rows),
    )


def _kappa_rows(findings: Findings) -> Iterator[Row]:
    for spec in findings.analyses("agreement"):
        if not isinstance(spec, AgreementSpec):
            continue
        measures = [Measure(f"kappa_{weights.value}") for weights in spec.weights]
        # Several agreements are told apart by their names.
        name = f" ({spec.id})" if len(findings.analyses("agreement")) > 1 else ""
        yield Row(f"Agreement over all categories{name}")
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


def _is_withheld(findings: Findings, pooled: Estimate, site: str) -> bool:
    summary = next(s for s in findings.report.sites if s.name == site)
    if summary.refusal_of(pooled.analysis) is not None:
        return False
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
