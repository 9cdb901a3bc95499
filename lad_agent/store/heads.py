"""Signed heads: where every chain stood at a moment, signed, and copied out of the database.

A head is an event of the ledger (`head.signed`). Its copy lies as one JSON line in a file that the
database's users cannot reach; up to the last such line nothing can be changed without being found.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from lad_agent.errors import StoreReadOnly, UsageError
from lad_agent.store import ledger, projections
from lad_agent.store.models import Event, HeadRow
from lad_agent.store.operations import Unit
from lad_agent.store.signing import SigningKey, is_signed


@dataclass(frozen=True)
class Signing:
    """Who signs heads and when: after so many events or minutes, with the next commit.

    `export_to` is the file that every head is appended to; `station` and `actor` stand in the
    events.
    """

    key: SigningKey
    station: str
    actor: str
    every_events: int = 1000
    every_minutes: float = 60.0
    export_to: Path | None = None


@dataclass(frozen=True)
class Head:
    """What was signed. `stations` holds the `seq`, `hash` and `events` of every chain's end.

    `through` is the ledger's last event at the time.
    """

    ledger: str
    through: int
    at: str
    stations: Mapping[str, Mapping[str, Any]]
    public_key: str
    signature: str

    @property
    def valid(self) -> bool:
        """Whether the signature is that of its public key."""
        return is_signed(_content(self), self.signature, self.public_key)

    def line(self) -> str:
        """The head as a line of an exported file."""
        return json.dumps(_fields(self), sort_keys=True)


def sign(unit: Unit, signing: Signing) -> None:
    """Append a signed head over all that the transaction's ledger holds so far."""
    unit.ledger.write()
    head = Head(
        ledger=unit.ledger.id,
        through=unit.ledger.seq,
        at=ledger.now(),
        stations=ledger.ends(unit.connection),
        public_key=signing.key.public,
        signature="",
    )
    signed = _fields(head) | {"signature": signing.key.sign(_content(head))}
    unit.happened(
        projections.HEAD_SIGNED,
        signed,
        station=signing.station,
        actor=signing.actor,
        inspection_id=None,
    )


def is_due(unit: Unit, signing: Signing) -> bool:
    """Whether enough events or time have passed since the last head by this key."""
    query = select(HeadRow).where(HeadRow.public_key == signing.key.public)
    last = unit.connection.execute(query.order_by(HeadRow.seq.desc()).limit(1)).one_or_none()
    if last is None:
        return unit.ledger.seq > 0
    fresh = unit.ledger.seq - last.seq
    age = datetime.now(UTC) - datetime.fromisoformat(last.at)
    late = not timedelta(0) <= age < timedelta(minutes=signing.every_minutes)
    return fresh >= signing.every_events or (fresh > 0 and late)


def signed_heads(connection: Connection, after: int = 0) -> Iterator[Head]:
    """The heads in the ledger over more than `after` events, the oldest first."""
    seqs = select(HeadRow.seq).where(HeadRow.through > after)
    for entry in ledger.entries(connection, Event.seq.in_(seqs)):
        yield from_fields(entry.payload)


def export(connection: Connection, file: Path) -> int:
    """Append to `file` the heads that it lacks; returns how many.

    Raises:
        UsageError: it holds something else, or heads of another ledger.
        StoreReadOnly: it cannot be written.
    """
    there = read_file(file) if file.exists() else []
    own = ledger.ledger_id(connection)
    if any(head.ledger != own for head in there):
        raise UsageError(f"{file}: holds heads of another ledger; give another file")
    lacking = list(signed_heads(connection, max((head.through for head in there), default=0)))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a+b") as opened:
            opened.truncate(_whole_lines(file))
            opened.writelines(f"{head.line()}\n".encode() for head in lacking)
            opened.flush()
            os.fsync(opened.fileno())
    except OSError as error:
        raise StoreReadOnly(
            f"{file}: the heads cannot be exported ({error.strerror}); make room or give another"
        ) from error
    return len(lacking)


def read_file(file: Path) -> list[Head]:
    """The heads in an exported file. A last line that a crash cut off is left out.

    Raises:
        UsageError: it cannot be read, or a line is no head.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: no exported heads here; audit head --to makes them") from error
    whole = [line for line in lines if line.endswith("\n")]
    try:
        return [from_fields(json.loads(line)) for line in whole]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{file}: not a file of exported heads; give another") from error


def from_fields(fields: Mapping[str, Any]) -> Head:
    """A head as it stands in an event or a line.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is no head.
    """
    head = fields["head"]
    stations = {
        str(station): {"seq": int(end["seq"]), "hash": str(end["hash"]), "events": end["events"]}
        for station, end in head["stations"].items()
    }
    return Head(
        ledger=str(head["ledger"]),
        through=int(head["through"]),
        at=str(head["at"]),
        stations=stations,
        public_key=str(fields["public_key"]),
        signature=str(fields["signature"]),
    )


def _whole_lines(file: Path) -> int:
    """The size of `file` without a last line that a crash cut off."""
    return file.read_bytes().rfind(b"\n") + 1


def _fields(head: Head) -> dict[str, Any]:
    return {
        "head": {
            "ledger": head.ledger,
            "through": head.through,
            "at": head.at,
            "stations": head.stations,
        },
        "public_key": head.public_key,
        "signature": head.signature,
    }


def _content(head: Head) -> bytes:
    return ledger.canonical_bytes(_fields(head)["head"])
