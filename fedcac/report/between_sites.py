"""Tables of how sites differ: heterogeneity, prediction, the bivariate model, leave-one-out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fedcac.report.findings import Findings
from fedcac.report.table import Row, Table
from fedcac.report.wording import PERCENT_MEASURES, measure_words, number_words, term_words
from fedcac.statistics.estimator import META, Estimate
from fedcac.vocabulary import Measure, RowStatus

__all__ = ["bivariate_table", "heterogeneity_table", "leave_one_out_table"]

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
                    _plain(row, lambda value: f"{100 * value:.0f}%"),
                    _plain(found[Measure.TAU2], lambda value: f"{value:.3g}"),
                    _plain(found[Measure.TAU2_REML], lambda value: f"{value:.3g}"),
                    _words(mean),
                    _interval(found[Measure.PREDICTION_INTERVAL], measure),
                    "not stated" if row.n is None else f"{row.n:,}",
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


def _plain(row: Estimate | None, write: object) -> str:
    if row is None or row.estimate is None or not callable(write):
        return "not estimable"
    return str(write(row.estimate))


def _words(row: Estimate | None) -> str:
    if row is None:
        return "not computed"
    return "not estimable" if row.estimate is None else number_words(row)


def _interval(row: Estimate | None, measure: Measure) -> str:
    if row is None or row.estimate is None:
        return "not estimable"
    words = number_words(replace(row, measure=measure))
    return words.partition("(")[2].rstrip(")")


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
            cells = [_FALLBACK_WORDS.get(reason, reason)] if reason else [_words(r) for r in parts]
            rows.append(Row(f"Cut-off {term}", (*cells, *("",) * (3 - len(cells)))))
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
        yield Row(f"{_title(measure, term)} ({analysis})", (_words(whole), *ends))


def _title(measure: Measure, term: str) -> str:
    title = measure_words(measure)
    if measure in PERCENT_MEASURES or measure is Measure.AUC:
        return f"{title}, cut-off {term}"
    return f"{title}, {term_words(term)}" if term else title
