"""An inspection run again from what was recorded, and compared with it.

The image is found by its hash, the recipe by its version; what is not as it was then (image,
recipe, model, a library) is named.
"""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lad_agent import images, policy
from lad_agent.errors import LadAgentError, RecipeError, UnreadableInput
from lad_agent.inspection import Intake
from lad_agent.judgement import Judgement, Reason, Result
from lad_agent.reasoners.base import Question, Reasoner
from lad_agent.recipe import Policy, Recipe, Region, Rule, load, recorded_version

TOLERANCE = 1e-4
"""Scores that differ by no more are the same: batches differ by rounding."""


@dataclass(frozen=True)
class Recorded:
    """What an inspection was.

    `images` are the files that may hold its image, `recipe` is what the recipe said (see
    `store.models.RecipeRow`), `software` the versions that judged it; None where not known.
    """

    id: str
    intake: Intake
    result: Result
    reason: Reason | None
    judgement: Judgement | None
    images: tuple[Path, ...]
    recipe: Mapping[str, Any] | None
    software: Mapping[str, str] | None


@dataclass(frozen=True)
class Change:
    """Something that is not as it was: `what` is image, recipe, model or a package."""

    what: str
    recorded: str
    now: str

    def __str__(self) -> str:
        return f"{self.what}: {self.recorded}, now {self.now}"


@dataclass(frozen=True)
class Replayed:
    """What the second run came to. `problem` says why there was none; then nothing is the same."""

    recorded: Recorded
    result: Result | None
    reason: Reason | None
    judgement: Judgement | None
    changes: tuple[Change, ...]
    problem: str | None = None

    @property
    def same_verdict(self) -> bool:
        """Result, reason and the reasoner's yes or no."""
        before, now = self.recorded, self
        return (before.result, before.reason, _anomalous(before.judgement)) == (
            now.result,
            now.reason,
            _anomalous(now.judgement),
        )

    @property
    def same_score(self) -> bool:
        """Anomaly score and confidence, but for rounding."""
        return self.problem is None and all(
            _close(
                getattr(self.recorded.judgement, name, None), getattr(self.judgement, name, None)
            )
            for name in ("anomaly_score", "confidence")
        )

    @property
    def same_rationale(self) -> bool:
        """Every character."""
        return self.problem is None and (
            getattr(self.recorded.judgement, "rationale", None)
            == getattr(self.judgement, "rationale", None)
        )

    @property
    def same(self) -> bool:
        return self.same_verdict and self.same_score and self.same_rationale


async def replay(
    recorded: Recorded,
    reasoner: Reasoner,
    *,
    software: Mapping[str, str],
    max_pixels: int = images.MAX_PIXELS,
) -> Replayed:
    """Run one inspection again; never raises for what is missing or fails, but says it."""
    changes = _changes(recorded, reasoner.fingerprint, software)
    try:
        picture = await asyncio.to_thread(_image, recorded)
        recipe = await asyncio.to_thread(_recipe, recorded)
        result, reason, judgement = await _run(recorded, picture, recipe, reasoner, max_pixels)
    except _Gone as gone:
        change = (gone.change,) if gone.change else ()
        return Replayed(recorded, None, None, None, (*changes, *change), str(gone))
    except LadAgentError as error:
        return Replayed(recorded, None, None, None, changes, str(error))
    return Replayed(recorded, result, reason, judgement, changes)


class _Gone(Exception):
    def __init__(self, message: str, change: Change | None = None) -> None:
        super().__init__(message)
        self.change = change


async def _run(
    recorded: Recorded, path: Path, recipe: Recipe, reasoner: Reasoner, max_pixels: int
) -> tuple[Result, Reason | None, Judgement | None]:
    """As the workflow's steps do (`lad_agent.graphs.nodes`), with nothing written."""
    if reasoner.products is not None and recipe.product not in reasoner.products:
        return Result.NOT_DECIDABLE, Reason.PRODUCT_NOT_IN_MODEL, None
    try:
        found = await asyncio.to_thread(images.look, path, recipe, max_pixels=max_pixels)
    except UnreadableInput:
        return Result.NOT_DECIDABLE, Reason.UNREADABLE, None
    if found.reason is not None:
        return Result.NOT_DECIDABLE, found.reason, None
    judgement = await reasoner.judge(Question(recipe, found.picture, found.sha256))
    hold = "on hold then" if recorded.reason is Reason.ON_HOLD else None
    judgement, made = policy.decide_by_recipe(judgement, recipe, hold=hold)
    return made.result, made.reason, judgement


def _changes(
    recorded: Recorded, fingerprint: str, software: Mapping[str, str]
) -> tuple[Change, ...]:
    changes = []
    if recorded.intake.model != fingerprint:
        changes.append(Change("model", recorded.intake.model, fingerprint))
    before = recorded.software or {}
    for name in sorted(before.keys() | software.keys() if before else ()):
        was, now = before.get(name, "not installed"), software.get(name, "not installed")
        if was != now:
            changes.append(Change(name, was, now))
    return tuple(changes)


def _image(recorded: Recorded) -> Path:
    wanted = recorded.intake.image_sha256
    if wanted is None:
        raise _Gone(f"{recorded.intake.image}: could not be read when it was recorded either")
    found = images.find(recorded.images, wanted)
    if found is not None:
        return found
    path = Path(recorded.intake.image)
    try:
        now = images.file_sha256(path)
    except UnreadableInput as error:
        raise _Gone(f"the image is gone: {error}", Change("image", wanted, "gone")) from error
    raise _Gone(f"{path}: the image has changed", Change("image", wanted, now))


def _recipe(recorded: Recorded) -> Recipe:
    """The file, if it still is the version judged against; else what was recorded of it."""
    intake = recorded.intake
    path = Path(intake.recipe_path)
    try:
        recipe = load(path)
        now = recipe.recipe_version
        if now == intake.recipe_version:
            return recipe
    except (RecipeError, OSError, ValueError):
        now = "gone"
    said = recorded.recipe
    if said is None:
        raise _Gone(
            f"{path}: the recipe has changed, and what it said was not recorded",
            Change("recipe", intake.recipe_version, now),
        )
    unknown = sorted(said["policy"].keys() - Policy.model_fields.keys())
    if unknown:
        raise _Gone(
            f"{path}: the recipe was recorded by a newer version, whose policy has {unknown[0]}; "
            "replay it with that version",
            Change("recipe", intake.recipe_version, now),
        )
    if recorded_version(intake.product, said) != intake.recipe_version:
        raise _Gone(
            f"{path}: the recipe has changed, or this version judges otherwise, and the "
            "calibration it had is not looked up",
            Change("recipe", intake.recipe_version, now),
        )
    references = []
    found = images.find_references(path, said["references"])
    for place, sha256 in zip(found, said["references"], strict=True):
        if place is None:
            raise _Gone(
                f"{path.parent}: no reference picture with SHA-256 {sha256} is left",
                Change("recipe", intake.recipe_version, now),
            )
        references.append(place)
    return Recipe(
        product=intake.product,
        rules=tuple(Rule(**rule) for rule in said["rules"]),
        references=tuple(references),
        reference_sha256=tuple(said["references"]),
        region=Region(**said["region"]),
        image_size=said["image_size"],
        policy=Policy(**said["policy"]),
        task_version=intake.task_version,
        recipe_version=intake.recipe_version,
        path=path,
        # Before there was a choice, all were shown.
        references_shown=said.get("references_shown", len(references)),
    )


def _anomalous(judgement: Judgement | None) -> bool | None:
    return None if judgement is None else judgement.anomalous


def _close(before: float | None, now: float | None) -> bool:
    if before is None or now is None:
        return before is now
    return math.isclose(before, now, rel_tol=0.0, abs_tol=TOLERANCE)
