"""A reasoner that answers by script, and small recipes and parts to judge with it."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from lad_agent import rationale
from lad_agent.cells import CELLS
from lad_agent.judgement import Judgement
from lad_agent.reasoners.base import Drawn, Question, judgement

Script = Callable[[Question], Judgement]

RECIPE = """\
product: {product}
rules:
  - id: R1
    text: exactly 2 washers
references: [reference.png]
policy:
  samples: 0
  audit_rate: {audit_rate}
  time_limit_s: {time_limit_s}
  min_confidence: {min_confidence}
"""


class Scripted:
    """Implements `Reasoner`: calls the script, after `delay_s`; notes what it was asked."""

    def __init__(
        self,
        script: Script | None = None,
        *,
        delay_s: float = 0.0,
        fingerprint: str = "scripted",
        products: frozenset[str] | None = None,
    ) -> None:
        self.script = script or by_hash
        self.delay_s = delay_s
        self.fingerprint = fingerprint
        self.products = products
        self.asked: list[str] = []
        self.closed = False

    async def judge(self, question: Question) -> Judgement:
        self.asked.append(question.image_sha256)
        await asyncio.sleep(self.delay_s)
        return self.script(question)

    async def aclose(self) -> None:
        self.closed = True


def good(question: Question) -> Judgement:
    """Every rule holds; the rationale says so in the recipe's own terms."""
    told = rationale.write(_statements(question, holds=True))
    return _says(question, f"<think>{told}</think><answer>no</answer>", 0.01)


def bad(question: Question) -> Judgement:
    """The first rule is broken."""
    told = rationale.write(_statements(question, holds=False))
    return _says(question, f"<think>{told}</think><answer>yes</answer>", 0.99)


def malformed(question: Question) -> Judgement:
    return _says(question, "<think>no end", None)


def by_hash(question: Question) -> Judgement:
    """The same for the same image: half good, three eighths bad, one eighth malformed."""
    digit = int(question.image_sha256[0], 16)
    return (good if digit < 8 else bad if digit < 14 else malformed)(question)


def write_recipe(
    folder: Path,
    product: str = "screw_bag",
    *,
    audit_rate: float = 0.0,
    time_limit_s: float = 60,
    min_confidence: float = 0.6,
) -> Path:
    """A recipe with one rule and its reference picture; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    part(folder.name, 0).save(folder / "reference.png")
    path = folder / "recipe.yaml"
    path.write_text(
        RECIPE.format(
            product=product,
            audit_rate=audit_rate,
            time_limit_s=time_limit_s,
            min_confidence=min_confidence,
        )
    )
    return path


def write_parts(folder: Path, count: int, name: str = "part") -> list[Path]:
    """`count` pictures that the gate lets pass, each with bytes of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}-{index:03d}.png" for index in range(count)]
    for index, path in enumerate(paths):
        part(f"{folder.name}/{name}", index + 1).save(path)
    return paths


def part(name: str, number: int, size: int = 100) -> Image.Image:
    """A picture of coloured boxes."""
    seed = hashlib.sha256(f"{name}/{number}".encode()).digest()[:8]
    rng = np.random.default_rng(list(seed))
    pixels = np.full((size, size, 3), 200, np.uint8)
    for _ in range(6):
        x, y = rng.integers(0, size - 30, 2)
        pixels[y : y + 25, x : x + 25] = rng.integers(0, 160, 3)
    return Image.fromarray(pixels)


def _statements(question: Question, *, holds: bool) -> list[rationale.Clause]:
    first, *rest = question.recipe.rules
    facts = _facts([rationale.read_rule(rule.text) for rule in (first, *rest)])
    if not holds:
        broken = rationale.read_rule(first.text)
        assert isinstance(broken, rationale.Count)
        places = list(CELLS[: broken.number - 1]) if broken.number else ["C3"]
        facts = replace(facts, places={**facts.places, broken.noun: places})
    facts = replace(facts, product=question.recipe.product)
    return rationale.clauses(question.recipe.product, question.recipe.rules, facts)


def _facts(forms: list[rationale.Form | None]) -> rationale.Facts:
    """Facts under which every rule holds."""
    places: dict[str, list[str]] = {}
    attributes: dict[str, str] = {}
    for form in forms:
        match form:
            case rationale.Count(noun, number):
                places[noun] = list(CELLS[:number])
            case rationale.Value(subject, value):
                attributes[subject] = value
            case rationale.Fit(subject, other, pairs):
                attributes |= {subject: pairs[0][0], other: pairs[0][1]}
            case rationale.Equal(subject, other):
                attributes[subject] = attributes.setdefault(other, "2")
    return rationale.Facts("", places, attributes)


def _says(question: Question, text: str, p_yes: float | None) -> Judgement:
    weakest, mean, total = (None, None, None) if p_yes is None else (0.99, -0.002, -0.018)
    drawn = Drawn(text, weakest, mean, total, p_yes, tokens=9)
    return judgement(question, drawn, (), model="scripted", elapsed_s=0.001)
