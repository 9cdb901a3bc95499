"""What happens, as it happens: the ledger followed from an event on.

Because the ledger is followed and no message of this process, results of other processes on the
same store are told too, and a client that was away goes on exactly where it left.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from itertools import islice

from fastapi.sse import ServerSentEvent
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lad_agent.store import AuditStore, Entry, ledger, projections, queries
from lad_agent.store.models import Event

EVERY_S = 0.5
AT_ONCE = 100
_NAMES = {
    projections.RECORDED: "result",
    projections.REVIEW_DECIDED: "review",
    projections.REVIEW_UNDONE: "undone",
}


async def follow(
    store: AuditStore, since: int | None, closing: asyncio.Event
) -> AsyncIterator[ServerSentEvent]:
    """Every result, decision and undoing after event `since` (None: from now on), until `closing`.

    The data are the inspection's fields of `results.jsonl` as they stand now.
    """
    seen = since if since is not None else await asyncio.to_thread(store.ask, _last)
    yield ServerSentEvent(comment="following")
    while not closing.is_set():
        found = await asyncio.to_thread(store.ask, partial(_after, since=seen))
        for entry, data in found:
            seen = entry.seq
            yield ServerSentEvent(event=_NAMES[entry.type], id=str(entry.seq), raw_data=data)
        if len(found) < AT_ONCE:
            await _wait(closing)


def _last(session: Session) -> int:
    return session.scalar(select(func.max(Event.seq))) or 0


def _after(session: Session, since: int) -> list[tuple[Entry, str]]:
    terms = (Event.seq > since, Event.type.in_(_NAMES))
    found = list(islice(ledger.entries(session.connection(), *terms), AT_ONCE))
    return [(entry, _data(session, entry)) for entry in found]


def _data(session: Session, entry: Entry) -> str:
    inspected = queries.inspection(session, entry.inspection_id or "")
    outcome = inspected.outcome if inspected else None
    return outcome.model_dump_json() if outcome else json.dumps({"id": entry.inspection_id})


async def _wait(closing: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(closing.wait(), EVERY_S)
    except TimeoutError:
        return
