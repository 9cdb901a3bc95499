"""From many single questions to full batches: what makes a local model a `Reasoner`.

Questions wait in a bounded queue; a batch is started when it is full or its oldest question has
waited long enough, and judged in one thread of its own, so that the event loop stays free.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from lad_agent.errors import LadAgentError, ReasonerError
from lad_agent.judgement import Judgement
from lad_agent.reasoners.base import Question
from lad_agent.reasoners.door import Door


class BatchReasoner(Protocol):
    """Judges a batch and returns one judgement for each question, in order."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def products(self) -> frozenset[str] | None: ...

    def judge_batch(self, questions: Sequence[Question]) -> list[Judgement]: ...


class MicroBatched:
    """A `Reasoner` that collects questions for a `BatchReasoner`.

    A batch holds questions of one task, the oldest question's, at most `max_batch`; it waits at
    most `max_wait_s` for company. More than `queue` questions at a time wait at the door. Where a
    batch fails it is halved and tried again, so that a question that cannot be judged fails
    alone. Bound to the event loop it is first used in; close it there with `aclose`.
    """

    def __init__(
        self,
        local: BatchReasoner,
        *,
        max_batch: int = 32,
        max_wait_s: float = 0.02,
        queue: int = 256,
    ) -> None:
        self._local = local
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._door = Door(queue)
        self._waiting: list[_Waiting] = []
        self._arrival = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reasoner")
        self._work: asyncio.Task[None] | None = None

    @property
    def fingerprint(self) -> str:
        """That of the model."""
        return self._local.fingerprint

    @property
    def products(self) -> frozenset[str] | None:
        """Those of the model."""
        return self._local.products

    async def judge(self, question: Question) -> Judgement:
        """Judge one image together with others that are in flight.

        Raises:
            ReasonerUnavailable: closed.
            ReasonerError: the model failed on this question.
            UnreadableInput: the recipe's reference image cannot be read.
        """
        async with self._door.enter():
            return await self._enqueue(question)

    async def aclose(self) -> None:
        """Judge what has been asked, take nothing more, and end the thread."""
        await self._door.close()
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
            self._work = None
        await asyncio.to_thread(self._thread.shutdown)

    def _enqueue(self, question: Question) -> "asyncio.Future[Judgement]":
        loop = asyncio.get_running_loop()
        if self._work is None:
            self._work = loop.create_task(self._judge_for_ever())
        waiting = _Waiting(question, loop.create_future(), loop.time() + self._max_wait_s)
        self._waiting.append(waiting)
        self._arrival.set()
        return waiting.answer

    async def _judge_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._gather()
            questions = [waiting.question for waiting in batch]
            answers = await loop.run_in_executor(self._thread, _judge, self._local, questions)
            for waiting, answer in zip(batch, answers, strict=True):
                _settle(waiting.answer, answer)

    async def _gather(self) -> "list[_Waiting]":
        """The next batch: full, or as large as it got in the time its oldest question can wait."""
        while True:
            self._waiting = [w for w in self._waiting if not w.answer.done()]
            self._arrival.clear()
            if not self._waiting:
                await self._arrival.wait()
                continue
            oldest = self._waiting[0]
            batch = [w for w in self._waiting if w.task == oldest.task][: self._max_batch]
            left = oldest.deadline - asyncio.get_running_loop().time()
            if len(batch) == self._max_batch or self._door.crowded or left <= 0:
                taken = set(map(id, batch))
                self._waiting = [w for w in self._waiting if id(w) not in taken]
                return batch
            await _wait(self._arrival, left)


@dataclass(frozen=True, eq=False)
class _Waiting:
    question: Question
    answer: "asyncio.Future[Judgement]"
    deadline: float

    @property
    def task(self) -> str:
        return self.question.recipe.task_version


def _judge(local: BatchReasoner, questions: Sequence[Question]) -> list[Judgement | LadAgentError]:
    try:
        judged = local.judge_batch(questions)
        if len(judged) != len(questions):
            raise ReasonerError(f"{len(judged)} judgements for {len(questions)} images")
        return list(judged)
    except Exception as error:
        # Whatever it is, it belongs to the question that causes it, not to those beside it.
        if len(questions) == 1:
            return [_as_ours(error)]
    half = len(questions) // 2
    return _judge(local, questions[:half]) + _judge(local, questions[half:])


def _as_ours(error: Exception) -> LadAgentError:
    if isinstance(error, LadAgentError):
        return error
    words = (str(error).strip() or type(error).__name__).splitlines()[0]
    failure = ReasonerError(f"the model failed on this image: {words}")
    failure.__cause__ = error
    return failure


def _settle(future: "asyncio.Future[Judgement]", answer: Judgement | LadAgentError) -> None:
    if future.done():
        return
    if isinstance(answer, LadAgentError):
        future.set_exception(answer)
    else:
        future.set_result(answer)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
