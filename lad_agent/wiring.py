"""How store and reasoner are opened, where pauses lie, and what is seen to beside inspecting:
decided reviews are applied, and promises watched."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from lad_agent import outbox, reasoners
from lad_agent.errors import Conflict, LadAgentError, NotFound, PrerequisiteError
from lad_agent.graphs.checkpoints import PauseSaver
from lad_agent.graphs.runner import resume
from lad_agent.reasoners import Reasoner
from lad_agent.settings import Settings
from lad_agent.store import AsyncStore, AuditStore, ReviewFilter, Signing, open_store, promises

WATCH_EVERY_S = 60.0
"""How often the promises are held against what the store shows."""


def open_audit(chosen: Settings, *, create: bool = True) -> AuditStore:
    """The audit store of the settings; it signs its heads where they name a key.

    From now on it tells the sinks that the settings name.
    """
    audit = open_store(chosen.store, create=create, signing=signing(chosen))
    try:
        outbox.subscribe(audit, chosen)
    except BaseException:
        audit.close()
        raise
    return audit


def open_reasoner(chosen: Settings) -> Reasoner:
    """The reasoner of the settings, with room for all that is in flight.

    Raises:
        UsageError, PrerequisiteError: as `lad_agent.reasoners.open_reasoner`.
    """
    return reasoners.open_reasoner(
        chosen.reasoner,
        device=chosen.device,
        adapter=chosen.adapter,
        max_batch=chosen.max_batch,
        queue=max(256, chosen.in_flight),
    )


@asynccontextmanager
async def reasoner_open(chosen: Settings) -> AsyncIterator[Reasoner]:
    """`open_reasoner`, closed at the end."""
    reasoner = open_reasoner(chosen)
    try:
        yield reasoner
    finally:
        await reasoner.aclose()


def signing(chosen: Settings) -> Signing | None:
    """How heads are signed by these settings; None where they name no key.

    Raises:
        PrerequisiteError: the key cannot be used.
    """
    if chosen.signing_key is None:
        return None
    from lad_agent.store.signing import load_key

    return Signing(
        key=load_key(chosen.signing_key),
        station=chosen.station,
        actor=chosen.by,
        every_events=chosen.head_every_events,
        every_minutes=chosen.head_every_minutes,
        export_to=chosen.heads_file,
    )


def needed_signing(chosen: Settings) -> Signing:
    """How heads and certificates are signed by these settings.

    Raises:
        PrerequisiteError: they name no key, or one that cannot be used.
    """
    found = signing(chosen)
    if found is None:
        raise PrerequisiteError(
            "no signing key; make one with lad-agent audit keygen FILE, then --signing-key FILE"
        )
    return found


def pauses_file(audit: AuditStore) -> Path:
    """The checkpoints beside the store."""
    return audit.file.with_name(audit.file.name + ".pauses")


async def settle(audit: AuditStore, store: AsyncStore, saver: PauseSaver) -> None:
    """Finish every inspection whose review is decided, whoever was stopped before it was."""
    for review in await asyncio.to_thread(audit.reviews, ReviewFilter(applied=False)):
        # Archived or taken back since it was listed: nothing is left to do, or not yet.
        with suppress(NotFound, Conflict):
            await resume(review.inspected.id, store=store, checkpointer=saver)


async def watch_promises(audit: AuditStore, chosen: Settings, told: Callable[[str], None]) -> None:
    """Raise the alarms that are due; `told` hears of each, and of a store that fails."""
    try:
        for alarm in await asyncio.to_thread(promises.check, audit, chosen.station, chosen.by):
            told(f"alarm: {alarm}; lad-agent doctor")
    except LadAgentError as error:
        told(f"the promises could not be watched: {error}")


@asynccontextmanager
async def promises_watched(
    audit: AuditStore, chosen: Settings, told: Callable[[str], None]
) -> AsyncIterator[None]:
    """`watch_promises` now and then meanwhile, and at the end."""

    async def keep_watching() -> None:
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            await watch_promises(audit, chosen, told)

    watching = asyncio.create_task(keep_watching())
    try:
        yield
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    await watch_promises(audit, chosen, told)


async def forget_pauses(audit: AuditStore, saver: PauseSaver) -> int:
    """Drop the pauses of parts that wait for no person any more; returns how many."""
    waiting = {review.inspected.id for review in audit.reviews(ReviewFilter(decided=False))}
    waiting |= {review.inspected.id for review in audit.reviews(ReviewFilter(applied=False))}
    threads = {one.config["configurable"]["thread_id"] async for one in saver.alist(None)}
    for thread in threads - waiting:
        await saver.adelete_thread(thread)
    return len(threads - waiting)
