"""Screw bag: washers, nuts, long and short screws lying anywhere in a transparent bag."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from lad_agent.training.synloco import sprites
from lad_agent.training.synloco.causes import wrong_count
from lad_agent.training.synloco.scene import (
    DAMAGE,
    DAMAGE_KINDS,
    Image,
    Look,
    Part,
    Plan,
    Point,
    Scene,
    part_from_mask,
    part_from_outline,
)
from lad_agent.training.synloco.sprites import Sprite

PRODUCT = "screw_bag"
WASHERS, NUTS, LONG, SHORT = "washers", "nuts", "long screws", "short screws"
KINDS = (WASHERS, NUTS, LONG, SHORT)
CLASSES: tuple[str, ...] = (*KINDS, DAMAGE)
ATTRIBUTES: dict[str, tuple[str, ...]] = {}
RULES: tuple[tuple[str, str], ...] = (
    ("R1", "exactly 2 washers"),
    ("R2", "exactly 2 nuts"),
    ("R3", "exactly 1 long screw"),
    ("R4", "exactly 1 short screw"),
    ("R5", "exactly 0 damaged places"),
)
_WANTED = {WASHERS: 2, NUTS: 2, LONG: 1, SHORT: 1}
_SINGULAR = {WASHERS: "washer", NUTS: "nut", LONG: "long screw", SHORT: "short screw"}
_MOST, _MOST_IN_ALL = 6, 12
_LONG_LENGTH, _SHORT_LENGTH = 116, 56
_BAG = (14.0, 16.0, 378.0, 380.0)
_INSIDE = (24.0, 52.0, 368.0, 370.0)
_DAMAGE_WORDS = {
    "scratch": "scratch on the bag",
    "bent": "bent screw",
    "dirt": "dirt in the bag",
    "broken": "torn bag",
}


def normal(rng: np.random.Generator) -> Plan:
    """Two washers, two nuts, a long and a short screw."""
    return Plan(PRODUCT, {**_WANTED, DAMAGE: 0}, spread=_spread(rng))


def logical(rng: np.random.Generator) -> Plan:
    """One kind in a wrong number, off by one to four; now and then a later kind too."""
    first = int(rng.integers(len(KINDS)))
    counts = {**_WANTED, DAMAGE: 0}
    counts[KINDS[first]] = _wrong(rng, KINDS[first])
    if first + 1 < len(KINDS) and rng.random() < 0.15:
        second = KINDS[int(rng.integers(first + 1, len(KINDS)))]
        counts[second] = _wrong(rng, second)
    kind = KINDS[first]
    cause = wrong_count(_SINGULAR[kind], kind, _WANTED[kind], counts[kind])
    return Plan(PRODUCT, counts, cause=cause, rule=RULES[first][0], spread=_spread(rng))


def structural(rng: np.random.Generator) -> Plan:
    """A complete bag with one damage, sometimes two."""
    kind = DAMAGE_KINDS[int(rng.integers(len(DAMAGE_KINDS)))]
    count = 2 if kind != "bent" and rng.random() < 0.25 else 1
    plan = normal(rng)
    return replace(
        plan,
        counts={**plan.counts, DAMAGE: count},
        structural=kind,
        cause=_DAMAGE_WORDS[kind],
        rule="R5",
    )


def varied(rng: np.random.Generator) -> Plan:
    """0 to 6 of every kind, independently, at most 12 in all; damage in 15%."""
    while True:
        drawn = rng.choice(_MOST + 1, size=len(KINDS), p=(0.16, 0.24, 0.22, 0.16, 0.1, 0.07, 0.05))
        if drawn.sum() <= _MOST_IN_ALL:
            break
    counts = {kind: int(n) for kind, n in zip(KINDS, drawn, strict=True)} | {DAMAGE: 0}
    plan = Plan(PRODUCT, counts, spread=_spread(rng))
    if rng.random() < 0.15:
        kinds = [k for k in DAMAGE_KINDS if k != "bent" or counts[LONG]]
        kind = kinds[int(rng.integers(len(kinds)))]
        count = 2 if kind != "bent" and rng.random() < 0.25 else 1
        plan = replace(plan, counts={**counts, DAMAGE: count}, structural=kind)
    return plan


def draw(rng: np.random.Generator, plan: Plan, look: Look) -> Scene:
    """Draw the bag and what lies in it."""
    image, colour = sprites.background(rng, look.background, look.hue_shift)
    bare = image.copy()
    _bag(rng, image)
    wanted = [kind for kind in KINDS for _ in range(plan.counts[kind])]
    size = plan.scale * look.scale
    spots = _places(rng, wanted, size, look.touching or plan.spread == "touching")
    bend = plan.structural == "bent"
    parts: list[Part] = []
    mask = sprites.blank() if plan.structural or plan.rule else None
    shade = sprites.blank()
    shown = []
    for kind, centre, angle in spots:
        sprite = _bent_screw() if bend and kind == LONG else _sprite(kind, int(rng.integers(2)))
        bend = bend and kind != LONG
        shown.append((kind, sprite, centre, angle))
        cv2.fillPoly(
            shade,
            [np.round(sprites.place(sprite.outline, centre, angle, size)).astype(np.int32)],
            255,
        )
    sprites.shadow(image, shade, (2.5, 3.5), 4.0, 0.5)
    extra = {kind: plan.counts[kind] - _WANTED[kind] for kind in KINDS}
    for kind, sprite, centre, angle in shown:
        gain = rng.uniform(0.88, 1.1) * rng.uniform(0.97, 1.03, 3)
        rim = sprites.paste(image, sprite, centre, angle, size, gain.tolist())
        parts.append(part_from_outline(kind, rim))
        if sprite is _bent_screw():
            hurt = sprites.blank()
            sprites.polygon(hurt, rim, 255)
            parts.append(replace(part_from_mask(DAMAGE, hurt), centre=parts[-1].centre))
            if mask is not None:
                mask |= hurt
        elif mask is not None and plan.rule and extra[kind] > 0:
            extra[kind] -= 1
            sprites.polygon(mask, rim, 255)
    _film(rng, image)
    if plan.structural and plan.structural != "bent" and mask is not None:
        for hurt in _damages(rng, image, bare, plan):
            parts.append(part_from_mask(DAMAGE, hurt))
            mask |= hurt
    if mask is not None and plan.rule and not mask.any():
        x0, y0, x1, y1 = (round(v) for v in _INSIDE)
        mask[y0:y1, x0:x1] = 255
    return Scene(PRODUCT, image, tuple(parts), {}, mask, colour)


def _spread(rng: np.random.Generator) -> str:
    return "touching" if rng.random() < 0.3 else "loose"


def _wrong(rng: np.random.Generator, kind: str) -> int:
    options = [n for n in range(_MOST + 1) if 0 < abs(n - _WANTED[kind]) <= 4]
    weights = np.array([1.0 / abs(n - _WANTED[kind]) for n in options])
    return int(rng.choice(options, p=weights / weights.sum()))


def _places(
    rng: np.random.Generator, wanted: list[str], size: float, touching: bool
) -> list[tuple[str, Point, float]]:
    """Free places, largest parts first; parts keep apart by the circles that cover them."""
    room = 0.94 if touching else 1.08
    taken: list[tuple[npt.NDArray[np.float64], float]] = []
    out = []
    x0, y0, x1, y1 = _INSIDE
    for kind in sorted(wanted, key=lambda k: -_reach(k)):
        margin = _reach(kind) * size
        for tries in range(400):
            angle = float(rng.uniform(0, 2 * np.pi))
            centre = (
                float(rng.uniform(x0 + margin, x1 - margin)),
                float(rng.uniform(y0 + margin, y1 - margin)),
            )
            circles = sprites.place(_circles(kind), centre, angle, size)
            radius = _radius(kind) * size
            slack = room - 0.25 * max(0, tries - 150) / 250
            if all(
                np.hypot(*(circles[:, None] - other[None]).transpose(2, 0, 1)).min()
                >= (radius + near) * slack
                for other, near in taken
            ):
                break
        taken.append((circles, radius))
        out.append((kind, centre, angle))
    return out


def _length(kind: str) -> int:
    return _LONG_LENGTH if kind == LONG else _SHORT_LENGTH


def _reach(kind: str) -> float:
    return _length(kind) / 2 if kind in (LONG, SHORT) else 28.0


def _radius(kind: str) -> float:
    return {WASHERS: 27.0, NUTS: 24.0}.get(kind, 14.0)


def _circles(kind: str) -> npt.NDArray[np.float64]:
    if kind in (WASHERS, NUTS):
        return np.zeros((1, 2))
    half = _length(kind) / 2 - 10
    xs = np.linspace(-half, half, 6 if kind == LONG else 3)
    return np.stack([xs, np.zeros_like(xs)], axis=1)


@cache
def _sprite(kind: str, finish: int) -> Sprite:
    if kind == WASHERS:
        return _washer()
    if kind == NUTS:
        return _nut(finish)
    return _screw(_length(kind), 0.0)


@cache
def _bent_screw() -> Sprite:
    return _screw(_LONG_LENGTH, 26.0)


def _washer() -> Sprite:
    x, y = sprites.grid(60, 60)
    r = np.hypot(x, y)
    inside = np.minimum(27 - r, r - 13.5)
    turn = np.arctan2(y, x)
    value = 0.66 + 0.14 * np.cos(2 * (turn - 0.7)) - 0.12 * (np.clip(3 - inside, 0, 3) / 3)
    return sprites.sprite(_grey(value), inside, sprites.circle_points(27))


def _nut(finish: int) -> Sprite:
    x, y = sprites.grid(56, 56)
    r, turn = np.hypot(x, y), np.arctan2(y, x)
    wedge = (turn + np.pi / 6) % (np.pi / 3) - np.pi / 6
    edge = 21.0 - r * np.cos(wedge)
    inside = np.minimum(edge, r - 8.0)
    facet = np.cos(np.round((turn) / (np.pi / 3)) * (np.pi / 3) - 0.8)
    value = np.where(r < 15, 0.78, 0.56 + 0.16 * facet) - 0.18 * (np.clip(2 - inside, 0, 2) / 2)
    tone = np.array([1.02, 0.82, 0.42] if finish else [0.62, 0.6, 0.62])
    rgb = (value[..., None] * tone).astype(np.float32)
    angles = np.arange(6) * np.pi / 3 + np.pi / 6
    rim = np.stack([np.cos(angles), np.sin(angles)], axis=1) * 24.2
    return sprites.sprite(rgb, inside.astype(np.float32), rim)


def _screw(length: int, bend: float) -> Sprite:
    """A screw along x, head on the left; `bend` is how far its tip leaves the axis, in px."""
    height = 36 + 2 * bend
    x, y = sprites.grid(length + 4, height)
    half = length / 2
    t = np.clip((x + half - 14) / (length - 14), 0, 1)
    middle = bend * t**2
    head = np.minimum(15.5 - np.abs(y), 7.0 - np.abs(x + half - 7.0))
    width = 7.4 - 4.8 * np.clip((x - half + 9) / 9, 0, 1)
    shaft = np.minimum(width - np.abs(y - middle), np.minimum(x + half - 12, half - x))
    inside = np.maximum(head, shaft)
    thread = 0.1 * np.sin(x * (2 * np.pi / 4.6) + (y - middle) * 0.5)
    value = np.where(
        head > shaft, 0.3 + 0.2 * np.cos(y / 7.0), 0.32 + thread + 0.2 * np.cos((y - middle) / 4.6)
    )
    value = value - 0.12 * (np.clip(1.5 - inside, 0, 1.5) / 1.5)
    xs = np.linspace(-half + 14, half, 6)
    curve = bend * np.clip((xs + half - 14) / (length - 14), 0, 1) ** 2
    top = np.stack([xs, curve - 7.4], axis=1)
    low = np.stack([xs[::-1], curve[::-1] + 7.4], axis=1)
    cap = np.array([[-half + 14, 15.5], [-half, 15.5], [-half, -15.5], [-half + 14, -15.5]])
    rim = np.concatenate([top, low, cap])
    return sprites.sprite(_grey(value), inside.astype(np.float32), rim)


def _grey(value: npt.NDArray[np.floating]) -> sprites.Floats:
    return np.asarray(value[..., None] * np.array([0.97, 0.98, 1.02]), np.float32)


def _bag(rng: np.random.Generator, image: Image) -> None:
    """The back of the bag: a lighter rounded sheet with a zip across the top."""
    sheet = sprites.blank()
    sprites.polygon(sheet, sprites.rounded(_BAG, 16), 255)
    sprites.shadow(image, sheet, (3, 4), 8, 0.35)
    sprites.tint(image, sheet, sprites.jitter(rng, (226, 228, 232)), float(rng.uniform(0.72, 0.88)))
    x0, y0, x1, _ = _BAG
    for offset, colour in ((18, (150, 168, 196)), (24, (232, 238, 246))):
        sprites.stroke(image, [(x0 + 8, y0 + offset), (x1 - 8, y0 + offset)], colour, 3)
    sprites.stroke(image, sprites.rounded(_BAG, 16), (176, 180, 188), 2, closed=True)


def _film(rng: np.random.Generator, image: Image) -> None:
    """The front of the bag: a few faint creases that catch the light."""
    shine = sprites.blank()
    for _ in range(int(rng.integers(2, 5))):
        start, end = rng.uniform(30, 360, 2), rng.uniform(30, 360, 2)
        bow = (start + end) / 2 + rng.uniform(-30, 30, 2)
        sprites.stroke(shine, np.stack([start, bow, end]), 255, int(rng.integers(3, 8)))
    small = cv2.resize(shine, (98, 98), interpolation=cv2.INTER_AREA)
    soft = cv2.resize(cv2.GaussianBlur(small, (0, 0), 1.2), shine.shape)
    sprites.tint(image, np.asarray(soft, np.uint8), (255, 255, 255), float(rng.uniform(0.1, 0.3)))


def _damages(rng: np.random.Generator, image: Image, bare: Image, plan: Plan) -> list[Image]:
    """Damage at `plan.counts[DAMAGE]` places far from each other."""
    out: list[Image] = []
    spots: list[npt.NDArray[np.float64]] = []
    while len(out) < plan.counts[DAMAGE]:
        centre = rng.uniform((50, 78), (342, 344))
        if any(np.hypot(*(centre - other)) < 110 for other in spots):
            continue
        spots.append(centre)
        at = (float(centre[0]), float(centre[1]))
        if plan.structural == "scratch":
            length, angle = float(rng.uniform(50, 80)), float(rng.uniform(0, np.pi))
            out.append(sprites.scratch(image, rng, at, length, angle))
        elif plan.structural == "dirt":
            out.append(sprites.dirt(image, rng, at, float(rng.uniform(40, 56))))
        else:
            out.append(sprites.chip(image, bare, rng, at, float(rng.uniform(46, 62))))
    return out
