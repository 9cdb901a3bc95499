"""The asynchronous store: grouped commits, nothing claimed before its commit, and kills."""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event

from lad_agent.errors import NotFound, StoreError, StoreLocked
from lad_agent.judgement import Result
from lad_agent.store import AsyncStore, AuditStore, open_store
from tests.store.samples import DOUBT, OK, SCRAP, intake, judgement, tables


@pytest.fixture
def commits(store: AuditStore) -> Iterator[list[int]]:
    """One entry for every commit of the store."""
    seen: list[int] = []

    def count(_connection: object) -> None:
        seen.append(1)

    event.listen(store._engine, "commit", count)
    yield seen
    event.remove(store._engine, "commit", count)


async def test_many_inspections_share_few_commits(store: AuditStore, commits: list[int]) -> None:
    async with AsyncStore(store) as writer:

        async def inspect(number: int) -> str:
            opened = await writer.take_in(intake(f"p{number}"))
            await writer.record(opened.id, OK, judgement())
            return opened.id

        ids = await asyncio.gather(*(inspect(number) for number in range(100)))
    assert len(commits) < 60  # alone it would be 200
    assert len(set(ids)) == store.count() == 100
    assert store.verify_chain().intact


async def test_the_workflow_of_an_escalated_part(store: AuditStore) -> None:
    async with AsyncStore(store) as writer:
        opened = await writer.take_in(intake())
        review_id = await writer.escalate(opened.id, DOUBT, judgement())
        assert await writer.review_decision(opened.id) is None
        store.decide_review(review_id, SCRAP)
        assert await writer.review_decision(opened.id) == SCRAP
        await writer.apply_review(opened.id)
        outcome = await writer.outcome(opened.id)
        assert outcome is not None
        assert outcome.final is Result.NOT_OK
        assert await writer.last_attempt(intake()) == 1


async def test_a_step_that_fails_fails_alone(store: AuditStore) -> None:
    async with AsyncStore(store) as writer:
        opened = await writer.take_in(intake())
        answers = await asyncio.gather(
            writer.record("nope", OK, None),
            writer.record(opened.id, OK, judgement()),
            writer.record(opened.id, DOUBT, None),
            writer.take_in(intake("p2")),
            return_exceptions=True,
        )
    assert isinstance(answers[0], NotFound)
    assert answers[1] is None
    assert isinstance(answers[2], ValueError)
    assert store.count() == 2
    assert store.verify_chain().intact


async def test_the_same_part_twice_at_once_is_one_inspection(store: AuditStore) -> None:
    async with AsyncStore(store) as writer:
        opened = await asyncio.gather(*(writer.take_in(intake()) for _ in range(5)))
    assert len({one.id for one in opened}) == 1
    assert sorted(one.found for one in opened) == [False, True, True, True, True]


async def test_nothing_is_claimed_before_its_commit(store: AuditStore) -> None:
    with closing(sqlite3.connect(store.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with AsyncStore(store) as writer:
            waiting = asyncio.create_task(writer.take_in(intake()))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            other.execute("COMMIT")
            opened = await waiting
    assert store.inspection(opened.id).outcome is None


async def test_a_locked_store_fails_all_that_wait_and_recovers(tmp_path: Path) -> None:
    with (
        open_store(tmp_path / "a.db", busy_timeout_s=0.1) as store,
        closing(sqlite3.connect(store.file, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        async with AsyncStore(store) as writer:
            steps = [writer.take_in(intake(f"p{number}")) for number in range(8)]
            started = time.monotonic()
            answers = await asyncio.gather(*steps, return_exceptions=True)
            assert all(isinstance(answer, StoreLocked) for answer in answers)
            assert time.monotonic() - started < 2.0  # not one wait for each
            other.execute("ROLLBACK")
            await writer.take_in(intake())
        assert store.count() == 1


async def test_closing_writes_what_waits_and_refuses_the_rest(store: AuditStore) -> None:
    writer = AsyncStore(store)
    waiting = [asyncio.create_task(writer.take_in(intake(f"p{n}"))) for n in range(20)]
    await asyncio.sleep(0)
    await writer.aclose()
    await asyncio.gather(*waiting)
    assert store.count() == 20
    with pytest.raises(StoreError, match="was closed"):
        await writer.take_in(intake())
    await writer.aclose()


async def test_a_cancelled_waiter_disturbs_nobody(store: AuditStore) -> None:
    async with AsyncStore(store) as writer:
        tasks = [asyncio.create_task(writer.take_in(intake(f"p{n}"))) for n in range(10)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [n for n, answer in enumerate(answers) if isinstance(answer, BaseException)] == [3]
    assert store.count() in (9, 10)


async def test_two_writers_on_one_file(tmp_path: Path) -> None:
    with open_store(tmp_path / "a.db") as one, open_store(tmp_path / "a.db") as two:
        async with AsyncStore(one) as first, AsyncStore(two) as second:
            await asyncio.gather(
                *(first.take_in(intake(f"a{n}")) for n in range(40)),
                *(second.take_in(intake(f"b{n}", station="line-2")) for n in range(40)),
                *(second.take_in(intake(f"a{n}")) for n in range(40)),
            )
        assert one.count() == 80
        assert two.verify_chain().intact


WORKER = """
import asyncio, sys
from lad_agent.store import AsyncStore, open_store
from tests.store.samples import DOUBT, OK, intake, judgement

async def inspect(store, number):
    opened = await store.take_in(intake(f"p{number}"))
    if not opened.complete:
        if number % 3:
            await store.record(opened.id, OK, judgement())
        else:
            await store.escalate(opened.id, DOUBT, judgement())
    print(number, opened.id, flush=True)

async def main():
    store = AsyncStore(open_store(sys.argv[1]))
    await asyncio.gather(*(inspect(store, number) for number in range(int(sys.argv[2]))))
    await store.aclose()

asyncio.run(main())
"""


@pytest.mark.skipif(os.name != "posix", reason="kills by signal")
def test_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    file, parts, random_ = tmp_path / "audit.db", 300, random.Random(7)
    claimed: dict[str, str] = {}
    for lines in [*(random_.randint(1, 120) for _ in range(4)), None]:
        for number, inspection_id in _worked(file, parts, kill_after=lines):
            assert claimed.setdefault(number, inspection_id) == inspection_id
        with open_store(file) as store:
            for inspection_id in claimed.values():
                assert store.outcome(inspection_id) is not None
            assert store.verify_chain().intact
            before = tables(store)
            store.rebuild()
            assert tables(store) == before
    with open_store(file) as store:
        assert store.count() == len(claimed) == parts
        assert len(store.reviews()) == parts // 3


def _worked(file: Path, parts: int, kill_after: int | None) -> list[tuple[str, str]]:
    """Run the worker, kill it after so many lines; what it claimed to have recorded."""
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(file), str(parts)], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    lines = []
    for line in worker.stdout:
        lines.append(line)
        if kill_after is not None and len(lines) >= kill_after:
            worker.send_signal(signal.SIGKILL)
            break
    lines += worker.stdout.read().splitlines(keepends=True)
    worker.stdout.close()
    assert worker.wait() == (0 if kill_after is None else -signal.SIGKILL)
    return [(line.split()[0], line.split()[1]) for line in lines if line.endswith("\n")]
