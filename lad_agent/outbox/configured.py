"""The sinks that the settings name, and the tasks that deliver to them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from lad_agent.errors import UsageError
from lad_agent.outbox.delivery import Pace, keep_delivering
from lad_agent.outbox.sink import Sink
from lad_agent.settings import Settings
from lad_agent.store import AuditStore, operations, outbox
from lad_agent.store.operations import Unit

STOP_AFTER_S = 5.0
"""How long a round under way may take at the end; what is cut off is delivered again."""


def sinks(chosen: Settings) -> list[Sink]:
    """The sinks that the settings name; each is its caller's to close.

    Raises:
        UsageError: one of them cannot be used as it is set.
    """
    if chosen.webhook_url is None:
        return []
    # 0.1 s to import, and most commands tell nobody anything.
    from lad_agent.outbox.webhook import Webhook

    if chosen.webhook_secret is None:
        raise UsageError(
            "setting webhook_url: needs webhook_secret beside it; openssl rand -base64 32 makes one"
        )
    return [Webhook(chosen.webhook_url, chosen.webhook_secret.get_secret_value())]


def pace(chosen: Settings) -> Pace:
    """How the settings want messages to be delivered."""
    return Pace(tries=chosen.outbox_tries)


def subscribe(audit: AuditStore, chosen: Settings) -> None:
    """From now on the settings' sinks are told of every result, whoever records it in this store.

    That, and where to, is an event of the ledger.

    Raises:
        UsageError: one of them cannot be used as it is set.
        StoreError: the store failed.
    """
    if not (found := sinks(chosen)):
        return
    known = {state.name: state.target for state in audit.ask(outbox.sinks)}

    def step(unit: Unit) -> None:
        for sink in found:
            if outbox.subscribe(unit, sink.name, sink.target):
                what = {"what": "results", "sink": sink.name, "target": sink.target, "on": True}
                operations.exported(unit, chosen.station, chosen.by, what)

    if any(known.get(sink.name) != sink.target for sink in found):
        audit.transact([step])


@asynccontextmanager
async def delivering(
    audit: AuditStore, chosen: Settings, at: Pace | None = None
) -> AsyncIterator[None]:
    """While this lasts, messages go to the sinks of the settings, all that wait at once.

    `at` is how, the settings' `pace` unless it is given.

    Raises:
        UsageError: one of them cannot be used as it is set.
        StoreError: the store failed.
    """
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        tasks = []
        found = sinks(chosen)
        if found:
            await asyncio.to_thread(audit.transact, [outbox.retry])
        for sink in found:
            stack.push_async_callback(sink.aclose)
            tasks.append(
                asyncio.create_task(keep_delivering(audit, sink, stop, at or pace(chosen)))
            )
        try:
            yield
        finally:
            stop.set()
            await _end(tasks)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=STOP_AFTER_S)
    for task in late:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
