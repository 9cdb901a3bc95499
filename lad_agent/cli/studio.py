"""The workflow for `langgraph dev`: takes a path instead of an open row, and opens what it needs.

Settings come from `lad-agent.toml` and `LAD_AGENT_*`, as for `lad-agent inspect`. A part in doubt
pauses the thread; resume it with a `ReviewDecision`, or decide it with `lad-agent review decide`
and resume with any value.
"""

import asyncio
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from lad_agent import inputs, settings
from lad_agent.graphs import state as states
from lad_agent.graphs.inspection import build
from lad_agent.graphs.intake import intake
from lad_agent.graphs.state import Context
from lad_agent.inspection import Intake
from lad_agent.reasoners import Reasoner
from lad_agent.settings import Settings
from lad_agent.store import AsyncStore
from lad_agent.wiring import open_audit, open_reasoner


class Request(TypedDict, total=False):
    """What to inspect: `image` is a path; `recipe` a path or a product, else the nearest one."""

    image: str
    recipe: str | None
    part_id: str | None


class Work(Request, total=False):
    """The request with the open row that was made for it, and at last its outcome."""

    inspection_id: str
    image_sha256: str | None
    recipe_path: str
    recipe_version: str
    outcome: dict[str, Any] | None


async def take_in(state: Work) -> Work:
    """Make the open row, or find it."""
    room = await asyncio.to_thread(_room)
    known = await asyncio.to_thread(_intake, state, room)
    opened = await room.store.take_in(known)
    return {
        "inspection_id": opened.id,
        "image": known.image,
        "image_sha256": known.image_sha256,
        "recipe_path": known.recipe_path,
        "recipe_version": known.recipe_version,
    }


async def inspect(state: Work) -> Work:
    """Run the workflow; runs again from here on resume, where the pause goes on."""
    room = await asyncio.to_thread(_room)
    loaded = await asyncio.to_thread(inputs.find_recipe, state["recipe_path"], Path("/"))
    context = Context(
        room.store, room.reasoner, {state["recipe_version"]: loaded}, room.chosen.max_pixels
    )
    start = states.start(
        state["inspection_id"], state["image"], state["image_sha256"], state["recipe_version"]
    )
    await build().ainvoke(start, context=context)
    outcome = await room.store.outcome(state["inspection_id"])
    return {"outcome": outcome.model_dump(mode="json") if outcome else None}


@dataclass(frozen=True)
class _Room:
    """Settings, store and reasoner of this process."""

    chosen: Settings
    store: AsyncStore
    reasoner: Reasoner


@cache
def _room() -> _Room:
    chosen = settings.load()
    return _Room(chosen, AsyncStore(open_audit(chosen)), open_reasoner(chosen))


def _intake(state: Work, room: _Room) -> Intake:
    gathered = inputs.gather([Path(state["image"])], recipe_name=state.get("recipe"), limit=1)
    item = gathered.items[0]
    return intake(
        state.get("part_id") or item.part_id,
        item.image,
        item.recipe,
        station=room.chosen.station,
        model=room.reasoner.fingerprint,
        actor=room.chosen.by,
    )


def _wire() -> StateGraph[Work, None, Request, Work]:
    wired: StateGraph[Work, None, Request, Work] = StateGraph(Work, input_schema=Request)
    wired.add_node("take_in", take_in)
    wired.add_node("inspect", inspect)
    wired.add_edge(START, "take_in")
    wired.add_edge("take_in", "inspect")
    wired.add_edge("inspect", END)
    return wired


graph = _wire().compile(name="inspection")
