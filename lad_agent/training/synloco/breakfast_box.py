"""The breakfast box: fruits on the left, cereal above banana chips and almonds on the right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from lad_agent.training.synloco import sprites
from lad_agent.training.synloco.breakage import break_edge
from lad_agent.training.synloco.causes import wrong_count
from lad_agent.training.synloco.overlay import Cover, affine, overlay
from lad_agent.training.synloco.scene import (
    BOARD,
    DAMAGE,
    DAMAGE_KINDS,
    Box,
    Image,
    Look,
    Part,
    Plan,
    Point,
    Scene,
    part_from_mask,
    part_from_outline,
)

PRODUCT = "breakfast_box"
TANGERINES, NECTARINES, RIGHT = "tangerines", "nectarines", "fruits on the right"
CLASSES: tuple[str, ...] = (TANGERINES, NECTARINES, RIGHT, DAMAGE)
SHARE, CHIPS, ALMONDS = "cereal share", "chip pile", "almond pile"
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    SHARE: ("third", "half", "most"),
    CHIPS: ("present", "absent"),
    ALMONDS: ("present", "absent"),
}
RULES: tuple[tuple[str, str], ...] = (
    ("R1", "exactly 2 tangerines"),
    ("R2", "exactly 1 nectarine"),
    ("R3", "exactly 0 fruits on the right"),
    ("R4", "cereal share is half"),
    ("R5", "chip pile is present"),
    ("R6", "almond pile is present"),
    ("R7", "exactly 0 damaged places"),
)

_EXPECTED = {TANGERINES: 2, NECTARINES: 1, RIGHT: 0}
_SHARES = {"third": 1 / 3, "half": 1 / 2, "most": 2 / 3}
_RADII = {TANGERINES: 35.0, NECTARINES: 38.0}
_DAMAGE_WORDS = {
    "scratch": ("scratch on a fruit", "two scratches on the fruits"),
    "dirt": ("dirt on a fruit", "dirt on the fruits in two places"),
    "bent": ("bent rim of the box", "rim of the box bent in two places"),
    "broken": ("broken rim of the box", "rim of the box broken in two places"),
}
_MOST_FRUITS = 5
_SECOND_FAULT = 0.15

# Box geometry in board pixels about the middle of the box.
_OUTER: Box = (-174, -160, 174, 160)
_LEFT: Box = (-162, -148, 2, 148)
_RIGHT: Box = (12, -148, 162, 148)
_WALL = 12.0
_ATLAS = 512
_TEXTURES = ("granola", "chips", "almonds")


def normal(rng: np.random.Generator) -> Plan:
    """Two tangerines, one nectarine, half cereal, both piles, no damage."""
    counts = {TANGERINES: 2, NECTARINES: 1, RIGHT: 0, DAMAGE: 0}
    attributes = {SHARE: "half", CHIPS: "present", ALMONDS: "present"}
    return Plan(PRODUCT, counts, attributes, spread=_spread(rng))


def logical(rng: np.random.Generator) -> Plan:
    """A plan that breaks one of R1..R6, now and then a later one too."""
    first = int(rng.integers(6))
    plan, cause = _broken(normal(rng), first, rng)
    if first < 5 and rng.random() < _SECOND_FAULT:
        plan, _ = _broken(plan, int(rng.integers(first + 1, 6)), rng)
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
    """Independent counts and attributes for training; damage in 15 % of the plans."""
    tangerines = int(rng.choice(5, p=(0.2, 0.22, 0.26, 0.2, 0.12)))
    nectarines = int(rng.choice(4, p=(0.25, 0.35, 0.25, 0.15)))
    counts = {
        TANGERINES: tangerines,
        NECTARINES: min(nectarines, _MOST_FRUITS - tangerines),
        RIGHT: int(rng.choice(3, p=(0.7, 0.2, 0.1))),
        DAMAGE: 0,
    }
    attributes = {name: values[int(rng.integers(len(values)))] for name, values in _choices()}
    kind = None
    if rng.random() < 0.15:
        kind = DAMAGE_KINDS[int(rng.integers(len(DAMAGE_KINDS)))]
        counts[DAMAGE] = 1 + int(rng.random() < 0.3)
    return Plan(PRODUCT, counts, attributes, structural=kind, spread=_spread(rng))


def draw(rng: np.random.Generator, plan: Plan, look: Look) -> Scene:
    """Draw the plan; `cereal share` is that part of the right half's height, within 0.035."""
    image, colour = sprites.background(rng, look.background, look.hue_shift)
    under = image.copy()
    frame = _Frame.pick(rng)
    _draw_box(image, rng, frame, look)
    piles = _piles(rng, plan, frame)
    for texture, region in piles:
        _pour(image, rng, texture, region)
    if look.clutter:
        _crumbs(image, rng, frame)
    fruits = _place_fruits(rng, plan, look, frame, piles)
    _draw_fruit_shadows(image, fruits)
    parts = [_draw_fruit(image, rng, fruit, look) for fruit in fruits]
    damages = list(_damage(image, under, rng, plan, frame, fruits))
    parts += [part_from_mask(DAMAGE, mask) for mask in damages]
    fault = _fault_mask(plan, frame, parts, damages)
    return Scene(PRODUCT, image, tuple(parts), dict(plan.attributes), fault, colour)


@dataclass(frozen=True)
class _Frame:
    """Where the box lies: its middle in board pixels and its size factor."""

    middle: tuple[int, int]
    scale: float

    @staticmethod
    def pick(rng: np.random.Generator) -> _Frame:
        middle = (196 + int(rng.integers(-5, 6)), 196 + int(rng.integers(-8, 9)))
        return _Frame(middle, 0.91 + 0.01 * int(rng.integers(5)))

    def box(self, box: Box) -> Box:
        (x, y), s = self.middle, self.scale
        return x + box[0] * s, y + box[1] * s, x + box[2] * s, y + box[3] * s


@dataclass(frozen=True)
class _Fruit:
    cls: str
    kind: str
    centre: Point
    radius: float


def _choices() -> Iterator[tuple[str, tuple[str, ...]]]:
    return iter(ATTRIBUTES.items())


def _spread(rng: np.random.Generator) -> str:
    return "touching" if rng.random() < 0.4 else "loose"


def _broken(plan: Plan, rule: int, rng: np.random.Generator) -> tuple[Plan, str]:
    if rule < 3:
        name = (TANGERINES, NECTARINES, RIGHT)[rule]
        found = int(rng.choice(((0, 1, 3, 4), (0, 2, 3), (1, 1, 2))[rule]))
        if rule == 1:
            found = min(found, _MOST_FRUITS - plan.counts[TANGERINES])
            found = 0 if found == 1 else found
        return _with_count(plan, name, found), _count_cause(name, found)
    if rule == 3:
        share = str(rng.choice(("third", "most")))
        words = "too little cereal" if share == "third" else "too much cereal"
        return replace(plan, attributes={**plan.attributes, SHARE: share}), words
    name = (CHIPS, ALMONDS)[rule - 4]
    words = ("banana chips missing", "almonds missing")[rule - 4]
    return replace(plan, attributes={**plan.attributes, name: "absent"}), words


def _with_count(plan: Plan, name: str, found: int) -> Plan:
    return replace(plan, counts={**plan.counts, name: found})


def _count_cause(name: str, found: int) -> str:
    if name == RIGHT:
        return "one fruit on the right" if found == 1 else "two fruits on the right"
    return wrong_count(name.removesuffix("s"), name, _EXPECTED[name], found)


def _piles(rng: np.random.Generator, plan: Plan, frame: _Frame) -> list[tuple[str, Box]]:
    share = _SHARES[plan.attributes[SHARE]] + rng.uniform(-0.035, 0.035)
    x0, y0, x1, y1 = frame.box(_RIGHT)
    level = y0 + (y1 - y0) * share
    split = x0 + (x1 - x0) * rng.uniform(0.46, 0.54)
    names = ["chips", "almonds"]
    if rng.random() < 0.3:
        names.reverse()
    there = {
        "chips": plan.attributes[CHIPS] == "present",
        "almonds": plan.attributes[ALMONDS] == "present",
    }
    places = {names[0]: (x0, level, split, y1), names[1]: (split, level, x1, y1)}
    shown = [name for name in names if there[name]]
    if len(shown) == 1 and rng.random() < 0.5:
        places[shown[0]] = (x0, level, x1, y1)
    piles: list[tuple[str, Box]] = [("granola", (x0, y0, x1, level))]
    return piles + [(name, places[name]) for name in shown]


def _place_fruits(
    rng: np.random.Generator,
    plan: Plan,
    look: Look,
    frame: _Frame,
    piles: list[tuple[str, Box]],
) -> list[_Fruit]:
    close = look.touching or plan.spread == "touching"
    factor = plan.scale * look.scale * frame.scale
    left = [TANGERINES] * plan.counts[TANGERINES] + [NECTARINES] * plan.counts[NECTARINES]
    left = [left[int(i)] for i in rng.permutation(len(left))]
    right = [str(rng.choice((TANGERINES, NECTARINES))) for _ in range(plan.counts[RIGHT])]

    def hides_no_pile(x: float, y: float, radius: float) -> bool:
        return all(_covered(box, x, y, radius) < 0.45 for _, box in piles)

    found = _scatter(rng, left, frame.box(_LEFT), factor, close, lambda x, y, r: True)
    fruits = [_Fruit(kind, kind, centre, radius) for kind, centre, radius in found]
    found = _scatter(rng, right, frame.box(_RIGHT), factor, close, hides_no_pile)
    return fruits + [_Fruit(RIGHT, kind, centre, radius) for kind, centre, radius in found]


def _covered(box: Box, x: float, y: float, radius: float) -> float:
    width = min(box[2], x + radius) - max(box[0], x - radius)
    height = min(box[3], y + radius) - max(box[1], y - radius)
    return max(width, 0) * max(height, 0) / ((box[2] - box[0]) * (box[3] - box[1]))


def _scatter(
    rng: np.random.Generator,
    kinds: list[str],
    room: Box,
    factor: float,
    close: bool,
    allowed: Callable[[float, float, float], bool],
) -> list[tuple[str, Point, float]]:
    """Places without overlap; every failed round shrinks the fruits a little."""
    gap = -1.0 if close else 4.0
    for shrink in np.linspace(1.0, 0.6, 21):
        for _ in range(4):
            placed = _attempt(rng, kinds, room, factor * float(shrink), gap, close, allowed)
            if placed is not None:
                return placed
    return _attempt(rng, kinds, room, factor * 0.5, -8.0, False, lambda x, y, r: True) or []


def _attempt(
    rng: np.random.Generator,
    kinds: list[str],
    room: Box,
    factor: float,
    gap: float,
    close: bool,
    allowed: Callable[[float, float, float], bool],
) -> list[tuple[str, Point, float]] | None:
    placed: list[tuple[str, Point, float]] = []
    for kind in kinds:
        radius = _RADII[kind] * factor * float(rng.uniform(0.94, 1.04))
        for u, v, turn in rng.random((25, 3)).tolist():
            x = room[0] + radius + u * max(room[2] - room[0] - 2 * radius, 0)
            y = room[1] + radius + v * max(room[3] - room[1] - 2 * radius, 0)
            if close and placed:
                x, y = _beside(placed[-1], radius, turn, room)
            clear = all(
                np.hypot(x - cx, y - cy) >= radius + other + gap for _, (cx, cy), other in placed
            )
            if clear and allowed(x, y, radius):
                placed.append((kind, (x, y), radius))
                break
        else:
            return None
    return placed


def _beside(neighbour: tuple[str, Point, float], radius: float, turn: float, room: Box) -> Point:
    _, (cx, cy), other = neighbour
    reach, angle = radius + other, turn * 2 * np.pi
    x = min(max(cx + reach * np.cos(angle), room[0] + radius), room[2] - radius)
    y = min(max(cy + reach * np.sin(angle), room[1] + radius), room[3] - radius)
    return float(x), float(y)


def _draw_box(image: Image, rng: np.random.Generator, frame: _Frame, look: Look) -> None:
    mask = sprites.blank()
    sprites.polygon(mask, sprites.rounded(frame.box(_OUTER), 22 * frame.scale), 255)
    sprites.shadow(image, mask, (5, 7), 8, 0.5)
    palette = ((238, 236, 230), (226, 230, 232), (214, 220, 226), (236, 228, 214))
    colour = sprites.jitter(rng, palette[int(rng.integers(4))], 6)
    ramp = np.arange(256)[:, None] / 255 * np.asarray(sprites.shift_hue(colour, look.hue_shift))
    table = np.clip(ramp, 0, 255).astype(np.uint8)[None]
    shading, cover = _scaled_box(frame.scale)
    plastic = cv2.LUT(shading, table)
    half_height, half_width = cover.shape[0] // 2, cover.shape[1] // 2
    x, y = frame.middle
    window = image[y - half_height : y + half_height, x - half_width : x + half_width]
    window[:] = cv2.copyTo(plastic, cover, window.copy())


@cache
def _scaled_box(scale: float) -> tuple[Image, Image]:
    """The box's brightness uint8 [h, w, 3] and mask [h, w] (0 or 255) at a size factor."""
    half_width, half_height = int(_OUTER[2]) + 2, int(_OUTER[3]) + 2
    matrix = np.array([[scale, 0, 196 * (1 - scale)], [0, scale, 196 * (1 - scale)]])
    grey = cv2.warpAffine(_box_shading(), matrix, (BOARD, BOARD), borderValue=255)
    mask = sprites.blank()
    sprites.polygon(mask, sprites.rounded(_Frame((196, 196), scale).box(_OUTER), 22 * scale), 255)
    rows = slice(196 - half_height, 196 + half_height)
    columns = slice(196 - half_width, 196 + half_width)
    shading = np.repeat(grey[rows, columns, None], 3, axis=2)
    inside = np.where(mask[rows, columns] > 127, np.uint8(255), np.uint8(0))
    return shading, inside.astype(np.uint8)


@cache
def _box_shading() -> Image:
    """Brightness uint8 [BOARD, BOARD] of the empty box: rim, floors and their inner shadows."""
    frame = _Frame((196, 196), 1.0)
    value = np.full((BOARD, BOARD), 250, np.float32)
    value += np.linspace(4, -8, BOARD, dtype=np.float32)[:, None]
    outer = sprites.blank()
    sprites.polygon(outer, sprites.rounded(frame.box(_OUTER), 22), 255)
    rim = cv2.GaussianBlur(outer, (0, 0), 3.0).astype(np.float32) / 255
    value -= 70 * np.clip(1 - rim, 0, 1) * (outer > 0)
    for room in (_LEFT, _RIGHT):
        floor = sprites.blank()
        sprites.polygon(floor, sprites.rounded(frame.box(room), 16), 255)
        inside = floor.astype(np.float32) / 255
        deep = cv2.GaussianBlur(np.roll(inside, (8, 6), (0, 1)), (0, 0), 9.0)
        shade = 222 - 95 * (1 - deep)
        value = value * (1 - inside) + shade * inside
        edge = sprites.blank()
        sprites.stroke(edge, sprites.rounded(frame.box(room), 16), 255, 2, closed=True)
        value -= 30 * edge.astype(np.float32) / 255
    grain = np.random.default_rng(5).normal(0, 1.6, (BOARD, BOARD))
    return np.clip(value + grain, 0, 255).astype(np.uint8)


def _pour(image: Image, rng: np.random.Generator, texture: str, region: Box) -> None:
    """Fill the region (ragged within 3 px) with a texture, shaded towards its rim."""
    x0, y0, x1, y1 = (round(v) for v in region)
    margin = 6
    left, top = x0 - margin, y0 - margin
    width, height = x1 - x0 + 2 * margin, y1 - y0 + 2 * margin
    mask = np.zeros((height, width), np.uint8)
    sprites.polygon(mask, _ragged(rng, region) - (left, top), 255)
    cover = mask.astype(np.float32) / 255
    soft = cv2.blur(cover, (9, 9))
    u, v = (int(n) for n in rng.integers(0, (_ATLAS - width, _ATLAS - height)))
    flip = int(rng.integers(4))
    crop = _atlas(texture)[v : v + height, u : u + width]
    crop = crop[:: 1 - 2 * (flip & 1), :: 1 - 2 * (flip >> 1)]
    depth = np.clip(0.52 + 0.5 * soft, 0, 1.02) * (0.35 + 0.65 * cover)
    light = (depth * rng.uniform(0.94, 1.04)).astype(np.float32)
    shaded = cv2.multiply(np.ascontiguousarray(crop), cv2.merge((light, light, light)), dtype=0)
    window = image[top : top + height, left : left + width]
    alpha = np.maximum(cover, soft * np.float32(0.6))
    window[:] = cv2.blendLinear(shaded, window.copy(), alpha, 1 - alpha)


def _ragged(rng: np.random.Generator, box: Box) -> npt.NDArray[np.float64]:
    x0, y0, x1, y1 = box
    across, down = np.linspace(x0, x1, 12)[:-1], np.linspace(y0, y1, 9)[:-1]
    rim = np.concatenate(
        [
            np.stack([across, np.full(11, y0)], axis=1),
            np.stack([np.full(8, x1), down], axis=1),
            np.stack([x0 + x1 - across, np.full(11, y1)], axis=1),
            np.stack([np.full(8, x0), y0 + y1 - down], axis=1),
        ]
    )
    return np.asarray(rim + np.clip(rng.normal(0, 1.6, rim.shape), -3, 3), np.float64)


@cache
def _atlas(texture: str) -> Image:
    """Texture uint8 RGB [_ATLAS, _ATLAS, 3] of granola, banana chips or almonds."""
    rng = np.random.default_rng([17, _TEXTURES.index(texture)])
    count = {"granola": 9000, "chips": 900, "almonds": 2200}[texture]
    ground = {"granola": (86, 56, 30), "chips": (140, 104, 50), "almonds": (60, 32, 18)}[texture]
    atlas = np.empty((_ATLAS, _ATLAS, 3), np.uint8)
    atlas[:] = ground
    paint = {"granola": _paint_flake, "chips": _paint_chip, "almonds": _paint_almond}[texture]
    for _ in range(count):
        x, y = rng.uniform(0, _ATLAS, 2)
        paint(atlas, rng, (float(x), float(y)))
    return atlas


def _paint_flake(atlas: Image, rng: np.random.Generator, at: Point) -> None:
    palette = ((206, 164, 104), (188, 140, 78), (222, 188, 134), (160, 110, 58), (132, 84, 44))
    colour = sprites.jitter(rng, palette[int(rng.integers(5))], 12)
    outline = _ellipse(rng.uniform(2.5, 7), rng.uniform(2, 4.5))
    turn = float(rng.uniform(0, np.pi))
    sprites.polygon(atlas, sprites.place(outline, (at[0] + 1, at[1] + 1.6), turn), (70, 44, 22))
    sprites.polygon(atlas, sprites.place(outline, at, turn), colour)


def _paint_chip(atlas: Image, rng: np.random.Generator, at: Point) -> None:
    radius = float(rng.uniform(12, 16))
    outline = _ellipse(radius, radius * float(rng.uniform(0.75, 1.0)))
    turn = float(rng.uniform(0, np.pi))
    light = float(rng.uniform(-14, 10))

    def lit(red: float, green: float, blue: float) -> tuple[float, float, float]:
        return red + light, green + light, blue + light

    sprites.polygon(atlas, sprites.place(outline, (at[0] + 2, at[1] + 2.6), turn), (112, 80, 34))
    sprites.polygon(atlas, sprites.place(outline, at, turn), lit(214, 178, 96))
    sprites.polygon(atlas, sprites.place(outline * 0.84, at, turn), lit(244, 226, 158))
    sprites.polygon(atlas, sprites.place(outline * 0.36, at, turn), lit(222, 190, 116))
    for angle in (0.3, 2.4, 4.5):
        spot = (
            at[0] + radius * 0.2 * np.cos(angle + turn),
            at[1] + radius * 0.2 * np.sin(angle + turn),
        )
        sprites.disc(atlas, spot, 1.3, (146, 104, 54))


def _paint_almond(atlas: Image, rng: np.random.Generator, at: Point) -> None:
    turn = float(rng.uniform(0, 2 * np.pi))
    colour = sprites.jitter(rng, (156, 88, 46), 16)
    outline = _ellipse(12.5, 7.2)
    outline[:, 1] *= 1 - 0.35 * outline[:, 0] / 12.5
    sprites.polygon(atlas, sprites.place(outline, (at[0] + 1.6, at[1] + 2.2), turn), (46, 24, 14))
    sprites.polygon(atlas, sprites.place(outline, at, turn), colour)
    lit = (colour[0] + 34, colour[1] + 28, colour[2] + 22)
    for offset in (-2.6, 0.4):
        line = np.array([[-8.0, offset], [0, offset * 1.3], [8.0, offset * 0.4]])
        sprites.stroke(atlas, sprites.place(line, (at[0], at[1] - 1), turn), lit, 1)


def _ellipse(across: float, down: float) -> npt.NDArray[np.float64]:
    return np.asarray(sprites.circle_points(1.0, 20) * (across, down), np.float64)


def _crumbs(image: Image, rng: np.random.Generator, frame: _Frame) -> None:
    x0, y0, x1, y1 = frame.box(_LEFT)
    for _ in range(int(rng.integers(4, 10))):
        at = (float(rng.uniform(x0 + 6, x1 - 6)), float(rng.uniform(y0 + 6, y1 - 6)))
        sprites.disc(image, (at[0] + 1, at[1] + 1), 2.0, (120, 100, 80))
        sprites.disc(image, at, float(rng.uniform(1.2, 2.2)), (184, 138, 80))


def _draw_fruit(image: Image, rng: np.random.Generator, fruit: _Fruit, look: Look) -> Part:
    scale = fruit.radius / _RADII[fruit.kind]
    turn = float(rng.uniform(-0.5, 0.5))
    warm = look.hue_shift * 8
    light = float(rng.uniform(0.92, 1.06))
    picture, cover, outline = _fruit_picture(fruit.kind, int(rng.integers(6)))
    gain = (light, light * (1 + warm / 200), light, 0)
    lit = cv2.multiply(picture, gain)
    size = (cover.shape[1], cover.shape[0])
    overlay(image, lit, cover, affine(size, fruit.centre, turn, scale / sprites.SPRITE_SCALE))
    return part_from_outline(fruit.cls, sprites.place(outline, fruit.centre, turn, scale))


def _draw_fruit_shadows(image: Image, fruits: list[_Fruit]) -> None:
    mask = sprites.blank()
    for fruit in fruits:
        sprites.disc(mask, fruit.centre, fruit.radius, 255)
    if fruits:
        sprites.shadow(image, mask, (5, 6), 5, 0.55)


@cache
def _fruit_picture(kind: str, variant: int) -> tuple[Image, Cover, npt.NDArray[np.float64]]:
    """A fruit as uint8 RGB [h, w, 3], coverage [h, w] in 0..1 and rim points [n, 2]."""
    sprite = _fruit_sprite(kind, variant)
    cover = sprite.rgba[..., 3]
    rgb = sprite.rgba[..., :3] / np.maximum(cover, 1e-3)[..., None]
    rgb8 = np.clip(rgb * 255, 0, 255).astype(np.uint8)
    return rgb8, np.ascontiguousarray(cover), sprite.outline


def _fruit_sprite(kind: str, variant: int) -> sprites.Sprite:
    rng = np.random.default_rng([29, len(kind), variant])
    radius = _RADII[kind]
    x, y = sprites.grid(2 * radius + 6, 2 * radius + 6)
    theta = np.arctan2(y, x)
    wobble = sum(rng.normal(0, 0.010) * np.cos(k * theta + rng.uniform(0, 6)) for k in range(2, 5))
    rim = radius * (0.985 + wobble)
    depth = np.sqrt(np.clip(1 - (np.hypot(x, y) / rim) ** 2, 0, 1))
    light = np.clip(-0.42 * x / radius - 0.46 * y / radius + 0.78 * depth, 0, 1.1)
    paint = _tangerine if kind == TANGERINES else _nectarine
    rgb = paint(rng, x, y, light.astype(np.float32)) * (0.52 + 0.58 * light[..., None])
    glint = np.exp(-((x / radius + 0.34) ** 2 + (y / radius + 0.38) ** 2) / 0.03)
    rgb = rgb + (0.22 if kind == TANGERINES else 0.34) * glint[..., None]
    inside = (rim - np.hypot(x, y)).astype(np.float32)
    return sprites.sprite(rgb.astype(np.float32), inside, sprites.circle_points(radius * 0.985, 24))


def _tangerine(
    rng: np.random.Generator, x: sprites.Floats, y: sprites.Floats, light: sprites.Floats
) -> sprites.Floats:
    """Pitted orange peel with a pale green stem star."""
    pits = cv2.GaussianBlur(rng.standard_normal(x.shape).astype(np.float32), (0, 0), 1.7)
    rgb = (
        np.asarray((1.0, 0.56, 0.08), np.float32) * (1 + 0.9 * np.clip(pits, -0.2, 0.1))[..., None]
    )
    cx, cy = rng.uniform(-10, 10, 2)
    radius, theta = np.hypot(x - cx, y - cy), np.arctan2(y - cy, x - cx)
    star = np.clip((8.2 + 3.4 * np.cos(5 * theta + rng.uniform(0, 6)) - radius) / 1.2, 0, 1)
    dimple = 1 - 0.22 * np.exp(-((radius / 13) ** 2))
    green = np.asarray((0.36, 0.46, 0.14), np.float32)
    rgb = rgb * dimple[..., None]
    return np.asarray(rgb * (1 - star[..., None]) + green * star[..., None], np.float32)


def _nectarine(
    rng: np.random.Generator, x: sprites.Floats, y: sprites.Floats, light: sprites.Floats
) -> sprites.Floats:
    """Dark red skin with one yellow cheek, a crease from rim to stem and pale freckles."""
    turn = rng.uniform(0, 2 * np.pi)
    u = x * np.cos(turn) + y * np.sin(turn)
    v = -x * np.sin(turn) + y * np.cos(turn)
    mottle = cv2.GaussianBlur(rng.standard_normal(x.shape).astype(np.float32), (0, 0), 7.0)
    cheek = 1 / (1 + np.exp(-(v / 38.0 - 0.42 + 5.0 * mottle) * 8))
    red, yellow = np.asarray((0.70, 0.09, 0.10)), np.asarray((0.98, 0.70, 0.22))
    rgb = red + (yellow - red) * cheek[..., None]
    freckles = rng.standard_normal(x.shape).astype(np.float32)
    freckles = cv2.GaussianBlur(freckles, (0, 0), 1.2)
    rgb = rgb + 0.10 * (freckles > 0.5)[..., None]
    bend = v + 7 - 0.012 * u**2
    crease = np.exp(-((bend / 2.0) ** 2)) * np.clip((u + 4) / 6, 0, 1)
    stem = np.exp(-((np.hypot(u + 2, v + 7) / 6.0) ** 4))
    rgb = rgb * (1 - 0.6 * crease[..., None])
    dark = np.asarray((0.20, 0.11, 0.05))
    return np.asarray(rgb * (1 - stem[..., None]) + dark * stem[..., None], np.float32)


def _damage(
    image: Image,
    under: Image,
    rng: np.random.Generator,
    plan: Plan,
    frame: _Frame,
    fruits: list[_Fruit],
) -> Iterator[Image]:
    if plan.structural in ("bent", "broken"):
        sides = rng.permutation(4)
        for side in sides[: plan.counts[DAMAGE]].tolist():
            yield _damage_rim(image, under, rng, plan.structural, frame, side)
        return
    x0, y0, x1, y1 = frame.box(_LEFT)
    x = (x0 + x1) / 2
    spots: list[Point] = [fruits[int(i)].centre for i in rng.permutation(len(fruits))]
    spots += [(x, y0 + 75), (x, y1 - 75)]
    chosen = spots[:1]
    chosen += [s for s in spots[1:] if np.hypot(s[0] - chosen[0][0], s[1] - chosen[0][1]) > 60]
    for x, y in chosen[: plan.counts[DAMAGE]]:
        spot = (x + float(rng.uniform(-6, 6)), y + float(rng.uniform(-6, 6)))
        if plan.structural == "scratch":
            angle = float(rng.uniform(0, np.pi))
            yield sprites.scratch(image, rng, spot, float(rng.uniform(36, 52)), angle)
        else:
            yield sprites.dirt(image, rng, spot, float(rng.uniform(30, 42)))


def _damage_rim(
    image: Image, under: Image, rng: np.random.Generator, kind: str, frame: _Frame, side: int
) -> Image:
    """Break a piece out of one side of the rim (left, right, top, bottom) or dent it."""
    x0, y0, x1, y1 = frame.box(_OUTER)
    along = float(rng.uniform(0.25, 0.75))
    x, y = x0 + (x1 - x0) * along, y0 + (y1 - y0) * along
    spot, inward = (
        ((x0, y), 0.0),
        ((x1, y), np.pi),
        ((x, y0), np.pi / 2),
        ((x, y1), -np.pi / 2),
    )[side]
    if kind == "broken":
        inset = (spot[0] + 5 * np.cos(inward), spot[1] + 5 * np.sin(inward))
        body = sprites.blank()
        sprites.polygon(body, sprites.rounded(frame.box(_OUTER), 22 * frame.scale), 255)
        return break_edge(image, under, body, rng, inset, float(rng.uniform(38, 48)))
    half, depth = float(rng.uniform(24, 34)), float(rng.uniform(12, 17))
    t = np.linspace(-1, 1, 24)
    bump = depth * np.cos(t * np.pi / 2) ** 2
    dent = sprites.place(np.stack([bump, t * half], axis=1), spot, inward)
    ridge = sprites.place(np.stack([bump + 6, t * half], axis=1), spot, inward)
    mask = sprites.blank()
    outside = sprites.place(np.array([[-3.0, half], [-3.0, -half]]), spot, inward)
    gap = np.concatenate([dent, outside])
    sprites.polygon(mask, gap, 255)
    chosen = mask > 127
    image[chosen] = (under[chosen] * 0.6).astype(np.uint8)
    sprites.stroke(image, ridge, (250, 250, 248), 3)
    sprites.stroke(image, dent, (70, 66, 62), 3)
    sprites.polygon(mask, np.concatenate([dent, ridge[::-1]]), 255)
    sprites.stroke(mask, ridge, 255, 4)
    return mask


def _fault_mask(plan: Plan, frame: _Frame, parts: list[Part], damages: list[Image]) -> Image | None:
    mask = sprites.blank()
    for damage in damages:
        np.maximum(mask, damage, out=mask)
    for name in (TANGERINES, NECTARINES):
        found = [part for part in parts if part.cls == name]
        if len(found) < _EXPECTED[name]:
            _mark(mask, frame.box(_LEFT))
        for part in found[_EXPECTED[name] :]:
            sprites.polygon(mask, part.outline, 255)
    for part in parts:
        if part.cls == RIGHT:
            sprites.polygon(mask, part.outline, 255)
    _mark_right(mask, plan, frame)
    if plan.rule is None and not damages:
        return None
    return np.where(mask > 127, np.uint8(255), np.uint8(0)).astype(np.uint8)


def _mark_right(mask: Image, plan: Plan, frame: _Frame) -> None:
    x0, y0, x1, y1 = frame.box(_RIGHT)
    share = _SHARES[plan.attributes[SHARE]]
    if share != 0.5:
        low, high = sorted((share, 0.5))
        _mark(mask, (x0, y0 + (y1 - y0) * low, x1, y0 + (y1 - y0) * high))
    if "absent" in (plan.attributes[CHIPS], plan.attributes[ALMONDS]):
        _mark(mask, (x0, y0 + (y1 - y0) * share, x1, y1))


def _mark(mask: Image, box: Box) -> None:
    x0, y0, x1, y1 = (round(v) for v in box)
    cv2.rectangle(mask, (x0, y0), (x1, y1), 255, -1)
