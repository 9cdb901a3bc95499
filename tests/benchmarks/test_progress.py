"""What a benchmark tells of how far it is."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import progress

ROOT = Path(progress.__file__).parents[1]


def test_a_log_gets_whole_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    assert list(progress.shown(iter("abc"), 3, "greedy")) == ["a", "b", "c"]
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "greedy: 1 of 3 batches, 0 s left",
        "greedy: 2 of 3 batches, 0 s left",
        "greedy: 3 batches in 0 s",
    ]
    assert "\r" not in told.err


def test_a_log_is_not_filled(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list(progress.shown(range(10_000), 10_000, "greedy"))) == 10_000
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_terminal_gets_a_bar_and_a_last_line() -> None:
    program = "from benchmarks.progress import shown; list(shown(range(3), 3, 'greedy'))"
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    subprocess.run(
        [sys.executable, "-c", program], stderr=theirs, cwd=ROOT, env=environment, check=True
    )
    os.close(theirs)
    told = b""
    try:
        while some := os.read(ours, 4096):
            told += some
    except OSError:  # a terminal that was closed
        pass
    os.close(ours)
    assert "100%" in told.decode()
    assert told.decode().rstrip().endswith("greedy: 3 batches in 0 s")
    assert "left" not in told.decode()
