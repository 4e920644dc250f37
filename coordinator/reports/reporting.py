"""From a finished round to its report: what the report room needs, taken from the store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from coordinator.reports.release_reading import Releases
from coordinator.reports.release_records import RELEASES_FILE
from coordinator.reports.releases import RoundSeals, releases_jsonl
from coordinator.reports.repooling import repool
from coordinator.rounds.answers import exchange_answers
from coordinator.rounds.masked_sums import SumOfSites
from coordinator.rounds.views import RoundView, SiteView
from fedcac import __version__
from fedcac.canonical import canonical_bytes, digest_of, sha256_hex
from fedcac.errors import RoundError
from fedcac.report import (
    ExchangeAnswer,
    PackageCard,
    ReportFormats,
    RoundReport,
    SiteSummary,
    estimates_csv,
)
from fedcac.vocabulary import ReferenceKind, RefusalCode

if TYPE_CHECKING:
    from fedcac.models.manifest import PackageManifest

__all__ = ["round_report", "write_repooled_report", "write_round_report"]


def write_round_report(
    view: RoundView,
    out: Path,
    package: PackageManifest | None,
    seals: RoundSeals | None = None,
    formats: ReportFormats | None = None,
) -> RoundReport:
    """Write the output folder of a pooled round, its releases included; return what it shows.

    With `seals` the releases carry the signatures of the lead and the sites; without them, as in
    a round in memory whose keys are made for it, digests only. `formats` adds further forms.

    Raises
    ------
    RoundError
        If the round has not been pooled.
    UsageError
        If `out` holds something that is not an earlier output, or a format needs a browser and
        there is none.
    """
    report = round_report(view, package)
    _write(report, out, releases_jsonl(view, package, seals), formats)
    return report


def write_repooled_report(
    releases: Releases, out: Path, formats: ReportFormats | None = None
) -> tuple[RoundReport, bool]:
    """Pool a round again from its releases and write its output folder.

    Returns
    -------
    The report, and whether its `estimates.csv` is byte for byte the one that the coordinator
    wrote.

    Raises
    ------
    IntegrityError
        As `coordinator.reports.repooling.repool`.
    UsageError
        If `out` holds something that is not an earlier output, or a format needs a browser and
        there is none.
    """
    view = repool(releases)
    report = round_report(view, releases.package)
    _write(report, out, releases.payload, formats)
    digest = sha256_hex(estimates_csv(view.estimates).encode())
    return report, digest == releases.header.estimates_digest


def _write(report: RoundReport, out: Path, releases: bytes, formats: ReportFormats | None) -> None:
    # Loaded here: processes that write no report need no library for figures, nor its cache.
    from fedcac.report.writing import write_report

    write_report(report, out, {RELEASES_FILE: releases}, formats)


def round_report(view: RoundView, package: PackageManifest | None) -> RoundReport:
    """Return what a report shows of a pooled round; RoundError if it has not been pooled."""
    if view.record.finished_at is None:
        raise RoundError("The round has not ended.", code="not_pooled")
    answers = exchange_answers(view.sites)
    return RoundReport(
        round_id=view.record.round_id,
        protocol=view.protocol,
        sites=tuple(_summarise(site, answers[site.name], package) for site in view.sites),
        estimates=view.estimates,
        exchanges=view.n_exchanges,
        started=view.record.started_at,
        finished=view.record.finished_at,
        provenance=_provenance(view),
        package_card=None if package is None else _card(package),
        editions=_editions(view),
    )


def _editions(view: RoundView) -> tuple[str, ...]:
    return tuple(
        f"edition {one.edition}: {', '.join(one.added)} added"
        + (f" ({one.reason})" if one.reason else "")
        for one in view.editions[1:]
    )


def _card(package: PackageManifest) -> PackageCard:
    return PackageCard(
        name=package.name,
        version=package.version,
        text=package.card.intended_use,
        is_demonstration=package.card.is_demonstration,
    )


def _summarise(
    site: SiteView,
    answers: Mapping[str, tuple[ExchangeAnswer, ...]],
    package: PackageManifest | None,
) -> SiteSummary:
    last = site.replies[-1] if site.replies else None
    return SiteSummary(
        name=site.name,
        flow=site.flow,
        policy=last.policy if last else None,
        refusals=_refusals(site),
        answers=answers,
        n_releases=len(_releases(site)),
        bytes_left=sum(len(canonical_bytes(release)) for release in _releases(site)),
        ledger_head=last.ledger_head if last else "",
        software=last.software if last else "",
        package="" if package is None else f"{package.name} {package.version}",
    )


def _releases(site: SiteView) -> list[Mapping[str, JsonValue]]:
    return [
        answer.release
        for reply in site.replies
        for answer in (*reply.answers.values(), reply.flow)
        if answer.release is not None
    ]


def _refusals(site: SiteView) -> dict[str, RefusalCode]:
    if site.refusal is not None:
        return {"round": site.refusal}
    return {
        analysis: answer.refusal
        for reply in site.replies
        for analysis, answer in (*reply.answers.items(), ("flow", reply.flow))
        if answer.refusal is not None
    }


def _provenance(view: RoundView) -> dict[str, JsonValue]:
    return {
        "round_id": view.record.round_id,
        "protocol": {
            "id": view.protocol.id,
            "version": view.protocol.version,
            "digest": view.offer.protocol_digest,
        },
        "package_digest": view.offer.package_digest,
        "reference_package_digest": view.offer.reference_package_digest,
        "is_reference_read_by_model": (
            view.protocol.reference.kind is ReferenceKind.GATED_CT_MODEL
        ),
        "coordinator_software": __version__,
        "exchanges": view.n_exchanges,
        "edition": view.record.edition,
        "editions": list(_editions(view)),
        "amends": {f"version {one.version}": one.reason for one in view.protocol.amends},
        "sums": {
            f"exchange {number}": {
                analysis: {"sites": list(told.sites), "digest": _digest(told)}
                for analysis, told in exchange.items()
            }
            for number, exchange in enumerate(view.sums, start=1)
        },
        "sites": {
            site.name: {
                "replies": len(site.replies),
                "envelope_bytes": site.n_bytes,
                "ledger_head": site.replies[-1].ledger_head if site.replies else None,
                "policy_digest": site.replies[-1].policy.digest if site.replies else None,
                "release_digests": [digest_of(release) for release in _releases(site)],
            }
            for site in view.sites
        },
    }


def _digest(told: SumOfSites) -> str | None:
    return None if isinstance(told.answer, RefusalCode) else digest_of(told.answer.to_payload())
