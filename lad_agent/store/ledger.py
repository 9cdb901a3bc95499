"""The ledger: one chain of events a station, each event bound to the one before by SHA-256.

An event's canonical form is RFC 8785 JSON of version, ledger, seq, station, type, inspection, time,
actor, payload and the hash of the station's event before. Its hash is the SHA-256 of these bytes,
so `printf %s "$canonical" | sha256sum` repeats it with no tool of ours. `ledger` is drawn with the
first event and names the database that the event was written in. Numbers (`seq`) run over all
stations without a gap; they alone make the order, whatever the clock said (`at`).
"""

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import rfc8785
from sqlalchemy import ColumnElement, Connection, func, insert, select, text, update

from lad_agent.store.models import Chain, Event, escaped, unescaped

FORMAT = 2
"""Version of the canonical form; version 1 did not name the ledger."""
GENESIS = "0" * 64
"""`prev_hash` of a station's first event."""

Payload = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """An event as it was appended, or read back."""

    seq: int
    station: str
    type: str
    inspection_id: str | None
    at: str
    actor: str
    payload: Payload


class Ledger:
    """Appends events within one transaction, which must hold the store's write lock.

    `append` only prepares them; `write` must be called once before the commit.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ends: dict[str, _End] = {}
        self._rows: list[dict[str, Any]] = []
        self._seq: int = connection.scalar(_LAST_SEQ) or 0
        self._id = ledger_id(connection) or secrets.token_hex(8)

    @property
    def seq(self) -> int:
        """The number of the last event."""
        return self._seq

    @property
    def id(self) -> str:
        """The name of this ledger: 16 hex digits."""
        return self._id

    def append(
        self, type: str, payload: Payload, *, station: str, actor: str, inspection_id: str | None
    ) -> Entry:
        """Add one event to the end of the station's chain."""
        end = self._ends.get(station) or self._read_end(station)
        self._seq += 1
        entry = Entry(self._seq, station, type, inspection_id, now(), actor, payload)
        canonical = canonical_json(entry, end.hash, self._id)
        digest = hashlib.sha256(canonical).hexdigest()
        self._rows.append(
            {
                "seq": entry.seq,
                "station": station,
                "type": type,
                "inspection_id": inspection_id,
                "at": entry.at,
                "actor": actor,
                "canonical": canonical.decode(),
                "prev_hash": end.hash,
                "hash": digest,
            }
        )
        self._ends[station] = _End(entry.seq, digest, end.events + 1, end.is_new)
        return entry

    def write(self) -> None:
        """Insert the events appended so far, and move the ends of their chains."""
        if not self._rows:
            return
        self._connection.execute(_INSERT_EVENT, self._rows)
        for station, end in self._ends.items():
            values = {"seq": end.seq, "hash": end.hash, "events": end.events}
            if end.is_new:
                self._connection.execute(insert(Chain), {"station": station, **values})
            else:
                self._connection.execute(update(Chain).where(Chain.station == station), values)
        self._rows, self._ends = [], {}

    def _read_end(self, station: str) -> "_End":
        query = select(Chain).where(Chain.station == station)
        found = self._connection.execute(query).one_or_none()
        if found is None:
            return _End(0, GENESIS, 0, is_new=True)
        return _End(found.seq, found.hash, found.events, is_new=False)


@dataclass(frozen=True)
class _End:
    seq: int
    hash: str
    events: int
    is_new: bool


_LAST_SEQ = select(func.max(Event.seq))
_FIRST_EVENT = text("SELECT canonical, hash FROM events ORDER BY seq LIMIT 1")
_INSERT_EVENT = insert(Event)


def now() -> str:
    """The time of an event: UTC, ISO 8601 with microseconds, so that text order is time order."""
    return timestamp(datetime.now(UTC))


def timestamp(moment: datetime) -> str:
    """`moment` in the form of the store's times; a time without zone is taken as local."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def ledger_id(connection: Connection) -> str | None:
    """The name of the ledger, as its first event tells it; None where there is no event yet.

    A ledger begun in version 1 of the canonical form is named after its first event's hash.
    """
    # As it lies there: what was tampered with may be no text.
    found = connection.execute(_FIRST_EVENT).one_or_none()
    if found is None:
        return None
    try:
        fields = json.loads(found.canonical)
        return str(fields.get("ledger") or found.hash[:16])
    except (ValueError, TypeError, AttributeError):
        return "(unreadable)"


def canonical_json(entry: Entry, prev_hash: str, ledger: str) -> bytes:
    """The bytes that are hashed."""
    return canonical_bytes(
        {
            "v": FORMAT,
            "ledger": ledger,
            "seq": entry.seq,
            "station": entry.station,
            "type": entry.type,
            "inspection_id": entry.inspection_id,
            "at": entry.at,
            "actor": entry.actor,
            "payload": entry.payload,
            "prev_hash": prev_hash,
        }
    )


def canonical_bytes(value: Any) -> bytes:
    """RFC 8785 JSON of `value`, its texts made such that UTF-8 can hold them."""
    content: bytes = rfc8785.dumps(_each_text(value, escaped))
    return content


def entries(connection: Connection, *terms: ColumnElement[bool]) -> Iterator[Entry]:
    """The events for which `terms` hold, in their order, read from their canonical form."""
    query = select(Event.canonical).where(*terms).order_by(Event.seq)
    for canonical in connection.scalars(query.execution_options(yield_per=500)):
        fields = read(canonical)
        yield Entry(**{name: fields[name] for name in Entry.__dataclass_fields__})


def ends(connection: Connection) -> dict[str, dict[str, Any]]:
    """Where every station's chain ends: `seq`, `hash` and `events`, the count so far."""
    return {
        row.station: {"seq": row.seq, "hash": row.hash, "events": row.events}
        for row in connection.execute(select(Chain.__table__).order_by(Chain.station))
    }


def read(canonical: str) -> dict[str, Any]:
    """The fields of a canonical form, as they went in.

    Raises:
        ValueError: it is no JSON object.
    """
    fields = json.loads(canonical, parse_int=_number)
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")
    return {name: _each_text(value, unescaped) for name, value in fields.items()}


def _number(digits: str) -> int | float:
    """RFC 8785 writes large floats without exponent, and integers only up to 2**53."""
    number = int(digits)
    return number if abs(number) < 2**53 else float(digits)


def _each_text(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): _each_text(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_each_text(item, change) for item in value]
    return value
