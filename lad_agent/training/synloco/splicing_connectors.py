"""Splicing connectors: two lever connectors and a cable from a slot of one to one of the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt

from lad_agent.training.synloco import sprites
from lad_agent.training.synloco.overlay import affine, overlay
from lad_agent.training.synloco.scene import (
    BOARD,
    DAMAGE,
    DAMAGE_KINDS,
    Image,
    Look,
    Plan,
    Point,
    Scene,
    part_from_mask,
    part_from_outline,
)

PRODUCT = "splicing_connectors"
CONNECTORS, CABLES = "connectors", "cables"
CLASSES: tuple[str, ...] = (CONNECTORS, CABLES, DAMAGE)
LEFT_CLAMPS, RIGHT_CLAMPS = "left clamps", "right clamps"
LEFT_SLOT, RIGHT_SLOT = "left slot", "right slot"
COLOUR, REACH = "cable colour", "cable reach"
_SIZES = ("2", "3", "5", "none")
_SLOTS = ("1", "2", "3", "4", "5", "none")
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    LEFT_CLAMPS: _SIZES,
    RIGHT_CLAMPS: _SIZES,
    LEFT_SLOT: _SLOTS,
    RIGHT_SLOT: _SLOTS,
    COLOUR: ("yellow", "blue", "red", "none"),
    REACH: ("long", "short", "none"),
}
FITTING_COLOUR = {"2": "yellow", "3": "blue", "5": "red"}
RULES: tuple[tuple[str, str], ...] = (
    ("R1", "exactly 2 connectors"),
    ("R2", "exactly 1 cable"),
    ("R3", "right clamps equal left clamps"),
    ("R4", "cable colour fits left clamps: yellow for 2, blue for 3, red for 5"),
    ("R5", "cable reach is long"),
    ("R6", "right slot equals left slot"),
    ("R7", "exactly 0 damaged places"),
)

_Points = npt.NDArray[np.float64]
_ToPicture = Callable[[npt.ArrayLike], _Points]
_SECOND_FAULT = 0.15
_DAMAGE_WORDS = {
    "scratch": ("scratch on a connector", "two scratches on the connectors"),
    "dirt": ("dirt on a connector", "dirt on the connectors in two places"),
    "bent": ("bent lever", "two bent levers"),
    "broken": ("broken cable", "broken cable and broken lever"),
}
_CABLE_COLOURS = {"yellow": (240, 208, 40), "blue": (34, 92, 200), "red": (204, 26, 34)}
_COPPER = (206, 140, 84)

# Connector geometry, board pixels at scale 1, about its middle; x grows towards the cable.
_PITCH, _HALF, _RIM = 44.0, 48.0, 8.0
_LEVER = (-28.0, -16.0, 28.0, 16.0)
_HOLE = (35.0, -10.0, 49.0, 10.0)
_FINE = 2
_DISTANCE = 112.0
_THICK = 13
_BARE = 16


def normal(rng: np.random.Generator) -> Plan:
    """Two equal connectors, one fitting cable between slots of the same number, no damage."""
    clamps = _SIZES[int(rng.integers(3))]
    slot = str(rng.integers(1, int(clamps) + 1))
    attributes = {
        LEFT_CLAMPS: clamps,
        RIGHT_CLAMPS: clamps,
        LEFT_SLOT: slot,
        RIGHT_SLOT: slot,
        COLOUR: FITTING_COLOUR[clamps],
        REACH: "long",
    }
    return Plan(PRODUCT, {CONNECTORS: 2, CABLES: 1, DAMAGE: 0}, attributes)


def logical(rng: np.random.Generator) -> Plan:
    """A plan that breaks one of R1..R6, now and then a later one too."""
    first = int(rng.integers(6))
    plan, cause = _BREAKS[first](normal(rng), rng)
    if 2 <= first < 4 and rng.random() < _SECOND_FAULT:
        plan, _ = _BREAKS[int(rng.integers(first + 1, 6))](plan, rng)
    return replace(plan, rule=RULES[first][0], cause=cause)


def structural(rng: np.random.Generator) -> Plan:
    """A normal plan with one damage, sometimes two."""
    plan = normal(rng)
    kind = DAMAGE_KINDS[int(rng.integers(len(DAMAGE_KINDS)))]
    count = 2 if rng.random() < 0.25 else 1
    counts = {**plan.counts, DAMAGE: count}
    cause = _DAMAGE_WORDS[kind][count - 1]
    return replace(plan, counts=counts, structural=kind, cause=cause, rule="R7")


def varied(rng: np.random.Generator) -> Plan:
    """Counts and attributes for training; damage in 15 % of the plans with a connector.

    Attributes are independent of each other except where parts are missing: then "none". A slot
    never exceeds the clamps, and the upper of two cables leaves a slot below it free.
    """
    connectors = int(rng.choice(3, p=(0.05, 0.17, 0.78)))
    cables = int(rng.choice(3, p=(0.12, 0.68, 0.2)))
    there = [connectors > 0, connectors > 0]
    if connectors == 1:
        there[int(rng.integers(2))] = False
    left, right = (_SIZES[int(rng.integers(3))] if t else "none" for t in there)
    reach = ("short" if rng.random() < 0.3 else "long") if cables and there[1] else "none"
    attributes = {
        LEFT_CLAMPS: left,
        RIGHT_CLAMPS: right,
        LEFT_SLOT: _any_slot(rng, left, cables),
        RIGHT_SLOT: _any_slot(rng, right, cables) if reach == "long" else "none",
        COLOUR: ATTRIBUTES[COLOUR][int(rng.integers(3))] if cables else "none",
        REACH: reach,
    }
    if attributes[LEFT_SLOT] != "none" and attributes[RIGHT_SLOT] != "none" and rng.random() < 0.3:
        limit = min(int(left), int(right)) - (cables - 1)
        if int(attributes[LEFT_SLOT]) <= limit:
            attributes[RIGHT_SLOT] = attributes[LEFT_SLOT]
    counts = {CONNECTORS: connectors, CABLES: cables, DAMAGE: 0}
    kind = None
    if connectors and rng.random() < 0.15:
        kind = DAMAGE_KINDS[int(rng.integers(len(DAMAGE_KINDS)))]
        counts[DAMAGE] = 1 + int(rng.random() < 0.3)
    return Plan(PRODUCT, counts, attributes, structural=kind)


def draw(rng: np.random.Generator, plan: Plan, look: Look) -> Scene:
    """Draw the plan; a short cable ends at least 47 px before the right connector."""
    image, colour = sprites.background(rng, look.background, look.hue_shift)
    connectors = _place_connectors(rng, plan, look)
    for connector in connectors:
        if connector is not None:
            _draw_connector(image, connector)
    cables = _cable_paths(rng, plan, connectors)
    broken = plan.structural == "broken" and plan.attributes[REACH] != "short"
    gap = _Gap.pick(rng, cables) if broken and plan.counts[DAMAGE] else None
    for number, path in enumerate(cables):
        _draw_cable(image, rng, path, plan, connectors, gap if number == 0 else None)
    damages = list(_damage(image, rng, plan, connectors, gap))
    parts = [part_from_outline(CONNECTORS, c.outline()) for c in connectors if c is not None]
    parts += [part_from_outline(CABLES, _cable_outline(path)) for path in cables]
    parts += [part_from_mask(DAMAGE, mask) for mask in damages]
    fault = _fault_mask(plan, connectors, cables, damages)
    return Scene(PRODUCT, image, tuple(parts), dict(plan.attributes), fault, colour)


@dataclass(frozen=True)
class _Connector:
    """A connector on the board; `facing` is 1 if its slots look right and -1 if left."""

    clamps: int
    middle: Point
    turn: float
    scale: float
    facing: int

    def to_board(self, points: npt.ArrayLike) -> _Points:
        local = np.asarray(points, np.float64) * (self.facing, 1)
        return sprites.place(local, self.middle, self.turn, self.scale)

    def clamp(self, number: int) -> float:
        """Height of a clamp's middle, numbered from 1 at the top."""
        return (number - 0.5 - self.clamps / 2) * _PITCH

    def outline(self) -> _Points:
        return self.to_board(_body(self.clamps))

    def slot(self, number: int) -> Point:
        x, y = self.to_board([(_HALF - 8, self.clamp(number))])[0]
        return float(x), float(y)


@cache
def _body(clamps: int) -> _Points:
    """Rim of a connector's body [n, 2] about its middle, at scale 1."""
    half = clamps * _PITCH / 2 + _RIM
    return sprites.rounded((-_HALF, -half, _HALF, half), 9)


_Pair = tuple[_Connector | None, _Connector | None]


@dataclass(frozen=True)
class _Gap:
    """An interrupted stretch of a cable: path indices [start, stop) that are missing."""

    start: int
    stop: int
    middle: Point

    @staticmethod
    def pick(rng: np.random.Generator, cables: list[_Points]) -> _Gap | None:
        if not cables:
            return None
        path = cables[0]
        steps = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
        centre = steps[-1] * rng.uniform(0.42, 0.58)
        half = float(rng.uniform(17, 21))
        start = int(np.searchsorted(steps, centre - half))
        stop = int(np.searchsorted(steps, centre + half))
        x, y = path[(start + stop) // 2]
        return _Gap(start, stop, (float(x), float(y)))


def _break_connectors(plan: Plan, rng: np.random.Generator) -> tuple[Plan, str]:
    attributes = dict(plan.attributes)
    if rng.random() < 0.2:
        gone = {LEFT_CLAMPS, LEFT_SLOT, RIGHT_CLAMPS, RIGHT_SLOT, REACH}
    elif rng.random() < 0.5:
        gone = {LEFT_CLAMPS, LEFT_SLOT}
    else:
        gone = {RIGHT_CLAMPS, RIGHT_SLOT, REACH}
    attributes.update(dict.fromkeys(gone, "none"))
    found = 0 if len(gone) == 5 else 1
    cause = "both connectors missing"
    if found:
        cause = ("left" if LEFT_CLAMPS in gone else "right") + " connector missing"
    counts = {**plan.counts, CONNECTORS: found}
    return replace(plan, counts=counts, attributes=attributes), cause


def _break_cables(plan: Plan, rng: np.random.Generator) -> tuple[Plan, str]:
    attributes = dict(plan.attributes)
    if rng.random() < 0.5:
        attributes.update(dict.fromkeys((LEFT_SLOT, RIGHT_SLOT, COLOUR, REACH), "none"))
        counts = {**plan.counts, CABLES: 0}
        return replace(plan, counts=counts, attributes=attributes), "cable missing"
    slot = str(rng.integers(1, int(attributes[LEFT_CLAMPS])))
    attributes.update({LEFT_SLOT: slot, RIGHT_SLOT: slot})
    counts = {**plan.counts, CABLES: 2}
    return replace(plan, counts=counts, attributes=attributes), "one cable too many"


def _break_clamps(plan: Plan, rng: np.random.Generator) -> tuple[Plan, str]:
    """Another right connector; the cable keeps a slot that both have."""
    left = plan.attributes[LEFT_CLAMPS]
    right = str(rng.choice([size for size in _SIZES[:3] if size != left]))
    slot = str(rng.integers(1, min(int(left), int(right)) + 1))
    changed = {RIGHT_CLAMPS: right, LEFT_SLOT: slot, RIGHT_SLOT: slot}
    cause = f"left connector has {left} clamps but the right one {right}"
    return replace(plan, attributes={**plan.attributes, **changed}), cause


def _break_colour(plan: Plan, rng: np.random.Generator) -> tuple[Plan, str]:
    fitting = FITTING_COLOUR[plan.attributes[LEFT_CLAMPS]]
    wrong = [colour for colour in FITTING_COLOUR.values() if colour != fitting]
    changed = {COLOUR: wrong[int(rng.integers(2))]}
    cause = "cable colour does not fit the clamps"
    return replace(plan, attributes={**plan.attributes, **changed}), cause


def _break_slot(plan: Plan, rng: np.random.Generator) -> tuple[Plan, str]:
    left, clamps = plan.attributes[LEFT_SLOT], plan.attributes[RIGHT_CLAMPS]
    others = [slot for slot in _SLOTS[: int(clamps)] if slot != left]
    right = str(rng.choice(others))
    cause = f"cable runs from slot {left} to slot {right}"
    return replace(plan, attributes={**plan.attributes, RIGHT_SLOT: right}), cause


def _break_reach(plan: Plan, rng: np.random.Generator) -> tuple[Plan, str]:
    """A short cable touches no right slot, so it breaks both R5 and R6."""
    changed = {REACH: "short", RIGHT_SLOT: "none"}
    cause = "cable ends before the right connector"
    return replace(plan, attributes={**plan.attributes, **changed}), cause


_BREAKS = (
    _break_connectors,
    _break_cables,
    _break_clamps,
    _break_colour,
    _break_reach,
    _break_slot,
)


def _any_slot(rng: np.random.Generator, clamps: str, cables: int) -> str:
    if clamps == "none" or not cables:
        return "none"
    return str(rng.integers(1, int(clamps) - (cables - 1) + 1))


def _place_connectors(rng: np.random.Generator, plan: Plan, look: Look) -> _Pair:
    scale = float(np.clip(plan.scale * look.scale * rng.uniform(0.94, 0.98), 0.84, 0.98))

    def place(clamps: str, facing: int) -> _Connector | None:
        x = 196 - facing * (_DISTANCE + float(rng.uniform(-5, 5)))
        room = 165 - (5 if clamps == "none" else int(clamps)) * _PITCH / 2 * scale
        y = 196 + float(rng.uniform(-0.4, 0.4)) * max(room, 8)
        turn = float(rng.uniform(-0.06, 0.06))
        if clamps == "none":
            return None
        return _Connector(int(clamps), (x, y), turn, scale, facing)

    return place(plan.attributes[LEFT_CLAMPS], 1), place(plan.attributes[RIGHT_CLAMPS], -1)


def _draw_connector(image: Image, connector: _Connector) -> None:
    mask = sprites.blank()
    sprites.polygon(mask, connector.outline(), 255)
    sprites.shadow(image, mask, (5, 6), 6, 0.45)
    picture, cover = _connector_picture(connector.clamps, connector.facing)
    size = (cover.shape[1], cover.shape[0])
    matrix = affine(size, connector.middle, connector.turn, connector.scale / _FINE)
    overlay(image, picture, cover, matrix)


@cache
def _connector_picture(clamps: int, facing: int) -> tuple[Image, sprites.Floats]:
    """A connector, uint8 RGB [h, w, 3] and coverage [h, w], _FINE pixels to a board pixel."""
    half = clamps * _PITCH / 2 + _RIM
    width, height = round((2 * _HALF + 8) * _FINE), round((2 * half + 8) * _FINE)
    picture = np.full((height, width, 3), (206, 214, 220), np.uint8)
    solid = np.zeros((height, width), np.uint8)
    middle = ((width - 1) / 2, (height - 1) / 2)

    def at(points: npt.ArrayLike) -> _Points:
        local = np.asarray(points, np.float64) * (facing, 1)
        return np.asarray(local * _FINE + middle, np.float64)

    body = at(_body(clamps))
    sprites.polygon(picture, at(_rectangle(-43, -half + 6, -33, half - 6)), (168, 166, 158))
    sprites.polygon(picture, at(_rectangle(-41, -half + 6, -38, half - 6)), (232, 230, 222))
    sprites.polygon(solid, at(_rectangle(-43, -half + 6, -33, half - 6)), 255)
    for number in range(1, clamps + 1):
        y = (number - 0.5 - clamps / 2) * _PITCH
        _paint_clamp(picture, solid, at, y)
        if number < clamps:
            rib = at([(-_HALF, y + _PITCH / 2), (_HALF, y + _PITCH / 2)])
            sprites.stroke(picture, rib, (150, 158, 166), 3)
            sprites.stroke(picture, rib + np.array((0, 2.5)), (240, 244, 246), 2)
            sprites.stroke(solid, rib, 220, 6)
    sprites.stroke(picture, body, (126, 134, 142), 3, closed=True)
    sprites.stroke(picture, body[4:28] + np.array((0, 4)), (246, 248, 250), 2)
    sprites.stroke(solid, body, 235, 6, closed=True)
    inside = np.zeros_like(solid)
    sprites.polygon(inside, body, 255)
    cover = np.maximum(solid.astype(np.float32) / 255, 0.66) * (inside.astype(np.float32) / 255)
    return picture, cover.astype(np.float32)


def _paint_clamp(picture: Image, solid: Image, at: _ToPicture, y: float) -> None:
    """One orange lever and its cable hole at height y."""
    for offset, colour in ((1.6, (120, 104, 92)), (0.0, (238, 120, 22))):
        lever = at(sprites.rounded(_LEVER, 5) + np.array((offset, y + offset)))
        sprites.polygon(picture, lever, colour)
        sprites.polygon(solid, lever, 255)
    sprites.polygon(picture, at(_rectangle(-24, y - 13, 24, y - 8)), (255, 176, 88))
    sprites.polygon(picture, at(_rectangle(-24, y + 10, 24, y + 14)), (204, 92, 10))
    for x in (-18.0, -12.0):
        sprites.stroke(picture, at([(x, y - 11), (x, y + 11)]), (186, 80, 8), 3)
    hole = at(sprites.rounded((_HOLE[0], y + _HOLE[1], _HOLE[2], y + _HOLE[3]), 4))
    sprites.polygon(picture, hole, (52, 54, 60))
    sprites.polygon(solid, hole, 255)


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> _Points:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def _cable_paths(rng: np.random.Generator, plan: Plan, connectors: _Pair) -> list[_Points]:
    """Middle lines [40, 2] of the cables, the upper one first, each from left to right."""
    left, right = connectors
    count = plan.counts[CABLES]
    starts = _ends(rng, left, plan.attributes[LEFT_SLOT], count, -1)
    ends = _ends(rng, right, plan.attributes[RIGHT_SLOT], count, 1)
    sag = float(rng.uniform(-26, 26))
    paths = []
    for number in range(count):
        start, end = starts[number], ends[number]
        if plan.attributes[REACH] == "short" and right is not None:
            edge = float(right.outline()[:, 0].min())
            x = edge - _BARE - float(rng.uniform(47, 58))
            y = start[1] + float(rng.uniform(-10, 10))
            if left is None:
                start, y = (x - float(rng.uniform(60, 80)), start[1]), start[1]
            end = (x, y)
        paths.append(_bezier(rng, start, end, sag))
    return paths


def _ends(
    rng: np.random.Generator, connector: _Connector | None, slot: str, count: int, side: int
) -> list[Point]:
    """Where the cables end on one side: at slots, or in the open where there is none."""
    if connector is None or slot == "none":
        y = 196 + float(rng.uniform(-40, 20))
        return [(196 + side * 74 + 8.0 * i, y + 52.0 * i) for i in range(count)]
    slots = [int(slot)]
    if count == 2:
        slots.append(int(rng.integers(int(slot) + 1, connector.clamps + 1)))
    return [connector.slot(number) for number in slots]


def _bezier(rng: np.random.Generator, start: Point, end: Point, sag: float) -> _Points:
    length = end[0] - start[0]
    lift = sag * min(length / 150, 1.0)
    handles = np.array(
        [
            start,
            (start[0] + length * 0.42, start[1] + lift),
            (end[0] - length * 0.42, end[1] + lift + rng.uniform(-6, 6)),
            end,
        ]
    )
    t = np.linspace(0, 1, 40)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    return np.asarray(weights @ handles, np.float64)


def _draw_cable(
    image: Image,
    rng: np.random.Generator,
    path: _Points,
    plan: Plan,
    connectors: _Pair,
    gap: _Gap | None,
) -> None:
    colour = np.asarray(sprites.jitter(rng, _CABLE_COLOURS[plan.attributes[COLOUR]], 8))
    pieces = [path] if gap is None else [path[: gap.start + 1], path[gap.stop :]]
    mask = sprites.blank()
    for piece in pieces:
        sprites.stroke(mask, piece, 255, _THICK)
    sprites.shadow(image, mask, (4, 6), 4, 0.5)
    if connectors[0] is None:
        _bare_end(image, path[0], path[0] - path[3])
    if plan.attributes[RIGHT_SLOT] == "none":
        _bare_end(image, path[-1], path[-1] - path[-4])
    if gap is not None:
        _fray(image, rng, path[gap.start], path[gap.start] - path[gap.start - 3])
        _fray(image, rng, path[gap.stop], path[gap.stop] - path[min(gap.stop + 3, 39)])
    dark, light = colour * 0.58, np.minimum(colour * 0.75 + 74, 255)
    for piece in pieces:
        sprites.stroke(image, piece, (dark[0], dark[1], dark[2]), _THICK)
        sprites.stroke(image, piece - (0.6, 0.9), (colour[0], colour[1], colour[2]), _THICK - 4)
        sprites.stroke(image, piece - (1.2, 2.2), (light[0], light[1], light[2]), 2)


def _bare_end(image: Image, end: _Points, way: _Points) -> None:
    tip = end + way / (np.hypot(way[0], way[1]) + 1e-6) * _BARE
    sprites.stroke(image, [end, tip], (120, 74, 40), 7)
    sprites.stroke(image, [end, tip], _COPPER, 4)


def _fray(image: Image, rng: np.random.Generator, end: _Points, way: _Points) -> None:
    turn = float(np.arctan2(way[1], way[0]))
    for angle in (-0.5, 0.0, 0.5):
        wire = turn + angle + float(rng.uniform(-0.15, 0.15))
        reach = 6 + float(rng.uniform(4, 7))
        tip = end + np.array([np.cos(wire), np.sin(wire)]) * reach
        sprites.stroke(image, [end, tip], (130, 80, 44), 3)
        sprites.stroke(image, [end, tip], _COPPER, 2)


def _cable_outline(path: _Points) -> _Points:
    way = np.gradient(path, axis=0)
    across = np.stack([-way[:, 1], way[:, 0]], axis=1)
    across *= _THICK / 2 / (np.hypot(across[:, 0], across[:, 1])[:, None] + 1e-6)
    rim = np.concatenate([(path + across)[::3], (path - across)[::-3]])
    return np.asarray(np.clip(rim, 0, BOARD), np.float64)


def _damage(
    image: Image,
    rng: np.random.Generator,
    plan: Plan,
    connectors: _Pair,
    gap: _Gap | None,
) -> Iterator[Image]:
    left = plan.counts[DAMAGE]
    if plan.structural is None or not left:
        return
    if gap is not None:
        mask = sprites.blank()
        sprites.disc(mask, gap.middle, 21, 255)
        yield mask
        left -= 1
    clamps = [(c, n) for c in connectors if c is not None for n in range(1, c.clamps + 1)]
    order = [clamps[int(i)] for i in rng.permutation(len(clamps))]
    for connector, number in order[:left]:
        yield _damage_clamp(image, rng, plan.structural, connector, number)


def _damage_clamp(
    image: Image, rng: np.random.Generator, kind: str, connector: _Connector, number: int
) -> Image:
    y = connector.clamp(number)
    spot = connector.to_board([(float(rng.uniform(-10, 10)), y + float(rng.uniform(-5, 5)))])[0]
    middle = (float(spot[0]), float(spot[1]))
    if kind == "scratch":
        angle = float(rng.uniform(0, np.pi))
        return sprites.scratch(image, rng, middle, float(rng.uniform(38, 50)), angle)
    if kind == "dirt":
        return sprites.dirt(image, rng, middle, float(rng.uniform(30, 40)))
    bed = connector.to_board(_rectangle(-29, y - 17, 30, y + 18))
    mask = sprites.blank()
    if kind == "bent":
        sprites.polygon(image, bed, (112, 116, 122))
        _bend_lever(image, mask, rng, connector, y)
        return mask
    _snap_lever(image, mask, rng, connector, y)
    return mask


def _bend_lever(
    image: Image, mask: Image, rng: np.random.Generator, connector: _Connector, y: float
) -> None:
    """The lever stands askew over its bed."""
    turn = float(rng.choice((-1, 1))) * float(rng.uniform(0.5, 0.75))
    lever = sprites.place(sprites.rounded(_LEVER, 5), (4.0, y), turn)
    board = connector.to_board(lever)
    sprites.polygon(image, board + np.array((3, 4)), (70, 62, 58))
    sprites.polygon(image, board, (238, 120, 22), (130, 60, 10))
    ridge = connector.to_board(sprites.place(_rectangle(-24, -13, 24, -8), (4.0, y), turn))
    sprites.polygon(image, ridge, (255, 180, 96))
    sprites.polygon(mask, board, 255)


def _snap_lever(
    image: Image, mask: Image, rng: np.random.Generator, connector: _Connector, y: float
) -> None:
    """One half of the lever is gone and its bed shows behind a jagged edge."""
    steps = np.linspace(-17, 18, 7)
    edge = np.stack([rng.uniform(-5, 5, 7), steps + y], axis=1)
    far = np.array([(30.0, y + 18), (30.0, y - 17)])
    lost = connector.to_board(np.concatenate([edge, far]))
    sprites.polygon(image, lost, (74, 76, 82))
    sprites.stroke(image, connector.to_board(edge), (250, 214, 170), 2)
    sprites.polygon(mask, lost, 255)


def _fault_mask(
    plan: Plan, connectors: _Pair, cables: list[_Points], damages: list[Image]
) -> Image | None:
    if plan.rule is None and not damages:
        return None
    mask = sprites.blank()
    for damage in damages:
        np.maximum(mask, damage, out=mask)
    for connector, facing in zip(connectors, (1, -1), strict=True):
        if connector is None:
            x = 196 - facing * _DISTANCE
            sprites.polygon(mask, _rectangle(x - _HALF, 120, x + _HALF, 272), 255)
    for path in cables[1:]:
        sprites.stroke(mask, path, 255, _THICK + 2)
    if not cables:
        sprites.polygon(mask, _rectangle(125, 150, 267, 242), 255)
    _mark_mismatch(mask, plan, connectors, cables)
    return np.where(mask > 127, np.uint8(255), np.uint8(0)).astype(np.uint8)


def _mark_mismatch(mask: Image, plan: Plan, connectors: _Pair, cables: list[_Points]) -> None:
    facts, (left, right) = plan.attributes, connectors
    if left and right and left.clamps != right.clamps:
        sprites.polygon(mask, right.outline(), 255)
    wrong = bool(left) and facts[COLOUR] != FITTING_COLOUR[facts[LEFT_CLAMPS]]
    crossed = "none" not in (facts[LEFT_SLOT], facts[RIGHT_SLOT])
    crossed = crossed and facts[LEFT_SLOT] != facts[RIGHT_SLOT]
    if wrong or crossed:
        for path in cables:
            sprites.stroke(mask, path, 255, _THICK + 2)
    if facts[REACH] == "short" and right is not None:
        x, y = cables[0][-1]
        edge = float(right.outline()[:, 0].min())
        sprites.polygon(mask, _rectangle(float(x), float(y) - 14, edge, float(y) + 14), 255)
