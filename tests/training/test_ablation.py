"""The ablation, tiny: every arm is trained, judged, and found again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lad_agent.errors import CheckFailed, UsageError
from lad_agent.training import ablation, runs
from lad_agent.training.config import RunConfig, changed
from lad_agent.training.evaluation import Resampling
from tests.reasoners import toy
from tests.training.conftest import own_pictures

pytestmark = pytest.mark.usefixtures("_one_thread")

DRAWS = Resampling(draws=100, seed=0)


@pytest.fixture(scope="module")
def config(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    place = tmp_path_factory.mktemp("data")
    data = own_pictures(place / "taught" / "toy", 5, toy.GREEN)
    held = own_pictures(place / "held" / "toy", 4, toy.GREEN, first=100, striped=True)
    return RunConfig.model_validate(
        {
            "base": str(taught),
            "adapter": "full",
            "image_size": toy.SIZE,
            "data": {"paths": [str(data)], "held_out": str(held)},
            "samples": 0,
            "sft": {"steps": 2, "batch": 2, "micro": 2, "warmup": 0},
            "grpo": {
                "steps": 2, "prompts": 2, "num_generations": 2, "micro": 4, "beta": 0.0,
                "max_completion": toy.LIMIT, "warmup": 0,
            },
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(
    config: RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], list[str]]:
    out, said = tmp_path_factory.mktemp("ablation"), list[str]()
    found = ablation.run(config, out, seeds=1, warm_up=1, resampling=DRAWS, say=said.append)
    assert found is not None
    return out, found, said


def test_every_arm_starts_where_it_should(
    config: RunConfig, done: tuple[Path, dict[str, Any], list[str]]
) -> None:
    place = done[0] / "seed-0"
    held = {arm.name: runs.find_run(place / arm.name) for arm in ablation.ARMS}
    starts = {name: Path(run.config.base).name for name, run in held.items()}
    assert starts == {
        "base": Path(config.base).name, "sft": "base", "grpo": "base", "sft-grpo": "sft",
        "sft-sft": "sft", "captions": "base", "captions-grpo": "captions",
    }  # fmt: skip
    assert {name: run.stage for name, run in held.items() if "grpo" in name} == {
        "grpo": "grpo", "sft-grpo": "grpo", "captions-grpo": "grpo",
    }  # fmt: skip
    assert held["base"].config.sft.steps == 1
    assert held["captions"].config.sft.texts.caption == 1.0
    assert not list(place.glob("*/checkpoints"))


def test_the_control_takes_as_long_as_grpo_did(
    done: tuple[Path, dict[str, Any], list[str]],
) -> None:
    place = done[0] / "seed-0"
    seconds = {
        n: runs.last_metrics(runs.find_run(place / n))["seconds"] for n in ("sft", "sft-grpo")
    }
    steps = runs.find_run(place / "sft-sft").config.sft.steps
    assert steps == max(1, round(seconds["sft-grpo"] / (seconds["sft"] / 2)))


def test_the_table_has_a_row_an_arm_and_a_line_a_claim(
    done: tuple[Path, dict[str, Any], list[str]],
) -> None:
    out, found, _ = done
    assert json.loads((out / "ablation.json").read_text()) == found
    text = (out / "ablation.md").read_text()
    assert text == ablation.table(found) + "\n"
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(ablation.ARMS)
    assert len({row.count("|") for row in rows}) == 1
    assert "| SFT, then GRPO | 1 | " in text
    assert "bal. acc." in rows[0]
    claims = [line for line in text.splitlines() if line.startswith("- ")]
    assert len(claims) == len(ablation.CLAIMS)
    assert "over 1 seeds" in claims[0]
    assert "logical faults" not in text  # of these there are none
    claim = found["claims"][0] | {"logical": {"difference": 0.5, "interval": [0.25, 0.75]}}
    told = ablation.table(found | {"claims": [claim]})
    assert "; of logical faults alone +0.500 (+0.250 to +0.750): better" in told


@pytest.fixture
def _nothing_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trained or judged fails."""

    def never(*arguments: Any, **named: Any) -> None:
        raise AssertionError("trained or judged")

    for module, name in ((ablation.sft, "train"), (ablation.grpo, "train"),
                         (ablation.held_out, "judge")):  # fmt: skip
        monkeypatch.setattr(module, name, never)


@pytest.mark.usefixtures("_nothing_new")
def test_the_same_call_goes_on_where_it_was(
    config: RunConfig, done: tuple[Path, dict[str, Any], list[str]]
) -> None:
    """Nothing is trained or judged again."""
    out, found, _ = done

    again = ablation.run(config, out, seeds=1, warm_up=1, resampling=DRAWS, say=_quiet)
    assert again == found
    other = changed(config, sft={"steps": 3})
    with pytest.raises(UsageError, match="holds a run with other settings"):
        ablation.run(other, out, seeds=1, warm_up=1, resampling=DRAWS, say=_quiet)


@pytest.mark.usefixtures("_nothing_new")
def test_what_a_seed_started_from_stands_in_where_it_ended_itself(
    config: RunConfig, done: tuple[Path, dict[str, Any], list[str]], tmp_path: Path
) -> None:
    """Else only those that came through would count; what starts from it is not trained."""
    out = shutil.copytree(done[0], tmp_path / "out")
    for path in out.glob("seed-0/*/config.yaml"):
        path.write_text(path.read_text().replace(str(done[0]), str(out)))
    for name in ("grpo", "captions"):
        shutil.rmtree(out / "seed-0" / name / "model")
        (out / "seed-0" / f"{name}.jsonl").unlink()
        (out / "seed-0" / name / ablation.ENDED).write_text("every answer is yes\n")
    shutil.rmtree(out / "seed-0" / "captions-grpo")
    (out / "seed-0" / "captions-grpo.jsonl").unlink()

    found = ablation.run(config, out, seeds=1, warm_up=1, resampling=DRAWS, say=_quiet)
    assert found is not None
    stood = {name: one["stood_in"] for name, one in found["arms"].items()}
    ended = ("grpo", "captions", "captions-grpo")
    assert stood == {name: [0] if name in ended else [] for name in ablation.NAMES}
    base = found["arms"]["base"]
    for name in ended:
        assert found["arms"][name]["accuracy"] == base["accuracy"]
    moved = {(one["better"], one["than"]): one for one in found["claims"]}
    assert moved["captions-grpo", "captions"]["difference"] == 0.0
    assert all(one["seeds"] == [0] for one in found["claims"])
    text = ablation.table(found)
    assert "| GRPO only | 1 (1 ended) | " in text
    assert "| SFT only | 1 | " in text
    assert "seed-0/grpo ended itself, what it started from stands in for it: every" in text
    assert "- GRPO only, against base: +0.000 (" in text
    assert "balanced accuracy over 1 seeds, 1 of them ended: no more than chance" in text


@pytest.mark.slow
def test_some_arms_by_time_with_the_seeds_shared(config: RunConfig, tmp_path: Path) -> None:
    """Captions need their base; every seed takes as many steps as the time allows."""
    found = ablation.run(
        config, tmp_path, arms=["captions"], seeds=2, warm_up=1, minutes=0.01, jobs=2,
        resampling=DRAWS, say=_quiet,
    )  # fmt: skip
    assert found is not None
    assert found["chosen"] == ["base", "captions"]
    assert [found["arms"][name]["runs"] for name in found["chosen"]] == [2, 2]
    pace = runs.find_run(tmp_path / "pace" / "captions")
    assert pace.config.base == str(tmp_path / "pace" / "base")
    timed = runs.last_metrics(pace)
    held = [runs.find_run(tmp_path / f"seed-{seed}" / "captions").config for seed in (0, 1)]
    steps = max(1, round(0.6 / timed["seconds"] * timed["step"]))
    assert [one.sft.steps for one in held] == [steps, steps]
    assert held[0].seed != held[1].seed
    assert runs.find_run(tmp_path / "seed-0" / "base").config.sft.steps == 1
    assert "| base | 2 | " in ablation.table(found)
    assert "SFT only" not in ablation.table(found)


def test_pictures_that_cannot_be_read_any_more_end_no_arm(
    config: RunConfig, tmp_path: Path
) -> None:
    """An arm that ended itself is not tried again: what can be mended must not count as that."""
    data = own_pictures(tmp_path / "taught" / "toy", 5, toy.GREEN)
    config = changed(config, data={"paths": [data]})
    out = tmp_path / "out"
    assert ablation.run(config, out, arms=["sft"], seeds=1, warm_up=0, resampling=DRAWS, say=_quiet)
    begun = out / "seed-0" / "sft"
    shutil.rmtree(begun / "model")
    (begun / "checkpoints").mkdir()
    broken = next((data / "good").iterdir())
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckFailed, match="cannot be trained on"):
        ablation.run(config, out, arms=["sft"], seeds=1, warm_up=0, resampling=DRAWS, say=_quiet)
    assert not (begun / ablation.ENDED).exists()
    assert (begun / "checkpoints").exists()


def test_an_ablation_takes_no_reviews(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="an ablation learns from labelled pictures alone"):
        ablation.run(changed(config, data={"reviews": True}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_control_takes_as_long_as_grpo_did_whatever_time_was_planned(
    config: RunConfig, done: tuple[Path, dict[str, Any], list[str]], tmp_path: Path
) -> None:
    """GRPO may end early, with nothing left to learn."""
    out = shutil.copytree(done[0], tmp_path / "out")
    for name, steps, seconds in (("sft", 10, 20.0), ("sft-grpo", 3, 8.0)):
        last = {"step": steps, "seconds": seconds}
        (out / "seed-0" / name / "metrics.jsonl").write_text(json.dumps(last) + "\n")
    for name in ("sft", "grpo"):
        (out / "pace" / name).mkdir(parents=True)
        (out / "pace" / name / "metrics.jsonl").write_text('{"step": 20, "seconds": 10.0}\n')
    control = ablation.chosen(["sft-sft"])[-1]
    trial = ablation.Trial(config, out, (control,), (0,), 1, 60.0)
    own = ablation.settings(control, config, trial, out / "seed-0")
    assert own.sft.steps == 4


def test_arms_bring_what_they_are_measured_by() -> None:
    assert [arm.name for arm in ablation.chosen(["sft-sft"])] == [
        "base",
        "sft",
        "sft-grpo",
        "sft-sft",
    ]
    with pytest.raises(UsageError, match=r"no arm 'ppo'; known: base, sft, "):
        ablation.chosen(["ppo"])


def test_without_held_out_pictures(config: RunConfig, tmp_path: Path) -> None:
    bare = config.model_copy(update={"data": config.data.model_copy(update={"held_out": None})})
    with pytest.raises(UsageError, match="--held-out PATH"):
        ablation.run(bare, tmp_path, say=_quiet)


def _quiet(text: str) -> None:
    """Not a word."""
