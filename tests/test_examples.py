"""The examples run, and do what they say."""

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command

from lad_agent import AsyncStore, Station, blocking, open_store, recipe
from lad_agent.images import file_sha256
from lad_agent.store import AuditStore, ReviewFilter
from tests.scripted import Script, Scripted, bad, good, malformed, write_parts, write_recipe

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "embedding.md"
THREAD: Any = {"configurable": {"thread_id": "t"}}


class _Parent(TypedDict, total=False):
    serial: str
    photo: str
    verdict: str


@dataclass(frozen=True)
class _Plant:
    camera: Station


@pytest.fixture(scope="module")
def mes_line() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mes_line", ROOT / "examples" / "mes_line.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mes_line"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[AuditStore]:
    with open_store(tmp_path / "audit.db") as store:
        yield store


def _lines(folder: Path) -> tuple[dict[str, dict[str, Any]], Script]:
    """Parts by what happens to them, and the script that makes it happen."""
    plan: dict[str, tuple[Script, ...]] = {
        "good": (good, bad),
        "reworked": (bad, good),
        "hopeless": (bad, bad),
        "north": (good, bad),
        "scrapped": (malformed, good),
        "used": (malformed, bad),
        "sent back": (malformed, good),
        "gone": (bad, bad),
    }
    lines, scripts = {}, {}
    for serial, planned in plan.items():
        photos = write_parts(folder / serial, len(planned))
        scripts |= {file_sha256(p): script for p, script in zip(photos, planned, strict=True)}
        lines[serial] = {
            "serial": serial,
            "product": "screw_bag",
            "camera": "north" if serial == "north" else "south",
            "photos": [str(photo) for photo in photos],
            "reworked": 0,
        }
    Path(lines["gone"]["photos"][0]).unlink()
    return lines, lambda question: scripts[question.image_sha256](question)


def _nonconforming(disposition: str) -> dict[str, str]:
    return {"finding": "nonconforming", "disposition": disposition, "by": "ann"}


def test_the_line_packs_reworks_and_quarantines(
    mes_line: ModuleType, audit: AuditStore, tmp_path: Path
) -> None:
    lines, script = _lines(tmp_path)
    loaded = recipe.load(write_recipe(tmp_path / "recipe"))
    recipes, store = {loaded.recipe_version: loaded}, AsyncStore(audit)
    plant = mes_line.Plant(
        {
            "north": Station(store, mes_line.Unplugged(), recipes, name="north", actor="mes"),
            "south": Station(store, Scripted(script), recipes, name="south", actor="mes"),
        }
    )
    tray = mes_line.build_tray().compile(checkpointer=InMemorySaver())
    paused = tray.invoke({"parts": list(lines.values())}, THREAD, context=plant)
    waiting = {
        Path(pause.value["action_requests"][0]["args"]["image"]).parent.name: pause.id
        for pause in paused["__interrupt__"]
    }
    assert set(waiting) == {"scrapped", "used", "sent back"}
    answers = {
        waiting["scrapped"]: _nonconforming("scrap"),
        waiting["used"]: _nonconforming("use-as-is"),
        waiting["sent back"]: _nonconforming("rework"),
    }
    end = tray.invoke(Command(resume=answers), THREAD, context=plant)
    assert end["shipped"] == [
        "good packed",
        "reworked packed",
        "hopeless quarantined",
        "north packed",
        "scrapped quarantined",
        "used packed",
        "sent back packed",
        "gone quarantined",
    ]
    reasons = {r.inspected.outcome.reason for r in audit.reviews(ReviewFilter(decided=False))}
    assert reasons == {"timed-out", "unreadable"}, "what failed waits for a person all the same"
    blocking(store.aclose())


def test_its_command_goes_on_where_it_was_and_takes_answers(
    mes_line: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(mes_line, "open_reasoner", lambda: Scripted(malformed))

    def run(*args: str) -> str:
        monkeypatch.setattr(sys, "argv", ["mes_line.py", str(tmp_path), *args])
        mes_line.main()
        return capsys.readouterr().out

    first, second = run(), run()
    assert "SN-1 escalate NotDecidable timed-out" in first
    assert first.count("waits:") == second.count("waits:") == 5
    assert "judge" not in second
    answered = run("--conforming", "Ann")
    assert answered.splitlines()[-5:] == [f"SN-{number} packed" for number in range(1, 6)]
    assert run().splitlines() == answered.splitlines()[-5:]


def test_the_ten_lines_of_the_document_run(audit: AuditStore, tmp_path: Path) -> None:
    lines = DOCUMENT.read_text().split("```python\n")[1].split("```")[0]
    assert len([line for line in lines.splitlines() if line]) <= 10
    words: dict[str, Any] = {"StateGraph": StateGraph, "Line": _Parent, "Plant": _Plant}
    exec(lines, words)
    graph = words["line"].add_edge(START, "inspect").compile()
    loaded = recipe.load(write_recipe(tmp_path / "recipe"))
    store = AsyncStore(audit)
    plant = _Plant(
        Station(store, Scripted(bad), {loaded.recipe_version: loaded}, name="camera", actor="mes")
    )
    [photo] = write_parts(tmp_path / "parts", 1)
    end = graph.invoke({"serial": "SN-1", "photo": str(photo)}, context=plant)
    assert end["verdict"] == "NotOK"
    assert audit.inspections()[0].intake.part_id == "SN-1"
    blocking(store.aclose())
