"""DATA of a calibration: labels and results joined, training pictures refused, bad lines named."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lad_agent import recipe
from lad_agent.errors import CheckFailed, UsageError
from lad_agent.recipe import Recipe
from lad_agent.training import bases, config, runs
from lad_agent.training.calibration import (
    doubts,
    labelled,
    of_results,
    refuse_trained_on,
    taught,
    trained_on,
)
from lad_agent.training.calibration.parts import digest
from lad_agent.training.sources import Example, open_source
from tests.scripted import write_recipe
from tests.training.sources import layouts


@pytest.fixture
def tray(tmp_path: Path) -> Path:
    folder = layouts.own(tmp_path)
    write_recipe(folder, "tray")
    return folder


@pytest.fixture
def loaded(tray: Path) -> Recipe:
    return recipe.load(tray / "recipe.yaml")


def _results(folder: Path, examples: list[Example], loaded: Recipe, **more: Any) -> Path:
    lines = [
        {
            "id": f"{n:03d}", "image_sha256": e.sha256, "product": loaded.product,
            "task_version": loaded.task_version, "result": "OK", "anomalous": e.anomalous,
            "anomaly_score": float(e.anomalous), "confidence": 0.9, "weakest_token": 0.9,
            "mean_logprob": -0.01, "sum_logprob": -0.2, "image_quality": 0.5,
            "samples": 0, "agreement": None, "rationale": "washers 2 of 2 ok", "rule": None,
            "places": ["A1"], "well_formed": True, "reason": None, "model": "scripted",
            "elapsed_s": 0.1, "evidence": "consistent", "attempt": 1,
        } | more
        for n, e in enumerate(examples)
    ]  # fmt: skip
    path = folder / "results.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_results_are_joined_by_content(tray: Path, loaded: Recipe) -> None:
    examples, left_out = labelled(tray, "tray")
    parts, notes = of_results(_results(tray.parent, examples, loaded), examples, loaded)
    assert {p.example.sha256 for p in parts} == {e.sha256 for e in examples}
    assert (sum(p.bad for p in parts), all(p.right for p in parts), left_out) == (4, True, 0)
    assert (parts[0].judgement.places, notes) == (("A1",), [])
    assert digest(parts) == digest(parts[::-1])


def test_folders_that_are_not_read_are_named_for_their_pictures_would_not_count(
    tray: Path, tmp_path: Path
) -> None:
    layouts.picture(tray / "scratched" / "000.png", 70)
    layouts.picture(tray / "bent" / "deep" / "000.png", 71)
    (tray / "notes").mkdir()
    (tray / "notes" / "readme.txt").write_text("none")
    told = f"^{tray}/bent, {tray}/scratched: pictures there are not read as own pictures, and"
    with pytest.raises(UsageError, match=told):
        labelled(tray, "tray")
    (tray / "labels.csv").write_text("image,label\nscratched/000.png,bad\n")
    assert [e.anomalous for e in labelled(tray, "tray")[0]] == [True]
    # The test pictures of a data set alone look like own ones, of which only good is known.
    folder = layouts.loco(tmp_path)
    with pytest.raises(UsageError, match=r"logical_anomalies, .*structural_anomalies: pictures"):
        labelled(folder / "test", "screw_bag")
    assert {e.kind for e in labelled(folder, "screw_bag")[0]} == {"good", "logical", "structural"}


def test_a_column_names_the_product_even_where_the_folder_is_called_so(tray: Path) -> None:
    lines = [f"{path.relative_to(tray)},good,tray\n" for path in sorted(tray.glob("good/*"))]
    (tray / "labels.csv").write_text("image,label,product\n" + "".join(lines))
    (tray / "recipe.yaml").unlink(missing_ok=True)
    with pytest.raises(UsageError, match="no picture of screw_bag; there is tray"):
        labelled(tray, "screw_bag")
    (tray / "labels.csv").write_text("image,label\n" + lines[0].replace(",tray", ""))
    assert [e.product for e in labelled(tray, "screw_bag")[0]] == ["screw_bag"]


def test_the_last_attempt_counts(tray: Path, loaded: Recipe) -> None:
    examples, _ = labelled(tray, "tray")
    first = _results(tray.parent, examples[:1], loaded, anomalous=True, attempt=2).read_text()
    path = _results(tray.parent, examples[:1], loaded, attempt=1)
    path.write_text(first + path.read_text())
    [part], _ = of_results(path, examples, loaded)
    assert part.judgement.anomalous is True


def test_what_was_not_judged_is_no_evidence(tray: Path, loaded: Recipe) -> None:
    """Bad parts that an outage has kept from passing would promise what the model never showed."""
    examples, _ = labelled(tray, "tray")
    nothing = dict.fromkeys(
        ("anomalous", "anomaly_score", "confidence", "weakest_token", "mean_logprob", "sum_logprob")
    )
    failed = _results(
        tray.parent, examples, loaded, reason="reasoner-failed", well_formed=False, **nothing
    ).read_text()
    with pytest.raises(UsageError, match="all of its pictures were not judged, because"):
        of_results(tray.parent / "results.jsonl", examples, loaded)
    few = [e for e in examples if not e.anomalous][:2] + [e for e in examples if e.anomalous][:1]
    path = _results(tray.parent, few, loaded)
    path.write_text(path.read_text() + failed)
    parts, notes = of_results(path, examples, loaded)
    assert {part.example.sha256 for part in parts} == {e.sha256 for e in few}
    left = len(examples) - 3
    assert notes == [f"{left} parts that were not judged, because of a time-out or a failure"]
    path = _results(tray.parent, few[:2], loaded)
    path.write_text(path.read_text() + failed)
    with pytest.raises(CheckFailed, match="none of the 4 bad parts was judged"):
        of_results(path, examples, loaded)
    # What the gate stops is stopped on the line too.
    gated = _results(tray.parent, examples, loaded, reason="too-dark", well_formed=False, **nothing)
    assert len(of_results(gated, examples, loaded)[0]) == len(examples)


def test_a_part_photographed_again_is_one_part(tray: Path, loaded: Recipe) -> None:
    examples, _ = labelled(tray, "tray")
    path = _results(tray.parent, examples, loaded, part_id="always the same")
    parts, notes = of_results(path, examples, loaded)
    last = {e.anomalous: e for e in examples}
    assert {part.example.sha256 for part in parts} == {e.sha256 for e in last.values()}
    assert sorted(part.bad for part in parts) == [False, True]
    earlier = len(examples) - 2
    assert notes == [f"{earlier} earlier pictures of parts that were photographed again"]
    # A file's name tells no part from another.
    path = _results(tray.parent, examples, loaded, part_id="good/000.PNG")
    assert len(of_results(path, examples, loaded)[0]) == len(examples)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"weakest_token": float("nan")}, "line 1: .*weakest_token is nan"),
        ({"anomaly_score": float("nan")}, "line 1: .*anomaly_score is nan"),
        ({"confidence": 1.5}, "line 1: .*confidence is 1.5"),
        ({"anomalous": "no"}, "line 1: .*anomalous is 'no'"),
        ({"task_version": "old"}, "line 1: .*judged for task old.*inspect again"),
        ({"mean_logprob": None}, "line 1: .*no mean_logprob: judged by an older version"),
        ({"image_quality": None}, "line 1: .*no image_quality: judged by an older version"),
        ({"samples": 4, "agreement": 1.0}, "line 1: .*4 more answers were asked for where.*0"),
        ({"product": "other"}, "no line is about a labelled picture of tray"),
    ],
)
def test_lines_that_cannot_calibrate_are_refused_by_number(
    tray: Path, loaded: Recipe, wrong: dict[str, Any], words: str
) -> None:
    examples, _ = labelled(tray, "tray")
    with pytest.raises(UsageError, match=words):
        of_results(_results(tray.parent, examples, loaded, **wrong), examples, loaded)


def test_results_of_two_models_are_refused(tray: Path, loaded: Recipe) -> None:
    examples, _ = labelled(tray, "tray")
    other = _results(tray.parent, examples[1:], loaded, model="other").read_text()
    path = _results(tray.parent, examples[:1], loaded)
    path.write_text(path.read_text() + other)
    with pytest.raises(UsageError, match="judged by other and scripted"):
        of_results(path, examples, loaded)


def test_labels_that_contradict_are_refused(tray: Path) -> None:
    copied = tray / "bad" / "copy.png"
    copied.write_bytes((tray / "good" / "0.png").read_bytes())
    with pytest.raises(UsageError, match="same picture, one called good and one anomalous"):
        labelled(tray, "tray")


def test_a_product_that_is_not_there_names_what_is(tray: Path, tmp_path: Path) -> None:
    wanted = "no picture of other; there is {}; give those of other, or the recipe of these"
    with pytest.raises(UsageError, match=wanted.format("tray")):
        labelled(tray, "other")
    with pytest.raises(UsageError, match=wanted.format("screw_bag")):
        labelled(layouts.loco(tmp_path / "loco"), "other")


def test_own_pictures_without_a_recipe_beside_them_are_of_the_recipe_given(tmp_path: Path) -> None:
    examples, _ = labelled(layouts.own(tmp_path), "screw_bag")
    assert {e.product for e in examples} == {"screw_bag"}


def test_pictures_kept_for_training_are_left_out(tmp_path: Path) -> None:
    examples, left_out = labelled(layouts.loco(tmp_path), "screw_bag")
    assert sorted(e.split for e in examples) == ["test"] * 4 + ["validation"]
    assert left_out == 2


def test_pictures_of_a_training_are_refused_by_content(tmp_path: Path) -> None:
    folder = layouts.loco(tmp_path / "training")
    copy = layouts.picture(tmp_path / "line" / "good" / "renamed.png", 1)
    layouts.picture(tmp_path / "line" / "good" / "own.png", 77)
    examples, _ = labelled(tmp_path / "line", "line")
    assert len(trained_on(folder)) == 2
    with pytest.raises(CheckFailed, match=f"1 pictures were used in training, such as {copy}"):
        refuse_trained_on(examples, trained_on(folder))
    refuse_trained_on([e for e in examples if e.image != copy], trained_on(folder))


def test_the_data_hash_is_of_content_and_label_whatever_the_order(
    tray: Path, loaded: Recipe
) -> None:
    examples, _ = labelled(tray, "tray")
    found, _ = of_results(_results(tray.parent, examples, loaded), examples, loaded)
    assert digest(found) == digest(found[::-1])
    first, *others = found
    for changed in ({"sha256": "0" * 64}, {"kind": "logical"}):
        other = replace(first, example=replace(first.example, **changed))
        assert digest([other, *others]) != digest(found)
    assert digest(others) != digest(found)


def test_a_run_names_its_own_pictures(tmp_path: Path) -> None:
    folder = layouts.loco(tmp_path / "training")
    told = config.RunConfig.model_validate({"base": "pocket", "data": {"paths": [str(folder)]}})
    runs.open_run(tmp_path / "run", "sft", told, base="f", data={})
    assert trained_on(tmp_path / "run") == trained_on(folder)


def test_a_run_that_lists_its_lessons_knows_them_whatever_became_of_the_pictures(
    tmp_path: Path,
) -> None:
    folder = layouts.own(tmp_path / "data")
    told = config.RunConfig.model_validate({"base": "pocket", "data": {"paths": [str(folder)]}})
    began = list(open_source(folder))
    run = runs.open_run(
        tmp_path / "run", "sft", told, base="f", data=runs.data_hashes(began)
    )  # fmt: skip
    lessons = [e for e in began if e.split == "train"]
    lessons[0].image.unlink()
    [older] = taught(run.folder)
    assert older.changed
    assert older.learned == {e.sha256 for e in lessons[1:]}
    run.learned.write_text("".join(f"{e.sha256}\n" for e in lessons))
    [listed] = taught(run.folder)
    assert not listed.changed
    assert listed.learned == {e.sha256 for e in lessons}


def _model(folder: Path, weights: str) -> Path:
    """What a base is known by."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    (folder / "model.safetensors").write_text(weights)
    return folder


def _taught_run(tmp_path: Path, name: str, base: str) -> Path:
    """A finished run from `base` that has learned from pictures of its own."""
    layouts.own(tmp_path / f"data-{name}")
    layouts.picture(tmp_path / f"data-{name}" / "tray" / "good" / "own.png", 70 + ord(name[-1]))
    data = {"paths": [str(tmp_path / f"data-{name}" / "tray")]}
    told = config.RunConfig.model_validate({"base": base, "data": data})
    known = "f" if base == "pocket" else bases.find(base).fingerprint
    made_by = None if base == "pocket" else runs.made_by(Path(base))
    run = runs.open_run(tmp_path / name, "sft", told, base=known, made_by=made_by, data={})
    card = {"run": str(run.folder)}
    (_model(run.folder / "model", name) / "model_card.json").write_text(json.dumps(card))
    return run.folder


def _learned(tmp_path: Path, *names: str) -> set[str]:
    found = [e for name in names for e in open_source(tmp_path / f"data-{name}" / "tray")]
    return {e.sha256 for e in found if e.split == "train"}


def test_a_run_has_learned_what_the_runs_before_it_have(tmp_path: Path) -> None:
    """A base may be a run's folder, its model, a copy of that, or what no run has made."""
    first = _taught_run(tmp_path, "a", "pocket")
    second = _taught_run(tmp_path, "b", str(first))
    copy = shutil.copytree(second / "model", tmp_path / "copy")
    third = _taught_run(tmp_path, "c", str(copy))
    assert [one.of for one in taught(third)] == [third, second, first]
    assert trained_on(third) == _learned(tmp_path, "a", "b", "c")
    foreign = _taught_run(tmp_path, "d", str(_model(tmp_path / "foreign", "from elsewhere")))
    assert [one.gone for one in taught(foreign)] == [None]


def test_a_run_in_stages_is_gone_through_to_those_before_it(tmp_path: Path) -> None:
    """It learns from pictures that are made; what its base has learned counts all the same."""
    first = _taught_run(tmp_path, "a", "pocket")
    staged = tmp_path / "staged"
    _model(staged / "model", "made of kits")
    (staged / "config.json").write_text(json.dumps({"config": {}, "kit": "k"}))
    base = bases.find(str(first))
    runs.begin_staged(
        staged, "product", 0, base=base.folder, fingerprint=base.fingerprint, data={"tray": "k"}
    )
    (staged / "metrics.jsonl").touch()
    third = _taught_run(tmp_path, "c", str(staged))
    assert [one.of for one in taught(third)] == [third, staged, first]
    assert trained_on(third) == _learned(tmp_path, "a", "c")
    assert trained_on(staged) == _learned(tmp_path, "a")


def test_models_promoted_over_their_own_bases_are_followed_to_the_first(tmp_path: Path) -> None:
    """Each is trained from what lies in one place, and takes its place."""
    first = _taught_run(tmp_path, "a", "pocket")
    live = tmp_path / "live"
    shutil.copytree(first / "model", live)
    made = [first]
    for name in "bcd":
        made.append(_taught_run(tmp_path, name, str(live)))
        shutil.rmtree(live)
        shutil.copytree(made[-1] / "model", live)
    assert [(one.of, one.gone) for one in taught(made[-1])] == [(f, None) for f in made[::-1]]


@pytest.mark.parametrize("what", ["run", "base"])
def test_what_is_gone_is_told(tmp_path: Path, what: str) -> None:
    first = _taught_run(tmp_path, "a", "pocket")
    copy = shutil.copytree(first / "model", tmp_path / "copy")
    second = _taught_run(tmp_path, "b", str(copy if what == "run" else first))
    shutil.rmtree(first)
    *_, last = taught(second)
    assert (last.of, last.gone) == (second, first)
    [note] = doubts(last, [])
    assert note.startswith(f"{first}, which made the base of {second}, is gone")


@pytest.mark.parametrize("base", ["the run", "a copy"])
def test_another_run_in_the_folder_of_the_one_that_made_a_base_is_not_it(
    tmp_path: Path, base: str
) -> None:
    first = _taught_run(tmp_path, "a", "pocket")
    copy = shutil.copytree(first / "model", tmp_path / "copy")
    second = _taught_run(tmp_path, "b", str(first if base == "the run" else copy))
    for folder in (first, tmp_path / "data-a"):
        shutil.rmtree(folder)
    _taught_run(tmp_path, "a", str(copy))
    (first / "model" / "model.safetensors").write_text("other weights")
    assert [(one.of, one.gone) for one in taught(second)] == [(second, first)]
    assert [(one.of, one.gone) for one in taught(first)] == [(first, first)]


def test_an_older_record_names_no_maker_and_it_is_looked_up(tmp_path: Path) -> None:
    first = _taught_run(tmp_path, "a", "pocket")
    second = _taught_run(tmp_path, "b", str(first))
    record = json.loads((second / "run.json").read_text())
    del record["base"]["made_by"]
    (second / "run.json").write_text(json.dumps(record))
    assert [(one.of, one.gone) for one in taught(second)] == [(second, None), (first, None)]
