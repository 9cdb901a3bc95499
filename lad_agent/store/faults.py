"""What a check of the ledger can find, and how its rows look as they lie in the database."""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lad_agent.store.ledger import GENESIS
from lad_agent.store.models import unescaped

MOST_FAULTS = 100
"""So many faults are described; one deleted event can break all that follow."""

COLUMNS = (
    "seq",
    "station",
    "type",
    "inspection_id",
    "at",
    "actor",
    "canonical",
    "prev_hash",
    "hash",
)
Row = tuple[Any, ...]
"""An event's `COLUMNS`, unread: numbers, and texts as bytes; a tampered row may hold anything."""
End = tuple[int, bytes, int]
"""Where a chain stands: number and hash of its last event, and how many it has."""
START: End = (0, GENESIS.encode(), 0)


class Kind(StrEnum):
    """What happened to the ledger."""

    EDITED = "edited"
    DELETED = "deleted"
    REORDERED = "reordered"
    INSERTED = "inserted"
    TRUNCATED = "truncated"
    FOREIGN = "foreign"
    BAD_SIGNATURE = "bad-signature"


@dataclass(frozen=True)
class ChainFault:
    """One thing wrong with a chain: the event's number (None: the chain as a whole) and why."""

    station: str
    seq: int | None
    kind: Kind
    problem: str

    def __str__(self) -> str:
        return f"station {self.station!r}, event {self.seq or '(end)'}: {self.kind}, {self.problem}"


@dataclass(frozen=True)
class ChainReport:
    """What a check of the chains found.

    `faults` is in the order of the events. `heads` counts the signed heads that were compared, in
    the ledger or given; `unsigned` the events after the last of them, which the chain alone
    guards; `unchecked` the given heads over events that an archive holds.
    """

    events: int
    stations: tuple[str, ...]
    faults: tuple[ChainFault, ...]
    heads: int = 0
    unsigned: int = 0
    unchecked: int = 0

    @property
    def intact(self) -> bool:
        return not self.faults


class Faults:
    """The faults found so far, as many as are described."""

    def __init__(self) -> None:
        self.found: list[ChainFault] = []

    @property
    def full(self) -> bool:
        """Enough was described: from here on faults are not looked into."""
        return len(self.found) >= MOST_FAULTS

    def add(self, station: Any, seq: int | None, kind: Kind, problem: str) -> None:
        """Describe a fault, `station` as it lies in the database."""
        if not self.full:
            self.found.append(ChainFault(name_of(station), seq, kind, problem))


def differing(row: Row, fields: Any) -> list[str]:
    """The columns that say something else than the canonical form."""
    values = dict(zip(COLUMNS, row, strict=True))
    names = [name for name in COLUMNS if name not in ("canonical", "hash")]
    if not isinstance(fields, dict):
        return names
    return [name for name in names if not _same(values[name], fields.get(name))]


def fields_of(canonical: Any) -> dict[str, Any]:
    """What the canonical form says; nothing where it is no object of JSON."""
    try:
        fields = json.loads(as_bytes(canonical))
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def as_bytes(value: Any) -> bytes:
    """A text as the database holds it."""
    return value if isinstance(value, bytes) else str(value).encode()


def as_text(value: Any) -> str:
    """A text of the database that can be read, whatever it is."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def name_of(station: Any) -> str:
    """A station's name from its column."""
    return unescaped(as_text(station))


def _same(found: Any, written: Any) -> bool:
    if isinstance(written, str):
        return isinstance(found, bytes) and found == written.encode()
    return bool(found == written)
