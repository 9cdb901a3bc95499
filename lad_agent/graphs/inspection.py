"""The wiring: read -> judge -> decide -> (record | escalate -> await_review -> record)."""

from collections.abc import Callable
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Checkpointer

from lad_agent.graphs import nodes
from lad_agent.graphs.state import Context, State
from lad_agent.judgement import Result

InspectionGraph = CompiledStateGraph[State, Context, State, State]


def build(checkpointer: Checkpointer = None) -> InspectionGraph:
    """Compile the workflow.

    Run it with `ainvoke(state.start(...), {"configurable": {"thread_id": inspection_id}},
    context=Context(...), durability="exit")`: the store is the truth, a checkpoint only carries
    the pause before a review. To embed it in another graph, see `lad_agent.graphs.embedding`.
    """
    graph: StateGraph[State, Context, State, State] = StateGraph(State, context_schema=Context)
    wire(graph)
    graph.add_edge(START, "read")
    graph.add_edge("escalate", "await_review")
    graph.add_edge("record", END)
    return graph.compile(checkpointer=checkpointer, name="inspection")


def wire(
    graph: StateGraph[Any, Any, Any, Any],
    *,
    node: Callable[[Any], Any] = lambda step: step,
    route: Callable[[Any], Any] = lambda step: step,
) -> None:
    """Add the steps and the ways between them, each wrapped in `node` or `route`.

    The ways to `read`, from `escalate` and from `record` are the caller's.
    """
    for name in ("read", "judge", "decide", "escalate", "await_review", "record"):
        graph.add_node(name, node(getattr(nodes, name)))
    graph.add_conditional_edges("read", route(_after_read), ["judge", "escalate"])
    graph.add_conditional_edges("judge", route(_after_judge), ["decide", "escalate"])
    graph.add_conditional_edges("decide", route(_after_decide), ["record", "escalate"])
    graph.add_edge("await_review", "record")


def thread(inspection_id: str) -> Any:
    """The run's configuration: one thread an inspection."""
    return {"configurable": {"thread_id": inspection_id}}


# Routes are coroutines because LangGraph sends plain functions through a thread.
async def _after_read(state: State) -> str:
    return "judge" if state["result"] is None else "escalate"


async def _after_judge(state: State) -> str:
    return "decide" if state["result"] is None else "escalate"


async def _after_decide(state: State) -> str:
    return "escalate" if state["result"] == Result.NOT_DECIDABLE else "record"
