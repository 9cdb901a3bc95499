"""A stage as it is shown while its processes append to metrics.jsonl."""

from __future__ import annotations

import os
import pty
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lad_agent.training import runs
from lad_agent.training.following import Following


def test_a_log_gets_plain_lines_of_this_stage_and_session(tmp_path: Path) -> None:
    metrics, said = tmp_path / "metrics.jsonl", list[str]()
    runs.add_line(metrics, {"stage": "rules", "step": 5, "loss": 2.0})
    with Following(tmp_path, "rules", said.append) as following:
        runs.add_line(metrics, {"stage": "rules", "steps": 10000})
        runs.add_line(metrics, {"stage": "other", "step": 1, "loss": 9.0})
        with metrics.open("a", encoding="utf-8") as file:
            file.write('{"stage": "rules", "step": 20, ')
            file.flush()
            _wait(lambda: len(said) == 1)
            assert not following.measured
            file.write('"loss": 0.123456, "seconds": 7.1}\n')
        runs.add_line(metrics, {"name": "trial", "spent": 1.0})
    assert said == ["rules: steps 10000", "rules: step 20 loss 0.1235"]
    assert following.measured


def test_a_terminal_gets_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, said = tmp_path / "metrics.jsonl", list[str]()
    metrics.touch()
    terminal, end = pty.openpty()
    with os.fdopen(end, "w") as screen, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", screen)
        patched.setenv("TERM", "xterm")
        with Following(tmp_path, "dense", said.append) as following:
            following.shards("pictures", 1000)(1, 2)
            following.bar.refresh()
            runs.add_line(metrics, {"stage": "dense", "steps": 80})
            runs.add_line(metrics, {"stage": "dense", "step": 20, "cells": 0.5, "counts": 0.25})
            _wait(lambda: following.measured)
            following.bar.refresh()
        screen.flush()
        shown = ""
        while "20/80" not in shown:
            ready, _, _ = select.select([terminal], [], [], 20)
            assert ready, shown
            shown += os.read(terminal, 100_000).decode(errors="replace")
    os.close(terminal)
    assert said == []
    assert "1000/2000" in shown
    assert "dense  loss 0.75" in shown
    assert "20/80" in shown


def _wait(ready: Callable[[], bool]) -> None:
    """Until the thread has come round."""
    until = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < until
        time.sleep(0.05)
