"""How many inspections of a day, an hour or a lot are alike: figures over all read these few rows.

Kept in the transaction that changes an inspection. What one transaction changes is gathered and
written at its end, so that inspections that share a commit share these writes too.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, TextClause, bindparam, text

KEY = ("day", "product", "station", "recipe_version", "model", "result", "final", "cause")
"""What inspections have in common that are counted together; "" where there is none yet."""

HOURLY_KEY = ("hour", "product", "station", "result", "final")
"""The same by the hour, in less detail: else there would be nearly as many rows as inspections."""

LOT_KEY = ("lot", "product", "station", "result", "final")
"""The same by the lot, "" where a part has none."""

_Key = Mapping[str, str]


class Tally:
    """Counts what one transaction changes: `changing` before a change, `write` before the commit.

    Nobody else may write meanwhile.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._before: dict[str, _Key | None] = {}

    def changing(self, inspection_id: str, *, new: bool) -> None:
        """Note what an inspection is counted as before its first change; a `new` one is not yet."""
        if inspection_id not in self._before:
            found = _keys(self._connection, [] if new else [inspection_id])
            self._before[inspection_id] = found.get(inspection_id)

    def write(self) -> None:
        """Count the changed inspections as what they are now."""
        after = _keys(self._connection, self._before)
        for table, names in _TABLES.items():
            moved = Counter(tuple(map(key.get, names)) for key in after.values())
            moved.subtract(tuple(map(key.get, names)) for key in self._before.values() if key)
            rows: list[dict[str, Any]] = [
                {**dict(zip(names, values, strict=True)), "inspections": step}
                for values, step in moved.items()
                if step
            ]
            if rows:
                self._connection.execute(_ADD[table], rows)
            if left := [row for row in rows if row["inspections"] < 0]:
                self._connection.execute(_DROP_EMPTY[table], left)
        self._before = {}


def fill(connection: Connection, tables: Iterable[str] | None = None) -> None:
    """Count all inspections anew, in all tables or some."""
    for table in tables or _TABLES:
        names = _TABLES[table]
        selected = ", ".join(map(_selected, names))
        connection.execute(text(f"DELETE FROM {table}"))
        connection.execute(
            text(
                f"INSERT INTO {table} ({', '.join(names)}, inspections) "
                f"SELECT {selected}, count(*) FROM v_inspections GROUP BY {selected}"
            )
        )


def _keys(connection: Connection, ids: Iterable[str]) -> Mapping[str, _Key]:
    wanted = list(ids)
    found: dict[str, _Key] = {}
    for first in range(0, len(wanted), _MOST):
        for row in connection.execute(_FIND, {"ids": wanted[first : first + _MOST]}):
            found[row.id] = row._asdict()
    return found


def _selected(name: str) -> str:
    return f"coalesce({name}, '')" if name in _MISSING else name


def _add(table: str, names: Sequence[str]) -> TextClause:
    columns = ", ".join(names)
    return text(
        f"INSERT INTO {table} ({columns}, inspections) "
        f"VALUES ({', '.join(f':{name}' for name in names)}, :inspections) "
        f"ON CONFLICT ({columns}) "
        f"DO UPDATE SET inspections = {table}.inspections + excluded.inspections"
    )


def _drop_empty(table: str, names: Sequence[str]) -> TextClause:
    same = " AND ".join(f"{name} = :{name}" for name in names)
    return text(f"DELETE FROM {table} WHERE {same} AND inspections = 0")


_MOST = 500
_MISSING = ("lot", "result", "final", "cause")
_TABLES = {"tallies": KEY, "hourly_tallies": HOURLY_KEY, "lot_tallies": LOT_KEY}
_FIND = text(
    f"SELECT id, hour, {', '.join(f'{_selected(name)} AS {name}' for name in (*KEY, 'lot'))} "
    "FROM v_inspections WHERE id IN :ids"
).bindparams(bindparam("ids", expanding=True))
_ADD = {table: _add(table, names) for table, names in _TABLES.items()}
_DROP_EMPTY = {table: _drop_empty(table, names) for table, names in _TABLES.items()}
