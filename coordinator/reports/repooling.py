"""Pools a finished round again from its releases alone, without any site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coordinator.reports.release_reading import Releases
from coordinator.reports.release_records import EditionEntry
from coordinator.rounds.intake import typed_answer
from coordinator.rounds.views import RoundView, SiteView, Used
from coordinator.state.records import EditionRecord
from coordinator.state.store import RoundRecord, RoundState
from fedcac.aggregate import Aggregate
from fedcac.errors import IntegrityError
from fedcac.exchange import Answer, Query
from fedcac.statistics import SUM_OF_SITES, PoolingSession, SiteAnswers
from fedcac.vocabulary import RefusalCode, SiteName

__all__ = ["repool"]


def repool(releases: Releases) -> RoundView:
    """Return the round as the coordinator saw it, with its estimates pooled anew.

    Raises
    ------
    IntegrityError
        If the pooling asks other questions than were sent (`releases_other_questions`), which
        another version of this software may do, or needs more exchanges than there are
        (`releases_incomplete`).
    """
    header, offer = releases.header, releases.offer
    session = PoolingSession(releases.protocol, [SiteName(site) for site in offer.sites])
    steps = []
    for number in range(1, (len(releases.steps) or header.exchanges) + 1):
        queries = session.queries
        used = _used(releases, number, queries)
        _check_questions(releases, used, queries, number)
        session.answer(_answers(releases, number, used, tuple(queries)))
        steps.append(used)
    if not session.is_finished:
        raise IntegrityError(
            f"The pooling goes on after exchange {header.exchanges}, the last one there.",
            code="releases_incomplete",
            cure="Ask who wrote the releases for the file as it was written.",
        )
    return RoundView(
        record=RoundRecord(
            header.round_id,
            RoundState.POOLED,
            header.minimum_sites,
            header.started_at,
            header.deadline,
            header.finished_at,
            edition=header.edition,
        ),
        offer=offer,
        protocol=releases.protocol,
        sites=tuple(
            SiteView(
                site.name,
                site.is_accepting,
                site.refusal,
                tuple(
                    releases.replies[number, site.name]
                    for number in range(1, header.exchanges + 1)
                    if (number, site.name) in releases.replies
                ),
                site.n_bytes,
                told=tuple(_told(releases, site.name, used) for used in steps),
            )
            for site in header.sites
        ),
        estimates=session.estimates(),
        n_exchanges=header.exchanges,
        sums=releases.sums,
        is_finished=True,
        steps=releases.steps,
        editions=tuple(_edition(header.round_id, entry) for entry in header.editions),
    )


def _edition(round_id: str, entry: EditionEntry) -> EditionRecord:
    return EditionRecord(
        round_id=round_id,
        edition=entry.edition,
        started_at=entry.started_at,
        deadline=entry.deadline,
        finished_at=entry.finished_at,
        outcome=RoundState(entry.outcome) if entry.outcome else None,
        added=entry.added,
        sites=(),
        reason=entry.reason,
    )


def _used(releases: Releases, number: int, queries: Mapping[str, Query]) -> Used:
    if releases.steps:
        return releases.steps[number - 1]
    sites = [site for exchange, site in releases.replies if exchange == number]
    return {analysis: dict.fromkeys(sites, number) for analysis in queries}


def _check_questions(
    releases: Releases, used: Used, queries: Mapping[str, Query], number: int
) -> None:
    """Check that what is pooled in a step answers what this version asks there."""
    exchanges = {exchange for sites in used.values() for exchange in sites.values()} | (
        set() if releases.steps else {number}
    )
    for exchange in exchanges:
        request = releases.requests.get(exchange)
        if request is None:
            continue
        wanted = {name for name in used if exchange in used[name].values()}
        is_alike = (
            all(request.queries.get(name) == queries.get(name) for name in wanted)
            if releases.steps
            else request.queries == queries
        )
        if not is_alike:
            raise IntegrityError(
                f"The questions of exchange {exchange} are not those that this version asks.",
                code="releases_other_questions",
                cure=f"Pool with fedcac {releases.header.software}, which wrote the file.",
            )


def _told(releases: Releases, site: str, used: Used) -> dict[str, Answer]:
    found = {}
    for analysis, sites in used.items():
        reply = releases.replies.get((sites.get(site, 0), site))
        if reply is not None and analysis in reply.answers:
            found[analysis] = reply.answers[analysis]
    return found


def _answers(releases: Releases, number: int, used: Used, asked: Sequence[str]) -> SiteAnswers:
    answers: dict[SiteName, dict[str, Aggregate | RefusalCode]] = {}
    for site in releases.header.sites:
        if site.refusal is not None:
            answers[SiteName(site.name)] = dict.fromkeys(asked, site.refusal)
        elif told := _told(releases, site.name, used):
            answers[SiteName(site.name)] = {name: typed_answer(told[name]) for name in told}
    sums = releases.sums[number - 1] if releases.sums else {}
    return {**answers, SUM_OF_SITES: {analysis: one.answer for analysis, one in sums.items()}}
