"""Pauses on disk, when all ends at once."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import aiosqlite
import pytest

from lad_agent.graphs.checkpoints import pauses


def test_what_is_cancelled_when_the_pauses_are_closed_ends_without_a_word(tmp_path: Path) -> None:
    """As when the store's disk is full: asyncio cancels what is left after all is closed, and would
    print the traceback of anything but a cancellation."""

    async def cancelled() -> None:
        async with pauses(tmp_path / "pauses") as saver:
            await saver.lock.acquire()
            left = asyncio.create_task(saver.aput_writes({"configurable": {}}, [("a", 1)], "task"))
            await asyncio.sleep(0)
            await saver.conn.close()
            left.cancel()
            saver.lock.release()
            with pytest.raises(asyncio.CancelledError):
                await left

    asyncio.run(cancelled())


def test_pauses_that_are_closed_lock_nothing(tmp_path: Path) -> None:
    """SQLite keeps a closed connection, and its transaction, as long as there is a cursor of a
    statement that was cut off: a traceback is enough."""

    async def cut_off() -> aiosqlite.Cursor:
        async with pauses(tmp_path / "pauses") as saver:
            row = ("t", "", "c", "task", "", 0, "channel", "type", b"")
            await saver.conn.execute(f"INSERT INTO writes VALUES ({', '.join('?' * 9)})", row)
            await saver.conn.commit()
            return await saver.conn.execute("DELETE FROM writes RETURNING *")

    kept = asyncio.run(cut_off())
    with closing(sqlite3.connect(tmp_path / "pauses", timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert other.execute("SELECT count(*) FROM writes").fetchone() == (1,)
    del kept
