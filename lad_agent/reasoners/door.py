"""A door that lets a bounded number in, and nobody once it is closing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lad_agent.errors import ReasonerUnavailable


class Door:
    """At most `limit` are inside, the others wait; `close` waits until all who came have left.

    Bound to the event loop it is first used in.
    """

    def __init__(self, limit: int) -> None:
        self._places = asyncio.Semaphore(limit)
        self._came = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._closed = False

    @property
    def crowded(self) -> bool:
        """Whether every place is taken."""
        return self._places.locked()

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """Wait for a place and hold it.

        Raises:
            ReasonerUnavailable: the door is closed.
        """
        if self._closed:
            raise ReasonerUnavailable("the reasoner is closed; open a new one")
        self._came += 1
        self._empty.clear()
        try:
            async with self._places:
                yield
        finally:
            self._came -= 1
            if not self._came:
                self._empty.set()

    async def close(self) -> None:
        """Let nobody in any more, and wait for those who are in or waiting."""
        self._closed = True
        await self._empty.wait()
