"""Replay: the same again is the same, and what has changed is named."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from lad_agent import images
from lad_agent.inspection import Intake
from lad_agent.judgement import Judgement, Reason, Result
from lad_agent.policy import decide
from lad_agent.reasoners.base import Question
from lad_agent.recipe import load, recorded_version
from lad_agent.replay import Change, Recorded, Replayed, replay
from tests.scripted import Scripted, bad, good, malformed, write_parts, write_recipe

SOFTWARE = {"torch": "2.13.0", "transformers": "5.23.0"}


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    """A part that was rejected, with picture, recipe and what the recipe said."""
    recipe = load(write_recipe(tmp_path / "tray"))
    [picture] = write_parts(tmp_path / "tray", 1)
    sha256 = hashlib.sha256(picture.read_bytes()).hexdigest()
    prepared = images.prepare(images.read(picture).image, recipe.region, recipe.image_size)
    judgement = bad(Question(recipe, prepared, sha256))
    made = decide(judgement, recipe.policy)
    return Recorded(
        id="1",
        intake=Intake(
            part_id="part-000", station="s", image=str(picture), image_sha256=sha256,
            product=recipe.product, task_version=recipe.task_version,
            recipe_version=recipe.recipe_version, recipe_path=str(recipe.path), model="scripted",
            actor="otto",
        ),
        result=made.result,
        reason=made.reason,
        judgement=judgement,
        images=(tmp_path / "kept.png", picture),
        recipe={
            "rules": [rule.model_dump() for rule in recipe.rules],
            "references": list(recipe.reference_sha256),
            "region": recipe.region.model_dump(),
            "image_size": recipe.image_size,
            "policy": recipe.policy.model_dump(),
        },
        software=SOFTWARE,
    )  # fmt: skip


async def again(recorded: Recorded, reasoner: Scripted | None = None, **software: str) -> Replayed:
    return await replay(recorded, reasoner or Scripted(bad), software=SOFTWARE | software)


async def test_the_same_again_is_the_same(recorded: Recorded) -> None:
    found = await again(recorded)
    assert (found.result, found.problem, found.changes) == (Result.NOT_OK, None, ())
    assert found.judgement == recorded.judgement
    assert found.same


@pytest.mark.parametrize(
    ("script", "same"), [(good, (False, False, False)), (malformed, (False, False, False))]
)
async def test_another_answer_is_told(
    recorded: Recorded, script: object, same: tuple[bool, ...]
) -> None:
    found = await again(recorded, Scripted(script))  # type: ignore[arg-type]
    assert (found.same_verdict, found.same_score, found.same_rationale) == same
    assert not found.same


@pytest.mark.parametrize(("said", "shown"), [({}, 2), ({"references_shown": 1}, 1)])
async def test_as_many_references_are_shown_as_then(
    recorded: Recorded, said: dict[str, int], shown: int
) -> None:
    """Before there was a choice, all of them were."""
    other = Path(recorded.intake.recipe_path).with_name("other.png")
    write_parts(other.parent / "more", 1)[0].rename(other)
    content = {**(recorded.recipe or {}), **said}
    content["references"] = [*content["references"], images.file_sha256(other)]
    version = recorded_version(recorded.intake.product, content)
    asked: list[int] = []

    def script(question: Question) -> Judgement:
        asked.append(question.recipe.references_shown)
        return bad(question)

    intake = recorded.intake.model_copy(update={"recipe_version": version})
    found = await again(replace(recorded, recipe=content, intake=intake), Scripted(script))
    assert (found.problem, asked) == (None, [shown])


async def test_rounding_is_no_difference_but_more_is(recorded: Recorded) -> None:
    assert recorded.judgement is not None
    for by, same in ((5e-6, True), (1e-3, False)):
        other = recorded.judgement.model_copy(
            update={"anomaly_score": (recorded.judgement.anomaly_score or 0.0) - by}
        )
        found = await again(recorded, Scripted(lambda _, said=other: said))
        assert (found.same_score, found.same_verdict, found.same_rationale) == (same, True, True)


async def test_another_model_and_another_library_are_named(recorded: Recorded) -> None:
    found = await again(recorded, Scripted(bad, fingerprint="other"), torch="3.0", peft="1.0")
    assert found.changes == (
        Change("model", "scripted", "other"),
        Change("peft", "not installed", "1.0"),
        Change("torch", "2.13.0", "3.0"),
    )
    assert found.same
    unknown = replace(recorded, software=None)
    assert (await again(unknown, torch="3.0")).changes == ()


async def test_the_kept_copy_stands_in_for_an_image_that_has_gone(recorded: Recorded) -> None:
    kept, picture = recorded.images
    kept.write_bytes(picture.read_bytes())
    picture.unlink()
    assert (await again(recorded)).same


async def test_a_changed_image_is_named_and_not_judged(recorded: Recorded) -> None:
    reasoner = Scripted(bad)
    recorded.images[1].write_bytes(b"other")
    found = await again(recorded, reasoner)
    now = hashlib.sha256(b"other").hexdigest()
    assert found.changes == (Change("image", recorded.intake.image_sha256 or "", now),)
    assert "the image has changed" in (found.problem or "")
    assert not any((found.same, found.same_verdict, found.same_score, found.same_rationale))
    recorded.images[1].unlink()
    gone = await again(recorded, reasoner)
    assert [change.now for change in gone.changes] == ["gone"]
    assert reasoner.asked == []


async def test_a_changed_recipe_is_taken_from_the_record(recorded: Recorded) -> None:
    path = Path(recorded.intake.recipe_path)
    path.write_text(path.read_text().replace("exactly 2", "exactly 3"))
    assert (await again(recorded)).same
    path.unlink()
    assert (await again(recorded)).same


async def test_a_recipe_of_a_newer_version_is_named(recorded: Recorded) -> None:
    Path(recorded.intake.recipe_path).unlink()
    assert recorded.recipe is not None
    said = {**recorded.recipe, "policy": {**recorded.recipe["policy"], "patience": 3}}
    found = await again(replace(recorded, recipe=said))
    assert found.result is None
    assert "newer version, whose policy has patience" in (found.problem or "")


@pytest.mark.parametrize("lost", ["content", "reference"])
async def test_a_recipe_that_is_lost_is_named(recorded: Recorded, lost: str) -> None:
    path = Path(recorded.intake.recipe_path)
    path.unlink()
    if lost == "content":
        recorded = replace(recorded, recipe=None)
    else:
        (path.parent / "reference.png").unlink()
    found = await again(recorded)
    assert found.changes == (Change("recipe", recorded.intake.recipe_version, "gone"),)
    assert found.result is None
    assert str(path.parent) in (found.problem or "")


async def test_what_the_gate_stopped_is_stopped_again(recorded: Recorded) -> None:
    picture = recorded.images[1]
    picture.write_bytes(b"no picture at all")
    sha256 = hashlib.sha256(picture.read_bytes()).hexdigest()
    unreadable = replace(
        recorded,
        intake=recorded.intake.model_copy(update={"image_sha256": sha256}),
        result=Result.NOT_DECIDABLE,
        reason=Reason.UNREADABLE,
        judgement=None,
    )
    assert (await again(unreadable)).same
    never = replace(recorded, intake=recorded.intake.model_copy(update={"image_sha256": None}))
    assert "could not be read" in ((await again(never)).problem or "")


async def test_a_product_the_model_was_not_made_for(recorded: Recorded) -> None:
    found = await again(recorded, Scripted(bad, products=frozenset({"pushpins"})))
    assert (found.result, found.reason) == (Result.NOT_DECIDABLE, Reason.PRODUCT_NOT_IN_MODEL)
    assert not found.same
