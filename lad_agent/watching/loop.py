"""The loop of a hot folder: whole files are kept, inspected, recorded, then moved."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from watchfiles import awatch

from lad_agent.errors import LadAgentError
from lad_agent.graphs.runner import Done, Line, Order
from lad_agent.reasoners.base import Reasoner
from lad_agent.recipe import Recipe
from lad_agent.store import AsyncStore, AuditStore, queries
from lad_agent.watching.folder import REVIEW, Arrival, HotFolder

log = logging.getLogger(__name__)

RESCAN_S = 5.0
"""The folder is looked through at least this often: shares on a network tell of no changes."""
DECIDED_S = 5.0
"""How soon a file leaves `review/` once its part is decided."""
RETRY_S = 5.0
"""How long a file is left alone that could not be kept, recorded or moved."""
REPEAT_S = 600.0
"""How soon the same fault is told of again."""


@dataclass(frozen=True)
class Moved:
    """A file's end: it is recorded, and lies at `to` now; None where it was gone or changed."""

    done: Done
    to: Path | None


async def run(
    hot: HotFolder,
    order: Order,
    *,
    audit: AuditStore,
    store: AsyncStore,
    reasoner: Reasoner,
    checkpointer: BaseCheckpointSaver[str],
    on_moved: Callable[[Moved], None],
    say: Callable[[str], None],
    stop: asyncio.Event,
) -> None:
    """Inspect what lies in the folder and what comes, up to `order.in_flight` at once.

    When `stop` is set, what is in flight is finished and no more begun. A file leaves the folder
    only after its inspection is recorded: what a kill cuts off is found there again, and goes on
    under its old id. What a person has decided, by whatever process, leaves `review/`. A store that
    fails is told of by `say` and tried again.
    """
    recipes: dict[str, Recipe] = {}
    line = Line(
        store=store,
        reasoner=reasoner,
        checkpointer=checkpointer,
        recipes=recipes,
        max_pixels=order.max_pixels,
    )
    changed = asyncio.Event()
    watching = asyncio.create_task(_tell_changes(hot.root, changed, stop))
    tasks: dict[Path, asyncio.Task[None]] = {}
    say = _once(say)

    async def work(arrival: Arrival) -> None:
        path = arrival.item.image
        try:
            content = await asyncio.to_thread(hot.read, arrival)
            if content is None:
                return
            kept = await asyncio.to_thread(audit.keep_content, content, path.suffix)
            item = replace(arrival.item, image=kept)
            done = await line.finish(await line.begin(item, order))
            to = await asyncio.to_thread(hot.move, arrival, done.outcome)
        except OSError as error:
            say(f"{path}: {error.strerror}; it stays where it is, and is tried again")
        except LadAgentError as error:
            say(f"{error}; {path} is tried again")
        except Exception:
            log.exception("%s is tried again", path)
        else:
            on_moved(Moved(done, to))
            return
        hot.put_off(path, time.monotonic() + RETRY_S)

    async with asyncio.TaskGroup() as group:
        group.create_task(_keep_filing(hot, audit, say, stop))
        while not stop.is_set():
            changed.clear()
            arrivals, faults = await asyncio.to_thread(
                hot.arrivals, time.monotonic(), busy=set(tasks), limit=order.in_flight - len(tasks)
            )
            for fault in faults:
                say(fault)
            for arrival in arrivals:
                recipes[arrival.item.recipe.recipe_version] = arrival.item.recipe
                _start(group, tasks, arrival.item.image, work(arrival), changed)
            with suppress(TimeoutError):
                timeout_s = hot.settle_s / 2 if hot.is_settling else RESCAN_S
                await asyncio.wait_for(changed.wait(), timeout_s)
    await watching


@contextmanager
def until_told(stop: asyncio.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop`; the second one ends the process, as safe as being killed."""
    loop = asyncio.get_running_loop()

    def told(_signal: int, _frame: object) -> None:
        if stop.is_set():
            os._exit(130)
        loop.call_soon_threadsafe(stop.set)

    before = {one: signal.signal(one, told) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


async def _keep_filing(
    hot: HotFolder, audit: AuditStore, say: Callable[[str], None], stop: asyncio.Event
) -> None:
    """Move what has been decided out of `review/`, now and then."""
    while not stop.is_set():
        try:
            for path in await asyncio.to_thread(_file_decided, hot, audit):
                say(f"{path}: decided by a person")
        except OSError as error:
            say(f"{error.filename}: {error.strerror}; it stays where it is, and is tried again")
        except LadAgentError as error:
            say(f"{error}; what lies in {REVIEW}/ is looked at again")
        except Exception:
            log.exception("what lies in %s/ is looked at again", REVIEW)
        await _wait(stop, DECIDED_S)


def _file_decided(hot: HotFolder, audit: AuditStore) -> list[Path]:
    """Move the files whose parts have their final results; where they lie now."""
    waiting = hot.waiting()
    if not waiting:
        return []
    hashes = {one.image_sha256 for one in waiting}
    final = audit.ask(lambda session: queries.all_final(session, hashes))
    moved = []
    for one in waiting:
        parts = [
            final[which] for name in one.part_ids if (which := (name, one.image_sha256)) in final
        ]
        if parts and all(parts):
            moved.append(hot.move_decided(one))
    return [path for path in moved if path is not None]


def _start(
    group: asyncio.TaskGroup,
    tasks: dict[Path, asyncio.Task[None]],
    path: Path,
    work: Coroutine[Any, Any, None],
    changed: asyncio.Event,
) -> None:
    def ended(_task: asyncio.Task[None]) -> None:
        del tasks[path]
        changed.set()

    tasks[path] = group.create_task(work)
    tasks[path].add_done_callback(ended)


async def _tell_changes(root: Path, changed: asyncio.Event, stop: asyncio.Event) -> None:
    """Set `changed` whenever something happens below `root`, and at the end."""
    while not stop.is_set():
        # A folder that is gone, or too many watches: then the folder is looked through by time.
        with suppress(OSError, RuntimeError):
            async for _ in awatch(root, stop_event=stop, watch_filter=None, debounce=200):
                changed.set()
        await _wait(stop, RESCAN_S)
    changed.set()


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


def _once(say: Callable[[str], None]) -> Callable[[str], None]:
    """`say`, but the same text only every `REPEAT_S` seconds."""
    said: dict[str, float] = {}

    def saying(text: str) -> None:
        now = time.monotonic()
        for old in [one for one, at in said.items() if now - at >= REPEAT_S]:
            del said[old]
        if text not in said:
            said[text] = now
            say(text)

    return saying
