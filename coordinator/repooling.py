"""Pools a finished round again from its releases alone, without any site."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.intake import typed_answer
from coordinator.release_reading import Releases
from coordinator.store import RoundRecord, RoundState
from coordinator.views import RoundView, SiteView
from fedcac.aggregate import Aggregate
from fedcac.errors import IntegrityError
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
    for number in range(1, header.exchanges + 1):
        queries = session.queries
        request = releases.requests.get(number)
        if request is not None and request.queries != queries:
            raise IntegrityError(
                f"The questions of exchange {number} are not those that this version asks.",
                code="releases_other_questions",
                cure=f"Pool with fedcac {header.software}, which wrote the file.",
            )
        session.answer(_answers(releases, number, tuple(queries)))
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
            )
            for site in header.sites
        ),
        estimates=session.estimates(),
        n_exchanges=header.exchanges,
        sums=releases.sums,
        is_finished=True,
    )


def _answers(releases: Releases, number: int, asked: Sequence[str]) -> SiteAnswers:
    answers: dict[SiteName, dict[str, Aggregate | RefusalCode]] = {}
    for site in releases.header.sites:
        reply = releases.replies.get((number, site.name))
        if site.refusal is not None:
            answers[SiteName(site.name)] = dict.fromkeys(asked, site.refusal)
        elif reply is not None:
            answers[SiteName(site.name)] = {
                analysis: typed_answer(answer) for analysis, answer in reply.answers.items()
            }
    sums = releases.sums[number - 1] if releases.sums else {}
    return {**answers, SUM_OF_SITES: {analysis: one.answer for analysis, one in sums.items()}}
