"""A training that is killed with SIGKILL goes on as if nothing had happened."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lad_agent.training import runs, sft
from lad_agent.training.config import RunConfig, dump
from tests.reasoners import toy
from tests.training.conftest import own_pictures

pytestmark = pytest.mark.usefixtures("_one_thread")

ROOT = Path(__file__).parents[2]
STEPS, BATCH = 40, 4


def _command(folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "tests.training.seen_cli", str(folder / "seen.jsonl")),
        *("train", "sft", "--config", str(folder / "config.yaml"), "--out", str(folder / "run")),
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_and_resumed_it_sees_and_loses_what_it_would_have(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = own_pictures(tmp_path / "toy", 6, toy.DARK)
    config = RunConfig.model_validate(
        {
            "base": str(small),
            "image_size": toy.SIZE,
            "data": {"paths": [str(data)]},
            "log_every": 1,
            "checkpoint_every": 3,
            "samples": 0,
            "sft": {"steps": STEPS, "batch": BATCH, "micro": 2, "warmup": 0},
        }
    )
    (tmp_path / "config.yaml").write_text(dump(config))
    whole = _seen_in_one_go(config, tmp_path / "whole", monkeypatch)
    assert [row["position"] for row in whole] == list(range(STEPS * BATCH))

    metrics = tmp_path / "run" / "metrics.jsonl"
    child = subprocess.Popen(_command(tmp_path), cwd=ROOT, stdout=subprocess.DEVNULL)
    while child.poll() is None and len(runs.read_lines(metrics)) < 5:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    before = _seen(tmp_path)
    assert BATCH < len(before) < len(whole)
    assert before == whole[: len(before)]

    last = runs.last_checkpoint(runs.find_run(tmp_path / "run"))
    step = int(last.name.rpartition("-")[2]) if last else 0
    assert 0 < step < STEPS
    subprocess.run([*_command(tmp_path), "--resume"], cwd=ROOT, check=True, capture_output=True)
    assert _seen(tmp_path)[len(before) :] == whole[step * BATCH :]
    one, two = (
        [(e["step"], e["loss"], e["grad_norm"]) for e in runs.read_lines(path)]
        for path in (tmp_path / "whole" / "metrics.jsonl", metrics)
    )
    assert [entry[0] for entry in two] == list(range(1, STEPS + 1))
    assert one == two


def _seen(folder: Path) -> list[dict[str, int]]:
    lines = (folder / "seen.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _seen_in_one_go(
    config: RunConfig, out: Path, monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, int]]:
    seen: list[dict[str, int]] = []
    collate = sft.Collator.__call__

    def noting(self: sft.Collator, rows: Any) -> Any:
        seen.extend(dict(row) for row in rows)
        return collate(self, rows)

    with monkeypatch.context() as patched:
        patched.setattr(sft.Collator, "__call__", noting)
        sft.train(config, out, say=lambda text: None)
    return seen
