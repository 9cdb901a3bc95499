"""Batches: each part exactly once, whatever is repeated, stopped or broken."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint

from lad_agent.errors import ReasonerUnavailable, StoreError
from lad_agent.graphs.checkpoints import WAITING
from lad_agent.graphs.intake import intake
from lad_agent.graphs.runner import Done, run_batch
from lad_agent.inputs import Item
from lad_agent.inspection import Intake
from lad_agent.judgement import Judgement, Result
from lad_agent.reasoners.base import Question
from lad_agent.store import InspectionFilter
from tests.graphs.conftest import ORDER, Bench
from tests.scripted import Scripted, good


def _taken(item: Item, attempt: int = 1) -> Intake:
    return intake(
        item.part_id,
        item.image,
        item.recipe,
        station=ORDER.station,
        model="scripted",
        actor=ORDER.actor,
        attempt=attempt,
    )


async def test_a_second_run_skips_what_is_done(bench: Bench) -> None:
    items, reasoner = bench.items(5), Scripted()
    first = await bench.run(items, reasoner)
    second = await bench.run(items, reasoner)
    assert len(reasoner.asked) == 5
    assert [done.outcome for done in first.done] == [done.outcome for done in second.done]
    assert {done.earlier for done in second.done} == {True}


async def test_results_are_in_the_order_of_the_items(bench: Bench) -> None:
    items = bench.items(40)
    report = await bench.run(items, Scripted(delay_s=0.001))
    assert [done.item for done in report.done] == items


async def test_again_inspects_once_more_under_a_new_attempt(bench: Bench) -> None:
    items, reasoner = bench.items(2), Scripted(good)
    await bench.run(items, reasoner)
    report = await bench.run(items, reasoner, again=True)
    assert [done.outcome.attempt for done in report.done] == [2, 2]
    assert [done.earlier for done in report.done] == [False, False]
    skipped = await bench.run(items, reasoner)
    assert [done.outcome.attempt for done in skipped.done] == [2, 2]
    assert len(reasoner.asked) == 4


async def test_an_open_row_is_finished_under_its_id(bench: Bench) -> None:
    items = bench.items(1)
    opened = await bench.store.take_in(_taken(items[0]))
    [done] = (await bench.run(items, Scripted(good))).done
    assert (done.outcome.id, done.earlier) == (opened.id, False)
    assert bench.audit.count(InspectionFilter()) == 1


async def test_an_attempt_that_was_cut_off_is_finished_without_again(bench: Bench) -> None:
    items = bench.items(1)
    await bench.run(items, Scripted(good))
    opened = await bench.store.take_in(_taken(items[0], attempt=2))
    [done] = (await bench.run(items, Scripted(good))).done
    assert (done.outcome.id, done.outcome.attempt) == (opened.id, 2)


async def test_another_model_recipe_or_image_is_another_inspection(bench: Bench) -> None:
    items = bench.items(1)
    await bench.run(items, Scripted(good))
    await bench.run(items, Scripted(good, fingerprint="other"))
    bench.with_recipe(audit_rate=0.5)
    await bench.run([replace(items[0], recipe=bench.recipe)], Scripted(good))
    items[0].image.write_bytes(bench.items(2)[1].image.read_bytes())
    await bench.run(items, Scripted(good))
    assert bench.audit.count(InspectionFilter()) == 4


async def test_equal_items_of_one_batch_are_judged_once(bench: Bench) -> None:
    [item] = bench.items(1)
    reasoner = Scripted(good, delay_s=0.05)
    report = await bench.run([item, item, item], reasoner)
    assert len(reasoner.asked) == 1
    assert len({done.outcome.id for done in report.done}) == 1
    assert len(report.done) == 3


async def test_two_batches_at_once_record_each_part_once(bench: Bench) -> None:
    items = bench.items(20)
    reasoners = [Scripted(delay_s=0.01), Scripted(delay_s=0.01)]
    reports = await asyncio.gather(*(bench.run(items, reasoner) for reasoner in reasoners))
    ids = [{done.outcome.id for done in report.done} for report in reports]
    assert ids[0] == ids[1]
    assert bench.audit.count(InspectionFilter()) == 20
    waiting = sum(done.outcome.result is Result.NOT_DECIDABLE for done in reports[0].done)
    assert len(bench.audit.reviews()) == waiting


async def test_too_many_failures_end_the_batch(bench: Bench) -> None:
    def broken(question: Question) -> Judgement:
        raise ReasonerUnavailable("no server")

    report = await bench.run(bench.items(30), Scripted(broken), max_failures=3, in_flight=2)
    assert report.stopped == "failures"
    assert 3 <= len(report.done) <= 4
    assert report.left == 30 - len(report.done)


async def test_a_stop_finishes_what_is_in_flight(bench: Bench) -> None:
    stop, seen = asyncio.Event(), []

    def on_done(done: Done) -> None:
        seen.append(done)
        if len(seen) == 5:
            stop.set()

    report = await run_batch(
        bench.items(30),
        replace(ORDER, in_flight=4),
        store=bench.store,
        reasoner=Scripted(good, delay_s=0.01),
        checkpointer=bench.saver,
        on_done=on_done,
        stop=stop,
    )
    assert report.stopped == "asked"
    assert 5 <= len(report.done) <= 9
    assert report.left + len(report.done) == 30
    assert bench.audit.count(InspectionFilter(complete=False)) == 0
    rest = await bench.run(bench.items(30), Scripted(good))
    assert len(rest.done) == 30
    assert bench.audit.count(InspectionFilter()) == 30


async def test_a_failing_store_ends_the_batch_with_its_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise StoreError("audit.db: the disk is full; make room")

    monkeypatch.setattr(bench.store, "record", full)
    with pytest.raises(StoreError, match="the disk is full"):
        await bench.run(bench.items(10), Scripted(good))
    monkeypatch.undo()
    report = await bench.run(bench.items(10), Scripted(good))
    assert len(report.done) == 10
    assert bench.audit.count(InspectionFilter()) == 10


async def test_no_items_is_no_work(bench: Bench) -> None:
    report = await bench.run([])
    assert (report.done, report.left, report.stopped) == ((), 0, None)


async def test_a_broken_file_of_pauses_is_one_line(bench: Bench, tmp_path: Path) -> None:
    from lad_agent.graphs.checkpoints import pauses

    path = tmp_path / "broken.pauses"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 50)
    with pytest.raises(StoreError, match="the pauses cannot be kept"):
        async with pauses(path):
            pass


@pytest.mark.parametrize("steps", range(1, 7))
async def test_a_pause_that_is_cancelled_leaves_its_file_free(bench: Bench, steps: int) -> None:
    import sqlite3

    saver, config = (
        bench.saver,
        RunnableConfig(
            configurable={"thread_id": "one", "checkpoint_ns": "", "checkpoint_id": "1"}
        ),
    )
    waiting = empty_checkpoint() | {"channel_values": {WAITING: None}}
    for write in (
        lambda: saver.aput(config, waiting, {}, {}),
        lambda: saver.aput_writes(config, [("asked", "why")], "task"),
        lambda: saver.adelete_thread("one"),
    ):
        task = asyncio.create_task(write())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        other = sqlite3.connect(bench.folder / "pauses.db", timeout=0)
        other.execute("begin immediate")
        other.close()


async def test_part_ids_tell_equal_images_apart(bench: Bench) -> None:
    [item] = bench.items(1)
    twin = Item("twin", item.image, item.recipe)
    report = await bench.run([item, twin], Scripted(good))
    assert len({done.outcome.id for done in report.done}) == 2
