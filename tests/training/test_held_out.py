"""Before and after on held-out pictures, and what is promoted by it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lad_agent import recipe
from lad_agent.errors import CheckFailed, UsageError
from lad_agent.training import bases, grpo, held_out, promotion, runs, sft, synloco
from lad_agent.training.config import RunConfig, changed
from lad_agent.training.evaluation import Judged, Truth, paired
from lad_agent.training.sources import open_source
from tests.calibrated import write_calibrated
from tests.cli.conftest import cli  # noqa: F401 - a fixture
from tests.reasoners import toy
from tests.training.conftest import own_pictures

pytestmark = pytest.mark.usefixtures("_one_thread")


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures that no training of this file sees."""
    folder = tmp_path_factory.mktemp("held") / "toy"
    return own_pictures(folder, 6, toy.DARK, first=100, striped=True)


@pytest.fixture(scope="module")
def compared(small: Path, taught: Path, held: Path) -> dict[str, Any]:
    """The random toy, then the taught one."""
    return held_out.compare(bases.find(str(small)), bases.find(str(taught)), held)


def _run(folder: Path, base: Path, model: Path, held: Path | None) -> Path:
    """A finished run from `base` whose result is `model`."""
    config = RunConfig.model_validate({"base": str(base), "data": {"held_out": held}})
    found = bases.find(str(base))
    made_by = runs.made_by(found.adapter or found.folder)
    run = runs.open_run(folder, "sft", config, base=found.fingerprint, made_by=made_by, data={})
    shutil.copytree(model, run.folder / "model")
    return run.folder


def _moved(before: float, after: float, low: float, high: float) -> dict[str, Any]:
    return {
        "before": before, "after": after, "difference": after - before, "interval": [low, high]
    }  # fmt: skip


def _found(
    overkill: dict[str, Any] | None = None,
    coverage: dict[str, Any] | None = None,
    **groups: tuple[dict[str, Any], dict[str, Any]],
) -> dict[str, Any]:
    """Figures as `compare` gives them: balanced accuracy and escapes of each group."""
    same = _moved(0.5, 0.5, -0.02, 0.02)
    more = {"overkill_rate": overkill or same, "coverage": coverage or same}
    return {
        "groups": {
            name: {
                "n": 60,
                "figures": {"balanced_accuracy": balanced, "escape_rate": escapes, **more},
            }
            for name, (balanced, escapes) in groups.items()
        }
    }


SAME = _moved(0.9, 0.9, -0.01, 0.01)


def _judged(good: int, bad: int) -> list[Judged]:
    """Wrong about one in ten."""
    judged = []
    for number in range(good + bad):
        anomalous = number >= good
        said = anomalous is not (number % 10 == 5)
        truth = Truth(
            "toy", anomalous, "bad" if anomalous else "good", None, "all", None, Path("a.png")
        )
        result = "NotOK" if said else "OK"
        judged.append(Judged(truth, said, 0.5 + said / 3, result, None, True, "unchecked"))
    return judged


def _alike(good: int, bad: int) -> dict[str, Any]:
    """As `compare` finds two models that make the same mistakes."""
    judged = _judged(good, bad)
    figures = paired([judged], [judged], held_out.RESAMPLING)
    return {"groups": {"all": {"n": good + bad, "figures": figures}}}


def test_both_models_are_judged_on_the_same_pictures(compared: dict[str, Any], held: Path) -> None:
    assert compared["held_out"] == str(held)
    groups = compared["groups"]
    assert [(name, group["n"]) for name, group in groups.items()] == [("all", 12), ("toy", 12)]
    moved = groups["all"]["figures"]["balanced_accuracy"]
    assert moved["before"] == 0.0  # a random model has no well-formed answer
    assert moved["after"] > 0.4
    assert moved["interval"][0] > 0
    assert held_out.worse(compared) is None
    assert json.loads(json.dumps(compared)) == compared
    table = held_out.table(compared)
    assert "| all | 12 | bal. acc. | 0.000 |" in table
    assert len({line.count("|") for line in table.splitlines()}) == 1


def test_verdicts_are_written_and_read_again(taught: Path, held: Path, tmp_path: Path) -> None:
    examples = held_out.pictures(held)
    done: list[int] = []
    judged = held_out.judge(bases.find(str(taught)), examples, done.append)
    assert done == [12]
    held_out.write(tmp_path / "a.jsonl", judged, examples)
    assert held_out.read(tmp_path / "a.jsonl", examples) == judged
    assert held_out.read(tmp_path / "a.jsonl", examples[1:]) is None
    assert held_out.read(tmp_path / "b.jsonl", examples) is None


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (_found(all=(SAME, SAME)), None),
        (_found(all=(_moved(0.90, 0.91, -0.01, 0.03), SAME)), None),
        (
            _found(all=(_moved(0.90, 0.85, -0.08, -0.01), SAME)),
            "of all went from 0.900 to 0.850",
        ),
        (
            _found(all=(SAME, _moved(0.1, 0.2, 0.02, 0.2))),
            "escapes of all went from 0.1",
        ),
        (
            _found(all=(SAME, SAME), overkill=_moved(0.1, 0.2, 0.02, 0.2)),
            "overkill of all went from 0.100 to 0.200",
        ),
        (_found(all=(SAME, SAME), overkill=_moved(0.2, 0.1, -0.2, -0.02)), None),
        (
            _found(all=(SAME, SAME), coverage=_moved(0.94, 0.0, -0.97, -0.9)),
            "coverage of all went from 0.940 to 0.000",
        ),
        (_found(all=(SAME, SAME), coverage=_moved(0.9, 0.94, 0.01, 0.06)), None),
        (_found(all=(SAME, SAME), nuts=(_moved(0.9, 0.5, -0.5, -0.2), SAME)), "of nuts went from"),
        (_found(all=(_moved(0.9, 0.9, -0.06, 0.06), SAME)), "leave open that .* fell by 0.060"),
        (_found(all=(_moved(0.9, 0.9, 0.0, 0.0), SAME)), None),
        (_alike(2, 2), r"fell by 0.595; hold out more, no fewer than 129 good and 129 anom"),
        (_alike(128, 128), "leave open"),
        (_alike(129, 129), None),
        (_alike(1000, 20), "leave open that balanced accuracy fell by 0.084"),
        (_alike(200, 150), None),
    ],
)
def test_worse_is_what_chance_does_not_explain_or_the_pictures_leave_open(
    found: dict[str, Any], why: str | None
) -> None:
    said = held_out.worse(found)
    if why is None:
        assert said is None
    else:
        assert said is not None
        assert re.search(why, said)


def test_a_model_that_has_lost_its_confidence_decides_nothing() -> None:
    """The verdicts are as they were: below `min_confidence` every part goes to people."""
    compared = _alike(200, 200)
    assert "| all | 400 | coverage | 1.000 | 1.000 |" in held_out.table(compared)
    assert "| all | 400 | overkill | 0.100 | 0.100 |" in held_out.table(compared)
    sure = _judged(200, 200)
    unsure = [replace(j, result="NotDecidable") for j in sure]
    figures = paired([sure], [unsure], held_out.RESAMPLING)
    compared = {"groups": {"all": {"n": 400, "figures": figures}}}
    assert figures["balanced_accuracy"]["difference"] == 0.0
    assert "coverage of all went from 1.000 to 0.000" in str(held_out.worse(compared))


def test_how_many_pictures_are_wanted_depends_on_the_tolerance() -> None:
    assert held_out.worse(_alike(51, 51), tolerance=0.05) is None
    assert "no fewer than 51 good and 51" in str(held_out.worse(_alike(50, 50), tolerance=0.05))
    assert "no number of pictures shows that" in str(held_out.worse(_alike(200, 200), tolerance=0))


def test_pictures_of_one_class_prove_nothing() -> None:
    none = {"before": None, "after": None, "difference": None, "interval": None}
    assert "one class" in str(held_out.worse(_found(all=(none, none))))


def _config(base: Path, data: Path, held: Path | None = None) -> RunConfig:
    """A run of one step."""
    return RunConfig.model_validate(
        {
            "base": str(base),
            "image_size": toy.SIZE,
            "data": {"paths": [str(data)], "held_out": held},
            "samples": 0,
            "sft": {"steps": 1, "batch": 2, "micro": 2},
        }
    )


def test_a_product_without_a_recipe_stops_a_run_before_it_starts(
    small: Path, tmp_path: Path
) -> None:
    held = own_pictures(tmp_path / "held" / "toy", 2, toy.DARK, striped=True)
    (held / "recipe.yaml").unlink()
    data = own_pictures(tmp_path / "data" / "toy", 4, toy.DARK)
    config = _config(small, data, held)
    for train, settings in (
        (sft.train, config),
        (grpo.train, changed(config, base="pocket", data={"paths": []})),
    ):
        with pytest.raises(UsageError, match=r"no recipe\.yaml for toy"):
            train(settings, tmp_path / "run", say=lambda text: None)
        assert not (tmp_path / "run").exists()


def test_a_run_tells_how_it_went_on_held_out_pictures(
    small: Path, held: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended while it judges them, it is resumed by judging them, and by nothing else."""
    config = _config(small, own_pictures(tmp_path / "toy", 4, toy.DARK), held)
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(held_out, "compare", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            sft.train(config, run, say=lambda text: None)
    made = (run / "adapter" / "adapter_model.safetensors").stat()
    with pytest.raises(UsageError, match="another seed"):
        sft.train(changed(config, seed=1), run, resume=True, say=lambda text: None)
    said: list[str] = []
    assert sft.train(config, run, resume=True, say=said.append) == run / "adapter"
    assert (run / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns == made.st_mtime_ns
    assert len(runs.read_lines(run / "metrics.jsonl")) == 1
    kept = json.loads((run / "held_out.json").read_text())
    assert kept["models"]["before"] == bases.find(str(small)).fingerprint
    assert kept["models"]["after"] == bases.find(str(run)).fingerprint
    assert held_out.table(kept) in said
    with pytest.raises(UsageError, match="has finished"):
        sft.train(config, run, resume=True, say=lambda text: None)


def _interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_a_better_model_takes_the_others_place(
    small: Path, taught: Path, held: Path, tmp_path: Path
) -> None:
    run, to = _run(tmp_path / "run", small, taught, held), tmp_path / "live"
    shutil.copytree(small, to)
    compared = promotion.compare(run, to)
    promotion.promote(run, to, compared)
    assert bases.find(str(to)).fingerprint == bases.find(str(taught)).fingerprint
    before = to.with_name("live.previous")
    assert bases.find(str(before)).fingerprint == bases.find(str(small)).fingerprint
    record = json.loads((run / promotion.RECORD).read_text())
    assert record["to"] == str(to)
    assert record["groups"] == compared["groups"]


def test_a_broken_off_promotion_is_told(
    small: Path, taught: Path, held: Path, tmp_path: Path
) -> None:
    """Killed between two renames: what was in use is not to be passed over for the run's base."""
    run, to = _run(tmp_path / "run", small, taught, held), tmp_path / "live"
    shutil.copytree(small, to.with_name("live.previous"))
    with pytest.raises(UsageError, match=r"live: gone.*move .*live\.previous back there"):
        promotion.compare(run, to)


def test_thresholds_of_a_calibration_judge_no_other_confidence(tmp_path: Path) -> None:
    line = shutil.copytree(recipe.shipped("screw_bag").parent, tmp_path / "line")
    made = write_calibrated(tmp_path / "made").calibration
    assert made is not None
    data = made.model_dump_json().encode()
    (line / "made.json").write_bytes(data)
    named = {"file": "made.json", "sha256": hashlib.sha256(data).hexdigest(), "promise": "kept"}
    text = (line / "recipe.yaml").read_text().replace("policy:", "policy:\n  pass_confidence: 1.0")
    (line / "recipe.yaml").write_text(f"{text}\ncalibration: {json.dumps(named)}\n")
    assert recipe.load(line / "recipe.yaml").policy.pass_confidence == 1.0
    (line / "good").mkdir()
    shown = synloco.sample("screw_bag", 7, 0, "train", 196, "normal").photo.image
    Image.fromarray(shown).save(line / "good/1.png")
    (judged,) = held_out.judge(bases.find("pocket"), list(open_source(line)))
    assert judged.result == "OK"


def test_a_worse_model_is_refused(
    cli: Any,  # noqa: F811
    small: Path,
    taught: Path,
    held: Path,
    tmp_path: Path,
) -> None:
    run, to = _run(tmp_path / "run", taught, small, held), tmp_path / "live"
    ran = cli("train", "promote", run, "--to", to)
    assert ran.code == 5
    assert "not promoted: bal. acc. of all went from" in ran.error
    assert "| all | 12 | bal. acc. |" in ran.out
    assert not to.exists()
    with pytest.raises(CheckFailed, match="not promoted"):
        promotion.promote(run, to, promotion.compare(run, to))


def test_the_set_that_a_run_was_judged_by_stays_as_it_is(
    small: Path, taught: Path, held: Path, tmp_path: Path
) -> None:
    mine = shutil.copytree(held, tmp_path / "held" / "toy")
    run = _run(tmp_path / "run", small, taught, mine)
    judged = held_out.compare(bases.find(str(small)), bases.find(str(taught)), mine)
    (run / "held_out.json").write_text(json.dumps(judged))
    assert promotion.compare(run, tmp_path / "live")["digest"] == judged["digest"]
    (mine / "good" / "100.png").unlink()
    with pytest.raises(
        CheckFailed, match=r"toy: not the pictures and labels that .*run was judged"
    ):
        promotion.compare(run, tmp_path / "live")
    assert promotion.compare(run, tmp_path / "live", mine)["digest"] != judged["digest"]


def test_earlier_lessons_are_known_of_models_and_of_their_copies(
    small: Path, taught: Path, held: Path, tmp_path: Path
) -> None:
    """The first run learns from a held-out picture, the second one goes on from its result."""
    data = own_pictures(tmp_path / "data" / "toy", 4, toy.DARK, first=50)
    shutil.copy(held / "good" / "100.png", data / "good")
    config = changed(_config(small, data), adapter="full")
    first = tmp_path / "first"
    sft.train(config, first, say=lambda text: None)
    live = tmp_path / "live"
    shutil.copytree(first / "model", live)
    for name in (first, first / "model", live):
        second = _run(tmp_path / "second", name, taught, held)
        with pytest.raises(CheckFailed, match="1 held-out pictures are learned from"):
            promotion.compare(second, tmp_path / "new")
        shutil.rmtree(second)
    shutil.rmtree(first)
    second = _run(tmp_path / "second", live, taught, held)
    with pytest.raises(CheckFailed, match=r"second: the run that made its base, .*first, is gone"):
        promotion.compare(second, tmp_path / "new")


def test_pictures_that_were_moved_after_they_were_learned_from_are_known(
    small: Path, taught: Path, tmp_path: Path
) -> None:
    """An older run has no list of its lessons."""
    data = own_pictures(tmp_path / "data" / "toy", 6, toy.DARK, striped=True)
    run = tmp_path / "run"
    sft.train(changed(_config(small, data), adapter="full"), run, say=lambda text: None)
    learned = (run / "learned.txt").read_text().split()
    assert set(learned) == {e.sha256 for e in open_source(data) if e.split == "train"}
    moved = own_pictures(tmp_path / "held" / "toy", 1, toy.DARK, first=100, striped=True)
    for name in ("good", "bad/no_lamp"):
        for number in (0, 1, 2):
            (data / name / f"00{number}.png").rename(moved / name / f"00{number}.png")
    there = len({e.sha256 for e in open_source(moved)} & set(learned))
    assert there
    with pytest.raises(CheckFailed, match=f"{there} held-out pictures are learned from"):
        promotion.compare(run, tmp_path / "live", moved)
    data.rename(tmp_path / "archived")
    with pytest.raises(CheckFailed, match=f"{there} held-out pictures are learned from"):
        promotion.compare(run, tmp_path / "live", moved)
    (tmp_path / "archived").rename(data)
    (run / "learned.txt").unlink()
    with pytest.raises(CheckFailed, match=r"run: its pictures have changed since .* put them back"):
        promotion.compare(run, tmp_path / "live", moved)


def test_an_adapter_is_judged_on_the_base_that_it_was_made_for(
    small: Path, taught: Path, held: Path, tmp_path: Path
) -> None:
    data = own_pictures(tmp_path / "toy", 4, toy.DARK)
    for name, base in (("one", small), ("other", taught)):
        sft.train(_config(base, data), tmp_path / name, say=lambda text: None)
    live = tmp_path / "live"
    shutil.copytree(tmp_path / "one" / "adapter", live)
    compared = promotion.compare(tmp_path / "one", live, held)
    assert compared["models"]["before"] == compared["models"]["after"]
    with pytest.raises(UsageError, match="live: holds an adapter of another base, the run's is of"):
        promotion.compare(tmp_path / "other", live, held)
    (live / "model_card.json").unlink()
    with pytest.raises(UsageError, match="of a base that it does not name"):
        promotion.compare(tmp_path / "one", live, held)


def test_what_cannot_be_compared_is_said(
    small: Path, taught: Path, held: Path, tmp_path: Path
) -> None:
    run = _run(tmp_path / "run", small, taught, None)
    with pytest.raises(UsageError, match="names no held-out pictures"):
        promotion.compare(run, tmp_path / "live")
    (tmp_path / "letters").mkdir()
    with pytest.raises(UsageError, match="holds neither model nor adapter"):
        promotion.compare(run, tmp_path / "letters", held)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(UsageError, match="holds an adapter, the run made a model"):
        promotion.compare(run, tmp_path / "adapter", held)


def test_a_run_in_stages_is_judged_beside_what_is_in_use(
    small: Path, taught: Path, held: Path, tmp_path: Path
) -> None:
    """It names neither held-out pictures nor a base that judges the same products."""
    run, to = tmp_path / "run", tmp_path / "live"
    shutil.copytree(taught, run / "model")
    (run / "config.json").write_text("{}")
    runs.begin_staged(run, "pocket", 0, base=None, data={})
    (run / "metrics.jsonl").touch()
    with pytest.raises(UsageError, match="names no held-out pictures"):
        promotion.compare(run, to)
    with pytest.raises(UsageError, match=r"no model to judge .* copy .*model there as the first"):
        promotion.compare(run, to, held)
    shutil.copytree(small, to)
    promotion.promote(run, to, promotion.compare(run, to, held))
    assert bases.find(str(to)).fingerprint == bases.find(str(taught)).fingerprint
    went_on = _run(tmp_path / "sharper", run, taught, held)
    assert promotion.compare(went_on, to)["models"]["before"] == bases.find(str(run)).fingerprint
