"""Pauses on disk, when all ends at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

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
        left.cancel()
        saver.lock.release()
        with pytest.raises(asyncio.CancelledError):
            await left

    asyncio.run(cancelled())
