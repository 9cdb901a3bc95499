"""The shipped Qwen configurations as they are, precision and distance to the base included."""

import shutil
from pathlib import Path

import pytest

from lad_agent.training import grpo, runs, sft
from lad_agent.training.config import RunConfig, changed, load
from tests.reasoners import toy
from tests.training.conftest import own_pictures

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("_one_thread")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_pictures(tmp_path_factory.mktemp("data") / "toy", 6, toy.DARK, striped=True)


def _small(name: str, base: Path, data: Path) -> RunConfig:
    """What is about size and time made small, and nothing else."""
    return changed(
        load(name),
        base=str(base),
        image_size=toy.SIZE,
        workers=0,
        samples=1,
        checkpoint_every=1,
        data={"paths": [data]},
        sft={"steps": 2, "batch": 2, "micro": 1},
        grpo={"steps": 2, "prompts": 2, "num_generations": 2, "micro": 2, "max_completion": 16},
    )


@pytest.mark.parametrize("name", ["qwen2.5-vl-3b-lora", "qwen2.5-vl-3b-full", "qwen2.5-vl-7b-lora"])
def test_both_stages_in_bfloat16_and_a_resume_that_is_held_to_the_same_base(
    name: str, taught: Path, data: Path, tmp_path: Path
) -> None:
    config, said = _small(name, taught, data), list[str]()
    assert (config.precision, config.grpo.beta > 0) == ("bfloat16", True)
    assert sft.train(config, tmp_path / "sft", say=said.append) is not None
    after = changed(config, base=str(tmp_path / "sft"), adapter="lora")
    whole = grpo.train(after, tmp_path / "grpo", say=said.append)
    assert whole is not None
    first = runs.last_metrics(runs.find_run(tmp_path / "grpo"))
    run = runs.find_run(tmp_path / "grpo")
    shutil.rmtree(run.checkpoints / "checkpoint-2")
    shutil.rmtree(whole)
    assert grpo.train(after, tmp_path / "grpo", resume=True, say=said.append) == whole
    again = runs.last_metrics(run)
    assert again["kl"] == pytest.approx(first["kl"], abs=1e-3)
    assert again["reward"] == first["reward"]
