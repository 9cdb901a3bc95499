"""From events to tables: what each event changes. The only place that writes the projections.

But for the counts of `lad_agent.store.tallies`, which are made from the other tables.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

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


def apply(connection: Connection, entry: Entry) -> None:
    """Write what `entry` changes."""
    _APPLY[entry.type](connection, entry, entry.payload)


def rebuild(connection: Connection) -> int:
    """Empty the projections and fill them again from the events; returns how many there were."""
    for table in reversed(PROJECTIONS):
        connection.execute(delete(table))
    search.clear(connection)
    count = 0
    for entry in ledger.entries(connection):
        apply(connection, entry)
        count += 1
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


def _recipe_seen(connection: Connection, entry: Entry, payload: Any) -> None:
    connection.execute(insert(RecipeRow), {**payload, "first_at": entry.at})


def _model_seen(connection: Connection, entry: Entry, payload: Any) -> None:
    connection.execute(insert(ModelRow), {**payload, "first_at": entry.at})


def _software_seen(connection: Connection, entry: Entry, payload: Any) -> None:
    """Asked for so rarely that the event itself answers (`lad_agent.store.software`)."""


def _opened(connection: Connection, entry: Entry, payload: Any) -> None:
    connection.execute(
        insert(Inspection),
        {
            **payload,
            "id": entry.inspection_id,
            "station": entry.station,
            "actor": entry.actor,
            "opened_at": entry.at,
            "audit": False,
        },
    )


def _judged(connection: Connection, entry: Entry, payload: Any) -> None:
    connection.execute(
        insert(JudgementRow), {**payload, "inspection_id": entry.inspection_id, "at": entry.at}
    )
    search.add(connection, entry.seq, payload["rationale"])


def _recorded(connection: Connection, entry: Entry, payload: Any) -> None:
    decided = payload["result"] != Result.NOT_DECIDABLE
    _change(
        connection,
        entry,
        **payload,
        recorded_at=entry.at,
        final=payload["result"] if decided else None,
        closed_at=entry.at if decided else None,
    )


def _review_opened(connection: Connection, entry: Entry, payload: Any) -> None:
    connection.execute(
        insert(ReviewRow), {**payload, "inspection_id": entry.inspection_id, "opened_at": entry.at}
    )


def _review_decided(connection: Connection, entry: Entry, payload: Any) -> None:
    changed = {**payload, "decided_at": entry.at, "decided_by": entry.actor}
    review_id = changed.pop("id")
    changed.pop("meaning", None)  # follows from the review's kind
    connection.execute(update(ReviewRow).where(ReviewRow.id == review_id).values(**changed))
    connection.execute(delete(ClaimRow).where(ClaimRow.review_id == review_id))
    _change(connection, entry, final=final_result(payload["finding"]))


def _review_undone(connection: Connection, entry: Entry, payload: Any) -> None:
    which = ReviewRow.id == payload["id"]
    undecided = ("decided_at", "decided_by", "finding", "disposition", "rule", "comment")
    connection.execute(update(ReviewRow).where(which).values(dict.fromkeys(undecided)))
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


def _hold_on(connection: Connection, entry: Entry, payload: Any) -> None:
    connection.execute(insert(HoldRow), {**payload, "on_at": entry.at, "on_by": entry.actor})


def _hold_released(connection: Connection, entry: Entry, payload: Any) -> None:
    released = {"released_at": entry.at, "released_by": entry.actor}
    connection.execute(update(HoldRow).where(HoldRow.id == payload["id"]).values(released))


def _alarm_raised(connection: Connection, entry: Entry, payload: Any) -> None:
    connection.execute(insert(AlarmRow), {**payload, "raised_at": entry.at})


def _alarm_answered(connection: Connection, entry: Entry, payload: Any) -> None:
    answered = {"answered_at": entry.at, "answered_by": entry.actor}
    connection.execute(update(AlarmRow).where(AlarmRow.id == payload["id"]).values(answered))


def _user_changed(connection: Connection, entry: Entry, payload: Any) -> None:
    connection.execute(delete(UserRow).where(UserRow.name == payload["name"]))
    connection.execute(
        insert(UserRow), {**payload, "changed_at": entry.at, "changed_by": entry.actor}
    )


def _head_signed(connection: Connection, entry: Entry, payload: Any) -> None:
    head = {"through": payload["head"]["through"], "public_key": payload["public_key"]}
    connection.execute(insert(HeadRow), {**head, "seq": entry.seq, "at": entry.at})


def _archived(connection: Connection, entry: Entry, payload: Any) -> None:
    sealed = {name: payload["sealed"][name] for name in ("through", "file")}
    connection.execute(insert(ArchiveRow), {**sealed, "seq": entry.seq, "at": entry.at})


def _exported(connection: Connection, entry: Entry, payload: Any) -> None:
    """What left the house changes nothing in it."""


def _access_changed(connection: Connection, entry: Entry, payload: Any) -> None:
    """Passwords and tokens are secrets, kept apart from the ledger (`lad_agent.store.access`)."""


def _closed(connection: Connection, entry: Entry, payload: Any) -> None:
    _change(connection, entry, closed_at=entry.at)


def _change(connection: Connection, entry: Entry, **values: Any) -> None:
    connection.execute(_UPDATE_INSPECTION, {"which": entry.inspection_id, **values})


_UPDATE_INSPECTION = update(Inspection).where(Inspection.id == bindparam("which"))

_APPLY: dict[str, Callable[[Connection, Entry, Any], None]] = {
    RECIPE_SEEN: _recipe_seen,
    MODEL_SEEN: _model_seen,
    SOFTWARE_SEEN: _software_seen,
    OPENED: _opened,
    JUDGED: _judged,
    RECORDED: _recorded,
    CLOSED: _closed,
    REVIEW_OPENED: _review_opened,
    REVIEW_CLAIMED: _review_claimed,
    REVIEW_RELEASED: _review_released,
    REVIEW_DECIDED: _review_decided,
    REVIEW_UNDONE: _review_undone,
    RECIPE_CHANGED: _put_in_force,
    THRESHOLD_CHANGED: _put_in_force,
    MODEL_CHANGED: _put_in_force,
    HOLD_ON: _hold_on,
    HOLD_RELEASED: _hold_released,
    ALARM_RAISED: _alarm_raised,
    ALARM_ANSWERED: _alarm_answered,
    USER_CHANGED: _user_changed,
    EXPORTED: _exported,
    ACCESS_CHANGED: _access_changed,
    HEAD_SIGNED: _head_signed,
    ARCHIVED: _archived,
}
