"""Alembic's entry: runs migrations on the connection that `schemas.migrations` hands over, and renews the views."""

from alembic import context

from schemas.migrations import create_views, drop_views
from schemas.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
drop_views(connection)
context.run_migrations()
if (version := context.get_context().get_current_revision()) is not None:
    create_views(connection, version)
