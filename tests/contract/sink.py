"""What every sink must do. Subclass `SinkContract` and give it a fixture `far`, a `Far`."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Literal, Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lad_agent.outbox import Away, Delivered, Pace, Sink, deliver_all
from lad_agent.store import AuditStore, open_store, outbox
from lad_agent.store.outbox import Message
from tests.store.samples import CONFORMING, DOUBT, HOSTILE, OK, intake, judgement

Does = Literal["take", "refuse", "fail", "lose"]
"""What a far side does with a message: keep it, refuse it, break down before it is kept, or keep it
and let the answer be lost."""

AT_ONCE, LATER = Pace(first_s=0.0, longest_s=0.0), Pace(first_s=300.0)
SOON_S = 30.0
"""Within which a sink answers, whatever the far side does."""


@dataclass(frozen=True)
class Heard:
    """A message as the far side got it: `id` is the same at every attempt."""

    id: str
    body: str


class Far(Protocol):
    """The system that a sink tells, which a test can order about.

    `secret` is what nobody may read in the sink's words. `refuses`: whether it can refuse one
    message for itself.
    """

    secret: str
    refuses: bool

    def open(self) -> Sink:
        """A new sink that tells it."""
        ...

    def heard(self) -> Sequence[Heard]:
        """All that it has kept, in the order in which it came, repeated ones too."""
        ...

    def plan(self, next: Sequence[Does]) -> None:
        """What it does with the messages that come next; all after them it takes."""
        ...

    def be_there(self, there: bool) -> None:
        """Go away, or come back at the same place."""
        ...


class SinkContract:
    """Inherit and define the fixture `far`; pytest runs these tests on it."""

    @pytest.fixture
    async def sink(self, far: Far) -> AsyncIterator[Sink]:
        made = far.open()
        yield made
        await made.aclose()

    @pytest.fixture
    def told(self, tmp_path: Path, sink: Sink) -> Iterator[AuditStore]:
        """A store that tells the sink of everything."""
        with open_store(tmp_path / "audit.db") as store:
            store.transact([lambda unit: outbox.subscribe(unit, sink.name, sink.target)])
            yield store

    def test_says_what_it_is_and_no_secret(self, far: Far, sink: Sink) -> None:
        assert sink.name
        assert sink.target
        assert far.secret not in sink.name + sink.target

    async def test_a_message_arrives_as_it_is(self, far: Far, sink: Sink, told: AuditStore) -> None:
        message = recorded(told, HOSTILE)
        assert await sink.deliver(message) == Delivered()
        [heard] = far.heard()
        assert heard.id == message.id
        assert json.loads(heard.body) == json.loads(message.body)

    async def test_what_is_told_again_is_known_again(
        self, far: Far, sink: Sink, told: AuditStore
    ) -> None:
        message = recorded(told, "p1")
        far.plan(["lose"])
        assert isinstance(await sink.deliver(message), Away)
        assert await sink.deliver(message) == Delivered()
        first, *_, last = far.heard()
        assert first == last

    async def test_a_far_side_that_fails_or_is_gone_is_away(
        self, far: Far, sink: Sink, told: AuditStore
    ) -> None:
        message = recorded(told, "p1")
        far.plan(["fail"])
        failed = await answered(sink, message)
        far.be_there(False)
        gone = await answered(sink, message)
        for answer in (failed, gone):
            assert isinstance(answer, Away)
            assert answer.error
            assert "\n" not in answer.error
            assert far.secret not in answer.error
        far.be_there(True)
        assert await sink.deliver(message) == Delivered()

    async def test_several_at_once_do_not_disturb_each_other(
        self, far: Far, sink: Sink, told: AuditStore
    ) -> None:
        messages = [recorded(told, f"p{number}") for number in range(8)]
        assert await asyncio.gather(*map(sink.deliver, messages)) == [Delivered()] * 8
        assert {heard.id for heard in far.heard()} == {message.id for message in messages}

    async def test_nothing_is_lost_while_the_far_side_is_gone(
        self, far: Far, sink: Sink, told: AuditStore
    ) -> None:
        far.be_there(False)
        for number in range(6):
            recorded(told, f"p{number % 2}")
        opened = told.take_in(intake("p0", image_sha256="ff" * 32))
        told.decide_review(told.escalate(opened.id, DOUBT, judgement()), CONFORMING)
        wanted = [message.id for message in left(told)]
        await deliver_all(told, sink, AT_ONCE)
        assert [message.id for message in left(told)] == wanted
        far.be_there(True)
        await until_empty(told, sink)
        assert {heard.id for heard in far.heard()} == set(wanted)
        assert_ordered(far.heard())

    async def test_a_refused_message_holds_up_its_own_part_alone(
        self, far: Far, sink: Sink, told: AuditStore
    ) -> None:
        if not far.refuses:
            return
        refused, behind = (recorded(told, "p1") for _ in range(2))
        far.plan(["refuse"])
        await deliver_all(told, sink, LATER)
        other = recorded(told, "p2")
        await deliver_all(told, sink, LATER)
        assert [heard.id for heard in far.heard()] == [other.id]
        assert [message.id for message in left(told)] == [refused.id, behind.id]

    async def test_what_is_refused_too_often_is_given_up_and_seen(
        self, far: Far, sink: Sink, told: AuditStore
    ) -> None:
        if not far.refuses:
            return
        refused, behind = (recorded(told, "p1") for _ in range(2))
        far.plan(["refuse"] * 3)
        for _ in range(3):
            assert not state(told).given_up
            await deliver_all(told, sink, replace(AT_ONCE, tries=3))
        assert (state(told).given_up, state(told).waiting) == (1, 1)
        # Its part goes on without it, and no deliverer that starts tries it again.
        told.transact([outbox.retry])
        await until_empty(told, sink)
        assert [heard.id for heard in far.heard()] == [behind.id]
        [message] = left(told)
        assert (message.id, message.given_up, message.failures) == (refused.id, True, 3)
        # A person can have it tried once more.
        assert told.transact([lambda unit: outbox.retry(unit, given_up=True)]) == [1]
        await until_empty(told, sink)
        assert [heard.id for heard in far.heard()] == [behind.id, refused.id]
        assert left(told) == []

    async def test_without_a_limit_nothing_is_ever_given_up(
        self, far: Far, sink: Sink, told: AuditStore
    ) -> None:
        message = recorded(told, "p1")
        far.plan(["refuse" if far.refuses else "fail"] * 20)
        await until_empty(told, sink)
        assert [heard.id for heard in far.heard()] == [message.id]

    @settings(
        max_examples=10,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        parts=st.lists(st.sampled_from(["p1", "p2", "p3"]), max_size=6),
        does=st.lists(st.sampled_from(["take", "refuse", "fail", "lose"]), max_size=10),
    )
    def test_whatever_the_far_side_does_all_arrives_in_order(
        self, far: Far, told: AuditStore, parts: list[str], does: list[Does]
    ) -> None:
        before = len(far.heard())
        wanted = {recorded(told, part).id for part in parts}
        far.plan([one for one in does if far.refuses or one != "refuse"])
        asyncio.run(_tell_all(told, far.open()))
        heard = far.heard()[before:]
        assert {one.id for one in heard} == wanted
        assert_ordered(heard)

    async def test_closing_twice_is_closing(self, far: Far, sink: Sink, told: AuditStore) -> None:
        assert await sink.deliver(recorded(told, "p1")) == Delivered()
        await sink.aclose()
        await sink.aclose()


def recorded(store: AuditStore, part: str) -> Message:
    """The message of one inspection of that part, of a picture of its own."""
    opened = store.take_in(intake(part, image_sha256=f"{next(_numbers):064x}"))
    store.record(opened.id, OK, judgement())
    return left(store)[-1]


def left(store: AuditStore) -> list[Message]:
    """All that has not arrived, the oldest first."""
    return store.ask(lambda session: outbox.messages(session, everything=False, limit=99))


def state(store: AuditStore) -> outbox.SinkState:
    [only] = store.ask(outbox.sinks)
    return only


async def answered(sink: Sink, message: Message) -> object:
    """The sink's answer, which comes soon."""
    async with asyncio.timeout(SOON_S):
        return await sink.deliver(message)


async def until_empty(store: AuditStore, sink: Sink) -> None:
    """Deliver until nothing waits."""
    for _ in range(200):
        if not state(store).waiting:
            return
        await deliver_all(store, sink, AT_ONCE)
    raise AssertionError("messages are left")


def assert_ordered(heard: Sequence[Heard]) -> None:
    """Of each part, a message comes only after those before it were there."""
    stories: dict[str, list[int]] = {}
    for one in heard:
        body = json.loads(one.body)
        part = body["data"]["ResultMetaData"]["PartId"]
        stories.setdefault(part, []).append(body["sequence"])
    for part, story in stories.items():
        assert story == sorted(story), part


async def _tell_all(store: AuditStore, sink: Sink) -> None:
    await until_empty(store, sink)
    await sink.aclose()


_numbers = count()
