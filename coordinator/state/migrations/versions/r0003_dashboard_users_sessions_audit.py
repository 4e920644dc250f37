"""The dashboard's users, their sessions, failures to sign in, and its audit trail."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from coordinator.state.schema import AUDIT_APPEND_ONLY

__all__ = ["upgrade"]

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the tables; nobody can sign in before `fedcac-coordinator users add`."""
    op.create_table(
        "users",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("password", sa.String(200)),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("disabled_at", sa.DateTime),
        sa.Column("link_hash", sa.String(64)),
        sa.Column("link_until", sa.DateTime),
    )
    op.create_table(
        "user_sessions",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column("user_name", sa.String(40), nullable=False, index=True),
        sa.Column("address", sa.String(60), nullable=False),
        sa.Column("browser", sa.String(200), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("used_at", sa.DateTime, nullable=False),
    )
    op.create_table(
        "sign_in_failures",
        sa.Column("name", sa.String(120), primary_key=True),
        sa.Column("n_failures", sa.Integer, nullable=False),
        sa.Column("last_at", sa.DateTime, nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("user_name", sa.String(40), nullable=False),
        sa.Column("what", sa.String(40), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("address", sa.String(60), nullable=False),
        sqlite_autoincrement=True,
    )
    for statement in AUDIT_APPEND_ONLY.get(op.get_bind().dialect.name, ()):
        op.execute(statement)
