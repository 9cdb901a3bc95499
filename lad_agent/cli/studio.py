"""The workflow for `langgraph dev`: takes a path instead of an open row, and opens what it needs.

Settings come from `lad-agent.toml` and `LAD_AGENT_*`, as for `lad-agent inspect`. A part in doubt
pauses the thread; resume it with a `ReviewDecision`, or decide it with `lad-agent review decide`
and resume with any value.
"""

import asyncio
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from lad_agent import images, inputs, reasoners, settings
from lad_agent.errors import UnreadableInput
from lad_agent.graphs import state as states
from lad_agent.graphs.inspection import build
from lad_agent.graphs.state import Context
from lad_agent.inspection import Intake
from lad_agent.reasoners.base import Reasoner
from lad_agent.recipe import Recipe
from lad_agent.settings import Settings
from lad_agent.store import AsyncStore, open_store


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
    return await (await asyncio.to_thread(_room)).take_in(state)


async def inspect(state: Work) -> Work:
    """Run the workflow; runs again from here on resume, where the pause goes on."""
    room = await asyncio.to_thread(_room)
    loaded = await asyncio.to_thread(inputs.find_recipe, state["recipe_path"], Path("/"))
    context = Context(room.store, room.reasoner, {state["recipe_version"]: loaded})
    start = states.start(
        state["inspection_id"], state["image"], state["image_sha256"], state["recipe_version"]
    )
    await build().ainvoke(start, context=context)
    outcome = await room.store.outcome(state["inspection_id"])
    return {"outcome": outcome.model_dump(mode="json") if outcome else None}


class _Room:
    """Store and reasoner of this process."""

    def __init__(self, chosen: Settings) -> None:
        self.chosen = chosen
        self.store = AsyncStore(open_store(chosen.store))
        self.reasoner: Reasoner = reasoners.open_reasoner(
            chosen.reasoner, device=chosen.device, adapter=chosen.adapter
        )

    async def take_in(self, state: Work) -> Work:
        item, sha256 = await asyncio.to_thread(_find, state)
        opened = await self.store.take_in(self._intake(item.part_id, item, sha256))
        return {
            "inspection_id": opened.id,
            "image": str(item.image),
            "image_sha256": sha256,
            "recipe_path": str(item.recipe.path),
            "recipe_version": item.recipe.recipe_version,
        }

    def _intake(self, part_id: str, item: inputs.Item, sha256: str | None) -> Intake:
        found: Recipe = item.recipe
        return Intake(
            part_id=part_id,
            station=self.chosen.station,
            image=str(item.image),
            image_sha256=sha256,
            product=found.product,
            task_version=found.task_version,
            recipe_version=found.recipe_version,
            recipe_path=str(found.path),
            model=self.reasoner.fingerprint,
            actor=self.chosen.by,
        )


@cache
def _room() -> _Room:
    return _Room(settings.load())


def _find(state: Work) -> tuple[inputs.Item, str | None]:
    gathered = inputs.gather([Path(state["image"])], recipe_name=state.get("recipe"), limit=1)
    item = gathered.items[0]
    if part_id := state.get("part_id"):
        item = inputs.Item(part_id, item.image, item.recipe)
    try:
        return item, images.file_sha256(item.image)
    except UnreadableInput:
        return item, None


def _wire() -> StateGraph[Work, None, Request, Work]:
    wired: StateGraph[Work, None, Request, Work] = StateGraph(Work, input_schema=Request)
    wired.add_node("take_in", take_in)
    wired.add_node("inspect", inspect)
    wired.add_edge(START, "take_in")
    wired.add_edge("take_in", "inspect")
    wired.add_edge("inspect", END)
    return wired


graph = _wire().compile(name="inspection")
