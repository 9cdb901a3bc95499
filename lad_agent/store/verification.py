"""Is the ledger whole? One pass over all events, and what happened where it is not.

The pass hashes the canonical bytes as they lie in the database and compares every column with them;
nothing is parsed. Only where something is wrong is it looked into.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import rfc8785
from sqlalchemy import Connection, text

from lad_agent.store import dialects, ledger, projections
from lad_agent.store.faults import (
    COLUMNS,
    START,
    ChainReport,
    End,
    Faults,
    Kind,
    Row,
    as_bytes,
    as_text,
    differing,
    fields_of,
    name_of,
)
from lad_agent.store.heads import Head
from lad_agent.store.ledger import FORMAT
from lad_agent.store.models import escaped
from lad_agent.store.signed import SignedHeads

BATCH = 2000

_HEAD = projections.HEAD_SIGNED.encode()


@dataclass(frozen=True)
class Base:
    """Where a ledger goes on whose events up to `through` were archived.

    `ends` is where every chain stood then; `carried` are the events from before that stay because
    something open needs them: number to hash.
    """

    through: int = 0
    ends: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    carried: Mapping[int, str] = field(default_factory=dict)


def verify(
    connection: Connection,
    station: str | None = None,
    *,
    exported: Sequence[Head] = (),
    trusted: frozenset[str] = frozenset(),
    told: Callable[[int], None] | None = None,
) -> ChainReport:
    """Check every event, its place in the chain, the chains' ends and the signed heads.

    `exported` are heads from outside the database. `trusted` are the public keys whose signatures
    count; where it is empty, those of `exported`, else those that signed in the ledger. With
    `station` only its faults are reported. `told` hears how many events are done, every 2,000.
    """
    walk = _Walk(connection, exported, trusted or frozenset(head.public_key for head in exported))
    query = f"SELECT {', '.join(COLUMNS)} FROM events ORDER BY seq"
    for rows in dialects.of(connection).raw_rows(connection, query, BATCH):
        walk.batch(rows)
        if told is not None:
            told(walk.events)
    report = walk.finished()
    if station is None:
        return report
    name = escaped(station).encode()
    return replace(
        report,
        events=walk.counts.get(name, 0),
        stations=tuple(one for one in report.stations if one == station),
        faults=tuple(fault for fault in report.faults if fault.station == station),
    )


def base(connection: Connection) -> tuple[Base, Mapping[str, Any] | None]:
    """Where the ledger goes on after its last archive, and that archive's event's payload."""
    seq = connection.scalar(text("SELECT seq FROM archives ORDER BY through DESC, seq DESC"))
    if seq is None:
        return Base(), None
    query = text("SELECT canonical FROM events WHERE seq = :seq AND type = :type")
    found = connection.scalar(query, {"seq": seq, "type": projections.ARCHIVED})
    try:
        payload = ledger.read(as_text(found))["payload"]
        sealed = payload["sealed"]
        carried = {int(number): str(digest) for number, digest in sealed["carried"].items()}
        return Base(int(sealed["through"]), dict(sealed["stations"]), carried), payload
    except (ValueError, TypeError, KeyError, AttributeError):
        return Base(), None


class _Walk:
    """The state of one pass."""

    def __init__(
        self, connection: Connection, exported: Sequence[Head], trusted: frozenset[str]
    ) -> None:
        self._connection = connection
        self._ledger = ledger.ledger_id(connection) or ""
        self._recorded: dict[bytes, End] = {
            as_bytes(row.station): (row.seq, as_bytes(row.hash), row.events)
            for row in connection.execute(text("SELECT station, seq, hash, events FROM chains"))
        }
        self._newest = max((seq for seq, _, _ in self._recorded.values()), default=0)
        self._base, sealed = base(connection)
        self._last: dict[bytes, End] = {
            as_bytes(escaped(name)): (end["seq"], as_bytes(end["hash"]), end["events"])
            for name, end in self._base.ends.items()
        }
        self._expected = self._base.through + 1
        self._last_gap = 0
        self._carried: set[int] = set()
        self._faults = Faults()
        self._heads = SignedHeads(self._ledger, self._base.through, trusted, self._faults)
        self._quoted: dict[bytes, bytes] = {}
        self.events = 0
        self.counts: dict[bytes, int] = {}
        for head in exported:
            self._heads.expect(head, self._last)
        if sealed is not None:
            self._heads.check_seal(sealed)

    def batch(self, rows: list[Row]) -> None:
        """Check the next rows. Written for speed: 10 microseconds an event are many."""
        sha256, quoted, last, wanted = hashlib.sha256, self._quoted, self._last, self._heads.wanted
        own, counts = b'"ledger":"%b","payload":' % self._ledger.encode(), self.counts
        within, without = b'","inspection_id":"', b'","inspection_id":null,' + own
        end = b',"v":%d}' % FORMAT
        for row in rows:
            seq, station, kind, inspection, at, actor, canonical, prev, digest = row
            try:
                about = without if inspection is None else within + inspection + b'",' + own
                front = b'{"actor":' + quoted[actor] + b',"at":"' + at + about
                place = b',"prev_hash":"' + prev + b'","seq":%d,"station":' % seq
                back = place + quoted[station] + b',"type":' + quoted[kind] + end
                before = last.get(station, START)
                fine = (
                    seq == self._expected
                    and prev == before[1]
                    and canonical.startswith(front)
                    and canonical.endswith(back)
                    and sha256(canonical).hexdigest().encode() == digest
                )
            except (KeyError, TypeError, AttributeError):
                self._quote(actor, station, kind)
                fine = False
            if not fine:
                before = self._check(row)
            else:
                self._expected += 1
            if seq > self._base.through:
                last[station] = (seq, digest, before[2] + 1)
            self.events += 1
            counts[station] = counts.get(station, 0) + 1
            if wanted and (station, seq) in wanted:
                self._heads.compare(station, seq, digest)
            if kind == _HEAD:
                self._heads.check(row, last)

    def finished(self) -> ChainReport:
        """The report; call it after the last batch."""
        self._check_ends()
        self._heads.check_missing(self._last)
        for number in sorted(self._base.carried.keys() - self._carried):
            self._faults.add(b"", number, Kind.DELETED, "missing, but the archive left it here")
        newest = max((end[0] for end in self._last.values()), default=0)
        names = self._last.keys() | self._recorded.keys()
        return ChainReport(
            events=self.events,
            stations=tuple(sorted(name_of(name) for name in names)),
            faults=tuple(sorted(self._faults.found, key=lambda fault: fault.seq or newest + 1)),
            heads=self._heads.compared,
            unsigned=max(0, newest - self._heads.signed_through),
            unchecked=self._heads.unchecked,
        )

    # --- one event that is not plainly right ----------------------------------------------------

    def _check(self, row: Row) -> End:
        """Look into an event; returns what came before it in its chain."""
        seq, station, _, _, _, _, canonical, prev, digest = row
        before = self._last.get(station, START)
        if seq <= self._base.through:
            self._check_carried(row)
            return before
        if seq > self._expected:
            self._gap(row)
        self._expected = seq + 1
        content = as_bytes(canonical)
        try:
            fields = json.loads(content)
            assert isinstance(fields, dict)
        except (ValueError, AssertionError):
            self._faults.add(
                station, seq, self._new_or(seq, Kind.EDITED), "its content is not JSON"
            )
            return before
        if fields.get("ledger", self._ledger) != self._ledger:
            self._faults.add(station, seq, Kind.FOREIGN, f"of another ledger, {fields['ledger']}")
        elif hashlib.sha256(content).hexdigest().encode() != as_bytes(digest):
            kind = self._new_or(seq, Kind.EDITED)
            self._faults.add(station, seq, kind, "its content does not match its hash")
        elif fields.get("seq") != seq:
            self._misplaced(row, fields.get("seq"))
        elif wrong := differing(row, fields):
            kind = self._new_or(seq, Kind.EDITED)
            self._faults.add(
                station, seq, kind, f"not as in its canonical form: {', '.join(wrong)}"
            )
        elif prev != before[1] and before[0] >= self._last_gap:
            self._unlinked(row, before)
        return before

    def _check_carried(self, row: Row) -> None:
        seq, station, canonical, digest = row[0], row[1], as_bytes(row[6]), as_bytes(row[8])
        self._carried.add(seq)
        if seq not in self._base.carried:
            self._faults.add(station, seq, Kind.INSERTED, "the archive did not leave it here")
        elif (
            hashlib.sha256(canonical).hexdigest() != self._base.carried[seq]
            or digest.decode(errors="replace") != self._base.carried[seq]
            or differing(row, fields_of(canonical))
        ):
            self._faults.add(station, seq, Kind.EDITED, "not as the archive left it")

    def _gap(self, row: Row) -> None:
        seq, station, missing = row[0], row[1], self._expected
        self._last_gap = seq - 1
        if self._faults.full:
            return
        if missing > self._newest:
            fields = fields_of(row[6])
            foreign = fields.get("ledger", self._ledger) != self._ledger
            kind = Kind.FOREIGN if foreign else Kind.INSERTED
            self._faults.add(station, seq, kind, "after the recorded end of all chains")
        elif self._written_as(missing):
            self._faults.add(station, missing, Kind.REORDERED, "it lies under another number")
        else:
            count = seq - missing
            what = "it is missing" if count == 1 else f"it and {count - 1} more are missing"
            self._faults.add(station, missing, Kind.DELETED, what)

    def _misplaced(self, row: Row, written: Any) -> None:
        """Its columns say another number than its canonical form."""
        seq, station, digest = row[0], row[1], row[8]
        if self._faults.full:
            return
        problem = f"written as event {written}"
        if isinstance(written, int) and written < seq and self._written_as(written, at=written):
            if self._goes_on(digest):
                self._faults.add(station, written, Kind.INSERTED, "another event stood here")
            else:
                self._faults.add(station, seq, Kind.INSERTED, f"a copy of event {written}")
        elif seq > self._newest:
            self._faults.add(station, seq, Kind.INSERTED, problem)
        elif self._written_as(seq) or (isinstance(written, int) and written < seq):
            self._faults.add(station, seq, Kind.REORDERED, problem)
        else:
            self._faults.add(station, seq, Kind.DELETED, f"missing, event {written} took its place")

    def _unlinked(self, row: Row, before: End) -> None:
        """Whole in itself, but it does not follow the event before it."""
        seq, station, prev, digest = row[0], row[1], as_bytes(row[7]), row[8]
        problem = "it does not follow the event before it"
        if self._faults.full:
            return
        if seq > self._newest:
            self._faults.add(station, seq, Kind.INSERTED, "after the recorded end of all chains")
            return
        followed = self._one("SELECT seq, station FROM events WHERE hash = :it", prev.decode())
        if followed is None and prev != START[1]:
            where = before[0] or seq
            self._faults.add(station, where, Kind.EDITED, "the next event follows another content")
        elif followed is None or (followed[0] < seq and as_bytes(followed[1]) == station):
            one = before[0] if self._goes_on(digest) and before[0] else seq
            self._faults.add(station, one, Kind.INSERTED, "two events follow the same one")
        else:
            self._faults.add(station, seq, Kind.REORDERED, problem)

    def _check_ends(self) -> None:
        for name in sorted(self._last.keys() | self._recorded.keys()):
            found, wanted = self._last.get(name, START), self._recorded.get(name)
            if found == wanted:
                continue
            if wanted is None:
                kind = Kind.INSERTED if found[0] > self._newest else Kind.DELETED
                self._faults.add(name, None, kind, "the chain's end is not recorded")
            elif found[0] < wanted[0]:
                if found[0] >= self._last_gap:  # else it is told already what is missing
                    told = (
                        f"recorded were {wanted[2]} events up to {wanted[0]}, {found[2]} are left"
                    )
                    self._faults.add(name, self._expected, Kind.TRUNCATED, told)
            elif found[0] > wanted[0]:
                self._faults.add(
                    name, self._after(name, wanted[0]), Kind.INSERTED, "after the recorded end"
                )
            elif found[1] != wanted[1]:
                self._faults.add(name, found[0], Kind.EDITED, "not the recorded end of its chain")
            elif found[0] >= self._last_gap:
                told = f"{wanted[2]} events were recorded, {found[2]} are there"
                self._faults.add(name, None, Kind.DELETED, told)

    def _after(self, station: bytes, seq: int) -> int:
        query = text("SELECT min(seq) FROM events WHERE station = :station AND seq > :seq")
        found = self._connection.scalar(query, {"station": station.decode(), "seq": seq})
        return int(found or seq + 1)

    # --- looking around -------------------------------------------------------------------------

    def _new_or(self, seq: int, kind: Kind) -> Kind:
        return Kind.INSERTED if seq > self._newest else kind

    def _quote(self, *names: Any) -> None:
        for name in names:
            if isinstance(name, bytes) and name not in self._quoted:
                self._quoted[name] = rfc8785.dumps(name.decode(errors="replace"))

    def _written_as(self, seq: int, at: int | None = None) -> bool:
        """Whether an event (or the one at number `at`) was written as number `seq`."""
        if at is not None:
            found = self._one("SELECT canonical FROM events WHERE seq = :it", at)
            return found is not None and fields_of(found[0]).get("seq") == seq
        rows = self._connection.execute(
            text("SELECT canonical FROM events WHERE canonical LIKE :it AND seq <> :seq"),
            {"it": f'%,"seq":{seq},"station":%', "seq": seq},
        ).fetchall()
        return any(fields_of(canonical).get("seq") == seq for (canonical,) in rows)

    def _goes_on(self, digest: Any) -> bool:
        """Whether an event follows the one of that hash, or a chain ends with it."""
        it = as_bytes(digest).decode(errors="replace")
        return (
            self._one("SELECT seq FROM events WHERE prev_hash = :it", it) is not None
            or self._one("SELECT seq FROM chains WHERE hash = :it", it) is not None
        )

    def _one(self, query: str, it: Any) -> Any:
        return self._connection.execute(text(query), {"it": it}).first()
