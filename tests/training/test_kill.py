"""A training that is killed with SIGKILL goes on as if nothing had happened."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lad_agent.training import grpo, runs, sft
from lad_agent.training.config import RunConfig, dump
from tests.reasoners import toy
from tests.training import seen_cli
from tests.training.conftest import own_pictures

pytestmark = pytest.mark.usefixtures("_one_thread")

ROOT = Path(__file__).parents[2]
STEPS, BATCH, TRIES = 40, 4, 10


def _config(base: Path, data: Path, **own: Any) -> RunConfig:
    shared = {"base": str(base), "image_size": toy.SIZE, "data": {"paths": [str(data)]}}
    return RunConfig.model_validate({**shared, "checkpoint_every": 2, "samples": 0, **own})


def _command(folder: Path, stage: str) -> list[str]:
    return [
        *(sys.executable, "-m", "tests.training.seen_cli", str(folder / "seen.jsonl")),
        *("train", stage, "--config", str(folder / "config.yaml"), "--out", str(folder / "run")),
    ]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_and_resumed_it_sees_and_loses_what_it_would_have(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = own_pictures(tmp_path / "toy", 6, toy.DARK)
    taught = {"steps": STEPS, "batch": BATCH, "micro": 2, "warmup": 0}
    config = _config(small, data, log_every=1, sft=taught)
    whole: list[Mapping[str, Any]] = []
    with monkeypatch.context() as patched:
        seen_cli.noting_rows(whole.append, patched.setattr)
        sft.train(config, tmp_path / "whole", say=lambda text: None)
    assert [row["position"] for row in whole] == list(range(STEPS * BATCH))
    before, step = _kill(tmp_path, "sft", config)
    assert BATCH < len(before) < len(whole)
    assert before == whole[: len(before)]
    assert _resume(tmp_path, "sft")[len(before) :] == whole[step * BATCH :]
    one, two = (
        [(e["step"], e["loss"], e["grad_norm"]) for e in runs.read_lines(path)]
        for path in (tmp_path / "whole" / "metrics.jsonl", tmp_path / "run" / "metrics.jsonl")
    )
    assert [entry[0] for entry in two] == list(range(1, STEPS + 1))
    assert one == two


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_and_resumed_it_tries_and_answers_what_it_would_have(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts come from pools that the model of their step has chosen."""
    data = own_pictures(tmp_path / "toy", 6, toy.GREEN)
    tried = {
        "steps": TRIES, "prompts": 2, "num_generations": 4, "micro": 8, "pool": 4, "refresh": 4,
        "max_completion": toy.LIMIT, "warmup": 0, "beta": 0.0,
    }  # fmt: skip
    config = _config(taught, data, adapter="full", grpo=tried)
    whole: list[Mapping[str, Any]] = []
    with monkeypatch.context() as patched:
        seen_cli.noting_answers(whole.append, patched.setattr)
        grpo.train(config, tmp_path / "whole", say=lambda text: None)
    assert [entry["k"] for entry in whole] == [k for k in range(2 * TRIES) for _ in range(4)]
    before, step = _kill(tmp_path, "grpo", config)
    assert 8 < len(before) < len(whole)
    assert before == whole[: len(before)]
    assert _resume(tmp_path, "grpo")[len(before) :] == whole[8 * step :]
    one, two = (
        [entry["positions"] for entry in runs.read_lines(tmp_path / name / "pools.jsonl")]
        for name in ("whole", "run")
    )
    assert len(one) == -(-TRIES // 4)
    assert one == two


def _kill(folder: Path, stage: str, config: RunConfig) -> tuple[list[dict[str, Any]], int]:
    """Start a run in a process, kill it after some steps; what it had seen, and the step of its
    last whole checkpoint."""
    (folder / "config.yaml").write_text(dump(config))
    metrics = folder / "run" / "metrics.jsonl"
    child = subprocess.Popen(_command(folder, stage), cwd=ROOT, stdout=subprocess.DEVNULL)
    while child.poll() is None and len(runs.read_lines(metrics)) < 4:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    step = runs.last_step(runs.find_run(folder / "run"))
    assert 0 < step < getattr(config, stage).steps
    return runs.read_lines(folder / "seen.jsonl"), step


def _resume(folder: Path, stage: str) -> list[dict[str, Any]]:
    """Let it go on to its end; all that it has seen."""
    command = [*_command(folder, stage), "--resume"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return runs.read_lines(folder / "seen.jsonl")
