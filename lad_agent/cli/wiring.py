"""Where a store's pauses lie, and how decided reviews are brought to their end."""

from pathlib import Path

from lad_agent.graphs.checkpoints import PauseSaver
from lad_agent.graphs.runner import resume
from lad_agent.store import AsyncStore, AuditStore, ReviewFilter


def pauses_file(audit: AuditStore) -> Path:
    """The checkpoints beside the store."""
    return audit.file.with_name(audit.file.name + ".pauses")


async def settle(audit: AuditStore, store: AsyncStore, saver: PauseSaver) -> None:
    """Finish every inspection whose review is decided, whoever was stopped before it was."""
    for review in audit.reviews(ReviewFilter(applied=False)):
        await resume(review.inspected.id, store=store, checkpointer=saver)
