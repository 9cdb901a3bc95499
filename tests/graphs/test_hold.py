"""A hold: every part goes to people, until it is released by name."""

from pathlib import Path

from langgraph.checkpoint.memory import InMemorySaver

from lad_agent.graphs import Part, Station, build_inspection_graph
from lad_agent.judgement import Reason, Result
from tests.graphs.conftest import Bench
from tests.scripted import Scripted, bad, good, malformed


async def test_on_hold_every_part_goes_to_people_until_it_is_released(bench: Bench) -> None:
    items = bench.items(4)
    bench.audit.put_hold("line-1", "anna", "new supplier", "screw_bag")
    for item, script in zip(items, (good, bad, malformed), strict=False):
        [done] = (await bench.run([item], Scripted(script))).done
        assert done.outcome.result is Result.NOT_DECIDABLE
        assert done.outcome.final is None
        if script is malformed:
            assert done.outcome.reason is Reason.MALFORMED
            continue
        assert done.outcome.reason is Reason.ON_HOLD
        assert done.detail is not None
        assert done.detail.startswith("by anna since 20")
        assert done.detail.endswith(": new supplier")
        assert done.outcome.confidence == 0.99
    assert len(bench.audit.reviews()) == bench.threads() == 3
    bench.audit.release_hold("line-1", "bert", "screw_bag")
    [done] = (await bench.run(items[3:], Scripted(good))).done
    assert done.outcome.result is Result.OK


async def test_a_hold_of_another_product_is_none_and_one_of_all_is(bench: Bench) -> None:
    first, second = bench.items(2)
    bench.audit.put_hold("line-1", "anna", "new supplier", "pushpins")
    [done] = (await bench.run([first], Scripted(good))).done
    assert done.outcome.result is Result.OK
    bench.audit.put_hold("line-2", "anna", "audit by the customer")
    [done] = (await bench.run([second], Scripted(good))).done
    assert done.outcome.reason is Reason.ON_HOLD


async def test_the_embedded_node_obeys_it_too(bench: Bench) -> None:
    [item] = bench.items(1)
    bench.audit.put_hold("line-1", "anna", "new supplier")
    station = Station(
        store=bench.store, reasoner=Scripted(good),
        recipes={bench.recipe.recipe_version: bench.recipe}, name="line-1", actor="tester",
    )  # fmt: skip
    graph = build_inspection_graph(InMemorySaver())
    config: dict[str, dict[str, str]] = {"configurable": {"thread_id": "t"}}
    part = Part(part_id="p", image=str(item.image), recipe="screw_bag")
    end = await graph.ainvoke(part.model_dump(), config, context=station)  # type: ignore[arg-type]
    [pause] = end["__interrupt__"]
    assert pause.value["action_requests"][0]["args"]["reason"] == "on-hold"


async def test_an_audited_part_keeps_its_picture(bench: Bench) -> None:
    bench.with_recipe(audit_rate=1.0)
    [item] = bench.items(1)
    await bench.run([item], Scripted(good))
    [review] = bench.audit.reviews()
    assert review.kind == "audit"
    assert review.kept is not None
    pixels = item.image.read_bytes()
    Path(item.image).unlink()
    assert (bench.audit.images / review.kept).read_bytes() == pixels
