"""The juice bottle: liquid, fill level, a fruit label with an icon, and a lower label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from lad_agent.training.synloco import sprites
from lad_agent.training.synloco.breakage import break_edge
from lad_agent.training.synloco.causes import wrong_count
from lad_agent.training.synloco.overlay import affine, moved, overlay
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

PRODUCT = "juice_bottle"
FRUIT_LABELS, LOWER_LABELS = "fruit labels", "lower labels"
CLASSES: tuple[str, ...] = (FRUIT_LABELS, LOWER_LABELS, DAMAGE)
LIQUID, ICON, POSITION, LEVEL = "liquid", "icon", "icon position", "fill level"
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    LIQUID: ("red", "orange", "yellow"),
    ICON: ("cherry", "orange", "banana", "none"),
    POSITION: ("centred", "off-centre", "none"),
    LEVEL: ("low", "normal", "high"),
}
FITTING_ICON = {"red": "cherry", "orange": "orange", "yellow": "banana"}
RULES: tuple[tuple[str, str], ...] = (
    ("R1", "exactly 1 fruit label"),
    ("R2", "exactly 1 lower label"),
    ("R3", "icon fits liquid: cherry for red, orange for orange, banana for yellow"),
    ("R4", "icon position is centred"),
    ("R5", "fill level is normal"),
    ("R6", "exactly 0 damaged places"),
)

_Points = npt.NDArray[np.float64]
_DAMAGE_WORDS = {
    "scratch": ("scratch on the bottle", "two scratches on the bottle"),
    "dirt": ("dirt on the bottle", "dirt on the bottle in two places"),
    "bent": ("bent cap", "bent cap"),
    "broken": ("broken glass", "glass broken in two places"),
}
_SECOND_FAULT = 0.15
# A blot in the middle of the fruit label would hide the icon.
_DAMAGE_HEIGHTS = {
    "scratch": (140.0, 200.0, 250.0, 330.0),
    "dirt": (136.0, 252.0, 334.0),
    "broken": (150.0, 200.0, 250.0, 320.0),
}
_LIQUID_COLOURS = {"red": (186, 26, 38), "orange": (240, 126, 22), "yellow": (246, 212, 60)}

# Upright bottle picture, board pixels at scale 1.
_WIDTH, _HEIGHT = 200, 364
_MIDDLE = 100.0
_CAP = (70.0, 4.0, 130.0, 34.0)
_NECK_HALF, _NECK_END = 24.0, 80.0
_BODY_HALF, _BODY_TOP, _BODY_END = 78.0, 126.0, 354.0
_LEVELS = {"high": (42.0, 50.0), "normal": (85.0, 92.0), "low": (139.0, 148.0)}
_SIZES = {FRUIT_LABELS: (140, 88), LOWER_LABELS: (140, 36)}
_TOPS = {FRUIT_LABELS: (156, 256), LOWER_LABELS: (264, 308)}
_ICON = 52


def normal(rng: np.random.Generator) -> Plan:
    """One label of each kind, a fitting centred icon, normal fill level, no damage."""
    liquid = ATTRIBUTES[LIQUID][int(rng.integers(3))]
    attributes = {
        LIQUID: liquid,
        ICON: FITTING_ICON[liquid],
        POSITION: "centred",
        LEVEL: "normal",
    }
    return Plan(PRODUCT, {FRUIT_LABELS: 1, LOWER_LABELS: 1, DAMAGE: 0}, attributes)


def logical(rng: np.random.Generator) -> Plan:
    """A plan that breaks one of R1..R5, now and then a later one too."""
    first = int(rng.integers(5))
    plan, cause = _broken(normal(rng), first, rng)
    if first < 4 and rng.random() < _SECOND_FAULT:
        plan, _ = _broken(plan, int(rng.integers(first + 1, 5)), rng)
    return replace(_without_icon(plan), rule=RULES[first][0], cause=cause)


def structural(rng: np.random.Generator) -> Plan:
    """A normal plan with one damage, sometimes two (the cap bends only once)."""
    kind = DAMAGE_KINDS[int(rng.integers(len(DAMAGE_KINDS)))]
    count = _damage_count(rng, kind)
    plan = normal(rng)
    counts = {**plan.counts, DAMAGE: count}
    cause = _DAMAGE_WORDS[kind][count - 1]
    return replace(plan, counts=counts, structural=kind, cause=cause, rule="R6")


def varied(rng: np.random.Generator) -> Plan:
    """Independent counts and attributes for training; damage in 15 % of the plans."""
    counts = {
        FRUIT_LABELS: int(rng.choice(3, p=(0.15, 0.65, 0.2))),
        LOWER_LABELS: int(rng.choice(3, p=(0.25, 0.5, 0.25))),
        DAMAGE: 0,
    }
    attributes = {
        LIQUID: ATTRIBUTES[LIQUID][int(rng.integers(3))],
        ICON: ATTRIBUTES[ICON][int(rng.integers(3))],
        POSITION: ATTRIBUTES[POSITION][int(rng.integers(2))],
        LEVEL: ATTRIBUTES[LEVEL][int(rng.integers(3))],
    }
    kind = None
    if rng.random() < 0.15:
        kind = DAMAGE_KINDS[int(rng.integers(len(DAMAGE_KINDS)))]
        counts[DAMAGE] = _damage_count(rng, kind)
    return _without_icon(Plan(PRODUCT, counts, attributes, structural=kind))


def draw(rng: np.random.Generator, plan: Plan, look: Look) -> Scene:
    """Draw the plan; an off-centre icon is moved sideways by at least 0.3 of the label's width."""
    image, colour = sprites.background(rng, look.background, look.hue_shift)
    under = image.copy()
    layout = _layout(rng, plan, look)
    picture, cover, cap = _bottle(rng, plan, layout, look)
    _put(image, picture, cover, layout.matrix)
    for label in layout.beside:
        _put_label(image, label)
    damages = list(_damage(image, under, rng, plan, layout, cap))
    parts = [part_from_outline(label.cls, label.corners()) for label in layout.labels()]
    parts += [part_from_mask(DAMAGE, mask) for mask in damages]
    fault = _fault_mask(plan, layout, damages)
    return Scene(PRODUCT, image, tuple(parts), dict(plan.attributes), fault, colour)


@dataclass(frozen=True)
class _Label:
    """A label: its picture and where its pixels lie on the board (affine [2, 3])."""

    cls: str
    picture: Image
    matrix: _Points
    top_left: tuple[int, int]

    def corners(self) -> _Points:
        height, width = self.picture.shape[:2]
        return moved([(0, 0), (width, 0), (width, height), (0, height)], self.matrix)


@dataclass(frozen=True)
class _Layout:
    """The bottle's place (bottle picture to board, affine [2, 3]) and all labels."""

    matrix: _Points
    surface: float
    on_bottle: tuple[_Label, ...]
    beside: tuple[_Label, ...]

    def labels(self) -> tuple[_Label, ...]:
        return self.on_bottle + self.beside


def _broken(plan: Plan, rule: int, rng: np.random.Generator) -> tuple[Plan, str]:
    if rule < 2:
        name = (FRUIT_LABELS, LOWER_LABELS)[rule]
        found = int(rng.choice((0, 2)))
        cause = wrong_count(name.removesuffix("s"), name, 1, found)
        return replace(plan, counts={**plan.counts, name: found}), cause
    liquid = plan.attributes[LIQUID]
    if rule == 2:
        wrong = [icon for icon in FITTING_ICON.values() if icon != FITTING_ICON[liquid]]
        icon = wrong[int(rng.integers(2))]
        cause = f"{icon} icon does not fit the {liquid} liquid"
        return replace(plan, attributes={**plan.attributes, ICON: icon}), cause
    if rule == 3:
        attributes = {**plan.attributes, POSITION: "off-centre"}
        return replace(plan, attributes=attributes), "icon is off-centre"
    level = ("low", "high")[int(rng.integers(2))]
    attributes = {**plan.attributes, LEVEL: level}
    return replace(plan, attributes=attributes), f"fill level is too {level}"


def _without_icon(plan: Plan) -> Plan:
    if plan.counts[FRUIT_LABELS] > 0:
        return plan
    return replace(plan, attributes={**plan.attributes, ICON: "none", POSITION: "none"})


def _damage_count(rng: np.random.Generator, kind: str) -> int:
    return 2 if kind != "bent" and rng.random() < 0.25 else 1


def _layout(rng: np.random.Generator, plan: Plan, look: Look) -> _Layout:
    scale = float(np.clip(plan.scale * look.scale * rng.uniform(0.92, 0.96), 0.85, 0.95))
    inside: list[tuple[str, int]] = []
    outside: list[str] = []
    for name in (FRUIT_LABELS, LOWER_LABELS):
        count = plan.counts[name]
        inside += [(name, _TOPS[name][0])] * min(count, 1)
        room = name == LOWER_LABELS or plan.counts[LOWER_LABELS] == 0
        if count == 2 and room and rng.random() < 0.5:
            inside.append((name, _TOPS[name][1]))
        elif count == 2:
            outside.append(name)
    side = int(rng.choice((-1, 1)))
    shift = side * (104 - 40 * (scale - 0.85)) if outside else float(rng.uniform(-40, 40))
    slack = max(0.0, (BOARD - 12 - _HEIGHT * scale) / 2)
    middle = (196 + shift, 196 + float(rng.uniform(-0.8, 0.8)) * min(slack, 12))
    tilt = float(rng.uniform(-3.5, 3.5)) * (0.5 if outside else 1.0)
    matrix = affine((_WIDTH, _HEIGHT), middle, np.deg2rad(tilt), scale)
    style = _Style.pick(rng)
    on_bottle = tuple(_label_on_bottle(rng, plan, style, matrix, name, top) for name, top in inside)
    places = _places_beside(rng, outside, middle[0], -side, scale)
    beside = tuple(
        _label_beside(rng, plan, style, name, place, scale)
        for name, place in zip(outside, places, strict=True)
    )
    surface = float(rng.uniform(*_LEVELS[plan.attributes[LEVEL]]))
    return _Layout(matrix, surface, on_bottle, beside)


@dataclass(frozen=True)
class _Style:
    """Colours of the paper, its rim and the print."""

    paper: sprites.Colour
    rim: sprites.Colour

    @staticmethod
    def pick(rng: np.random.Generator) -> _Style:
        papers = ((248, 246, 238), (240, 242, 244), (250, 244, 226))
        rims = ((44, 96, 62), (38, 70, 128), (96, 60, 44), (60, 60, 66))
        paper = sprites.jitter(rng, papers[int(rng.integers(3))], 4)
        return _Style(paper, sprites.jitter(rng, rims[int(rng.integers(4))], 10))


def _label_on_bottle(
    rng: np.random.Generator, plan: Plan, style: _Style, matrix: _Points, name: str, top: int
) -> _Label:
    left = round(_MIDDLE - _SIZES[name][0] / 2 + rng.uniform(-3, 3))
    top += int(rng.integers(-4, 5)) if name == FRUIT_LABELS else int(rng.integers(-3, 4))
    placed = matrix.copy()
    placed[:, 2] += matrix[:, :2] @ (left, top)
    return _Label(name, _label_picture(rng, plan, style, name), placed, (left, top))


def _places_beside(
    rng: np.random.Generator, names: list[str], bottle: float, side: int, scale: float
) -> list[Point]:
    near = bottle + side * (_BODY_HALF + 14) * scale
    edge = 196 + side * 184
    x = (near + edge) / 2
    if len(names) == 1:
        return [(x, float(rng.uniform(90, 310)))]
    ys = [float(rng.uniform(80, 150)), float(rng.uniform(240, 320))]
    order = rng.permutation(2)[: len(names)]
    return [(x, ys[int(i)]) for i in order]


def _label_beside(
    rng: np.random.Generator, plan: Plan, style: _Style, name: str, middle: Point, scale: float
) -> _Label:
    picture = _label_picture(rng, plan, style, name)
    size = (picture.shape[1], picture.shape[0])
    turn = float(np.deg2rad(rng.uniform(-8, 8)))
    return _Label(name, picture, affine(size, middle, turn, scale * 0.98), (0, 0))


def _label_picture(rng: np.random.Generator, plan: Plan, style: _Style, name: str) -> Image:
    """A label, uint8 RGB [height, width, 3] at scale 1."""
    width, height = _SIZES[name]
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = np.asarray(style.paper, np.uint8)
    if name == LOWER_LABELS:
        _print_lower(picture, style, int(rng.integers(2)))
        return picture
    cv2.rectangle(picture, (1, 1), (width - 2, height - 2), style.rim, 2, cv2.LINE_AA)
    across, down = rng.uniform(-0.03, 0.03, 2) * (width, height)
    if plan.attributes[POSITION] == "off-centre":
        across = rng.choice((-1, 1)) * width * rng.uniform(0.302, 0.318)
    size = _ICON - 6
    icon, cover = _icon(plan.attributes[ICON])
    x, y = round(width / 2 + across - size / 2), round(height / 2 + down - size / 2)
    x = min(max(x, 2), width - size - 2)
    window = picture[y : y + size, x : x + size]
    window[:] = cv2.blendLinear(icon, window.copy(), cover, 1 - cover)
    return picture


def _print_lower(picture: Image, style: _Style, variant: int) -> None:
    height, width = picture.shape[:2]
    for y in (0, height - 5):
        cv2.rectangle(picture, (0, y), (width - 1, y + 4), style.rim, -1)
    text = ("100% juice", "100% Juice")[variant]
    cv2.putText(picture, text, (9, 25), cv2.FONT_HERSHEY_DUPLEX, 0.68, (40, 36, 34), 2, cv2.LINE_AA)


@cache
def _icon(name: str) -> tuple[Image, sprites.Floats]:
    """An icon, uint8 RGB [size, size, 3], and its coverage [size, size] in 0..1."""
    fine = 8
    size = _ICON - 6
    cover = np.zeros((size * fine, size * fine), np.uint8)
    colours = np.full((size * fine, size * fine, 3), 255, np.uint8)
    for image, mark in ((colours, False), (cover, True)):
        _paint_icon(image, name, fine * size / 60, mark)
    small = cv2.resize(colours, (size, size), interpolation=cv2.INTER_AREA)
    alpha = cv2.resize(cover, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), alpha.astype(np.float32) / 255


def _paint_icon(image: Image, name: str, unit: float, mark: bool) -> None:
    """Paint an icon designed on a 60 x 60 grid of `unit` pixels; `mark` paints coverage only."""

    def ink(red: int, green: int, blue: int) -> sprites.Colour | int:
        return 255 if mark else (red, green, blue)

    def circle(x: float, y: float, radius: float, colour: sprites.Colour | int) -> None:
        sprites.disc(image, (x * unit, y * unit), radius * unit, colour)

    def line(points: list[Point], colour: sprites.Colour | int, width: float) -> None:
        sprites.stroke(image, np.array(points) * unit, colour, round(width * unit))

    if name == "cherry":
        line([(18, 38), (25, 22), (38, 6)], ink(70, 110, 40), 3.5)
        line([(43, 40), (42, 22), (38, 6)], ink(70, 110, 40), 3.5)
        leaf = _crescent((38, 6), (58, 14), 7, -3) * unit
        sprites.polygon(image, leaf, ink(70, 150, 50))
        for x, y in ((16.0, 43.0), (43.0, 45.0)):
            circle(x, y, 14.5, ink(120, 8, 24))
            circle(x - 0.5, y - 0.5, 13, ink(200, 20, 40))
            circle(x - 4.5, y - 5, 3.4, ink(250, 170, 180))
    elif name == "orange":
        circle(30, 33, 26, ink(206, 98, 8))
        circle(29, 32, 24, ink(250, 146, 30))
        circle(21, 23, 6, ink(255, 206, 140))
        leaf = _crescent((30, 9), (54, 3), 8, -2) * unit
        sprites.polygon(image, leaf, ink(60, 140, 50))
        line([(30, 12), (29, 5)], ink(80, 70, 30), 4)
    else:
        sprites.polygon(image, _fruit_arc(9.5) * unit, ink(150, 112, 10))
        sprites.polygon(image, _fruit_arc(7.8) * unit, ink(252, 214, 40))
        line([(10, 28), (18, 39), (30, 43), (42, 38)], ink(214, 168, 20), 1.6)
        line([(2, 13), (4, 20)], ink(90, 66, 20), 5)
        line([(55, 20), (57, 15)], ink(90, 66, 20), 5)


def _fruit_arc(half: float) -> _Points:
    """A banana hanging as an arc, `half` px to each side of its middle line."""
    t = np.linspace(0.08, 0.92, 24) * np.pi
    way = np.stack([-np.cos(t), np.sin(t)], axis=1)
    thick = half * (0.32 + 0.68 * np.sin(t) ** 0.8)[:, None]
    middle = np.array((30.0, 13.0))
    return np.concatenate([middle + way * (28 + thick), (middle + way * (28 - thick))[::-1]])


def _crescent(start: Point, end: Point, outer: float, inner: float) -> _Points:
    """Shape between two arcs from start to end, bulging by `outer` and `inner`."""
    t = np.linspace(0, 1, 24)[:, None]
    chord = np.asarray(start) + (np.asarray(end) - np.asarray(start)) * t
    bulge = np.sin(np.pi * t) * (0.0, 1.0)
    return np.concatenate([chord + bulge * outer, (chord + bulge * inner)[::-1]])


def _bottle(
    rng: np.random.Generator, plan: Plan, layout: _Layout, look: Look
) -> tuple[Image, sprites.Floats, _Points]:
    """The upright bottle, uint8 RGB, its coverage [_HEIGHT, _WIDTH], and the cap's outline."""
    glass, row = _glass(), round(layout.surface)
    colour = sprites.jitter(rng, _LIQUID_COLOURS[plan.attributes[LIQUID]], 7)
    colour = sprites.shift_hue(colour, look.hue_shift * 0.15)
    picture = np.empty((_HEIGHT, _WIDTH, 3), np.uint8)
    picture[:row] = (206, 216, 216)
    picture[row:] = np.asarray(colour, np.uint8)
    _draw_surface(picture, layout.surface, colour)
    sprites.stroke(picture, _profile(2.0), (206, 216, 216), 4, closed=True)
    picture = np.asarray(cv2.multiply(picture, glass.shade, scale=1 / 200), np.uint8)
    for label in layout.on_bottle:
        _stick(picture, label)
    cv2.add(picture, glass.glint, picture)
    cover = np.concatenate([glass.empty[:row], glass.full[row:]])
    cap = _draw_cap(picture, cover, rng, plan.structural == "bent")
    return picture, cover, cap


@dataclass(frozen=True)
class _Glass:
    """What every bottle shares, [_HEIGHT, _WIDTH] each; shade and glint have 3 channels."""

    empty: sprites.Floats
    full: sprites.Floats
    shade: Image
    glint: Image


@cache
def _glass() -> _Glass:
    mask = np.zeros((_HEIGHT, _WIDTH), np.uint8)
    sprites.polygon(mask, _profile(0.0), 255)
    inner = np.zeros_like(mask)
    sprites.polygon(inner, _profile(5.0), 255)
    halves = _half_width(np.arange(_HEIGHT, dtype=np.float64))
    x = (np.arange(_WIDTH) - _MIDDLE)[None, :] / np.maximum(halves[:, None], 1.0)
    shade = 216 - 96 * np.clip(np.abs(x), 0, 1.1) ** 3 - 14 * x
    wall = cv2.GaussianBlur((mask > 0).astype(np.float32) - (inner > 0), (0, 0), 1.0)
    body = np.maximum(0.42 + 0.35 * np.clip(np.abs(x), 0, 1) ** 4, 0.85 * wall)
    streak = 0.55 * np.exp(-(((x + 0.62) / 0.07) ** 2)) + 0.22 * np.exp(-(((x - 0.74) / 0.05) ** 2))
    rows = np.arange(_HEIGHT)
    fade = np.clip((rows - 40) / 60, 0, 1) * np.clip((348 - rows) / 40, 0, 1)
    glint = streak * fade[:, None] * (inner > 0)
    grey = np.clip(shade, 0, 255).astype(np.uint8)
    cover = mask.astype(np.float32) / 255
    bright = np.clip(cv2.GaussianBlur(glint, (0, 0), 1.2) * 190, 0, 255).astype(np.uint8)
    return _Glass(
        np.asarray(cover * np.clip(body, 0, 1), np.float32),
        np.asarray(cover * 0.97, np.float32),
        np.repeat(grey[..., None], 3, axis=2),
        np.repeat(bright[..., None], 3, axis=2),
    )


def _half_width(y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    t = np.clip((y - _NECK_END) / (_BODY_TOP - _NECK_END), 0, 1)
    smooth = t * t * (3 - 2 * t)
    return np.asarray(_NECK_HALF + (_BODY_HALF - _NECK_HALF) * smooth, np.float64)


@cache
def _profile(inset: float) -> _Points:
    """Outline of the glass, moved inwards by `inset` pixels."""
    y = np.linspace(30, _BODY_END - 20, 60)
    half = _half_width(y) - inset
    turn = np.linspace(0, np.pi / 2, 8)
    base = _BODY_END - inset
    x = np.concatenate([half, _BODY_HALF - inset - 20 * (1 - np.cos(turn))])
    y = np.concatenate([y, base - 20 + 20 * np.sin(turn)])
    right = np.stack([_MIDDLE + x, y], axis=1)
    left = np.stack([_MIDDLE - x, y], axis=1)
    return np.concatenate([right, left[::-1]])


def _draw_surface(picture: Image, surface: float, colour: sprites.Colour) -> None:
    half = float(_half_width(np.array([surface]))[0]) - 4
    ring = sprites.circle_points(1.0, 28) * (half, half * 0.09) + (_MIDDLE, surface)
    light = tuple(min(255.0, c * 0.8 + 62) for c in colour)
    dark = (colour[0] * 0.62, colour[1] * 0.62, colour[2] * 0.62)
    sprites.polygon(picture, ring, (light[0], light[1], light[2]))
    sprites.stroke(picture, ring, dark, 1, closed=True)


def _stick(picture: Image, label: _Label) -> None:
    """Paste a label onto the upright bottle with the bottle's shading and a thin shadow."""
    left, top = label.top_left
    height, width = label.picture.shape[:2]
    cv2.rectangle(
        picture, (left - 1, top), (left + width, top + height + 1), (70, 60, 50), 1, cv2.LINE_AA
    )
    shade = _label_shade()[:, left : left + width]
    rows = np.ascontiguousarray(np.broadcast_to(shade, (height, width, 3)))
    picture[top : top + height, left : left + width] = cv2.multiply(
        label.picture, rows, scale=1 / 255
    )


@cache
def _label_shade() -> Image:
    x = (np.arange(_WIDTH) - _MIDDLE) / _BODY_HALF
    value = 250 - 70 * np.clip(np.abs(x), 0, 1) ** 3 - 10 * x
    grey = np.clip(value, 0, 255).astype(np.uint8)[None, :, None]
    return np.repeat(grey, 3, axis=2)


def _draw_cap(
    picture: Image, cover: sprites.Floats, rng: np.random.Generator, bent: bool
) -> _Points:
    x0, y0, x1, y1 = _CAP
    colours = ((206, 40, 44), (240, 240, 238), (44, 110, 64), (40, 74, 150), (228, 178, 60))
    colour = np.asarray(sprites.jitter(rng, colours[int(rng.integers(5))], 10))
    middle = ((x0 + x1) / 2, (y0 + y1) / 2)
    turn, place = 0.0, middle
    if bent:
        sign = float(rng.choice((-1, 1)))
        turn, place = sign * float(rng.uniform(0.42, 0.55)), (middle[0] + sign * 9, middle[1] + 4)
        sprites.stroke(picture, [(76, 34), (124, 34)], (120, 128, 130), 2)
    steps = np.linspace(x0, x1, 11)
    mask = np.zeros(cover.shape, np.uint8)
    outline = sprites.place(sprites.rounded(_CAP, 6) - middle, place, turn)
    sprites.polygon(mask, outline, 255)
    for left, right in pairwise(steps):
        u = (left + right - x0 - x1) / (x1 - x0)
        light = 1.05 - 0.5 * abs(u + 0.15) ** 2 - (0.12 if round((left - x0) / 6) % 2 else 0.0)
        bar = np.array([(left, y0), (right + 0.5, y0), (right + 0.5, y1), (left, y1)]) - middle
        shade = tuple(float(c) for c in np.clip(colour * light, 0, 255))
        sprites.polygon(picture, sprites.place(bar, place, turn), (shade[0], shade[1], shade[2]))
    np.maximum(cover, mask.astype(np.float32) * np.float32(1 / 255), out=cover)
    return outline


def _put(image: Image, picture: Image, cover: sprites.Floats, matrix: _Points) -> None:
    """Blend the bottle onto the board with a soft shadow."""
    mask = sprites.blank()
    sprites.polygon(mask, moved(_profile(0.0), matrix), 255)
    sprites.shadow(image, mask, (9, 8), 9, 0.5)
    overlay(image, picture, cover, matrix)


def _put_label(image: Image, label: _Label) -> None:
    mask = sprites.blank()
    sprites.polygon(mask, label.corners(), 255)
    sprites.shadow(image, mask, (2.5, 3), 4, 0.45)
    overlay(image, label.picture, np.ones(label.picture.shape[:2], np.float32), label.matrix)


def _damage(
    image: Image,
    under: Image,
    rng: np.random.Generator,
    plan: Plan,
    layout: _Layout,
    cap: _Points,
) -> Iterator[Image]:
    if plan.structural is None:
        return
    if plan.structural == "bent":
        mask = sprites.blank()
        sprites.polygon(mask, moved(cap, layout.matrix), 255)
        yield mask
        return
    places = _DAMAGE_HEIGHTS[plan.structural]
    heights = [float(y) for y in rng.permutation(places)]
    first_side = float(rng.choice((-1, 1)))
    for number, y in enumerate(heights[: plan.counts[DAMAGE]]):
        side = first_side * (-1) ** number
        if plan.structural == "broken":
            place = (_MIDDLE + side * 66, y)
            yield _break_glass(image, under, rng, layout, place, side)
            continue
        x, y = moved([(_MIDDLE + side * rng.uniform(10, 44), y)], layout.matrix)[0]
        spot = (float(x), float(y))
        if plan.structural == "scratch":
            angle = float(rng.uniform(0, np.pi))
            yield sprites.scratch(image, rng, spot, float(rng.uniform(44, 60)), angle)
        else:
            yield sprites.dirt(image, rng, spot, float(rng.uniform(32, 46)))


def _break_glass(
    image: Image,
    under: Image,
    rng: np.random.Generator,
    layout: _Layout,
    place: Point,
    side: float,
) -> Image:
    """A piece out of the side of the bottle with cracks running inwards from it."""
    x, y = moved([place], layout.matrix)[0]
    body = sprites.blank()
    sprites.polygon(body, moved(_profile(0.0), layout.matrix), 255)
    size = float(rng.uniform(38, 48))
    mask = break_edge(image, under, body, rng, (float(x), float(y)), size)
    for angle in (-0.7, 0.0, 0.6):
        turn = angle + (np.pi if side > 0 else 0.0) + float(rng.uniform(-0.2, 0.2))
        steps = np.linspace(12, rng.uniform(38, 52), 5)
        crack = sprites.place(np.stack([steps, rng.normal(0, 2.5, 5)], axis=1), (x, y), turn)
        sprites.stroke(image, crack + 1, (40, 40, 44), 2)
        sprites.stroke(image, crack, (250, 250, 250), 2)
        sprites.stroke(mask, crack, 255, 4)
    return mask


def _fault_mask(plan: Plan, layout: _Layout, damages: list[Image]) -> Image | None:
    if plan.rule is None and not damages:
        return None
    mask = sprites.blank()
    for damage in damages:
        np.maximum(mask, damage, out=mask)
    for name in (FRUIT_LABELS, LOWER_LABELS):
        found = [label for label in layout.labels() if label.cls == name]
        for label in found[1:]:
            sprites.polygon(mask, label.corners(), 255)
        if not found:
            (width, height), top = _SIZES[name], _TOPS[name][0]
            left, right = _MIDDLE - width / 2, _MIDDLE + width / 2
            area = [(left, top), (right, top), (right, top + height), (left, top + height)]
            sprites.polygon(mask, moved(area, layout.matrix), 255)
    _mark_icon(mask, plan, layout)
    if plan.attributes[LEVEL] != "normal":
        low, high = sorted((layout.surface, 88.0))
        rows = np.linspace(low, high, 12)
        half = _half_width(rows)
        lost = np.concatenate(
            [
                np.stack([_MIDDLE + half, rows], axis=1),
                np.stack([_MIDDLE - half, rows], axis=1)[::-1],
            ]
        )
        sprites.polygon(mask, moved(lost, layout.matrix), 255)
    return np.where(mask > 127, np.uint8(255), np.uint8(0)).astype(np.uint8)


def _mark_icon(mask: Image, plan: Plan, layout: _Layout) -> None:
    icon = plan.attributes[ICON]
    fits = icon in ("none", FITTING_ICON[plan.attributes[LIQUID]])
    if fits and plan.attributes[POSITION] != "off-centre":
        return
    for label in layout.labels():
        if label.cls == FRUIT_LABELS:
            sprites.polygon(mask, label.corners(), 255)
