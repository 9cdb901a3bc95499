"""One inspection through the real graph, store and checkpointer."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from langgraph.types import Command
from PIL import Image

from lad_agent.errors import ReasonerTimeout, ReasonerUnavailable
from lad_agent.graphs import state as states
from lad_agent.graphs.checkpoints import pauses
from lad_agent.graphs.inspection import build, thread
from lad_agent.graphs.runner import resume
from lad_agent.graphs.state import Context
from lad_agent.inputs import Item
from lad_agent.inspection import ReviewDecision
from lad_agent.judgement import Disposition, Finding, Judgement, Reason, Result
from lad_agent.reasoners.base import Question
from lad_agent.store import ReviewFilter
from tests.graphs.conftest import Bench
from tests.scripted import Scripted, bad, good, malformed

CONFORMING = ReviewDecision(finding=Finding.CONFORMING, by="ann")
SCRAPPED = ReviewDecision(
    finding=Finding.NONCONFORMING, disposition=Disposition.SCRAP, rule="R1", by="ann"
)


async def test_a_good_part_is_recorded_with_its_rationale(bench: Bench) -> None:
    report = await bench.run(bench.items(1), Scripted(good))
    [done] = report.done
    assert (done.outcome.result, done.outcome.final) == (Result.OK, Result.OK)
    assert done.outcome.rationale.endswith("2 of 2 ok")
    assert (report.left, done.earlier) == (0, False)


async def test_a_bad_part_names_the_rule_and_the_place(bench: Bench) -> None:
    [done] = (await bench.run(bench.items(1), Scripted(bad))).done
    assert (done.outcome.result, done.outcome.rule) == (Result.NOT_OK, "R1")
    assert done.outcome.places == ("A1",)


async def test_only_pauses_are_on_disk(bench: Bench) -> None:
    await bench.run(bench.items(3), Scripted(good))
    assert bench.threads() == 0
    await bench.run(bench.items(2), Scripted(malformed, fingerprint="other"))
    assert bench.threads() == 2


async def test_an_audited_part_keeps_its_result_and_opens_a_blind_review(bench: Bench) -> None:
    bench.with_recipe(audit_rate=1.0)
    [done] = (await bench.run(bench.items(1), Scripted(good))).done
    [review] = bench.audit.reviews()
    assert (done.outcome.result, review.kind, bench.threads()) == (Result.OK, "audit", 0)


async def test_a_review_decides_and_the_paused_thread_goes_on(bench: Bench) -> None:
    [done] = (await bench.run(bench.items(1), Scripted(malformed))).done
    assert (done.outcome.result, done.outcome.reason) == (Result.NOT_DECIDABLE, Reason.MALFORMED)
    assert done.outcome.final is None
    [review] = bench.audit.reviews()
    bench.audit.decide_review(review.id, SCRAPPED)
    await resume(done.outcome.id, store=bench.store, checkpointer=bench.saver)
    closed = bench.audit.inspection(done.outcome.id)
    assert closed.outcome is not None
    assert (closed.outcome.result, closed.outcome.final) == (Result.NOT_DECIDABLE, Result.NOT_OK)
    assert closed.closed_at is not None
    assert bench.threads() == 0


async def test_a_pause_outlives_its_process(bench: Bench, tmp_path: Path) -> None:
    [done] = (await bench.run(bench.items(1), Scripted(malformed))).done
    await bench.saver.conn.close()
    [review] = bench.audit.reviews()
    bench.audit.decide_review(review.id, CONFORMING)
    async with pauses(tmp_path / "pauses.db") as saver:
        waiting = await build(saver).aget_state(thread(done.outcome.id))
        assert waiting.next == ("await_review",)
        assert waiting.values["judgement"]["well_formed"] is False
        await resume(done.outcome.id, store=bench.store, checkpointer=saver)
    assert bench.audit.inspection(done.outcome.id).closed_at is not None


async def test_without_its_checkpoint_a_review_is_applied_directly(
    bench: Bench, tmp_path: Path
) -> None:
    [done] = (await bench.run(bench.items(1), Scripted(malformed))).done
    [review] = bench.audit.reviews()
    bench.audit.decide_review(review.id, CONFORMING)
    async with pauses(tmp_path / "empty.db") as saver:
        await resume(done.outcome.id, store=bench.store, checkpointer=saver)
        await resume(done.outcome.id, store=bench.store, checkpointer=saver)
    outcome = bench.audit.outcome(done.outcome.id)
    assert outcome is not None
    assert outcome.final is Result.OK
    assert bench.audit.reviews(ReviewFilter(applied=False)) == []


async def test_a_resume_without_a_decision_in_the_store_waits_on(bench: Bench) -> None:
    [done] = (await bench.run(bench.items(1), Scripted(malformed))).done
    graph, config = build(bench.saver), thread(done.outcome.id)
    for _ in range(2):
        [pause] = (await graph.aget_state(config)).interrupts
        answer = Command(resume={pause.id: {"decisions": [{"type": "approve"}]}})
        await graph.ainvoke(answer, config, context=Context(store=bench.store), durability="exit")
        assert (await graph.aget_state(config)).next == ("await_review",)
    outcome = bench.audit.outcome(done.outcome.id)
    assert outcome is not None
    assert outcome.final is None


async def test_the_pause_says_what_to_decide(bench: Bench) -> None:
    [done] = (await bench.run(bench.items(1), Scripted(malformed))).done
    [pause] = (await build(bench.saver).aget_state(thread(done.outcome.id))).interrupts
    [request] = pause.value["action_requests"]
    assert request["args"]["inspection_id"] == done.outcome.id
    assert request["args"]["reason"] == "malformed-answer"


def _raise(error: Exception) -> Judgement:
    raise error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ReasonerTimeout("too slow"), Reason.TIMED_OUT),
        (ReasonerUnavailable("no server"), Reason.REASONER_FAILED),
        (RuntimeError("a bug"), Reason.REASONER_FAILED),
    ],
)
async def test_a_failing_reasoner_ends_at_a_person(
    bench: Bench, error: Exception, reason: Reason
) -> None:
    items = bench.items(3)
    first = bench.items(1)[0].image.read_bytes()

    def script(question: Question) -> Judgement:
        import hashlib

        broken = question.image_sha256 == hashlib.sha256(first).hexdigest()
        return _raise(error) if broken else good(question)

    report = await bench.run(items, Scripted(script))
    results = [(done.outcome.result, done.outcome.reason) for done in report.done]
    assert results == [(Result.NOT_DECIDABLE, reason), (Result.OK, None), (Result.OK, None)]
    assert report.done[0].detail is not None
    assert str(error) in report.done[0].detail
    assert [review.kind for review in bench.audit.reviews()] == ["escalation"]


async def test_beyond_the_time_limit_a_person_decides(bench: Bench) -> None:
    bench.with_recipe(time_limit_s=0.05)
    [done] = (await bench.run(bench.items(1), Scripted(good, delay_s=5))).done
    assert done.outcome.reason is Reason.TIMED_OUT
    assert done.detail == "no answer within 0.05 s"


async def test_a_product_that_the_model_was_not_made_for_is_not_judged(bench: Bench) -> None:
    reasoner = Scripted(good, products=frozenset({"juice_bottle"}))
    [done] = (await bench.run(bench.items(1), reasoner)).done
    assert done.outcome.reason is Reason.PRODUCT_NOT_IN_MODEL
    assert reasoner.asked == []


async def test_gated_and_unreadable_images_are_recorded_and_the_rest_is_judged(
    bench: Bench,
) -> None:
    items = bench.items(3)
    Image.new("RGB", (100, 100), (3, 3, 3)).save(items[0].image)
    items[1].image.write_bytes(b"not an image")
    missing = Item("gone", bench.folder / "gone.png", bench.recipe)
    reasoner = Scripted(good)
    report = await bench.run([*items, missing], reasoner)
    reasons = [done.outcome.reason for done in report.done]
    assert reasons == [Reason.TOO_DARK, Reason.UNREADABLE, None, Reason.UNREADABLE]
    assert report.done[3].outcome.image_sha256 is None
    assert len(reasoner.asked) == 1


async def test_an_image_that_changes_after_intake_is_not_judged(bench: Bench) -> None:
    [item] = bench.items(1)
    graph = build()
    context = Context(bench.store, Scripted(good), {bench.recipe.recipe_version: bench.recipe})
    from lad_agent.inspection import Intake

    opened = await bench.store.take_in(
        Intake(
            part_id="p",
            station="s",
            image=str(item.image),
            image_sha256="0" * 64,
            product=bench.recipe.product,
            task_version=bench.recipe.task_version,
            recipe_version=bench.recipe.recipe_version,
            recipe_path=str(bench.recipe.path),
            model="scripted",
            actor="tester",
        )
    )
    start = states.start(opened.id, str(item.image), "0" * 64, bench.recipe.recipe_version)
    end = await graph.ainvoke(start, context=context)
    assert (end["reason"], end["judgement"]) == ("unreadable", None)


async def test_embedded_with_sync_durability_the_picture_is_read_again(bench: Bench) -> None:
    """Cut off between reading and judging, another process judges the same picture."""
    [item] = bench.items(1)
    report = await bench.run([item], Scripted(good))
    inspection_id = report.done[0].outcome.id
    context = Context(bench.store, Scripted(good), {bench.recipe.recipe_version: bench.recipe})
    start = states.start(
        inspection_id,
        str(item.image),
        report.done[0].outcome.image_sha256,
        bench.recipe.recipe_version,
    )
    from langgraph.runtime import Runtime

    from lad_agent.graphs import nodes

    update = await nodes.judge(start, Runtime(context=context))
    assert update["judgement"]["anomalous"] is False


async def test_checkpoints_hold_plain_values_alone(bench: Bench, tmp_path: Path) -> None:
    [done] = (await bench.run(bench.items(1), Scripted(malformed))).done
    with pytest.raises(TypeError):
        bench.saver.serde.dumps_typed(Image.new("RGB", (2, 2)))
    stored = await bench.saver.aget_tuple(thread(done.outcome.id))
    assert stored is not None
    values = stored.checkpoint["channel_values"]
    plain = (str, int, float, bool, dict, list, type(None))
    assert all(isinstance(value, plain) for value in values.values())
    with sqlite3.connect(tmp_path / "pauses.db") as connection:
        kinds = {row[0] for row in connection.execute("select type from checkpoints")}
    connection.close()
    assert kinds == {"msgpack"}


async def test_many_are_in_flight_at_once(bench: Bench) -> None:
    reasoner = Scripted(good, delay_s=0.3)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    report = await bench.run(bench.items(30), reasoner, in_flight=30)
    assert len(report.done) == 30
    assert loop.time() - begin < 30 * 0.3 / 2
