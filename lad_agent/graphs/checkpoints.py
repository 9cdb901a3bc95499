"""Pauses on disk: a SQLite checkpointer that keeps a thread only while it waits for a review."""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiosqlite
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from lad_agent.errors import StoreError

WAITING = "branch:to:await_review"


class PauseSaver(AsyncSqliteSaver):
    """Saves the checkpoint of a thread that waits for a review and forgets it once it goes on.

    What ran to its end is in the store, and what was cut off runs again from its start; so
    nothing else is worth a commit. Use it with `durability="exit"`.
    """

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Save a waiting thread; drop any other."""
        if WAITING in checkpoint["channel_values"]:
            async with self._whole():
                return await super().aput(config, checkpoint, metadata, new_versions)
        configurable = config["configurable"]
        if configurable.get("checkpoint_id"):
            await self.adelete_thread(configurable["thread_id"])
        return config

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Save what a waiting thread asked."""
        async with self._whole():
            await super().aput_writes(config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """Forget a thread."""
        async with self._whole():
            await super().adelete_thread(thread_id)

    @asynccontextmanager
    async def _whole(self) -> AsyncIterator[None]:
        # What is cancelled between its statement and its commit would go on locking the file.
        try:
            yield
        except BaseException:
            await self.roll_back()
            raise

    async def roll_back(self) -> None:
        """End the transaction that is open, if one is: what was cut off locks the file no more."""
        async with self.lock:
            with suppress(ValueError):  # closed already
                await self.conn.rollback()


@asynccontextmanager
async def pauses(path: Path) -> AsyncIterator[PauseSaver]:
    """Open the checkpoints at `path`; nothing but plain values is ever read back.

    Raises:
        StoreError: the file cannot be used; it may be deleted, reviews are decided without it.
    """
    try:
        async with aiosqlite.connect(path) as connection:
            saver = PauseSaver(connection, serde=JsonPlusSerializer(allowed_msgpack_modules=[]))
            await saver.setup()
            try:
                yield saver
            finally:
                # A cursor that some traceback holds keeps the transaction of a closed connection.
                await saver.roll_back()
    except sqlite3.Error as error:
        # A full disk can end in SQLite's "disk I/O error", which says less.
        failed = getattr(error, "sqlite_errorname", "").startswith("SQLITE_IOERR")
        why = "the disk failed to read or write" if failed else error
        raise StoreError(
            f"{path}: the pauses cannot be kept ({why}); free the disk, or move the file away: "
            "it only holds what can be rebuilt"
        ) from error
