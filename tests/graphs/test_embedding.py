"""The inspection inside a graph of somebody else's: own state, own context, own checkpointer."""

import asyncio
import operator
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.errors import NodeError
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Interrupt, Send

from lad_agent import recipe
from lad_agent.errors import (
    NotFound,
    ReasonerError,
    ReasonerTimeout,
    ReasonerUnavailable,
    StoreError,
    UnreadableInput,
    UsageError,
)
from lad_agent.graphs import (
    Inspection,
    Part,
    Station,
    blocking,
    build_inspection_graph,
    inspection_node,
)
from lad_agent.images import file_sha256
from lad_agent.inspection import ReviewDecision
from lad_agent.judgement import Finding, Judgement
from lad_agent.reasoners.base import Question
from lad_agent.store import AsyncStore, AuditStore, InspectionFilter, open_store
from tests.scripted import Script, Scripted, bad, good, malformed, write_parts, write_recipe

ROOT = Path(__file__).parents[2]
CONFORMING = {"finding": "conforming", "by": "ann"}
SCRAPPED = {"finding": "nonconforming", "disposition": "scrap", "rule": "R1", "by": "bob"}


@dataclass(frozen=True)
class Plant:
    """The parent's context."""

    camera: Station


class Tray(TypedDict, total=False):
    """The parent's state: no key of it means the same in the inspection's."""

    image: str
    photos: list[str]
    result: str
    detail: Annotated[list[str], operator.add]


def take(state: Any) -> Part:
    return Part(part_id=Path(state["image"]).stem, image=state["image"], recipe="screw_bag")


def give(state: Any, found: Inspection) -> Tray:
    final, by = found.outcome.final, found.review.by if found.review else "reasoner"
    assert final is not None
    return {"detail": [f"{found.outcome.part_id} {final.value} {by}"]}


def tray(**options: Any) -> StateGraph[Tray, Plant, Tray, Tray]:
    """The ten lines, and a fan-out."""
    graph = StateGraph(Tray, context_schema=Plant)
    graph.add_node(
        "inspect",
        inspection_node(take=take, give=give, station=lambda plant: plant.camera, **options),
    )
    graph.add_conditional_edges(START, _each, ["inspect"])
    graph.add_edge("inspect", END)
    return graph


def _each(state: Tray) -> list[Send]:
    return [Send("inspect", {"image": photo}) for photo in state["photos"]]


def thread(name: str = "t") -> Any:
    return {"configurable": {"thread_id": name}}


@contextmanager
def strict(folder: Path) -> Iterator[SqliteSaver]:
    """A parent's checkpointer that reads nothing but plain values back."""
    with closing(sqlite3.connect(folder / "parent.db", check_same_thread=False)) as connection:
        yield SqliteSaver(connection, serde=JsonPlusSerializer(allowed_msgpack_modules=[]))


def asked(pause: Interrupt) -> dict[str, Any]:
    """What a pause tells about its part."""
    told: dict[str, Any] = pause.value["action_requests"][0]["args"]
    return told


def in_order(pauses: Sequence[Interrupt]) -> list[Interrupt]:
    return sorted(pauses, key=lambda pause: str(asked(pause)["image"]))


def answers(paused: Mapping[str, Any], *decisions: Any) -> Command[Any]:
    pauses = in_order(paused["__interrupt__"])
    return Command(resume={p.id: d for p, d in zip(pauses, decisions, strict=True)})


def by_photo(photos: Sequence[str], *scripts: Script) -> Script:
    """Each photo's own script."""
    known = {file_sha256(Path(p)): s for p, s in zip(photos, scripts, strict=True)}
    return lambda question: known[question.image_sha256](question)


@dataclass
class Place:
    """A folder with parts, a store and a camera."""

    folder: Path
    audit: AuditStore
    station: Station
    reasoner: Scripted

    @property
    def plant(self) -> Plant:
        return Plant(self.station)

    def photos(self, count: int) -> list[str]:
        return [str(path) for path in write_parts(self.folder / "parts", count)]


@pytest.fixture
def place(tmp_path: Path, audit: AuditStore) -> Iterator[Place]:
    reasoner = Scripted(good)
    store = AsyncStore(audit)
    yield Place(tmp_path, audit, station(tmp_path, store, reasoner), reasoner)
    blocking(store.aclose())


def station(folder: Path, store: AsyncStore, reasoner: Scripted) -> Station:
    loaded = recipe.load(write_recipe(folder / "recipe"))
    return Station(
        store, reasoner, {loaded.recipe_version: loaded}, name="camera-1", actor="tester"
    )


def test_a_tray_fans_out_and_adds_each_part_once(place: Place) -> None:
    photos = place.photos(4)
    graph = tray().compile()
    end = graph.invoke({"photos": photos, "detail": ["begun"]}, context=place.plant)
    assert end["detail"] == ["begun", *(f"part-00{n} OK reasoner" for n in range(4))]
    assert "image" not in end
    inspected = place.audit.inspections()
    assert {one.intake.station for one in inspected} == {"camera-1"}
    assert len(inspected) == 4


async def test_the_same_graph_runs_async(place: Place) -> None:
    end = await tray().compile().ainvoke({"photos": place.photos(4)}, context=place.plant)
    assert end["detail"] == [f"part-00{n} OK reasoner" for n in range(4)]


def test_two_pauses_are_answered_one_by_one_in_the_parent(place: Place) -> None:
    place.reasoner.script = malformed
    with strict(place.folder) as saver:
        graph = tray().compile(checkpointer=saver)
        paused = graph.invoke({"photos": place.photos(2)}, thread(), context=place.plant)
        first, second = in_order(paused["__interrupt__"])
        assert asked(first)["reason"] == "malformed-answer"
        assert first.response_schema["required"] == ["finding", "by"]
        answer = Command(resume={first.id: CONFORMING})
        paused = graph.invoke(answer, thread(), context=place.plant)
        assert [pause.id for pause in paused["__interrupt__"]] == [second.id]
        answer = Command(resume={second.id: SCRAPPED})
        end = graph.invoke(answer, thread(), context=place.plant)
    assert end["detail"] == ["part-000 OK ann", "part-001 NotOK bob"]
    assert len(place.reasoner.asked) == 2
    assert all(one.closed_at for one in place.audit.inspections())


async def test_pauses_resume_with_an_async_checkpointer_too(place: Place) -> None:
    place.reasoner.script = malformed
    async with AsyncSqliteSaver.from_conn_string(str(place.folder / "a.db")) as saver:
        graph = tray().compile(checkpointer=saver)
        paused = await graph.ainvoke({"photos": place.photos(2)}, thread(), context=place.plant)
        both = answers(paused, CONFORMING, SCRAPPED)
        end = await graph.ainvoke(both, thread(), context=place.plant)
    assert end["detail"] == ["part-000 OK ann", "part-001 NotOK bob"]
    assert len(place.reasoner.asked) == 2


def test_what_was_decided_in_the_store_resumes_on_any_answer(place: Place) -> None:
    place.reasoner.script = malformed
    graph = tray().compile(checkpointer=InMemorySaver())
    paused = graph.invoke({"photos": place.photos(1)}, thread(), context=place.plant)
    [review] = place.audit.reviews()
    place.audit.decide_review(review.id, ReviewDecision(finding=Finding.CONFORMING, by="cas"))
    end = graph.invoke(answers(paused, SCRAPPED), thread(), context=place.plant)
    assert end["detail"] == ["part-000 OK cas"], "the first decision stands"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("approve", "no decision in the store yet"),
        ({"finding": "fine", "by": "ann"}, "finding: Input should be"),
        ({"finding": "conforming"}, "by: Field required"),
        ({"finding": "nonconforming", "by": "ann"}, "needs a disposition"),
        ({**SCRAPPED, "rule": "R9"}, "the recipe has no rule 'R9'"),
    ],
)
def test_an_answer_that_is_no_decision_pauses_again_and_says_why(
    place: Place, answer: Any, why: str
) -> None:
    place.reasoner.script = malformed
    graph = tray().compile(checkpointer=InMemorySaver())
    paused = graph.invoke({"photos": place.photos(1)}, thread(), context=place.plant)
    again = graph.invoke(answers(paused, answer), thread(), context=place.plant)
    assert why in asked(again["__interrupt__"][0])["refused"]
    end = graph.invoke(answers(again, CONFORMING), thread(), context=place.plant)
    assert end["detail"] == ["part-000 OK ann"]


def test_another_thread_finds_what_is_recorded(place: Place) -> None:
    photos = place.photos(2)
    place.reasoner.script = by_photo(photos, good, malformed)
    graph = tray().compile(checkpointer=InMemorySaver())
    for name in ("a", "b"):
        paused = graph.invoke({"photos": photos}, thread(name), context=place.plant)
        assert len(paused["__interrupt__"]) == 1
    end = graph.invoke(answers(paused, CONFORMING), thread("b"), context=place.plant)
    [pause] = graph.get_state(thread("a")).interrupts
    other = graph.invoke(Command(resume={pause.id: "go on"}), thread("a"), context=place.plant)
    assert end["detail"] == other["detail"] == ["part-000 OK reasoner", "part-001 OK ann"]
    assert len(place.reasoner.asked) == place.audit.count(InspectionFilter()) == 2


def test_a_moved_image_does_not_matter_to_a_pause(place: Place) -> None:
    place.reasoner.script = malformed
    graph = tray().compile(checkpointer=InMemorySaver())
    [photo] = place.photos(1)
    paused = graph.invoke({"photos": [photo]}, thread(), context=place.plant)
    Path(photo).unlink()
    resuming = Plant(replace(place.station, reasoner=None, recipes={}))
    end = graph.invoke(answers(paused, CONFORMING), thread(), context=resuming)
    assert end["detail"] == ["part-000 OK ann"]
    assert place.audit.count(InspectionFilter()) == 1


def test_steps_are_streamed_to_the_parent(place: Place) -> None:
    events = list(
        tray()
        .compile()
        .stream(
            {"photos": place.photos(1)},
            context=place.plant,
            stream_mode=["custom", "updates"],
            subgraphs=True,
        )
    )
    told = [data for _, mode, data in events if mode == "custom"]
    assert [event["step"] for event in told] == ["take_in", "read", "judge", "decide", "record"]
    assert {event["part_id"] for event in told} == {"part-000"}
    assert told[-1]["result"] == "OK"
    assert events[-1][2] == {"inspect": {"detail": ["part-000 OK reasoner"]}}


async def test_steps_are_streamed_async(place: Place) -> None:
    stream = (
        tray()
        .compile()
        .astream(
            {"photos": place.photos(1)}, context=place.plant, stream_mode="custom", subgraphs=True
        )
    )
    assert [event["step"] async for _, event in stream][-1] == "record"


def raising(error: Exception) -> Script:
    def script(question: Question) -> Judgement:
        raise error

    return script


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ReasonerTimeout("too slow"), ReasonerTimeout),
        (ReasonerUnavailable("no server"), ReasonerError),
        (RuntimeError("a bug"), ReasonerError),
    ],
)
def test_failures_are_raised_where_the_parent_wants_to_route_on_them(
    place: Place, raised: Exception, expected: type[Exception]
) -> None:
    place.reasoner.script = raising(raised)
    graph = tray(raise_failures=True).compile()
    with pytest.raises(expected, match=f"part-000: .*{raised}.*lad-agent review show"):
        graph.invoke({"photos": place.photos(1)}, context=place.plant)
    [review] = place.audit.reviews()
    assert review.kind == "escalation", "recorded, and waiting for a person all the same"


def test_an_unreadable_image_is_raised_and_doubt_is_not(place: Place) -> None:
    [photo] = place.photos(1)
    graph = tray(raise_failures=True).compile(checkpointer=InMemorySaver())
    with pytest.raises(UnreadableInput, match="gone"):
        graph.invoke({"photos": [photo + "gone"]}, thread("a"), context=place.plant)
    place.reasoner.script = malformed
    assert graph.invoke({"photos": [photo]}, thread("b"), context=place.plant)["__interrupt__"]


def test_an_error_handler_of_the_parent_catches_them_by_type(place: Place) -> None:
    place.reasoner.script = raising(ReasonerTimeout("too slow"))

    def handler(state: Tray, error: NodeError) -> Command[Any]:
        kind = type(error.error).__name__
        return Command(update={"detail": [f"{error.node}: {kind}"]}, goto=END)

    graph = StateGraph(Tray, context_schema=Plant)
    node = inspection_node(
        take=take, give=give, station=lambda plant: plant.camera, raise_failures=True
    )
    graph.add_node("inspect", node, error_handler=handler)
    graph.add_edge(START, "inspect")
    [photo] = place.photos(1)
    end = graph.compile().invoke({"image": photo}, context=place.plant)
    assert end["detail"] == ["inspect: ReasonerTimeout"]


def test_without_a_recipe_or_a_reasoner_one_line_says_what_is_missing(place: Place) -> None:
    graph, photos = tray().compile(), place.photos(1)
    nothing = Plant(replace(place.station, recipes={}))
    with pytest.raises(NotFound, match="screw_bag: station camera-1 has no such recipe"):
        graph.invoke({"photos": photos}, context=nothing)
    with pytest.raises(UsageError, match="camera-1 has no reasoner"):
        graph.invoke({"photos": photos}, context=Plant(replace(place.station, reasoner=None)))
    one = recipe.load(write_recipe(place.folder / "one", audit_rate=0.1))
    two = {**place.station.recipes, one.recipe_version: one}
    with pytest.raises(UsageError, match="several recipes here"):
        graph.invoke({"photos": photos}, context=Plant(replace(place.station, recipes=two)))
    assert replace(place.station, recipes=two).recipe(one.recipe_version) == one


def test_a_store_that_fails_is_a_store_error_and_the_thread_goes_on_later(place: Place) -> None:
    closed = AsyncStore(place.audit)
    blocking(closed.aclose())
    graph = tray().compile(checkpointer=InMemorySaver())
    broken = Plant(replace(place.station, store=closed))
    with pytest.raises(StoreError, match="was closed"):
        graph.invoke({"photos": place.photos(1)}, thread(), context=broken)
    end = graph.invoke(None, thread(), context=place.plant)
    assert end["detail"] == ["part-000 OK reasoner"]


def test_the_graph_alone_takes_a_part_and_returns_plain_values(place: Place) -> None:
    place.reasoner.script = bad
    graph = build_inspection_graph(InMemorySaver())
    [photo] = place.photos(1)
    part = {"part_id": "P", "image": os.path.relpath(photo), "recipe": "screw_bag", "lot": "L"}
    end = graph.invoke(part, thread(), context=place.station)  # type: ignore[call-overload]
    assert (end["outcome"]["final"], end["outcome"]["lot"], end["review"]) == ("NotOK", "L", None)
    again = {**part, "attempt": 2}
    end = graph.invoke(again, thread(), context=place.station)  # type: ignore[call-overload]
    assert end["outcome"]["attempt"] == 2
    assert place.audit.count(InspectionFilter()) == 2


class Hanging(Scripted):
    """Judges until the process is killed, where the script has nothing to say."""

    async def judge(self, question: Question) -> Judgement:
        try:
            return await super().judge(question)
        except NotImplementedError:
            return await asyncio.get_running_loop().create_future()


def doomed(folder: Path) -> None:
    """The first part is good, the second is in doubt, the third is judged until the kill."""
    photos = [str(path) for path in sorted((folder / "parts").glob("*.png"))]
    script = by_photo(photos, good, malformed, raising(NotImplementedError()))
    work(folder, Hanging(script), {"photos": photos})


def work(folder: Path, reasoner: Scripted, request: Any) -> Any:
    """One process of the line: its own store, its own reasoner, the same files."""
    with open_store(folder / "audit.db") as audit, strict(folder) as saver:
        store = AsyncStore(audit)
        graph = tray().compile(checkpointer=saver)
        for _, event in graph.stream(
            request,
            thread(),
            context=Plant(station(folder, store, reasoner)),
            stream_mode="custom",
            subgraphs=True,
            durability="sync",
        ):
            print(event["part_id"], event["step"], flush=True)
        blocking(store.aclose())
        return graph.get_state(thread())


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_an_escalation_is_answered_in_the_parent_after_the_process_was_killed(
    tmp_path: Path,
) -> None:
    write_parts(tmp_path / "parts", 3)
    code = f"from tests.graphs.test_embedding import *; doomed(Path({str(tmp_path)!r}))"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as child:
        awaited = {"part-000 record", "part-001 escalate", "part-002 read"}
        try:
            assert child.stdout is not None
            while awaited and (line := child.stdout.readline()):
                awaited.discard(line.strip())
        finally:
            child.kill()
    assert (awaited, child.returncode) == (set(), -signal.SIGKILL)
    reasoner = Scripted(good)
    state = work(tmp_path, reasoner, None)
    [pause] = state.interrupts
    assert asked(pause)["reason"] == "malformed-answer"
    state = work(tmp_path, reasoner, Command(resume={pause.id: SCRAPPED}))
    assert state.next == ()
    assert state.values["detail"] == [
        "part-000 OK reasoner",
        "part-001 NotOK bob",
        "part-002 OK reasoner",
    ]
    assert len(reasoner.asked) == 1, "only what was cut off is judged again"
    with open_store(tmp_path / "audit.db", create=False) as audit:
        assert audit.count(InspectionFilter(complete=True)) == len(audit.inspections()) == 3
        assert audit.verify_chain().intact
