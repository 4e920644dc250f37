"""The coordinator's durable state: sites, rounds, editions, and every parcel sent or received.

A round's estimates are not stored: they follow from its parcels, which are replayed. SQLite by
default; PostgreSQL by its URL. Whatever is written together with an event is written in one
transaction with it, and once: two processes that do the same leave one row and one event.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select, update
from sqlalchemy.exc import IntegrityError as DatabaseIntegrityError

from coordinator.enrolment.register import Register
from coordinator.state.database import open_database
from coordinator.state.event_log import EventLog, write_events
from coordinator.state.leases import LEASE_S, Leases
from coordinator.state.records import (
    Direction,
    EditionRecord,
    EnrolledSite,
    Event,
    RoundRecord,
    RoundState,
    from_naive,
    to_naive,
)
from coordinator.state.schema import EDITIONS, PARCELS, PROTOCOLS, ROUNDS, SITES
from fedcac.errors import IntegrityError, RoundError, UsageError
from fedcac.signing import PublicKey

__all__ = [
    "CoordinatorStore",
    "Direction",
    "EnrolledSite",
    "RoundRecord",
    "RoundState",
    "unknown_round",
]


class CoordinatorStore:
    """Open or make the coordinator's database at a URL; `sqlite://` for one in memory.

    Attributes
    ----------
    events
        The table of events (coordinator.state.event_log).
    leases
        Who may move what on (coordinator.state.leases).
    register
        What happened to the sites' keys; None where there is no folder, such as in memory.

    Raises
    ------
    UsageError, IntegrityError
        As `coordinator.state.database.open_database`.
    """

    def __init__(
        self, url: str, *, lease_s: float = LEASE_S, register: Register | None = None
    ) -> None:
        self.register = register
        self._engine = open_database(url)
        self._writer = self._engine.execution_options(writes=True)
        self.events = EventLog(self._engine)
        self.leases = Leases(self._engine, is_shared=url != "sqlite://", seconds=lease_s)

    @property
    def database(self) -> Engine:
        """The engine, for the tables of the dashboard."""
        return self._engine

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    # sites

    def enrol(self, site: EnrolledSite) -> None:
        """Add a site; UsageError if its name is taken."""
        try:
            with self._writer.begin() as connection:
                connection.execute(
                    insert(SITES).values(
                        name=site.name, public_key=site.key.to_text(), spool=site.spool
                    )
                )
        except DatabaseIntegrityError as error:
            raise UsageError(
                f"A site named '{site.name}' is already enrolled.",
                code="site_enrolled",
                cure="Choose another name.",
            ) from error

    def sites(self, *names: str) -> dict[str, EnrolledSite]:
        """Return the enrolled sites of these names, or without any every one."""
        statement = select(SITES).order_by(SITES.c.name)
        if names:
            statement = statement.where(SITES.c.name.in_(names))
        with self._engine.connect() as connection:
            rows = connection.execute(statement).all()
        return {
            row.name: EnrolledSite(row.name, PublicKey.from_text(row.public_key), row.spool)
            for row in rows
        }

    def members(self, *names: str) -> dict[str, EnrolledSite]:
        """Return, of the same sites, those whose keys are not revoked."""
        revoked = frozenset() if self.register is None else self.register.revoked()
        return {name: site for name, site in self.sites(*names).items() if name not in revoked}

    def replace_key(self, name: str, key: PublicKey) -> None:
        """Put another key in the place of a site's; the register remembers the former one."""
        with self._writer.begin() as connection:
            connection.execute(
                update(SITES).where(SITES.c.name == name).values(public_key=key.to_text())
            )

    # rounds

    def newest_protocols(self) -> dict[str, tuple[int, str]]:
        """Return the newest version and digest launched of every protocol."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(PROTOCOLS)).all()
        return {row.protocol_id: (row.version, row.digest) for row in rows}

    def add_round(
        self,
        record: RoundRecord,
        parcels: dict[str, bytes],
        protocol: tuple[str, int, str],
        events: Sequence[Event] = (),
    ) -> None:
        """Store a draft round with the parcels that every site gets, in one transaction."""
        protocol_id, version, digest = protocol
        with self._writer.begin() as connection:
            known = connection.execute(
                select(PROTOCOLS.c.version).where(PROTOCOLS.c.protocol_id == protocol_id)
            ).first()
            row = {"protocol_id": protocol_id, "version": version, "digest": digest}
            if known is None:
                connection.execute(insert(PROTOCOLS).values(**row))
            elif version > known.version:
                connection.execute(
                    update(PROTOCOLS).where(PROTOCOLS.c.protocol_id == protocol_id).values(**row)
                )
            times = {
                "started_at": to_naive(record.started_at),
                "deadline": to_naive(record.deadline),
            }
            connection.execute(
                insert(ROUNDS).values(
                    round_id=record.round_id,
                    state=record.state.value,
                    minimum_sites=record.minimum_sites,
                    quorum=record.quorum,
                    edition=record.edition,
                    **times,
                )
            )
            connection.execute(
                insert(EDITIONS).values(
                    round_id=record.round_id,
                    edition=record.edition,
                    added="[]",
                    sites="[]",
                    reason="",
                    **times,
                )
            )
            for name, payload in parcels.items():
                connection.execute(
                    insert(PARCELS).values(
                        round_id=record.round_id,
                        direction=Direction.SENT.value,
                        site="",
                        name=name,
                        payload=payload,
                        at=to_naive(record.started_at),
                    )
                )
            write_events(connection, events)

    def move(
        self,
        record: RoundRecord,
        state: RoundState,
        *events: Event,
        finished_at: datetime | None = None,
    ) -> bool:
        """Move a round on from where `record` has it, with its events.

        False, and nothing is written, if another process has moved it meanwhile.
        """
        values: dict[str, object] = {"state": state.value}
        if finished_at is not None:
            values["finished_at"] = to_naive(finished_at)
        with self._writer.begin() as connection:
            if not _change(connection, record, **values):
                return False
            if finished_at is not None:
                connection.execute(
                    update(EDITIONS)
                    .where(
                        EDITIONS.c.round_id == record.round_id,
                        EDITIONS.c.edition == record.edition,
                    )
                    .values(finished_at=to_naive(finished_at), outcome=state.value)
                )
            write_events(connection, events)
        return True

    def add_edition(
        self,
        record: RoundRecord,
        edition: EditionRecord,
        state: RoundState,
        *events: Event,
    ) -> bool:
        """Begin the next edition of a round; False if another process has moved it meanwhile."""
        with self._writer.begin() as connection:
            is_next = _change(
                connection,
                record,
                state=state.value,
                edition=edition.edition,
                edition_at=to_naive(edition.started_at),
                deadline=to_naive(edition.deadline),
                finished_at=None,
            )
            if not is_next:
                return False
            connection.execute(
                insert(EDITIONS).values(
                    round_id=edition.round_id,
                    edition=edition.edition,
                    started_at=to_naive(edition.started_at),
                    deadline=to_naive(edition.deadline),
                    added=json.dumps(list(edition.added)),
                    sites=json.dumps(list(edition.sites)),
                    reason=edition.reason,
                )
            )
            write_events(connection, events)
        return True

    def editions(self, round_id: str) -> tuple[EditionRecord, ...]:
        """Return the editions of a round, first to newest."""
        statement = (
            select(EDITIONS).where(EDITIONS.c.round_id == round_id).order_by(EDITIONS.c.edition)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(statement).all()
        return tuple(
            EditionRecord(
                round_id=row.round_id,
                edition=row.edition,
                started_at=_time(row.started_at),
                deadline=_time(row.deadline),
                finished_at=from_naive(row.finished_at),
                outcome=RoundState(row.outcome) if row.outcome else None,
                added=tuple(json.loads(row.added)),
                sites=tuple(json.loads(row.sites)),
                reason=row.reason,
            )
            for row in rows
        )

    def round(self, round_id: str) -> RoundRecord:
        """Return a round; RoundError if it is not known."""
        with self._engine.connect() as connection:
            row = connection.execute(select(ROUNDS).where(ROUNDS.c.round_id == round_id)).first()
        if row is None:
            raise unknown_round(round_id)
        return _round(row)

    def rounds(self) -> tuple[RoundRecord, ...]:
        """Return every round, oldest first."""
        statement = select(ROUNDS).order_by(ROUNDS.c.started_at, ROUNDS.c.round_id)
        with self._engine.connect() as connection:
            return tuple(_round(row) for row in connection.execute(statement).all())

    # parcels

    def add_parcel(
        self,
        round_id: str,
        direction: Direction,
        name: str,
        payload: bytes,
        site: str = "",
        *,
        at: datetime | None = None,
        events: Sequence[Event] = (),
    ) -> bool:
        """Store a parcel once, with its events; say whether it is new.

        Raises
        ------
        IntegrityError
            If another one lies there already (`parcel_changed`).
        """
        row = {"round_id": round_id, "direction": direction.value, "site": site, "name": name}
        try:
            with self._writer.begin() as connection:
                connection.execute(
                    insert(PARCELS).values(**row, payload=payload, at=at and to_naive(at))
                )
                write_events(connection, events)
        except DatabaseIntegrityError as error:
            if self.parcel(round_id, direction, name, site) != payload:
                raise IntegrityError(
                    "A stored parcel would change.",
                    code="parcel_changed",
                    cure="Each parcel is written once; find out who wrote the other version.",
                ) from error
            return False
        return True

    def parcel(
        self, round_id: str, direction: Direction, name: str, site: str = ""
    ) -> bytes | None:
        """Return a parcel, or None."""
        with self._engine.connect() as connection:
            row = connection.execute(
                select(PARCELS.c.payload).where(
                    PARCELS.c.round_id == round_id,
                    PARCELS.c.direction == direction.value,
                    PARCELS.c.site == site,
                    PARCELS.c.name == name,
                )
            ).first()
        return None if row is None else bytes(row.payload)

    def sent_to_all(self, round_id: str) -> dict[str, bytes]:
        """Return every parcel that all sites of a round get, by name."""
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(PARCELS.c.name, PARCELS.c.payload)
                .where(
                    PARCELS.c.round_id == round_id,
                    PARCELS.c.direction == Direction.SENT.value,
                    PARCELS.c.site == "",
                )
                .order_by(PARCELS.c.name)
            ).all()
        return {row.name: bytes(row.payload) for row in rows}

    def parcel_names(self, round_id: str) -> tuple[tuple[Direction, str, str], ...]:
        """Return (direction, site, name) of every parcel of a round, sorted."""
        columns = (PARCELS.c.direction, PARCELS.c.site, PARCELS.c.name)
        statement = select(*columns).where(PARCELS.c.round_id == round_id)
        with self._engine.connect() as connection:
            rows = connection.execute(statement).all()
        return tuple(sorted((Direction(row.direction), row.site, row.name) for row in rows))


def unknown_round(round_id: str) -> RoundError:
    """Return the error for a round that is not there."""
    return RoundError(
        f"There is no round '{round_id}'.",
        code="unknown_round",
        cure="`fedcac-coordinator round status` lists the rounds.",
    )


def _change(connection: Connection, record: RoundRecord, **values: object) -> bool:
    """Change a round's row if it is where `record` has it; say whether it was."""
    changed = connection.execute(
        update(ROUNDS)
        .where(
            ROUNDS.c.round_id == record.round_id,
            ROUNDS.c.state == record.state.value,
            ROUNDS.c.edition == record.edition,
        )
        .values(**values)
    )
    return changed.rowcount == 1


def _time(moment: datetime | None) -> datetime:
    found = from_naive(moment)
    if found is None:
        raise IntegrityError("A stored round has no time.", code="round_malformed")
    return found


def _round(row: Row[Any]) -> RoundRecord:
    return RoundRecord(
        round_id=row.round_id,
        state=RoundState(row.state),
        minimum_sites=row.minimum_sites,
        started_at=_time(row.started_at),
        deadline=_time(row.deadline),
        finished_at=from_naive(row.finished_at),
        quorum=row.quorum,
        edition=row.edition,
        edition_at=from_naive(row.edition_at),
    )
