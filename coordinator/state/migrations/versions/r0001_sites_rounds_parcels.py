"""Sites, protocols, rounds and parcels: the first schema, which was not stamped yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "sites",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("public_key", sa.String(100), nullable=False),
        sa.Column("spool", sa.String(1000), nullable=False),
    )
    op.create_table(
        "protocols",
        sa.Column("protocol_id", sa.String(60), primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("digest", sa.String(80), nullable=False),
    )
    op.create_table(
        "rounds",
        sa.Column("round_id", sa.String(80), primary_key=True),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("minimum_sites", sa.Integer, nullable=False),
        sa.Column("started_at", sa.DateTime, nullable=False),
        sa.Column("deadline", sa.DateTime, nullable=False),
        sa.Column("finished_at", sa.DateTime),
    )
    op.create_table(
        "parcels",
        sa.Column("round_id", sa.String(80), primary_key=True),
        sa.Column("direction", sa.String(10), primary_key=True),
        sa.Column("site", sa.String(40), primary_key=True),
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
