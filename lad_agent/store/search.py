"""Words in rationales: an index kept up in the transaction that writes the judgement.

SQLite: an FTS5 index without content of its own, whose rows are the events' numbers, so that it
outlives a VACUUM. (No trigger could fill it: a connection that does not trust the schema lets none
write a virtual table.) PostgreSQL: a GIN index over the `tsvector` of the rationales, which the
server keeps up. Both take words as they stand (no stemming) in any case.
"""

import math
import string
from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    BindParameter,
    Boolean,
    ClauseElement,
    Connection,
    Integer,
    Select,
    column,
    event,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import DDL
from sqlalchemy.sql.functions import FunctionElement

from lad_agent.errors import UsageError
from lad_agent.store.models import Base, Event, escaped

# Left to itself, PostgreSQL's parser takes <tags>, paths and addresses for words of their own.
_SIGNS = (
    string.punctuation.replace("'", "''").replace("%", "%%").replace("{", "{{").replace("}", "}}")
)
_VECTOR = f"to_tsvector('simple', translate({{}}, '{_SIGNS}', '{' ' * len(string.punctuation)}'))"

INDEX = {
    "sqlite": """
        CREATE VIRTUAL TABLE rationale_search USING fts5(
        rationale, content='', columnsize=0, tokenize='unicode61 remove_diacritics 0')""",
    "postgresql": f"""
        CREATE INDEX ix_judgements_rationale_search ON judgements
        USING gin ({_VECTOR.format("rationale")})""",
}
"""What makes the index, as of schema 0003."""


class _Condition(FunctionElement[bool]):
    """Stands as it is: compared with 1, as other truths are in SQLite, it would use no index."""

    type = Boolean()

    def self_group(self, against: Any = None) -> ClauseElement:  # type: ignore[override]
        return self


class mentions(_Condition):  # noqa: N801 - reads as a function of SQL
    """`mentions(id, words(text))`: the rationale of the inspection `id` holds all the words."""

    name = "mentions"
    inherit_cache = True


def few(connection: Connection, asked: str) -> str | None:
    """The judgements with all the words, a JSON list of their events' numbers (SQLite alone); None
    where so many have them that it is quicker not to gather them all."""
    events = connection.scalar(select(func.max(Event.seq))) or 0
    most = max(1, int(_MANY * math.sqrt(events)))
    found = connection.execute(_SOME, {"words": words(asked).value, "most": most}).one()
    return None if found.number == most else str(found.judged)


def of_events(judged: str) -> Select[str | None]:
    """The inspections whose judgements are the events in this JSON list (SQLite alone)."""
    listed = func.json_each(judged).table_valued(column("value", Integer))
    return select(Event.inspection_id).where(Event.seq.in_(select(listed.c.value)))


def among(connection: Connection, asked: str, judged: Collection[int]) -> set[int]:
    """Of the judgements that are the events `judged`: those with all the words (SQLite alone).

    The index is read from the first of them to the last.
    """
    if not judged:
        return set()
    between = {"words": words(asked).value, "first": min(judged), "last": max(judged)}
    return set(connection.scalars(_BETWEEN, between)).intersection(judged)


def words(asked: str) -> BindParameter[str]:
    """The words of `asked` as both databases' query languages take them, free of operators.

    Raises:
        UsageError: no letter or digit in it.
    """
    spaced = asked.translate(dict.fromkeys(map(ord, string.punctuation), " "))
    found = [word for word in spaced.split() if any(map(str.isalnum, word))]
    if not found:
        raise UsageError(f"--text {asked!r}: give a word that the rationale holds")
    return literal(escaped(" ".join(f'"{word}"' for word in found)))


def add(connection: Connection, seq: int, rationale: str) -> None:
    """Index the rationale of the judgement that is event `seq`."""
    if connection.dialect.name == "sqlite":
        connection.execute(_ADD, {"seq": seq, "rationale": escaped(rationale)})


def fill(connection: Connection) -> None:
    """Index the rationales of all judgements anew."""
    if connection.dialect.name == "sqlite":
        for statement in (_EMPTY, _FILL):
            connection.execute(text(statement))


def create(connection: Connection) -> None:
    """Make the index and fill it from what is there (used by the migration)."""
    connection.execute(DDL(INDEX[connection.dialect.name]))  # type: ignore[no-untyped-call]
    fill(connection)


def drop(connection: Connection) -> None:
    """Undo `create`."""
    sqlite = connection.dialect.name == "sqlite"
    what = "TABLE rationale_search" if sqlite else "INDEX ix_judgements_rationale_search"
    connection.execute(DDL(f"DROP {what}"))  # type: ignore[no-untyped-call]


# Times the root of the number of events: so many take as long to gather as a page to find. (To
# gather n takes n steps, a page of them size / n.)
_MANY = 6
_SOME = text(
    "SELECT count(*) AS number, json_group_array(rowid) AS judged FROM "
    "(SELECT rowid FROM rationale_search WHERE rationale_search MATCH :words LIMIT :most)"
)
_BETWEEN = text(
    "SELECT rowid FROM rationale_search "
    "WHERE rationale_search MATCH :words AND rowid BETWEEN :first AND :last"
)
_EMPTY = "INSERT INTO rationale_search (rationale_search) VALUES ('delete-all')"
_FILL = """
    INSERT INTO rationale_search (rowid, rationale)
    SELECT seq, json_extract(canonical, '$.payload.rationale')
    FROM events WHERE type = 'inspection.judged'"""
_ADD = text("INSERT INTO rationale_search (rowid, rationale) VALUES (:seq, :rationale)")


@compiles(mentions, "sqlite")
def _by_fts(element: mentions, compiler: Any, **kw: Any) -> str:
    inspection, wanted = (compiler.process(clause, **kw) for clause in element.clauses)
    return (
        f"{inspection} IN (SELECT events.inspection_id FROM rationale_search "
        "JOIN events ON events.seq = rationale_search.rowid "
        f"WHERE rationale_search MATCH {wanted})"
    )


@compiles(mentions, "postgresql")
def _by_tsvector(element: mentions, compiler: Any, **kw: Any) -> str:
    inspection, wanted = (compiler.process(clause, **kw) for clause in element.clauses)
    return (
        f"{inspection} IN (SELECT judgements.inspection_id FROM judgements "
        f"WHERE {_VECTOR.format('judgements.rationale')} "
        f"@@ websearch_to_tsquery('simple', {wanted}))"
    )


for _dialect, _statement in INDEX.items():
    event.listen(
        Base.metadata,
        "after_create",
        DDL(_statement).execute_if(dialect=_dialect),  # type: ignore[no-untyped-call]
    )
