"""The forest plots of a round: kappas, accuracy, AUCs and hazard ratios by site and pooled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from fedcac.protocol import AccuracySpec, AgreementSpec, CoxSpec
from fedcac.report.figures.canvas import Figure
from fedcac.report.figures.caterpillar import Caterpillars, draw_caterpillars
from fedcac.report.figures.forest import Forest, ForestRow, draw_forest
from fedcac.report.findings import Findings
from fedcac.report.many_sites import is_many
from fedcac.report.wording import (
    PERCENT_MEASURES,
    covariate_words,
    measure_words,
    number_words,
    p_phrase,
    scope_words,
)
from fedcac.statistics.estimator import META, POOLED, Estimate
from fedcac.vocabulary import Measure

__all__ = ["forest_figures", "summarised_scopes"]

_LONGEST_LABEL = 24
_FOREST_ACCURACY = (Measure.SENSITIVITY, Measure.SPECIFICITY, Measure.PPV)


@dataclass(frozen=True)
class _Value:
    """Which number of every site a plot shows."""

    analysis: str
    measure: Measure
    term: str


def forest_figures(findings: Findings) -> Iterator[Figure]:
    """Yield the plots by site, of many sites with a sheet of small multiples before them."""
    for sheet in (
        *_kappas(findings),
        *_accuracies(findings),
        *_aucs(findings),
        *_hazards_by_site(findings),
    ):
        # A plot of nothing but suppressed rows repeats the table and shows an axis of no meaning.
        shown = [forest for forest in sheet.panels if _has_value(forest)]
        if is_many(findings) and shown:
            yield draw_caterpillars(replace(sheet, panels=tuple(shown)))
        for forest in shown:
            yield draw_forest(forest)
    for forest in _hazards(findings):
        if _has_value(forest):
            yield draw_forest(forest)


def _has_value(forest: Forest) -> bool:
    return any(row.estimate is not None for row in forest.rows)


def _sheet(kind: str, analysis: str, title: str, panels: Iterable[Forest]) -> Caterpillars:
    return Caterpillars(f"sites_{kind}:{analysis}", f"{analysis}_{kind}", title, tuple(panels))


def _by_site(
    findings: Findings, kind: str, value: _Value, title: str, axis: str, factor: float = 1.0
) -> Forest:
    is_ratio = value.measure is Measure.HAZARD_RATIO
    tail = "by_site" if is_ratio else ""
    words = (value.analysis, "" if is_ratio else value.measure, value.term, tail)
    return Forest(
        section=f"forest_{kind}:{value.analysis}",
        name="_".join(word for word in words if word),
        title=title,
        axis=axis,
        rows=_rows(findings, value, factor),
        note=_heterogeneity(findings, value),
        is_log=is_ratio,
        limits=(0.0, 100.0) if factor == 100.0 else None,
        reference=1.0 if is_ratio else None,
    )


def _kappas(findings: Findings) -> Iterator[Caterpillars]:
    for spec in findings.analyses("agreement"):
        if not isinstance(spec, AgreementSpec) or findings.protocol.is_masked(spec.id):
            continue
        measures = [Measure(f"kappa_{weights.value}") for weights in spec.weights]
        yield _sheet(
            "kappa",
            spec.id,
            "Kappa by site",
            (
                _by_site(
                    findings,
                    "kappa",
                    _Value(spec.id, measure, ""),
                    measure_words(measure),
                    f"{measure_words(measure)}, all categories",
                )
                for measure in measures
            ),
        )


def _accuracies(findings: Findings) -> Iterator[Caterpillars]:
    for spec in findings.analyses("accuracy"):
        if not isinstance(spec, AccuracySpec) or findings.protocol.is_masked(spec.id):
            continue
        yield _sheet(
            "accuracy",
            spec.id,
            "Accuracy by site",
            (
                _by_site(
                    findings,
                    "accuracy",
                    _Value(spec.id, measure, f"{cut_off:g}"),
                    f"{measure_words(measure)} at cut-off {cut_off:g}",
                    f"{measure_words(measure)}, %",
                    100.0,
                )
                for cut_off in findings.protocol.categories.cut_offs
                for measure in _FOREST_ACCURACY
            ),
        )


def _aucs(findings: Findings) -> Iterator[Caterpillars]:
    for spec in findings.analyses("auc"):
        if findings.protocol.is_masked(spec.id):
            continue
        terms = findings.terms(spec.id, Measure.AUC)
        yield _sheet(
            "auc",
            spec.id,
            "AUC by site",
            (
                _by_site(
                    findings,
                    "auc",
                    _Value(spec.id, Measure.AUC, term),
                    f"AUC at cut-off {term}",
                    "Area under the ROC curve",
                )
                for term in terms
            ),
        )


def _hazards_by_site(findings: Findings) -> Iterator[Caterpillars]:
    for spec in findings.analyses("cox"):
        if not isinstance(spec, CoxSpec) or not spec.by_site:
            continue
        yield _sheet(
            "by_site",
            spec.id,
            "Hazard ratios by site",
            (
                _by_site(
                    findings,
                    "by_site",
                    _Value(spec.id, Measure.HAZARD_RATIO, term),
                    f"{covariate_words(findings.protocol, term)}: hazard ratio by site",
                    "Hazard ratio (log scale)",
                )
                for term in findings.terms(spec.id, Measure.HAZARD_RATIO)
            ),
        )


def _hazards(findings: Findings) -> Iterator[Forest]:
    for spec in findings.analyses("cox"):
        rows = [
            row for row in findings.rows(spec.id, (Measure.HAZARD_RATIO,)) if row.scope == POOLED
        ]
        if isinstance(spec, CoxSpec) and rows:
            yield Forest(
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


def _covariate(findings: Findings, term: str) -> str:
    """Return a covariate's words if they fit the plot's first column, else its name and level."""
    if term in findings.protocol.categories.labels:
        return f"Category {term}"
    words = covariate_words(findings.protocol, term).partition(", per ")[0]
    name, _, level = term.partition("=")
    if level or len(words) > _LONGEST_LABEL:
        words = name.replace("_", " ").capitalize() + (f": {level}" if level else "")
    return words if len(words) <= _LONGEST_LABEL else f"{words[: _LONGEST_LABEL - 1].rstrip()}…"


def _rows(findings: Findings, value: _Value, factor: float) -> tuple[ForestRow, ...]:
    sites: list[ForestRow] = []
    summaries: list[ForestRow] = []
    for scope in summarised_scopes(findings, value.analysis, value.measure, value.term):
        row = findings.find(value.analysis, scope, value.measure, value.term)
        label, is_summary = scope_words(scope), scope in {POOLED, META}
        into = summaries if is_summary else sites
        if row is None:
            into.append(ForestRow(label, findings.gap(value.analysis, scope, None)))
        else:
            into.append(_forest_row(findings, row, label, factor, is_summary))
    if is_many(findings):
        sites = _sorted_sites(sites)
    return (*sites, *summaries, *_reach(findings, value, factor))


def _sorted_sites(sites: list[ForestRow]) -> list[ForestRow]:
    """Return the sites by their values, and a line per reason for those that have none."""
    known = [row for row in sites if row.estimate is not None]
    gaps: dict[str, list[str]] = {}
    for row in sites:
        if row.estimate is None:
            gaps.setdefault(row.words, []).append(row.label)
    return [
        *sorted(known, key=lambda row: row.estimate or 0.0, reverse=True),
        *(
            ForestRow(names[0] if len(names) == 1 else f"{len(names)} further sites", words)
            for words, names in gaps.items()
        ),
    ]


def _reach(findings: Findings, value: _Value, factor: float) -> Iterator[ForestRow]:
    """Yield the prediction interval for a further site, if the round has one."""
    row = findings.find(
        value.analysis, META, Measure.PREDICTION_INTERVAL, value.term, group=value.measure.value
    )
    if row is None or row.estimate is None or row.ci_low is None or row.ci_high is None:
        return
    words = number_words(replace(row, measure=value.measure)).partition("(")[2].rstrip(")")
    yield ForestRow(
        "95% prediction",
        words.replace(", ", " to "),
        low=factor * row.ci_low,
        high=factor * row.ci_high,
        is_reach=True,
    )


def summarised_scopes(
    findings: Findings, analysis: str, measure: Measure, term: str
) -> tuple[str, ...]:
    """Return whom a figure of one value shows: the sites, `pooled`, and `meta` if it has it."""
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


def _heterogeneity(findings: Findings, value: _Value) -> str:
    parts = []
    share = findings.find(value.analysis, META, Measure.I2, value.term, value.measure.value)
    if share is not None and share.estimate is not None:
        parts.append(f"I² = {100 * share.estimate:.0f}%")
        if share.p_value is not None:
            parts.append(f"p of Q {p_phrase(share.p_value)}")
    # The prediction interval is made with REML's variance.
    for kind, words in ((Measure.TAU2_REML, "τ² (REML)"), (Measure.TAU2, "τ²")):
        row = findings.find(value.analysis, META, kind, value.term, value.measure.value)
        if row is not None and row.estimate is not None:
            parts.append(f"{words} = {row.estimate:.3g}")
            break
    scale = " (logit scale)" if value.measure in PERCENT_MEASURES else ""
    scale = " (log scale)" if value.measure is Measure.HAZARD_RATIO else scale
    return f"Between sites: {', '.join(parts)}{scale}" if parts else ""
