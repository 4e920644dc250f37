"""What the coordinator's database holds, as typed records: sites, rounds, editions, events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import JsonValue

from fedcac.signing import PublicKey

__all__ = [
    "ENDED",
    "OPEN",
    "Direction",
    "EditionRecord",
    "EnrolledSite",
    "Event",
    "EventKind",
    "RoundRecord",
    "RoundState",
    "from_naive",
    "json_value",
    "to_naive",
]


class RoundState(StrEnum):
    """Where a round stands at the coordinator; docs/explanation/round-states.md draws it.

    draft: stored, nothing sent yet. offered: sites decide. answering: exchanges run.
    pooled: every analysis is estimated. failed: too few sites took part before the deadline.
    cancelled: ended by the lead before it was pooled. closed: frozen for good.
    """

    DRAFT = "draft"
    OFFERED = "offered"
    ANSWERING = "answering"
    POOLED = "pooled"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CLOSED = "closed"


OPEN = frozenset({RoundState.DRAFT, RoundState.OFFERED, RoundState.ANSWERING})
"""States in which there is something to send or to wait for."""

ENDED = frozenset({RoundState.CANCELLED, RoundState.CLOSED})
"""States that nothing leads out of."""


class Direction(StrEnum):
    """Which way a parcel went. A parcel to every site is stored once, with an empty site."""

    SENT = "sent"
    RECEIVED = "received"


class EventKind(StrEnum):
    """What happened. Events are written with what they tell of, or not at all."""

    LAUNCHED = "launched"
    OFFERED = "offered"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    EXCHANGE_SENT = "exchange_sent"
    REPLIED = "replied"
    EXCHANGE_CLOSED = "exchange_closed"
    POOLED = "pooled"
    FAILED = "failed"
    RETRIED = "retried"
    CANCELLED = "cancelled"
    CLOSED = "closed"
    REPORT_WRITTEN = "report_written"
    EXPORTED = "exported"


@dataclass(frozen=True)
class EnrolledSite:
    """A site of the consortium: its name, its pinned key and where its spool lies."""

    name: str
    key: PublicKey
    spool: str


@dataclass(frozen=True)
class RoundRecord:
    """One launched round, as its newest edition stands.

    Attributes
    ----------
    minimum_sites
        With fewer at a deadline the round fails.
    deadline
        Until when sites may accept; every exchange gives them as long again.
    finished_at
        When the newest edition was pooled or failed, or the round was cancelled.
    quorum
        With so many answers an exchange is closed before its deadline; None waits for all.
    edition
        1, and one more for every time that late sites were added.
    edition_at
        When this edition began; None for the launch.
    """

    round_id: str
    state: RoundState
    minimum_sites: int
    started_at: datetime
    deadline: datetime
    finished_at: datetime | None
    quorum: int | None = None
    edition: int = 1
    edition_at: datetime | None = None


@dataclass(frozen=True)
class EditionRecord:
    """One edition of a round: who was added to the one before, why, and how it ended.

    `sites` are those asked; empty in the first edition, which asks every site that accepts.
    `outcome` is pooled, failed or cancelled, or None while the edition runs.
    """

    round_id: str
    edition: int
    started_at: datetime
    deadline: datetime
    finished_at: datetime | None
    outcome: RoundState | None
    added: tuple[str, ...]
    sites: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Event:
    """Something that happened: when, who did it, what, to which round and site.

    `actor` is a person of the lead's, `engine`, or the site. `detail` holds numbers, names and
    codes; never what a site released. `number` is 0 until the event is stored.
    """

    at: datetime
    actor: str
    what: EventKind
    round_id: str | None
    site: str | None = None
    detail: Mapping[str, JsonValue] = field(default_factory=dict)
    number: int = 0

    def row(self) -> dict[str, object]:
        """Return the event as a row of its table."""
        return {
            "at": to_naive(self.at),
            "actor": self.actor[:80],
            "what": self.what.value,
            "round_id": self.round_id,
            "site": self.site,
            "detail": json.dumps(dict(self.detail), sort_keys=True),
        }


def json_value(value: Any) -> Any:
    """Return a record's value as JSON has it: tuples as lists, times in ISO 8601."""
    if isinstance(value, dict):
        return {key: json_value(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(one) for one in value]
    return value.isoformat() if isinstance(value, datetime) else value


def to_naive(moment: datetime) -> datetime:
    """Return a time as it is stored: UTC without a zone."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def from_naive(moment: datetime | None) -> datetime | None:
    """Return a stored time with its zone."""
    return None if moment is None else moment.replace(tzinfo=UTC)
