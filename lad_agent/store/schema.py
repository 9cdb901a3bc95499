"""Which schema a database has, and how it gets the one of this version."""

from enum import Enum
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from lad_agent.errors import StoreCorrupt, StoreError, StoreSchema
from lad_agent.store.models import SCHEMA_VERSION

if TYPE_CHECKING:
    from alembic.config import Config


class State(Enum):
    """What a database is to this version of the package."""

    EMPTY = "empty"
    CURRENT = "current"
    OLDER = "older"
    NEWER = "newer"
    FOREIGN = "foreign"


def version(connection: Connection) -> str | None:
    """The database's revision; None where it has none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return None if found is None else str(found)


def state(connection: Connection) -> State:
    """What the database is to this version of the package."""
    found = version(connection)
    if found == SCHEMA_VERSION:
        return State.CURRENT
    if found is None:
        return State.FOREIGN if inspect(connection).get_table_names() else State.EMPTY
    return State.OLDER if found in _revisions() else State.NEWER


def refusal(state: State, store: str) -> StoreError:
    """The error that says why a database in `state` cannot be used as it is."""
    match state:
        case State.EMPTY:
            return StoreError(f"{store}: no audit store here; lad-agent inspect makes one")
        case State.OLDER:
            return StoreSchema(
                f"{store}: made by an older version; back it up, then: lad-agent store migrate"
            )
        case State.NEWER:
            return StoreSchema(
                f"{store}: made by a newer version of lad-agent than this one (whose schema is "
                f"{SCHEMA_VERSION}); upgrade lad-agent, or give another --store"
            )
        case _:
            return StoreCorrupt(
                f"{store}: a database, but not an audit store; give another --store"
            )


def migrate(connection: Connection, revision: str = "head") -> None:
    """Bring the database up to `revision`, within the connection's transaction."""
    from alembic import command

    command.upgrade(_config(connection), revision)


def migrate_down(connection: Connection, revision: str) -> None:
    """Bring the database back to `revision`; events stay, tables that it lacks go."""
    from alembic import command

    command.downgrade(_config(connection), revision)


def _revisions() -> set[str]:
    from alembic.script import ScriptDirectory

    return {found.revision for found in ScriptDirectory.from_config(_config()).walk_revisions()}


def _config(connection: Connection | None = None) -> "Config":
    # Alembic takes 0.2 s to import, and a store of the current schema needs none of it.
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "lad_agent.store:migrations")
    config.attributes["connection"] = connection
    return config
