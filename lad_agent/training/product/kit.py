"""What a user brings for a product of their own: a folder, read and checked before anything else.

    recipe.yaml                  rules of the forms that `rationale.read_rule` knows
    parts/<noun>/*.png           cut-outs of a part, transparent around it
    parts/<subject>/<value>/*.png  cut-outs of a thing that is there once, in one of its values
    parts.json                   or boxes drawn on photographs, in the place of cut-outs
    fixture/*                    pictures of the empty fixture
    good/, bad/                  pictures to try the trained model on, if there are any

Cut-outs have the size in pixels that they have in the pictures of the fixture. The recipe's region
is cut from fixtures as it is from what is inspected.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from lad_agent import images, rationale, recipe
from lad_agent.errors import UnreadableInput, UsageError
from lad_agent.inputs import RECIPE_FILE
from lad_agent.rationale import NOTHING, Count, Equal, Fit, Form, Value
from lad_agent.recipe import Recipe, Region
from lad_agent.training.pocket.architecture import IMAGE_SIZE
from lad_agent.training.pocket.data import Pixels
from lad_agent.training.synloco.scene import BOARD, DAMAGE

FEWEST_CUTS, FEWEST_FIXTURES = 5, 3
MOST_WANTED = 12
"""The largest number that a rule may ask for: the object head tells 15 at most."""
FINENESS = 1.5
"""Pixels of a kept cut-out to one of the board's, at most."""
CLEAR = 128
"""Alpha from which a pixel belongs to the part."""

Floats = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cut:
    """A part cut out: premultiplied RGBA [h, w, 4] in 0..1, `scale` of its pixels to one of the
    fixture's; `outline` [n, 2] are its rim in pixels of the fixture from the cut-out's middle."""

    rgba: Floats
    scale: float
    outline: Points


@dataclass(frozen=True)
class Kit:
    """A product's folder as read.

    `parts` maps a plural noun to its cut-outs, `things` a subject to those of each of its values.
    `fixtures` are uint8 [BOARD, BOARD, 3], `stretch` is how many pixels of the board one of the
    fixture's takes across and down. `digest` names every byte that was read.
    """

    recipe: Recipe
    forms: tuple[Form, ...]
    parts: Mapping[str, tuple[Cut, ...]]
    things: Mapping[str, Mapping[str, tuple[Cut, ...]]]
    fixtures: tuple[Pixels, ...]
    stretch: tuple[float, float]
    references: tuple[Pixels, ...]
    digest: str

    @property
    def product(self) -> str:
        return self.recipe.product

    @property
    def damage(self) -> bool:
        """Whether damage is to be drawn: a rule names it, and there are no cut-outs of it."""
        return DAMAGE not in self.parts and any(
            isinstance(form, Count) and form.noun == DAMAGE for form in self.forms
        )

    @property
    def nouns(self) -> tuple[str, ...]:
        return (*self.parts, DAMAGE) if self.damage else tuple(self.parts)

    @property
    def values(self) -> dict[str, tuple[str, ...]]:
        """The values of each attribute; `none` where the thing is missing."""
        return {subject: (*values, NOTHING) for subject, values in self.things.items()}


class Box(BaseModel):
    """A part in a photograph: `part` is `<noun>` or `<subject>/<value>`, `box` x0, y0, x1, y1."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    image: str
    part: str
    box: tuple[float, float, float, float]


def read(directory: Path) -> Kit:
    """The product in `directory`.

    Raises:
        RecipeError: the recipe cannot be used.
        UsageError: pictures cannot be used, there are too few, or a rule is about what there are
            no cut-outs of; names all of them and the remedy.
    """
    if not directory.is_dir():
        raise UsageError(f"{directory}: no such folder; it holds recipe.yaml, parts/ and fixture/")
    found = recipe.load(directory / RECIPE_FILE)
    if found.image_size != IMAGE_SIZE:
        raise UsageError(
            f"{found.path}: image_size is {found.image_size}, the pocket's is {IMAGE_SIZE}; "
            "leave it out"
        )
    fixtures, size = _fixtures(directory / "fixture", found.region)
    stretch = (BOARD / size[0], BOARD / size[1])
    cuts: dict[str, list[Cut]] = {}
    hashes, faults = [found.task_version], list[str]()
    for name, path, opened in (*_pictures(directory / "parts"), *_boxed(directory)):
        try:
            rgba = opened()
            cuts.setdefault(name, []).append(_cut(path, rgba, size, stretch))
        except UsageError as error:
            faults.append(str(error))
            continue
        pixels = hashlib.sha256(np.ascontiguousarray(rgba).tobytes()).hexdigest()
        hashes.append(f"{name} {pixels}")
    if faults:
        raise UsageError(" | ".join(faults))
    parts, things = _sorted(directory, cuts)
    hashes += [hashlib.sha256(fixture.tobytes()).hexdigest() for fixture in fixtures]
    return Kit(
        recipe=found,
        forms=_forms(found, parts, things),
        parts=parts,
        things=things,
        fixtures=fixtures,
        stretch=stretch,
        references=tuple(np.asarray(picture) for picture in images.references(found)),
        digest=hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16],
    )


def _fixtures(folder: Path, region: Region) -> tuple[tuple[Pixels, ...], tuple[int, int]]:
    """The fixtures as boards, and the region's width and height in their pixels."""
    paths = _files(folder)
    if len(paths) < FEWEST_FIXTURES:
        raise UsageError(
            f"{folder}: {len(paths)} pictures of the empty fixture; take {FEWEST_FIXTURES} at "
            "least, in different light"
        )
    boards, sizes = [], {}
    for path in paths:
        picture = _opened(path)
        sizes[picture.size] = path
        boards.append(np.asarray(images.prepare(picture, region, BOARD)))
    if len(sizes) > 1:
        (a, one), (b, other) = list(sizes.items())[:2]
        raise UsageError(
            f"{one} has {a[0]} x {a[1]} pixels, {other} {b[0]} x {b[1]}: take all fixtures with "
            "one camera in one place"
        )
    (width, height) = next(iter(sizes))
    across = round((region.right - region.left) * width)
    return tuple(boards), (across, round((region.bottom - region.top) * height))


_Opened = Callable[[], Pixels]


def _pictures(folder: Path) -> Iterator[tuple[str, Path, _Opened]]:
    """Name, file and RGBA of every cut-out under `parts/`."""
    for path in _files(folder):
        yield "/".join(path.relative_to(folder).parts[:-1]), path, partial(_transparent, path)


def _transparent(path: Path) -> Pixels:
    try:
        with Image.open(path, formats=("PNG", "WEBP", "TIFF")) as opened:
            rgba = np.asarray(opened.convert("RGBA"))
    except Exception as error:
        # Pillow's decoders raise anything at all on damaged bytes.
        raise UsageError(f"{path}: not a readable PNG; save the cut-out again") from error
    if rgba[..., 3].min() >= CLEAR:
        raise UsageError(
            f"{path}: opaque, the part is not cut out; make all around it transparent, or draw "
            "its box in parts.json"
        )
    return rgba


def _boxed(directory: Path) -> Iterator[tuple[str, Path, _Opened]]:
    """Name, photograph and RGBA of every box in `parts.json`, cut out by GrabCut."""
    file = directory / "parts.json"
    if not file.is_file():
        return
    try:
        boxes = TypeAdapter(list[Box]).validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"])) or "file"
        raise UsageError(
            f"{file}: {at}: {first['msg'].lower()}; an entry is "
            '{"image": "a.jpg", "part": "buttons", "box": [x0, y0, x1, y1]}'
        ) from error
    for number, box in enumerate(boxes):
        path = directory / box.image
        yield box.part, path, partial(_grabbed, file, number, box)


def _grabbed(file: Path, number: int, box: Box) -> Pixels:
    """The part in a box with what lies around it made transparent."""
    photograph = np.asarray(_opened(file.parent / box.image))
    height, width = photograph.shape[:2]
    x0, y0, x1, y1 = (round(v) for v in box.box)
    inside = 0 <= x0 < x1 - 3 <= width and 0 <= y0 < y1 - 3 <= height
    if not inside or (x1 - x0) * (y1 - y0) > 0.8 * width * height:
        raise UsageError(
            f"{file}: box {number} ({box.part}) does not lie in {box.image} of {width} x {height} "
            "pixels with room around it; boxes are x0, y0, x1, y1"
        )
    room = max(8, (x1 - x0) // 3, (y1 - y0) // 3)
    left, top = max(0, x0 - room), max(0, y0 - room)
    around = np.ascontiguousarray(photograph[top : y1 + room, left : x1 + room])
    mask = np.zeros(around.shape[:2], np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    rectangle = (x0 - left, y0 - top, x1 - x0, y1 - y0)
    cv2.grabCut(around, mask, rectangle, *models, 4, cv2.GC_INIT_WITH_RECT)
    part = np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if part.sum() < 0.1 * (x1 - x0) * (y1 - y0):
        raise UsageError(
            f"{file}: box {number} ({box.part}): the part does not stand out from its ground; "
            "photograph it on a plain one, or give a transparent PNG"
        )
    alpha = cv2.GaussianBlur(part.astype(np.float32), (0, 0), 0.8) * 255
    return np.dstack([around, alpha.astype(np.uint8)])


def _cut(path: Path, rgba: Pixels, size: tuple[int, int], stretch: tuple[float, float]) -> Cut:
    seen = (rgba[..., 3] >= CLEAR).astype(np.uint8)
    contours = cv2.findContours(seen, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    rim = max(contours, key=cv2.contourArea, default=None)
    if rim is None or cv2.contourArea(rim) < 9:
        raise UsageError(f"{path}: empty, all of it is transparent; cut the part out anew")
    x, y, width, height = cv2.boundingRect(rim)
    if max(width / size[0], height / size[1]) > 0.9:
        raise UsageError(
            f"{path}: the part has {width} x {height} pixels, the inspected region "
            f"{size[0]} x {size[1]}; cut-outs have the size that they have in pictures of the "
            "fixture"
        )
    whole = rgba[y : y + height, x : x + width].astype(np.float32) / 255
    whole[..., :3] *= whole[..., 3:]
    scale = min(1.0, FINENESS * max(stretch))
    small = (max(2, round(width * scale)), max(2, round(height * scale)))
    fine = cv2.resize(whole, small, interpolation=cv2.INTER_AREA) if scale < 1 else whole
    simple = cv2.approxPolyDP(rim, 0.5, True).reshape(-1, 2)
    outline = (simple if len(simple) >= 3 else rim.reshape(-1, 2)) + 0.5
    return Cut(np.asarray(fine, np.float32), scale, outline - (x + width / 2, y + height / 2))


def _sorted(
    directory: Path, cuts: Mapping[str, Sequence[Cut]]
) -> tuple[dict[str, tuple[Cut, ...]], dict[str, dict[str, tuple[Cut, ...]]]]:
    """Cut-outs by noun, and by subject and value."""
    if not cuts:
        raise UsageError(
            f"{directory / 'parts'}: no cut-outs; put some ten transparent PNGs of each part into "
            "parts/<noun>/, or draw boxes in parts.json"
        )
    parts: dict[str, tuple[Cut, ...]] = {}
    things: dict[str, dict[str, tuple[Cut, ...]]] = {}
    for name, found in sorted(cuts.items()):
        words = [word.replace("_", " ") for word in name.split("/")]
        named = [r"[a-z][a-z ]*", r"[a-z0-9-]+"] if len(words) == 2 else [r"[a-z][a-z -]*"]
        if len(words) > 2 or not all(map(re.fullmatch, named, words)):
            raise UsageError(
                f"{directory / 'parts' / name}: name it as the rules do, in small letters: "
                "parts/<noun> or parts/<subject>/<value>"
            )
        if len(found) < FEWEST_CUTS:
            raise UsageError(
                f"{directory / 'parts' / name}: {len(found)} cut-outs; {FEWEST_CUTS} at least are "
                "needed, ten of different parts are better"
            )
        if len(words) == 1:
            parts[words[0]] = tuple(found)
        else:
            things.setdefault(words[0], {})[words[1]] = tuple(found)
    both = sorted(set(parts) & set(things))
    if both:
        raise UsageError(
            f"{directory / 'parts' / both[0]}: holds cut-outs and folders of values; keep one"
        )
    return parts, things


def _forms(
    found: Recipe,
    parts: Mapping[str, object],
    things: Mapping[str, Mapping[str, object]],
) -> tuple[Form, ...]:
    """The rules' forms, every noun in the plural of its folder."""
    out: list[Form] = []
    for rule in found.rules:
        where, form = f"{found.path}: {rule.id} {rule.text!r}", rationale.read_rule(rule.text)
        match form:
            case None:
                raise UsageError(
                    f"{where} follows none of the forms; write 'exactly 2 buttons', 'card is "
                    "blue', 'cap fits label: red for cherry, ...' or 'cap equals label'"
                )
            case Count(noun, number):
                named = next((n for n in (*parts, DAMAGE) if rationale.same_noun(n, noun)), None)
                if named is None:
                    raise UsageError(
                        f"{where} is about {noun}, of which there are no cut-outs; put them into "
                        f"parts/{noun.replace(' ', '_')} (there are: {', '.join(parts)})"
                    )
                if number > MOST_WANTED:
                    raise UsageError(f"{where}: the model counts to {MOST_WANTED} only")
                form = Count(named, number)
            case Value(subject, value):
                _known(where, subject, [value], things)
            case Fit(subject, other, pairs):
                _known(where, subject, [value for value, _ in pairs], things)
                _known(where, other, [key for _, key in pairs], things)
            case Equal(subject, other):
                _known(where, subject, [], things)
                _known(where, other, [], things)
        out.append(form)
    return tuple(out)


def _known(
    where: str,
    subject: str,
    values: Sequence[str],
    things: Mapping[str, Mapping[str, object]],
) -> None:
    folder = f"parts/{subject.replace(' ', '_')}"
    if subject not in things:
        raise UsageError(
            f"{where} is about {subject}, of which there are no cut-outs; put them into "
            f"{folder}/<value>"
        )
    for value in values:
        if value not in (*things[subject], NOTHING):
            raise UsageError(
                f"{where} names {value}, of which there are no cut-outs; put them into "
                f"{folder}/{value} (there are: {', '.join(things[subject])})"
            )


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in images.SUFFIXES)


def _opened(path: Path) -> Image.Image:
    try:
        return images.read(path).image
    except UnreadableInput as error:
        raise UsageError(str(error)) from error
