"""Pictures made ahead for training: shards of pixels and facts on disk, the same for the same seed.

A shard holds SHARD pictures: `pixels-NNN.npy`, uint8 [SHARD, 196, 196, 3], `cover-NNN.npy`, uint8
[SHARD, 49, 4 x nouns] (how much of each quarter of a cell each noun covers, 255 for all of it),
and `facts-NNN.jsonl`, one JSON list a line (product, places, attributes). A shard is written whole
or not at all, so an interrupted run goes on at the first missing one.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from lad_agent import images
from lad_agent.rationale import NOTHING, Facts
from lad_agent.recipe import Region
from lad_agent.training import synloco
from lad_agent.training.pocket.architecture import IMAGE_SIZE, MERGE, PATCHES_A_SIDE, TOKENS
from lad_agent.training.pocket.spoiling import Shown, spoiled
from lad_agent.training.pocket.vocabulary import NOUNS
from lad_agent.training.synloco import dataset
from lad_agent.training.synloco.nuisance import Photo
from lad_agent.training.workers import pool

SHARD = 1000
KINDS = {"varied": 0.43, "normal": 0.1, "logical": 0.15, "structural": 0.32}
SHARES = {
    "screw_bag": 0.37,
    "pushpins": 0.21,
    "breakfast_box": 0.14,
    "juice_bottle": 0.12,
    "splicing_connectors": 0.16,
}
"""Products by how long the tower takes to learn them: many small parts take longest."""
HARD_DAMAGE = {
    "screw_bag": ("bent", "scratch"),
    "pushpins": ("bent", "scratch"),
    "breakfast_box": ("bent", "scratch", "dirt", "broken"),
    "juice_bottle": ("bent", "scratch"),
    "splicing_connectors": ("broken",),
}
"""Damage that is learned late: of 22 bent pushpins none was seen when all broken ones were."""
REDRAWN, NEXT = 0.7, 10_000_000
"""Share of the other damage that is replaced by what comes that many pictures later, once."""
NOTHING_SHARE = 0.05
COVERED_SHARES = {
    "screw_bag": 0.13,
    "pushpins": 0.13,
    "breakfast_box": 0.13,
    "juice_bottle": 0.3,
    "splicing_connectors": 0.13,
}
"""Of a product's pictures, those with something in front. Of a bottle, which stands in the middle,
half of the picture leaves most in sight; that this is nothing to judge takes longest to learn."""
BESIDE_SHARE = 0.35
"""Of these, those where it hides nothing of the product."""
SPOILED_SHARE = 0.2
"""Of the other pictures."""
FARTHEST = 0.5
"""No product that is whole begins farther from an edge: where it seems so, parts are missing."""
HIDDEN = 0.1
"""How far beyond where a part begins a thing leaves nothing to judge. Between this and what hides
nothing lies what nobody can call either."""
ROOM = {
    "screw_bag": ((0.03, 0.2), (0.03, 0.2)),
    "breakfast_box": ((0.04, 0.24), (0.05, 0.26)),
    "juice_bottle": ((0.2, 0.36), (0.03, 0.24)),
}
"""From left or right, and from below or above: where a product begins, and from where on so much of
its room is hidden that a part may be missed, as a label beside a bottle. Shares of the picture. Of
the other products their parts alone tell."""
RENDERED_SIZES = {196: 0.6, 280: 0.2, 392: 0.2}
"""Sizes of the photographs before the reasoner's own resizing, as a page or camera gives them."""

REFERENCES = 64
"""Normal pictures of each product that serve as references in training."""
PLAIN_EVERY = 4
"""How often one of them is without nuisance, as the shipped recipes' references are."""

Pixels = npt.NDArray[np.uint8]
Draw = Callable[[int, int], tuple[Pixels, Pixels, Facts]]
"""From a seed and a number to a picture, its cover and what is in it."""


@dataclass(frozen=True)
class Pictures:
    """Pictures of some shards: pixels uint8 [n, 196, 196, 3] and cover, memory-mapped a shard."""

    shards: tuple[Pixels, ...]
    covers: tuple[Pixels, ...]
    facts: tuple[Facts, ...]

    def __len__(self) -> int:
        return len(self.facts)

    def take(self, indices: npt.NDArray[np.int64]) -> Pixels:
        """Pixels of the pictures at `indices`, uint8 [k, 196, 196, 3]."""
        return np.stack([self.shards[i // SHARD][i % SHARD] for i in indices.tolist()])

    def cover(self, indices: npt.NDArray[np.int64]) -> Pixels:
        """Cover of the pictures at `indices`, uint8 [k, 49, 4 x nouns]."""
        return np.stack([self.covers[i // SHARD][i % SHARD] for i in indices.tolist()])


def make(
    directory: Path,
    count: int,
    seed: int,
    workers: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    draw: Draw | None = None,
) -> None:
    """Write the missing shards of `count` pictures (rounded up to whole shards).

    `draw`, by default `picture`, travels to other processes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    total = -(-count // SHARD)
    missing = [n for n in range(total) if not _facts_path(directory, n).exists()]
    progress(total - len(missing), total)
    if not missing:
        return
    with pool(workers) as processes:
        jobs = [
            processes.submit(_write_shard, directory, n, seed, draw or picture) for n in missing
        ]
        for done, job in enumerate(jobs):
            job.result()
            progress(total - len(missing) + done + 1, total)


def load(directory: Path, count: int) -> Pictures:
    """The first `count` pictures (rounded up to whole shards) of `directory`."""
    numbers = range(-(-count // SHARD))
    facts = [f for n in numbers for f in _read_facts(_facts_path(directory, n))]
    shards = tuple(np.load(_pixels_path(directory, n), mmap_mode="r") for n in numbers)
    covers = tuple(np.load(_cover_path(directory, n), mmap_mode="r") for n in numbers)
    return Pictures(shards, covers, tuple(facts))


def picture(seed: int, index: int) -> tuple[Pixels, Pixels, Facts]:
    """One training picture, its cover [49, 4 x nouns] and what is in it."""
    rng = np.random.default_rng([seed, index, 0x5EED])
    if rng.random() < NOTHING_SHARE:
        return nothing(rng, seed, index), bare(NOUNS), Facts(NOTHING)
    product = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    kind = cast(synloco.Kind, str(rng.choice(list(KINDS), p=list(KINDS.values()))))
    size = int(rng.choice(list(RENDERED_SIZES), p=list(RENDERED_SIZES.values())))
    if kind == "structural" and rng.random() < REDRAWN:
        planned = synloco.plan(product, seed, index, "train", kind)
        index += NEXT * (planned.structural not in HARD_DAMAGE[product])
    sample = synloco.sample(product, seed, index, "train", size, kind)
    photo = sample.photo
    image, legible = photo.image, True
    if rng.random() < COVERED_SHARES[product]:
        legible = bool(rng.random() < BESIDE_SHARE)
        image = behind(rng, product, photo, legible)
    elif rng.random() < SPOILED_SHARE:
        image, legible = spoiled(rng, image, shown(product, photo))
    if not legible:
        return resize(image), bare(NOUNS), Facts(NOTHING)
    return resize(image), cover_of(photo, size), synloco.facts_of(sample)


def behind(rng: np.random.Generator, product: str, photo: Photo, beside: bool) -> Pixels:
    """The photograph with something in front, `beside` the product or over a part of it.

    Of what is missing where nothing can be seen a picture says as little as of what is there: over
    a part of the product it leaves nothing to judge.
    """
    side = int(rng.integers(4))
    free, hides = _free(product, photo, side)
    return covered(rng, photo.image, reach(rng, free, hides, beside), side)


def reach(rng: np.random.Generator, free: float, hides: float, beside: bool) -> float:
    """How far a thing reaches in: `beside`, no farther than it hides nothing, else at least as far
    as leaves nothing to judge; shares of the picture."""
    return float(rng.uniform(0.0, free) if beside else hides + (1 - hides) * rng.random() ** 2)


def covered(rng: np.random.Generator, image: Pixels, share: float, side: int) -> Pixels:
    """A picture [edge, edge, 3] of which a hand, a box or a lid hides a share, from the left (0),
    from below (1), from the right (2) or from above (3)."""
    edge = image.shape[0]
    down, across = np.mgrid[0:edge, 0:edge] / edge
    slant = rng.uniform(-0.1, 0.1) * (rng.random() < 0.5) * min(share, 1 - share)
    hidden = np.rot90(across + slant * (down - 0.5) < share, side)
    colour = np.repeat(rng.uniform(10, 245), 3) if rng.random() < 0.6 else rng.uniform(10, 245, 3)
    thing = colour + rng.uniform(-40, 40) * (rng.random() < 0.4) * (down + across)[..., None]
    if rng.random() < 0.5:
        thing = thing + rng.normal(0, rng.uniform(1, 12), image.shape)
    return np.where(hidden[..., None], np.clip(thing, 0, 255), image).astype(np.uint8)


def shown(product: str, photo: Photo) -> Shown:
    """Where a photograph shows what is judged."""
    free, hides = zip(*(_free(product, photo, side) for side in range(4)), strict=True)
    return Shown.of(photo, free, hides)


def _free(product: str, photo: Photo, side: int) -> tuple[float, float]:
    """How far a thing from a side hides nothing, and from where on it leaves nothing to judge."""
    margin = FARTHEST
    if photo.parts:
        rim = np.concatenate([np.asarray(part.outline) for part in photo.parts]) / len(photo.image)
        (left, top), (right, bottom) = rim.min(axis=0), rim.max(axis=0)
        margin = min(FARTHEST, max(0.0, float((left, 1 - bottom, 1 - right, top)[side])))
    begins, missed = ROOM.get(product, ((FARTHEST, FARTHEST + HIDDEN),) * 2)[side % 2]
    return min(begins, max(0.0, margin - 0.02)), min(missed, margin + HIDDEN)


def reference(product: str, seed: int, number: int) -> Pixels:
    """A normal picture of the training ranges, or without nuisance; `number` counts from 0."""
    if number % PLAIN_EVERY == 0:
        return dataset.reference(product, seed * REFERENCES + number, IMAGE_SIZE)
    return synloco.sample(product, seed, number, "train", IMAGE_SIZE, "normal").photo.image


def cover_of(photo: Photo, size: int, nouns: Sequence[str] = NOUNS) -> Pixels:
    """How much of each patch each noun covers: uint8 [49, 4 x nouns], 255 for all of it.

    The four patches of a merged token in reading order, each with all nouns.
    """
    fine = 4 * PATCHES_A_SIDE
    masks = np.zeros((len(nouns), fine, fine), np.uint8)
    for part in photo.parts:
        rim = np.asarray(part.outline) * (fine / size)
        fixed = np.rint((rim - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(masks[nouns.index(part.cls)], [fixed], 255, cv2.LINE_8, 4)
    blocks = PATCHES_A_SIDE // MERGE
    split = masks.reshape(len(nouns), blocks, MERGE, 4, blocks, MERGE, 4).mean(axis=(3, 6))
    return np.asarray(split.transpose(1, 3, 2, 4, 0).reshape(TOKENS, -1), np.uint8)


def resize(image: Pixels) -> Pixels:
    """The picture at the model's input size, resized as the reasoner does."""
    return np.asarray(images.prepare(Image.fromarray(image), Region(), IMAGE_SIZE))


def nothing(rng: np.random.Generator, seed: int, index: int) -> Pixels:
    """A wall, noise, darkness, or a product blurred beyond recognition."""
    shape = (IMAGE_SIZE, IMAGE_SIZE, 3)
    kind = int(rng.integers(5))
    if kind == 0:
        level = rng.uniform(0, 255, 3) + rng.normal(0, rng.uniform(0, 10), shape)
        return level.clip(0, 255).astype(np.uint8)
    if kind == 1:
        coarse = rng.integers(0, 256, (int(rng.integers(2, 60)),) * 2 + (3,), dtype=np.uint8)
        return resize(coarse)
    if kind == 2:
        ramp = np.linspace(0, 1, IMAGE_SIZE)[:, None, None] * rng.uniform(-80, 80, 3)
        level = rng.uniform(60, 200, 3) + ramp + rng.normal(0, rng.uniform(1, 12), shape)
        return np.rot90(level, int(rng.integers(4))).clip(0, 255).astype(np.uint8)
    product = str(rng.choice(synloco.PRODUCTS))
    image = synloco.sample(product, seed, index, "train", IMAGE_SIZE, "varied").photo.image
    if kind == 3:
        blur = ImageFilter.GaussianBlur(float(rng.uniform(14, 30)))
        return np.asarray(Image.fromarray(image).filter(blur))
    dark = image * rng.uniform(0.0, 0.05) + rng.normal(0, rng.uniform(1, 6), shape)
    return dark.clip(0, 255).astype(np.uint8)


def bare(nouns: Sequence[str]) -> Pixels:
    """The cover of a picture that shows none of the nouns, as `cover_of`."""
    return np.zeros((TOKENS, MERGE**2 * len(nouns)), np.uint8)


def _write_shard(directory: Path, number: int, seed: int, draw: Draw) -> None:
    pixels, covers, lines = [], [], []
    for row in range(SHARD):
        image, cover, facts = draw(seed, number * SHARD + row)
        pixels.append(image)
        covers.append(cover)
        lines.append(json.dumps([facts.product, facts.places, facts.attributes]))
    for path, arrays in (
        (_pixels_path(directory, number), pixels),
        (_cover_path(directory, number), covers),
    ):
        part = path.with_suffix(".part.npy")
        np.save(part, np.stack(arrays))
        part.replace(path)
    text = _facts_path(directory, number).with_suffix(".part")
    text.write_text("\n".join(lines) + "\n", encoding="utf-8")
    text.replace(_facts_path(directory, number))


def _read_facts(path: Path) -> Iterator[Facts]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield Facts(*json.loads(line))


def _pixels_path(directory: Path, number: int) -> Path:
    return directory / f"pixels-{number:03d}.npy"


def _cover_path(directory: Path, number: int) -> Path:
    return directory / f"cover-{number:03d}.npy"


def _facts_path(directory: Path, number: int) -> Path:
    return directory / f"facts-{number:03d}.jsonl"
