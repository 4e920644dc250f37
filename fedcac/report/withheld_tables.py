"""What was withheld, as the report prints it and as `results.json` states it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from fedcac.report.content import RoundReport
from fedcac.report.many_sites import MANY_SITES, sites_words
from fedcac.report.table import Row, Table
from fedcac.report.withheld import AnalysisCost, Number, SiteCost, costs_of
from fedcac.report.wording import refusal_words, suppressed_words
from fedcac.statistics.estimator import POOLED
from fedcac.vocabulary import RowStatus

__all__ = ["withheld_document", "withheld_table"]

_NONE = "none"
_NOT_STATED = "not stated"
_NO_EVENTS = "not applicable"
_NOTE = (
    "In part: the site gave some of what was asked, and is in some of the pooled values. Parts are "
    "the tables, rows and terms of an answer that are judged one by one. A site that refuses does "
    "not say how many patients it has: the number is that of another analysis of the same "
    "patients, or else the most that it can be."
)
_MANY_NOTE = (
    " Sites that lack the same for the same reason share a line; results.json has them one by one."
)


def withheld_table(report: RoundReport) -> Table:
    """Return, per analysis, every site of which something is missing, and all sites together."""
    costs = costs_of(report)
    rows = [row for cost in costs if not cost.is_whole for row in _rows(report, cost)]
    whole = ", ".join(cost.analysis for cost in costs if cost.is_whole)
    tail = f" Nothing was withheld from {whole}." if whole and rows else ""
    return Table(
        "Patients and events that the sites have for an analysis, and those behind its pooled "
        f"values.{tail}",
        ("Site", "Patients", "Patients pooled", "Events", "Events pooled", "Reason"),
        tuple(rows),
        note=_NOTE + (_MANY_NOTE if len(report.sites) > MANY_SITES else ""),
    )


def withheld_document(report: RoundReport) -> list[dict[str, Any]]:
    """Return the same of every analysis for machines; None where a number is not known."""
    return [
        {
            **{name: value for name, value in asdict(cost).items() if name != "sites"},
            "is_whole": cost.is_whole,
            "n_patients": asdict(_total([site.n_patients for site in cost.sites])),
            "n_patients_pooled": _sum([site.n_patients_pooled for site in cost.sites]),
            "n_events": asdict(_total(_events(cost))) if cost.has_endpoint else None,
            "n_events_pooled": _pooled_events(cost),
            "sites": [asdict(site) | {"is_whole": site.is_whole} for site in cost.sites],
        }
        for cost in costs_of(report)
    ]


def _rows(report: RoundReport, cost: AnalysisCost) -> Iterator[Row]:
    yield Row(cost.analysis)
    lacking = [site for site in cost.sites if not site.is_whole]
    if len(report.sites) > MANY_SITES:
        yield from _grouped_rows(report, cost, lacking)
    else:
        for site in lacking:
            yield Row(f"\N{EM SPACE}{site.site}", _site_cells(report, cost, site))
    is_partial = any(site.is_partial for site in cost.sites)
    pooled = _sum([site.n_patients_pooled for site in cost.sites])
    events, pooled_events = _NO_EVENTS, _NO_EVENTS
    if cost.has_endpoint:
        events = _words(_total(_events(cost)))
        pooled_events = _pooled_words(_pooled_events(cost), is_partial=is_partial)
        if any(site.n_events_pooled is None and site.n_suppressed for site in cost.sites):
            pooled_events = suppressed_words(report.minimum_cell(POOLED))
    yield Row(
        "\N{EM SPACE}All sites",
        (
            _words(_total([site.n_patients for site in cost.sites])),
            _pooled_words(pooled, is_partial=is_partial),
            events,
            pooled_events,
            _outcome(cost),
        ),
    )


def _grouped_rows(
    report: RoundReport, cost: AnalysisCost, lacking: Sequence[SiteCost]
) -> Iterator[Row]:
    groups: dict[tuple[object, ...], list[SiteCost]] = {}
    for site in lacking:
        # What each site suppressed differs; that it did, and by which rule, is the reason.
        rule = report.minimum_cell(site.site) if site.n_suppressed else 0
        key = site.codes, site.waits_for, rule, site.is_partial, site.n_patients_pooled is None
        groups.setdefault(key, []).append(site)
    for sites in sorted(groups.values(), key=len, reverse=True):
        if len(sites) == 1:
            (site,) = sites
            yield Row(f"\N{EM SPACE}{site.site}", _site_cells(report, cost, site))
            continue
        events, pooled_events = _NO_EVENTS, _NO_EVENTS
        if cost.has_endpoint:
            events = _words(_total([s.n_events for s in sites if s.n_events is not None]))
            known = _sum([site.n_events_pooled for site in sites])
            pooled_events = _pooled_words(known, is_partial=sites[0].is_partial)
            if any(site.n_events_pooled is None and site.n_suppressed for site in sites):
                pooled_events = suppressed_words(report.minimum_cell(sites[0].site))
        pooled = _sum([site.n_patients_pooled for site in sites])
        yield Row(
            f"\N{EM SPACE}{sites_words([site.site for site in sites])}",
            (
                _words(_total([site.n_patients for site in sites])),
                _pooled_words(pooled, is_partial=sites[0].is_partial),
                events,
                pooled_events,
                _shared_reason(report, cost, sites),
            ),
        )


def _shared_reason(report: RoundReport, cost: AnalysisCost, sites: Sequence[SiteCost]) -> str:
    first = sites[0]
    reasons = [f"{refusal_words(code)} ({code.value})" for code in first.codes]
    if first.n_suppressed:
        least, most = (pick(site.n_suppressed for site in sites) for pick in (min, max))
        reach = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        words = suppressed_words(report.minimum_cell(first.site))
        reasons.append(f"{reach} parts of each site's answer {words}")
    if first.waits_for:
        reasons.append(f"not in the fit of {', '.join(first.waits_for)}")
    return "; ".join(reasons) or _reason(report, cost, first)


def _site_cells(report: RoundReport, cost: AnalysisCost, site: SiteCost) -> tuple[str, ...]:
    events, pooled_events = _NO_EVENTS, _NO_EVENTS
    if site.n_events is not None:
        events = _words(site.n_events)
        pooled_events = _pooled_words(site.n_events_pooled, is_partial=site.is_partial)
        if site.n_events_pooled is None and site.n_suppressed:
            pooled_events = suppressed_words(report.minimum_cell(site.site))
    return (
        _words(site.n_patients),
        _pooled_words(site.n_patients_pooled, is_partial=site.is_partial),
        events,
        pooled_events,
        _reason(report, cost, site),
    )


def _reason(report: RoundReport, cost: AnalysisCost, site: SiteCost) -> str:
    reasons = [f"{refusal_words(code)} ({code.value})" for code in site.codes]
    if site.n_suppressed:
        words = suppressed_words(report.minimum_cell(site.site))
        reasons.append(f"{site.n_suppressed:,} of {site.n_parts:,} parts {words}")
    if site.waits_for:
        reasons.append(f"not in the fit of {', '.join(site.waits_for)}")
    if not reasons and cost.status is RowStatus.OK:
        return "no answer"
    return "; ".join(reasons) or _outcome(cost)


def _outcome(cost: AnalysisCost) -> str:
    if cost.status is not RowStatus.OK:
        return f"no pooled value: {cost.status.value.replace('_', ' ')}"
    if not cost.n_absent:
        return "every pooled value has a number"
    return f"{cost.n_absent:,} of {cost.n_values:,} pooled values without a number"


def _events(cost: AnalysisCost) -> list[Number]:
    return [site.n_events for site in cost.sites if site.n_events is not None]


def _pooled_events(cost: AnalysisCost) -> int | None:
    return _sum([site.n_events_pooled for site in cost.sites]) if cost.has_endpoint else None


def _sum(numbers: Sequence[int | None]) -> int | None:
    """Return a sum, or None if a part of it is not known."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _total(numbers: Sequence[Number]) -> Number:
    total = _sum([number.value for number in numbers])
    return Number(total, total is not None and all(number.is_exact for number in numbers))


def _words(number: Number) -> str:
    if number.value is None:
        return _NOT_STATED
    return f"{number.value:,}" if number.is_exact else f"at most {number.value:,}"


def _pooled_words(number: int | None, *, is_partial: bool) -> str:
    if number is None:
        return _NOT_STATED
    return (f"{number:,}, in part" if is_partial else f"{number:,}") if number else _NONE
