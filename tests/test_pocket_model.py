"""The shipped model itself: its files, and what it must never pass."""

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from lad_agent import images, policy, recipe
from lad_agent.judgement import Result
from lad_agent.reasoners import EMBEDDED
from lad_agent.reasoners.base import Question
from lad_agent.reasoners.local import TransformersReasoner
from lad_agent.recipe import Recipe
from lad_agent.training import synloco
from lad_agent.training.degradations import DEGRADATIONS, degraded
from lad_agent.training.pocket.data import resize
from lad_agent.training.synloco import dataset

MOST_BYTES = 16 * 2**20


@pytest.fixture(scope="module")
def pocket() -> TransformersReasoner:
    return TransformersReasoner(EMBEDDED)


def test_the_model_is_small_and_holds_no_pickle() -> None:
    files = [path for path in EMBEDDED.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja"}


def test_the_card_says_what_the_model_is_for(pocket: TransformersReasoner) -> None:
    card = json.loads((EMBEDDED / "model_card.json").read_text(encoding="utf-8"))
    assert card["products"] == list(synloco.PRODUCTS)
    assert pocket.products == frozenset(synloco.PRODUCTS)
    assert card["licence"] == "pocket: Apache-2.0"


@pytest.mark.parametrize("product", synloco.PRODUCTS)
def test_the_shipped_reference_shows_the_product_as_it_is_drawn(product: str) -> None:
    """One drawn in a former way made the model call every good bag damaged."""
    [path] = recipe.load(recipe.shipped(product)).references
    shown = np.asarray(images.read(path).image)
    assert np.array_equal(shown, dataset.reference(product, 0, 196))


@pytest.mark.parametrize("product", synloco.PRODUCTS)
def test_what_is_not_the_product_is_never_passed(
    pocket: TransformersReasoner, product: str
) -> None:
    task = recipe.load(recipe.shipped(product))
    rng = np.random.default_rng(77)
    others = [name for name in synloco.PRODUCTS if name != product]
    pictures = [
        resize(synloco.sample(other, 2_000_000, index, "train", 392, "normal").photo.image)
        for other in others
        for index in range(2)
    ]
    wall = rng.uniform(60, 200, 3) + rng.normal(0, 3, (196, 196, 3))
    noise = rng.integers(0, 256, (196, 196, 3))
    pictures += [np.clip(pixels, 0, 255).astype(np.uint8) for pixels in (wall, noise)]
    questions = [
        Question(task, Image.fromarray(pixels), f"{number:064x}")
        for number, pixels in enumerate(pictures)
    ]
    results = [policy.decide(found, task.policy).result for found in pocket.judge_batch(questions)]
    assert Result.OK not in results


@pytest.fixture(scope="module")
def faded(pocket: TransformersReasoner) -> dict[tuple[str, str], list[Result]]:
    """What becomes of bad parts, by degradation and how strong it is: `none`, `edge` (just before
    the gate sees it) and `full`."""
    found: dict[tuple[str, str], list[Result]] = {}
    for product in synloco.PRODUCTS:
        task = recipe.load(recipe.shipped(product))
        plain = [
            Image.fromarray(synloco.sample(product, 2_000_000, 0, "train", 196, kind).photo.image)
            for kind in ("logical", "structural")
        ]
        shown = {("none", "none"): plain}
        for name in DEGRADATIONS:
            edge = _edge(task, plain[0], name)
            shown[name, "edge"] = [degraded(image, name, edge, 1) for image in plain]
            shown[name, "full"] = [degraded(image, name, 1.0, 1) for image in plain]
        for which, pictures in shown.items():
            found.setdefault(which, []).extend(_all_decided(pocket, task, pictures))
    return found


@pytest.mark.parametrize("name", [name for name in DEGRADATIONS if name != "mirrored"])
def test_what_cannot_be_decided_is_never_passed(
    faded: dict[tuple[str, str], list[Result]], name: str
) -> None:
    """A mirrored part can be decided."""
    assert Result.OK not in faded[name, "full"]
    assert faded[name, "full"].count(Result.NOT_DECIDABLE) >= 9


@pytest.mark.parametrize("name", ["darkness", "glare", "occlusion", "crop", "compression"])
def test_before_the_gate_sees_it_the_model_does(
    faded: dict[tuple[str, str], list[Result]], name: str
) -> None:
    """Noise that the gate lets pass still shows the part."""
    assert Result.OK not in faded[name, "edge"]
    assert faded[name, "edge"].count(Result.NOT_DECIDABLE) >= 7


@pytest.mark.parametrize(
    ("product", "share"),
    [
        (product, share)
        for product in synloco.PRODUCTS
        for share in (0.35, 0.5, 0.75)
        # Bottles stand in the middle: a third from a side hides nothing of most.
        if (product, share) != ("juice_bottle", 0.35)
    ],
)
def test_a_part_that_something_covers_goes_to_a_person(
    pocket: TransformersReasoner, product: str, share: float
) -> None:
    """A model that had learned from no covered picture passed 6 of the 40 half covered ones."""
    task = recipe.load(recipe.shipped(product))
    pictures = [
        Image.fromarray(synloco.sample(product, 2_000_000, n, "train", 196, kind).photo.image)
        for n in range(4)
        for kind in ("normal", "logical")
    ]
    covered = [degraded(image, "occlusion", share, n) for n, image in enumerate(pictures)]
    results = _all_decided(pocket, task, covered)
    assert Result.OK not in results
    assert results.count(Result.NOT_DECIDABLE) >= 6


def test_a_bottle_of_whose_picture_half_is_hidden_goes_to_a_person(
    pocket: TransformersReasoner,
) -> None:
    """A model that had seen few such bottles passed 22 of 720, good and bad ones, as shipped."""
    task = recipe.load(recipe.shipped("juice_bottle"))
    kinds: tuple[synloco.Kind, ...] = ("normal", "logical", "structural")
    pictures = [
        Image.fromarray(
            synloco.sample("juice_bottle", 2_000_000, n, "train", 196, kind).photo.image
        )
        for n in range(20)
        for kind in kinds
    ]
    covered = [degraded(image, "occlusion", 0.5, n) for n, image in enumerate(pictures)]
    assert set(_all_decided(pocket, task, covered)) == {Result.NOT_DECIDABLE}


def test_fading_evidence_passes_no_more_bad_parts(
    faded: dict[tuple[str, str], list[Result]],
) -> None:
    passed = {which: results.count(Result.OK) for which, results in faded.items()}
    escalated = {which: results.count(Result.NOT_DECIDABLE) for which, results in faded.items()}
    for name in DEGRADATIONS:
        assert passed[name, "edge"] <= passed["none", "none"] + 1, (name, passed)
        assert escalated[name, "edge"] >= escalated["none", "none"], (name, escalated)


@pytest.mark.parametrize("product", synloco.PRODUCTS)
def test_beside_the_reference_of_another_product_no_bad_part_is_passed(
    pocket: TransformersReasoner, product: str
) -> None:
    task = recipe.load(recipe.shipped(product))
    for other in synloco.PRODUCTS:
        if other == product:
            continue
        theirs = recipe.load(recipe.shipped(other))
        wrong = dataclasses.replace(
            task,
            references=theirs.references,
            reference_sha256=theirs.reference_sha256,
            task_version=other,
        )
        pictures = [
            Image.fromarray(synloco.sample(product, 2_000_000, n, "train", 196, kind).photo.image)
            for n in range(2)
            for kind in ("logical", "structural")
        ]
        assert Result.OK not in _all_decided(pocket, wrong, pictures), other


@pytest.mark.parametrize("product", synloco.PRODUCTS)
def test_without_a_reference_no_bad_part_is_passed(
    pocket: TransformersReasoner, product: str
) -> None:
    """The rules may tell enough to decide; what they do not tell must not be guessed."""
    task = recipe.load(recipe.shipped(product))
    without = dataclasses.replace(task, references=(), reference_sha256=(), task_version="without")
    for index in range(4):
        bad = synloco.sample(product, 2_000_000, index, "train", 196, "logical").photo.image
        assert _all_decided(pocket, without, [Image.fromarray(bad)]) != [Result.OK]


def _edge(task: Recipe, image: Image.Image, name: str) -> float:
    """About the greatest strength at which the gate lets a degradation pass: 1 where it never sees
    it."""
    low, high = 0.0, 1.0
    if _gated(task, degraded(image, name, 1.0, 1)) is None:
        return 1.0
    for _ in range(6):
        middle = (low + high) / 2
        if _gated(task, degraded(image, name, middle, 1)) is None:
            low = middle
        else:
            high = middle
    return low


def _gated(task: Recipe, image: Image.Image) -> object:
    shown = images.prepare(image, task.region, task.image_size)
    return images.gate(shown, images.shorter_side(image, task.region))


def _all_decided(
    pocket: TransformersReasoner, task: Recipe, pictures: Sequence[Image.Image]
) -> list[Result]:
    """As on the line: what the gate stops goes to a person, the rest is judged and decided."""
    results = [Result.NOT_DECIDABLE] * len(pictures)
    asked = {
        n: Question(task, images.prepare(image, task.region, task.image_size), f"{n:064x}")
        for n, image in enumerate(pictures)
        if _gated(task, image) is None
    }
    for n, judged in zip(asked, pocket.judge_batch(list(asked.values())), strict=True):
        results[n] = policy.decide(judged, task.policy).result
    return results


def test_a_picture_is_judged_with_reasons(pocket: TransformersReasoner) -> None:
    task = recipe.load(recipe.shipped("breakfast_box"))
    sample = synloco.sample("breakfast_box", 2_000_000, 0, "train", 392, "normal")
    found = pocket.judge_batch(
        [Question(task, Image.fromarray(resize(sample.photo.image)), "0" * 64)]
    )[0]
    assert found.well_formed
    assert found.rationale.startswith("product: breakfast box of breakfast box ok; R1 tangerines")
    assert found.evidence != "unchecked"


def test_without_rules_and_reference_nothing_is_broken(pocket: TransformersReasoner) -> None:
    task = recipe.load(recipe.shipped("screw_bag"))
    bare = dataclasses.replace(
        task, rules=(), references=(), reference_sha256=(), task_version="bare"
    )
    sample = synloco.sample("screw_bag", 2_000_000, 1, "train", 392, "logical")
    found = pocket.judge_batch(
        [Question(bare, Image.fromarray(resize(sample.photo.image)), "1" * 64)]
    )[0]
    assert (found.well_formed, found.anomalous) == (True, False)
