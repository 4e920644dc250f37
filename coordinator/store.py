"""The coordinator's durable state: sites, rounds, and every parcel sent or received.

A round's estimates are not stored: they follow from its parcels, which are replayed. SQLite by
default; any URL that SQLAlchemy knows will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import (
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError as DatabaseIntegrityError
from sqlalchemy.pool import StaticPool

from fedcac.errors import IntegrityError, RoundError, UsageError
from fedcac.signing import PublicKey

__all__ = ["CoordinatorStore", "Direction", "EnrolledSite", "RoundRecord", "RoundState"]

_METADATA = MetaData()

_SITES = Table(
    "sites",
    _METADATA,
    Column("name", String(40), primary_key=True),
    Column("public_key", String(100), nullable=False),
    Column("spool", String(1000), nullable=False),
)
_PROTOCOLS = Table(
    "protocols",
    _METADATA,
    Column("protocol_id", String(60), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("digest", String(80), nullable=False),
)
_ROUNDS = Table(
    "rounds",
    _METADATA,
    Column("round_id", String(80), primary_key=True),
    Column("state", String(20), nullable=False),
    Column("minimum_sites", Integer, nullable=False),
    Column("started_at", DateTime, nullable=False),
    Column("deadline", DateTime, nullable=False),
    Column("finished_at", DateTime),
)
_PARCELS = Table(
    "parcels",
    _METADATA,
    Column("round_id", String(80), primary_key=True),
    Column("direction", String(10), primary_key=True),
    Column("site", String(40), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("payload", LargeBinary, nullable=False),
)


class RoundState(StrEnum):
    """Where a round stands at the coordinator.

    draft: stored, nothing sent yet. offered: sites decide. answering: exchanges run.
    pooled: every analysis is estimated. failed: too few sites took part before the deadline.
    """

    DRAFT = "draft"
    OFFERED = "offered"
    ANSWERING = "answering"
    POOLED = "pooled"
    FAILED = "failed"


class Direction(StrEnum):
    """Which way a parcel went. A parcel to every site is stored once, with an empty site."""

    SENT = "sent"
    RECEIVED = "received"


@dataclass(frozen=True)
class EnrolledSite:
    """A site of the consortium: its name, its pinned key and where its spool lies."""

    name: str
    key: PublicKey
    spool: str


@dataclass(frozen=True)
class RoundRecord:
    """One launched round."""

    round_id: str
    state: RoundState
    minimum_sites: int
    started_at: datetime
    deadline: datetime
    finished_at: datetime | None


def _naive(moment: datetime) -> datetime:
    # SQLite has no time zones: UTC goes in and UTC comes out.
    return moment.astimezone(UTC).replace(tzinfo=None)


class CoordinatorStore:
    """Open or make the coordinator's database at a URL; `sqlite://` for one in memory."""

    def __init__(self, url: str) -> None:
        if url == "sqlite://":
            self._engine = create_engine(url, poolclass=StaticPool)
        else:
            self._engine = create_engine(url)
        _METADATA.create_all(self._engine)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    # sites

    def enrol(self, site: EnrolledSite) -> None:
        """Add a site; UsageError if its name is taken."""
        try:
            with self._engine.begin() as connection:
                connection.execute(
                    insert(_SITES).values(
                        name=site.name, public_key=site.key.to_text(), spool=site.spool
                    )
                )
        except DatabaseIntegrityError as error:
            raise UsageError(
                f"A site named '{site.name}' is already enrolled.",
                code="site_enrolled",
                cure="Choose another name.",
            ) from error

    def sites(self) -> dict[str, EnrolledSite]:
        """Return every enrolled site by name."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(_SITES).order_by(_SITES.c.name)).all()
        return {
            row.name: EnrolledSite(row.name, PublicKey.from_text(row.public_key), row.spool)
            for row in rows
        }

    # rounds

    def newest_protocols(self) -> dict[str, tuple[int, str]]:
        """Return the newest version and digest launched of every protocol."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(_PROTOCOLS)).all()
        return {row.protocol_id: (row.version, row.digest) for row in rows}

    def add_round(
        self,
        record: RoundRecord,
        parcels: dict[str, bytes],
        protocol: tuple[str, int, str],
    ) -> None:
        """Store a draft round with the parcels that every site gets, in one transaction."""
        protocol_id, version, digest = protocol
        with self._engine.begin() as connection:
            known = connection.execute(
                select(_PROTOCOLS.c.version).where(_PROTOCOLS.c.protocol_id == protocol_id)
            ).first()
            row = {"protocol_id": protocol_id, "version": version, "digest": digest}
            if known is None:
                connection.execute(insert(_PROTOCOLS).values(**row))
            elif version > known.version:
                connection.execute(
                    update(_PROTOCOLS).where(_PROTOCOLS.c.protocol_id == protocol_id).values(**row)
                )
            connection.execute(
                insert(_ROUNDS).values(
                    round_id=record.round_id,
                    state=record.state.value,
                    minimum_sites=record.minimum_sites,
                    started_at=_naive(record.started_at),
                    deadline=_naive(record.deadline),
                )
            )
            for name, payload in parcels.items():
                connection.execute(
                    insert(_PARCELS).values(
                        round_id=record.round_id,
                        direction=Direction.SENT.value,
                        site="",
                        name=name,
                        payload=payload,
                    )
                )

    def set_state(
        self, round_id: str, state: RoundState, finished_at: datetime | None = None
    ) -> None:
        """Move a round on."""
        values: dict[str, object] = {"state": state.value}
        if finished_at is not None:
            values["finished_at"] = _naive(finished_at)
        with self._engine.begin() as connection:
            connection.execute(
                update(_ROUNDS).where(_ROUNDS.c.round_id == round_id).values(**values)
            )

    def round(self, round_id: str) -> RoundRecord:
        """Return a round; RoundError if it is not known."""
        for record in self.rounds():
            if record.round_id == round_id:
                return record
        raise RoundError(
            f"There is no round '{round_id}'.",
            code="unknown_round",
            cure="`fedcac-coordinator round status` lists the rounds.",
        )

    def rounds(self) -> tuple[RoundRecord, ...]:
        """Return every round, oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(_ROUNDS).order_by(_ROUNDS.c.started_at)).all()
        return tuple(
            RoundRecord(
                round_id=row.round_id,
                state=RoundState(row.state),
                minimum_sites=row.minimum_sites,
                started_at=row.started_at.replace(tzinfo=UTC),
                deadline=row.deadline.replace(tzinfo=UTC),
                finished_at=row.finished_at.replace(tzinfo=UTC) if row.finished_at else None,
            )
            for row in rows
        )

    # parcels

    def add_parcel(
        self, round_id: str, direction: Direction, name: str, payload: bytes, site: str = ""
    ) -> None:
        """Store a parcel once; IntegrityError if another lies there already."""
        present = self.parcel(round_id, direction, name, site)
        if present is not None:
            if present != payload:
                raise IntegrityError("A stored parcel would change.", code="parcel_changed")
            return
        with self._engine.begin() as connection:
            connection.execute(
                insert(_PARCELS).values(
                    round_id=round_id,
                    direction=direction.value,
                    site=site,
                    name=name,
                    payload=payload,
                )
            )

    def parcel(
        self, round_id: str, direction: Direction, name: str, site: str = ""
    ) -> bytes | None:
        """Return a parcel, or None."""
        with self._engine.connect() as connection:
            row = connection.execute(
                select(_PARCELS.c.payload).where(
                    _PARCELS.c.round_id == round_id,
                    _PARCELS.c.direction == direction.value,
                    _PARCELS.c.site == site,
                    _PARCELS.c.name == name,
                )
            ).first()
        return None if row is None else bytes(row.payload)

    def sent_to_all(self, round_id: str) -> dict[str, bytes]:
        """Return every parcel that all sites of a round get, by name."""
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(_PARCELS.c.name, _PARCELS.c.payload)
                .where(
                    _PARCELS.c.round_id == round_id,
                    _PARCELS.c.direction == Direction.SENT.value,
                    _PARCELS.c.site == "",
                )
                .order_by(_PARCELS.c.name)
            ).all()
        return {row.name: bytes(row.payload) for row in rows}
