"""Runs the migrations over the connection that `coordinator.state.database` hands over."""

from __future__ import annotations

from alembic import context

from coordinator.state.schema import METADATA

__all__: list[str] = []

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
