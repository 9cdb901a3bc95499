"""Labelled pictures of a kit: parts laid into the fixture, photographed as SynLOCO's scenes are.

What is in a picture is known, whatever the rules say, so that every prompt's answer is true.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from lad_agent.rationale import NOTHING, Count, Equal, Facts, Fit, Value
from lad_agent.training import synloco
from lad_agent.training.pocket import data
from lad_agent.training.pocket.architecture import IMAGE_SIZE, MERGE, TOKENS
from lad_agent.training.pocket.data import Pixels
from lad_agent.training.product.kit import Cut, Kit
from lad_agent.training.synloco import sprites
from lad_agent.training.synloco.nuisance import Photo, SeenPart, photograph, plain
from lad_agent.training.synloco.overlay import Affine, affine, moved
from lad_agent.training.synloco.scene import (
    BOARD,
    DAMAGE,
    Image,
    Part,
    Scene,
    part_from_mask,
    part_from_outline,
)

Kind = Literal["varied", "normal", "logical"]
KINDS: dict[Kind, float] = {"varied": 0.5, "normal": 0.2, "logical": 0.3}
NOTHING_SHARE = 0.06
"""Pictures of nothing, and of SynLOCO's products: what the model must not take for its own."""
SIZES = (196, 280, 392)
FULLEST = 0.5
"""The largest share of the board that parts are to cover."""
MARGIN = 0.04 * BOARD
_COARSE = 4
_TRIES = 60


@dataclass(frozen=True)
class Plan:
    """What to lay into the fixture: how many of each noun, and the value of each thing."""

    counts: Mapping[str, int]
    values: Mapping[str, str]


def picture(kit: Kit, seed: int, index: int) -> tuple[Pixels, Pixels, Facts]:
    """One training picture, its cover [49, 4 x nouns] and what is in it."""
    rng = np.random.default_rng([seed, index, 0x0B0E])
    if rng.random() < NOTHING_SHARE:
        bare = np.zeros((TOKENS, MERGE**2 * len(kit.nouns)), np.uint8)
        return _stranger(rng, seed, index), bare, Facts(NOTHING)
    kind = list(KINDS)[int(rng.choice(len(KINDS), p=list(KINDS.values())))]
    size = int(rng.choice(SIZES))
    photo = shoot(rng, kit, plan(rng, kit, kind), size)
    return data.resize(photo.image), data.cover_of(photo, size, kit.nouns), facts_of(kit, photo)


def plan(rng: np.random.Generator, kit: Kit, kind: Kind) -> Plan:
    """Normal: every rule holds. Logical: one is broken. Varied: whatever the rules say."""
    if kind == "varied":
        counts = {noun: _some(rng, kit, noun) for noun in kit.nouns}
        return Plan(counts, {s: str(rng.choice(v)) for s, v in kit.values.items()})
    counts = {noun: int(rng.integers(0, 3)) for noun in kit.nouns}
    values = {subject: str(rng.choice(list(named))) for subject, named in kit.things.items()}
    for form in kit.forms:
        _fulfil(rng, kit, form, counts, values)
    if kind == "logical":
        _break(rng, kit, counts, values)
    return Plan(counts, values)


def shoot(rng: np.random.Generator, kit: Kit, planned: Plan, size: int) -> Photo:
    """A photograph of `size` px in which the middle of every part can be seen."""
    scene = compose(rng, kit, planned)
    for _ in range(8):
        photo = photograph(rng, scene, size)
        if all(_seen(part, size) for part in photo.parts):
            return photo
    return plain(scene, size)


def compose(rng: np.random.Generator, kit: Kit, planned: Plan) -> Scene:
    """The board with all of the plan that there is room for, the largest first."""
    image = kit.fixtures[int(rng.integers(len(kit.fixtures)))].copy()
    lying = _places(rng, kit, _chosen(rng, kit, planned), touching=bool(rng.random() < 0.3))
    shade = sprites.blank()
    for one in lying:
        cv2.fillPoly(shade, [np.round(one.rim).astype(np.int32)], 255)
    fall = (float(rng.uniform(-5, 5)), float(rng.uniform(-5, 5)))
    sprites.shadow(image, shade, fall, float(rng.uniform(2, 6)), float(rng.uniform(0, 0.55)))
    for one in lying:
        gain = rng.uniform(0.85, 1.12) * rng.uniform(0.96, 1.04, 3)
        lay(image, one.cut, one.matrix, gain)
    parts = [part_from_outline(one.noun, one.rim) for one in lying if one.noun in kit.parts]
    if kit.damage:
        parts += [_hurt(rng, image) for _ in range(planned.counts[DAMAGE])]
    there = {one.noun: one.value for one in lying}
    values = {subject: there.get(subject, NOTHING) for subject in kit.things}
    return Scene(kit.product, image, tuple(parts), values, None, (0, 0, 0))


def lay(image: Image, cut: Cut, matrix: Affine, gain: npt.NDArray[np.float64]) -> None:
    """Blend a cut-out into the board through `matrix`, its colours multiplied by `gain` (RGB)."""
    height, width = cut.rgba.shape[:2]
    corners = moved([(0, 0), (width, 0), (width, height), (0, height)], matrix)
    x0, y0 = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, BOARD)
    x1, y1 = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, 0, BOARD)
    if x1 <= x0 or y1 <= y0:
        return
    local = matrix.copy()
    local[:, 2] -= (x0, y0)
    warped = cv2.warpAffine(cut.rgba, local, (int(x1 - x0), int(y1 - y0)))
    window = image[y0:y1, x0:x1]
    mixed = window * (1 - warped[..., 3:]) + warped[..., :3] * (255 * gain).astype(np.float32)
    window[:] = np.clip(mixed, 0, 255).astype(np.uint8)


def facts_of(kit: Kit, photo: Photo) -> Facts:
    """What the photograph shows, every noun listed."""
    places: dict[str, list[str]] = {noun: [] for noun in kit.nouns}
    for part in photo.parts:
        places[part.cls].append(part.cell)
    return Facts(kit.product, places, dict(photo.attributes))


@dataclass(frozen=True)
class _Lying:
    """A cut-out in its place; `value` is None for a part, `rim` [n, 2] in pixels of the board."""

    noun: str
    value: str
    cut: Cut
    matrix: Affine
    rim: npt.NDArray[np.float64]


def _some(rng: np.random.Generator, kit: Kit, noun: str) -> int:
    if noun == DAMAGE:
        return int(rng.choice(3, p=(0.7, 0.2, 0.1)))
    if rng.random() < 0.2:
        return 0
    return int(rng.integers(1, max(4, _wanted(kit, noun) + 2) + 1))


def _wanted(kit: Kit, noun: str) -> int:
    numbers = [f.number for f in kit.forms if isinstance(f, Count) and f.noun == noun]
    return max(numbers, default=0)


def _fulfil(
    rng: np.random.Generator, kit: Kit, form: object, counts: dict[str, int], values: dict[str, str]
) -> None:
    match form:
        case Count(noun, number):
            counts[noun] = number
        case Value(subject, value):
            values[subject] = value
        case Fit(subject, other, pairs):
            held = [key for _, key in pairs]
            if values[other] not in held:
                values[other] = str(rng.choice(held))
            values[subject] = form.wanted(values[other])
        case Equal(subject, other):
            both = sorted(set(kit.things[subject]) & set(kit.things[other]))
            if both:
                values[subject] = values[other] = str(rng.choice(both))


def _break(
    rng: np.random.Generator, kit: Kit, counts: dict[str, int], values: dict[str, str]
) -> None:
    """Make one rule's count another, mostly by one, or one rule's value."""
    match kit.forms[int(rng.integers(len(kit.forms)))]:
        case Count(noun, number):
            others = [n for n in range(number + 4) if n != number]
            weights = np.array([1 / (n - number) ** 2 for n in others])
            counts[noun] = int(rng.choice(others, p=weights / weights.sum()))
        case Value(subject) | Fit(subject) | Equal(subject):
            named = (*kit.things[subject], NOTHING)
            values[subject] = str(rng.choice([v for v in named if v != values[subject]]))


def _chosen(rng: np.random.Generator, kit: Kit, planned: Plan) -> list[tuple[str, str, Cut, float]]:
    """Noun, value, cut-out and size factor of all that is to lie there."""
    out = []
    size = float(rng.uniform(0.93, 1.07))
    for noun, cuts in kit.parts.items():
        for _ in range(planned.counts[noun]):
            out.append((noun, NOTHING, cuts[int(rng.integers(len(cuts)))], size))
    for subject, value in planned.values.items():
        if value != NOTHING:
            cuts = kit.things[subject][value]
            out.append((subject, value, cuts[int(rng.integers(len(cuts)))], size))
    return out


def _places(
    rng: np.random.Generator,
    kit: Kit,
    chosen: list[tuple[str, str, Cut, float]],
    *,
    touching: bool,
) -> list[_Lying]:
    """Free places; what finds none is left out, and so is what would fill the board too much."""
    side = BOARD // _COARSE
    taken = np.zeros((side, side), np.uint8)
    out = []
    for noun, value, cut, size in sorted(chosen, key=lambda one: -_area(one[2])):
        for _ in range(_TRIES):
            turn = float(rng.uniform(0, 2 * np.pi))
            middle = rng.uniform(MARGIN, BOARD - MARGIN, 2)
            matrix = _matrix(kit, cut, (float(middle[0]), float(middle[1])), turn, size)
            rim = moved(_in_pixels(cut), matrix)
            if rim.min() < MARGIN or rim.max() > BOARD - MARGIN:
                continue
            own = np.zeros_like(taken)
            cv2.fillPoly(own, [np.round(rim / _COARSE).astype(np.int32)], 1)
            near = own if touching else cv2.dilate(own, np.ones((3, 3), np.uint8))
            if (near & taken).sum() <= (0.03 * own.sum() if touching else 0):
                taken |= own
                out.append(_Lying(noun, value, cut, matrix, rim))
                break
        if taken.mean() > FULLEST:
            break
    return out


def _matrix(kit: Kit, cut: Cut, middle: tuple[float, float], turn: float, size: float) -> Affine:
    """From the cut-out's pixels to the board: turned as it lies, then stretched as the region."""
    height, width = cut.rgba.shape[:2]
    turned = affine((width, height), (0.0, 0.0), turn, size / cut.scale)
    stretched: Affine = np.diag(kit.stretch) @ turned
    stretched[:, 2] += middle
    return stretched


def _in_pixels(cut: Cut) -> npt.NDArray[np.float64]:
    """The outline in the cut-out's own pixels."""
    height, width = cut.rgba.shape[:2]
    middle = ((width - 1) / 2, (height - 1) / 2)
    return np.asarray(cut.outline * cut.scale + middle, np.float64)


def _area(cut: Cut) -> float:
    return float(cv2.contourArea(cut.outline.astype(np.float32)))


def _hurt(rng: np.random.Generator, image: Image) -> Part:
    """A scratch or a stain somewhere."""
    at = rng.uniform(0.12 * BOARD, 0.88 * BOARD, 2)
    centre = (float(at[0]), float(at[1]))
    if rng.random() < 0.5:
        length, turn = float(rng.uniform(50, 80)), float(rng.uniform(0, np.pi))
        return part_from_mask(DAMAGE, sprites.scratch(image, rng, centre, length, turn))
    return part_from_mask(DAMAGE, sprites.dirt(image, rng, centre, float(rng.uniform(40, 56))))


def _seen(part: SeenPart, size: int) -> bool:
    return all(0.01 * size < v < 0.99 * size for v in part.centre)


def _stranger(rng: np.random.Generator, seed: int, index: int) -> Pixels:
    if rng.random() < 0.5:
        return data.nothing(rng, seed, index)
    product = str(rng.choice(synloco.PRODUCTS))
    return synloco.sample(product, seed, index, "train", IMAGE_SIZE, "varied").photo.image
