"""Carrying messages from the outbox to a sink: one process at a time, parts beside each other."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from lad_agent.errors import LadAgentError
from lad_agent.outbox.sink import Answer, Away, Delivered, Refused, Sink
from lad_agent.store import AuditStore, operations, outbox
from lad_agent.store.operations import Unit
from lad_agent.store.outbox import Message

log = logging.getLogger(__name__)

LEASE_S = 30.0
"""How long a process has a sink. Longer than a round can take, so that order is kept; and as long
as a killed one keeps it."""
AT_ONCE = 8
ROUND = 16


@dataclass(frozen=True)
class Pace:
    """How often is looked for messages, and how long a sink is left alone that failed: `first_s`,
    then twice as long each time, up to `longest_s`.

    A message that was refused `tries` times is given up (None: never); a sink that is away is
    waited for without end.
    """

    every_s: float = 0.5
    first_s: float = 1.0
    longest_s: float = 300.0
    tries: int | None = None

    def wait_s(self, failures: int) -> float:
        """The pause after so many failures in a row, a fifth more or less by chance."""
        doubled = self.first_s * 2.0 ** min(failures - 1, 30)
        return min(doubled, self.longest_s) * random.uniform(0.8, 1.2)


async def keep_delivering(
    audit: AuditStore, sink: Sink, stop: asyncio.Event, pace: Pace = Pace()
) -> None:
    """Deliver what is due, until `stop`; beside others that do the same on the same store.

    Nothing ends it: what fails is logged, and tried again.
    """
    holder = operations.new_id()
    while not stop.is_set():
        more = False
        try:
            more = await _round(audit, sink, holder, pace)
        except LadAgentError as error:
            log.error("messages to %s wait: %s", sink.name, error)
        except Exception:
            log.exception("messages to %s wait", sink.name)
        if not more:
            await _wait(stop, pace.every_s)


async def deliver_all(audit: AuditStore, sink: Sink, pace: Pace = Pace()) -> None:
    """Deliver what is due now, until nothing more is, or the sink is away.

    Raises:
        StoreError: the store failed; what was delivered may be delivered again.
    """
    holder = operations.new_id()
    while await _round(audit, sink, holder, pace):
        pass


async def _round(audit: AuditStore, sink: Sink, holder: str, pace: Pace) -> bool:
    """Deliver one message each of some parts; whether there was any, and it arrived."""
    # Asked first without the write lock, for mostly there is nothing.
    if not await asyncio.to_thread(audit.ask, partial(outbox.is_due, sink=sink.name)):
        return False
    messages = await _step(audit, partial(_claim, sink=sink.name, holder=holder))
    if not messages:
        return False
    answers = await _tell(sink, messages)
    note = partial(_note, sink=sink.name, holder=holder, answers=answers, pace=pace)
    await _step(audit, note)
    return any(isinstance(answer, Delivered) for _, answer in answers)


def _claim(unit: Unit, *, sink: str, holder: str) -> list[Message]:
    messages = outbox.claim(unit, sink, holder, LEASE_S, ROUND)
    if not messages:
        outbox.release(unit, sink, holder)
    return messages


async def _tell(sink: Sink, messages: Sequence[Message]) -> list[tuple[Message, Answer]]:
    """Tell the messages; once the sink is found away, no more of them is begun."""
    waiting = iter(messages)
    answers: list[tuple[Message, Answer]] = []
    is_away = False

    async def work() -> None:
        nonlocal is_away
        for message in waiting:
            if is_away:
                return
            answer = await sink.deliver(message)
            answers.append((message, answer))
            is_away = is_away or isinstance(answer, Away)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    return answers


def _note(
    unit: Unit,
    *,
    sink: str,
    holder: str,
    answers: Sequence[tuple[Message, Answer]],
    pace: Pace,
) -> None:
    """Write down what became of a round, and let others deliver."""
    arrived = [message.id for message, answer in answers if isinstance(answer, Delivered)]
    outbox.delivered(unit, arrived)
    for message, answer in answers:
        if isinstance(answer, Refused):
            tries = message.failures + 1
            given_up = pace.tries is not None and tries >= pace.tries
            outbox.refused(unit, message.id, answer.error, None if given_up else pace.wait_s(tries))
    found_away = next((answer for _, answer in answers if isinstance(answer, Away)), None)
    if found_away is None:
        outbox.reached(unit, sink)
    else:
        failures = 1 if arrived else outbox.failures(unit, sink) + 1
        wait_s = max(pace.wait_s(failures), found_away.retry_after_s or 0.0)
        outbox.away(unit, sink, found_away.error, failures, wait_s)
    outbox.release(unit, sink, holder)


async def _step(audit: AuditStore, step: Callable[[Unit], object]) -> list[Message]:
    done = await asyncio.to_thread(audit.transact, [step])
    return cast("list[Message]", done[0])


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
