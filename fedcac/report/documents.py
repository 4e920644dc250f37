"""`results.json` and `provenance.json`: the round for machines."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fedcac.report.content import RoundReport, SiteSummary
from fedcac.report.withheld_tables import withheld_document

__all__ = ["OUTPUT_FORMAT", "provenance_document", "results_document"]

OUTPUT_FORMAT = "fedcac-output/1"
"""Marks a folder as an output of this project, so that a later report may replace it."""


def results_document(report: RoundReport) -> dict[str, Any]:
    """Return protocol, sites, what was withheld, and all estimates as a JSON document."""
    return {
        "schema_version": 1,
        "round": _round(report),
        "protocol": _protocol(report),
        "sites": [_site(site) for site in report.sites],
        "withheld": withheld_document(report),
        "estimates": [asdict(row) for row in report.estimates],
    }


def provenance_document(report: RoundReport, files: dict[str, str]) -> dict[str, Any]:
    """Return where the numbers come from; `files` maps file names of the folder to digests."""
    card = report.package_card
    return {
        "format": OUTPUT_FORMAT,
        "round": _round(report),
        "protocol": _protocol(report),
        "package": None
        if card is None
        else {
            "name": card.name,
            "version": card.version,
            "is_demonstration": card.is_demonstration,
        },
        "is_open_policy": report.is_open_policy,
        "sites": {
            site.name: {
                "ledger_head": site.ledger_head,
                "policy_digest": site.policy.digest if site.policy else None,
                "software": site.software,
                "package": site.package,
                "bytes_left": site.bytes_left,
            }
            for site in report.sites
        },
        "files": files,
        "recorded": dict(report.provenance),
    }


def _round(report: RoundReport) -> dict[str, Any]:
    return {
        "id": report.round_id,
        "exchanges": report.exchanges,
        "started": report.started.isoformat(),
        "finished": report.finished.isoformat(),
    }


def _protocol(report: RoundReport) -> dict[str, Any]:
    protocol = report.protocol
    return {
        "id": protocol.id,
        "version": protocol.version,
        "title": protocol.title,
        "digest": protocol.digest(),
    }


def _site(site: SiteSummary) -> dict[str, Any]:
    return {
        "name": site.name,
        "flow": site.flow.to_payload() if site.flow else None,
        "policy": site.policy.model_dump(mode="json") if site.policy else None,
        "refusals": {analysis: str(code) for analysis, code in sorted(site.refusals.items())},
        "n_releases": site.n_releases,
        "bytes_left": site.bytes_left,
        "ledger_head": site.ledger_head,
        "software": site.software,
        "package": site.package,
    }
