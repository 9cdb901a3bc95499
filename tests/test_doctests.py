"""Every example in a docstring is run."""

import doctest
import importlib
from pathlib import Path

import pytest

import lad_agent

ROOT = Path(lad_agent.__file__).parent
MODULES = sorted(
    ".".join(["lad_agent", *path.relative_to(ROOT).with_suffix("").parts])
    for path in ROOT.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert attempted > 0
    assert failed == 0


def test_every_reward_has_examples() -> None:
    rewards = {path.stem for path in (ROOT / "training" / "rewards").glob("*.py")}
    rewards -= {"__init__", "case"}
    assert {f"lad_agent.training.rewards.{name}" for name in rewards} <= set(MODULES)
