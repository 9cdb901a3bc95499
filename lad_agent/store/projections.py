"""From events to tables: what each event changes. The only place that writes the projections.

But for the counts of `lad_agent.store.tallies`, which are made from the other tables.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any

from sqlalchemy import Connection, Insert, Update, bindparam, delete, insert, select, update

from lad_agent.judgement import Finding, Result
from lad_agent.store import ledger, search, tallies
from lad_agent.store.ledger import Entry
from lad_agent.store.models import (
    PROJECTIONS,
    AlarmRow,
    ArchiveRow,
    Base,
    ClaimRow,
    Event,
    HeadRow,
    HoldRow,
    InForce,
    Inspection,
    JudgementRow,
    ModelRow,
    RecipeRow,
    ReviewRow,
    UserRow,
)

RECIPE_SEEN = "recipe.seen"
MODEL_SEEN = "model.seen"
SOFTWARE_SEEN = "software.seen"
OPENED = "inspection.opened"
JUDGED = "inspection.judged"
RECORDED = "inspection.recorded"
CLOSED = "inspection.closed"
REVIEW_OPENED = "review.opened"
REVIEW_CLAIMED = "review.claimed"
REVIEW_RELEASED = "review.released"
REVIEW_DECIDED = "review.decided"
REVIEW_UNDONE = "review.undone"
RECIPE_CHANGED = "recipe.changed"
THRESHOLD_CHANGED = "threshold.changed"
MODEL_CHANGED = "model.changed"
HOLD_ON = "hold.on"
HOLD_RELEASED = "hold.released"
ALARM_RAISED = "alarm.raised"
ALARM_ANSWERED = "alarm.answered"
USER_CHANGED = "user.changed"
EXPORTED = "exported"
ACCESS_CHANGED = "access.changed"
HEAD_SIGNED = "head.signed"
ARCHIVED = "archived"

LASTING = (
    RECIPE_SEEN,
    MODEL_SEEN,
    SOFTWARE_SEEN,
    RECIPE_CHANGED,
    THRESHOLD_CHANGED,
    MODEL_CHANGED,
    HOLD_ON,
    HOLD_RELEASED,
    ALARM_RAISED,
    ALARM_ANSWERED,
    USER_CHANGED,
)
"""Events of no inspection that tables of today follow from: an archive leaves them in place."""

COUNTED = (OPENED, RECORDED, REVIEW_DECIDED, REVIEW_UNDONE)
"""Events that change what an inspection is counted as (`lad_agent.store.tallies`)."""

BATCH = 5000
"""So many events are in memory at once while tables are rebuilt."""


def apply(connection: Connection, entry: Entry) -> None:
    """Write what `entry` changes."""
    _apply(connection, [entry])
    if entry.type == JUDGED:
        search.add(connection, entry.seq, entry.payload["rationale"])


def rebuild(connection: Connection, told: Callable[[int], None] | None = None) -> int:
    """Empty the projections and fill them again from the events; returns how many there were.

    All in the connection's transaction: until its commit everyone sees the tables as they were.
    `told` hears how many events are done, every `BATCH`.
    """
    for table in reversed(PROJECTIONS):
        connection.execute(delete(table))
    count = 0
    for batch in _batches(ledger.entries(connection)):
        for _, alike in groupby(sorted(batch, key=_turn), key=_form):
            _apply(connection, list(alike))
        count += len(batch)
        if told is not None:
            told(count)
    search.fill(connection)
    tallies.fill(connection)
    return count


def digests(connection: Connection) -> dict[str, str]:
    """SHA-256 of every projection's rows, by table; "unreadable" where one cannot be read."""
    return {table.__tablename__: _digest(connection, table) for table in PROJECTIONS}


def forget(connection: Connection) -> None:
    """Drop the rows whose events an archive has taken away."""
    left = select(Event.inspection_id).where(Event.inspection_id.is_not(None))
    old = select(Inspection.id).where(Inspection.id.not_in(left))
    old_reviews = select(ReviewRow.id).where(ReviewRow.inspection_id.in_(old))
    connection.execute(delete(ClaimRow).where(ClaimRow.review_id.in_(old_reviews)))
    for table in (ReviewRow, JudgementRow):
        connection.execute(delete(table).where(table.inspection_id.in_(old)))
    connection.execute(delete(Inspection).where(Inspection.id.not_in(left)))
    for column in (HeadRow.seq, ArchiveRow.seq):
        connection.execute(delete(column.class_).where(column.not_in(select(Event.seq))))
    tallies.fill(connection)


def final_result(finding: str) -> Result:
    """The result that a person's finding makes final, whatever the disposition."""
    return Result.OK if finding == Finding.CONFORMING else Result.NOT_OK


def _digest(connection: Connection, table: type[Base]) -> str:
    digest = hashlib.sha256()
    rows = select(table.__table__).order_by(*table.__table__.primary_key)
    try:
        for row in connection.execute(rows.execution_options(yield_per=1000)):
            digest.update(ledger.canonical_bytes(list(row)))
    except (ValueError, TypeError):
        return "unreadable"
    return digest.hexdigest()


def _batches(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    while batch := list(islice(entries, BATCH)):
        yield batch


def _turn(entry: Entry) -> int:
    return _FIRST.get(entry.type, len(_FIRST))


def _form(entry: Entry) -> tuple[str, ...]:
    """Rows of one form can share a statement: older versions wrote fewer fields."""
    return (entry.type, *entry.payload)


def _apply(connection: Connection, alike: Sequence[Entry]) -> None:
    """Write what events of one form change, in their order."""
    type = alike[0].type
    if type in _ROWS:
        statement, row = _ROWS[type]
        connection.execute(statement, [row(entry, entry.payload) for entry in alike])
        return
    for entry in alike:
        _APPLY[type](connection, entry, entry.payload)


# --- events that write or change one row ----------------------------------------------------------

_Row = dict[str, Any]


def _seen(entry: Entry, payload: Any) -> _Row:
    return {**payload, "first_at": entry.at}


def _opened(entry: Entry, payload: Any) -> _Row:
    return {
        **payload,
        "id": entry.inspection_id,
        "station": entry.station,
        "actor": entry.actor,
        "opened_at": entry.at,
        "audit": False,
    }


def _judged(entry: Entry, payload: Any) -> _Row:
    return {**payload, "inspection_id": entry.inspection_id, "at": entry.at}


def _recorded(entry: Entry, payload: Any) -> _Row:
    decided = payload["result"] != Result.NOT_DECIDABLE
    return {
        **payload,
        "which": entry.inspection_id,
        "recorded_at": entry.at,
        "final": payload["result"] if decided else None,
        "closed_at": entry.at if decided else None,
    }


def _closed(entry: Entry, payload: Any) -> _Row:
    return {"which": entry.inspection_id, "closed_at": entry.at}


def _review_opened(entry: Entry, payload: Any) -> _Row:
    return {**payload, "inspection_id": entry.inspection_id, "opened_at": entry.at}


def _hold_on(entry: Entry, payload: Any) -> _Row:
    return {**payload, "on_at": entry.at, "on_by": entry.actor}


def _hold_released(entry: Entry, payload: Any) -> _Row:
    return {"which": payload["id"], "released_at": entry.at, "released_by": entry.actor}


def _alarm_raised(entry: Entry, payload: Any) -> _Row:
    # Older versions did not say which recipe version.
    return {"recipe_version": None, **payload, "raised_at": entry.at}


def _alarm_answered(entry: Entry, payload: Any) -> _Row:
    return {"which": payload["id"], "answered_at": entry.at, "answered_by": entry.actor}


def _head_signed(entry: Entry, payload: Any) -> _Row:
    through = payload["head"]["through"]
    key = payload["public_key"]
    return {"seq": entry.seq, "at": entry.at, "through": through, "public_key": key}


def _archived(entry: Entry, payload: Any) -> _Row:
    sealed = {name: payload["sealed"][name] for name in ("through", "file")}
    return {**sealed, "seq": entry.seq, "at": entry.at}


# --- events that change more ----------------------------------------------------------------------


def _nothing(connection: Connection, entry: Entry, payload: Any) -> None:
    """The event itself is all that is asked for."""


def _review_decided(connection: Connection, entry: Entry, payload: Any) -> None:
    changed = {**payload, "decided_at": entry.at, "decided_by": entry.actor}
    review_id = changed.pop("id")
    changed.pop("meaning", None)  # follows from the review's kind
    changed["agrees"] = _agrees(connection, entry.inspection_id, payload["finding"])
    connection.execute(update(ReviewRow).where(ReviewRow.id == review_id).values(**changed))
    connection.execute(delete(ClaimRow).where(ClaimRow.review_id == review_id))
    _change(connection, entry, final=final_result(payload["finding"]))


def _review_undone(connection: Connection, entry: Entry, payload: Any) -> None:
    which = ReviewRow.id == payload["id"]
    connection.execute(update(ReviewRow).where(which).values(dict.fromkeys(_DECISION)))
    if connection.scalar(select(ReviewRow.kind).where(which)) == "audit":
        audited = update(Inspection).where(Inspection.id == entry.inspection_id)
        connection.execute(audited.values(final=Inspection.result))
    else:
        _change(connection, entry, final=None, closed_at=None)


def _review_claimed(connection: Connection, entry: Entry, payload: Any) -> None:
    _review_released(connection, entry, payload)
    claim = {"review_id": payload["id"], "until": payload["until"]}
    connection.execute(insert(ClaimRow), {**claim, "at": entry.at, "by": entry.actor})


def _review_released(connection: Connection, entry: Entry, payload: Any) -> None:
    connection.execute(delete(ClaimRow).where(ClaimRow.review_id == payload["id"]))


def _put_in_force(connection: Connection, entry: Entry, payload: Any) -> None:
    which = {
        "station": entry.station,
        "product": payload["product"],
        "what": "model" if entry.type == MODEL_CHANGED else "recipe",
    }
    connection.execute(delete(InForce).filter_by(**which))
    connection.execute(
        insert(InForce),
        {**which, "value": payload["value"], "since": entry.at, "by": entry.actor},
    )


def _user_changed(connection: Connection, entry: Entry, payload: Any) -> None:
    connection.execute(delete(UserRow).where(UserRow.name == payload["name"]))
    connection.execute(
        insert(UserRow), {**payload, "changed_at": entry.at, "changed_by": entry.actor}
    )


def _change(connection: Connection, entry: Entry, **values: Any) -> None:
    connection.execute(_UPDATE_INSPECTION, {"which": entry.inspection_id, **values})


def _agrees(connection: Connection, inspection_id: str | None, finding: str) -> int | None:
    said = connection.scalar(_SAID, {"id": inspection_id})
    return None if said is None else int(said == (finding == Finding.NONCONFORMING))


_DECISION = ("decided_at", "decided_by", "finding", "disposition", "rule", "comment", "agrees")
_SAID = select(JudgementRow.anomalous).where(JudgementRow.inspection_id == bindparam("id"))
_UPDATE_INSPECTION = update(Inspection).where(Inspection.id == bindparam("which"))

_FIRST = {
    type: turn
    for turn, type in enumerate((RECIPE_SEEN, MODEL_SEEN, OPENED, JUDGED, RECORDED, REVIEW_OPENED))
}
"""They happen once, in this order and before all else about their inspection: of a batch of events
they can be written first, many with one statement."""

_ROWS: dict[str, tuple[Insert | Update, Callable[[Entry, Any], _Row]]] = {
    RECIPE_SEEN: (insert(RecipeRow), _seen),
    MODEL_SEEN: (insert(ModelRow), _seen),
    OPENED: (insert(Inspection), _opened),
    JUDGED: (insert(JudgementRow), _judged),
    RECORDED: (_UPDATE_INSPECTION, _recorded),
    CLOSED: (_UPDATE_INSPECTION, _closed),
    REVIEW_OPENED: (insert(ReviewRow), _review_opened),
    HOLD_ON: (insert(HoldRow), _hold_on),
    HOLD_RELEASED: (update(HoldRow).where(HoldRow.id == bindparam("which")), _hold_released),
    ALARM_RAISED: (insert(AlarmRow), _alarm_raised),
    ALARM_ANSWERED: (update(AlarmRow).where(AlarmRow.id == bindparam("which")), _alarm_answered),
    HEAD_SIGNED: (insert(HeadRow), _head_signed),
    ARCHIVED: (insert(ArchiveRow), _archived),
}

_APPLY: dict[str, Callable[[Connection, Entry, Any], None]] = {
    SOFTWARE_SEEN: _nothing,  # `lad_agent.store.software`
    REVIEW_CLAIMED: _review_claimed,
    REVIEW_RELEASED: _review_released,
    REVIEW_DECIDED: _review_decided,
    REVIEW_UNDONE: _review_undone,
    RECIPE_CHANGED: _put_in_force,
    THRESHOLD_CHANGED: _put_in_force,
    MODEL_CHANGED: _put_in_force,
    USER_CHANGED: _user_changed,
    EXPORTED: _nothing,  # what left the house changes nothing in it
    ACCESS_CHANGED: _nothing,  # secrets are kept apart from the ledger: `lad_agent.store.access`
}
