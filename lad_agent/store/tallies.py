"""How many inspections of a day are alike: figures over all of them read these few rows.

Kept in the transaction that changes an inspection. What one transaction changes is gathered and
written at its end, so that inspections that share a commit share these writes too.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, text

KEY = ("day", "product", "station", "recipe_version", "model", "result", "final", "cause")
"""What inspections have in common that are counted together; "" where there is none yet."""

_Key = tuple[str, ...]


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
        moved = Counter(_keys(self._connection, self._before).values())
        moved.subtract(key for key in self._before.values() if key is not None)
        self._before = {}
        rows: list[dict[str, Any]] = [
            {**dict(zip(KEY, key, strict=True)), "inspections": step}
            for key, step in moved.items()
            if step
        ]
        if rows:
            self._connection.execute(_ADD, rows)
        if left := [row for row in rows if row["inspections"] < 0]:
            self._connection.execute(_DROP_EMPTY, left)


def fill(connection: Connection) -> None:
    """Count all inspections anew."""
    connection.execute(text("DELETE FROM tallies"))
    connection.execute(
        text(
            f"INSERT INTO tallies ({_NAMES}, inspections) "
            f"SELECT {_SELECTED}, count(*) FROM v_inspections GROUP BY {_SELECTED}"
        )
    )


def _keys(connection: Connection, ids: Iterable[str]) -> Mapping[str, _Key]:
    wanted = list(ids)
    found: dict[str, _Key] = {}
    for first in range(0, len(wanted), _MOST):
        for row in connection.execute(_FIND, {"ids": wanted[first : first + _MOST]}):
            found[row.id] = tuple(row)[1:]
    return found


_MOST = 500
_NAMES = ", ".join(KEY)
_STATES = {"result", "final", "cause"}
_SELECTED = ", ".join(f"coalesce({name}, '')" if name in _STATES else name for name in KEY)
_FIND = text(f"SELECT id, {_SELECTED} FROM v_inspections WHERE id IN :ids").bindparams(
    bindparam("ids", expanding=True)
)
_ADD = text(
    f"INSERT INTO tallies ({_NAMES}, inspections) "
    f"VALUES ({', '.join(f':{name}' for name in KEY)}, :inspections) "
    f"ON CONFLICT ({_NAMES}) DO UPDATE SET inspections = tallies.inspections + excluded.inspections"
)
_DROP_EMPTY = text(
    f"DELETE FROM tallies WHERE {' AND '.join(f'{name} = :{name}' for name in KEY)} "
    "AND inspections = 0"
)
