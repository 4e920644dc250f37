"""What each site answered about each analysis, exchange by exchange, from its replies alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from coordinator.rounds.views import SiteView
from fedcac.aggregate import (
    Aggregate,
    BinnedCounts,
    CrossTable,
    LikelihoodTerms,
    Moments,
    PairedMoments,
    SurvivalTable,
    Totals,
    parse_aggregate,
    registered,
)
from fedcac.errors import GateError
from fedcac.exchange import Answer
from fedcac.report import ExchangeAnswer
from fedcac.vocabulary import CellStatus, RefusalCode

__all__ = ["exchange_answers", "judged_parts"]

Answers = dict[str, tuple[ExchangeAnswer, ...]]


def exchange_answers(sites: Sequence[SiteView]) -> dict[str, Answers]:
    """Return, per site and analysis, the answers in the order of the steps.

    A site that took no part, or did not reply in time, has the code for it wherever another site
    was asked. What was asked for is known from the sites that gave it.
    """
    asked = _asked(sites)
    return {site.name: _of_site(site, asked) for site in sites}


def _asked(sites: Sequence[SiteView]) -> dict[tuple[str, int], str]:
    """Return the kind of aggregate that each analysis asked for in each step, '' if unknown."""
    kinds: dict[tuple[str, int], str] = {}
    for site in sites:
        for step, told in enumerate(site.told, start=1):
            for analysis, answer in told.items():
                key = analysis, step
                kinds[key] = kinds.get(key, "") or _kind(answer)
    for analysis, step in sorted(kinds):
        # A search that every site refuses is still the search that it was.
        before = kinds.get((analysis, step - 1), "")
        if not kinds[analysis, step] and _is_fit(before):
            kinds[analysis, step] = before
    return kinds


def _kind(answer: Answer) -> str:
    return "" if answer.release is None else str(answer.release.get("kind", ""))


def _is_fit(kind: str) -> bool:
    found = registered().get(kind)
    return found is not None and issubclass(found, LikelihoodTerms)


def _of_site(site: SiteView, asked: Mapping[tuple[str, int], str]) -> Answers:
    given = {
        (analysis, step): answer
        for step, told in enumerate(site.told, start=1)
        for analysis, answer in told.items()
    }
    absent = Answer(refusal=site.refusal or RefusalCode.NO_REPLY)
    found: dict[str, list[ExchangeAnswer]] = {}
    for key in sorted(asked, key=lambda key: key[1]):
        answer = _typed(given.get(key, absent), asked[key])
        found.setdefault(key[0], []).append(answer)
    return {analysis: tuple(answers) for analysis, answers in found.items()}


def _typed(answer: Answer, kind: str) -> ExchangeAnswer:
    is_fit = _is_fit(kind)
    if answer.release is None:
        return ExchangeAnswer(kind, is_fit, refusal=answer.refusal)
    try:
        released = parse_aggregate(answer.release)
    except GateError:
        return ExchangeAnswer(kind, is_fit, refusal=RefusalCode.INTERNAL)
    n_events = getattr(released, "n_events", None) if released.has_endpoint else None
    parts = [*judged_parts(released)]
    return ExchangeAnswer(
        kind,
        is_fit,
        n_patients=released.n_patients,
        n_events=n_events if isinstance(n_events, int) else None,
        n_parts=len(parts),
        n_suppressed=sum(parts),
    )


def judged_parts(released: Aggregate) -> Iterator[bool]:
    """Yield whether a part is suppressed, for every part that the gate judges by itself.

    A cross-table's matrix and each cut-off; a row of bins, a group of a life table, a term of
    moments, a row of totals. A likelihood is one part.
    """
    match released:
        case CrossTable():
            yield any(_is_hidden(row) for row in released.matrix)
            yield from map(_is_hidden, released.two_by_two)
        case Moments():
            yield from map(_is_hidden, zip(released.n, released.mean, released.m2, strict=True))
        case PairedMoments():
            means = zip(released.n, released.mean_x, released.mean_y, strict=True)
            yield from map(_is_hidden, means)
        case BinnedCounts():
            yield from (_is_hidden(row) for rows in released.counts for row in rows)
        case SurvivalTable():
            yield from map(_is_hidden, released.at_risk)
        case Totals():
            yield from (not row for row in released.values)
        case _:
            yield False


def _is_hidden(cells: Sequence[object]) -> bool:
    return not cells or any(isinstance(cell, CellStatus) for cell in cells)
