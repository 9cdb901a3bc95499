"""Labelled pictures of a kit: parts laid into the fixture, photographed as SynLOCO's scenes are.

What is in a picture is known, whatever the rules say, so that every prompt's answer is true.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from lad_agent import rationale
from lad_agent.errors import UsageError
from lad_agent.rationale import NOTHING, Count, Equal, Facts, Fit, Form, Value
from lad_agent.recipe import Rule
from lad_agent.training import synloco
from lad_agent.training.pocket import data
from lad_agent.training.pocket.architecture import IMAGE_SIZE
from lad_agent.training.pocket.data import Pixels
from lad_agent.training.pocket.spoiling import Shown, spoiled
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
COVERED_SHARE, BESIDE_SHARE = 0.12, 0.25
"""Of the pictures, those with something in front; of these, those where it stays on the rim."""
SPOILED_SHARE = 0.2
"""Of the other pictures."""
RIM, HIDING = 0.03, 0.12
"""Shares of the picture. Parts lie wherever there is room: what reaches in farther than the rim may
hide one. Between the two lies what nobody can call either."""
SIZES = (196, 280, 392)
FULLEST = 0.5
"""The largest share of the board that parts are to cover."""
MARGIN = 0.04 * BOARD
TRIED, FITTING = 50, 5
"""Of so many layings of good parts, in how many all that the rules want must find room."""
_MOST_LAYINGS = 1000
"""Where a tenth of them fits, that none of a thousand does comes once in 10^45."""
_PLANS = 100
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
        return _stranger(rng, seed, index), data.bare(kit.nouns), Facts(NOTHING)
    kind = list(KINDS)[int(rng.choice(len(KINDS), p=list(KINDS.values())))]
    size = int(rng.choice(SIZES))
    photo = shoot(rng, kit, kind, size)
    image, legible = photo.image, True
    if rng.random() < COVERED_SHARE:
        legible = bool(rng.random() < BESIDE_SHARE)
        share = data.reach(rng, RIM, HIDING, legible)
        image = data.covered(rng, image, share, int(rng.integers(4)))
    elif rng.random() < SPOILED_SHARE:
        # Parts may lie anywhere within the rim.
        image, legible = spoiled(rng, image, Shown.of(photo, (RIM,) * 4, (HIDING,) * 4))
    if not legible:
        return data.resize(image), data.bare(kit.nouns), Facts(NOTHING)
    return data.resize(image), data.cover_of(photo, size, kit.nouns), facts_of(kit, photo)


def refuse_unfit(kit: Kit) -> None:
    """Refuse a kit of which no pictures of good parts can be composed.

    Raises:
        UsageError: the rules contradict each other, or good parts hardly ever find room in the
            region; names the rules that stay broken and the remedy.
    """
    rng = np.random.default_rng(0)
    broken: Counter[str] = Counter()
    fitting = 0
    for _ in range(TRIED):
        planned = plan(rng, kit, "normal")
        left = _unlaid(kit, planned, _laid(rng, kit, planned))
        broken.update(left)
        fitting += not left
        if fitting == FITTING:
            return
    raise _no_room(kit, fitting, TRIED, broken)


def plan(rng: np.random.Generator, kit: Kit, kind: Kind) -> Plan:
    """Normal: every rule holds. Logical: one is broken. Varied: whatever the rules say.

    Raises:
        UsageError: the rules contradict each other.
    """
    if kind == "varied":
        counts = {noun: _some(rng, kit, noun) for noun in kit.nouns}
        return Plan(counts, {s: str(rng.choice(v)) for s, v in kit.values.items()})
    counts, values = _fulfilled(rng, kit)
    if kind == "logical":
        _break(rng, kit, counts, values)
    return Plan(counts, values)


def shoot(rng: np.random.Generator, kit: Kit, kind: Kind, size: int) -> Photo:
    """A photograph of `size` px in which the middle of every part can be seen.

    In a normal one every rule holds: it is planned and laid again until it does.

    Raises:
        UsageError: the kit is one that `refuse_unfit` refuses.
    """
    scene = _normal(rng, kit) if kind == "normal" else compose(rng, kit, plan(rng, kit, kind))
    for _ in range(8):
        photo = photograph(rng, scene, size)
        if all(_seen(part, size) for part in photo.parts):
            return photo
    return plain(scene, size)


def compose(rng: np.random.Generator, kit: Kit, planned: Plan) -> Scene:
    """The board with all of the plan that there is room for, the largest first."""
    fixture = int(rng.integers(len(kit.fixtures)))
    return _painted(rng, kit, fixture, planned, _laid(rng, kit, planned))


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


def _normal(rng: np.random.Generator, kit: Kit) -> Scene:
    """A scene in which every rule holds."""
    broken: Counter[str] = Counter()
    planned = plan(rng, kit, "normal")
    fixture = int(rng.integers(len(kit.fixtures)))
    for _ in range(_MOST_LAYINGS):
        lying = _laid(rng, kit, planned)
        left = _unlaid(kit, planned, lying)
        if not left:
            return _painted(rng, kit, fixture, planned, lying)
        broken.update(left)
        planned = plan(rng, kit, "normal")
    raise _no_room(kit, 0, _MOST_LAYINGS, broken)


def _laid(rng: np.random.Generator, kit: Kit, planned: Plan) -> list[_Lying]:
    """All of the plan that there is room for."""
    return _places(rng, kit, _chosen(rng, kit, planned), touching=bool(rng.random() < 0.3))


def _unlaid(kit: Kit, planned: Plan, lying: Sequence[_Lying]) -> list[str]:
    """The rules that are broken as what was planned has found no room."""
    counts = Counter(one.noun for one in lying if one.noun in kit.parts)
    if kit.damage:
        counts[DAMAGE] = planned.counts[DAMAGE]
    return [_named(rule) for rule, _ in _broken(kit, counts, _values(kit, lying))]


def _values(kit: Kit, lying: Sequence[_Lying]) -> dict[str, str]:
    there = {one.noun: one.value for one in lying}
    return {subject: there.get(subject, NOTHING) for subject in kit.things}


def _no_room(kit: Kit, fitting: int, tried: int, broken: Counter[str]) -> UsageError:
    """The refusal; it names the rules that stay broken most often."""
    most = max(broken.values())
    named = ", ".join(sorted(rule for rule, times in broken.items() if 2 * times > most))
    return UsageError(
        f"{kit.recipe.path}: good parts do not fit the region: laid {tried} times, all that the "
        f"rules want found room {fitting} times; broken for want of room: {named}; enlarge the "
        "region, want fewer parts, or see that cut-outs are as large as the parts are in pictures "
        "of the fixture"
    )


def _painted(
    rng: np.random.Generator, kit: Kit, fixture: int, planned: Plan, lying: Sequence[_Lying]
) -> Scene:
    """The board with what lies there, and with the plan's damage."""
    image = kit.fixtures[fixture].copy()
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
    return Scene(kit.product, image, tuple(parts), _values(kit, lying), None, (0, 0, 0))


def _some(rng: np.random.Generator, kit: Kit, noun: str) -> int:
    if noun == DAMAGE:
        return int(rng.choice(3, p=(0.7, 0.2, 0.1)))
    if rng.random() < 0.2:
        return 0
    return int(rng.integers(1, max(4, _wanted(kit, noun) + 2) + 1))


def _wanted(kit: Kit, noun: str) -> int:
    numbers = [f.number for f in kit.forms if isinstance(f, Count) and f.noun == noun]
    return max(numbers, default=0)


def _fulfilled(rng: np.random.Generator, kit: Kit) -> tuple[dict[str, int], dict[str, str]]:
    """Counts and values under which every rule holds."""
    undone: dict[str, None] = {}
    for _ in range(_PLANS):
        counts = {noun: int(rng.integers(0, 3)) for noun in kit.nouns}
        values = {subject: str(rng.choice(list(named))) for subject, named in kit.things.items()}
        for form in kit.forms:
            _fulfil(rng, kit, form, counts, values)
        # A rule may have overwritten what another one had chosen.
        for _ in (*kit.forms, None):
            broken = _broken(kit, counts, values)
            if not broken:
                return counts, values
            undone |= dict.fromkeys(_named(rule) for rule, _ in broken)
            for _, form in broken:
                _fulfil(rng, kit, form, counts, values)
    raise UsageError(
        f"{kit.recipe.path}: the rules contradict each other: whatever is laid, one of these is "
        f"broken: {', '.join(sorted(undone))}; change or remove it, or bring cut-outs of values "
        "that go together"
    )


def _broken(
    kit: Kit, counts: Mapping[str, int], values: Mapping[str, str]
) -> list[tuple[Rule, Form]]:
    """The rules that do not hold of so many of each noun and of these values."""
    facts = Facts(kit.product, {n: ["A1"] * number for n, number in counts.items()}, values)
    rules = zip(kit.recipe.rules, kit.forms, strict=True)
    return [(rule, form) for rule, form in rules if not rationale.clause(rule.id, form, facts).ok]


def _named(rule: Rule) -> str:
    return f"{rule.id} {rule.text!r}"


def _fulfil(
    rng: np.random.Generator, kit: Kit, form: Form, counts: dict[str, int], values: dict[str, str]
) -> None:
    match form:
        case Count(noun, number):
            counts[noun] = number
        case Value(subject, value):
            values[subject] = value
        case Fit(subject, other, pairs):
            held = [key for _, key in pairs]
            if values[other] not in (*held, NOTHING):
                values[other] = str(rng.choice(held))
            values[subject] = form.wanted(values[other])
        case Equal(subject, other):
            both = sorted(set(kit.things[subject]) & set(kit.things[other]))
            if NOTHING in (values[subject], values[other]):
                values[subject] = values[other] = NOTHING
            elif both:
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
