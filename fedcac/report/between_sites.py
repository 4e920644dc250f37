"""Tables of how sites differ: heterogeneity, prediction, the bivariate model, leave-one-out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from fedcac.protocol import AnalysisSpec
from fedcac.report.findings import Findings
from fedcac.report.many_sites import sites_words
from fedcac.report.table import Row, Table
from fedcac.report.wording import (
    PERCENT_MEASURES,
    covariate_words,
    measure_words,
    number_words,
    scope_words,
    term_words,
)
from fedcac.statistics.estimator import META, Estimate
from fedcac.vocabulary import Measure, RowStatus

__all__ = [
    "bivariate_table",
    "by_site_table",
    "heterogeneity_table",
    "leave_one_out_table",
    "refused_words",
]

_FALLBACK_WORDS = {
    "few_sites": "fewer than ten sites",
    "singular": "the between-site covariance is on the edge of its range",
    "not_converged": "the fit did not converge",
}
_WITHOUT = "without "


def heterogeneity_table(findings: Findings) -> Table | None:
    """Return I², both tau², the meta-analytic mean and the prediction interval of each measure."""
    rows = []
    several = len({row.analysis for row in findings.report.estimates if row.scope == META}) > 1
    for row in findings.report.estimates:
        if row.measure is not Measure.I2 or row.group not in set(Measure):
            continue
        measure = Measure(row.group)
        tail = f" ({row.analysis})" if several else ""
        title = f"{_title(measure, row.term)}{tail}"
        found = {
            what: findings.find(row.analysis, META, what, row.term, row.group)
            for what in (Measure.TAU2, Measure.TAU2_REML, Measure.PREDICTION_INTERVAL)
        }
        mean = findings.find(row.analysis, META, measure, row.term)
        rows.append(
            Row(
                title,
                (
                    _plain(findings, row, lambda value: f"{100 * value:.0f}%"),
                    _plain(findings, found[Measure.TAU2], _variance),
                    _plain(findings, found[Measure.TAU2_REML], _variance),
                    _words(findings, mean),
                    _interval(findings, found[Measure.PREDICTION_INTERVAL], measure),
                    f"{row.n:,}" if row.n else findings.gap(row.analysis, META, row),
                ),
            )
        )
    if not rows:
        return None
    return Table(
        "Between-site heterogeneity: DerSimonian and Laird's and REML τ²; meta-analytic mean with "
        "its 95% interval; 95% prediction interval for a further site.",
        ("Measure", "I²", "τ² (DL)", "τ² (REML)", "Mean (95% CI)", "Prediction", "Patients"),
        tuple(rows),
    )


def _plain(findings: Findings, row: Estimate | None, write: Callable[[float], str]) -> str:
    if row is None:
        return "not computed"
    return findings.gap(row.analysis, row.scope, row) or write(row.estimate or 0.0)


def _variance(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _words(findings: Findings, row: Estimate | None) -> str:
    if row is None:
        return "not computed"
    return findings.gap(row.analysis, row.scope, row) or number_words(row)


def _interval(findings: Findings, row: Estimate | None, measure: Measure) -> str:
    if row is None or row.estimate is None:
        return _words(findings, row)
    words = number_words(replace(row, measure=measure))
    return words.partition("(")[2].rstrip(")") or "not estimable"


def refused_words(findings: Findings, spec: AnalysisSpec, measure: Measure) -> str:
    """Return the sites without whose patients the pooled values are."""
    rows = findings.rows(spec.id, (measure,))
    gaps = {row.scope: findings.gap(spec.id, row.scope, row) for row in rows}
    by_gap: dict[str, list[str]] = {}
    for site in findings.sites:
        if gaps.get(site):
            by_gap.setdefault(gaps[site], []).append(site)
    parts = [f"{sites_words(names)}, {gap}" for gap, names in by_gap.items()]
    return f" Without {'; '.join(parts)}." if parts else ""


def by_site_table(findings: Findings, analysis: str, name: str) -> Table:
    """Return every site's own hazard ratios; `name` says what they are of."""
    scopes = (*findings.sites, META)
    rows = []
    for term in findings.terms(analysis, Measure.HAZARD_RATIO):
        cells = []
        for scope in scopes:
            row = findings.find(analysis, scope, Measure.HAZARD_RATIO, term)
            cells.append(findings.gap(analysis, scope, row) or _words(findings, row))
        rows.append(Row(covariate_words(findings.protocol, term), tuple(cells)))
    return Table(
        f"Hazard ratios of each site's own model ({name}), and their random-effects mean.",
        ("Covariate", *map(scope_words, scopes)),
        tuple(rows),
    )


def bivariate_table(findings: Findings) -> Table | None:
    """Return sensitivity and specificity by the bivariate model, or why it was not fitted."""
    rows = []
    for spec in findings.analyses("accuracy"):
        for term in findings.terms(spec.id, Measure.CORRELATION):
            parts = [
                findings.find(spec.id, META, measure, term, "bivariate")
                for measure in (Measure.SENSITIVITY, Measure.SPECIFICITY, Measure.CORRELATION)
            ]
            reason = next((row.ci_method for row in parts if row and row.estimate is None), "")
            cells = [_words(findings, row) for row in parts]
            if reason:
                cells[0] = f"{cells[0]}: {_FALLBACK_WORDS.get(reason, reason)}"
            name = f" ({spec.id})" if len(findings.analyses("accuracy")) > 1 else ""
            rows.append(Row(f"Cut-off {term}{name}", tuple(cells)))
    if not rows:
        return None
    return Table(
        "Sensitivity and specificity together (bivariate random-effects model). Where it cannot "
        "be fitted, the univariate means above stand.",
        ("Cut-off", "Sensitivity (95% CI)", "Specificity (95% CI)", "Correlation"),
        tuple(rows),
    )


def leave_one_out_table(findings: Findings) -> Table | None:
    """Return how far each pooled value moves when one site is left out."""
    rows = tuple(_moves(findings))
    if not rows:
        return None
    return Table(
        "Leave one site out: the pooled value, and the lowest and highest without a site.",
        ("Measure", "All sites", "Lowest", "Highest"),
        rows,
    )


def _moves(findings: Findings) -> Iterator[Row]:
    left_out: dict[tuple[str, str, Measure, str], list[Estimate]] = {}
    for row in findings.report.estimates:
        if row.group.startswith(_WITHOUT) and row.status is RowStatus.OK:
            left_out.setdefault((row.analysis, row.scope, row.measure, row.term), []).append(row)
    for (analysis, scope, measure, term), rows in left_out.items():
        whole = findings.find(analysis, scope, measure, term)
        ordered = sorted(rows, key=lambda row: row.estimate or 0.0)
        ends = [f"{number_words(row)}, {row.group}" for row in (ordered[0], ordered[-1])]
        yield Row(f"{_title(measure, term)} ({analysis})", (_words(findings, whole), *ends))


def _title(measure: Measure, term: str) -> str:
    title = measure_words(measure)
    if measure in PERCENT_MEASURES or measure is Measure.AUC:
        return f"{title}, cut-off {term}"
    return f"{title}, {term_words(term)}" if term else title
