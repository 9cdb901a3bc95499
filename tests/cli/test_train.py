"""`lad-agent train`: findings in the store become lessons."""

from __future__ import annotations

from pathlib import Path

import pytest

from lad_agent.inspection import ReviewDecision
from lad_agent.judgement import Disposition, Finding
from lad_agent.store import open_store
from tests.cli.conftest import Cli
from tests.scripted import Scripted, malformed


@pytest.fixture
def reviewed(cli: Cli, tray: Path, reasoner: Scripted) -> list[Path]:
    """Of twelve parts ten are decided, every other one nonconforming; those for scrap are as
    conforming as their finding says. Returns the pictures."""
    reasoner.script = malformed
    assert cli("inspect", tray).code == 0
    with open_store("lad-agent.db", create=False) as audit:
        reviews = audit.reviews()
        for number, review in enumerate(reviews[:10]):
            bad = number % 2 == 1
            audit.decide_review(
                review.id,
                ReviewDecision(
                    finding=Finding.NONCONFORMING if bad else Finding.CONFORMING,
                    disposition=Disposition.USE_AS_IS if bad else None,
                    rule="R1" if bad else None,
                    comment="seen by eye",
                    by="ana",
                ),
            )
    return [Path(review.inspected.intake.image) for review in reviews]


def test_a_dry_run_learns_from_what_people_found(cli: Cli, reviewed: list[Path]) -> None:
    """A picture that has left the line is taken from the store's copy."""
    reviewed[0].unlink()
    ran = cli("train", "sft", "--config", "pocket", "--from-reviews", "--dry-run")
    assert ran.code == 0, ran.err
    assert "10 pictures to learn from" in ran.out
    assert "a step on this device: about " in ran.out


def test_findings_are_no_lessons_under_rules_that_came_later(
    cli: Cli, reviewed: list[Path], tray: Path
) -> None:
    recipe = tray / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("exactly 2", "exactly 3"))
    ran = cli("train", "sft", "--config", "pocket", "--from-reviews", "--dry-run")
    assert ran.code == 2
    assert f"all 10 findings were made under another task than {recipe} asks now" in ran.error


def test_no_decision_no_lesson(cli: Cli, reviewed: list[Path]) -> None:
    ran = cli("train", "sft", "--config", "pocket", "--from-reviews", "--since", "2099-01-01",
              "--dry-run")  # fmt: skip
    assert ran.code == 2
    assert "no decided review names a picture to learn from" in ran.error


def test_a_picture_that_has_changed_since_is_named(cli: Cli, reviewed: list[Path]) -> None:
    for kept in Path("lad-agent.db.images").glob("*/*"):
        kept.unlink()
    reviewed[3].write_bytes(reviewed[4].read_bytes())
    ran = cli("train", "sft", "--config", "pocket", "--from-reviews", "--dry-run")
    assert ran.code == 5
    assert "has changed since ana reviewed it" in ran.error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sft", "--config", "pocket"), "name the run's folder: --out RUN"),
        (("grpo", "--config", "pocket"), "name the run's folder: --out RUN"),
        (("promote", "gone", "--to", "live"), "gone: holds no run of lad-agent train"),
    ],
)
def test_wrong_use_is_one_line(cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    ran = cli("train", *arguments)
    assert ran.code == 2
    assert words in ran.error
