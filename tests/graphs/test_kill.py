"""SIGKILL at any moment: the next run finishes what was open, nothing twice."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lad_agent.store import InspectionFilter, open_store
from tests.scripted import write_parts, write_recipe

PARTS = 60
ROOT = Path(__file__).parents[2]


def _command(folder: Path, delay_s: float) -> list[str]:
    return [
        *(sys.executable, "-m", "tests.scripted_cli", str(delay_s)),
        *("inspect", str(folder / "parts"), "--store", str(folder / "audit.db")),
        *("--out", str(folder / "results.jsonl")),
    ]


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    few = os.environ | {"LAD_AGENT_IN_FLIGHT": "6"}
    return subprocess.Popen(
        command, cwd=ROOT, env=few, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def _done(folder: Path) -> int:
    if not (folder / "audit.db").exists():
        return 0
    with open_store(folder / "audit.db", create=False) as store:
        return store.count(InspectionFilter(complete=True))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_at_random_moments_each_part_is_recorded_once(tmp_path: Path) -> None:
    write_recipe(tmp_path / "parts", audit_rate=0.2)
    write_parts(tmp_path / "parts", PARTS)
    rng = random.Random()
    progressed = []
    for _ in range(4):
        child = _start(_command(tmp_path, 0.15))
        assert child.stderr is not None
        child.stderr.readline()
        time.sleep(rng.uniform(0.1, 0.9))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        progressed.append(_done(tmp_path))
    end = subprocess.run(_command(tmp_path, 0.0), cwd=ROOT, capture_output=True, text=True)
    assert end.returncode == 0, end.stderr
    with open_store(tmp_path / "audit.db", create=False) as store:
        inspected = store.inspections()
        reviews = store.reviews()
        assert store.verify_chain().intact
    assert len(inspected) == PARTS
    assert len({one.intake.part_id for one in inspected}) == PARTS
    assert all(one.outcome is not None for one in inspected)
    assert len(reviews) == len({review.inspected.id for review in reviews})
    escalated = [one for one in inspected if one.outcome and one.outcome.reason]
    assert len([review for review in reviews if review.kind == "escalation"]) == len(escalated)
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert len(lines) == PARTS
    assert progressed == sorted(progressed)
    assert any(0 < count < PARTS for count in progressed), "no kill was in the midst"
