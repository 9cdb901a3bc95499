"""A plant's floor for the pages: a store with pictures of two products, and the service over it."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import uvicorn
from PIL import Image

from lad_agent import rationale, recipe
from lad_agent.images import file_sha256
from lad_agent.inspection import Intake, ReviewDecision
from lad_agent.judgement import Decision, Judgement, Reason, Result
from lad_agent.service.app import create_app
from lad_agent.service.services import Services
from lad_agent.settings import Settings
from lad_agent.store import AuditStore
from lad_agent.training import synloco
from tests.scripted import Scripted

__all__ = ["Part", "ReviewDecision", "audit", "decide_alone", "escalate", "served", "services"]

PRODUCTS = ("screw_bag", "breakfast_box", "splicing_connectors")
MODEL = "pocket@test"


@dataclass(frozen=True)
class Part:
    """One inspection on the floor, and what is really in its picture."""

    inspection_id: str
    part_id: str
    product: str
    anomalous: bool
    rule: str | None


def services(store: AuditStore, **changed: object) -> Services:
    """The service's parts over `store`, with a reasoner that nobody asks."""
    settings = Settings(store=str(store.file), station="line-1", by="olga", **changed)
    recipes = {name: recipe.load(recipe.shipped(name)) for name in PRODUCTS}
    return Services(store=store, recipes=recipes, reasoner=Scripted(), settings=settings)


@contextmanager
def served(made: Services) -> Iterator[str]:
    """The service on a free port of this machine; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(create_app(made), "127.0.0.1", port, log_level="warning", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


def escalate(store: AuditStore, folder: Path, number: int, **changed: object) -> Part:
    """Inspect part `number` such that it waits for a person: half of the parts are good."""
    part, judged = _judged(store, folder, number, sure=0.35 + number * 7 % 30 / 100, **changed)
    store.escalate(
        part.inspection_id, Decision(Result.NOT_DECIDABLE, Reason.LOW_CONFIDENCE), judged
    )
    return part


def audit(store: AuditStore, folder: Path, number: int, **changed: object) -> Part:
    """Inspect part `number` such that the reasoner decides, and a person is asked blindly."""
    part, judged = _judged(store, folder, number, sure=0.97, **changed)
    result = Result.NOT_OK if judged.anomalous else Result.OK
    store.record(part.inspection_id, Decision(result, audit=True), judged)
    return part


def decide_alone(store: AuditStore, folder: Path, number: int, **changed: object) -> Part:
    """Inspect part `number` such that no person is needed."""
    part, judged = _judged(store, folder, number, sure=0.97, **changed)
    result = Result.NOT_OK if judged.anomalous else Result.OK
    store.record(part.inspection_id, Decision(result), judged)
    return part


def _judged(
    store: AuditStore,
    folder: Path,
    number: int,
    *,
    sure: float,
    name: str | None = None,
    size: int = 196,
    told: str | None = None,
    attempt: int = 1,
    file: str | None = None,
) -> tuple[Part, Judgement]:
    product = PRODUCTS[number % len(PRODUCTS)]
    found = _drawn(product, number, size)
    loaded = recipe.load(recipe.shipped(product))
    path = folder / (f"{product}-{number:03d}.png" if file is None else file)
    Image.fromarray(found.photo.image).save(path, "PNG", compress_level=1)
    part_id = f"{product}/{number:03d}" if name is None else name
    opened = store.take_in(
        Intake(
            part_id=part_id,
            station="line-1",
            lot=f"L{number // 20}",
            attempt=attempt,
            image=str(path),
            image_sha256=file_sha256(path),
            product=product,
            task_version=loaded.task_version,
            recipe_version=loaded.recipe_version,
            recipe_path=str(loaded.path),
            model=MODEL,
            actor="otto",
        )
    )
    judged = _judgement(found, loaded, sure, told)
    part = Part(opened.id, part_id, product, bool(judged.anomalous), judged.rule)
    return part, judged


@cache
def _drawn(product: str, number: int, size: int) -> synloco.Sample:
    """Odd parts are good."""
    return synloco.sample(product, 5, number, "train", size, "normal" if number % 2 else "logical")


def _judgement(
    found: synloco.Sample, loaded: recipe.Recipe, sure: float, told: str | None
) -> Judgement:
    """What a reasoner that sees everything says, with little confidence where it is asked to."""
    places: dict[str, list[str]] = {noun: [] for noun in synloco.classes(loaded.product)}
    for part in found.photo.parts:
        places[part.cls].append(part.cell)
    facts = rationale.Facts(loaded.product, places, dict(found.photo.attributes))
    statements = rationale.clauses(loaded.product, loaded.rules, facts)
    text = rationale.write(statements) if told is None else told
    anomalous = any(not statement.ok for statement in statements)
    rule, named = rationale.named_fault(text)
    return Judgement(
        anomalous=anomalous,
        anomaly_score=0.5 + (0.5 if anomalous else -0.5) * sure,
        confidence=sure,
        rationale=text,
        rule=rule,
        places=named,
        raw_text=text,
        well_formed=True,
        weakest_token=sure,
        evidence="consistent",
        model=MODEL,
        tokens=60,
        elapsed_s=0.2,
    )
