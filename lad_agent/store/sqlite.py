"""All that is SQLite's own: where the file lies, pragmas, triggers, locks, copies, error codes."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.schema import DDL

from lad_agent.errors import StoreCorrupt, StoreError, StoreLocked, StoreReadOnly
from lad_agent.store.models import Base

DriverError = sqlite3.Error
"""What is raised where the driver is asked without SQLAlchemy."""

TRIGGERS_0001 = {
    "events_no_update": """
        CREATE TRIGGER events_no_update BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END""",
    "events_no_delete": """
        CREATE TRIGGER events_no_delete BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END""",
    # INSERT OR REPLACE deletes the old row without asking the trigger above.
    "events_in_order": """
        CREATE TRIGGER events_in_order BEFORE INSERT ON events
        WHEN NEW.seq <= (SELECT max(seq) FROM events)
          OR EXISTS (SELECT 1 FROM events WHERE hash = NEW.hash)
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END""",
    "chains_no_delete": """
        CREATE TRIGGER chains_no_delete BEFORE DELETE ON chains
        BEGIN SELECT RAISE(ABORT, 'chains only grow'); END""",
    "chains_only_grow": """
        CREATE TRIGGER chains_only_grow BEFORE UPDATE ON chains
        WHEN NEW.station IS NOT OLD.station OR NEW.seq <= OLD.seq OR NEW.events <= OLD.events
        BEGIN SELECT RAISE(ABORT, 'chains only grow'); END""",
    "chains_once": """
        CREATE TRIGGER chains_once BEFORE INSERT ON chains
        WHEN EXISTS (SELECT 1 FROM chains WHERE station = NEW.station)
        BEGIN SELECT RAISE(ABORT, 'chains only grow'); END""",
}
"""The ledger's triggers by name, as of schema 0001."""

TRIGGERS = TRIGGERS_0001 | {
    "events_no_delete": """
        CREATE TRIGGER events_no_delete BEFORE DELETE ON events
        WHEN OLD.seq > coalesce((SELECT max(through) FROM archives), 0)
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END""",
}
"""The ledger's triggers: only what an archive holds may go."""


def database_file(url: URL) -> Path | None:
    """The file that an SQLite `url` names; None for one in memory or behind SQLite's own URI."""
    name = url.database or ":memory:"
    return None if name.startswith((":memory:", "file:")) else Path(name)


def engine(url: URL, *, busy_timeout_s: float) -> Engine:
    """An engine whose connections are durable and strict; writers take the lock at BEGIN."""
    made = create_engine(url, connect_args={"timeout": busy_timeout_s})

    @event.listens_for(made, "connect")
    def _pragmas(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in (
            "synchronous = FULL",
            "foreign_keys = ON",
            "recursive_triggers = ON",
            "trusted_schema = OFF",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(made, "begin")
    def _begin(connection: Connection) -> None:
        writing = connection.get_execution_options().get("writing", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return made


def prepare(engine: Engine) -> None:
    """Let readers and one writer work at once (WAL); the file remembers it.

    Not done on connecting: another program's database must not be changed by a look into it.
    """
    connection = engine.raw_connection()
    try:
        # SQLite does not wait for its turn here, as it does everywhere else.
        for left in reversed(range(20)):
            try:
                connection.cursor().execute("PRAGMA journal_mode = WAL").close()
                break
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorname", "") != "SQLITE_BUSY" or not left:
                    raise
                time.sleep(0.05)
    finally:
        connection.close()


def create_triggers(connection: Connection, triggers: dict[str, str]) -> None:
    """Make the ledger append-only; a trigger that is there already is replaced."""
    for name, statement in triggers.items():
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}")
        connection.exec_driver_sql(statement)


def raw_rows(connection: Connection, query: str, size: int) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of `query` in batches, text as the bytes that lie in the file.

    What was tampered with may be no text at all, and nothing is decoded that is hashed anyway.
    """
    raw = cast("sqlite3.Connection", connection.connection.dbapi_connection)
    before, raw.text_factory = raw.text_factory, bytes
    try:
        with closing(raw.execute(query)) as cursor:
            while rows := cursor.fetchmany(size):
                yield rows
    finally:
        raw.text_factory = before


def copy(engine: Engine, target: Path) -> None:
    """Copy the database into the new file `target` while others go on working with it."""
    with closing(sqlite3.connect(target)) as copied, engine.connect() as connection:
        # In one step: it would begin anew whenever another process wrote between two.
        cast("sqlite3.Connection", connection.connection.dbapi_connection).backup(copied)
        copied.execute("PRAGMA journal_mode = DELETE").close()


def compact(engine: Engine) -> None:
    """Leave one file, without a log beside it; nobody else may be at work in it."""
    with closing(engine.raw_connection()) as connection:
        connection.cursor().execute("PRAGMA journal_mode = DELETE").close()
    engine.dispose()


def damage(connection: Connection) -> str | None:
    """What SQLite's own check of its pages finds wrong; None where all is well."""
    found = str(connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar())
    return None if found == "ok" else " ".join(found.split())


for _statement in TRIGGERS.values():
    event.listen(
        Base.metadata,
        "after_create",
        DDL(_statement).execute_if(dialect="sqlite"),  # type: ignore[no-untyped-call]
    )


def explained(error: BaseException, store: str) -> StoreError:
    """The error that names `store`, what happened in it, and the remedy."""
    name = getattr(error, "sqlite_errorname", "") or ""
    primary = "_".join(name.split("_")[:2])
    kind, text = _MEANINGS.get(primary, (StoreError, _UNKNOWN.format(_one_line(error))))
    return kind(f"{store}: {text}")


_UNKNOWN = "the database failed ({}); restore a backup, or give another --store"
_MEANINGS: dict[str, tuple[type[StoreError], str]] = {
    "SQLITE_BUSY": (
        StoreLocked,
        "another process holds the audit store; let it finish or stop it, then run again",
    ),
    "SQLITE_LOCKED": (
        StoreLocked,
        "another connection holds the audit store; let it finish, then run again",
    ),
    "SQLITE_READONLY": (
        StoreReadOnly,
        "no right to write the audit store; make the file and its folder writable, "
        "or give another --store",
    ),
    "SQLITE_CANTOPEN": (
        StoreReadOnly,
        "the audit store cannot be opened; make the file and its folder readable and writable, "
        "or give another --store",
    ),
    "SQLITE_PERM": (StoreReadOnly, "access denied; change its rights, or give another --store"),
    "SQLITE_FULL": (
        StoreReadOnly,
        "the disk is full; free some space and run again, what was recorded is safe",
    ),
    "SQLITE_IOERR": (
        StoreError,
        "the disk failed to read or write; see that it is neither full nor broken, then run again",
    ),
    "SQLITE_CORRUPT": (
        StoreCorrupt,
        "the audit store is damaged; restore a backup, or give another --store",
    ),
    "SQLITE_NOTADB": (
        StoreCorrupt,
        "not an audit store (no SQLite database); give another --store, or restore a backup",
    ),
}


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
