"""A round's status as lines of text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from coordinator.rounds.status import RoundStatus, SiteStatus
from coordinator.state.records import Event

__all__ = [
    "STANDING_WORDS",
    "in_words",
    "in_words_short",
    "site_words",
    "span_words",
    "time_left",
]

STANDING_WORDS: Final = {
    "not_asked": "not asked yet",
    "invited": "no word yet",
    "approved": "takes part",
    "refused": "refuses",
    "scoring": "takes part, has not answered yet",
    "answering": "is asked",
    "answered": "has answered",
    "pooled": "is in the pool",
    "late": "takes part, did not answer in time",
    "silent": "said nothing in time",
}


def in_words_short(statuses: Sequence[RoundStatus]) -> Iterator[str]:
    """Yield a table of rounds, one a line."""
    rows = [("ROUND", "PROTOCOL", "STATE", "SITES", "EXCHANGE", "DUE")]
    rows += [
        (
            status.round_id,
            status.protocol,
            status.phase + (f" (edition {status.edition})" if status.edition > 1 else ""),
            f"{sum(bool(site.accepts) for site in status.sites)}/{len(status.sites)}",
            str(status.open_exchange or status.exchanges),
            "" if status.due is None else f"{status.due:%Y-%m-%d %H:%M}",
        )
        for status in statuses
    ]
    if len(rows) == 1:
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def in_words(status: RoundStatus, now: datetime, events: Sequence[Event] = ()) -> Iterator[str]:
    """Yield a round in detail: state, sites, editions, events, and what to do next."""
    edition = f", edition {status.edition}" if status.edition > 1 else ""
    quorum = "" if status.quorum is None else f", goes on with {status.quorum}"
    yield f"{status.round_id}: {status.phase}{edition} ({status.protocol})"
    yield (
        f"  {len(status.sites)} sites expected, at least {status.minimum_sites} needed{quorum}; "
        f"launched {status.launched_at:%Y-%m-%d %H:%M} UTC"
    )
    if status.due is not None:
        what = f"exchange {status.open_exchange}" if status.open_exchange else "the offer"
        yield (
            f"  {what} is open until {status.due:%Y-%m-%d %H:%M} UTC ({time_left(status.due, now)})"
        )
    for site in status.sites:
        yield f"  {site_words(site, now)}"
    for one in status.editions[1:]:
        why = f" ({one.reason})" if one.reason else ""
        yield f"  edition {one.edition}: {', '.join(one.added)} added{why}"
    for event in events:
        detail = json.dumps(dict(event.detail), sort_keys=True) if event.detail else ""
        yield f"  {event.at:%Y-%m-%d %H:%M:%S} {event.actor}: {event.what.value} {detail}".rstrip()
    for step in status.next_steps:
        yield f"  Next: {step}"


def site_words(site: SiteStatus, now: datetime) -> str:
    """Return one site in a line: where it stands, what it sent, when it was last heard of."""
    parts = [STANDING_WORDS[site.standing] + (f" ({site.refusal})" if site.refusal else "")]
    if site.patients is not None:
        parts.append(f"{site.patients} patients analysed")
    if site.replies:
        parts.append(f"{site.replies} replies, {site.bytes} bytes")
    if site.last_contact is not None:
        parts.append(f"last heard of {span_words(now - site.last_contact)} ago")
    return f"{site.name}: {', '.join(parts)}"


def time_left(due: datetime, now: datetime) -> str:
    """Return the time to a deadline in words."""
    return f"{span_words(due - now)} left" if due > now else "over"


def span_words(span: timedelta) -> str:
    """Return a span of time in its largest unit of which there are two; none below zero."""
    seconds = max(0, int(span.total_seconds()))
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
