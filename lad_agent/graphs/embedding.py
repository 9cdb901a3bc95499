"""The inspection as a part of somebody's larger graph: from a part to its final result.

    take_in -> (the steps of one inspection) -> report

The parent keeps its own state, context and checkpointer; `inspection_node` needs two adapters. What
the reasoner is not sure of pauses the parent's thread and resumes there.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypedDict

from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime, get_runtime
from langgraph.types import Checkpointer
from pydantic import BaseModel, ConfigDict

from lad_agent.errors import (
    LadAgentError,
    NotFound,
    ReasonerError,
    ReasonerTimeout,
    StoreError,
    UnreadableInput,
    UsageError,
)
from lad_agent.graphs import state as states
from lad_agent.graphs.blocking import both
from lad_agent.graphs.inspection import wire
from lad_agent.graphs.intake import intake
from lad_agent.graphs.state import Context, State
from lad_agent.inspection import Intake, Outcome, ReviewDecision
from lad_agent.judgement import FAILURES, Reason, Result
from lad_agent.recipe import Recipe

Update = dict[str, Any]


class Part(BaseModel):
    """One image of one part. `recipe` is a product, or a recipe version where it has several.

    A part that is inspected once more on the same image needs another `attempt`; a new photograph
    is a new inspection by itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    part_id: str
    image: str
    recipe: str
    lot: str | None = None
    attempt: int = 1


@dataclass(frozen=True, kw_only=True)
class Station(Context):
    """Where parts are inspected; `name` and `actor` stand in every record."""

    name: str
    actor: str

    def recipe(self, name: str) -> Recipe:
        """The recipe of that product or version.

        Raises:
            NotFound: this station has none.
            UsageError: it has several of that product.
        """
        found = [r for version, r in self.recipes.items() if name in (version, r.product)]
        if len(found) == 1:
            return found[0]
        if found:
            versions = ", ".join(sorted(r.recipe_version for r in found))
            raise UsageError(f"{name}: several recipes here; give a version: {versions}")
        known = ", ".join(sorted({r.product for r in self.recipes.values()})) or "none"
        raise NotFound(f"{name}: station {self.name} has no such recipe; it has {known}")


@dataclass(frozen=True)
class Inspection:
    """What came out: `outcome.final` is never None; `review` is the person's decision, if any."""

    outcome: Outcome
    review: ReviewDecision | None


class Finished(TypedDict):
    """What the graph returns: an `Outcome`, and a `ReviewDecision` or None, as JSON values."""

    outcome: dict[str, Any]
    review: dict[str, Any] | None


class Progress(TypedDict):
    """The custom event after each step: what is known by then."""

    inspection_id: str
    part_id: str
    step: str
    result: str | None
    reason: str | None


class _Work(State):
    part_id: str
    recipe: str
    lot: str | None
    attempt: int
    outcome: dict[str, Any]
    review: dict[str, Any] | None


EmbeddedGraph = CompiledStateGraph[_Work, Station, Part, Finished]


def inspection_node(
    *,
    take: Callable[[Any], Part],
    give: Callable[[Any, Inspection], Any],
    station: Callable[[Any], Station],
    raise_failures: bool = False,
) -> Runnable[Any, Any]:
    """A node for a graph of any state and context, under `invoke` and `ainvoke`.

    `take` makes a part from the parent's state, `give` the parent's update from what came out, and
    `station` finds the station in the parent's context. All three run again when a pause is
    resumed, so they change nothing. Nothing else passes between the two states.

    See `build_inspection_graph` for `raise_failures`, pauses and errors.
    """
    graph = build_inspection_graph(raise_failures=raise_failures)

    def adapted(state: Any) -> tuple[Any, Station]:
        here: Runtime[Any] = get_runtime()
        return take(state).model_dump(), station(here.context)

    def inspect(state: Any) -> Any:
        part, there = adapted(state)
        return give(state, _inspection(graph.invoke(part, context=there)))

    async def ainspect(state: Any) -> Any:
        part, there = adapted(state)
        return give(state, _inspection(await graph.ainvoke(part, context=there)))

    return RunnableLambda(inspect, ainspect, name="inspection")


def build_inspection_graph(
    checkpointer: Checkpointer = None, *, raise_failures: bool = False
) -> EmbeddedGraph:
    """Compile the graph that `inspection_node` runs: `Part` in, `Finished` out, context `Station`.

    Without a parent, give each part a thread of its own. A part in doubt is recorded and pauses
    the thread, wherever the graph is embedded. Resume with the fields of a `ReviewDecision`, which
    is taken into the store, or with any other value once the store holds one; the first decision
    stands. What is no decision pauses again, and the pause says in `refused` why.

    With `raise_failures` a part that could not be read or judged at all is recorded and waits for
    its review as ever, but is raised as an error, with no pause.

    A step that was cut off runs again under the same id, and what the store holds is not judged
    again. Each step sends a `Progress` as custom event (stream with `subgraphs=True`).

    Raises, when run:
        NotFound, UsageError: the station has no such recipe, or several.
        StoreError: the store cannot be used; run the thread again when it can.
        UnreadableInput, ReasonerTimeout, ReasonerError: with `raise_failures`.
    """
    graph: StateGraph[_Work, Station, Part, Finished] = StateGraph(
        _Work, context_schema=Station, input_schema=Part, output_schema=Finished
    )
    graph.add_node("take_in", both(_told(_take_in)))
    wire(graph, node=lambda step: both(_told(step)), route=both)
    graph.add_node("report", both(_report))
    graph.add_edge(START, "take_in")
    graph.add_conditional_edges("take_in", both(_after_take_in), ["read", "escalate", "report"])
    if raise_failures:
        graph.add_conditional_edges("escalate", both(_after_escalate), ["await_review", "report"])
    else:
        graph.add_edge("escalate", "await_review")
    graph.add_edge("record", "report")
    graph.add_edge("report", END)
    return graph.compile(checkpointer=checkpointer, name="inspection")


async def _take_in(state: _Work, runtime: Runtime[Station]) -> Update:
    """Make the open row, or find it with what is recorded already."""
    part = Part(**{name: value for name, value in state.items() if name in Part.model_fields})
    station = runtime.context
    known = await asyncio.to_thread(_intake, part, station)
    opened = await station.store.take_in(known)
    earlier = await station.store.outcome(opened.id) if opened.complete else None
    begun = states.start(opened.id, known.image, known.image_sha256, known.recipe_version)
    if earlier is not None:
        begun["result"] = earlier.result.value
        begun["reason"] = earlier.reason.value if earlier.reason else None
    return {**begun}


async def _report(state: _Work, runtime: Runtime[Station]) -> Update:
    """The outcome as the store holds it; a failure is raised."""
    store = runtime.context.store
    outcome = await store.outcome(state["inspection_id"])
    if outcome is None:
        raise StoreError(f"inspection {state['inspection_id']} was not recorded; run it again")
    if outcome.final is None:
        raise _failure(outcome, state["detail"])
    review = await store.review_decision(outcome.id)
    return {
        "outcome": outcome.model_dump(mode="json"),
        "review": review.model_dump(mode="json") if review else None,
    }


# Routes are coroutines because LangGraph sends plain functions through a thread.
async def _after_take_in(state: _Work) -> str:
    if state["result"] is None:
        return "read"
    return "escalate" if state["result"] == Result.NOT_DECIDABLE else "report"


async def _after_escalate(state: _Work) -> str:
    return "report" if state["reason"] in FAILURES else "await_review"


def _told(step: Callable[..., Coroutine[Any, Any, Update]]) -> Any:
    """The step, with its progress sent to whoever streams."""

    @wraps(step)
    async def told(state: Any, runtime: Runtime[Station]) -> Update:
        update = await step(state, runtime)
        known = {**state, **update}
        runtime.stream_writer(
            Progress(
                inspection_id=known["inspection_id"],
                part_id=known["part_id"],
                step=step.__name__.removeprefix("_"),
                result=known["result"],
                reason=known["reason"],
            )
        )
        return update

    return told


def _intake(part: Part, station: Station) -> Intake:
    recipe = station.recipe(part.recipe)
    if station.reasoner is None:
        raise UsageError(f"station {station.name} has no reasoner; open one and give it")
    return intake(
        part.part_id,
        # resolve() would follow links, and name a part by what a link points to.
        Path(os.path.abspath(part.image)),  # noqa: PTH100
        recipe,
        station=station.name,
        model=station.reasoner.fingerprint,
        actor=station.actor,
        lot=part.lot,
        attempt=part.attempt,
    )


def _failure(outcome: Outcome, detail: str | None) -> LadAgentError:
    kind = _KINDS.get(outcome.reason, ReasonerError) if outcome.reason else ReasonerError
    what = f"{outcome.reason}: {detail}" if detail else f"{outcome.reason}"
    return kind(f"{outcome.part_id}: {what}; a person decides: lad-agent review show {outcome.id}")


_KINDS: Mapping[Reason, type[LadAgentError]] = {
    Reason.UNREADABLE: UnreadableInput,
    Reason.TIMED_OUT: ReasonerTimeout,
}


def _inspection(end: Mapping[str, Any]) -> Inspection:
    review = end["review"]
    return Inspection(
        Outcome.model_validate(end["outcome"]),
        ReviewDecision.model_validate(review) if review else None,
    )
