"""SynLOCO: a synthetic data set after MVTec LOCO AD, with the exact truth about each picture.

`sample` makes one picture in memory, `dataset.write` a folder in LOCO's layout. A picture depends
on (seed, product, index, split, kind, size) alone.
"""

import importlib
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import numpy as np

from lad_agent.rationale import Facts
from lad_agent.training.synloco.nuisance import Photo, held_out_axes, photograph
from lad_agent.training.synloco.scene import (
    HELD_OUT_BACKGROUNDS,
    TRAIN_BACKGROUNDS,
    Look,
    Plan,
    Scene,
)

__all__ = ["PRODUCTS", "Sample", "attributes", "classes", "module", "plan", "rules", "sample"]

PRODUCTS = ("screw_bag", "pushpins", "breakfast_box", "juice_bottle", "splicing_connectors")

Kind = Literal["normal", "logical", "structural", "varied"]
Split = Literal["train", "held-out"]


class Product(Protocol):
    """What a product's module offers."""

    CLASSES: tuple[str, ...]
    ATTRIBUTES: dict[str, tuple[str, ...]]
    RULES: tuple[tuple[str, str], ...]

    def normal(self, rng: np.random.Generator) -> Plan: ...
    def logical(self, rng: np.random.Generator) -> Plan: ...
    def structural(self, rng: np.random.Generator) -> Plan: ...
    def varied(self, rng: np.random.Generator) -> Plan: ...
    def draw(self, rng: np.random.Generator, plan: Plan, look: Look) -> Scene: ...


@dataclass(frozen=True)
class Sample:
    """A picture, its plan and its truth."""

    plan: Plan
    photo: Photo


def module(product: str) -> Product:
    """The module that plans and draws `product`."""
    if product not in PRODUCTS:
        raise ValueError(f"unknown product {product!r}; known: {', '.join(PRODUCTS)}")
    return cast(Product, importlib.import_module(f"{__name__}.{product}"))


def classes(product: str) -> tuple[str, ...]:
    """The plural nouns of what a product's pictures hold."""
    return module(product).CLASSES


def attributes(product: str) -> dict[str, tuple[str, ...]]:
    """The attributes of a product's pictures with their possible values."""
    return module(product).ATTRIBUTES


def rules(product: str) -> tuple[tuple[str, str], ...]:
    """Id and text of the rules of the shipped recipe."""
    return module(product).RULES


def sample(product: str, seed: int, index: int, split: Split, size: int, kind: Kind) -> Sample:
    """One picture of `size` px."""
    drawer = module(product)
    rng, beyond, planned = _planned(product, seed, index, split, kind)
    scene = drawer.draw(rng, planned, look(rng, beyond))
    return Sample(planned, photograph(rng, scene, size, beyond))


def facts_of(sample: Sample) -> Facts:
    """What is in a picture, with every class of its product listed."""
    places: dict[str, list[str]] = {noun: [] for noun in classes(sample.plan.product)}
    for part in sample.photo.parts:
        places[part.cls].append(part.cell)
    return Facts(sample.plan.product, places, dict(sample.photo.attributes))


def plan(product: str, seed: int, index: int, split: Split, kind: Kind) -> Plan:
    """What the picture of the same arguments shows, without drawing it."""
    return _planned(product, seed, index, split, kind)[2]


def _planned(
    product: str, seed: int, index: int, split: Split, kind: Kind
) -> tuple[np.random.Generator, tuple[str, ...], Plan]:
    rng = np.random.default_rng([seed, PRODUCTS.index(product), index])
    beyond = held_out_axes(rng, split)
    planned: Plan = getattr(module(product), kind)(rng)
    return rng, beyond, planned


def look(rng: np.random.Generator, beyond: tuple[str, ...]) -> Look:
    """Appearance of one picture; the background is held out where `beyond` names it."""
    kinds = HELD_OUT_BACKGROUNDS if "background" in beyond else TRAIN_BACKGROUNDS
    return Look(
        scale=float(rng.uniform(0.92, 1.06)),
        background=str(rng.choice(kinds)),
        hue_shift=float(rng.uniform(-1.0, 1.0)),
        touching=bool(rng.random() < 0.3),
        clutter=bool(rng.random() < 0.3),
    )
