"""Chooses which figures a round gives, and hands the drawing routines their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from fedcac.protocol import AccuracySpec, AgreementSpec, CoxSpec
from fedcac.report.figures.bland_altman import BlandAltmanRow, Bounds, draw_bland_altman
from fedcac.report.figures.canvas import Figure
from fedcac.report.figures.confusion import draw_agreement, draw_confusion
from fedcac.report.figures.flow import draw_flow
from fedcac.report.figures.forest import Forest, ForestRow, draw_forest
from fedcac.report.figures.outcomes import outcome_figures
from fedcac.report.findings import Findings
from fedcac.report.wording import (
    covariate_words,
    measure_words,
    number_words,
    scope_words,
    score_words,
    term_words,
)
from fedcac.statistics.estimator import META, POOLED, Estimate
from fedcac.vocabulary import Measure

__all__ = ["draw_figures"]

_LONGEST_LABEL = 24
_FOREST_ACCURACY = (Measure.SENSITIVITY, Measure.SPECIFICITY, Measure.PPV)


def draw_figures(findings: Findings) -> tuple[Figure, ...]:
    """Return all figures in the order of the report; names are unique."""
    figures = (
        *_flows(findings),
        *_matrices(findings),
        *_kappas(findings),
        *_accuracies(findings),
        *_bland_altmans(findings),
        *_hazards(findings),
        *_hazards_by_site(findings),
        *outcome_figures(findings),
    )
    return tuple(_with_unique_names(figures))


def _with_unique_names(figures: Iterable[Figure]) -> Iterator[Figure]:
    """Number the figures whose names clash: sites `A-1` and `a_1` would share a file."""
    taken: set[str] = set()
    for figure in figures:
        name, number = figure.name, 1
        while name in taken:
            number += 1
            name = f"{figure.name}_{number}"
        taken.add(name)
        svg = figure.svg
        for before in ('id="', "#"):
            svg = svg.replace(f"{before}{figure.name}-", f"{before}{name}-")
        yield replace(figure, name=name, svg=svg)


def _flows(findings: Findings) -> Iterator[Figure]:
    for site in findings.report.sites:
        if site.flow is not None:
            yield draw_flow(site.name, site.flow, findings.threshold(site.name))


def _matrices(findings: Findings) -> Iterator[Figure]:
    for spec in findings.analyses("agreement"):
        if not isinstance(spec, AgreementSpec):
            continue
        words = [score_words(findings.protocol, role) for role in (spec.index, spec.reference)]
        names = (words[0][:1].upper() + words[0][1:], words[1][:1].upper() + words[1][1:])
        # The pooled matrix first: it is the one a reader came for.
        for scope in (POOLED, *findings.sites):
            for matrix in findings.matrices(spec.id, scope):
                any_cell = findings.find(
                    spec.id, scope, Measure.COUNT, matrix.labels[0], matrix.labels[0]
                )
                gap = findings.gap(spec.id, scope, any_cell) if matrix.is_suppressed else ""
                yield draw_confusion(spec.id, matrix, gap, names)
                if matrix.n:
                    yield draw_agreement(spec.id, matrix, names)


def _kappas(findings: Findings) -> Iterator[Figure]:
    for spec in findings.analyses("agreement"):
        if not isinstance(spec, AgreementSpec) or findings.protocol.is_masked(spec.id):
            continue
        for weights in spec.weights:
            measure = Measure(f"kappa_{weights.value}")
            yield from _drawn(
                Forest(
                    section=f"forest_kappa:{spec.id}",
                    name=f"{spec.id}_{measure}",
                    title=measure_words(measure),
                    axis=f"{measure_words(measure)}, all categories",
                    rows=_rows(findings, spec.id, measure, ""),
                    note=_heterogeneity(findings, spec.id, measure, ""),
                )
            )


def _accuracies(findings: Findings) -> Iterator[Figure]:
    for spec in findings.analyses("accuracy"):
        if not isinstance(spec, AccuracySpec) or findings.protocol.is_masked(spec.id):
            continue
        for cut_off in findings.protocol.categories.cut_offs:
            for measure in _FOREST_ACCURACY:
                term = f"{cut_off:g}"
                yield from _drawn(
                    Forest(
                        section=f"forest_accuracy:{spec.id}",
                        name=f"{spec.id}_{measure}_{term}",
                        title=f"{measure_words(measure)} at cut-off {term}",
                        axis=f"{measure_words(measure)}, %",
                        rows=_rows(findings, spec.id, measure, term, factor=100.0),
                        note=_heterogeneity(findings, spec.id, measure, term),
                        limits=(0.0, 100.0),
                    )
                )


def _bland_altmans(findings: Findings) -> Iterator[Figure]:
    for spec in findings.analyses("bland_altman"):
        for term in findings.terms(spec.id, Measure.BIAS):
            title = "All vessels" if not term else term_words(term)
            rows = tuple(
                _difference(findings, spec.id, scope, term)
                for scope in _summarised(findings, spec.id, Measure.BIAS, term)
            )
            yield draw_bland_altman(spec.id, term, title, rows)


def _hazards(findings: Findings) -> Iterator[Figure]:
    for spec in findings.analyses("cox"):
        rows = [
            row for row in findings.rows(spec.id, (Measure.HAZARD_RATIO,)) if row.scope == POOLED
        ]
        if isinstance(spec, CoxSpec) and rows:
            yield from _drawn(
                Forest(
                    section=f"forest_cox:{spec.id}",
                    name=f"{spec.id}_hazard_ratio",
                    title=f"Hazard ratios, {spec.id}",
                    axis="Hazard ratio (log scale)",
                    rows=tuple(
                        _forest_row(findings, row, _covariate(findings, row.term)) for row in rows
                    ),
                    is_log=True,
                    reference=1.0,
                )
            )


def _hazards_by_site(findings: Findings) -> Iterator[Figure]:
    for spec in findings.analyses("cox"):
        if not isinstance(spec, CoxSpec) or not spec.by_site:
            continue
        for term in findings.terms(spec.id, Measure.HAZARD_RATIO):
            yield from _drawn(
                Forest(
                    section=f"forest_by_site:{spec.id}",
                    name=f"{spec.id}_{term}_by_site",
                    title=f"{covariate_words(findings.protocol, term)}: hazard ratio by site",
                    axis="Hazard ratio (log scale)",
                    rows=_rows(findings, spec.id, Measure.HAZARD_RATIO, term),
                    note=_heterogeneity(findings, spec.id, Measure.HAZARD_RATIO, term),
                    is_log=True,
                    reference=1.0,
                )
            )


def _covariate(findings: Findings, term: str) -> str:
    """Return a covariate's words if they fit the plot's first column, else its name and level."""
    if term in findings.protocol.categories.labels:
        return f"Category {term}"
    words = covariate_words(findings.protocol, term).partition(", per ")[0]
    name, _, level = term.partition("=")
    if level or len(words) > _LONGEST_LABEL:
        words = name.replace("_", " ").capitalize() + (f": {level}" if level else "")
    return words if len(words) <= _LONGEST_LABEL else f"{words[: _LONGEST_LABEL - 1].rstrip()}…"


def _drawn(forest: Forest) -> Iterator[Figure]:
    # A plot of nothing but suppressed rows repeats the table and shows an axis of no meaning.
    if any(row.estimate is not None for row in forest.rows):
        yield draw_forest(forest)


def _rows(
    findings: Findings, analysis: str, measure: Measure, term: str, factor: float = 1.0
) -> tuple[ForestRow, ...]:
    rows = []
    for scope in _summarised(findings, analysis, measure, term):
        row = findings.find(analysis, scope, measure, term)
        label = scope_words(scope)
        if row is None:
            rows.append(ForestRow(label, findings.gap(analysis, scope, None)))
        else:
            rows.append(_forest_row(findings, row, label, factor, scope in {POOLED, META}))
    return tuple(rows)


def _summarised(findings: Findings, analysis: str, measure: Measure, term: str) -> tuple[str, ...]:
    has_meta = findings.find(analysis, META, measure, term) is not None
    sites = () if findings.protocol.is_masked(analysis) else findings.sites
    return (*sites, POOLED, *((META,) if has_meta else ()))


def _forest_row(
    findings: Findings,
    row: Estimate,
    label: str,
    factor: float = 1.0,
    is_summary: bool = False,
) -> ForestRow:
    gap = findings.gap(row.analysis, row.scope, row)
    if gap or row.estimate is None:
        return ForestRow(label, gap, n=row.n, is_summary=is_summary)
    return ForestRow(
        label=label,
        words=number_words(row),
        n=row.n,
        estimate=factor * row.estimate,
        low=None if row.ci_low is None else factor * row.ci_low,
        high=None if row.ci_high is None else factor * row.ci_high,
        is_summary=is_summary,
    )


def _heterogeneity(findings: Findings, analysis: str, measure: Measure, term: str) -> str:
    parts = []
    for kind, words, factor, unit in ((Measure.I2, "I²", 100, "%"), (Measure.TAU2, "τ²", 1, "")):
        row = findings.find(analysis, META, kind, term, group=measure.value)
        if row is not None and row.estimate is not None:
            parts.append(f"{words} = {factor * row.estimate:.{0 if unit else 3}f}{unit}")
    reach = findings.find(analysis, META, Measure.PREDICTION_INTERVAL, term, group=measure.value)
    if reach is not None and reach.estimate is not None:
        words = number_words(replace(reach, measure=measure)).partition("(")[2].rstrip(")")
        parts.append(f"prediction interval {words.replace(', ', ' to ')}")
    return "Between sites: " + ", ".join(parts) if parts else ""


def _difference(findings: Findings, analysis: str, scope: str, term: str) -> BlandAltmanRow:
    bias = findings.find(analysis, scope, Measure.BIAS, term)
    label = scope_words(scope)
    gap = findings.gap(analysis, scope, bias)
    if gap or bias is None:
        return BlandAltmanRow(label, gap, n=bias.n if bias else None)
    low = _bounds(findings.find(analysis, scope, Measure.LOA_LOW, term))
    high = _bounds(findings.find(analysis, scope, Measure.LOA_HIGH, term))
    limits = f" ({low[0]:.1f}, {high[0]:.1f})" if low and high else ""
    centre = _bounds(bias)
    words = f"{centre[0]:.1f}{limits}" if centre else ""
    return BlandAltmanRow(
        label=label,
        words=words.replace("-", "\N{MINUS SIGN}"),
        n=bias.n,
        bias=centre,
        lower=low,
        upper=high,
        is_summary=scope in {POOLED, META},
    )


def _bounds(row: Estimate | None) -> Bounds | None:
    if row is None or row.estimate is None:
        return None
    low = row.estimate if row.ci_low is None else row.ci_low
    high = row.estimate if row.ci_high is None else row.ci_high
    return row.estimate, low, high
