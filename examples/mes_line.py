"""A packing line with the inspection in its midst: a LangGraph of its own, adopted in ten lines.

    python examples/mes_line.py FOLDER                    # runs a tray; kill it at any moment
    python examples/mes_line.py FOLDER                    # goes on, shows what waits for a person
    python examples/mes_line.py FOLDER --conforming Ann   # Ann answers what waits

    tray -> one line for each part: route -> camera -> pack | rework -> camera | quarantine

The north camera's model has gone away: its parts time out and go to the south camera. The lamp went
out over the last part: a person decides about it.
"""

import argparse
import operator
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.errors import NodeError
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Send
from PIL import Image, ImageEnhance

from lad_agent import (
    AsyncStore,
    Disposition,
    Inspection,
    Judgement,
    Part,
    Question,
    Result,
    Station,
    blocking,
    inspection_node,
    load_recipe,
    open_reasoner,
    open_store,
)
from lad_agent.errors import ReasonerTimeout

PRODUCT = "pushpins"
REWORKS = 1
"""How often a part may come back from rework."""


@dataclass(frozen=True)
class Plant:
    """The parent's context."""

    cameras: Mapping[str, Station]


class Line(TypedDict, total=False):
    """One part on the line; `photos` are its pictures, one more after each rework."""

    serial: str
    product: str
    camera: str
    photos: list[str]
    reworked: int
    result: str
    disposition: str | None
    shipped: Annotated[list[str], operator.add]


class Shipped(TypedDict):
    """What a line hands to its tray. Only this, so that no other list is added twice."""

    shipped: Annotated[list[str], operator.add]


class Tray(Shipped):
    """The parts of a tray, and where each has gone."""

    parts: list[Line]


def build_line() -> CompiledStateGraph[Line, Plant, Line, Shipped]:
    """The line that one part runs through."""
    line = StateGraph(Line, context_schema=Plant, output_schema=Shipped)
    line.add_node("north", camera("north"), error_handler=camera_failed)
    line.add_node("south", camera("south"), error_handler=camera_failed)
    line.add_node("rework", rework)
    line.add_node("pack", ship("packed"))
    line.add_node("quarantine", ship("quarantined"))
    for name in (START, "rework"):
        line.add_conditional_edges(name, route, ["north", "south"])
    for name in ("north", "south"):
        line.add_conditional_edges(name, sort, ["pack", "rework", "quarantine"])
    return line.compile()


def build_tray() -> StateGraph[Tray, Plant, Tray, Tray]:
    """All parts of a tray at once, each on a line of its own."""
    tray = StateGraph(Tray, context_schema=Plant)
    tray.add_node("line", build_line())
    tray.add_conditional_edges(START, lambda s: [Send("line", part) for part in s["parts"]])
    tray.add_edge("line", END)
    return tray


def camera(name: str) -> Any:
    """The ten lines: a part out of the state, an update out of the inspection."""
    return inspection_node(
        take=lambda state: Part(
            part_id=state["serial"],
            image=state["photos"][state["reworked"]],
            recipe=state["product"],
            attempt=state["reworked"] + 1,
        ),
        give=seen,
        station=lambda plant: plant.cameras[name],
        raise_failures=True,
    )


def seen(state: Line, inspection: Inspection) -> Line:
    final, review = inspection.outcome.final, inspection.review
    disposition = review.disposition if review else None
    # Plain strings, so that every checkpoint can be read back.
    return {
        "result": final.value if final else Result.NOT_DECIDABLE.value,
        "disposition": disposition.value if disposition else None,
    }


def camera_failed(state: Line, error: NodeError) -> Command[Literal["south", "quarantine"]]:
    """A camera that times out is replaced by the other; what else it cannot see is put aside."""
    lost = isinstance(error.error, ReasonerTimeout) and error.node == "north"
    return Command(goto="south" if lost else "quarantine")


def route(state: Line) -> str:
    return state["camera"]


def sort(state: Line) -> str:
    """Doubt never gets here: a person has decided, or the reasoner was sure."""
    if state["result"] == Result.OK or state["disposition"] == Disposition.USE_AS_IS:
        return "pack"
    again = state["disposition"] in (None, Disposition.REWORK) and state["reworked"] < REWORKS
    return "rework" if again and len(state["photos"]) > state["reworked"] + 1 else "quarantine"


def rework(state: Line) -> Line:
    return {"reworked": state["reworked"] + 1}


def ship(where: str) -> Callable[[Line], Shipped]:
    return lambda state: {"shipped": [f"{state['serial']} {where}"]}


class Unplugged:
    """Stands for a reasoner whose server went away."""

    fingerprint = "unplugged"
    products = None

    async def judge(self, question: Question) -> Judgement:
        raise ReasonerTimeout("no answer within 0.2 s")

    async def aclose(self) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--conforming", metavar="NAME", help="answer all that waits")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    with (
        SqliteSaver.from_conn_string(str(chosen.folder / "line.db")) as saver,
        plant(chosen.folder) as context,
    ):
        tray = build_tray().compile(checkpointer=saver)
        thread: Any = {"configurable": {"thread_id": "tray-1"}}
        before = tray.get_state(thread)
        begin: Any = None if before.created_at else {"parts": list(parts(chosen.folder))}
        if chosen.conforming:
            answer = {"finding": "conforming", "comment": "all there", "by": chosen.conforming}
            begin = Command(resume={pause.id: answer for pause in before.interrupts})
        for _, event in tray.stream(
            begin, thread, context=context, stream_mode="custom", subgraphs=True, durability="sync"
        ):
            known = (event["part_id"], event["step"], event["result"], event["reason"])
            print(*(word for word in known if word), flush=True)
        after = tray.get_state(thread)
        for pause in after.interrupts:
            print("waits:", pause.value["action_requests"][0]["description"])
        print(*after.values["shipped"], sep="\n")


@contextmanager
def plant(folder: Path) -> Iterator[Plant]:
    """Two cameras, one store."""
    recipe = load_recipe(make(folder))
    recipes = {recipe.recipe_version: recipe}
    with open_store(folder / "audit.db") as audit:
        store, reasoner = AsyncStore(audit), open_reasoner()
        try:
            yield Plant(
                {
                    "north": Station(store, Unplugged(), recipes, name="north", actor="mes"),
                    "south": Station(store, reasoner, recipes, name="south", actor="mes"),
                }
            )
        finally:
            blocking(reasoner.aclose())
            blocking(store.aclose())


def parts(folder: Path) -> Iterator[Line]:
    """Five parts, every other one bad, each with the photograph of after its rework.

    The first photograph of the last one is too dark to be judged.
    """
    tests = folder / "pictures" / PRODUCT / "test"
    good = sorted((tests / "good").glob("*.png"))
    bad = sorted((tests / "logical_anomalies").glob("*.png"))
    for number in range(5):
        first = good[number] if number % 2 else bad[number]
        yield {
            "serial": f"SN-{number + 1}",
            "product": PRODUCT,
            "camera": "south" if number else "north",
            "photos": [
                str(first if number < 4 else dark(first, folder / "dark.png")),
                str(good[-1 - number]),
            ],
            "reworked": 0,
        }


def dark(photo: Path, unlit: Path) -> Path:
    """The photograph without the lamp."""
    with Image.open(photo) as lit:
        ImageEnhance.Brightness(lit).enhance(0.04).save(unlit)
    return unlit


def make(folder: Path) -> Path:
    """Make the pictures where there are none; returns their recipe."""
    pictures = folder / "pictures"
    if not pictures.exists():
        command = [Path(sys.executable).with_name("lad-agent"), "synth", pictures]
        subprocess.run([*command, "--product", PRODUCT, "--count", "20"], check=True)
    return pictures / PRODUCT / "recipe.yaml"


if __name__ == "__main__":
    main()
