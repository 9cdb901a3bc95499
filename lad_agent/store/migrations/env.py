"""Run by Alembic: migrates the connection it is given, within its transaction."""

from alembic import context

from lad_agent.store.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
)
context.run_migrations()
