"""How a store is opened, where its pauses lie, and how decided reviews come to their end."""

import asyncio
from pathlib import Path

from lad_agent.graphs.checkpoints import PauseSaver
from lad_agent.graphs.runner import resume
from lad_agent.settings import Settings
from lad_agent.store import AsyncStore, AuditStore, ReviewFilter, Signing, open_store


def open_audit(chosen: Settings, *, create: bool = True) -> AuditStore:
    """The audit store of the settings; it signs its heads where they name a key."""
    return open_store(chosen.store, create=create, signing=signing(chosen))


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


def pauses_file(audit: AuditStore) -> Path:
    """The checkpoints beside the store."""
    return audit.file.with_name(audit.file.name + ".pauses")


async def settle(audit: AuditStore, store: AsyncStore, saver: PauseSaver) -> None:
    """Finish every inspection whose review is decided, whoever was stopped before it was."""
    for review in await asyncio.to_thread(audit.reviews, ReviewFilter(applied=False)):
        await resume(review.inspected.id, store=store, checkpointer=saver)


async def forget_pauses(audit: AuditStore, saver: PauseSaver) -> int:
    """Drop the pauses of parts that wait for no person any more; returns how many."""
    waiting = {review.inspected.id for review in audit.reviews(ReviewFilter(decided=False))}
    waiting |= {review.inspected.id for review in audit.reviews(ReviewFilter(applied=False))}
    threads = {one.config["configurable"]["thread_id"] async for one in saver.alist(None)}
    for thread in threads - waiting:
        await saver.adelete_thread(thread)
    return len(threads - waiting)
