"""Archives: a closed period moves into a sealed file, with its proofs.

An archive is an audit store itself (SQLite, read-only): it can be listed, queried and verified on
its own. The ledger it came from goes on behind a signed event, `archived`, that says where every
chain stood, the file's SHA-256, and which older events stay because something open needs them.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import uuid_utils
from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, insert, or_, select

from lad_agent import atomic
from lad_agent.errors import CheckFailed, StoreError, StoreReadOnly, UsageError
from lad_agent.store import projections, verification
from lad_agent.store.audit_store import AuditStore, open_store
from lad_agent.store.faults import ChainFault, ChainReport, Kind
from lad_agent.store.heads import Head, Signing
from lad_agent.store.ledger import Ledger, canonical_bytes, ends, ledger_id, timestamp
from lad_agent.store.models import ArchiveRow, Chain, Event, Inspection, ReviewRow
from lad_agent.store.operations import Unit
from lad_agent.store.verification import Base


@dataclass(frozen=True)
class Archived:
    """What an archive holds: all events up to `through`, of which `left` stay in the store too."""

    file: Path
    through: int
    events: int
    left: int


def archive(store: AuditStore, before: datetime, file: Path, signing: Signing) -> Archived:
    """Move the events from before a time into the new `file`, and seal it.

    What is not finished stays: inspections that are open, wait for a person or were worked on
    since, and what the recipes, models, holds and users of today follow from. A run that was cut
    off leaves everything in the ledger; the file that it may have made is written anew.

    Raises:
        CheckFailed: the ledger is not intact; nothing was moved.
        UsageError: the file is there already, or there is nothing from before that time.
        StoreReadOnly: no right to remove archived events (an archiver's), or no room for the file.
    """
    with store._connection() as connection:
        _check_name(connection, file)
    report = store.verify_chain(trusted=frozenset({signing.key.public}))
    if not report.intact:
        raise CheckFailed(f"{store.name}: {report.faults[0]}; nothing was archived")
    beside = file.with_name(f".new-{uuid_utils.uuid7()}.db")
    try:
        with store._connection() as connection:
            through = _through(connection, before)
            sealed = _write(connection, beside, through) | {"file": file.name}
        left = _seal(store, through, sealed, signing, beside, file)
    except OSError as error:
        raise StoreReadOnly(f"{file}: cannot be written ({error.strerror}); make room") from error
    finally:
        beside.unlink(missing_ok=True)
    return Archived(file, through, sealed["events"], left)


def verify_with(
    store: AuditStore,
    files: Sequence[Path],
    *,
    exported: Sequence[Head] = (),
    trusted: frozenset[str] = frozenset(),
    told: Callable[[int], None] | None = None,
) -> ChainReport:
    """Check a ledger together with its archives: each whole, and joined end to end.

    Raises:
        UsageError: a file that is none of its archives.
    """
    trusted = trusted or frozenset(head.public_key for head in exported)
    whole = store.verify_chain(exported=exported, trusted=trusted, told=told)
    by_hash = {_sha256(file): file for file in files}
    by_name = {file.name: file for file in files}
    base, sealed = _base(store)
    while sealed is not None and files:
        seal = sealed["sealed"]
        file = by_hash.get(seal["sha256"]) or by_name.get(seal["file"])
        if file is None:
            raise UsageError(f"{seal['file']}: this archive is missing among those given")
        by_hash = {digest: other for digest, other in by_hash.items() if other != file}
        with open_store(file, create=False) as older:
            covered = [head for head in exported if head.through <= seal["through"]]
            part = older.verify_chain(exported=covered, trusted=trusted, told=told)
            faults = [*part.faults]
            with older._connection() as connection:
                if ledger_id(connection) != seal["ledger"]:
                    faults.append(_fault(file, Kind.FOREIGN, "of another ledger"))
                elif ends(connection) != base.ends:
                    faults.append(
                        _fault(file, Kind.EDITED, "its end is not where the ledger goes on")
                    )
            if not faults and _sha256(file) != seal["sha256"]:
                faults.append(_fault(file, Kind.EDITED, "not the file that was sealed"))
            whole = replace(
                whole,
                events=whole.events + part.events,
                stations=tuple(sorted({*whole.stations, *part.stations})),
                faults=(*faults, *whole.faults),
                heads=whole.heads + part.heads,
                unchecked=max(0, whole.unchecked - len(covered)),
            )
            base, sealed = _base(older)
    if by_hash and files:
        stranger = next(iter(by_hash.values()))
        raise UsageError(f"{stranger}: not an archive of {store.name}")
    return whole


def copy_ledger(
    source: Connection, target: Connection, through: int, chains: Mapping[str, Mapping[str, Any]]
) -> int:
    """Copy all events up to `through` into an empty store, and fill its tables from them.

    `chains` is where the chains stand then; returns how many events there are.
    """
    events = select(Event.__table__).where(Event.seq <= through).order_by(Event.seq)
    for rows in source.execute(events.execution_options(yield_per=1000)).mappings().partitions():
        target.execute(insert(Event), [dict(row) for row in rows])
    for station, end in chains.items():
        target.execute(insert(Chain), {"station": station, **end})
    return projections.rebuild(target)


def _through(connection: Connection, before: datetime) -> int:
    """The last event before the first one that is not older than `before`; by number, not time."""
    base, _ = verification.base(connection)
    sealed = connection.scalar(select(func.max(ArchiveRow.seq))) or 0
    young = select(func.min(Event.seq)).where(
        Event.seq > base.through, Event.at >= timestamp(before)
    )
    first_young = connection.scalar(young)
    last = connection.scalar(select(func.max(Event.seq))) or 0
    through = last if first_young is None else first_young - 1
    if through <= max(base.through, sealed):
        raise UsageError(f"nothing to archive from before {timestamp(before)}")
    return int(through)


def _write(connection: Connection, file: Path, through: int) -> dict[str, Any]:
    chains = _ends_at(connection, through)
    with open_store(file) as made:
        with made._connection(writing=True) as target:
            events = copy_ledger(connection, target, through, chains)
        report = made.verify_chain()
        if not report.intact:
            raise CheckFailed(f"{file}: {report.faults[0]}; nothing was archived")
        made.compact()
    file.chmod(0o444)
    return {
        "ledger": ledger_id(connection),
        "through": through,
        "stations": chains,
        "sha256": _sha256(file),
        "events": events,
    }


def _check_name(connection: Connection, file: Path) -> bool:
    """Whether something is to be written over: what a run left that was cut off at the end.

    That is a sealed file of this ledger, all of whose events are here still.

    Raises:
        UsageError: it is anything else.
    """
    if not file.exists():
        return False
    base, _ = verification.base(connection)
    last = None if file.stat().st_mode & 0o222 else _last_event(file)
    if last is not None and last.seq > base.through:
        here = select(Event.hash).where(Event.seq == last.seq)
        if connection.scalar(here) == last.hash:
            return True
    raise UsageError(f"{file}: is there already; give the archive another name")


def _last_event(file: Path) -> Row[int, str] | None:
    query = select(Event.seq, Event.hash).order_by(Event.seq.desc()).limit(1)
    try:
        with open_store(file, create=False) as made, made._connection() as connection:
            return connection.execute(query).one_or_none()
    except StoreError:
        return None


def _seal(
    store: AuditStore,
    through: int,
    sealed: dict[str, Any],
    signing: Signing,
    beside: Path,
    file: Path,
) -> int:
    with store._connection(writing=True) as connection:
        if through <= verification.base(connection)[0].through:
            raise UsageError(f"{store.name}: another archive was made meanwhile; run again")
        over = _check_name(connection, file)
        unit = Unit(connection, Ledger(connection))
        staying = _staying(through)
        kept = select(Event.seq, Event.hash).where(Event.seq <= through, staying)
        carried = {str(row.seq): row.hash for row in connection.execute(kept)}
        content = sealed | {"carried": carried}
        unit.happened(
            projections.ARCHIVED,
            {
                "sealed": content,
                "public_key": signing.key.public,
                "signature": signing.key.sign(canonical_bytes(content)),
            },
            station=signing.station,
            actor=signing.actor,
            inspection_id=None,
        )
        unit.ledger.write()
        connection.execute(
            delete(Event).where(Event.seq <= through, Event.seq.not_in(_seqs(through, staying)))
        )
        projections.forget(connection)
        # The file is there before the events are gone; nobody else makes one while we may write.
        if over:
            beside.replace(file)
        else:
            os.link(beside, file)
        atomic.sync_folder(file.parent)
        return len(carried)


def _staying(through: int) -> ColumnElement[bool]:
    waiting = select(ReviewRow.inspection_id).where(ReviewRow.decided_at.is_(None))
    later = select(Event.inspection_id).where(Event.seq > through, Event.inspection_id.is_not(None))
    unfinished = select(Inspection.id).where(
        or_(Inspection.closed_at.is_(None), Inspection.id.in_(waiting), Inspection.id.in_(later))
    )
    return or_(
        Event.inspection_id.in_(unfinished),
        Event.inspection_id.is_(None) & Event.type.in_(projections.LASTING),
    )


def _seqs(through: int, staying: ColumnElement[bool]) -> Select[int]:
    return select(Event.seq).where(Event.seq <= through, staying)


def _ends_at(connection: Connection, through: int) -> dict[str, dict[str, Any]]:
    """Where the chains stood at event `through`."""
    base, _ = verification.base(connection)
    found: dict[str, dict[str, Any]] = {name: dict(end) for name, end in base.ends.items()}
    query = (
        select(Event.station, func.max(Event.seq).label("seq"), func.count().label("events"))
        .where(Event.seq > base.through, Event.seq <= through)
        .group_by(Event.station)
    )
    for row in connection.execute(query).all():
        before = found.get(row.station, {"events": 0})["events"]
        digest = connection.scalar(select(Event.hash).where(Event.seq == row.seq))
        found[row.station] = {"seq": row.seq, "hash": digest, "events": before + row.events}
    return dict(sorted(found.items()))


def _base(store: AuditStore) -> tuple[Base, Mapping[str, Any] | None]:
    with store._connection() as connection:
        return verification.base(connection)


def _fault(file: Path, kind: Kind, problem: str) -> ChainFault:
    return ChainFault(file.name, None, kind, problem)


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{file}: no archive here ({error.strerror})") from error
