"""From a drawn board to a photograph: camera, light and noise, and the truth carried along.

Every axis has a training range and a held-out range beside it. A picture of the split `train`
draws all axes from the training ranges; one of `held-out` draws one or two from beyond, and its
stratum names them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from lad_agent.cells import cell_at
from lad_agent.training.synloco.scene import BOARD, Box, Image, Point, Scene

cv2.setNumThreads(1)

Range = tuple[float, float]
Ranges = tuple[Range, ...]

TRAIN: dict[str, Ranges] = {
    "rotation": ((-8.0, 8.0),),
    "scale": ((0.88, 1.06),),
    "perspective": ((0.0, 0.025),),
    "brightness": ((0.75, 1.2),),
    "blur": ((0.0, 0.9),),
    "noise": ((1.0, 9.0),),
}
HELD_OUT: dict[str, Ranges] = {
    "rotation": ((-12.0, -8.0), (8.0, 12.0)),
    "scale": ((0.80, 0.88), (1.06, 1.12)),
    "perspective": ((0.025, 0.04),),
    "brightness": ((0.6, 0.75), (1.2, 1.35)),
    "blur": ((0.9, 1.4),),
    "noise": ((9.0, 14.0),),
}
"""Degrees; factor; share of the side that corners move by; factor; px at 196; sd, of 255."""


@dataclass(frozen=True)
class SeenPart:
    """A part as photographed: class, box, centre and outline in output pixels, the centre's cell.

    The box is clipped to the picture, the outline is not.
    """

    cls: str
    box: Box
    centre: Point
    cell: str
    outline: tuple[Point, ...]


@dataclass(frozen=True)
class Photo:
    """uint8 RGB [size, size, 3] with its truth; `mask` uint8 [size, size] or None."""

    image: Image
    parts: tuple[SeenPart, ...]
    attributes: dict[str, str]
    mask: Image | None
    stratum: str


def held_out_axes(rng: np.random.Generator, split: str) -> tuple[str, ...]:
    """Axes drawn from their held-out ranges, by name; empty for the training split."""
    axes = (*HELD_OUT, "background")
    if split != "held-out":
        return ()
    return tuple(sorted(rng.choice(axes, size=int(rng.integers(1, 3)), replace=False).tolist()))


def photograph(
    rng: np.random.Generator, scene: Scene, size: int, beyond: tuple[str, ...] = ()
) -> Photo:
    """Photograph a scene at `size` px; axes in `beyond` come from their held-out ranges."""
    drawn = {axis: _draw(rng, (HELD_OUT if axis in beyond else TRAIN)[axis]) for axis in TRAIN}
    matrix = _camera(rng, drawn, size)
    image = cv2.warpPerspective(
        scene.image, matrix, (size, size), flags=_filter(size), borderMode=cv2.BORDER_REPLICATE
    )
    mask = None
    if scene.fault_mask is not None:
        warped = cv2.warpPerspective(scene.fault_mask, matrix, (size, size))
        mask = np.where(warped > 127, 255, 0).astype(np.uint8)
    parts = tuple(
        _seen(part.cls, part.outline or _corners(part.box), matrix, size) for part in scene.parts
    )
    return Photo(
        _expose(rng, image, drawn, size),
        parts,
        scene.attributes,
        mask,
        "+".join(beyond) if beyond else "in-range",
    )


def plain(scene: Scene, size: int) -> Photo:
    """The scene without nuisance: for reference pictures."""
    image = cv2.resize(scene.image, (size, size), interpolation=cv2.INTER_AREA)
    matrix = np.diag([size / BOARD, size / BOARD, 1.0])
    parts = tuple(
        _seen(part.cls, part.outline or _corners(part.box), matrix, size) for part in scene.parts
    )
    return Photo(image, parts, scene.attributes, None, "in-range")


def _draw(rng: np.random.Generator, ranges: Ranges) -> float:
    widths = np.array([high - low for low, high in ranges])
    low, high = ranges[int(rng.choice(len(ranges), p=widths / widths.sum()))]
    return float(rng.uniform(low, high))


def _camera(
    rng: np.random.Generator, drawn: dict[str, float], size: int
) -> npt.NDArray[np.float64]:
    """Homography from board to output pixels."""
    turn = np.deg2rad(drawn["rotation"])
    zoom = drawn["scale"] * size / BOARD
    cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
    reach = 0.02 * size
    shift = size / 2 + rng.uniform(-reach, reach, 2)
    half = BOARD / 2
    affine = np.array(
        [
            [cos, -sin, shift[0] - cos * half + sin * half],
            [sin, cos, shift[1] - sin * half - cos * half],
            [0.0, 0.0, 1.0],
        ]
    )
    square = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
    jitter = rng.uniform(-1.0, 1.0, (4, 2)) * drawn["perspective"] * size
    tilt = cv2.getPerspectiveTransform(square, (square + jitter).astype(np.float32))
    return np.asarray(tilt @ affine, np.float64)


def _filter(size: int) -> int:
    return cv2.INTER_AREA if size < BOARD else cv2.INTER_LINEAR


def _corners(box: Box) -> tuple[Point, ...]:
    x0, y0, x1, y1 = box
    return ((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def _seen(
    cls: str, outline: tuple[Point, ...], matrix: npt.NDArray[np.float64], size: int
) -> SeenPart:
    points = cv2.perspectiveTransform(np.array([outline], np.float64), matrix)[0]
    low, high = points.min(axis=0), points.max(axis=0)
    middle = (low + high) / 2
    centre = (float(middle[0]), float(middle[1]))
    (x0, y0), (x1, y1) = np.clip(low, 0, size).tolist(), np.clip(high, 0, size).tolist()
    box = (x0, y0, x1, y1)
    rim = tuple((float(x), float(y)) for x, y in points)
    return SeenPart(cls, box, centre, cell_at(*centre, size, size), rim)


def _expose(rng: np.random.Generator, image: Image, drawn: dict[str, float], size: int) -> Image:
    """Light, shadow, colour cast, blur, noise and compression."""
    small = np.linspace(-1.0, 1.0, 16, dtype=np.float32)
    x, y = np.meshgrid(small, small)
    angle = rng.uniform(0, 2 * np.pi)
    light = 1.0 + rng.uniform(0, 0.18) * (np.cos(angle) * x + np.sin(angle) * y)
    if rng.random() < 0.4:
        cx, cy, width = rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(0.2, 0.6)
        light = light - rng.uniform(0.1, 0.3) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / width**2)
    cast = rng.uniform(0.94, 1.06, 3) * drawn["brightness"]
    gain = (light[..., None] * cast).astype(np.float32)
    lit = image * cv2.resize(gain, (size, size), interpolation=cv2.INTER_LINEAR)
    sigma = drawn["blur"] * size / 196
    if sigma > 0.25:
        lit = cv2.GaussianBlur(lit, (0, 0), sigma)
    lit += rng.standard_normal(lit.shape, dtype=np.float32) * np.float32(drawn["noise"])
    out = np.clip(lit, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        quality = int(rng.integers(55, 95))
        coded = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        out = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(out)
