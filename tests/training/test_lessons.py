"""What a run learns from: pictures, and what people found in reviews."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lad_agent.errors import CheckFailed, RecipeError, UsageError
from lad_agent.images import file_sha256
from lad_agent.recipe import load
from lad_agent.training import lessons, runs, texts
from lad_agent.training.calibration import trained_on
from lad_agent.training.config import RunConfig, changed
from lad_agent.training.sources import Example, Finding, open_source
from lad_agent.training.synloco import dataset
from tests.reasoners import toy
from tests.training.conftest import own_pictures

AT = datetime(2026, 5, 31, 8, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures as a station keeps them: without a recipe beside them."""
    folder = tmp_path_factory.mktemp("line")
    for number in range(6):
        colour = toy.BRIGHT if number % 2 else toy.DARK
        toy.picture(colour, number, 64).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    toy.write_recipe(folder)
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def findings(line: Path, recipe: Path) -> list[Finding]:
    """Bright ones are nonconforming."""
    return [
        Finding(path, "toy", not number % 2, "R1" if number % 2 else None, "ana", AT,
                file_sha256(path), recipe, f"review-{number}")
        for number, path in enumerate(sorted(line.iterdir()))
    ]  # fmt: skip


def _config(**data: Any) -> RunConfig:
    return RunConfig.model_validate({"base": "pocket", "data": data})


def test_every_finding_is_for_training_under_the_rules_it_was_made_by(
    findings: list[Finding],
) -> None:
    said: list[str] = []
    found = lessons.learn_from(_config(reviews=True), findings, said.append)
    assert len(found.examples) == len(found.reviews) == 6
    assert sum(e.anomalous for e in found.examples) == 3
    assert {e.by for e in found.reviews} == {"ana"}
    assert found.tasks["toy"].rules == toy.RULES
    assert said[-1] == "6 pictures to learn from"
    twice = lessons.learn_from(_config(reviews=True), [*findings, findings[0]], _quiet)
    assert twice.examples == found.examples


def test_findings_join_pictures(findings: list[Finding], tmp_path: Path) -> None:
    data = own_pictures(tmp_path / "toy", 8, toy.DARK, first=50)
    both = lessons.learn_from(_config(reviews=True, paths=[data]), findings, _quiet)
    alone = lessons.learn_from(_config(paths=[data]), findings, _quiet)
    assert len(both.examples) == len(alone.examples) + 6
    assert alone.reviews == []
    assert both.hashes != alone.hashes


def test_findings_are_kept_and_read_again(findings: list[Finding], tmp_path: Path) -> None:
    config = _config(reviews=True)
    version = load(findings[0].recipe or Path()).task_version
    findings = [replace(one, task_version=version) for one in findings]
    learned = lessons.learn_from(config, findings, _quiet)
    run = runs.open_run(tmp_path / "run", "sft", config, base="b", data=learned.hashes)
    lessons.keep_reviews(learned.reviews, run)
    assert lessons.kept_reviews(run.folder) == findings
    entry = runs.read_lines(run.reviews)[1]
    assert (entry["finding"], entry["rule"], entry["by"]) == ("nonconforming", "R1", "ana")
    assert (entry["review"], entry["at"]) == ("review-1", "2026-05-31T08:30:00+00:00")
    assert trained_on(run.folder) == {f.sha256 for f in findings}


def test_no_reviews_leave_no_file(tmp_path: Path) -> None:
    run = runs.open_run(tmp_path / "run", "sft", _config(), base="b", data={})
    lessons.keep_reviews([], run)
    assert not run.reviews.exists()


def test_no_finding(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no decided review names a picture"):
        lessons.learn_from(_config(reviews=True), [], _quiet)


def test_two_people_who_disagree_stop_the_run(findings: list[Finding]) -> None:
    other = replace(findings[0], conforming=False, rule="R1", by="ben")
    with pytest.raises(CheckFailed, match=r"by ana.*by ben.*contradict"):
        lessons.learn_from(_config(reviews=True), [*findings, other], _quiet)


def test_findings_under_rules_that_have_changed_are_left_out(
    findings: list[Finding], tmp_path: Path
) -> None:
    """Even where they contradict later ones: what was right by one rule is wrong by another."""
    now = toy.write_recipe(tmp_path / "now", rule="exactly 2 lamps")
    before = toy.write_recipe(tmp_path / "before").task_version
    made = [replace(one, recipe=now.path, task_version=now.task_version) for one in findings]
    older = replace(made[0], conforming=False, rule="R1", task_version=before)
    said: list[str] = []
    found = lessons.learn_from(_config(reviews=True), [older, *made], said.append)
    assert len(found.examples) == 6
    assert said[0] == f"1 findings are left out: made under another task than {now.path} asks now"
    assert found.tasks["toy"].version == now.task_version
    old = [replace(one, task_version=before) for one in made]
    with pytest.raises(UsageError, match=r"all 6 findings were made under another task than .*now"):
        lessons.learn_from(_config(reviews=True), old, _quiet)


def test_a_recipe_that_is_gone_is_stood_in_for_by_one_that_asks_the_same(
    findings: list[Finding], tmp_path: Path
) -> None:
    data = own_pictures(tmp_path / "toy", 3, toy.DARK)
    version = load(data / "recipe.yaml").task_version
    gone = [
        Finding(path, "toy", path.parent.name == "good", None, "ana", AT, file_sha256(path),
                tmp_path / "gone.yaml", "r", version)
        for path in sorted(data.rglob("0*.png"))
    ]  # fmt: skip
    assert len(lessons.learn_from(_config(reviews=True), gone, _quiet).examples) == 6
    (data / "recipe.yaml").unlink()
    with pytest.raises(UsageError, match=r"another task than .*gone\.yaml asks now"):
        lessons.learn_from(_config(reviews=True), gone, _quiet)


def test_two_recipes_of_one_product_are_no_one_task(
    findings: list[Finding], tmp_path: Path
) -> None:
    one, two = (
        toy.write_recipe(tmp_path / name, rule=rule)
        for name, rule in (("one", "exactly 1 lamp"), ("two", "exactly 2 lamps"))
    )
    mixed = [
        replace(f, recipe=by.path, task_version=by.task_version)
        for f, by in zip(findings, [one] * 3 + [two] * 3, strict=True)
    ]
    with pytest.raises(
        UsageError, match=rf"toy was reviewed by {one.path} and by {two.path}, .* move the one"
    ):
        lessons.learn_from(_config(reviews=True), mixed, _quiet)
    two.path.unlink()
    found = lessons.learn_from(_config(reviews=True), mixed, _quiet)
    assert len(found.examples) == 3


def test_findings_of_an_older_run_say_nothing_of_their_task(
    findings: list[Finding], tmp_path: Path
) -> None:
    config = _config(reviews=True)
    learned = lessons.learn_from(config, findings, _quiet)
    run = runs.open_run(tmp_path / "run", "sft", config, base="b", data=learned.hashes)
    lessons.keep_reviews(learned.reviews, run)
    lines = run.reviews.read_text()
    assert lines.count(', "task_version": null') == 6
    run.reviews.write_text(lines.replace(', "task_version": null', ""))
    assert lessons.kept_reviews(run.folder) == findings


def test_of_two_who_name_different_rules_the_later_one_counts(findings: list[Finding]) -> None:
    """In whatever order they come; both rules may be broken."""
    later = replace(findings[1], rule="R2", by="ben", at=AT + timedelta(hours=1))
    for given in ([*findings, later], [later, *findings]):
        learned = lessons.learn_from(_config(reviews=True), given, _quiet)
        assert len(learned.examples) == 6
        (one,) = [e for e in learned.examples if e.sha256 == later.sha256]
        assert (one.rule, one.by) == ("R2", "ben")


def test_findings_of_one_kind_teach_one_answer(findings: list[Finding], tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="all 3 pictures are good"):
        lessons.learn_from(_config(reviews=True), findings[::2], _quiet)


def test_good_pictures_teach_both_answers_only_under_rules_that_can_be_changed(
    tmp_path: Path,
) -> None:
    """SynLOCO's pictures for training are good, as in MVTec LOCO AD, and their content is known."""
    data = dataset.write(tmp_path, "pushpins", 2, 1, size=56, train=2, validation=1)
    config = _config(paths=[data])
    assert len(lessons.learn_from(config, say=_quiet).examples) == 2
    with pytest.raises(CheckFailed, match=r"all 2 pictures for training are good.*one answer"):
        lessons.learn_from(changed(config, sft={"texts": {"other_rules": 0.0}}), say=_quiet)
    recipe = data / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("exactly 0 crowded", "no crowded"))
    with pytest.raises(CheckFailed, match="by rules that cannot be changed"):
        lessons.learn_from(config, say=_quiet)


def test_what_is_asked_and_known_has_a_hash_of_its_own(tmp_path: Path) -> None:
    data = dataset.write(tmp_path, "pushpins", 2, 1, size=56, train=2, validation=1)
    recipe, truth = data / "recipe.yaml", data / "truth.jsonl"
    seen = []
    for path, old, new in (
        (recipe, "exactly 0 crowded", "exactly 1 crowded"),
        (truth, '"cell": "', '"cell": "G7", "was": "'),
    ):
        seen.append(lessons.learn_from(_config(paths=[data]), say=_quiet))
        path.write_text(path.read_text().replace(old, new))
    seen.append(lessons.learn_from(_config(paths=[data]), say=_quiet))
    assert len({one.hashes["pushpins"] for one in seen}) == 1
    assert len({one.task_hashes["pushpins"] for one in seen}) == 3


def test_masks_are_among_what_is_known(tmp_path: Path) -> None:
    data = own_pictures(tmp_path / "toy", 2, toy.DARK)
    names = sorted(path.relative_to(data) for path in data.rglob("0*.png"))
    rows = [f"{n},bad,m.png,train" if n.parts[0] == "bad" else f"{n},good,,train" for n in names]
    (data / "labels.csv").write_text("image,label,mask,split\n" + "\n".join(rows) + "\n")
    seen = []
    for place in (5, 50):
        mask = Image.new("L", (64, 64))
        mask.paste(255, (place, place, place + 8, place + 8))
        mask.save(data / "m.png")
        texts._spots.cache_clear()
        seen.append(lessons.learn_from(_config(paths=[data]), say=_quiet))
    assert seen[0].hashes == seen[1].hashes
    assert seen[0].task_hashes != seen[1].task_hashes
    Image.new("L", (64, 60)).save(data / "m.png")
    with pytest.raises(CheckFailed, match=r"m\.png: 64x60, its picture .* is 64x64; make the mask"):
        lessons.learn_from(_config(paths=[data]), say=_quiet)


def test_held_out_pictures_are_not_learned_from(findings: list[Finding], tmp_path: Path) -> None:
    held = own_pictures(tmp_path / "toy", 2, toy.DARK, first=90)
    lessons.learn_from(_config(reviews=True, held_out=held), findings, _quiet)
    (held / "good" / "x.png").write_bytes(findings[0].image.read_bytes())
    with pytest.raises(
        CheckFailed, match=r"1 held-out pictures are learned from, such as .*x\.png"
    ):
        lessons.learn_from(_config(reviews=True, held_out=held), findings, _quiet)


def test_pictures_in_a_folder_below_the_recipe_are_of_its_product(tmp_path: Path) -> None:
    """As `lad-agent inspect` has it: the model will be asked about that product."""
    toy.write_recipe(tmp_path / "toy")
    data = own_pictures(tmp_path / "toy" / "may", 4, toy.DARK)
    (data / "recipe.yaml").unlink()
    assert {e.product for e in open_source(data) if isinstance(e, Example)} == {"toy"}
    found = lessons.learn_from(_config(paths=[data]), say=_quiet)
    assert found.tasks["toy"].rules == toy.RULES


def test_a_recipe_of_another_product_is_refused(tmp_path: Path) -> None:
    data = own_pictures(tmp_path / "toy", 4, toy.DARK)
    (data / "labels.csv").write_text(
        "image,label,product\n"
        + "".join(f"good/{n:03d}.png,good,may\nbad/no_lamp/{n:03d}.png,bad,may\n" for n in range(4))
    )
    with pytest.raises(RecipeError, match=r"recipe\.yaml: of toy, .* are of may; put a recipe"):
        lessons.learn_from(_config(paths=[data]), say=_quiet)


def test_samples_are_of_pictures_for_validation_or_else_for_training(tmp_path: Path) -> None:
    """What a model says about pictures for the test is not looked at while it learns."""
    data = own_pictures(tmp_path / "toy", 4, toy.DARK)

    def asked(*splits: str) -> set[str | None]:
        rows = ["image,label,split"]
        for folder, label in (("good", "good"), ("bad/no_lamp", "bad")):
            for number in range(4):
                rows.append(f"{folder}/{number:03d}.png,{label},{splits[number]}")
        (data / "labels.csv").write_text("\n".join(rows))
        found = lessons.learn_from(_config(paths=[data]), say=_quiet)
        return {example.split for example in found.asked}

    assert asked("train", "test", "test", "test") == {"train"}
    assert asked("train", "test", "validation", "test") == {"validation"}


def test_a_recipe_that_is_gone_gives_way_to_the_one_above_the_pictures(
    findings: list[Finding], recipe: Path, tmp_path: Path
) -> None:
    image = own_pictures(tmp_path / "toy", 1, toy.DARK) / "good" / "000.png"
    learned = lessons.learn_from(_config(reviews=True), findings, _quiet)
    one = replace(learned.examples[0], recipe=tmp_path / "gone.yaml")
    found = texts.recipe_of("toy", [one, replace(one, image=image)])
    assert found is not None
    assert found.rules == toy.RULES
    assert texts.recipe_of("toy", [one]) is None


def _quiet(text: str) -> None:
    """Not a word."""
