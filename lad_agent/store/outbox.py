"""The outbox: what happened to parts, kept until every sink that is to be told of it has it.

A message is written in the transaction of the event that it tells of, by whichever process that
event is written; who delivers it comes later (`lad_agent.outbox`). Messages of one part wait for
each other, those of different parts do not.

These tables are no projections: whether a message arrived is no fact of the ledger.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import uuid_utils
from sqlalchemy import (
    ColumnElement,
    ForeignKey,
    Index,
    RowMapping,
    Select,
    UniqueConstraint,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Mapped, Session, aliased, mapped_column

from lad_agent import payload
from lad_agent.errors import NotFound
from lad_agent.store import projections, queries
from lad_agent.store.ledger import Entry, now, timestamp
from lad_agent.store.models import Base, Verbatim

if TYPE_CHECKING:
    from lad_agent.store.operations import Unit

TOLD = (projections.RECORDED, projections.REVIEW_DECIDED, projections.REVIEW_UNDONE)
"""The events that sinks are told of."""

KEPT_DAYS = 7
"""How long a delivered message can still be looked up."""

NEVER = "9999-12-31T23:59:59.999999Z"
"""`not_before` of a message that is given up: there is no other attempt, unless a person asks."""

LATE_S = 3600.0
"""How long results may wait for a sink before somebody should look after it."""


class SinkRow(Base):
    """Somebody who is told. Only its `holder` delivers, `until` its lease ends.

    `failures` counts attempts in a row that found it away; until `not_before` it is left alone.
    """

    __tablename__ = "sinks"

    name: Mapped[str] = mapped_column(primary_key=True)
    target: Mapped[str]
    since: Mapped[str]
    failures: Mapped[int]
    not_before: Mapped[str | None]
    error: Mapped[str | None]
    holder: Mapped[str | None]
    until: Mapped[str | None]


class OutboxRow(Base):
    """A message to one sink about event `seq`; `body` is what is sent, the same at every attempt.

    `failures` counts the attempts that were refused; until `not_before` there is no other (NEVER:
    it is given up).
    """

    __tablename__ = "outbox"
    __table_args__ = (UniqueConstraint("sink", "seq"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    sink: Mapped[str] = mapped_column(ForeignKey(SinkRow.name))
    seq: Mapped[int]
    part_id: Mapped[str]
    inspection_id: Mapped[str]
    type: Mapped[str]
    at: Mapped[str]
    body: Mapped[str]
    failures: Mapped[int]
    not_before: Mapped[str | None]
    error: Mapped[str | None]
    delivered_at: Mapped[str | None] = mapped_column(index=True)


_WAITS = OutboxRow.delivered_at.is_(None)
for _name, _columns in (
    ("ix_outbox_waiting", (OutboxRow.sink, OutboxRow.seq)),
    ("ix_outbox_waiting_part", (OutboxRow.sink, OutboxRow.part_id, OutboxRow.seq)),
):
    Index(_name, *_columns, sqlite_where=_WAITS, postgresql_where=_WAITS)
_GIVEN_UP = OutboxRow.not_before == NEVER
_NOT_GIVEN_UP = OutboxRow.not_before.is_distinct_from(NEVER)


@dataclass(frozen=True)
class Message:
    """What is to be told, or was told `delivered_at`; `body` is JSON (see `lad_agent.payload`)."""

    id: str
    sink: str
    seq: int
    part_id: str
    inspection_id: str
    type: str
    at: str
    body: str
    failures: int
    not_before: str | None
    error: str | None
    delivered_at: str | None

    @property
    def given_up(self) -> bool:
        """Whether it was refused so often that it is tried no more."""
        return self.delivered_at is None and self.not_before == NEVER


@dataclass(frozen=True)
class SinkState:
    """How a sink stands: `waiting` messages, the oldest of `oldest`; `error` while it is away.

    `given_up` more will not be tried again by themselves.
    """

    name: str
    target: str
    since: str
    waiting: int
    oldest: str | None
    given_up: int
    failures: int
    not_before: str | None
    error: str | None

    def waits_s(self, moment: datetime) -> float:
        """How long the oldest message has waited, in seconds; 0 where none does."""
        if self.oldest is None:
            return 0.0
        return max(0.0, (moment - datetime.fromisoformat(self.oldest)).total_seconds())

    def needs_somebody(self, moment: datetime) -> bool:
        """Whether results do not arrive, and will not without a person."""
        return self.given_up > 0 or self.waits_s(moment) > LATE_S


# --- what is to be told ---------------------------------------------------------------------------


def subscribe(unit: "Unit", name: str, target: str) -> bool:
    """From now on the sink is told; false where it is already, at that target."""
    sink = unit.connection.execute(_SINK, {"name": name}).one_or_none()
    if sink is None:
        row = {"name": name, "target": target, "since": now(), "failures": 0}
        unit.connection.execute(insert(SinkRow), row)
        unit.sinks = None
        return True
    if sink.target != target:
        moved = {"target": target, "failures": 0, "not_before": None, "error": None}
        unit.connection.execute(update(SinkRow).where(SinkRow.name == name).values(moved))
        return True
    return False


def unsubscribe(unit: "Unit", name: str) -> None:
    """The sink is told nothing more; what waits for it is given up.

    Raises:
        NotFound: no such sink.
    """
    if unit.connection.execute(_SINK, {"name": name}).one_or_none() is None:
        raise NotFound(f"no sink {name!r}; lad-agent outbox list shows them")
    unit.connection.execute(delete(OutboxRow).where(OutboxRow.sink == name))
    unit.connection.execute(delete(SinkRow).where(SinkRow.name == name))
    unit.sinks = None


def add(unit: "Unit", entry: Entry) -> None:
    """Write the messages of an event that has just been applied, if any sink is to be told."""
    if entry.type not in TOLD or entry.inspection_id is None:
        return
    if unit.sinks is None:
        unit.sinks = tuple(unit.connection.scalars(_NAMES))
    if not unit.sinks:
        return
    with Session(unit.connection) as session:
        found = queries.inspection(session, entry.inspection_id)
    if found is None or found.outcome is None or found.recorded_at is None:
        raise NotFound(f"inspection {entry.inspection_id} is told of before it is recorded")
    body = payload.body(
        entry.type,
        entry.seq,
        entry.at,
        found.outcome,
        opened_at=found.opened_at,
        recorded_at=found.recorded_at,
        detail=found.detail,
        review=None if entry.type == projections.RECORDED else _review(entry),
    )
    row = {
        "seq": entry.seq,
        "part_id": found.intake.part_id,
        "inspection_id": found.id,
        "type": entry.type,
        "at": entry.at,
        "body": body,
        "failures": 0,
    }
    rows = [{"id": f"msg_{uuid_utils.uuid7()}", "sink": sink, **row} for sink in unit.sinks]
    unit.connection.execute(insert(OutboxRow), rows)


# --- who delivers ---------------------------------------------------------------------------------


def is_due(session: Session, sink: str) -> bool:
    """Whether there is a message that may be delivered now, by whoever has the sink's lease."""
    return bool(session.connection().execute(_DUE.limit(1), _moment(sink)).first())


def claim(unit: "Unit", sink: str, holder: str, lease_s: float, limit: int) -> list[Message]:
    """Take the sink for `lease_s` seconds; up to `limit` messages, each of another part.

    None where somebody else has it, it is to be left alone, or nothing is due.
    """
    moment = now()
    free = or_(SinkRow.holder.is_(None), SinkRow.holder == holder, SinkRow.until <= moment)
    taken = unit.connection.execute(
        update(SinkRow).where(SinkRow.name == sink, free).values(holder=holder, until=_in(lease_s))
    )
    if taken.rowcount != 1:
        return []
    return _messages(unit.connection.execute(_DUE.limit(limit), _moment(sink)).mappings())


def release(unit: "Unit", sink: str, holder: str) -> None:
    """Let others deliver; nothing where another has the sink by now."""
    mine = update(SinkRow).where(SinkRow.name == sink, SinkRow.holder == holder)
    unit.connection.execute(mine.values(holder=None, until=None))


def delivered(unit: "Unit", ids: Sequence[str]) -> None:
    """These have arrived; what arrived long ago is forgotten."""
    old = timestamp(datetime.now(UTC) - timedelta(days=KEPT_DAYS))
    unit.connection.execute(delete(OutboxRow).where(OutboxRow.delivered_at < old))
    arrived = {"delivered_at": now(), "not_before": None, "error": None}
    unit.connection.execute(update(OutboxRow).where(OutboxRow.id.in_(ids)).values(arrived))


def refused(unit: "Unit", message_id: str, error: str, wait_s: float | None) -> None:
    """The sink would not have this one; it and those after it of the part wait `wait_s` seconds.

    None: it is given up, and those after it go on.
    """
    not_before = NEVER if wait_s is None else _in(wait_s)
    values = {"failures": OutboxRow.failures + 1, "error": error, "not_before": not_before}
    unit.connection.execute(update(OutboxRow).where(OutboxRow.id == message_id).values(values))


def away(unit: "Unit", sink: str, error: str, failures: int, wait_s: float) -> None:
    """The sink could not be told anything, `failures` times in a row; it is left alone for now."""
    values = {"failures": failures, "error": error, "not_before": _in(wait_s)}
    unit.connection.execute(update(SinkRow).where(SinkRow.name == sink).values(values))


def reached(unit: "Unit", sink: str) -> None:
    """The sink answers."""
    values = {"failures": 0, "error": None, "not_before": None}
    unit.connection.execute(update(SinkRow).where(SinkRow.name == sink).values(values))


def failures(unit: "Unit", sink: str) -> int:
    """How often in a row the sink was found away."""
    return unit.connection.scalar(select(SinkRow.failures).where(SinkRow.name == sink)) or 0


# --- what people ask ------------------------------------------------------------------------------


def sinks(session: Session) -> list[SinkState]:
    """All sinks by name."""
    query = (
        select(
            SinkRow,
            func.count(OutboxRow.id).filter(_NOT_GIVEN_UP),
            func.min(OutboxRow.at).filter(_NOT_GIVEN_UP),
            func.count(OutboxRow.id).filter(_GIVEN_UP),
        )
        .outerjoin(OutboxRow, (OutboxRow.sink == SinkRow.name) & _WAITS)
        .group_by(SinkRow.name)
        .order_by(SinkRow.name)
    )
    return [
        SinkState(
            name=row.name,
            target=row.target,
            since=row.since,
            waiting=waiting,
            oldest=oldest,
            given_up=given_up,
            failures=row.failures,
            not_before=row.not_before,
            error=row.error,
        )
        for row, waiting, oldest, given_up in session.execute(query)
    ]


def messages(session: Session, *, everything: bool, limit: int) -> list[Message]:
    """What waits or was given up, the oldest first; `everything`: what was delivered too, the
    newest first."""
    query = select(OutboxRow.__table__).limit(limit)
    if everything:
        query = query.order_by(OutboxRow.seq.desc())
    else:
        query = query.where(_WAITS).order_by(OutboxRow.seq)
    return _messages(session.connection().execute(query).mappings())


def retry(unit: "Unit", ids: Sequence[str] = (), *, given_up: bool = False) -> int:
    """Make these messages due now, or all that wait; with `given_up` those too; returns how many.

    Raises:
        NotFound: one of them does not wait.
    """
    wanted: list[ColumnElement[bool]] = [_WAITS]
    if ids:
        wanted.append(OutboxRow.id.in_(ids))
    if not ids and not given_up:
        wanted.append(_NOT_GIVEN_UP)
    if ids:
        found = set(unit.connection.scalars(select(OutboxRow.id).where(*wanted)))
        if missing := sorted(set(ids) - found):
            raise NotFound(f"no message {missing[0]!r} waits; lad-agent outbox list shows them")
    put_off = OutboxRow.not_before.is_not(None)
    unit.connection.execute(update(OutboxRow).where(*wanted, put_off).values(not_before=None))
    unit.connection.execute(update(SinkRow).values(not_before=None))
    return unit.connection.scalar(select(func.count(OutboxRow.id)).where(*wanted)) or 0


def _review(entry: Entry) -> dict[str, object]:
    said = {name: value for name, value in entry.payload.items() if name != "id"}
    return {"id": entry.payload["id"], "by": entry.actor, "at": entry.at, **said}


def _in(seconds: float) -> str:
    return timestamp(datetime.now(UTC) + timedelta(seconds=seconds))


def _moment(sink: str) -> dict[str, str]:
    return {"sink": sink, "moment": now()}


def _messages(rows: Iterable[RowMapping]) -> list[Message]:
    return [Message(**row) for row in rows]


def _due() -> Select[Any]:
    """Of each part the message before all others that wait, if it may be tried now."""
    earlier = aliased(OutboxRow)
    moment = bindparam("moment", type_=Verbatim)
    blocked = exists().where(
        earlier.sink == OutboxRow.sink,
        earlier.part_id == OutboxRow.part_id,
        earlier.delivered_at.is_(None),
        earlier.not_before.is_distinct_from(NEVER),
        earlier.seq < OutboxRow.seq,
    )
    return (
        select(OutboxRow.__table__)
        .join(SinkRow, SinkRow.name == OutboxRow.sink)
        .where(
            OutboxRow.sink == bindparam("sink", type_=Verbatim),
            _WAITS,
            or_(OutboxRow.not_before.is_(None), OutboxRow.not_before <= moment),
            or_(SinkRow.not_before.is_(None), SinkRow.not_before <= moment),
            ~blocked,
        )
        .order_by(OutboxRow.seq)
    )


_SINK = select(SinkRow.__table__).where(SinkRow.name == bindparam("name"))
_NAMES = select(SinkRow.name).order_by(SinkRow.name)
_DUE = _due()
