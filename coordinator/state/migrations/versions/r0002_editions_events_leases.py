"""Editions, quorum, events that are only added, leases, and when a parcel came or went."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from coordinator.state.schema import APPEND_ONLY

__all__ = ["upgrade"]

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the tables and columns; every round there is becomes its own first edition."""
    op.add_column("rounds", sa.Column("quorum", sa.Integer))
    op.add_column("rounds", sa.Column("edition", sa.Integer, nullable=False, server_default="1"))
    op.add_column("rounds", sa.Column("edition_at", sa.DateTime))
    op.add_column("parcels", sa.Column("at", sa.DateTime))
    op.create_table(
        "editions",
        sa.Column("round_id", sa.String(80), primary_key=True),
        sa.Column("edition", sa.Integer, primary_key=True),
        sa.Column("started_at", sa.DateTime, nullable=False),
        sa.Column("deadline", sa.DateTime, nullable=False),
        sa.Column("finished_at", sa.DateTime),
        sa.Column("outcome", sa.String(20)),
        sa.Column("added", sa.Text, nullable=False),
        sa.Column("sites", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("round_id", sa.String(80), index=True),
        sa.Column("actor", sa.String(80), nullable=False),
        sa.Column("what", sa.String(30), nullable=False),
        sa.Column("site", sa.String(40)),
        sa.Column("detail", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(120), primary_key=True),
        sa.Column("holder", sa.String(200), nullable=False),
        sa.Column("beaten_at", sa.DateTime, nullable=False),
        sa.Column("expires_at", sa.DateTime, nullable=False),
    )
    for statement in APPEND_ONLY.get(op.get_bind().dialect.name, ()):
        op.execute(statement)
    op.execute(
        "INSERT INTO editions (round_id, edition, started_at, deadline, finished_at, outcome, "
        "added, sites, reason) SELECT round_id, 1, started_at, deadline, finished_at, "
        "CASE WHEN finished_at IS NULL THEN NULL ELSE state END, '[]', '[]', '' FROM rounds"
    )
