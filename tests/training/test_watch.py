"""Runs that teach nothing are stopped, and said why."""

from dataclasses import replace

import pytest

from lad_agent.training.watch import WINDOW, Step, done, trouble

FINE = Step(well_formed=0.98, truncated=0.02, yes=0.5, dead=0.5, solved=0.4)
SOLVED = Step(well_formed=1.0, truncated=0.0, yes=0.5, dead=1.0, solved=1.0)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (replace(FINE, yes=1.0), "every answer says yes"),
        (replace(FINE, yes=0.0), "every answer says no"),
        (replace(FINE, truncated=1.0), "raise max_completion"),
        (replace(FINE, well_formed=0.0), "fine-tune first"),
        (replace(FINE, dead=1.0), "the form is learned, but the answers"),
        (replace(FINE, dead=1.0, well_formed=0.6), "choose prompts by difficulty"),
        (replace(SOLVED, yes=1.0), "every answer says yes"),
        (replace(SOLVED, yes=0.0), "every answer says no"),
    ],
)
def test_trouble_is_named_after_a_whole_window(bad: Step, words: str) -> None:
    assert words in (trouble([FINE] * 3 + [bad] * WINDOW) or "")
    assert trouble([FINE] * 3 + [bad] * (WINDOW - 1)) is None
    assert trouble([bad] * (WINDOW - 1)) is None
    assert trouble([bad] * WINDOW + [FINE]) is None


def test_a_run_that_learns_is_left_alone() -> None:
    assert trouble([]) is None
    assert trouble([replace(FINE, yes=0.9, dead=0.9)] * 50) is None


def test_groups_that_are_all_right_are_no_trouble() -> None:
    """One group in twenty may be all wrong; where more are, nothing teaches them."""
    assert trouble([SOLVED] * WINDOW) is None
    assert "are right" in (done([SOLVED] * WINDOW) or "")
    assert done([SOLVED] * (WINDOW - 1)) is None
    assert done([replace(SOLVED, dead=0.9, solved=0.9)] * WINDOW) is None
    for wrong, teaches_nothing in ((0.5, False), (1.0, True)):
        steps = [SOLVED] * (WINDOW - 1) + [replace(SOLVED, solved=1.0 - wrong)]
        assert (done(steps) is None) is teaches_nothing
        assert (trouble(steps) is not None) is teaches_nothing


def test_prompts_of_the_next_pool_must_be_right_too() -> None:
    assert done([SOLVED] * (WINDOW + 4), refresh=5) is None
    assert done([SOLVED] * (WINDOW + 5), refresh=5) is not None
