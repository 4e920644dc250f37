"""The table of events: who did what to a round, and when. Nothing in it is changed or removed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, Engine, func, insert, select

from coordinator.state.records import Direction, Event, EventKind, from_naive
from coordinator.state.schema import EVENTS, PARCELS
from fedcac.errors import IntegrityError

__all__ = ["EventLog", "write_events"]


def write_events(connection: Connection, events: Iterable[Event]) -> None:
    """Write events in the transaction of what they tell of."""
    for event in events:
        connection.execute(insert(EVENTS).values(**event.row()))


class EventLog:
    """Reads and adds events."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(writes=True)

    def add(self, *events: Event) -> None:
        """Add events, all or none."""
        with self._writer.begin() as connection:
            write_events(connection, events)

    def of(self, round_id: str | None = None, after: int = 0) -> tuple[Event, ...]:
        """Return the events of a round, or all, oldest first; those after a number only."""
        statement = select(EVENTS).where(EVENTS.c.number > after).order_by(EVENTS.c.number)
        if round_id is not None:
            statement = statement.where(EVENTS.c.round_id == round_id)
        with self._engine.connect() as connection:
            rows = connection.execute(statement).all()
        found = []
        for row in rows:
            at = from_naive(row.at)
            if at is None:
                raise IntegrityError("An event has no time.", code="event_malformed")
            found.append(
                Event(
                    at=at,
                    actor=row.actor,
                    what=EventKind(row.what),
                    round_id=row.round_id,
                    site=row.site,
                    detail=json.loads(row.detail),
                    number=row.number,
                )
            )
        return tuple(found)

    def last_contacts(self, round_id: str | None = None) -> dict[str, datetime]:
        """Return, per site, when its last parcel was taken in: of a round, or of all."""
        statement = (
            select(PARCELS.c.site, func.max(PARCELS.c.at).label("at"))
            .where(PARCELS.c.direction == Direction.RECEIVED.value, PARCELS.c.at.is_not(None))
            .group_by(PARCELS.c.site)
        )
        if round_id is not None:
            statement = statement.where(PARCELS.c.round_id == round_id)
        with self._engine.connect() as connection:
            rows = connection.execute(statement).all()
        contacts = ((row.site, from_naive(row.at)) for row in rows)
        return {site: at for site, at in contacts if at is not None}
