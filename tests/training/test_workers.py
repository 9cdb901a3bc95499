"""Processes that share work end with the one that started them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lad_agent.training import workers

ROOT = Path(__file__).parents[2]
START = """
import signal, sys
from pathlib import Path
from lad_agent.training.pocket import run
from tests.training.test_workers import work
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts what runs in its background
    run.share(2, work, Path(sys.argv[1]))
"""
DRAW = """
import sys
from pathlib import Path
from lad_agent.training.workers import pool
from tests.training.test_workers import work
if __name__ == "__main__":
    with pool(2) as processes:
        list(processes.map(work, [Path(sys.argv[1])] * 2))
"""
SINGLE = """
import multiprocessing, sys
from pathlib import Path
from tests.training.test_workers import work_alone
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    for _ in range(2):
        context.Process(target=work_alone, args=(Path(sys.argv[1]),)).start()
"""


def work(out: Path) -> None:
    """Be there for a minute."""
    (out / f"{os.getpid()}.pid").touch()
    time.sleep(60)


def work_alone(out: Path) -> None:
    """The same in a process of no pool."""
    workers.end_with_parent()
    work(out)


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for a signal")
@pytest.mark.parametrize("start", [pytest.param(START, marks=pytest.mark.slow), DRAW, SINGLE])
def test_none_works_on_when_the_first_is_killed(start: str, tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", start, str(tmp_path)], cwd=ROOT)
    try:
        started = _until(lambda: len(list(tmp_path.glob("*.pid"))) == 2, 120)
        assert started, "the processes did not start"
        children = [int(path.stem) for path in tmp_path.glob("*.pid")]
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert _until(lambda: not any(map(_lives, children)), 20)


def _until(holds: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.1)
    return holds()


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
