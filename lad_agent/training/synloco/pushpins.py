"""Pushpins: a tray of three rows of five compartments with one pin in each."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from lad_agent.training.synloco import sprites
from lad_agent.training.synloco.scene import (
    BOARD,
    DAMAGE,
    DAMAGE_KINDS,
    Image,
    Look,
    Part,
    Plan,
    Point,
    Scene,
    part_from_mask,
)
from lad_agent.training.synloco.sprites import Sprite

PRODUCT = "pushpins"
FILLED, EMPTY, CROWDED = "filled compartments", "empty compartments", "crowded compartments"
CLASSES: tuple[str, ...] = (FILLED, EMPTY, CROWDED, DAMAGE)
ATTRIBUTES: dict[str, tuple[str, ...]] = {}
RULES: tuple[tuple[str, str], ...] = (
    ("R1", "exactly 0 empty compartments"),
    ("R2", "exactly 0 crowded compartments"),
    ("R3", "exactly 0 damaged places"),
)
ROWS, COLUMNS = 3, 5
_PITCH, _WALL = 68.0, 3.0
_COLOURS = ((226, 190, 34), (206, 44, 44), (40, 96, 190), (52, 150, 74), (232, 232, 228))
Needle = npt.NDArray[np.float64]
"""Points [n, 2] of a pin from its head to its tip, in board pixels."""
_DAMAGE_WORDS = {
    "scratch": "scratch on the tray",
    "bent": "bent needle",
    "dirt": "dirt in the tray",
    "broken": "broken wall of the tray",
}


def normal(rng: np.random.Generator) -> Plan:
    """One pin in each compartment."""
    return _plan(0, 0)


def logical(rng: np.random.Generator) -> Plan:
    """Empty or crowded compartments, one to four; now and then both."""
    number = int(rng.choice((1, 2, 3, 4), p=(0.5, 0.25, 0.15, 0.1)))
    if rng.random() < 0.5:
        crowded = int(rng.integers(1, 3)) if rng.random() < 0.2 else 0
        cause = _cause("empty", number)
        return replace(_plan(number, crowded), cause=cause, rule="R1")
    return replace(_plan(0, number), cause=_cause("crowded", number), rule="R2")


def structural(rng: np.random.Generator) -> Plan:
    """A complete tray with one damage, sometimes two."""
    kind = DAMAGE_KINDS[int(rng.integers(len(DAMAGE_KINDS)))]
    count = 2 if rng.random() < 0.25 else 1
    cause = _DAMAGE_WORDS[kind]
    return replace(_plan(0, 0, count), structural=kind, cause=cause, rule="R3")


def varied(rng: np.random.Generator) -> Plan:
    """0 to 6 empty and 0 to 6 crowded compartments; damage in 15%."""
    empty, crowded = rng.choice(7, size=2, p=(0.3, 0.2, 0.16, 0.12, 0.1, 0.07, 0.05)).tolist()
    if rng.random() < 0.15:
        kind = DAMAGE_KINDS[int(rng.integers(len(DAMAGE_KINDS)))]
        count = 2 if rng.random() < 0.25 else 1
        return replace(_plan(empty, crowded, count), structural=kind)
    return _plan(empty, crowded)


def draw(rng: np.random.Generator, plan: Plan, look: Look) -> Scene:
    """Draw the tray and its pins."""
    image, colour = sprites.background(rng, look.background, look.hue_shift)
    pitch = _PITCH * plan.scale * min(look.scale, 1.06)
    bare = image.copy()
    left, top = _tray(rng, image, pitch)
    contents = _contents(rng, plan)
    colours = _colours(rng)
    bent = _bent(rng, plan, contents)
    parts: list[Part] = []
    mask = sprites.blank() if plan.structural or plan.rule else None
    lying: list[list[Needle]] = []
    for number, pins in enumerate(contents):
        row, column = divmod(number, COLUMNS)
        box = (
            left + column * pitch, top + row * pitch,
            left + (column + 1) * pitch, top + (row + 1) * pitch,
        )  # fmt: skip
        cls = EMPTY if pins == 0 else FILLED if pins == 1 else CROWDED
        parts.append(Part(cls, box, ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)))
        if mask is not None and plan.rule and cls != FILLED:
            sprites.polygon(mask, sprites.rounded(box, 4), 255)
        lying.append(_needles(rng, box, pins, number in bent))
    size = pitch / _PITCH
    _shade(image, [points for needles in lying for points in needles], size)
    for number, needles in enumerate(lying):
        for points in needles:
            _pin(rng, image, points, colours, size, number in bent)
        if number in bent:
            hurt = sprites.blank()
            sprites.stroke(hurt, needles[0], 255, 9)
            parts.append(part_from_mask(DAMAGE, hurt))
            if mask is not None:
                mask |= hurt
    if plan.structural and plan.structural != "bent" and mask is not None:
        for hurt in _damages(rng, image, bare, plan, (left, top), pitch):
            parts.append(part_from_mask(DAMAGE, hurt))
            mask |= hurt
    return Scene(PRODUCT, image, tuple(parts), {}, mask, colour)


def _cause(what: str, number: int) -> str:
    words = ("one", "two", "three", "four")
    return f"{words[number - 1]} {what} compartment{'s' if number > 1 else ''}"


def _plan(empty: int, crowded: int, damage: int = 0) -> Plan:
    filled = ROWS * COLUMNS - empty - crowded
    return Plan(PRODUCT, {FILLED: filled, EMPTY: empty, CROWDED: crowded, DAMAGE: damage})


def _contents(rng: np.random.Generator, plan: Plan) -> list[int]:
    """Pins in each compartment, in reading order."""
    crowded = [int(rng.choice((2, 3), p=(0.8, 0.2))) for _ in range(plan.counts[CROWDED])]
    pins = [0] * plan.counts[EMPTY] + crowded + [1] * plan.counts[FILLED]
    return [pins[i] for i in rng.permutation(len(pins))]


def _bent(rng: np.random.Generator, plan: Plan, contents: list[int]) -> set[int]:
    """Compartments whose one pin has a bent needle."""
    if plan.structural != "bent":
        return set()
    singles = [i for i, pins in enumerate(contents) if pins == 1]
    return set(rng.choice(singles, size=plan.counts[DAMAGE], replace=False).tolist())


def _colours(rng: np.random.Generator) -> list[sprites.Colour]:
    """One colour for all pins, or a mixture."""
    if rng.random() < 0.6:
        return [_COLOURS[int(rng.integers(len(_COLOURS)))]]
    return list(_COLOURS)


def _tray(rng: np.random.Generator, image: Image, pitch: float) -> Point:
    """Draw the tray; returns the left top corner of its compartments."""
    width, height = COLUMNS * pitch, ROWS * pitch
    reach_x, reach_y = (BOARD - width) / 2 - 14, (BOARD - height) / 2 - 16
    left = (BOARD - width) / 2 + float(rng.uniform(-reach_x, reach_x)) * (reach_x > 0)
    top = (BOARD - height) / 2 + float(rng.uniform(-reach_y, reach_y))
    body = (left - 8, top - 8, left + width + 8, top + height + 8)
    outer = sprites.blank()
    sprites.polygon(outer, sprites.rounded(body, 10), 255)
    sprites.shadow(image, outer, (4, 6), 9, 0.45)
    wall = sprites.jitter(rng, (168, 172, 180), 14)
    floor = sprites.jitter(rng, (218, 220, 224), 12)
    sprites.polygon(image, sprites.rounded(body, 10), wall)
    for number in range(ROWS * COLUMNS):
        row, column = divmod(number, COLUMNS)
        x, y = left + column * pitch, top + row * pitch
        box = (x + _WALL, y + _WALL, x + pitch - _WALL, y + pitch - _WALL)
        dark = (floor[0] - 34, floor[1] - 34, floor[2] - 32)
        sprites.polygon(image, sprites.rounded(box, 6), dark)
        low = (box[0] + 2, box[1] + 3, box[2], box[3])
        sprites.polygon(image, sprites.rounded(low, 6), floor)
    return left, top


def _needles(
    rng: np.random.Generator,
    box: tuple[float, float, float, float],
    count: int,
    bent: bool,
) -> list[Needle]:
    """Where the pins of a compartment lie, apart from each other as far as it goes."""
    size = (box[2] - box[0]) / _PITCH
    margin = (19.0 if count == 1 else 16.0) * size
    inner = np.array([box[0] + margin, box[1] + margin, box[2] - margin, box[3] - margin])
    middle = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    heads: list[npt.NDArray[np.float64]] = []
    for _ in range(count):
        options = rng.uniform(inner[:2], inner[2:], (24, 2))
        if heads:
            away = np.hypot(*(options[:, None] - np.array(heads)[None]).transpose(2, 0, 1))
            options = options[np.argsort(-away.min(axis=1))]
        heads.append(options[0])
    out = []
    for head in heads:
        aim = middle + rng.uniform(-8, 8, 2) - head
        turn = float(np.arctan2(aim[1], aim[0]) + rng.uniform(-0.9, 0.9))
        length = 27.0 * size
        along = np.array([np.cos(turn), np.sin(turn)])
        points = np.stack([head, head + along * length])
        if bent:
            across = np.array([-along[1], along[0]])
            knee = head + along * length * 0.62
            points = np.stack([head, knee, knee + (across * 0.95 - along * 0.3) * 18 * size])
        out.append(points)
    return out


def _shade(image: Image, needles: list[Needle], size: float) -> None:
    """The shadow of all pins."""
    shade = sprites.blank()
    for points in needles:
        sprites.stroke(shade, points, 255, 3)
        sprites.disc(shade, (points[0, 0], points[0, 1]), 12 * size, 255)
    if needles:
        sprites.shadow(image, shade, (2, 3), 3, 0.45)


def _pin(
    rng: np.random.Generator,
    image: Image,
    points: Needle,
    colours: list[sprites.Colour],
    size: float,
    bent: bool,
) -> None:
    sprites.stroke(image, points, (92, 94, 100), 6 if bent else 3)
    sprites.stroke(image, points - 0.6, (196, 200, 206), 2 if bent else 1)
    colour = colours[int(rng.integers(len(colours)))]
    gain = np.asarray(colour) / 255 * rng.uniform(0.92, 1.08)
    sprites.paste(image, _head(), (points[0, 0], points[0, 1]), 0.0, size, gain.tolist())


@cache
def _head() -> Sprite:
    return sprites.ball(13)


def _damages(
    rng: np.random.Generator,
    image: Image,
    bare: Image,
    plan: Plan,
    corner: Point,
    pitch: float,
) -> list[Image]:
    """Damage on the tray at `plan.counts[DAMAGE]` places far from each other."""
    out: list[Image] = []
    spots: list[npt.NDArray[np.float64]] = []
    size = np.array([COLUMNS * pitch, ROWS * pitch])
    while len(out) < plan.counts[DAMAGE]:
        centre = np.asarray(corner) + rng.uniform(0.08, 0.92, 2) * size
        if plan.structural == "broken":
            column = int(rng.integers(1, COLUMNS))
            centre[0] = corner[0] + column * pitch
            centre[1] = corner[1] + (0.0 if rng.random() < 0.5 else size[1])
        if any(np.hypot(*(centre - other)) < 100 for other in spots):
            continue
        spots.append(centre)
        at = (float(centre[0]), float(centre[1]))
        if plan.structural == "scratch":
            out.append(
                sprites.scratch(
                    image, rng, at, float(rng.uniform(50, 80)), float(rng.uniform(0, np.pi))
                )
            )
        elif plan.structural == "dirt":
            out.append(sprites.dirt(image, rng, at, float(rng.uniform(38, 52))))
        else:
            out.append(sprites.chip(image, bare, rng, at, float(rng.uniform(36, 46))))
    return [np.asarray(cv2.bitwise_and(mask, 255), np.uint8) for mask in out]
