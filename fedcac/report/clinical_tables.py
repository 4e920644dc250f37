"""Tables of patients and outcomes: characteristics, hazard ratios, log-rank, added value."""

from __future__ import annotations

from collections.abc import Iterator

from fedcac.protocol import CoxSpec, DescriptivesSpec, KaplanMeierSpec, ReclassificationSpec
from fedcac.report.findings import Findings
from fedcac.report.table import Row, Table
from fedcac.report.wording import (
    measure_words,
    number_words,
    p_words,
    plain_number,
    scope_words,
    score_words,
    suppressed_words,
    term_words,
)
from fedcac.statistics.estimator import POOLED, Estimate
from fedcac.vocabulary import Measure

__all__ = ["added_value_table", "characteristics_tables", "cox_tables", "log_rank_table"]

_ADDED = (
    Measure.LR_CHI2_INCREASE,
    Measure.AUC_DIFFERENCE,
    Measure.C_INDEX_DIFFERENCE,
    Measure.NRI_EVENT,
    Measure.NRI_NONEVENT,
    Measure.NRI_OVERALL,
)


# --- characteristics --------------------------------------------------------------------------


def characteristics_tables(findings: Findings) -> tuple[Table, ...]:
    """Return a table of characteristics per descriptive analysis (Miller 2023 Tables 1, S4)."""
    tables = []
    for spec in findings.analyses("descriptives"):
        if isinstance(spec, DescriptivesSpec):
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
    by = spec.by if spec.by == "all" else score_words(findings.protocol, spec.by)
    return Table(
        f"Characteristics by {by} ({spec.id}): median (quartiles) or mean (SD) of numbers, "
        "patients and percent of those known otherwise.",
        ("Characteristic", *columns, "p-value"),
        tuple(rows),
    )


def _counts(findings: Findings, analysis: str) -> tuple[Estimate, ...]:
    return tuple(row for row in findings.rows(analysis, (Measure.COUNT,)) if row.scope == POOLED)


def _test(findings: Findings, analysis: str, term: str) -> str:
    row = findings.find(analysis, POOLED, Measure.DIFFERENCE_TEST, term)
    return p_words(row.p_value if row else None)


def _continuous(
    findings: Findings, analysis: str, groups: list[str], term: str, title: str
) -> Iterator[Row]:
    cells = []
    has_median = findings.find(analysis, POOLED, Measure.MEDIAN, term, groups[0]) is not None
    measures = (
        (Measure.MEDIAN, Measure.QUARTILE_LOW, Measure.QUARTILE_HIGH)
        if has_median
        else (Measure.MEAN, Measure.SD)
    )
    for group in groups:
        found = [findings.find(analysis, POOLED, measure, term, group) for measure in measures]
        gap = findings.gap(analysis, POOLED, found[0])
        numbers = [plain_number(row.estimate) for row in found if row and row.estimate is not None]
        is_whole = len(numbers) == len(measures)
        cells.append(f"{numbers[0]} ({', '.join(numbers[1:])})" if is_whole else gap)
    what = "median (quartiles)" if has_median else "mean (SD)"
    yield Row(f"{title}, {what}", (*cells, _test(findings, analysis, term)))
    yield from _missing(findings, analysis, groups, term)


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
        findings.gap(analysis, POOLED, row) or f"{round(row.estimate or 0):,}" if row else ""
        for row in found
    ]
    yield Row("\N{EM SPACE}missing", (*cells, ""))


# --- hazard ratios ----------------------------------------------------------------------------


def cox_tables(findings: Findings) -> tuple[Table, ...]:
    """Return tables of hazard ratios; a univariable series stands beside its adjusted model."""
    specs = [spec for spec in findings.analyses("cox") if isinstance(spec, CoxSpec)]
    specs = [spec for spec in specs if findings.rows(spec.id, (Measure.HAZARD_RATIO,))]
    partners = {spec.id: _partner(spec, specs) for spec in specs if spec.univariable}
    taken = {partner.id for partner in partners.values() if partner is not None}
    tables = []
    for spec in specs:
        partner = partners.get(spec.id)
        if partner is not None:
            tables.append(_paired_table(findings, spec, partner))
        elif spec.id not in taken:
            tables.append(_cox_table(findings, spec))
    return tuple(tables)


def _partner(series: CoxSpec, specs: list[CoxSpec]) -> CoxSpec | None:
    """Return the multivariable model of the same terms, if the protocol has one."""
    same = ("endpoint", "covariates", "risk_category", "log_score", "subgroup")
    for spec in specs:
        if not spec.univariable and all(getattr(spec, n) == getattr(series, n) for n in same):
            return spec
    return None


def _tail(findings: Findings, spec: CoxSpec) -> str:
    parts = []
    test = findings.find(spec.id, POOLED, Measure.LR_CHI2)
    if test is not None and test.estimate is not None:
        parts.append(
            f"Likelihood-ratio \N{GREEK SMALL LETTER CHI}² = {test.estimate:.1f}, "
            f"p {_p_phrase(test.p_value)}"
        )
    c_index = findings.find(spec.id, POOLED, Measure.C_INDEX)
    if c_index is not None and c_index.estimate is not None:
        parts.append(f"C-index {number_words(c_index)}")
    proportional = findings.find(spec.id, POOLED, Measure.PROPORTIONALITY_CHI2)
    if proportional is not None and proportional.p_value is not None:
        parts.append(f"proportional hazards, global p {_p_phrase(proportional.p_value)}")
    return f" {'; '.join(parts)}." if parts else ""


def _cox_table(findings: Findings, spec: CoxSpec) -> Table:
    rows = [row for row in findings.rows(spec.id, (Measure.HAZARD_RATIO,)) if row.scope == POOLED]
    rows += [
        row for row in findings.rows(spec.id, (Measure.LOG_HAZARD_RATIO,)) if row.scope != POOLED
    ]
    kind = "One model per covariate" if spec.univariable else "Hazard ratios"
    return Table(
        f"{kind} for {_endpoint_words(findings, spec)} ({spec.id}), stratified by site."
        f"{_tail(findings, spec)}",
        ("Covariate", "Hazard ratio (95% CI)", "p-value", "Patients", "Events"),
        tuple(_hazard_row(findings, row) for row in rows),
    )


def _paired_table(findings: Findings, series: CoxSpec, model: CoxSpec) -> Table:
    rows = []
    for row in findings.rows(series.id, (Measure.HAZARD_RATIO,)):
        if row.scope != POOLED:
            continue
        adjusted = findings.find(model.id, POOLED, Measure.HAZARD_RATIO, row.term)
        cells = [
            *_ratio_cells(findings, row.analysis, row),
            *_ratio_cells(findings, model.id, adjusted),
        ]
        rows.append(Row(covariate_words(findings, row.term), tuple(cells)))
    sizes = findings.find(model.id, POOLED, Measure.LR_CHI2)
    n = ""
    if sizes is not None and sizes.n is not None and sizes.n_events is not None:
        n = f" {sizes.n:,} patients, {sizes.n_events:,} events."
    return Table(
        f"Associations with {_endpoint_words(findings, model)} ({series.id}, {model.id}), "
        f"stratified by site.{n}{_tail(findings, model)}",
        ("Covariate", "Unadjusted HR (95% CI)", "p-value", "Adjusted HR (95% CI)", "p-value"),
        tuple(rows),
    )


def _ratio_cells(findings: Findings, analysis: str, row: Estimate | None) -> tuple[str, str]:
    gap = findings.gap(analysis, POOLED, row)
    if gap or row is None:
        return gap, "not tested"
    return number_words(row), p_words(row.p_value)


def _endpoint_words(findings: Findings, spec: CoxSpec) -> str:
    endpoint = findings.protocol.endpoint(spec.endpoint)
    return endpoint.definition.rstrip(".")[:1].lower() + endpoint.definition.rstrip(".")[1:]


def _hazard_row(findings: Findings, row: Estimate) -> Row:
    gap = findings.gap(row.analysis, row.scope, row)
    name = covariate_words(findings, row.term)
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


def covariate_words(findings: Findings, term: str) -> str:
    """Return a term of a regression in words."""
    name, _, level = term.partition("=")
    declared = {covariate.name: covariate for covariate in findings.protocol.covariates}
    if term in findings.protocol.categories.labels:
        return f"Risk category {term}, against {findings.protocol.categories.labels[0]}"
    if name not in declared:
        return term_words(term)
    covariate = declared[name]
    if level == "missing":
        return f"{covariate.description}: missing"
    if covariate.levels:
        return f"{covariate.description}: {level}, against {covariate.levels[0]}"
    if covariate.type == "continuous":
        return f"{covariate.description}, per {covariate.scale:g} {covariate.unit}".rstrip()
    return covariate.description


def _p_phrase(p_value: float | None) -> str:
    text = p_words(p_value)
    return text if text.startswith(("<", "n")) else f"= {text}"


# --- survival curves and added value ----------------------------------------------------------


def log_rank_table(findings: Findings) -> Table | None:
    """Return the log-rank tests of all Kaplan-Meier analyses."""
    rows = []
    for spec in findings.analyses("kaplan_meier"):
        if not isinstance(spec, KaplanMeierSpec):
            continue
        row = findings.find(spec.id, POOLED, Measure.LOGRANK_CHI2)
        gap = findings.gap(spec.id, POOLED, row)
        counts = [
            "not stated" if count is None else f"{count:,}"
            for count in ((row.n, row.n_events) if row else (None, None))
        ]
        numbers = (
            (gap, "not tested")
            if gap or row is None
            else (
                f"{row.estimate:.1f}",
                p_words(row.p_value),
            )
        )
        by = score_words(findings.protocol, spec.by)
        rows.append(Row(f"{spec.endpoint} by {by} ({spec.id})", (*numbers, *counts)))
    if not rows:
        return None
    columns = ("Curves", "\N{GREEK SMALL LETTER CHI}²", "p-value", "Patients", "Events")
    return Table("Log-rank tests, stratified by site.", columns, tuple(rows))


def added_value_table(findings: Findings) -> Table | None:
    """Return what each full model adds to its base (Miller 2023 Supplemental Table 6)."""
    rows = []
    for spec in findings.analyses("reclassification"):
        if not isinstance(spec, ReclassificationSpec):
            continue
        rows.append(Row(f"{spec.full} beyond {spec.base} ({spec.id})"))
        for measure in _ADDED:
            row = findings.find(spec.id, POOLED, measure)
            gap = findings.gap(spec.id, POOLED, row)
            words = gap if gap or row is None else number_words(row)
            p_value = p_words(row.p_value) if row and not gap else "not tested"
            rows.append(Row(measure_words(measure), (words, p_value)))
    if not rows:
        return None
    return Table(
        "Added value: what the larger Cox model adds to the smaller one.",
        ("Measure", "Estimate (95% CI)", "p-value"),
        tuple(rows),
    )
