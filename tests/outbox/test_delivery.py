"""Delivery over a real store: nothing lost, order kept per part, whatever the sink answers."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_agent.errors import UsageError
from lad_agent.outbox import (
    Answer,
    Away,
    Delivered,
    Pace,
    Refused,
    deliver_all,
    delivering,
    keep_delivering,
    subscribe,
)
from lad_agent.settings import Settings
from lad_agent.store import AuditStore, ledger, open_store, outbox
from lad_agent.store.outbox import Message
from tests.outbox.receiver import SECRET, Receiver, receiving
from tests.store.samples import CONFORMING, DOUBT, OK, intake, judgement

AT_ONCE = Pace(every_s=0.01, first_s=0.0, longest_s=0.0)
_numbers = count()


class Noted:
    """Implements `Sink`: answers what `answers` give, then that it has arrived."""

    target = "here"

    def __init__(self, name: str, answers: Iterable[Answer] = ()) -> None:
        self.name = name
        self.answers = iter(answers)
        self.asked: list[tuple[str, int, Answer]] = []
        self.in_hand: set[str] = set()

    async def deliver(self, message: Message) -> Answer:
        assert message.part_id not in self.in_hand
        self.in_hand.add(message.part_id)
        await asyncio.sleep(0)
        self.in_hand.remove(message.part_id)
        answer = next(self.answers, Delivered())
        self.asked.append((message.part_id, message.seq, answer))
        return answer

    async def aclose(self) -> None:
        return

    def arrived(self) -> list[tuple[str, int]]:
        return [(part, seq) for part, seq, answer in self.asked if answer == Delivered()]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditStore]:
    """One for all tests: each tells a sink of its own."""
    with open_store(tmp_path_factory.mktemp("outbox") / "audit.db") as opened:
        yield opened


@contextmanager
def told(store: AuditStore) -> Iterator[str]:
    """The name of a sink that is told while this lasts."""
    name = f"mes-{next(_numbers)}"
    store.transact([lambda unit: outbox.subscribe(unit, name, "here")])
    yield name
    store.transact([lambda unit: outbox.unsubscribe(unit, name)])


@pytest.fixture
def mes(store: AuditStore) -> Iterator[str]:
    with told(store) as name:
        yield name


@settings(max_examples=15, deadline=None)
@given(
    parts=st.lists(st.sampled_from(["p1", "p2", "p3"]), max_size=6),
    answers=st.lists(
        st.sampled_from([Delivered(), Refused("it answered 422"), Away("no route")]), max_size=12
    ),
)
def test_whatever_is_answered_all_arrives_once_and_in_order_per_part(
    store: AuditStore, parts: list[str], answers: list[Answer]
) -> None:
    with told(store) as name:
        for part in parts:
            _record(store, part)
        sink = Noted(name, answers)
        asyncio.run(_until_empty(store, sink))
    arrived = sink.arrived()
    assert len(arrived) == len(set(arrived)) == len(parts)
    for part in set(parts):
        seqs = [seq for told, seq in arrived if told == part]
        assert seqs == sorted(seqs)


async def test_while_a_sink_is_away_few_messages_are_tried(store: AuditStore, mes: str) -> None:
    for number in range(20):
        _record(store, f"p{number}")
    sink = Noted(mes, [Away("no route", 60.0)] * 20)
    await deliver_all(store, sink)
    assert len(sink.asked) <= 8
    tried = len(sink.asked)
    await deliver_all(store, sink)
    assert len(sink.asked) == tried
    (state,) = store.ask(outbox.sinks)
    assert (state.waiting, state.failures, state.error) == (20, 1, "no route")


async def test_two_deliverers_share_a_sink_without_telling_anything_twice(
    store: AuditStore, mes: str
) -> None:
    stop = asyncio.Event()
    sinks = [Noted(mes), Noted(mes)]
    tasks = [asyncio.create_task(keep_delivering(store, sink, stop, AT_ONCE)) for sink in sinks]
    for number in range(30):
        await asyncio.to_thread(_record, store, f"p{number % 5}")
    while _waits(store, mes):
        await asyncio.sleep(0.02)
    stop.set()
    await asyncio.gather(*tasks)
    arrived = [one for sink in sinks for one in sink.arrived()]
    assert len(arrived) == len(set(arrived)) == 30
    assert all(answer == Delivered() for sink in sinks for _, _, answer in sink.asked)


async def test_a_receiver_that_is_down_for_the_whole_run_gets_everything_later(
    tmp_path: Path,
) -> None:
    with receiving(Receiver()) as closed:
        port = int(closed.url.split(":")[2].partition("/")[0])
    chosen = Settings(
        store=str(tmp_path / "audit.db"), webhook_url=closed.url, webhook_secret=SECRET
    )
    with open_store(chosen.store) as store:
        subscribe(store, chosen)
        async with delivering(store, chosen, AT_ONCE):
            for number in range(10):
                await asyncio.to_thread(_record, store, f"p{number % 2}")
            opened = store.take_in(intake("p0", image_sha256="ff" * 32))
            review_id = store.escalate(opened.id, DOUBT, judgement())
            await asyncio.sleep(0.1)
        (state,) = store.ask(outbox.sinks)
        assert state.waiting == 11
        assert state.failures > 0
        assert state.error
        assert state.target == f"http://127.0.0.1:{port}"
    # Another process decides the review, with settings that name no sink.
    with open_store(chosen.store) as store:
        store.decide_review(review_id, CONFORMING)
        with receiving(Receiver(), port) as receiver:
            store.transact([lambda unit: outbox.retry(unit)])
            async with delivering(store, chosen, AT_ONCE):
                while _waits(store, "webhook"):
                    await asyncio.sleep(0.02)
    stories = receiver.stories()
    assert sorted(len(story) for story in stories.values()) == [5, 7]
    assert all(story == sorted(set(story)) for story in stories.values())
    last = [one.json for one in receiver.got if one.json["type"] == "review.decided"]
    assert [one["data"]["ResultMetaData"]["ResultEvaluation"] for one in last] == [1]


def test_subscribing_is_an_event_and_happens_once(tmp_path: Path) -> None:
    chosen = Settings(webhook_url="https://mes.example/T0K3N", webhook_secret=SECRET)
    with open_store(tmp_path / "audit.db") as store:
        subscribe(store, chosen)
        subscribe(store, chosen)
        (entry,) = store.ask(lambda session: list(ledger.entries(session.connection())))
        subscribe(store, Settings())
        assert [state.name for state in store.ask(outbox.sinks)] == ["webhook"]
    assert entry.payload["target"] == "https://mes.example"
    assert "T0K3N" not in str(entry)


def test_a_url_needs_a_secret(tmp_path: Path) -> None:
    with (
        open_store(tmp_path / "audit.db") as store,
        pytest.raises(UsageError, match="needs webhook_secret beside it"),
    ):
        subscribe(store, Settings(webhook_url="https://mes.example/"))


@given(failures=st.integers(1, 1000))
def test_pauses_double_up_to_the_longest(failures: int) -> None:
    pace = Pace()
    assert 0.8 <= pace.wait_s(failures) <= 1.2 * pace.longest_s
    assert pace.wait_s(failures) <= 1.2 * pace.first_s * 2 ** (failures - 1)


async def _until_empty(store: AuditStore, sink: Noted) -> None:
    for _ in range(100):
        if not _waits(store, sink.name):
            return
        await deliver_all(store, sink, AT_ONCE)
    raise AssertionError("messages are left")


def _record(store: AuditStore, part: str) -> None:
    opened = store.take_in(intake(part, image_sha256=f"{next(_numbers):064x}"))
    store.record(opened.id, OK, judgement())


def _waits(store: AuditStore, sink: str) -> bool:
    return any(state.waiting for state in store.ask(outbox.sinks) if state.name == sink)
