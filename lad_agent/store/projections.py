"""From events to tables: what each event changes. The only place that writes the projections."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, update

from lad_agent.judgement import Finding, Result
from lad_agent.store import ledger
from lad_agent.store.ledger import Entry
from lad_agent.store.models import (
    PROJECTIONS,
    Inspection,
    JudgementRow,
    ModelRow,
    RecipeRow,
    ReviewRow,
)

RECIPE_SEEN = "recipe.seen"
MODEL_SEEN = "model.seen"
OPENED = "inspection.opened"
JUDGED = "inspection.judged"
RECORDED = "inspection.recorded"
CLOSED = "inspection.closed"
REVIEW_OPENED = "review.opened"
REVIEW_DECIDED = "review.decided"


def apply(connection: Connection, entry: Entry) -> None:
    """Write what `entry` changes."""
    _APPLY[entry.type](connection, entry, entry.payload)


def rebuild(connection: Connection) -> int:
    """Empty the projections and fill them again from the events; returns how many there were."""
    for table in reversed(PROJECTIONS):
        connection.execute(delete(table))
    count = 0
    for entry in ledger.entries(connection):
        apply(connection, entry)
        count += 1
    return count


def final_result(finding: str) -> Result:
    """The result that a person's finding makes final, whatever the disposition."""
    return Result.OK if finding == Finding.CONFORMING else Result.NOT_OK


def _recipe_seen(connection: Connection, entry: Entry, payload: Any) -> None:
    connection.execute(insert(RecipeRow), {**payload, "first_at": entry.at})


def _model_seen(connection: Connection, entry: Entry, payload: Any) -> None:
    connection.execute(insert(ModelRow), {**payload, "first_at": entry.at})


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
    connection.execute(update(ReviewRow).where(ReviewRow.id == review_id).values(**changed))
    _change(connection, entry, final=final_result(payload["finding"]))


def _closed(connection: Connection, entry: Entry, payload: Any) -> None:
    _change(connection, entry, closed_at=entry.at)


def _change(connection: Connection, entry: Entry, **values: Any) -> None:
    connection.execute(_UPDATE_INSPECTION, {"which": entry.inspection_id, **values})


_UPDATE_INSPECTION = update(Inspection).where(Inspection.id == bindparam("which"))

_APPLY: dict[str, Callable[[Connection, Entry, Any], None]] = {
    RECIPE_SEEN: _recipe_seen,
    MODEL_SEEN: _model_seen,
    OPENED: _opened,
    JUDGED: _judged,
    RECORDED: _recorded,
    CLOSED: _closed,
    REVIEW_OPENED: _review_opened,
    REVIEW_DECIDED: _review_decided,
}
