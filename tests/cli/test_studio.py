"""The workflow as `langgraph dev` runs it: inside another graph, with that one's checkpointer."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from lad_agent.cli import studio
from lad_agent.inspection import ReviewDecision
from lad_agent.judgement import Finding
from lad_agent.store import open_store
from tests.scripted import Scripted, good, malformed

THREAD = {"configurable": {"thread_id": "t"}}


@pytest.fixture(autouse=True)
def _room(tray: Path, reasoner: Scripted, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tray.parent)
    studio._room.cache_clear()
    yield
    studio._room.cache_clear()


async def test_a_path_becomes_an_outcome(reasoner: Scripted) -> None:
    reasoner.script = good
    end = await studio.graph.ainvoke({"image": "tray/part-000.png"})
    assert end["outcome"]["result"] == "OK"
    assert end["outcome"]["part_id"] == "part-000.png"


async def test_doubt_pauses_the_outer_thread_until_a_person_has_decided(
    reasoner: Scripted, tmp_path: Path
) -> None:
    reasoner.script = malformed
    outer = studio._wire().compile(checkpointer=InMemorySaver())
    end = await outer.ainvoke({"image": "tray/part-001.png", "part_id": "P-1"}, THREAD)
    [pause] = end["__interrupt__"]
    assert pause.value["action_requests"][0]["args"]["reason"] == "malformed-answer"
    again = await outer.ainvoke(Command(resume={pause.id: "approve"}), THREAD)
    assert "__interrupt__" in again, "only a decision in the store counts"
    with open_store(tmp_path / "lad-agent.db", create=False) as audit:
        [review] = audit.reviews()
        audit.decide_review(review.id, ReviewDecision(finding=Finding.CONFORMING, by="ann"))
    [pause] = again["__interrupt__"]
    end = await outer.ainvoke(Command(resume={pause.id: "decided"}), THREAD)
    assert (end["outcome"]["part_id"], end["outcome"]["final"]) == ("P-1", "OK")
    assert len(reasoner.asked) == 1


def test_langgraph_json_names_it() -> None:
    root = Path(__file__).parents[2]
    named = json.loads((root / "langgraph.json").read_text())["graphs"]["inspection"]
    file, variable = named.split(":")
    spec = importlib.util.spec_from_file_location("by_path", root / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert getattr(module, variable).name == "inspection"
