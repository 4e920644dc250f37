"""The database's schema, release by release, for Alembic."""
