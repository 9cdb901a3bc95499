"""Accepts parts up to a bound, judges them, and brings decided reviews to their end."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from lad_agent import images
from lad_agent.errors import LadAgentError, UnreadableInput
from lad_agent.graphs.checkpoints import PauseSaver, pauses
from lad_agent.graphs.runner import Begun, Done, Line, Order
from lad_agent.inputs import Item
from lad_agent.inspection import Intake, Outcome
from lad_agent.judgement import Decision, Reason, Result
from lad_agent.reasoners.base import Reasoner
from lad_agent.recipe import Recipe
from lad_agent.service.metrics import Metrics
from lad_agent.service.problems import Problem
from lad_agent.settings import Settings
from lad_agent.software import versions
from lad_agent.store import AsyncStore, AuditStore, access
from lad_agent.store.software import see
from lad_agent.wiring import pauses_file, settle

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1
SETTLE_EVERY_S = 1.0
"""How soon a decision that was taken elsewhere (a page, the command line) is applied here."""
CHANGED = "image, recipe or model was changed before the part was judged"
STOP_AFTER_S = 30.0
"""How long what is in flight may take at the end; what is not done then stays open."""


class Inspecting:
    """The inspecting half of the service; `running` wraps its life.

    From `accept` on a part is in the store: what a stop or a kill cuts off is finished by the next
    service at this station.
    """

    def __init__(
        self,
        audit: AuditStore,
        recipes: Mapping[str, Recipe],
        reasoner: Reasoner,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._audit, self._recipes, self._reasoner = audit, recipes, reasoner
        self._settings, self._metrics = settings, metrics
        self._order = Order(
            station=settings.station, actor=settings.by, max_pixels=settings.max_pixels
        )
        self._taken = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._line: Line | None = None
        self.closing = asyncio.Event()
        """Set when the service stops; streams end then, and nothing more is accepted."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open what inspecting needs, finish what was cut off before, and close in order."""
        async with AsyncStore(self._audit) as store, pauses(pauses_file(self._audit)) as saver:
            self._store = store
            station, by = self._settings.station, self._settings.by
            await store.run(lambda unit: see(unit, station, by, versions()))
            self._turns = asyncio.Semaphore(self._settings.in_flight)
            self._line = Line(
                store=store,
                reasoner=self._reasoner,
                checkpointer=saver,
                recipes={one.recipe_version: one for one in self._recipes.values()},
                max_pixels=self._settings.max_pixels,
            )
            settling = asyncio.create_task(self._keep_settling(store, saver))
            try:
                await self._take_up(store)
                yield
            finally:
                self.close()
                await self._drain()
                settling.cancel()
                with suppress(asyncio.CancelledError):
                    await settling
                self._line = None
                await self._reasoner.aclose()

    @property
    def ready(self) -> bool:
        """Whether parts are accepted now."""
        return self._line is not None and not self.closing.is_set()

    def close(self) -> None:
        """Accept nothing more, and end the streams; safe in a signal handler."""
        self.closing.set()

    def check_room(self) -> None:
        """Refuse what there is no place for.

        Raises:
            Problem: 429 where the queue is full, 503 where the service stops.
        """
        if not self.ready:
            raise Problem(
                503,
                "stopping",
                "the service is starting or stopping; send this one again",
                headers={"Retry-After": "5"},
            )
        if self._taken >= self._settings.queue:
            self._metrics.refused.inc()
            raise Problem(
                429,
                "queue-full",
                f"{self._taken} parts are under way; send this one again in {RETRY_AFTER_S} s",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )

    def reserve(self) -> "Place":
        """Take a place in the queue, before the part is even read.

        Raises:
            Problem: as `check_room`.
        """
        self.check_room()
        return Place(self)

    async def accept(self, place: "Place", item: Item, *, by: str, lot: str | None) -> str:
        """Take a part in and begin to judge it; returns the inspection's id.

        `place` is given back when the part is recorded.

        Raises:
            StoreError: nothing was taken in.
        """
        assert self._line is not None
        begun = await self._line.begin(item, replace(self._order, actor=by, lot=lot))
        self._start(begun, place.hand_on())
        return begun.id

    async def remember(self, key: str, fingerprint: str, inspection_id: str) -> None:
        """Note that a request was accepted; returns after the commit.

        Raises:
            Conflict: one of the same key and another body was accepted meanwhile.
        """
        station = self._settings.station
        await self._store.run(
            lambda unit: access.accept(unit, key, fingerprint, inspection_id, station)
        )

    def count(self, change: int) -> None:
        """Count places taken, or given back."""
        self._taken += change
        self._metrics.queue.set(self._taken)

    async def wait(self, inspection_id: str, seconds: float) -> Outcome | None:
        """The outcome, waited for up to `seconds`; None where it is not there by then."""
        if (task := self._tasks.get(inspection_id)) is not None and seconds > 0:
            await asyncio.wait({task}, timeout=seconds)
        return await asyncio.to_thread(self._audit.outcome, inspection_id)

    def _start(self, begun: Begun, place: "Place") -> None:
        task = asyncio.create_task(self._finish(begun, place))
        self._tasks[begun.id] = task
        task.add_done_callback(lambda done: self._forget(begun.id, done))

    def _forget(self, inspection_id: str, done: asyncio.Task[None]) -> None:
        if self._tasks.get(inspection_id) is done:
            del self._tasks[inspection_id]

    async def _finish(self, begun: Begun, place: "Place") -> None:
        assert self._line is not None
        began = time.monotonic()
        try:
            async with self._turns:
                done: Done = await self._line.finish(begun)
            self._metrics.done(done, time.monotonic() - began)
        except LadAgentError as error:
            log.error("inspection %s stays open: %s", begun.id, error)
        except Exception:
            log.exception("inspection %s stays open", begun.id)
        finally:
            place.give_back()

    async def _take_up(self, store: AsyncStore) -> None:
        """Go on with what an earlier service at this station accepted and did not record."""
        station = self._settings.station
        ids = await asyncio.to_thread(
            self._audit.ask, lambda session: access.unfinished(session, station)
        )
        for inspection_id in ids:
            intake = self._audit.inspection(inspection_id).intake
            recipe = self._recipes.get(intake.product)
            if recipe is None or not await asyncio.to_thread(self._is_as_taken_in, intake, recipe):
                lost = Decision(Result.NOT_DECIDABLE, Reason.REASONER_FAILED, detail=CHANGED)
                await store.escalate(inspection_id, lost, None)
                continue
            assert self._line is not None
            item = Item(intake.part_id, Path(intake.image), recipe)
            order = replace(self._order, actor=intake.actor, lot=intake.lot)
            self._start(await self._line.begin(item, order), Place(self))

    def _is_as_taken_in(self, intake: Intake, recipe: Recipe) -> bool:
        """Whether judging now gives what was asked for then."""
        try:
            sha256 = images.file_sha256(Path(intake.image))
        except UnreadableInput:
            sha256 = None
        then = (intake.image_sha256, intake.recipe_version, intake.model)
        return then == (sha256, recipe.recipe_version, self._reasoner.fingerprint)

    async def _keep_settling(self, store: AsyncStore, saver: PauseSaver) -> None:
        while True:
            try:
                await settle(self._audit, store, saver)
            except LadAgentError as error:
                log.error("decided reviews wait to be applied: %s", error)
            except Exception:
                log.exception("decided reviews wait to be applied")
            await asyncio.sleep(SETTLE_EVERY_S)

    async def _drain(self) -> None:
        tasks = set(self._tasks.values())
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=STOP_AFTER_S)
        for task in late:
            task.cancel()
        if late:
            await asyncio.gather(*late, return_exceptions=True)
            log.warning("%d parts are left open; the next start goes on with them", len(late))


class Place:
    """A place in the queue: given back at the end of `with`, unless it was handed on before."""

    def __init__(self, inspecting: Inspecting) -> None:
        self._inspecting: Inspecting | None = inspecting
        self._handed_on = False
        inspecting.count(1)

    def hand_on(self) -> "Place":
        """From now on somebody else gives it back."""
        self._handed_on = True
        return self

    def give_back(self) -> None:
        """Make room; nothing the second time."""
        if self._inspecting is not None:
            self._inspecting.count(-1)
            self._inspecting = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if not self._handed_on:
            self.give_back()
