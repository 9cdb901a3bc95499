"""Many inspections in flight: what is done is skipped, what was cut off is finished."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.types import Command

from lad_agent import images
from lad_agent.errors import StoreError
from lad_agent.graphs import state as states
from lad_agent.graphs.inspection import InspectionGraph, build, thread
from lad_agent.graphs.intake import intake
from lad_agent.graphs.ports import Store
from lad_agent.graphs.state import Context
from lad_agent.inputs import Item
from lad_agent.inspection import Intake, Opened, Outcome
from lad_agent.judgement import FAILURES
from lad_agent.reasoners.base import Reasoner
from lad_agent.recipe import Recipe

IN_FLIGHT = 64


@dataclass(frozen=True)
class Order:
    """What holds for every item of a batch. `again` inspects what is done once more."""

    station: str
    actor: str
    lot: str | None = None
    again: bool = False
    in_flight: int = IN_FLIGHT
    max_failures: int | None = None
    max_pixels: int = images.MAX_PIXELS


@dataclass(frozen=True)
class Done:
    """One item's end: `earlier` if a former call recorded it; `detail` says what was wrong."""

    item: Item
    outcome: Outcome
    earlier: bool
    detail: str | None = None


@dataclass(frozen=True)
class Report:
    """What a batch came to. `done` is in the order of the items; `left` were not begun."""

    done: tuple[Done, ...]
    left: int
    stopped: Literal["asked", "failures"] | None = None


async def run_batch(
    items: Sequence[Item],
    order: Order,
    *,
    store: Store,
    reasoner: Reasoner,
    checkpointer: BaseCheckpointSaver[str],
    on_done: Callable[[Done], None] = lambda done: None,
    stop: asyncio.Event | None = None,
) -> Report:
    """Inspect `items`, up to `order.in_flight` at once, each exactly once.

    What the store holds as complete is not judged again; what a killed process left open is run
    under its old id. When `stop` is set, what is in flight is finished and no more begun.

    Raises:
        StoreError: the store failed; what it has recorded stays, the same call goes on from there.
    """
    line = Line(
        store=store,
        reasoner=reasoner,
        checkpointer=checkpointer,
        recipes={item.recipe.recipe_version: item.recipe for item in items},
        max_pixels=order.max_pixels,
    )
    return await _Batch(items, order, line, on_done, stop or asyncio.Event()).run()


async def resume(
    inspection_id: str, *, store: Store, checkpointer: BaseCheckpointSaver[str]
) -> None:
    """Finish an inspection whose review a person has decided in the store.

    The paused thread goes on where this checkpointer holds it; else the decision is applied
    directly. Safe to repeat.
    """
    graph = build(checkpointer)
    config = thread(inspection_id)
    waiting = (await graph.aget_state(config)).interrupts
    if not waiting:
        await store.apply_review(inspection_id)
        return
    answer: Command[str] = Command(resume={pause.id: "decided" for pause in waiting})
    await graph.ainvoke(answer, config, context=Context(store=store), durability="exit")


@dataclass(frozen=True)
class Begun:
    """An item with its row in the store; `complete` when its result is recorded already.

    `first` of those that were begun and not finished: it runs the workflow, the others wait.
    """

    id: str
    item: Item
    image_sha256: str | None
    complete: bool
    first: bool


class Line:
    """Inspects items as they come, many at once, each exactly once, over one compiled graph.

    `recipes`, by recipe version, holds those of all items to come.
    """

    def __init__(
        self,
        *,
        store: Store,
        reasoner: Reasoner,
        checkpointer: BaseCheckpointSaver[str],
        recipes: Mapping[str, Recipe],
        max_pixels: int,
    ) -> None:
        self._graph = build(checkpointer)
        self._context = Context(store, reasoner, recipes, max_pixels)
        self._fingerprint = reasoner.fingerprint
        self._running: dict[str, asyncio.Future[None]] = {}
        self._again: set[str] = set()

    async def begin(self, item: Item, order: Order) -> Begun:
        """Take an item in: from here on nothing is lost. `finish` must follow.

        Raises:
            StoreError: the store failed; nothing was taken in.
        """
        known = await asyncio.to_thread(
            intake,
            item.part_id,
            item.image,
            item.recipe,
            station=order.station,
            model=self._fingerprint,
            actor=order.actor,
            lot=order.lot,
        )
        opened = await self._take_in(known, again=order.again)
        if order.again:
            self._again.add(opened.id)
        first = not opened.complete and opened.id not in self._running
        if first:
            self._running[opened.id] = asyncio.get_running_loop().create_future()
        return Begun(opened.id, item, known.image_sha256, opened.complete, first)

    async def finish(self, begun: Begun) -> Done:
        """Judge what was taken in, and record it; nothing where that is done already.

        Raises:
            StoreError: the store failed; the row stays open, `begin` finds it again.
        """
        detail = None if begun.complete else await self._run_once(begun)
        outcome = await self._context.store.outcome(begun.id)
        if outcome is None:
            raise StoreError(f"inspection {begun.id} was not recorded; run the same command again")
        return Done(begun.item, outcome, earlier=begun.complete, detail=detail)

    async def _take_in(self, known: Intake, *, again: bool) -> Opened:
        store = self._context.store
        opened = await store.take_in(known)
        if not opened.found:
            return opened
        last = await store.last_attempt(known)
        if last > 1:
            opened = await store.take_in(known.model_copy(update={"attempt": last}))
        if again and opened.complete and opened.id not in self._again:
            opened = await store.take_in(known.model_copy(update={"attempt": last + 1}))
        return opened

    async def _run_once(self, begun: Begun) -> str | None:
        """Run the workflow, unless an equal item is running it already."""
        if not begun.first:
            if (other := self._running.get(begun.id)) is not None:
                await asyncio.shield(other)
            return None
        try:
            return await _run_graph(self._graph, self._context, begun)
        finally:
            self._running.pop(begun.id).set_result(None)


@dataclass
class _Batch:
    items: Sequence[Item]
    order: Order
    line: Line
    on_done: Callable[[Done], None]
    stop: asyncio.Event
    ends: dict[int, Done] = field(default_factory=dict)
    failures: int = 0
    stopped: Literal["failures"] | None = None

    async def run(self) -> Report:
        waiting = iter(enumerate(self.items))
        workers = min(self.order.in_flight, len(self.items))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._work(waiting))
        except BaseExceptionGroup as failed:
            raise _first(failed) from None
        done = tuple(self.ends[index] for index in sorted(self.ends))
        left = len(self.items) - len(done)
        return Report(done, left, self.stopped or ("asked" if left else None))

    async def _work(self, waiting: Iterator[tuple[int, Item]]) -> None:
        while not self.stop.is_set():
            index, item = next(waiting, (None, None))
            if index is None or item is None:
                return
            done = await self.line.finish(await self.line.begin(item, self.order))
            self.ends[index] = done
            self.on_done(done)
            self._count(done)

    def _count(self, done: Done) -> None:
        if done.earlier or done.outcome.reason not in FAILURES:
            return
        self.failures += 1
        limit = self.order.max_failures
        if limit is not None and self.failures >= limit:
            self.stopped = "failures"
            self.stop.set()


async def _run_graph(graph: InspectionGraph, context: Context, begun: Begun) -> str | None:
    inspection_id, recipe = begun.id, begun.item.recipe
    start = states.start(
        inspection_id, str(begun.item.image), begun.image_sha256, recipe.recipe_version
    )
    try:
        end = await graph.ainvoke(start, thread(inspection_id), context=context, durability="exit")
    except ValueError:
        # Another process may have recorded the same part meanwhile; its result stands.
        if await context.store.outcome(inspection_id) is None:
            raise
        return None
    except sqlite3.Error as error:
        raise StoreError(
            f"a pause could not be kept ({error}); free the disk and run the same command again"
        ) from error
    finally:
        context.pictures.pop(inspection_id, None)
    detail: str | None = end["detail"]
    return detail


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
