"""The audit store for asyncio: one thread writes, and commits what has gathered together."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Self, TypeVar, cast

from lad_agent.errors import StoreCorrupt, StoreError, StoreLocked, StoreReadOnly
from lad_agent.inspection import Intake, Opened, Outcome, ReviewDecision
from lad_agent.judgement import Decision, Judgement
from lad_agent.store import holds, operations
from lad_agent.store.audit_store import AuditStore, Operation
from lad_agent.store.operations import Unit

T = TypeVar("T")

GROUP = 256
"""Most steps in one commit."""


class AsyncStore:
    """Implements the workflow's `Store`: a step's result is there only after its commit returned.

    Steps that arrive while a commit is under way share the next one. A step that fails fails
    alone. Raises `StoreError` as `AuditStore` does; `aclose` writes what is still waiting, and
    leaves the `AuditStore` open to its owner.
    """

    def __init__(self, store: AuditStore) -> None:
        self._store = store
        self._waiting: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Write what is waiting and end the thread; later steps raise `StoreError`."""
        with self._lock:
            self._closed = True
            thread = self._thread
            if thread is not None:
                self._waiting.put(None)
        if thread is not None:
            await asyncio.to_thread(thread.join)

    async def take_in(self, intake: Intake) -> Opened:
        """See `operations.take_in`."""
        return await self._write(lambda unit: operations.take_in(unit, intake))

    async def record(
        self, inspection_id: str, decision: Decision, judgement: Judgement | None
    ) -> None:
        """Keep a copy of the image where it will be audited, then see `operations.record`."""
        copy = None
        if decision.audit:
            copy = await asyncio.to_thread(self._store.keep_image, inspection_id)
        await self._write(
            lambda unit: operations.record(unit, inspection_id, decision, judgement, copy)
        )

    async def escalate(
        self, inspection_id: str, decision: Decision, judgement: Judgement | None
    ) -> str:
        """Keep a copy of the image, then see `operations.escalate`."""
        copy = await asyncio.to_thread(self._store.keep_image, inspection_id)
        return await self._write(
            lambda unit: operations.escalate(unit, inspection_id, decision, judgement, copy)
        )

    async def decide_review(self, review_id: str, decision: ReviewDecision) -> None:
        """See `operations.decide_review`."""
        await self._write(lambda unit: operations.decide_review(unit, review_id, decision))

    async def apply_review(self, inspection_id: str) -> None:
        """See `operations.apply_review`."""
        await self._write(lambda unit: operations.apply_review(unit, inspection_id))

    async def review_decision(self, inspection_id: str) -> ReviewDecision | None:
        """See `AuditStore.review_decision`."""
        return await asyncio.to_thread(self._store.review_decision, inspection_id)

    async def outcome(self, inspection_id: str) -> Outcome | None:
        """See `AuditStore.outcome`."""
        return await asyncio.to_thread(self._store.outcome, inspection_id)

    async def hold(self, product: str) -> str | None:
        """See `holds.why_held`."""
        return await asyncio.to_thread(
            self._store.ask, lambda session: holds.why_held(session, product)
        )

    async def last_attempt(self, intake: Intake) -> int:
        """See `AuditStore.last_attempt`."""
        return await asyncio.to_thread(self._store.last_attempt, intake)

    async def run(self, step: Callable[[Unit], T]) -> T:
        """Run a step of one's own with the next commit; returns what it returned."""
        return await self._write(step)

    async def _write(self, step: Callable[[Unit], T]) -> T:
        job = _Job(step)
        with self._lock:
            if self._closed:
                raise StoreError(f"{self._store.name}: the store was closed")
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="lad-agent-store", daemon=True
                )
                self._thread.start()
            self._waiting.put(job)
        return cast("T", await asyncio.wrap_future(job.done))

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            jobs, last = self._gathered(job)
            self._commit([job for job in jobs if job.done.set_running_or_notify_cancel()])
            if last:
                return

    def _gathered(self, first: "_Job") -> tuple[list["_Job"], bool]:
        jobs = [first]
        while len(jobs) < GROUP:
            try:
                job = self._waiting.get_nowait()
            except Empty:
                break
            if job is None:
                return jobs, True
            jobs.append(job)
        return jobs, False

    def _commit(self, jobs: list["_Job"]) -> None:
        try:
            results = self._store.transact([job.step for job in jobs])
        except (StoreCorrupt, StoreLocked, StoreReadOnly) as error:
            # The database failed, not a step: no use in trying each alone.
            for job in jobs:
                job.done.set_exception(_own(error))
        except BaseException as error:
            if len(jobs) == 1:
                jobs[0].done.set_exception(error)
                return
            for job in jobs:
                self._commit([job])
        else:
            for job, result in zip(jobs, results, strict=True):
                job.done.set_result(result)


@dataclass(frozen=True)
class _Job:
    step: Operation
    done: "Future[Any]" = field(default_factory=Future)


def _own(error: StoreError) -> StoreError:
    """A copy, for each waiter raises its own."""
    copy = type(error)(*error.args)
    copy.__cause__ = error
    return copy
