"""Tables of the flow of patients: stages and exclusions, over all sites and site by site."""

from __future__ import annotations

from collections.abc import Sequence

from fedcac.aggregate import Count, FlowCounts, FlowStage
from fedcac.report.figures.flow import count_words, sum_words
from fedcac.report.findings import Findings
from fedcac.report.many_sites import is_many
from fedcac.report.table import Row, Table
from fedcac.report.wording import STAGE_WORDS, exclusion_words
from fedcac.vocabulary import ExclusionReason

__all__ = ["flow_by_site", "flow_table"]

_NOT_RELEASED = "not released"


def _released(findings: Findings) -> tuple[FlowCounts, ...]:
    """Return the flows that sites released."""
    return tuple(site.flow for site in findings.report.sites if site.flow is not None)


def flow_table(findings: Findings) -> Table:
    """Return the stages of the flow and every exclusion reason: all sites, and a column for each.

    Many sites have no columns; `flow_by_site` has their rows.
    """
    sites = () if is_many(findings) else findings.report.sites
    flows = _released(findings)
    n_silent = len(findings.report.sites) - len(flows)

    def cells(pick: FlowStage | ExclusionReason) -> tuple[str, ...]:
        own = (_cell(findings, site.name, site.flow, pick) for site in sites)
        total = sum_words([_count(flow, pick) for flow in flows]) if flows else _NOT_RELEASED
        return (*own, total)

    rows = [Row(STAGE_WORDS[stage], cells(stage)) for stage in FlowStage]
    reasons = _reasons(flows)
    if reasons:
        rows.append(Row("Excluded, by coded reason"))
    rows.extend(Row(exclusion_words(reason), cells(reason)) for reason in reasons)
    silent = f", without {n_silent} that released none" if n_silent and flows else ""
    return Table(
        "Flow of patients (distinct patients; STARD).",
        ("Stage", *(site.name for site in sites), f"All sites{silent}"),
        tuple(rows),
        has_summary=True,
    )


def flow_by_site(findings: Findings) -> tuple[Table, ...]:
    """Return the flow with a row per site, where a column each is too much."""
    if not is_many(findings):
        return ()
    picks = (*FlowStage, *_reasons(_released(findings)))
    rows = tuple(
        Row(site.name, tuple(_cell(findings, site.name, site.flow, pick) for pick in picks))
        for site in findings.report.sites
    )
    titles = (
        STAGE_WORDS[pick] if isinstance(pick, FlowStage) else exclusion_words(pick)
        for pick in picks
    )
    return (Table("Flow of patients by site (distinct patients).", ("Site", *titles), rows),)


def _reasons(flows: Sequence[FlowCounts]) -> list[ExclusionReason]:
    return sorted({reason for flow in flows for reason in flow.exclusions})


def _count(flow: FlowCounts, pick: FlowStage | ExclusionReason) -> Count:
    return flow.stages[pick] if isinstance(pick, FlowStage) else flow.exclusions.get(pick, 0)


def _cell(
    findings: Findings, site: str, flow: FlowCounts | None, pick: FlowStage | ExclusionReason
) -> str:
    if flow is None:
        return _NOT_RELEASED
    return count_words(_count(flow, pick), findings.threshold(site))
