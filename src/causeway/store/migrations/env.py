"""Run by Alembic for every migration line; `causeway.store.migrate` says which and over what."""

from alembic import context

from causeway.store.migrate import configuration_of

context.configure(**configuration_of(context.config))
with context.begin_transaction():
    context.run_migrations()
