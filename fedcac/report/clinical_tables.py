"""Tables of outcomes: hazard ratios, log-rank tests, added value."""

from __future__ import annotations

from fedcac.protocol import (
    CoxSpec,
    KaplanMeierSpec,
    ReclassificationSpec,
)
from fedcac.report.between_sites import by_site_table, refused_words
from fedcac.report.findings import Findings, count_words
from fedcac.report.many_sites import hazards_by_site, is_many
from fedcac.report.table import Row, Table
from fedcac.report.wording import (
    analysis_words,
    covariate_words,
    measure_words,
    number_words,
    p_phrase,
    p_words,
    score_words,
)
from fedcac.statistics.estimator import POOLED, Estimate
from fedcac.vocabulary import Measure

__all__ = [
    "added_value_table",
    "cox_by_site_tables",
    "cox_tables",
    "log_rank_table",
]

_ADDED = (
    Measure.LR_CHI2_INCREASE,
    Measure.AUC_DIFFERENCE,
    Measure.C_INDEX_DIFFERENCE,
    Measure.NRI_EVENT,
    Measure.NRI_NONEVENT,
    Measure.NRI_OVERALL,
)


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
        if spec.by_site and not is_many(findings):
            name = analysis_words(findings.protocol, spec)
            tables.append(by_site_table(findings, spec.id, name))
    return tuple(tables)


def cox_by_site_tables(findings: Findings) -> tuple[Table, ...]:
    """Return each site's own hazard ratios with a row per site, where a column each is too much."""
    if not is_many(findings):
        return ()
    return tuple(
        hazards_by_site(findings, spec.id, analysis_words(findings.protocol, spec))
        for spec in findings.analyses("cox")
        if isinstance(spec, CoxSpec) and spec.by_site
    )


def _partner(series: CoxSpec, specs: list[CoxSpec]) -> CoxSpec | None:
    """Return the multivariable model of the same terms, if the protocol has one."""
    same = ("endpoint", "covariates", "risk_category", "log_score", "subgroup", "missing")
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
            f"p {p_phrase(test.p_value)}"
        )
    c_index = findings.find(spec.id, POOLED, Measure.C_INDEX)
    if c_index is not None and c_index.estimate is not None:
        parts.append(f"C-index {number_words(c_index)}")
    proportional = findings.find(spec.id, POOLED, Measure.PROPORTIONALITY_CHI2)
    if proportional is not None and proportional.p_value is not None:
        parts.append(f"proportional hazards, global p {p_phrase(proportional.p_value)}")
    text = f" {'; '.join(parts)}." if parts else ""
    refused = refused_words(findings, spec, Measure.LOG_HAZARD_RATIO)
    return f"{text}{_risk_words(findings, spec)}{refused}{_left_out(findings, spec)}"


def _risk_words(findings: Findings, spec: CoxSpec) -> str:
    if spec.risk_category == "none":
        return ""
    return f" Risk category of the {score_words(findings.protocol, spec.risk_category)}."


def _left_out(findings: Findings, spec: CoxSpec) -> str:
    """Return how many analysed patients a model does not count, where all sites say it."""
    rows = findings.rows(spec.id, (Measure.HAZARD_RATIO, Measure.LOG_HAZARD_RATIO))
    counted = [row.n for row in rows if row.scope == POOLED and row.n]
    sizes = [findings.size(site) for site in findings.report.sites]
    known = [size for size in sizes if size is not None]
    is_whole = not any(row.scope != POOLED and row.estimate is None for row in rows)
    if not counted or len(known) < len(sizes) or not is_whole or sum(known) <= counted[0]:
        return ""
    why = "a missing value" if spec.missing == "complete_case" else "a missing time or event"
    if spec.subgroup or findings.protocol.endpoint(spec.endpoint).exclusion:
        why += ", or not of this analysis"
    if findings.protocol.endpoint(spec.endpoint).landmark_days:
        why += ", or not followed to the landmark"
    left = sum(known) - counted[0]
    return f" {left:,} of {sum(known):,} analysed patients are not counted ({why})."


def _cox_table(findings: Findings, spec: CoxSpec) -> Table:
    rows = [row for row in findings.rows(spec.id, (Measure.HAZARD_RATIO,)) if row.scope == POOLED]
    kind = "One model per covariate" if spec.univariable else "Hazard ratios"
    return Table(
        f"{kind} for {_endpoint_words(findings, spec)} "
        f"({analysis_words(findings.protocol, spec)}), stratified by site.",
        ("Covariate", "Hazard ratio (95% CI)", "p-value", "Patients", "Events"),
        tuple(_hazard_row(findings, row) for row in rows),
        note=_tail(findings, spec).strip(),
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
        rows.append(Row(covariate_words(findings.protocol, row.term), tuple(cells)))
    sizes = dict.fromkeys(_size_words(findings, spec) for spec in (series, model))
    n = "".join(f" {words}" for words in sizes if words)
    if len(sizes) > 1:
        alone, together = (words or "not stated." for words in sizes)
        n = f" Unadjusted: {alone} Adjusted: {together}"
    return Table(
        f"Associations with {_endpoint_words(findings, model)} ({series.id}, "
        f"{analysis_words(findings.protocol, model)}), stratified by site.",
        ("Covariate", "Unadjusted HR (95% CI)", "p-value", "Adjusted HR (95% CI)", "p-value"),
        tuple(rows),
        note=f"{n}{_tail(findings, model)}".strip(),
    )


def _size_words(findings: Findings, spec: CoxSpec) -> str:
    for row in findings.rows(spec.id, (Measure.HAZARD_RATIO,)):
        if row.scope == POOLED and row.n is not None and row.n_events is not None:
            return f"{row.n:,} patients, {row.n_events:,} events."
    return ""


def _ratio_cells(findings: Findings, analysis: str, row: Estimate | None) -> tuple[str, str]:
    gap = findings.gap(analysis, POOLED, row)
    if gap or row is None:
        return gap, gap
    return number_words(row), p_words(row.p_value)


def _endpoint_words(findings: Findings, spec: CoxSpec) -> str:
    endpoint = findings.protocol.endpoint(spec.endpoint)
    return endpoint.definition.rstrip(".")[:1].lower() + endpoint.definition.rstrip(".")[1:]


def _hazard_row(findings: Findings, row: Estimate) -> Row:
    counts = [count_words(findings, row.analysis, row, n) for n in (row.n, row.n_events)]
    cells = _ratio_cells(findings, row.analysis, row)
    return Row(covariate_words(findings.protocol, row.term), (*cells, *counts))


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
            count_words(findings, spec.id, row, n)
            for n in ((row.n, row.n_events) if row else (None, None))
        ]
        numbers = gap, gap
        if row is not None and not gap:
            numbers = f"{row.estimate:.1f}", p_words(row.p_value)
        by = score_words(findings.protocol, spec.by)
        curves = findings.rows(spec.id, (Measure.SURVIVAL,))
        groups = {row.group for row in curves if row.scope == POOLED}
        drawn = {row.group for row in curves if row.estimate is not None}
        name = f"{spec.endpoint} by {by} ({analysis_words(findings.protocol, spec)})"
        rows.append(Row(name, (*numbers, *counts, f"{len(drawn)} of {len(groups)}")))
    if not rows:
        return None
    columns = (
        "Curves",
        "\N{GREEK SMALL LETTER CHI}²",
        "p-value",
        "Patients",
        "Events",
        "Curves shown",
    )
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
            p_value = gap if gap or row is None else p_words(row.p_value)
            rows.append(Row(measure_words(measure), (words, p_value)))
    if not rows:
        return None
    return Table(
        "Added value: what the larger Cox model adds to the smaller one.",
        ("Measure", "Estimate (95% CI)", "p-value"),
        tuple(rows),
        note="NRI: net reclassification improvement. Event NRI: patients with the event whose risk "
        "rose, less those whose risk fell, as a share of them; non-event NRI the reverse among "
        "patients without. A category-free NRI counts any change of risk, however small.",
    )
