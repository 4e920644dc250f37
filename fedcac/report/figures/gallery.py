"""Chooses which figures a round gives, and hands the drawing routines their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import inf

from fedcac.protocol import AgreementSpec, DistributionSpec
from fedcac.report.figures.bland_altman import BlandAltmanRow, Bounds, draw_bland_altman
from fedcac.report.figures.canvas import Figure
from fedcac.report.figures.confusion import draw_agreement, draw_confusion
from fedcac.report.figures.distributions import MixRow, Violin, draw_mix, draw_violins
from fedcac.report.figures.flow import draw_flow, draw_pooled_flow
from fedcac.report.figures.forests import forest_figures, summarised_scopes
from fedcac.report.figures.mosaic import draw_mosaic
from fedcac.report.figures.outcomes import outcome_figures
from fedcac.report.findings import Findings
from fedcac.report.many_sites import is_many
from fedcac.report.released_scores import pooled_bins, released_scores
from fedcac.report.wording import (
    capital,
    reference_note,
    scope_words,
    score_words,
    suppressed_words,
    term_words,
)
from fedcac.statistics.estimator import META, POOLED, Estimate
from fedcac.vocabulary import Measure

__all__ = ["draw_figures"]


def draw_figures(findings: Findings, releases: bytes = b"") -> tuple[Figure, ...]:
    """Return all figures in the order of the report; names are unique.

    `releases` is the round's `releases.jsonl`, which alone holds the released histograms.
    """
    figures = (
        *_flows(findings),
        *_matrices(findings),
        *_mixes(findings),
        *forest_figures(findings),
        *_bland_altmans(findings),
        *_distributions(findings, releases),
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
    note = reference_note(findings.report.protocol)
    sites = [site for site in findings.report.sites if site.flow is not None]
    if len(sites) > 1:
        yield draw_pooled_flow([site.flow for site in sites if site.flow is not None], note)
    if is_many(findings):
        return
    for site in sites:
        if site.flow is not None:
            yield draw_flow(site.name, site.flow, findings.threshold(site.name), note)


def _matrices(findings: Findings) -> Iterator[Figure]:
    for spec in findings.analyses("agreement"):
        if not isinstance(spec, AgreementSpec):
            continue
        names = _names(findings, spec)
        # The pooled matrix first: it is the one a reader came for.
        for scope in (POOLED, *(() if is_many(findings) else findings.sites)):
            for matrix in findings.matrices(spec.id, scope):
                any_cell = findings.find(
                    spec.id, scope, Measure.COUNT, matrix.labels[0], matrix.labels[0]
                )
                gap = findings.gap(spec.id, scope, any_cell) if matrix.is_suppressed else ""
                yield draw_confusion(spec.id, matrix, gap, names)
                if matrix.n:
                    yield draw_agreement(spec.id, matrix, names)
        if is_many(findings):
            found = [m for site in findings.sites for m in findings.matrices(spec.id, site)]
            if any(not matrix.is_suppressed for matrix in found):
                yield draw_mosaic(spec.id, found, names)


def _names(findings: Findings, spec: AgreementSpec | DistributionSpec) -> tuple[str, str]:
    words = [score_words(findings.protocol, role) for role in (spec.index, spec.reference)]
    return capital(words[0]), capital(words[1])


def _mixes(findings: Findings) -> Iterator[Figure]:
    for spec in findings.analyses("agreement"):
        if not isinstance(spec, AgreementSpec):
            continue
        labels = findings.protocol.categories.labels
        rows = []
        for scope in (POOLED, *findings.sites):
            whole = [m for m in findings.matrices(spec.id, scope) if not m.is_collapsed]
            cells = whole[0].cells if whole and not whole[0].is_suppressed else None
            label, is_pooled = scope_words(scope), scope == POOLED
            if cells is None:
                found = findings.find(spec.id, scope, Measure.COUNT, labels[0], labels[0])
                gap = findings.gap(spec.id, scope, found) or "released with merged categories"
                rows.append(MixRow(label, gap=gap, is_summary=is_pooled))
                continue
            size = range(len(labels))
            reference = tuple(sum(cell or 0 for cell in cells[i]) for i in size)
            index = tuple(sum(line[i] or 0 for line in cells) for i in size)
            rows.append(MixRow(label, reference, index, is_summary=is_pooled))
        if sum(not row.gap for row in rows) > 1:
            yield draw_mix(spec.id, labels, rows, _names(findings, spec))


def _distributions(findings: Findings, releases: bytes) -> Iterator[Figure]:
    specs = [s for s in findings.analyses("distribution") if isinstance(s, DistributionSpec)]
    found = released_scores(releases) if specs else {}
    for spec in specs:
        sites = found.get(spec.id, {})
        if not sites:
            continue
        pairs = [sites[site] for site in findings.sites if site in sites]
        pooled = [pooled_bins([b for pair in pairs if (b := pair[i]) is not None]) for i in (0, 1)]
        rows = [Violin("Pooled", pooled[0], pooled[1], is_summary=True)]
        for site in findings.sites:
            index, reference = sites.get(site, (None, None))
            is_gap = index is None and reference is None
            gap = _histogram_gap(findings, spec.id, site) if is_gap else ""
            rows.append(Violin(site, index, reference, gap))
        if any(bins is not None for bins in pooled):
            yield draw_violins(spec.id, "Distribution of scores", rows, _names(findings, spec))


def _histogram_gap(findings: Findings, analysis: str, site: str) -> str:
    summary = next(one for one in findings.report.sites if one.name == site)
    if summary.refusal_of(analysis) is None:
        return suppressed_words(findings.threshold(site))
    return findings.gap(analysis, site, None)


def _bland_altmans(findings: Findings) -> Iterator[Figure]:
    for spec in findings.analyses("bland_altman"):
        for term in findings.terms(spec.id, Measure.BIAS):
            title = "All vessels" if not term else term_words(term)
            scopes = summarised_scopes(findings, spec.id, Measure.BIAS, term)
            rows = [_difference(findings, spec.id, scope, term) for scope in scopes]
            if is_many(findings):
                # Sites first, from the highest bias to the lowest; those without one after them.
                rows.sort(key=lambda row: (row.is_summary, -row.bias[0] if row.bias else inf))
            yield draw_bland_altman(spec.id, term, title, tuple(rows))


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
