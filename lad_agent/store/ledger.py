"""The ledger: one chain of events a station, each event bound to the one before by SHA-256.

An event's canonical form is RFC 8785 JSON of version, seq, station, type, inspection, time, actor,
payload and the hash of the station's event before. Its hash is the SHA-256 of these bytes, so
`printf %s "$canonical" | sha256sum` repeats it with no tool of ours.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import rfc8785
from sqlalchemy import ColumnElement, Connection, func, insert, select, type_coerce, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.types import NullType

from lad_agent.store.models import Chain, Event, escaped, unescaped

FORMAT = 1
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


@dataclass(frozen=True)
class ChainFault:
    """One thing wrong with a chain: the event's number (None: the chain as a whole) and why."""

    station: str
    seq: int | None
    problem: str

    def __str__(self) -> str:
        return f"station {self.station!r}, event {self.seq or '(end)'}: {self.problem}"


@dataclass(frozen=True)
class ChainReport:
    """What a check of the chains found: how many events and stations, and every fault."""

    events: int
    stations: tuple[str, ...]
    faults: tuple[ChainFault, ...]

    @property
    def intact(self) -> bool:
        return not self.faults


class Ledger:
    """Appends events within one transaction, which must hold the store's write lock.

    `append` only prepares them; `write` must be called once before the commit.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ends: dict[str, _End] = {}
        self._rows: list[dict[str, Any]] = []
        self._seq: int = connection.scalar(_LAST_SEQ) or 0

    def append(
        self, type: str, payload: Payload, *, station: str, actor: str, inspection_id: str | None
    ) -> Entry:
        """Add one event to the end of the station's chain."""
        end = self._ends.get(station) or self._read_end(station)
        self._seq += 1
        entry = Entry(self._seq, station, type, inspection_id, now(), actor, payload)
        canonical = canonical_json(entry, end.hash)
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
_INSERT_EVENT = insert(Event)


def now() -> str:
    """The time of an event: UTC, ISO 8601 with microseconds, so that text order is time order."""
    return timestamp(datetime.now(UTC))


def timestamp(moment: datetime) -> str:
    """`moment` in the form of the store's times; a time without zone is taken as local."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def canonical_json(entry: Entry, prev_hash: str) -> bytes:
    """The bytes that are hashed."""
    content: bytes = rfc8785.dumps(
        _each_text(
            {
                "v": FORMAT,
                "seq": entry.seq,
                "station": entry.station,
                "type": entry.type,
                "inspection_id": entry.inspection_id,
                "at": entry.at,
                "actor": entry.actor,
                "payload": entry.payload,
                "prev_hash": prev_hash,
            },
            escaped,
        )
    )
    return content


def entries(connection: Connection, *terms: ColumnElement[bool]) -> Iterator[Entry]:
    """The events for which `terms` hold, in their order, read from their canonical form."""
    query = select(Event.canonical).where(*terms).order_by(Event.seq)
    for canonical in connection.scalars(query.execution_options(yield_per=500)):
        fields = _each_text(json.loads(canonical, parse_int=_number), unescaped)
        yield Entry(**{name: fields[name] for name in Entry.__dataclass_fields__})


def verify(connection: Connection, station: str | None = None) -> ChainReport:
    """Check every event, its place in the chain, and the chain's end; of one station or all."""
    # As they lie in the file, untouched by our types: what was tampered with may be of any.
    raw = [type_coerce(column, NullType()).label(column.name) for column in Event.__table__.c]
    query = select(*raw).order_by(Event.seq).execution_options(yield_per=500)
    ends = select(Chain)
    if station is not None:
        query, ends = query.where(Event.station == station), ends.where(Chain.station == station)
    last: dict[str, tuple[int, str, int]] = {}
    faults: list[ChainFault] = []
    events = 0
    for row in connection.execute(query).mappings():
        events += 1
        _, prev_hash, count = last.get(row["station"], (0, GENESIS, 0))
        faults += (
            ChainFault(row["station"], row["seq"], problem) for problem in _faults(row, prev_hash)
        )
        last[row["station"]] = (row["seq"], row["hash"], count + 1)
    recorded = {
        escaped(row.station): (row.seq, row.hash, row.events) for row in connection.execute(ends)
    }
    names = sorted(last.keys() | recorded.keys(), key=str)
    for name in names:
        if last.get(name) != recorded.get(name):
            faults.append(ChainFault(name, None, _end_problem(last.get(name), recorded.get(name))))
    return ChainReport(events, tuple(names), tuple(faults))


def _faults(row: RowMapping, prev_hash: str) -> Iterator[str]:
    canonical = row["canonical"]
    if not isinstance(canonical, str):
        yield "its canonical form is no text"
        return
    if hashlib.sha256(canonical.encode()).hexdigest() != row["hash"]:
        yield "its content does not match its hash"
    if row["prev_hash"] != prev_hash:
        yield "it does not follow the event before it"
    try:
        fields = json.loads(canonical)
    except ValueError:
        yield "its canonical form is not JSON"
        return
    names = ("seq", "station", "type", "inspection_id", "at", "actor", "prev_hash")
    wrong = [n for n in names if not isinstance(fields, dict) or fields.get(n) != row[n]]
    if wrong:
        yield f"not as in its canonical form: {', '.join(wrong)}"


def _end_problem(found: tuple[int, str, int] | None, wanted: tuple[int, str, int] | None) -> str:
    if wanted is None:
        return "the chain's end was never recorded"
    if found is None:
        return f"all {wanted[2]} events are missing"
    return f"{wanted[2]} events up to number {wanted[0]} were recorded, {found[2]} are there"


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
