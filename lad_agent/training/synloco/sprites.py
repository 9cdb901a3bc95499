"""Shared drawing: board backgrounds, soft shadows, sprites and damage.

All positions are board pixels (x, y), all images uint8 RGB [BOARD, BOARD, 3] changed in place.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from lad_agent.training.synloco.scene import BOARD, Image, Point

cv2.setNumThreads(1)

Colour = tuple[float, float, float]
Floats = npt.NDArray[np.float32]

SPRITE_SCALE = 2.0
_SHIFT = 4
_TEXTURE = 512
_PALETTES: dict[str, tuple[Colour, ...]] = {
    "paper": ((232, 230, 224), (214, 216, 218), (240, 236, 222), (205, 200, 190)),
    "felt": ((70, 92, 84), (66, 78, 104), (112, 112, 116), (120, 96, 92), (58, 60, 64)),
    "wood": ((186, 148, 104), (150, 110, 74), (206, 176, 134), (120, 88, 62)),
    "metal": ((168, 172, 178), (140, 144, 150), (190, 190, 188)),
    "tiles": ((196, 204, 206), (150, 164, 176), (206, 196, 178)),
}


@dataclass(frozen=True)
class Sprite:
    """Premultiplied float32 RGBA [h, w, 4] in 0..1, SPRITE_SCALE pixels to a board pixel.

    `outline`: rim points [n, 2] in board pixels from the sprite's middle.
    """

    rgba: Floats
    outline: npt.NDArray[np.float64]


def background(
    rng: np.random.Generator, kind: str, hue_shift: float = 0.0
) -> tuple[Image, tuple[int, int, int]]:
    """A board covered with one material, and the mean colour that continues it outside."""
    palette = _PALETTES[kind]
    colour = shift_hue(palette[int(rng.integers(len(palette)))], hue_shift)
    return textured(rng, kind, colour), (int(colour[0]), int(colour[1]), int(colour[2]))


def textured(rng: np.random.Generator, kind: str, colour: Colour) -> Image:
    """A board covered with the texture `kind` (paper, felt, wood, metal, tiles) in a colour."""
    field = texture(kind)
    x, y = (int(v) for v in rng.integers(0, _TEXTURE - BOARD, 2))
    crop = field[y : y + BOARD, x : x + BOARD]
    flip = int(rng.integers(4))
    crop = crop[:: 1 - 2 * (flip & 1), :: 1 - 2 * (flip >> 1)]
    ramp = np.arange(256, dtype=np.float32)[:, None] / 128 * np.asarray(colour, dtype=np.float32)
    table = np.clip(ramp, 0, 255).astype(np.uint8)[None]
    grey = np.ascontiguousarray(crop)
    return np.asarray(cv2.LUT(cv2.merge((grey, grey, grey)), table), dtype=np.uint8)


@cache
def texture(kind: str) -> Image:
    """Brightness field uint8 [512, 512]; 128 leaves a colour as it is."""
    rng = np.random.default_rng([71, sorted(_PALETTES).index(kind)])
    white = rng.standard_normal((_TEXTURE, _TEXTURE)).astype(np.float32)
    if kind == "paper":
        value = 1.2 * _smooth(white, 1.0, 1.0) + 1.6 * _smooth(white.T.copy(), 14, 14)
    elif kind == "felt":
        value = 5.0 * _smooth(white, 1.2, 1.2) + 3.5 * _smooth(white.T.copy(), 6, 6)
    elif kind == "wood":
        value = 7.0 * _smooth(white, 60, 1.6) + 7.0 * _smooth(white.T.copy(), 90, 6)
    elif kind == "metal":
        value = 5.0 * _smooth(white, 40, 0.8) + 5.0 * _smooth(white.T.copy(), 30, 30)
    else:
        value = 2.0 * _smooth(white, 2, 2)
        lines = np.arange(_TEXTURE) % 84 < 5
        value[lines] = -30
        value[:, lines] = -30
        value = np.asarray(cv2.GaussianBlur(value, (0, 0), 1.0), dtype=np.float32)
    return np.asarray(np.clip(128 + value, 0, 255), np.uint8)


def shift_hue(colour: Colour, shift: float) -> Colour:
    """`colour` (0..255) with its hue turned by `shift` * 20 degrees."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*(c / 255 for c in colour))
    red, green, blue = colorsys.hls_to_rgb((hue + shift / 18) % 1.0, lightness, saturation)
    return red * 255, green * 255, blue * 255


def jitter(rng: np.random.Generator, colour: Colour, amount: float = 8.0) -> Colour:
    """`colour` with each channel moved by up to `amount`, kept in 0..255."""
    moved = np.clip(np.asarray(colour) + rng.uniform(-amount, amount, 3), 0, 255)
    return float(moved[0]), float(moved[1]), float(moved[2])


def polygon(
    image: Image, points: npt.ArrayLike, colour: Colour | int, edge: Colour | None = None
) -> None:
    """Fill a polygon, points [n, 2], antialiased; `edge` also draws a one pixel rim."""
    fixed = _fixed(points)
    cv2.fillPoly(image, [fixed], _scalar(colour), cv2.LINE_AA, _SHIFT)
    if edge is not None:
        cv2.polylines(image, [fixed], True, _scalar(edge), 1, cv2.LINE_AA, _SHIFT)


def stroke(
    image: Image, points: npt.ArrayLike, colour: Colour | int, width: int, closed: bool = False
) -> None:
    """Draw a polyline through points [n, 2], antialiased, `width` pixels wide."""
    cv2.polylines(image, [_fixed(points)], closed, _scalar(colour), width, cv2.LINE_AA, _SHIFT)


def disc(image: Image, centre: Point, radius: float, colour: Colour | int) -> None:
    """Fill a disc, antialiased."""
    x, y = (round(v * 16) for v in centre)
    cv2.circle(image, (x, y), round(radius * 16), _scalar(colour), -1, cv2.LINE_AA, _SHIFT)


def rounded(box: tuple[float, float, float, float], radius: float) -> npt.NDArray[np.float64]:
    """The rim, points [32, 2], of a rectangle with round corners."""
    x0, y0, x1, y1 = box
    left, top, right, bottom = x0 + radius, y0 + radius, x1 - radius, y1 - radius
    middles = np.array([[right, bottom], [left, bottom], [left, top], [right, top]])
    arcs: npt.NDArray[np.float64] = middles[:, None] + radius * _quarter_turns()
    return arcs.reshape(-1, 2)


@cache
def _quarter_turns() -> npt.NDArray[np.float64]:
    """Points [4, 8, 2] on a circle of radius 1, a quarter of it at a time."""
    turn = np.linspace(0, np.pi / 2, 8)
    angle = np.stack([turn + quarter * np.pi / 2 for quarter in range(4)])
    return np.stack([np.cos(angle), np.sin(angle)], axis=2)


def blank() -> Image:
    """An empty mask, uint8 [BOARD, BOARD]."""
    return np.zeros((BOARD, BOARD), np.uint8)


def shadow(
    image: Image,
    mask: Image,
    offset: Point = (3.0, 4.0),
    softness: float = 5.0,
    strength: float = 0.45,
) -> None:
    """Darken `image` under `mask` (uint8 [BOARD, BOARD]) moved by `offset` and softened."""
    small = cv2.resize(mask, (BOARD // 4, BOARD // 4), interpolation=cv2.INTER_AREA)
    moved = np.float32([[1, 0, offset[0] / 4], [0, 1, offset[1] / 4]])  # type: ignore[arg-type]
    small = cv2.warpAffine(small, moved, (BOARD // 4, BOARD // 4))
    small = cv2.GaussianBlur(small, (0, 0), max(softness / 4, 0.4))
    keep = cv2.resize(255 - np.multiply(small, strength).astype(np.uint8), (BOARD, BOARD))
    cv2.multiply(image, cv2.merge((keep, keep, keep)), image, 1 / 255)


def tint(image: Image, mask: Image, colour: Colour, opacity: float) -> None:
    """Mix `colour` into `image` where `mask` (uint8 [BOARD, BOARD]) is set, by its value."""
    x, y, w, h = cv2.boundingRect(mask)
    if w == 0:
        return
    window = image[y : y + h, x : x + w]
    alpha = mask[y : y + h, x : x + w, None].astype(np.float32) * (opacity / 255)
    mixed = window + (np.asarray(colour, dtype=np.float32) - window) * alpha
    window[:] = mixed.astype(np.uint8)


def paste(
    image: Image,
    sprite: Sprite,
    centre: Point,
    angle: float,
    scale: float = 1.0,
    gain: Sequence[float] = (1.0, 1.0, 1.0),
) -> npt.NDArray[np.float64]:
    """Blend a sprite turned by `angle` (radians) at `centre`; returns its outline [n, 2].

    `gain` multiplies the sprite's colours (RGB).
    """
    height, width = sprite.rgba.shape[:2]
    reach = float(np.hypot(height, width)) / 2 / SPRITE_SCALE * scale + 1
    x0, y0 = max(int(centre[0] - reach), 0), max(int(centre[1] - reach), 0)
    x1, y1 = min(int(centre[0] + reach) + 1, BOARD), min(int(centre[1] + reach) + 1, BOARD)
    outline = place(sprite.outline, centre, angle, scale)
    if x1 <= x0 or y1 <= y0:
        return outline
    factor = scale / SPRITE_SCALE
    cos, sin = np.cos(angle) * factor, np.sin(angle) * factor
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    matrix = np.array(
        [
            [cos, -sin, centre[0] - x0 - cos * middle_x + sin * middle_y],
            [sin, cos, centre[1] - y0 - sin * middle_x - cos * middle_y],
        ]
    )
    warped = cv2.warpAffine(sprite.rgba, matrix, (x1 - x0, y1 - y0))
    window = image[y0:y1, x0:x1]
    light = np.asarray(gain, dtype=np.float32) * np.float32(255)
    mixed = window * (1 - warped[..., 3:]) + warped[..., :3] * light
    window[:] = np.minimum(mixed, 255).astype(np.uint8)
    return outline


def place(
    points: npt.NDArray[np.float64], centre: Point, angle: float, scale: float = 1.0
) -> npt.NDArray[np.float64]:
    """Points [n, 2] about the origin, scaled, turned by `angle` (radians) and moved."""
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    turned = points @ np.array([[cos, sin], [-sin, cos]])
    return np.asarray(turned + np.asarray(centre), dtype=np.float64)


def grid(width: float, height: float) -> tuple[Floats, Floats]:
    """Coordinates x, y in board pixels about the middle, for shading a sprite of that size."""
    columns, rows = round(width * SPRITE_SCALE), round(height * SPRITE_SCALE)
    xs = (np.arange(columns, dtype=np.float32) - (columns - 1) / 2) / SPRITE_SCALE
    ys = (np.arange(rows, dtype=np.float32) - (rows - 1) / 2) / SPRITE_SCALE
    x, y = np.meshgrid(xs, ys)
    return x.astype(np.float32), y.astype(np.float32)


def sprite(rgb: Floats, inside: Floats, outline: npt.ArrayLike) -> Sprite:
    """A sprite from colours [h, w, 3] in 0..1 and signed depth [h, w] (board px, > 0 inside)."""
    alpha = np.clip(inside * SPRITE_SCALE + 0.5, 0, 1)[..., None]
    rgba = np.concatenate([np.clip(rgb, 0, 1) * alpha, alpha], axis=2).astype(np.float32)
    return Sprite(rgba, np.asarray(outline, dtype=np.float64))


def circle_points(radius: float, count: int = 16) -> npt.NDArray[np.float64]:
    """Points [count, 2] on a circle about the origin."""
    turn = np.arange(count) * (2 * np.pi / count)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1) * radius


@cache
def ball(radius: int) -> Sprite:
    """A white shaded ball with a highlight; colour it with `gain`."""
    x, y = grid(2 * radius + 4, 2 * radius + 4)
    r = np.hypot(x, y) / radius
    lit = np.clip(1.05 - 0.42 * r**2 - 0.16 * (x + y) / radius, 0.25, 1.0)
    glint = np.exp(-((x / radius + 0.36) ** 2 + (y / radius + 0.38) ** 2) / 0.035) * 0.6
    value = (lit * 0.85 + glint).astype(np.float32)
    rgb = np.repeat(value[..., None], 3, axis=2)
    return sprite(rgb, (radius * (1 - r)).astype(np.float32), circle_points(radius))


def scratch(
    image: Image, rng: np.random.Generator, centre: Point, length: float, angle: float
) -> Image:
    """A jagged bright scratch with a dark lip through `centre`; returns its mask."""
    steps = np.linspace(-0.5, 0.5, 6)
    across = rng.uniform(-2.5, 2.5, 6)
    points = place(np.stack([steps * length, across], axis=1), centre, angle)
    mask = blank()
    stroke(mask, points, 255, 8)
    stroke(image, points + 2.0, (38, 34, 32), 5)
    stroke(image, points, (246, 244, 240), 3)
    return mask


def dirt(image: Image, rng: np.random.Generator, centre: Point, size: float) -> Image:
    """A dark stain about `size` px across at `centre`; returns its mask."""
    mask = blank()
    for _ in range(7):
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.3) * size
        spot = (centre[0] + reach * np.cos(angle), centre[1] + reach * np.sin(angle))
        disc(mask, spot, float(rng.uniform(0.14, 0.28)) * size, 255)
    soft = np.asarray(cv2.GaussianBlur(mask, (0, 0), 1.2), dtype=np.uint8)
    tint(image, soft, jitter(rng, (54, 38, 22), 12), 0.92)
    return mask


def chip(image: Image, under: Image, rng: np.random.Generator, centre: Point, size: float) -> Image:
    """Break a jagged piece about `size` px across away, showing `under`; returns its mask."""
    turn = np.sort(rng.uniform(0, 2 * np.pi, 9))
    reach = rng.uniform(0.34, 0.6, 9)[:, None] * size
    points = np.stack([np.cos(turn), np.sin(turn)], axis=1) * reach + np.asarray(centre)
    mask = blank()
    polygon(mask, points, 255)
    chosen = mask > 127
    image[chosen] = under[chosen]
    stroke(image, points, (34, 30, 28), 4, closed=True)
    return mask


def _smooth(white: Floats, across: float, down: float) -> Floats:
    smooth = cv2.GaussianBlur(white, (0, 0), sigmaX=across, sigmaY=down)
    return np.asarray(smooth / smooth.std(), dtype=np.float32)


def _fixed(points: npt.ArrayLike) -> npt.NDArray[np.int32]:
    return np.rint(np.asarray(points, dtype=np.float64) * 16).astype(np.int32)


def _scalar(colour: Colour | int) -> tuple[float, ...]:
    return (float(colour),) if isinstance(colour, int) else tuple(float(c) for c in colour)
