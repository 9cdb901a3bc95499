"""What a SynLOCO picture shows: plans (what to draw), looks (how) and drawn scenes (facts)."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

BOARD = 392
DAMAGE = "damaged places"
DAMAGE_KINDS = ("scratch", "bent", "dirt", "broken")
TRAIN_BACKGROUNDS = ("paper", "felt", "wood")
HELD_OUT_BACKGROUNDS = ("metal", "tiles")

Image = npt.NDArray[np.uint8]
Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Part:
    """One visible thing: its class, box (x0, y0, x1, y1) and centre, all in board pixels.

    `outline` holds points on its rim; when present, the photographed box is fitted to them.
    """

    cls: str
    box: Box
    centre: Point
    outline: tuple[Point, ...] = ()


@dataclass(frozen=True)
class Scene:
    """A drawn board, uint8 RGB [BOARD, BOARD, 3], with the exact facts about it."""

    product: str
    image: Image
    parts: tuple[Part, ...]
    attributes: dict[str, str]
    fault_mask: Image | None
    background: tuple[int, int, int]


@dataclass(frozen=True)
class Plan:
    """What to draw, independent of how it looks.

    `rule` and `cause` are set when the plan breaks a rule of the shipped recipe. Parts are drawn
    at `scale * look.scale` of their nominal size; `spread` is "loose" or "touching".
    """

    product: str
    counts: dict[str, int]
    attributes: dict[str, str] = field(default_factory=dict)
    structural: str | None = None
    cause: str | None = None
    rule: str | None = None
    scale: float = 1.0
    spread: str = "loose"


@dataclass(frozen=True)
class Look:
    """Appearance drawn for one picture: part size factor, background kind, hue shift in [-1, 1]."""

    scale: float = 1.0
    background: str = "paper"
    hue_shift: float = 0.0
    touching: bool = False
    clutter: bool = False


def part_from_outline(cls: str, outline: npt.ArrayLike) -> Part:
    """A part whose box and centre are those of `outline`, points [n, 2] in board pixels."""
    points = np.asarray(outline, dtype=np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    return Part(cls, box, centre, tuple((float(x), float(y)) for x, y in points))


def part_from_mask(cls: str, mask: Image) -> Part:
    """A part outlined by the convex hull of the set pixels of `mask`, uint8 [BOARD, BOARD]."""
    pixels = cv2.findNonZero(mask).reshape(-1, 2)
    hull = cv2.convexHull(np.concatenate([pixels, pixels + 1]))
    return part_from_outline(cls, hull.reshape(-1, 2))


def count_parts(scene: Scene) -> dict[str, int]:
    """How many parts of each class the scene holds; classes without a part are left out."""
    counts: dict[str, int] = {}
    for part in scene.parts:
        counts[part.cls] = counts.get(part.cls, 0) + 1
    return counts
