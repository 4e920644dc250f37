"""Tables of scores and probabilities: tests of two scores, comparisons, discrimination."""

from __future__ import annotations

from collections.abc import Iterator

from fedcac.protocol import ComparisonSpec, FusionSpec
from fedcac.report.findings import Findings, count_words
from fedcac.report.many_sites import is_many, n_sites_words, range_words
from fedcac.report.table import Row, Table
from fedcac.report.wording import (
    analysis_words,
    capital,
    covariate_words,
    measure_words,
    number_words,
    p_words,
    score_words,
)
from fedcac.statistics.estimator import META, POOLED, Estimate
from fedcac.vocabulary import Measure

__all__ = [
    "auc_by_site",
    "comparison_tables",
    "discrimination_table",
    "fusion_table",
    "score_test_table",
]

_TESTS = {
    "correlation": (Measure.PEARSON_R, Measure.ICC, Measure.CCC),
    "distribution": (Measure.KS_D, Measure.MEAN_DIFFERENCE),
    "zero_inflated": (
        Measure.ZIP_LOG_RATE_RATIO,
        Measure.ZIP_LOG_ODDS_RATIO,
        Measure.ZIP_LOG_SIGMA,
    ),
}
_ICC_WORDS = {
    "icc1": "ICC(1), one-way random",
    "icc2": "ICC(2), two-way random",
    "icc3": "ICC(3), two-way mixed",
}
_COMPARED = {
    Measure.SENSITIVITY: Measure.SENSITIVITY_DIFFERENCE,
    Measure.SPECIFICITY: Measure.SPECIFICITY_DIFFERENCE,
    Measure.PPV: Measure.PPV_DIFFERENCE,
    Measure.NPV: Measure.NPV_DIFFERENCE,
    Measure.F1: Measure.F1_DIFFERENCE,
    Measure.AUC: Measure.AUC_DIFFERENCE,
}


def _words(findings: Findings, row: Estimate | None, analysis: str) -> tuple[str, str, str]:
    """Return the number, its p-value and its n, or the gap in their place."""
    gap = findings.gap(analysis, POOLED, row)
    n = count_words(findings, analysis, row, row.n if row else None)
    if gap or row is None:
        return gap, gap, n
    return number_words(row), p_words(row.p_value), n


def score_test_table(findings: Findings) -> Table | None:
    """Return correlations, tests of distribution and zero-inflated regressions, pooled."""
    rows: list[Row] = []
    for kind, measures in _TESTS.items():
        for spec in findings.analyses(kind):
            found = [row for row in findings.rows(spec.id, measures) if row.scope == POOLED]
            if found:
                name = kind.replace("_", "-").capitalize()
                rows.append(Row(f"{name} ({analysis_words(findings.protocol, spec)})"))
            for row in found:
                title = _ICC_WORDS.get(row.term, measure_words(row.measure))
                rows.append(Row(title, _words(findings, row, spec.id)))
    if not rows:
        return None
    return Table(
        "Scores of the index test and the reference standard as numbers, pooled.",
        ("Measure", "Estimate (95% CI)", "p-value", "Patients"),
        tuple(rows),
    )


def comparison_tables(findings: Findings) -> tuple[Table, ...]:
    """Return one table per comparison of two tests or references (Eng 2021 Table 4)."""
    tables = []
    for spec in findings.analyses("comparison"):
        if not isinstance(spec, ComparisonSpec):
            continue
        is_of_tests = spec.compare == "index_tests"
        roles = ("index", "comparator") if is_of_tests else ("reference", "second_reference")
        # What follows a comma explains; a column has no room for it.
        words = [score_words(findings.protocol, role).partition(",")[0] for role in roles]
        names = tuple(map(capital, words))
        rows: list[Row] = []
        for term in findings.terms(spec.id, Measure.SENSITIVITY):
            rows.append(Row(f"Cut-off {term}"))
            rows.extend(_compared_rows(findings, spec.id, roles, term))
        tables.append(
            Table(
                f"Comparison ({analysis_words(findings.protocol, spec)}), pooled: {names[0]}, and "
                f"{names[1]}, on the same patients.",
                ("Measure", *names, "Difference (95% CI)", "p-value"),
                tuple(rows),
                note="Proportions and their differences in percent. Differences of sensitivity and "
                "specificity of two tests have Newcombe's interval and McNemar's exact p-value, "
                "the others the delta method's; areas under the ROC curve DeLong's.",
            )
        )
    return tuple(tables)


def _compared_rows(
    findings: Findings, analysis: str, roles: tuple[str, str], term: str
) -> Iterator[Row]:
    for measure, difference in _COMPARED.items():
        found = [findings.find(analysis, POOLED, measure, term, role) for role in roles]
        if all(row is None for row in found):
            continue
        change = findings.find(analysis, POOLED, difference, term)
        cells = [_words(findings, row, analysis)[0] for row in found]
        words, p_value, _ = _words(findings, change, analysis)
        if measure is Measure.AUC:
            bounds = [_bound(findings, row) for row in found]
            cells = [cell + _bound_words(b) for cell, b in zip(cells, bounds, strict=True)]
            words += _bound_words(sum(bounds))
            if _is_coarse(change, sum(bounds)):
                p_value = "not tested"
        yield Row(measure_words(measure), (*cells, words, p_value))


def _bound(findings: Findings, auc: Estimate | None) -> float:
    """Return how far an AUC can be from that of the values before they were binned."""
    if auc is None:
        return 0.0
    row = findings.find(auc.analysis, auc.scope, Measure.AUC_ERROR_BOUND, auc.term, auc.group)
    return row.estimate if row is not None and row.estimate is not None else 0.0


def _bound_words(bound: float) -> str:
    return f", bins \N{PLUS-MINUS SIGN}{bound:.3f}" if bound >= 0.0005 else ""


def _is_coarse(row: Estimate | None, bound: float) -> bool:
    """Say whether binning can have moved a number further than chance would."""
    if row is None or row.ci_low is None or row.ci_high is None:
        return False
    return bound > (row.ci_high - row.ci_low) / 2


def discrimination_table(findings: Findings) -> Table | None:
    """Return the AUCs of every site, between sites and pooled, and calibration (Hong 2025)."""
    rows: list[Row] = []
    for spec in findings.analyses("auc"):
        for term in findings.terms(spec.id, Measure.AUC):
            rows.append(Row(f"AUC at cut-off {term} ({analysis_words(findings.protocol, spec)})"))
            if is_many(findings) and findings.sites:
                own = [findings.find(spec.id, site, Measure.AUC, term) for site in findings.sites]
                reach = range_words(own) or findings.gap(spec.id, findings.sites[0], own[0])
                rows.append(
                    Row(f"Median (range) of {n_sites_words(own)} sites", (reach, "by site"))
                )
            sites = () if is_many(findings) else findings.sites
            rows.extend(_auc_rows(findings, spec.id, term, (*sites, META, POOLED)))
    for kind in ("calibration", "survival_calibration"):
        for spec in findings.analyses(kind):
            measures = (
                Measure.OE_RATIO,
                Measure.CALIBRATION_INTERCEPT,
                Measure.CALIBRATION_SLOPE,
            )
            rows.append(Row(f"Calibration ({analysis_words(findings.protocol, spec)})"))
            for row in findings.rows(spec.id, measures):
                if row.scope == POOLED:
                    at = f", cut-off {row.term}" if row.term else ""
                    words, _, n = _words(findings, row, spec.id)
                    rows.append(Row(f"{measure_words(row.measure)}{at}", (words, n)))
    if not rows:
        return None
    return Table(
        "Discrimination and calibration.",
        ("Measure", "Estimate (95% CI)", "Patients"),
        tuple(rows),
        note="The histograms that patients of different sites are compared by can have moved a "
        "value by as much as its bins say.",
    )


def auc_by_site(findings: Findings) -> tuple[Table, ...]:
    """Return every site's AUCs with a row per site, where the main table has their range only."""
    if not is_many(findings):
        return ()
    return tuple(
        Table(
            f"AUC at cut-off {term} by site ({analysis_words(findings.protocol, spec)}).",
            ("Site", "AUC (95% CI)", "Patients"),
            tuple(_auc_rows(findings, spec.id, term, findings.sites)),
        )
        for spec in findings.analyses("auc")
        for term in findings.terms(spec.id, Measure.AUC)
        if findings.sites
    )


def _auc_rows(
    findings: Findings, analysis: str, term: str, scopes: tuple[str, ...]
) -> Iterator[Row]:
    for scope in scopes:
        row = findings.find(analysis, scope, Measure.AUC, term)
        if row is None and scope == META:
            continue
        gap = findings.gap(analysis, scope, row)
        n = f"{row.n:,}" if row and row.n else gap or "not stated"
        name = {META: "Within sites, random effects", POOLED: "All pairs of patients"}
        words = gap if gap or row is None else number_words(row)
        words += _bound_words(_bound(findings, row))
        yield Row(name.get(scope, scope), (words, n))


def fusion_table(findings: Findings) -> Table | None:
    """Return AUCs with and without clinical factors, and the models' odds ratios."""
    rows: list[Row] = []
    for spec in findings.analyses("fusion"):
        if not isinstance(spec, FusionSpec):
            continue
        term = f"{spec.cut_off:g}"
        rows.append(Row(f"Cut-off {term} ({analysis_words(findings.protocol, spec)})"))
        for title, row in (
            ("AUC, image alone", findings.find(spec.id, POOLED, Measure.AUC, term, "image")),
            (
                f"AUC with clinical factors, {spec.folds}-fold cross-validated",
                findings.find(spec.id, POOLED, Measure.AUC, term, "fusion"),
            ),
            ("Difference", findings.find(spec.id, POOLED, Measure.AUC_DIFFERENCE, term)),
        ):
            rows.append(Row(title, _words(findings, row, spec.id)))
        for row in findings.rows(spec.id, (Measure.LOG_ODDS_RATIO,)):
            if row.scope == POOLED and row.term != "(intercept)":
                name = covariate_words(findings.protocol, row.term)
                rows.append(Row(f"Log odds ratio, {name}", _words(findings, row, spec.id)))
    if not rows:
        return None
    return Table(
        "Image model with and without clinical factors, pooled.",
        ("Measure", "Estimate (95% CI)", "p-value", "Patients"),
        tuple(rows),
    )
