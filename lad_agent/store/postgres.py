"""All that is PostgreSQL's own: connections, triggers, the writers' lock, and its error codes."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.schema import DDL

from lad_agent.errors import PrerequisiteError, StoreCorrupt, StoreError, StoreLocked, StoreReadOnly
from lad_agent.store.models import Base

ARCHIVER = "lad_agent_archiver"
"""Where a role of this name exists, its members alone may remove what an archive holds."""

LOCK = 0x1AD_A6E27
"""Key of the advisory lock that a writer holds until its commit."""


def _trigger(name: str, when: str, refused: str, says: str, each: str = "ROW") -> str:
    result = "OLD" if "DELETE" in when else "NEW" if each == "ROW" else "NULL"
    return f"""
        CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF {refused} THEN
                RAISE EXCEPTION '{says}' USING ERRCODE = 'integrity_constraint_violation';
            END IF;
            RETURN {result};
        END $$;
        CREATE TRIGGER {name} BEFORE {when} FOR EACH {each} EXECUTE FUNCTION {name}()"""


_EVENTS, _CHAINS = "events are append-only", "chains only grow"
TRIGGERS_0001 = {
    "events_no_update": _trigger("events_no_update", "UPDATE ON events", "true", _EVENTS),
    "events_no_delete": _trigger("events_no_delete", "DELETE ON events", "true", _EVENTS),
    "events_no_truncate": _trigger(
        "events_no_truncate", "TRUNCATE ON events", "true", _EVENTS, "STATEMENT"
    ),
    "events_in_order": _trigger(
        "events_in_order",
        "INSERT ON events",
        "NEW.seq <= (SELECT max(seq) FROM events)",
        _EVENTS,
    ),
    "chains_no_delete": _trigger("chains_no_delete", "DELETE ON chains", "true", _CHAINS),
    "chains_no_truncate": _trigger(
        "chains_no_truncate", "TRUNCATE ON chains", "true", _CHAINS, "STATEMENT"
    ),
    "chains_only_grow": _trigger(
        "chains_only_grow",
        "UPDATE ON chains",
        "NEW.station <> OLD.station OR NEW.seq <= OLD.seq OR NEW.events <= OLD.events",
        _CHAINS,
    ),
}
"""The ledger's triggers by name, as of schema 0001."""

TRIGGERS = TRIGGERS_0001 | {
    "events_no_delete": _trigger(
        "events_no_delete",
        "DELETE ON events",
        f"""OLD.seq > coalesce((SELECT max(through) FROM archives), 0)
            OR NOT coalesce((SELECT pg_has_role(current_user, oid, 'USAGE')
                             FROM pg_roles WHERE rolname = '{ARCHIVER}'), true)""",
        _EVENTS,
    ),
}
"""The ledger's triggers: only what an archive holds may go, by an archiver's hand."""


def engine(url: URL, *, busy_timeout_s: float) -> Engine:
    """An engine whose commits are durable, one writer at a time as in SQLite.

    Readers see one snapshot. A writer holds the advisory lock until its commit, so that numbers
    have no gap, and what a step has looked up stays true.

    Raises:
        PrerequisiteError: psycopg is not installed.
    """
    try:
        made = create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": max(2, round(busy_timeout_s)),
                "options": "-c synchronous_commit=on -c client_encoding=UTF8",
            },
        )
    except ImportError as error:
        raise PrerequisiteError(
            f"{url.render_as_string(hide_password=True)}: psycopg is not installed; "
            "pip install 'lad-agent[postgres]'"
        ) from error

    @event.listens_for(made, "begin")
    def _begin(connection: Connection) -> None:
        if not connection.get_execution_options().get("writing", False):
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            return
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(busy_timeout_s * 1000)}")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")

    return made


def prepare(engine: Engine) -> None:
    """Nothing: a server is prepared by those who run it."""


def create_triggers(connection: Connection, triggers: dict[str, str]) -> None:
    """Make the ledger append-only; a trigger that is there already is replaced."""
    for name, statement in triggers.items():
        table = name.partition("_")[0]
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name} ON {table}")
        connection.exec_driver_sql(statement)


def raw_rows(connection: Connection, query: str, size: int) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of `query` in batches, text as UTF-8 bytes."""
    streamed = text(query).execution_options(stream_results=True, max_row_buffer=size)
    with connection.execute(streamed) as result:
        for rows in result.partitions(size):
            yield [
                tuple(value.encode() if isinstance(value, str) else value for value in row)
                for row in rows
            ]


for _statement in TRIGGERS.values():
    event.listen(
        Base.metadata,
        "after_create",
        DDL(_statement).execute_if(dialect="postgresql"),  # type: ignore[no-untyped-call]
    )


def explained(error: BaseException, store: str) -> StoreError:
    """The error that names `store`, what happened in it, and the remedy."""
    state = getattr(error, "sqlstate", None)
    said = " ".join(str(error).split())
    if state is None:
        return StoreError(f"{store}: cannot be reached ({said}); start the server, or mend the URL")
    for length in (5, 2):
        if state[:length] in _MEANINGS:
            kind, meaning = _MEANINGS[state[:length]]
            return kind(f"{store}: {meaning}")
    return StoreError(f"{store}: the database failed ({said}); ask who runs the server")


_MEANINGS: dict[str, tuple[type[StoreError], str]] = {
    "55P03": (
        StoreLocked,
        "another process holds the audit store; let it finish or stop it, then run again",
    ),
    "40": (StoreLocked, "another process was in the way; run again"),
    "25006": (
        StoreReadOnly,
        "the server takes no writes now (read-only, or a standby); use the primary's URL",
    ),
    "42501": (
        StoreReadOnly,
        "no right to do this in the audit store; GRANT it to the URL's user, or use another",
    ),
    "23000": (
        StoreReadOnly,
        f"what is written stays; to remove what an archive holds needs the role {ARCHIVER}",
    ),
    "53100": (
        StoreReadOnly,
        "the server's disk is full; free some space and run again, what was recorded is safe",
    ),
    "53": (StoreError, "the server has no room for more (memory or connections); run again later"),
    "08": (StoreError, "the connection was lost; run again when the server is back"),
    "57": (StoreError, "the server is stopping or starting; run again when it is back"),
    "28": (StoreError, "the server refuses the URL's user or password; mend the URL"),
    "3D000": (StoreError, "no such database; make it with createdb, or mend the URL"),
    "XX": (StoreCorrupt, "the audit store is damaged; restore a backup, or give another --store"),
}
